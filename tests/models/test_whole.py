"""An image as a whole: the classifier's own features of Lite0, the last map of others."""

from typing import Any

import numpy as np
import timm
import torch
from PIL import Image

from latentseg.config import ModelConfig
from latentseg.models.encoders import lite0_state
from latentseg.models.segmenter import build_segmenter
from latentseg.models.whole import WholeImage, classifier_layer


def photo() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (90, 120, 3)).astype(np.uint8)


def test_lite0_gives_what_its_classifier_saw() -> None:
    config = ModelConfig(encoder="lite0", frozen=True)
    segmenter = build_segmenter(config, 3, 0).eval()
    found = WholeImage(segmenter, classifier_layer(config))(photo())
    net: Any = timm.create_model("tf_efficientnet_lite0").eval()
    net.load_state_dict(lite0_state())
    square = np.array(Image.fromarray(photo()).resize((224, 224), Image.Resampling.BILINEAR))
    images = torch.from_numpy(square).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        expected = net.forward_head(net.forward_features((images - 0.5) / 0.5), pre_logits=True)[0]
    assert found.shape == (1280,)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_others_give_the_mean_of_their_last_map() -> None:
    config = ModelConfig(encoder="resnet18", weights_kind="none", frozen=True)
    assert classifier_layer(config) is None
    segmenter = build_segmenter(config, 3, 0).eval()
    found = WholeImage(segmenter)(photo())
    square = np.array(Image.fromarray(photo()).resize((224, 224), Image.Resampling.BILINEAR))
    with torch.no_grad():
        last = segmenter.encode(torch.from_numpy(square).permute(2, 0, 1)[None].float() / 255)[-1]
    torch.testing.assert_close(found, last.mean((2, 3))[0])
    assert classifier_layer(ModelConfig(encoder="lite0", weights_kind="none")) is None


def test_the_layer_lies_where_the_encoder_does() -> None:
    config = ModelConfig(encoder="lite0", frozen=True)
    look = WholeImage(build_segmenter(config, 3, 0).to("meta"), classifier_layer(config))
    assert look.top is not None
    assert {tensor.device.type for tensor in look.top.state_dict().values()} == {"meta"}
    assert (look.name, WholeImage(look.segmenter).name) == ("top", "last")
