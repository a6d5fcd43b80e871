"""What is proposed for an image: the pixels that a model is sure enough of, by class."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

OPEN = 255
"""Id of the pixels for which nothing is proposed."""
DIGITS = 4
"""Of a confidence, behind the point."""


class Region(NamedTuple):
    """The pixels of a class."""

    label: int
    pixels: NDArray[np.bool_]
    """Shape (H, W)."""
    confidence: float
    """Mean probability of the class over them."""


@dataclass(frozen=True)
class Proposed:
    """An image with its proposals.

    Attributes:
        image: Its path, relative to the folder of the images.
        number: Of the image in that folder, from 1.
        ids: Class ids, uint8, shape (H, W), `OPEN` where nothing is proposed.
        probs: Probability of the most probable class, float32, shape (H, W).
    """

    image: Path
    number: int
    ids: NDArray[np.uint8]
    probs: NDArray[np.float32]

    def regions(self) -> Iterator[Region]:
        """One of each class that is proposed, in the order of the ids."""
        for label in np.unique(self.ids).tolist():
            if label != OPEN:
                pixels = self.ids == label
                yield Region(label, pixels, mean_probability(self.probs, pixels))


def mean_probability(probs: NDArray[np.float32], pixels: NDArray[np.bool_]) -> float:
    """The mean over the pixels, which are both of shape (h, w), rounded."""
    return round(float(probs[pixels].mean(dtype=np.float64)), DIGITS)


def box(pixels: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The smallest box around a region, shape (H, W), that has pixels: left, top, width and height."""
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1
