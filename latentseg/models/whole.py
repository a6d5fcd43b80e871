"""An image as a whole, in some hundred numbers: what is in it, not where."""

from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from latentseg.config import ModelConfig
from latentseg.models.encoders import LITE0, lite0_state
from latentseg.models.segmenter import Segmenter

SIDE = 224
"""Pixels of the square that an image is scaled to: ImageNet's size."""


class WholeImage:
    """The mean of the encoder's last map over an image that is scaled to a square.

    Args:
        segmenter: Whose encoder looks; on the device that computes.
        top: A layer that the maps go through first; None for none.

    Attributes:
        name: Which features these are, in the name of a file of them.
    """

    def __init__(self, segmenter: Segmenter, top: nn.Module | None = None) -> None:
        self.segmenter = segmenter
        self.top = None if top is None else top.to(segmenter.pixel_mean.device)
        self.name = "last" if top is None else "top"

    @torch.no_grad()
    def __call__(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Features of an image.

        Args:
            pixels: RGB, shape (h, w, 3).

        Returns:
            Shape (F,), float32, in the computer's own memory.
        """
        like = self.segmenter.pixel_mean
        height, width = self.segmenter.valid_size(SIDE, SIDE)
        square = np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
        images = torch.from_numpy(square).to(like.device).permute(2, 0, 1)[None].to(like.dtype) / 255
        last = self.segmenter.encode(images)[-1].float()
        return (last if self.top is None else self.top(last)).mean((2, 3))[0].cpu()


def classifier_layer(config: ModelConfig) -> nn.Module | None:
    """The layer that stands between an encoder's last map and the classifier that it was trained with.

    Lite0 has one, a 1x1 convolution to 1,280 channels, which tells kinds of objects better than the map before it.
    ResNets and most others have none.

    Args:
        config: The encoder's name and its weights.
    """
    if config.encoder != "lite0" or config.weights_kind != "lite0":
        return None
    net: Any = timm.create_model(LITE0)
    net.load_state_dict(lite0_state(config.weights))
    return nn.Sequential(net.conv_head, net.bn2).eval()
