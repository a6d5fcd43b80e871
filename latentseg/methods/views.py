"""Strong views of unlabelled images: what is perturbed within a step, and CutMix; it follows from the batch's seed."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from latentseg.config import StrongConfig
from latentseg.data.batches import Batch
from latentseg.features import Features

AREA = (0.02, 0.4)
"""Share of an image that UniMatch's boxes cover (arXiv:2208.09910)."""
ASPECT = (0.3, 1 / 0.3)
"""Its range of height over width."""


def generator(batch: Batch) -> torch.Generator:
    """Random numbers of a step, on the CPU, so that they are the same on every device."""
    return torch.Generator().manual_seed(batch.seed)


def strong_views(batch: Batch, config: StrongConfig, number: int, random: torch.Generator) -> list[Tensor | Features]:
    """Strong views of the unlabelled images, which show what the weak view shows.

    Images come recoloured from the data. Cached features have no colours to change: channels are dropped, noise is
    added.

    Args:
        batch: Holds the weak view, and with images the strong ones.
        config: Strength of the changes.
        number: How many views.
        random: Random numbers of the step.
    """
    if isinstance(batch.unlabeled, Features):
        features = batch.unlabeled
        return [Features(perturb(features.maps, config, random), features.size) for _ in range(number)]
    return list(batch.strong[:number])


def perturb(maps: Sequence[Tensor], config: StrongConfig, random: torch.Generator) -> list[Tensor]:
    """Add noise to feature maps (N, channels, h, w), then drop channels; what is left is scaled up."""
    noisy = [_noise(features, config.feature_noise, random) for features in maps]
    return drop_channels(noisy, config.feature_dropout, random)


def drop_channels(maps: Sequence[Tensor], share: float, random: torch.Generator) -> list[Tensor]:
    """Set a random share of the channels of each image to 0 and scale up the others by 1 / (1 - share)."""
    if share == 0:
        return list(maps)
    kept = [torch.rand(*features.shape[:2], 1, 1, generator=random) >= share for features in maps]
    return [features * (mask.to(features) / (1 - share)) for features, mask in zip(maps, kept, strict=True)]


def _noise(features: Tensor, strength: float, random: torch.Generator) -> Tensor:
    if strength == 0:
        return features
    deviation = features.float().std(dim=(0, 2, 3), keepdim=True).to(features)
    return features + strength * deviation * torch.randn(features.shape, generator=random).to(features)


class CutMix:
    """In each image a box of the one before it in the batch (Yun et al., arXiv:1905.04899).

    The boxes are in shares of height and width, so they cut images, feature maps and probability maps alike: a cell
    lies in a box if its centre does.

    Args:
        images: N, images in the batch.
        probability: That an image gets a box.
        random: Random numbers of the step.
        area: Range of the share that a box covers.
        aspect: Range of height over width.
    """

    def __init__(
        self,
        images: int,
        probability: float,
        random: torch.Generator,
        area: tuple[float, float] = AREA,
        aspect: tuple[float, float] = ASPECT,
    ) -> None:
        wanted, size, ratio, top, left = torch.rand(5, images, generator=random, dtype=torch.float64)
        size = area[0] + size * (area[1] - area[0])
        ratio = (torch.tensor(aspect[0]).log() + ratio * torch.tensor(aspect[1] / aspect[0]).log()).exp()
        height = (size * ratio).sqrt().maximum(size).clamp(max=1)  # neither side leaves the image
        width = size / height
        self._top, self._left = top * (1 - height), left * (1 - width)
        self._bottom, self._right = self._top + height, self._left + width
        self._on = wanted < probability

    def boxes(self, height: int, width: int) -> Tensor:
        """Which cells of a grid lie in the boxes, bool, shape (N, height, width), on the CPU."""
        y, x = ((torch.arange(length, dtype=torch.float64) + 0.5) / length for length in (height, width))
        rows = (y >= self._top[:, None]) & (y < self._bottom[:, None])
        columns = (x >= self._left[:, None]) & (x < self._right[:, None])
        inside: Tensor = self._on[:, None, None] & rows[:, :, None] & columns[:, None, :]
        return inside

    def mix(self, maps: Tensor) -> Tensor:
        """Maps (N, h, w) or (N, K, h, w) with a box of the image before in each."""
        boxes = self.boxes(*maps.shape[-2:]).to(maps.device)
        return torch.where(boxes if maps.ndim == 3 else boxes[:, None], maps.roll(1, 0), maps)

    def mix_view(self, view: Tensor | Features) -> Tensor | Features:
        """Images, or their features, mixed."""
        if isinstance(view, Features):
            return Features([self.mix(features) for features in view.maps], view.size)
        return self.mix(view)


def on_grid(valid: Tensor | None, maps: Tensor) -> Tensor:
    """Where images show, on the grid of maps (N, K, h, w): a cell counts if the pixel at its centre does.

    Args:
        valid: Bool, shape (N, H, W); all if None.
        maps: Logits of the images.
    """
    if valid is None:
        return torch.ones(len(maps), *maps.shape[2:], dtype=torch.bool, device=maps.device)
    if valid.shape[1:] == maps.shape[2:]:
        return valid
    return F.interpolate(valid[:, None].float(), maps.shape[2:], mode="nearest-exact")[:, 0] > 0
