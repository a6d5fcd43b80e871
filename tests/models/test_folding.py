"""BatchNorm folded into convolutions: same maps, fewer layers, and what cannot be folded stays as it is."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from latentseg.config import ModelConfig
from latentseg.models.encoders import Encoder, build_encoder
from latentseg.models.folding import folded
from latentseg.models.resnet import STRIDES, DeepLabResNet
from latentseg.models.segmenter import Segmenter

HALF = (0.5, 0.5, 0.5)


def norms(module: nn.Module) -> int:
    return sum(isinstance(part, _BatchNorm) for part in module.modules())


def lived(encoder: Encoder) -> Encoder:
    """Fresh statistics are 0 and 1, with which a wrong fold would be right."""
    generator = torch.Generator().manual_seed(1)
    for norm in encoder.modules():
        if isinstance(norm, _BatchNorm):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.normal_(generator=generator).mul_(0.1)
            norm.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(norm.weight, 0.5, 1.5, generator)
            nn.init.uniform_(norm.bias, -0.5, 0.5, generator)
    return encoder.eval()


def around(net: nn.Module, channels: tuple[int, ...] = (4,)) -> Encoder:
    return lived(Encoder(net, range(len(channels)), channels, STRIDES[: len(channels)], HALF, HALF, align_corners=True))


def deeplab() -> Encoder:
    net = DeepLabResNet((1, 1, 1, 1), width=4)
    return around(net, tuple(net.channels))


def segmenter(frozen: bool = False) -> Segmenter:
    options = {"encoder": "deeplab_resnet50", "weights_kind": "none", "head": "aspp", "frozen": frozen}
    return Segmenter(deeplab(), 3, 2, ModelConfig.model_validate(options))


@pytest.mark.parametrize("name", ["lite0", "deeplab_resnet50", "resnet18", "mobilenetv3_small_050"])
def test_a_folded_encoder_says_the_same_and_has_no_batchnorm(name: str) -> None:
    config = ModelConfig(encoder=name, weights_kind="none")
    encoder = deeplab() if name.startswith("deeplab") else lived(build_encoder(config))
    before = copy.deepcopy(encoder.state_dict())
    images = torch.rand(2, 3, *encoder.valid_size(40, 70))
    found = folded(encoder)
    assert norms(found) == 0 < norms(encoder)
    with torch.no_grad():
        for ours, theirs in zip(found(images), encoder(images), strict=True):
            assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


def test_a_vision_transformer_is_left_as_it_is() -> None:
    encoder = build_encoder(ModelConfig(encoder="test_vit", weights_kind="none", head_stride=16))
    assert folded(encoder) is encoder


class Twice(nn.Module):
    """Its convolution feeds a BatchNorm, and something else besides."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> list[Tensor]:
        y = self.conv(images)
        return [self.norm(y) + y]


class Curious(nn.Module):
    """Asks its BatchNorm for something that no other layer has."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.norm(self.conv(images)) * self.norm.eps]


@pytest.mark.parametrize("net", [Twice(), Curious()])
def test_what_cannot_be_folded_is_left_as_it_is(net: nn.Module) -> None:
    encoder = around(net)
    assert folded(encoder) is encoder
    assert norms(encoder) == 1


def test_a_segmenter_runs_folded_and_its_state_dict_stays() -> None:
    ours = segmenter().eval()
    before, images = copy.deepcopy(ours.state_dict()), torch.rand(1, 3, 33, 41)
    with torch.no_grad():
        expected = ours(images).semantic
        ours.fold()
        ours.encoder.register_forward_pre_hook(lambda *_: pytest.fail("the encoder itself ran"))
        torch.testing.assert_close(ours(images).semantic, expected, rtol=1e-4, atol=1e-5)
    assert ours.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())


@pytest.mark.parametrize("change", ["load", "move", "train", "gradient"])
def test_new_weights_are_never_answered_by_folded_old_ones(change: str) -> None:
    ours, other = segmenter().eval(), segmenter().eval()
    images = torch.rand(1, 3, 33, 41)
    ours.fold()
    if change == "load":
        ours.load_state_dict(other.state_dict())
    elif change == "move":
        ours.double()
        images = images.double()
    elif change == "train":
        ours.train()
        ours.encoder.load_state_dict(other.encoder.state_dict())  # as an optimiser would change them
        ours.eval()
    if change == "gradient":
        ours(images).semantic.sum().backward()
        assert ours.encoder.get_submodule("net.conv1").weight.grad is not None
        return
    with torch.no_grad():
        expected = ours.encoder((images - 0.5) / 0.5)[-1]
        assert torch.equal(ours.encode(images)[-1], expected)


def test_a_frozen_encoder_runs_folded_while_its_heads_learn() -> None:
    ours = segmenter(frozen=True)
    ours.fold()
    ours.train()
    ours.encoder.register_forward_pre_hook(lambda *_: pytest.fail("the encoder itself ran"))
    ours(torch.rand(1, 3, 33, 41)).semantic.sum().backward()
    assert ours.semantic_head.get_submodule("convs.0").weight.grad is not None
