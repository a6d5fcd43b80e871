"""The DeepLab-v2 ResNet: sizes, dilations, place of the stride; torchvision's network is the oracle."""

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck as TorchvisionBottleneck
from torchvision.models.resnet import ResNet as TorchvisionResNet

from latentseg.models.resnet import DEEPLAB_LAYERS, STRIDES, Bottleneck, DeepLabResNet, StrideAt


def tiny(layers: tuple[int, int, int, int] = (1, 2, 2, 2), width: int = 4) -> DeepLabResNet:
    torch.manual_seed(0)
    return DeepLabResNet(layers, width).eval()


@pytest.mark.parametrize(("size", "expected"), [(321, 41), (505, 64), (65, 9), (33, 5)])
def test_sizes_8k_plus_1(size: int, expected: int) -> None:
    with torch.no_grad():
        maps = tiny((1, 1, 1, 1), 2)(torch.rand(1, 3, size, 33))
    assert [x.shape[2] for x in maps[1:]] == [expected] * 3
    assert maps[0].shape[2] == 2 * expected - 1


def test_ceil_mode_pooling_shows_at_even_sizes() -> None:
    assert tiny()(torch.rand(1, 3, 64, 64))[0].shape[-1] == 17


def test_every_block_of_the_last_stages_is_dilated() -> None:
    net = tiny((1, 2, 3, 3))
    for stage, dilation in ((net.layer1, 1), (net.layer2, 1), (net.layer3, 2), (net.layer4, 4)):
        for block in stage:
            assert isinstance(block, Bottleneck)
            assert block.conv2.dilation == block.conv2.padding == (dilation, dilation)
    for stage in (net.layer3, net.layer4):
        assert all(conv.stride == (1, 1) for conv in stage.modules() if isinstance(conv, nn.Conv2d))


def test_first_block_of_layer3_reaches_two_cells() -> None:
    block = tiny().layer3[0]
    x = torch.rand(1, 32, 9, 9, requires_grad=True)
    block(x)[0, :, 4, 4].sum().backward()
    assert x.grad is not None
    rows = x.grad[0].abs().sum(dim=(0, 2)).nonzero().flatten().tolist()
    assert rows == [2, 4, 6]


def test_names_are_torchvisions() -> None:
    ours = {key for key in tiny((2, 1, 1, 1)).state_dict() if key != "_extra_state"}
    theirs = set(TorchvisionResNet(TorchvisionBottleneck, [2, 1, 1, 1]).state_dict())
    assert ours == theirs - {"fc.weight", "fc.bias"}


def pair() -> tuple[DeepLabResNet, TorchvisionResNet]:
    """Ours and torchvision's with the same weights; torchvision's first dilated blocks set right by hand."""
    torch.manual_seed(1)
    theirs = TorchvisionResNet(
        TorchvisionBottleneck, [1, 2, 2, 2], replace_stride_with_dilation=[False, True, True]
    ).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    for stage, dilation in ((theirs.layer3, 2), (theirs.layer4, 4)):
        stage[0].conv2.dilation = stage[0].conv2.padding = (dilation, dilation)
    ours = DeepLabResNet((1, 2, 2, 2)).eval()
    state = {key: value for key, value in theirs.state_dict().items() if not key.startswith("fc.")}
    ours.load_state_dict(state | {"_extra_state": ours.get_extra_state()})
    return ours, theirs


def torchvision_maps(net: TorchvisionResNet, images: Tensor) -> list[Tensor]:
    x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
    maps = []
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        x = stage(x)
        maps.append(x)
    return maps


@torch.no_grad()
def test_equals_torchvision_with_the_stride_in_the_3x3() -> None:
    ours, theirs = pair()
    images = torch.rand(1, 3, 65, 65)  # a size at which ceil mode makes no difference
    for mine, other in zip(ours(images), torchvision_maps(theirs, images), strict=True):
        torch.testing.assert_close(mine, other)


@torch.no_grad()
def test_wrong_stride_position_gives_another_output_and_no_error() -> None:
    ours, theirs = pair()
    images = torch.rand(1, 3, 65, 65)
    ours.place_stride("1x1")
    mine, other = ours(images), torchvision_maps(theirs, images)
    torch.testing.assert_close(mine[0], other[0])
    assert mine[1].shape == other[1].shape
    assert (mine[1] - other[1]).abs().max() > 0.1


def test_place_of_the_stride_travels_in_the_state_dict() -> None:
    caffe = DeepLabResNet((1, 1, 1, 1), 4, stride_at="1x1")
    fresh = tiny((1, 1, 1, 1))
    assert fresh.layer2[0].conv2.stride == (2, 2)
    fresh.load_state_dict(caffe.state_dict())
    assert fresh.stride_at == "1x1"
    assert fresh.layer2[0].conv1.stride == (2, 2)
    assert fresh.layer2[0].conv2.stride == (1, 1)


@torch.no_grad()
def test_resnet101() -> None:
    net = DeepLabResNet(DEEPLAB_LAYERS["deeplab_resnet101"]).eval()
    maps = net(torch.rand(1, 3, 65, 65))
    assert [tuple(x.shape[1:]) for x in maps] == [(256, 17, 17), (512, 9, 9), (1024, 9, 9), (2048, 9, 9)]
    assert [round(65 / x.shape[-1]) for x in maps] == [4, 7, 7, 7]
    assert STRIDES == (4, 8, 8, 8)
    assert sum(isinstance(module, nn.Conv2d) for module in net.modules()) == 1 + 3 * 33 + 4


@torch.no_grad()
def test_equals_torchvisions_dilations_where_the_weights_want_them() -> None:
    """Its DeepLab-v3: the first blocks of the dilated stages have the dilation of the stage before."""
    torch.manual_seed(2)
    dilated = [False, True, True]
    theirs = TorchvisionResNet(TorchvisionBottleneck, [1, 2, 2, 2], replace_stride_with_dilation=dilated).eval()
    state = {key: value for key, value in theirs.state_dict().items() if not key.startswith("fc.")}
    ours = DeepLabResNet((1, 2, 2, 2), first_dilated=False).eval()
    ours.load_state_dict(state | {"_extra_state": ours.get_extra_state()})
    images = torch.rand(1, 3, 65, 65)
    expected = torchvision_maps(theirs, images)
    for mine, other in zip(ours(images), expected, strict=True):
        torch.testing.assert_close(mine, other)
    ours.dilate_first(first_dilated=True)
    assert (ours(images)[2] - expected[2]).abs().max() > 0.1


@pytest.mark.parametrize("stride_at", ["1x1", "3x3"])
@pytest.mark.parametrize("first_dilated", [True, False])
def test_stride_and_dilations_travel_together(stride_at: StrideAt, first_dilated: bool) -> None:
    """0 and 1 are what checkpoints held before there were other dilations."""
    source = DeepLabResNet((1, 1, 1, 1), 4, stride_at, first_dilated)
    assert int(source.get_extra_state()) == (stride_at == "1x1") + (0 if first_dilated else 2)
    fresh = tiny((1, 1, 1, 1))
    fresh.load_state_dict(source.state_dict())
    assert (fresh.stride_at, fresh.first_dilated) == (stride_at, first_dilated)
    first = fresh.layer4[0]
    assert isinstance(first, Bottleneck)
    assert first.conv2.dilation == ((4, 4) if first_dilated else (2, 2))
