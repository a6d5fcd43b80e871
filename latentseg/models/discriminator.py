"""The discriminator that tells maps of class probabilities from one-hot truth, pixel by pixel."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from latentseg.config import SMALLEST_JUDGED
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

    def forward(self, probs: Tensor) -> Tensor:
        """Confidence that each pixel is real.

        Args:
            probs: Class probabilities or one-hot truth, (N, C, H, W).

        Returns:
            Logits, (N, 1, H, W); positive means real.

        Raises:
            UserError: The map is too small for five halvings.
        """
        size = probs.shape[-2:]
        if self.downscale > 1:
            # ceil_mode: the last row and column count too where the factor does not divide the size.
            probs = functional.avg_pool2d(probs, self.downscale, ceil_mode=True)
        if min(probs.shape[-2:]) < SMALLEST_JUDGED:
            raise UserError(
                f"the discriminator sees maps of {probs.shape[-2]}x{probs.shape[-1]} pixels "
                f"({size[0]}x{size[1]} averaged by discriminator.downscale={self.downscale}) and needs "
                f"{SMALLEST_JUDGED}x{SMALLEST_JUDGED}: enlarge augment.crop or lower discriminator.downscale"
            )
        logits: Tensor = self.layers(probs)
        return upsample(logits, (size[0], size[1]), self.align_corners)
