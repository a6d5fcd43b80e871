"""Rare classes: how often the labelled images show each class, and the weights and repetitions that follow."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentseg.data.datasets import Dataset, Item
from latentseg.errors import UserError


def class_pixels(dataset: Dataset, items: Sequence[Item]) -> NDArray[np.int64]:
    """Labelled pixels of each class in each image, shape (images, C).

    An image whose mask cannot be read counts as empty: the data check tells of it.
    """
    number = len(dataset.classes)

    def count(item: Item) -> NDArray[np.int64]:
        try:
            return np.bincount(dataset.read_targets(item).ravel(), minlength=256)[:number].astype(np.int64)
        except UserError:
            return np.zeros(number, np.int64)

    with ThreadPoolExecutor() as pool:
        return np.array(list(pool.map(count, items)), np.int64).reshape(len(items), number)


def balanced_weights(pixels: NDArray[np.int64]) -> list[float]:
    """Weights of classes by median frequency balancing (Eigen and Fergus, arXiv:1411.4734, section 6.3.2).

    The frequency of a class is its share of the pixels of the images that show it; its weight is the median frequency
    over its own. A class that no image shows weighs 1: it never counts.

    Args:
        pixels: Of each class in each image, shape (images, C).
    """
    shown = pixels > 0
    totals = (shown * pixels.sum(1, keepdims=True)).sum(0)
    frequency = pixels.sum(0) / np.maximum(totals, 1)
    median = np.median(frequency[frequency > 0]) if frequency.any() else 1.0
    weights: list[float] = np.where(frequency > 0, median / np.where(frequency > 0, frequency, 1), 1.0).tolist()
    return weights


def repetitions(pixels: NDArray[np.int64], threshold: float) -> list[int]:
    """How many times an epoch shows each image: repeat factors (Gupta et al., arXiv:1908.03195, section 5), rounded.

    A class that a share f of the images show asks for sqrt(threshold / f) times each of them, and for once at least;
    an image follows the class that asks for most.

    Args:
        pixels: Of each class in each image, shape (images, C).
        threshold: Share of the images, in 0..1, below which a class is rare; at 0 none is.
    """
    shown: NDArray[Any] = pixels > 0
    share = shown.mean(0) if len(shown) else np.ones(pixels.shape[1])
    factors = np.sqrt(threshold / np.where(share > 0, share, 1))
    wanted = np.where(shown, factors, 1.0).max(1, initial=1.0)
    times: list[int] = np.maximum(1, np.rint(wanted)).astype(int).tolist()
    return times
