"""The segmenter: heads by hand, BatchNorm policies, frozen encoders, resizing, groups."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from latentseg.config import ModelConfig
from latentseg.data.features import Features
from latentseg.errors import UserError
from latentseg.models.encoders import Encoder
from latentseg.models.resnet import STRIDES, DeepLabResNet
from latentseg.models.segmenter import AsppHead, Fusion, Output, Segmenter, build_segmenter
from latentseg.models.upsample import upsample

HALF = (0.5, 0.5, 0.5)


def tiny(num_latent: int = 4, seed: int = 0, **options: str | bool | int) -> Segmenter:
    config = ModelConfig.model_validate(
        {"encoder": "deeplab_resnet50", "weights_kind": "none", "head": "aspp", "head_channels": 8} | options
    )
    torch.manual_seed(seed)
    net = DeepLabResNet((1, 1, 1, 1), width=4)
    encoder = Encoder(net, range(4), net.channels, STRIDES, HALF, HALF, align_corners=True)
    return Segmenter(encoder, 3, num_latent, config)


class Pyramid(nn.Module):
    """Stand-in for an encoder: averages of the image at the strides."""

    def forward(self, images: Tensor) -> list[Tensor]:
        return [functional.avg_pool2d(images, stride) for stride in (4, 8, 16, 32)]


def pyramid(align_corners: bool = False) -> Encoder:
    return Encoder(Pyramid(), range(4), (3, 3, 3, 3), (4, 8, 16, 32), HALF, HALF, align_corners)


@pytest.mark.parametrize("head", ["aspp", "light"])
@pytest.mark.parametrize("size", [(33, 41), (40, 35)])
def test_logits_at_image_size(head: str, size: tuple[int, int]) -> None:
    output = tiny(head=head)(torch.rand(2, 3, *size))
    assert isinstance(output, Output)
    assert output.semantic.shape == (2, 3, *size)
    assert output.latent is not None
    assert output.latent.shape == (2, 4, *size)


def test_no_latent_branch() -> None:
    segmenter = tiny(num_latent=0)
    assert segmenter(torch.rand(1, 3, 33, 33)).latent is None
    assert not [name for name in segmenter.state_dict() if name.startswith("latent_head")]


@pytest.mark.parametrize("head", ["aspp", "light"])
def test_cached_features_give_the_same(head: str) -> None:
    segmenter = tiny(head=head).eval()
    images = torch.rand(1, 3, 33, 41)
    direct, cached = segmenter(images), segmenter.decode(segmenter.encode(images), (33, 41))
    assert torch.equal(direct.semantic, cached.semantic)
    assert direct.latent is not None
    assert cached.latent is not None
    assert torch.equal(direct.latent, cached.latent)


@pytest.mark.parametrize("head", ["aspp", "light"])
def test_logits_on_the_heads_grid_upsample_to_the_images(head: str) -> None:
    segmenter = tiny(head=head).eval()
    images = torch.rand(1, 3, 33, 41)
    whole, coarse = segmenter(images), segmenter(images, upsample=False)
    assert coarse.semantic.shape == (1, 3, 5, 6)
    for there, here in zip(whole, coarse, strict=True):
        resized = functional.interpolate(here, (33, 41), mode="bilinear", align_corners=True)
        torch.testing.assert_close(there, resized)


@pytest.mark.parametrize("given", ["images", "features"])
def test_features_are_changed_on_their_way_to_the_heads(given: str) -> None:
    segmenter = tiny().eval()
    images = torch.rand(1, 3, 33, 41)
    maps = segmenter.encode(images)
    seen: list[Sequence[Tensor]] = []

    def double(features: Sequence[Tensor]) -> list[Tensor]:
        seen.append(features)
        return [2 * each for each in features]

    output = segmenter(images if given == "images" else Features(maps, (33, 41)), perturb=double)
    assert all(torch.equal(here, there) for here, there in zip(seen[0], maps, strict=True))
    assert torch.equal(output.semantic, segmenter.decode([2 * each for each in maps], (33, 41)).semantic)
    assert not torch.allclose(output.semantic, segmenter(images).semantic)


def test_branches_are_apart() -> None:
    segmenter = tiny(head="light")
    segmenter(torch.rand(2, 3, 33, 33)).latent.sum().backward()
    assert all(parameter.grad is None for parameter in segmenter.semantic_head.parameters())
    assert segmenter.get_parameter("encoder.net.conv1.weight").grad is not None


def aspp_twin(x: Tensor, head: AsppHead) -> Tensor:
    """The head in plain loops: every tap of every convolution, zero outside the map."""
    _, _, height, width = x.shape
    out = torch.zeros(1, 2, height, width, dtype=x.dtype)
    for rate, conv in zip((6, 12, 18, 24), head.convs, strict=True):
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        for row in range(height):
            for col in range(width):
                out[0, :, row, col] += conv.bias
                for i in range(3):
                    for j in range(3):
                        y, z = row + (i - 1) * rate, col + (j - 1) * rate
                        if 0 <= y < height and 0 <= z < width:
                            out[0, :, row, col] += conv.weight[:, :, i, j] @ x[0, :, y, z]
    return out


@torch.no_grad()
def test_aspp_by_hand() -> None:
    torch.manual_seed(0)
    head = AsppHead(3, 2).double()
    x = torch.rand(1, 3, 9, 27, dtype=torch.float64)
    torch.testing.assert_close(head([x]), aspp_twin(x, head), atol=1e-12, rtol=0)


def test_aspp_starts_small_with_pytorchs_biases() -> None:
    torch.manual_seed(0)
    head = AsppHead(256, 20)
    bound = 1 / math.sqrt(256 * 9)  # PyTorch's default for a bias
    for conv in head.convs:
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        assert conv.weight.std().item() == pytest.approx(0.01, rel=0.02)
        assert 0 < conv.bias.abs().max() <= bound


@pytest.mark.parametrize("align", [True, False])
def test_upsampling_follows_the_encoder(align: bool) -> None:
    torch.manual_seed(0)
    config = ModelConfig(head_channels=8, weights_kind="none")
    segmenter = Segmenter(pyramid(align), 3, 0, config).eval()
    maps = segmenter.encode(torch.rand(1, 3, 64, 64))
    small = segmenter.semantic_head(maps)
    big = segmenter.decode(maps, (65, 65)).semantic
    expected = functional.interpolate(small, size=(65, 65), mode="bilinear", align_corners=align)
    torch.testing.assert_close(big, expected, rtol=0, atol=1e-6)
    assert big.is_contiguous()
    assert segmenter.align_corners is align


@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize("size", [(41, 33), (33, 24), (5, 4), (6, 9)])
def test_upsampling_is_that_of_interpolate_and_so_is_its_gradient(align: bool, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    logits, weight = torch.randn(2, 3, 5, 4, dtype=torch.float64), torch.randn(2, 3, *size, dtype=torch.float64)
    found = []
    for resize in (upsample, lambda maps, to, align: functional.interpolate(maps, to, None, "bilinear", align)):
        maps = logits.clone().contiguous(memory_format=torch.channels_last).requires_grad_()
        big = resize(maps, size, align)
        found.append((big.detach(), *torch.autograd.grad((weight * big).sum(), maps)))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-12)


def test_training_may_use_what_a_validation_prepared() -> None:
    logits = torch.randn(1, 2, 7, 11, requires_grad=True)
    with torch.inference_mode():
        upsample(logits, (57, 89), True)
    [gradient] = torch.autograd.grad(upsample(logits, (57, 89), True).sum(), logits)
    torch.testing.assert_close(gradient.sum(), torch.tensor(2.0 * 57 * 89))


def test_upsampling_of_half_precision_is_done_in_float32() -> None:
    logits = torch.randn(1, 2, 3, 3).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        big = upsample(logits, (9, 9), True)
    assert big.dtype == torch.float32
    torch.testing.assert_close(big, upsample(logits.float(), (9, 9), True), rtol=0, atol=0)


@pytest.mark.parametrize(("stride", "size"), [(4, 16), (8, 8)])
def test_fusion_sees_every_stride(stride: int, size: int) -> None:
    torch.manual_seed(0)
    fusion = Fusion(pyramid(), 8, stride)
    maps = [torch.rand(1, 3, 64 // s, 64 // s, requires_grad=True) for s in (4, 8, 16, 32)]
    fused = fusion(maps)
    assert fused.shape == (1, 8, size, size)
    (fused**2).sum().backward()
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in maps)


def test_the_light_branches_share_the_encoder_alone() -> None:
    segmenter = Segmenter(pyramid(), 3, 4, ModelConfig(head_channels=8, weights_kind="none", frozen=True))
    latent = segmenter(torch.rand(1, 3, 64, 64)).latent
    assert latent is not None
    torch.autograd.backward(latent.sum())
    pulled = {name.split(".")[0] for name, p in segmenter.named_parameters() if p.grad is not None}
    assert pulled == {"latent_head"}


def statistics(segmenter: Segmenter) -> Tensor:
    return torch.cat([value for key, value in segmenter.encoder.state_dict().items() if key.endswith("running_mean")])


@pytest.mark.parametrize(
    ("options", "follows", "gamma_learns", "conv_learns"),
    [
        ({"batchnorm": "follow"}, True, False, True),
        ({"batchnorm": "frozen"}, False, False, True),
        ({"batchnorm": "train"}, True, True, True),
        ({"frozen": True}, False, False, False),
        ({"frozen": True, "batchnorm": "train"}, False, False, False),
    ],
)
def test_batchnorm_policies(
    options: dict[str, str | bool], follows: bool, gamma_learns: bool, conv_learns: bool
) -> None:
    segmenter = tiny(4, 0, head="light", **options)
    segmenter.eval()
    segmenter.train()  # the policy outlives a validation
    before = statistics(segmenter).clone()
    segmenter(torch.rand(2, 3, 33, 33)).semantic.sum().backward()
    assert torch.equal(statistics(segmenter), before) is not follows
    for name in ("bn1.weight", "layer4.0.bn3.bias", "layer2.0.downsample.1.weight"):
        parameter = segmenter.get_parameter(f"encoder.net.{name}")
        assert parameter.requires_grad is gamma_learns
        assert (parameter.grad is not None) is gamma_learns
    conv = segmenter.get_parameter("encoder.net.conv1.weight")
    assert (conv.grad is not None) is conv_learns
    heads = [p for name, p in segmenter.named_parameters() if name.startswith("semantic_head")]
    assert all(parameter.grad is not None for parameter in heads)
    names = {id(p): name for name, p in segmenter.named_parameters()}
    groups = segmenter.parameter_groups()
    assert any("bn1" in names[id(p)] for p in groups["encoder"]) is gamma_learns
    assert bool(groups["encoder"]) is conv_learns
    assert all(names[id(p)].startswith(("semantic_head", "latent_head")) for p in groups["heads"])
    assert {id(p) for p in heads} <= {id(p) for p in groups["heads"]}


def test_eval_puts_everything_into_eval() -> None:
    segmenter = tiny().eval()
    before = statistics(segmenter).clone()
    segmenter(torch.rand(2, 3, 33, 33))
    assert torch.equal(statistics(segmenter), before)


def test_frozen_features_carry_no_graph() -> None:
    images = torch.rand(1, 3, 33, 33, requires_grad=True)  # frozen parameters alone would keep a graph here
    assert not tiny(frozen=True).encode(images)[-1].requires_grad
    assert tiny().encode(torch.rand(1, 3, 33, 33))[-1].requires_grad
    with torch.no_grad():
        assert not tiny().encode(torch.rand(1, 3, 33, 33))[-1].requires_grad


def test_normalisation_is_in_the_state_dict() -> None:
    segmenter, other = tiny(), tiny(seed=1)
    other.pixel_mean.fill_(0.25)
    segmenter.load_state_dict(other.state_dict())
    assert segmenter.mean == (0.25, 0.25, 0.25)
    images = torch.full((1, 3, 33, 33), 0.25)
    seen: list[Tensor] = []
    segmenter.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    segmenter(images.expand(2, -1, -1, -1))
    assert seen[0].abs().max() == 0


def test_float64() -> None:
    assert tiny().double()(torch.rand(1, 3, 33, 33, dtype=torch.float64)).semantic.dtype == torch.float64


def test_lite0_end_to_end() -> None:
    segmenter = build_segmenter(ModelConfig(head_channels=16, frozen=True), 5, 3)
    output = segmenter(torch.rand(1, 3, 64, 96))
    assert output.semantic.shape == (1, 5, 64, 96)
    assert segmenter.valid_size(65, 96) == (96, 96)
    assert segmenter.parameter_groups()["encoder"] == []
    output.semantic.sum().backward()
    assert all(parameter.grad is None for parameter in segmenter.encoder.parameters())


def test_heads_that_do_not_fit_the_encoder() -> None:
    with pytest.raises(UserError, match=r"stride 8, this encoder's has 32.*model\.head=light"):
        Segmenter(pyramid(), 3, 0, ModelConfig(head="aspp"))
    coarse = Encoder(Pyramid(), (1, 2, 3), (3, 3, 3), (8, 16, 32), HALF, HALF, align_corners=False)
    with pytest.raises(UserError, match=r"model\.head_stride=4.*8, 16, 32"):
        Segmenter(coarse, 3, 0, ModelConfig(head_stride=4))


@pytest.mark.parametrize("pieces", [2, 3, 5])
def test_pieces_give_the_gradient_of_the_whole_batch(pieces: int) -> None:
    images = torch.rand(5, 3, 33, 33, dtype=torch.float64)
    gradients, outputs = [], []
    for number in (1, pieces):
        segmenter = tiny(batchnorm="frozen", micro_batches=number).double()
        output = segmenter(images)
        loss = output.semantic.softmax(1).square().sum() + output.latent.softmax(1).sum(0).square().sum()
        loss.backward()
        gradients.append([p.grad for p in segmenter.parameters() if p.grad is not None])
        outputs.append(output.semantic.detach())
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=1e-12)
    assert any(float(gradient.abs().max()) > 1e-3 for gradient in gradients[0])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_pieces_are_computed_again_and_count_once_in_batchnorm() -> None:
    images = torch.rand(4, 3, 33, 33)
    segmenter, plain = tiny(micro_batches=2), tiny()
    runs: list[int] = []
    segmenter.encoder.register_forward_pre_hook(lambda _, inputs: runs.append(len(inputs[0])))
    segmenter(images).semantic.sum().backward()
    assert runs == [2, 2, 2, 2]
    for piece in images.chunk(2):
        plain(piece)
    for name, value in plain.named_buffers():
        if "running" in name:
            torch.testing.assert_close(dict(segmenter.named_buffers())[name], value)
    assert {norm.momentum for norm in segmenter.modules() if isinstance(norm, nn.BatchNorm2d)} == {0.1}


def test_without_gradient_there_are_no_pieces() -> None:
    segmenter = tiny(micro_batches=2)
    runs: list[int] = []
    segmenter.encoder.register_forward_pre_hook(lambda _, inputs: runs.append(len(inputs[0])))
    with torch.no_grad():
        segmenter(torch.rand(4, 3, 33, 33))
    assert runs == [4]
