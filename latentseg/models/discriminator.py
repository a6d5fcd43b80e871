"""The discriminator that tells maps of class probabilities from one-hot truth, pixel by pixel."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from latentseg.config import SMALLEST_MAP
from latentseg.errors import UserError
from latentseg.models.upsample import upsample


class Discriminator(nn.Module):
    """Five 4x4 convolutions of stride 2 with LeakyReLU 0.2 between them and no norm.

    AdvSemiSeg (arXiv:1802.07934, section 3.1), which arXiv:1912.12936 takes over. Weights start from
    PyTorch's default.

    Args:
        num_classes: Classes of the maps.
        width: Channels of the first convolution; 2, 4 and 8 times as many follow, then 1.
        downscale: Factor by which the maps are averaged down first. 1: as in the paper.
        align_corners: How the logits are upsampled; as the segmenter's.
    """

    def __init__(self, num_classes: int, width: int = 64, downscale: int = 1, align_corners: bool = True) -> None:
        super().__init__()
        self.downscale = downscale
        self.align_corners = align_corners
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((num_classes, width, 2 * width, 4 * width, 8 * width)):
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, stride=2, padding=1))
        self.to(memory_format=torch.channels_last)

    def shrink(self, probs: Tensor) -> Tensor:
        """Maps (N, C, H, W) averaged down by `downscale`, laid out in memory as the convolutions like it."""
        probs = probs.contiguous(memory_format=torch.channels_last)
        # ceil_mode: the last row and column count too where the factor does not divide the size.
        return probs if self.downscale == 1 else functional.avg_pool2d(probs, self.downscale, ceil_mode=True)

    def forward(self, probs: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Confidence that each pixel is real.

        Args:
            probs: Class probabilities or one-hot truth, (N, C, H, W); or what `shrink` made of them.
            size: In the latter case H and W.

        Returns:
            Logits, (N, 1, H, W); positive means real.

        Raises:
            UserError: The map is too small for five halvings.
        """
        height, width = size or probs.shape[-2:]
        small = self.shrink(probs) if size is None else probs
        if min(small.shape[-2:]) < SMALLEST_MAP:
            raise UserError(
                f"the discriminator sees maps of {small.shape[-2]}x{small.shape[-1]} pixels "
                f"({height}x{width} averaged by discriminator.downscale={self.downscale}) and needs "
                f"{SMALLEST_MAP}x{SMALLEST_MAP}: enlarge augment.crop or lower discriminator.downscale"
            )
        logits: Tensor = self.layers(small)
        return upsample(logits, (height, width), self.align_corners)
