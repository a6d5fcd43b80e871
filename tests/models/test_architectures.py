"""Networks of segmentation_models_pytorch: as they are there, trained, resumed, predicted, refused."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from tiny import TINY, StoppedError, assert_same_run, on_call, stop

from latentseg.config import ModelConfig
from latentseg.errors import UserError
from latentseg.inference.model import Model
from latentseg.models import architectures
from latentseg.models.encoders import build_encoder
from latentseg.models.segmenter import Segmenter, build_segmenter
from latentseg.presets import load_config
from latentseg.training import loop
from latentseg.training.trainer import Trainer

SMALL = "smp:Unet/tu-mobilenetv3_small_050"
"""The smallest one at hand."""


def built(name: str = SMALL, num_latent: int = 0, frozen: bool = False) -> Segmenter:
    torch.manual_seed(0)
    return build_segmenter(ModelConfig(encoder=name, weights_kind="none", frozen=frozen), 3, num_latent)


@torch.no_grad()
def test_the_segmenter_computes_what_the_package_computes() -> None:
    ours: Any = built("smp:Unet/resnet18").eval()
    theirs: Any = smp.Unet("resnet18", encoder_weights=None, classes=3).eval()
    theirs.encoder.load_state_dict(ours.encoder.net.state_dict())
    theirs.decoder.load_state_dict(ours.semantic_head.decoder.state_dict())
    theirs.segmentation_head[0].load_state_dict(ours.semantic_head.classify.state_dict())
    images = torch.rand(2, 3, 64, 96).double()
    mean, std = (torch.tensor(colour).view(3, 1, 1) for colour in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    expected = theirs.double()((images - mean) / std)
    assert torch.allclose(ours.double()(images).semantic, expected, atol=1e-4)


FITS = {
    "Unet/mit_b0": ((4, 8, 16, 32), 1),  # its map of stride 2 has no channel
    "UnetPlusPlus/tu-mobilenetv3_small_050": ((2, 4, 8, 16, 32), 1),
    "MAnet/tu-mobilenetv3_small_050": ((2, 4, 8, 16, 32), 1),
    "Linknet/tu-mobilenetv3_small_050": ((2, 4, 8, 16, 32), 1),
    "FPN/tu-mobilenetv3_small_050": ((4, 8, 16, 32), 4),
    "PSPNet/resnet18": ((8,), 8),
    "DeepLabV3/resnet18": ((8,), 8),
    "DeepLabV3Plus/resnet18": ((4, 16), 4),
    "UPerNet/tu-mobilenetv3_small_050": ((4, 8, 16, 32), 4),
    "Segformer/mit_b0": ((4, 8, 16, 32), 4),
}


def test_the_table_has_every_architecture_that_fits() -> None:
    assert {name.partition("/")[0] for name in FITS} == set(architectures.FITTING)


@torch.no_grad()
@pytest.mark.parametrize("name", FITS)
def test_each_architecture_has_its_maps_and_its_grid(name: str) -> None:
    strides, grid = FITS[name]
    segmenter = built(f"smp:{name}", num_latent=5)
    assert segmenter.encoder.strides == strides
    images = torch.rand(2, 3, 32, 64)
    output = segmenter(images)
    assert output.latent is not None
    assert (output.semantic.shape, output.latent.shape) == ((2, 3, 32, 64), (2, 5, 32, 64))
    assert segmenter(images, upsample=False).semantic.shape == (2, 3, 32 // grid, 64 // grid)


def test_each_branch_has_a_decoder_of_its_own_at_the_rate_of_the_heads() -> None:
    segmenter = built(num_latent=4)
    groups = segmenter.parameter_groups()
    assert sum(map(torch.numel, groups["encoder"])) < sum(map(torch.numel, segmenter.encoder.parameters()))  # no gamma
    every = dict(segmenter.named_parameters())
    semantic, latent = (
        {key.removeprefix(head): value for key, value in every.items() if key.startswith(head)}
        for head in ("semantic_head.", "latent_head.")
    )
    assert semantic.keys() == latent.keys()
    assert not any(torch.equal(value, latent[key]) for key, value in semantic.items() if value.ndim == 4)
    assert len(groups["heads"]) == len(semantic) + len(latent)


def test_frozen_keeps_the_encoder_and_trains_the_decoder() -> None:
    segmenter = built(frozen=True)
    assert not any(parameter.requires_grad for parameter in segmenter.encoder.parameters())
    assert all(parameter.requires_grad for parameter in segmenter.semantic_head.parameters())
    assert not any(module.training for module in segmenter.encoder.modules())
    assert all(module.training for module in segmenter.semantic_head.modules())


OPTIONS = [*TINY, f"model.encoder={SMALL}", "steps=2", "checkpoint_every=1", "validate_every=1", "data.scenes.val=1"]


@pytest.mark.parametrize(
    ("method", "cached"), [("latent", False), ("latent_match", False), ("latent_match", True), ("unimatch", True)]
)
def test_methods_take_steps(tmp_path: Path, method: str, cached: bool) -> None:
    options = [option for option in OPTIONS if not option.startswith("method.") or method == "latent"]
    options += ["model.frozen=true", "cache=features", f"cache_folder={tmp_path}", "augment.views=1"] * cached
    options += [option for option in ("discriminator.downscale=1",) if method == "latent"]
    trainer = Trainer.open(load_config("scenes", [*options, f"method.name={method}"], keep_unread=True))
    before = {key: value.clone() for key, value in trainer.state.segmenter.state_dict().items()}
    trainer.seek(0)
    terms = trainer.step()
    assert all(bool(torch.isfinite(value)) for value in terms.values())
    after = trainer.state.segmenter.state_dict()
    changed = {key for key, value in after.items() if not torch.equal(value, before[key])}
    trainer.close()
    assert any(key.startswith("semantic_head.decoder.") for key in changed)
    assert any(key.startswith("encoder.") for key in changed) is not cached


def test_a_stopped_run_goes_on_bit_for_bit_and_predicts_at_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config("scenes", OPTIONS)
    whole = loop.train(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "read", on_call(2, Trainer.read, stop))
        with pytest.raises(StoppedError):
            loop.train(config, tmp_path / "parts")
    loop.train(config, tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    model = Model.open(whole.folder)
    for height, width in ((1, 7), (33, 50)):
        prediction = model.predict(np.zeros((height, width, 3), np.uint8))
        assert prediction.probs.shape == (len(model.classes), height, width)
        assert np.allclose(prediction.probs.sum(0), 1, atol=1e-5)


def test_the_hub_gives_weights_and_their_normalisation(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[Any] = []
    real = smp.FPN

    def hub(encoder_name: str, encoder_weights: str | None, classes: int) -> Any:
        wanted.append(encoder_weights)
        network: Any = real(encoder_name, encoder_weights=None, classes=classes)
        if encoder_weights:
            torch.nn.init.ones_(network.encoder.conv1.weight)
        return network

    told = {"input_space": "RGB", "input_range": [0, 255], "mean": [51, 102, 153], "std": [255, 51, 51]}
    monkeypatch.setattr(smp, "FPN", hub)
    monkeypatch.setattr(smp.encoders, "get_preprocessing_params", lambda *_, **__: told)
    config = ModelConfig(encoder="smp:FPN/resnet18", weights_kind="smp")
    encoder: Any = build_encoder(config)
    assert wanted == [None, "imagenet"]
    assert bool((encoder.net.conv1.weight == 1).all())
    assert np.allclose([encoder.mean, encoder.std], [[0.2, 0.4, 0.6], [1, 0.2, 0.2]])
    assert build_encoder(config, pretrained=False).mean == (0.485, 0.456, 0.406)
    assert wanted == [None, "imagenet", None]
    told["input_space"] = "BGR"
    with pytest.raises(UserError, match="colours in the order BGR"):
        build_encoder(config)


def test_weights_that_cannot_be_fetched_are_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> str:
        raise OSError("no network here\nand more")

    monkeypatch.setattr(smp.encoders, "hf_hub_download", offline)
    with pytest.raises(UserError, match=r"weights of smp:FPN/resnet18 cannot be fetched: no network here; fetch them"):
        build_encoder(ModelConfig(encoder="smp:FPN/resnet18", weights_kind="smp"))


REFUSED = {
    "unet/resnet18": "there is no architecture 'unet'; write it as smp:ARCHITECTURE/ENCODER, with Unet or",
    "Unet/resnet35": r"has no encoder 'resnet35' .*near: .*resnet34",
    "Unet": r"has no encoder ''",
    "Unet/tu-resnet1888": r"near: .*tu-resnet18",
    "PAN/resnet18": "pools small images away; take one of Unet",
    "DPT/tu-vit_base_patch16_224": "images of one size only; take one of Unet",
    "Linknet/mit_b0": "Encoder `mit_b0` is not supported for Linknet; take another",
    "FPN/tu-vit_tiny_patch16_224": "does not segment images of multiples of 32 pixels",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=REFUSED[name]):
        build_encoder(ModelConfig(encoder=f"smp:{name}", weights_kind="none"))


def test_a_crop_off_the_grid_and_a_batch_of_one_are_refused() -> None:
    with pytest.raises(UserError, match=r"multiples of 32 pixels, not 33x64: .*augment.crop=\[64,64\]"):
        built()(torch.rand(1, 3, 33, 64))
    with pytest.raises(UserError, match=r"two images or more in each process: take batch_size=4 or more"):
        load_config("scenes", [*OPTIONS, "devices=2", "batch_size=2"])


def test_kinds_of_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match=r"takes model\.weights_kind=smp or latentseg or none"):
        build_encoder(ModelConfig(encoder=SMALL))
    with pytest.raises(UserError, match=r"model.weights=a.pth is not read with model.weights_kind=smp"):
        build_encoder(ModelConfig(encoder=SMALL, weights_kind="smp", weights="a.pth"))


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(UserError, match=r"pip install 'latentseg\[smp\]'"):
        build_encoder(ModelConfig(encoder=SMALL, weights_kind="none"))
