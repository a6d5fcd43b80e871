"""What is noted of the pixels of a data set: depth, the way up of masks, palettes that disagree."""

import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentseg.config import DataConfig
from latentseg.data.files import first_three
from latentseg.data.images import BITS, used_bits
from latentseg.data.layouts import Item
from latentseg.data.masks import RGB, Palettes, read_mask, used_colors
from latentseg.data.pairs import turning_note
from latentseg.errors import DataError


class PixelFacts(NamedTuple):
    """What one image and its mask hold."""

    bits: int | None
    """Of the largest sample, of an image of 16 bits."""
    colors: dict[int, RGB]
    """Palette entries that the mask uses."""
    turning: str | None
    """What is said about its way up."""
    mark: int = 0
    """Of what it shows; others than 0 are the same for the same pixels, and hardly ever for others."""


NO_FACTS = PixelFacts(None, {}, None)


def facts(item: Item, config: DataConfig, labels: bool, pixels: NDArray[np.uint8]) -> PixelFacts:
    """Look at the files of an item.

    Args:
        item: With an image file.
        config: Whether masks show colours.
        labels: Whether its mask is used.
        pixels: What the image shows, shape (H, W, 3).

    Raises:
        DataError: A file cannot be read.
    """
    assert item.image is not None
    bits, mark = used_bits(item.image), zlib.crc32(repr(pixels.shape).encode() + pixels[::3].tobytes())
    if item.mask is None or not labels:
        return PixelFacts(bits, {}, None, mark)
    plain = config.color_map is None
    turning = turning_note(item.image, item.mask, read_mask) if plain else None
    return PixelFacts(bits, used_colors(item.mask) if plain else {}, turning, mark)


class PixelNotes:
    """Collects what many items hold."""

    def __init__(self) -> None:
        self._palettes = Palettes()
        self._bits = set[int]()
        self._turned: dict[str, list[str]] = {}
        self.marks: dict[Item, int] = {}

    def add(self, item: Item, found: PixelFacts) -> DataError | None:
        """Take in an item; the error if its palette disagrees with those before."""
        self.marks[item] = found.mark
        if found.bits is not None:
            self._bits.add(found.bits)
        if found.turning:
            self._turned.setdefault(found.turning, []).append(item.id)
        try:
            if item.mask is not None and found.colors:
                self._palettes.add(item.mask, found.colors)
        except DataError as error:
            return error
        return None

    def notes(self, config: DataConfig) -> list[str]:
        """What is to be said about the data set."""
        said = [f"{len(ids)} images: {text} ({first_three(iter(ids))})" for text, ids in self._turned.items()]
        most = max(self._bits, default=BITS)
        if config.bits == BITS and most < BITS:
            share = 100 * 2**most / 2**BITS
            said.append(
                f"the images of 16 bits use at most {most} of them, {share:.0f} % of the range: almost black to the "
                f"network; if white is {2**most - 1}, say so by data.bits={most}"
            )
        return said
