"""The ResNet of DeepLab-v2: output stride 8, dilation 2 and 4 in every block of the last two stages.

torchvision and timm leave the first block of a dilated stage at the dilation of the stage before; DeepLab-v2
does not, which is why this network is our own. For torchvision's COCO weights it can do as torchvision. Names of the
state dict are those of torchvision.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

StrideAt = Literal["1x1", "3x3"]

DEEPLAB_LAYERS: dict[str, tuple[int, int, int, int]] = {
    "deeplab_resnet50": (3, 4, 6, 3),
    "deeplab_resnet101": (3, 4, 23, 3),
    "deeplab_resnet152": (3, 8, 36, 3),
}
STRIDES = (4, 8, 8, 8)
_EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution around a shortcut (arXiv:1512.03385, Figure 5).

    Args:
        in_channels: Channels that come in.
        width: Channels of the 3x3 convolution; four times as many go out.
        stride: Stride of the block.
        dilation: Dilation and padding of the 3x3 convolution.
        project: Whether the shortcut is a 1x1 convolution with BatchNorm.
    """

    def __init__(self, in_channels: int, width: int, stride: int, dilation: int, project: bool) -> None:
        super().__init__()
        out_channels = _EXPANSION * width
        self.stride = stride
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Sequential | None = None
        if project:
            projection = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def place_stride(self, stride_at: StrideAt) -> None:
        """Give the stride of the block to its first 1x1 convolution or to its 3x3 convolution."""
        first, second = (self.stride, 1) if stride_at == "1x1" else (1, self.stride)
        self.conv1.stride = (first, first)
        self.conv2.stride = (second, second)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, 4 width, H / stride, W / stride)."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        return functional.relu(y + shortcut)


class DeepLabResNet(nn.Module):
    """ResNet with output stride 8, Caffe style (arXiv:1606.00915, section 4; ceil-mode pooling).

    The place of the stride and of the dilations is part of what the weights mean and no key shows it. So it is part
    of the state dict (`_extra_state`, a uint8 scalar: 1 for the stride in the 1x1 convolution, plus 2 for first
    blocks without the stage's dilation), and loading one of ours sets it.

    Args:
        layers: Blocks of the four stages.
        width: Channels of the first convolution and of the first stage's 3x3 convolutions; 64 in every
            published network.
        stride_at: Convolution of a bottleneck that holds its stride: "1x1" for Caffe and COCO weights, "3x3"
            for torchvision and timm weights.
        first_dilated: Whether the first block of a dilated stage has the stage's dilation, as in DeepLab-v2, or that
            of the stage before, as in torchvision's DeepLab-v3.
    """

    def __init__(
        self,
        layers: tuple[int, int, int, int],
        width: int = 64,
        stride_at: StrideAt = "3x3",
        first_dilated: bool = True,
    ) -> None:
        super().__init__()
        self.stride_at: StrideAt = stride_at
        self.channels = [_EXPANSION * width * factor for factor in (1, 2, 4, 8)]
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
        self.layer1 = _stage(width, width, layers[0], stride=1, dilation=1)
        self.layer2 = _stage(self.channels[0], 2 * width, layers[1], stride=2, dilation=1)
        self.layer3 = _stage(self.channels[1], 4 * width, layers[2], stride=1, dilation=2)
        self.layer4 = _stage(self.channels[2], 8 * width, layers[3], stride=1, dilation=4)
        self.place_stride(stride_at)
        self.dilate_first(first_dilated)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def place_stride(self, stride_at: StrideAt) -> None:
        """Move the stride of every block to its 1x1 or to its 3x3 convolution."""
        self.stride_at = stride_at
        for module in self.modules():
            if isinstance(module, Bottleneck):
                module.place_stride(stride_at)

    def dilate_first(self, first_dilated: bool) -> None:
        """Give the first blocks of the dilated stages the dilation of their stage, or of the one before."""
        self.first_dilated = first_dilated
        for stage, (own, before) in ((self.layer3, (2, 1)), (self.layer4, (4, 2))):
            dilation = own if first_dilated else before
            first = stage[0]
            assert isinstance(first, Bottleneck)
            first.conv2.dilation = first.conv2.padding = (dilation, dilation)

    def get_extra_state(self) -> Tensor:
        """Place of the stride and of the dilations, as it travels in the state dict."""
        return torch.tensor((self.stride_at == "1x1") + 2 * (not self.first_dilated), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Put stride and dilations where the loaded weights had them."""
        self.place_stride("1x1" if int(state) & 1 else "3x3")
        self.dilate_first(not int(state) & 2)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps of the four stages.

        Args:
            images: Normalised images, (N, 3, H, W). Sizes 8k+1 put the corners of image and maps onto each
                other (321 becomes 41).

        Returns:
            Maps of strides 4, 8, 8 and 8 with `channels` channels.
        """
        x = self.maxpool(functional.relu(self.bn1(self.conv1(images))))
        maps: list[Tensor] = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return maps


def _stage(in_channels: int, width: int, blocks: int, stride: int, dilation: int) -> nn.Sequential:
    first = Bottleneck(in_channels, width, stride, dilation, project=True)
    rest = [Bottleneck(_EXPANSION * width, width, 1, dilation, project=False) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)
