"""What the weak-to-strong methods share: strong views and CutMix, pseudo-labels, the mean teacher.

What is random within a step follows from the batch's seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentseg.config import StrongConfig
from latentseg.data.batches import Batch
from latentseg.data.features import Features
from latentseg.distributed import mean_divisor
from latentseg.losses import IGNORE_INDEX, cross_entropy, probabilities, squared_difference

AREA = (0.02, 0.4)
"""Share of an image that UniMatch's boxes cover (arXiv:2208.09910)."""
ASPECT = (0.3, 1 / 0.3)
"""Its range of height over width."""
HALF_AREA = (0.5, 0.5)
"""A box of the mean teacher covers half of each image (arXiv:1906.01916, section 3.4)."""
HALF_ASPECT = (0.5, 2.0)
"""Height over width of such a box, which at most spans the image."""


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


def dropped_features(batch: Batch, config: StrongConfig, random: torch.Generator) -> Tensor | Features:
    """What mean_teacher and cps mix: images as they are, cached features with channels dropped, as in every peer.

    Args:
        batch: Holds the unlabelled images, (N, 3, H, W), or their features.
        config: Strength of the changes.
        random: Random numbers of the step.
    """
    if isinstance(batch.unlabeled, Features):
        return strong_views(batch, config, 1, random)[0]
    assert batch.unlabeled is not None
    return batch.unlabeled


def perturb(maps: Sequence[Tensor], config: StrongConfig, random: torch.Generator) -> list[Tensor]:
    """Add noise to feature maps (N, channels, h, w), then drop channels; what is left is scaled up."""
    noisy = [_noise(features, config.feature_noise, random) for features in maps]
    return drop_channels(noisy, config.feature_dropout, random)


def drop_channels(maps: Sequence[Tensor], share: float, random: torch.Generator) -> list[Tensor]:
    """Set a random share of the channels of each image to 0 and scale up the others by 1 / (1 - share)."""
    if share == 0:
        return list(maps)
    kept = [torch.rand(*features.shape[:2], 1, 1, generator=random) >= share for features in maps]
    return [
        features * (_sent(mask, features.device).to(features.dtype) / (1 - share))
        for features, mask in zip(maps, kept, strict=True)
    ]


def _noise(features: Tensor, strength: float, random: torch.Generator) -> Tensor:
    if strength == 0:
        return features
    deviation = features.float().std(dim=(0, 2, 3), keepdim=True).to(features)
    drawn = torch.randn(features.shape, generator=random)
    return features + strength * deviation * _sent(drawn, features.device).to(features.dtype)


def _sent(drawn: Tensor, device: torch.device) -> Tensor:
    """What was drawn on the CPU, on a device. A GPU is not waited for, as it would be with pageable memory."""
    return drawn.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else drawn.to(device)


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
        self._boxes: dict[tuple[torch.Size, torch.device], Tensor] = {}  # images and maps share a grid or two

    def boxes(self, height: int, width: int) -> Tensor:
        """Which cells of a grid lie in the boxes, bool, shape (N, height, width), on the CPU."""
        y, x = ((torch.arange(length, dtype=torch.float64) + 0.5) / length for length in (height, width))
        rows = (y >= self._top[:, None]) & (y < self._bottom[:, None])
        columns = (x >= self._left[:, None]) & (x < self._right[:, None])
        inside: Tensor = self._on[:, None, None] & rows[:, :, None] & columns[:, None, :]
        return inside

    def mix(self, maps: Tensor) -> Tensor:
        """Maps (N, h, w) or (N, K, h, w) with a box of the image before in each."""
        key = (maps.shape[-2:], maps.device)
        if key not in self._boxes:
            self._boxes[key] = _sent(self.boxes(*maps.shape[-2:]), maps.device)
        boxes = self._boxes[key]
        return torch.where(boxes if maps.ndim == 3 else boxes[:, None], maps.roll(1, 0), maps)

    def mix_view(self, view: Tensor | Features) -> Tensor | Features:
        """Images, or their features, mixed."""
        if isinstance(view, Features):
            return Features([self.mix(features) for features in view.maps], view.size)
        return self.mix(view)


@dataclass(frozen=True)
class PseudoLabels:
    """Classes that a teacher predicts on N unlabelled images, on a grid of h x w cells."""

    classes: Tensor
    """Most probable class, int64, shape (N, h, w)."""
    confidence: Tensor
    """Its probability, shape (N, h, w)."""
    accepted: Tensor
    """Valid cells whose confidence reaches the threshold, bool, shape (N, h, w)."""
    valid: Tensor
    """Cells that show image and not padding, bool, shape (N, h, w)."""

    @classmethod
    def of(cls, probs: Tensor, threshold: float, valid: Tensor) -> "PseudoLabels":
        """Take them from class probabilities (N, C, h, w)."""
        confidence, classes = probs.max(1)
        return cls(classes, confidence, valid & (confidence >= threshold), valid)

    @property
    def rejected(self) -> Tensor:
        """Valid cells below the threshold, bool, shape (N, h, w)."""
        return self.valid & ~self.accepted

    def mixed(self, cutmix: CutMix) -> "PseudoLabels":
        """Those of the mixed images."""
        return PseudoLabels(*(cutmix.mix(part) for part in (self.classes, self.confidence, self.accepted, self.valid)))

    def loss(self, logits: Tensor) -> Tensor:
        """Cross-entropy of a strong view's logits (N, C, h, w) at the accepted cells, over the number of valid cells.

        FixMatch (arXiv:2001.07685, Eq. 4) in UniMatch's form: rejected pixels count as 0.
        """
        return cross_entropy(logits, self.classes.where(self.accepted, IGNORE_INDEX), count=mean_divisor(self.valid))


@dataclass(frozen=True)
class PseudoLabelStats:
    """Pseudo-labels of one step and what the student made of them, for the log."""

    given: PseudoLabels
    """On the images as they are, before CutMix."""
    strong: PseudoLabels
    """On the strong view, after CutMix."""
    student: Tensor
    """Logits of the student on that strong view, detached, shape (N, C, h, w)."""


@torch.no_grad()
def describe(stats: PseudoLabelStats, truth: Tensor | None) -> dict[str, float]:
    """Figures of pseudo-labels: a dead unsupervised loss shows in them.

    Args:
        stats: Of one step.
        truth: Class ids of the unlabelled images (N, H, W), 255 where unknown, if their labels are at hand. They are
            used here alone.

    Returns:
        Mean `confidence`, share of `accepted` pixels, `agreement` of the student on the strong view with the teacher;
        with the truth also `accepted_accuracy` and `rejected_accuracy` of the pseudo-labels, where there are any.
    """
    given, strong = stats.given, stats.strong
    figures = {
        "confidence": _mean_where(given.confidence, given.valid),
        "accepted": _mean_where(given.accepted, given.valid),
        "agreement": _mean_where(stats.student.argmax(1) == strong.classes, strong.valid),
    }
    if truth is not None:
        size = given.classes.shape[1:]
        truth = F.interpolate(truth[:, None].float(), size, mode="nearest-exact")[:, 0].to(given.classes)
        right, known = given.classes == truth, truth != IGNORE_INDEX
        figures["accepted_accuracy"] = _mean_where(right, given.accepted & known)
        figures["rejected_accuracy"] = _mean_where(right, given.rejected & known)
    return {name: value for name, value in figures.items() if value is not None}


def _mean_where(values: Tensor, where: Tensor) -> float | None:
    """Mean of values where a mask holds; None where it holds nowhere."""
    return float(values[where].double().mean()) if bool(where.any()) else None


def learn_strong_view(
    segmenter: nn.Module, view: Tensor | Features, given: PseudoLabels, cutmix: CutMix, upsample: bool
) -> tuple[Tensor, PseudoLabelStats]:
    """Cross-entropy of a mixed strong view with mixed pseudo-labels, a scalar, and what there is to log of it.

    Args:
        segmenter: The student.
        view: A strong view of the unlabelled images, (N, 3, H, W) or features.
        given: Pseudo-labels of the images as they are.
        cutmix: Mixes both.
        upsample: Whether logits are compared at the size of the images, or on the heads' grid.
    """
    target = given.mixed(cutmix)
    student = segmenter(cutmix.mix_view(view), upsample=upsample).semantic
    return target.loss(student), PseudoLabelStats(given, target, student.detach())


def half_boxes(images: int, random: torch.Generator) -> CutMix:
    """CutMix with a box of half the area in each of N images."""
    return CutMix(images, 1.0, random, HALF_AREA, HALF_ASPECT)


def imitation(student: Tensor, probs: Tensor, target: PseudoLabels, weights: Tensor | None = None) -> Tensor:
    """Squared difference to the teacher's probabilities, weighed by the share of pixels on which it is confident.

    Args:
        student: Logits on mixed images, shape (N, C, h, w).
        probs: The teacher's probabilities, mixed, of the same shape.
        target: The teacher's classes, mixed: which pixels are valid, and which confident.
        weights: Of the classes, shape (C,): a pixel counts as its classes do; 1 each if None.
    """
    accepted, valid = mean_divisor(target.accepted), mean_divisor(target.valid)
    sure = accepted.to(probs.dtype) / valid.where(valid > 0, 1)
    return sure * squared_difference(probabilities(student), probs, target.valid, valid, weights)


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, decay: float, step: int) -> None:
    """Move the teacher towards the student: teacher = d teacher + (1 - d) student.

    Tarvainen and Valpola, arXiv:1703.01780, Eq. 2. In step k (from 0) d is at most 1 - 1 / (k + 1), so that the first
    steps' weights are soon forgotten. BatchNorm's statistics are averaged too; what never learns is left alone. The
    teacher predicts in eval mode.

    Args:
        teacher: Changed in place; of the same structure as the student.
        student: The network that learns.
        decay: d, in [0, 1).
        step: Number of the step, from 0.
    """
    rate = 1 - min(decay, step / (step + 1))
    learned = [pair for pair in zip(teacher.parameters(), student.parameters(), strict=True) if pair[1].requires_grad]
    every = [*learned, *zip(teacher.buffers(), student.buffers(), strict=True)]
    averaged = [pair for pair in every if pair[0].is_floating_point()]
    if averaged:
        mine, theirs = zip(*averaged, strict=True)
        torch._foreach_lerp_(mine, theirs, rate)
    counted = [pair for pair in every if not pair[0].is_floating_point()]
    if counted:  # in one call: an encoder has a counter per BatchNorm, each a kernel of its own otherwise
        mine, theirs = zip(*counted, strict=True)
        torch._foreach_copy_(mine, theirs)
    if teacher.training:
        teacher.eval()
