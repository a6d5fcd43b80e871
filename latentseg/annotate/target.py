"""What the formats are told of the run and of the folders."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Sizes = dict[int, tuple[Path, tuple[int, int]]]
"""Of the images that were written: by number, the path below the folder of images, height and width."""


@dataclass(frozen=True)
class Labels:
    """Classes, and where things lie.

    Attributes:
        classes: Their names, by id.
        palette: Their colours, uint8, shape (C, 3).
        run: Name of the run, for people.
        images: Folder of the images.
        out: Folder of the results.
    """

    classes: tuple[str, ...]
    palette: NDArray[np.uint8]
    run: str
    images: Path
    out: Path

    @property
    def colors(self) -> list[str]:
        """The colours as #rrggbb."""
        return ["#{:02x}{:02x}{:02x}".format(*color) for color in self.palette.tolist()]

    @property
    def folder(self) -> str:
        """Name of the folder of images."""
        return self.images.resolve().name
