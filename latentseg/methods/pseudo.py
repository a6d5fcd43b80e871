"""Pseudo-labels: what a prediction on the weak view teaches a strong view, and what the log says of it."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from latentseg.losses import IGNORE_INDEX, cross_entropy
from latentseg.methods.views import CutMix
from latentseg.parallel import share


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
        return cross_entropy(logits, self.classes.where(self.accepted, IGNORE_INDEX), count=share(self.valid))


@dataclass(frozen=True)
class Lesson:
    """What one step taught, for the log."""

    given: PseudoLabels
    """On the images as they are, before CutMix."""
    strong: PseudoLabels
    """On the strong view, after CutMix."""
    student: Tensor
    """Logits of the student on that strong view, detached, shape (N, C, h, w)."""


@torch.no_grad()
def describe(lesson: Lesson, truth: Tensor | None) -> dict[str, float]:
    """Figures of a lesson: a dead unsupervised loss shows in them.

    Args:
        lesson: Of one step.
        truth: Class ids of the unlabelled images (N, H, W), 255 where unknown, if their labels are at hand. They are
            used here alone.

    Returns:
        Mean `confidence`, share of `accepted` pixels, `agreement` of the student on the strong view with the teacher;
        with the truth also `accepted_accuracy` and `rejected_accuracy` of the pseudo-labels, where there are any.
    """
    given, strong = lesson.given, lesson.strong
    figures = {
        "confidence": _share(given.confidence, given.valid),
        "accepted": _share(given.accepted, given.valid),
        "agreement": _share(lesson.student.argmax(1) == strong.classes, strong.valid),
    }
    if truth is not None:
        size = given.classes.shape[1:]
        truth = F.interpolate(truth[:, None].float(), size, mode="nearest-exact")[:, 0].to(given.classes)
        right, known = given.classes == truth, truth != IGNORE_INDEX
        figures["accepted_accuracy"] = _share(right, given.accepted & known)
        figures["rejected_accuracy"] = _share(right, given.rejected & known)
    return {name: value for name, value in figures.items() if value is not None}


def _share(values: Tensor, where: Tensor) -> float | None:
    """Mean of values where a mask holds; None where it holds nowhere."""
    return float(values[where].double().mean()) if bool(where.any()) else None
