"""What the maps of one image say of the worth of its labels: pure functions of probabilities."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

MARGIN = 1 / 3
"""A pixel is in doubt where its two most probable classes differ by less."""


class Doubt(NamedTuple):
    """The two classes between which most pixels are in doubt."""

    first: int
    second: int
    share: float
    """Of all pixels; 0 where no pixel is in doubt."""


def entropy_map(probs: Tensor) -> Tensor:
    """Entropy of each pixel over that of a uniform guess, log C: 0 sure, 1 no idea.

    Args:
        probs: S_c, shape (C, h, w).

    Returns:
        Shape (h, w).
    """
    total: Tensor = torch.special.entr(probs).sum(0)
    return total / math.log(len(probs))


def difference_map(probs: Tensor, others: Tensor) -> Tensor:
    """Probability that two maps put on different classes, half their absolute difference: 0 equal, 1 disjoint.

    Args:
        probs: Probabilities, shape (K, h, w).
        others: The same of another branch or network.

    Returns:
        Shape (h, w).
    """
    return (probs - others).abs().sum(0) / 2


def greatest_doubt(probs: Tensor) -> Doubt:
    """The pair of classes that compete for most pixels of a map S_c, shape (C, h, w)."""
    num_classes = len(probs)
    values, classes = probs.flatten(1).topk(2, dim=0)
    unsure = values[0] - values[1] < MARGIN
    low, high = classes.min(0).values[unsure], classes.max(0).values[unsure]
    pairs = torch.bincount(low * num_classes + high, minlength=num_classes**2)
    pair = int(pairs.argmax())
    return Doubt(pair // num_classes, pair % num_classes, float(pairs[pair]) / values.shape[1])


def class_shares(probs: Tensor) -> tuple[Tensor, Tensor]:
    """Expected share of the pixels of each class, and share of those where it is the most probable, shapes (C,)."""
    flat = probs.flatten(1)
    won = torch.bincount(flat.argmax(0), minlength=len(flat))
    return flat.mean(1), won / flat.shape[1]
