"""An image and its mask belong together pixel by pixel: sizes, and which way up the mask was drawn."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latentseg.data.images import BITS, read_rgb, read_upright
from latentseg.data.masks import Read, read_mask
from latentseg.data.opening import opened, orientation, turned
from latentseg.errors import DataError

CLEARLY = 1.5  # times as much contrast along the borders of the mask; chance gives 1, a mask that fits 2 to 5
COMPARED = 256  # pixels of the longer side: borders that are drawn a few pixels off still lie on their edges

Raw = NDArray[np.integer[Any]]


def read_pair(path: Path, mask: Path, read: Read = read_mask, bits: int = BITS) -> tuple[NDArray[np.uint8], Raw]:
    """An image as `read_rgb` gives it and the values of its mask, upright as the image; each file is opened once.

    Raises:
        DataError: As `read_rgb` and `read_mask`; the sizes differ.
    """
    raw = read(mask)
    pixels, stored = read_upright(path, bits)
    return pixels, _fitted(raw, stored, pixels.shape[:2], (path, mask), lambda: pixels)[0]


def read_values(path: Path, mask: Path, read: Read = read_mask) -> Raw:
    """The values of a mask, upright as its image, of which the pixels are read only if both readings fit.

    Raises:
        DataError: As `read_pair`.
    """
    return _values(path, mask, read)[0]


def turning_note(path: Path, mask: Path, read: Read = read_mask) -> str | None:
    """What is said about the way up of a mask whose image EXIF turns; None where there is nothing to say.

    Raises:
        DataError: As `read_pair`.
    """
    with opened(path) as image:
        if orientation(image) == 1:
            return None
    return _values(path, mask, read)[1]


def check_headers(path: Path, mask: Path | None) -> None:
    """Open an image and its mask without decoding them; their sizes must agree.

    Raises:
        DataError: A file is missing or no image, or the sizes differ.
    """
    size, stored = header(path)
    if mask is not None:
        drawn, _ = header(mask)
        if drawn != size and (stored < 5 or drawn != size[::-1]):
            raise _differ(size, drawn, (path, mask))


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of an image when it is upright, by its header.

    Raises:
        DataError: The file is missing or no image.
    """
    height, width = header(path)[0]
    return width, height


def header(path: Path) -> tuple[tuple[int, ...], int]:
    """Height and width of an image when it is upright, and the EXIF orientation of its pixels.

    Raises:
        DataError: The file is missing or no image.
    """
    with opened(path) as image:
        stored = orientation(image)
        size = image.size if stored >= 5 and image.format != "TIFF" else image.size[::-1]  # Pillow says a TIFF's turned
        return size, stored


def _values(path: Path, mask: Path, read: Read) -> tuple[Raw, str | None]:
    raw = read(mask)
    size, stored = header(path)
    return _fitted(raw, stored, size, (path, mask), lambda: read_rgb(path))


def _fitted(
    raw: Raw, stored: int, size: tuple[int, ...], files: tuple[Path, Path], pixels: Callable[[], NDArray[np.uint8]]
) -> tuple[Raw, str | None]:
    """A mask turned as its image, and what is to be said about it.

    One rule: images are upright. A mask is taken as drawn on the upright image. If it was drawn on the stored pixels,
    it is turned with them: that is sure if it has their size alone, and else if its borders lie clearly better on
    the edges.
    """
    if stored == 1 and raw.shape == size:
        return raw, None
    as_stored = turned(raw, stored)
    if as_stored.shape != size:
        if raw.shape != size:
            raise _differ(size, raw.shape, files)
        return raw, None
    if raw.shape != size:
        return (
            as_stored,
            "EXIF turns the image, whose mask has the size of its stored pixels: the mask is turned with it",
        )
    one, other = (_contrast(pixels(), ids) for ids in (raw, as_stored))
    if other > CLEARLY * one:
        return as_stored, (
            "EXIF turns the image, whose mask fits the edges of its stored pixels better: the mask is turned with it"
        )
    if one > CLEARLY * other:
        return raw, None
    return raw, "EXIF turns the image, whose mask fits either way: taken as drawn on the upright image; look at it"


def _contrast(pixels: NDArray[np.uint8], ids: Raw) -> float:
    """Mean step of brightness across the borders between values of a mask."""
    step = max(1, max(ids.shape) // COMPARED)
    grey = np.array(Image.fromarray(pixels).convert("L").reduce(step), dtype=np.int16)
    ids = ids[step // 2 :: step, step // 2 :: step]
    grey, ids = grey[: ids.shape[0], : ids.shape[1]], ids[: grey.shape[0], : grey.shape[1]]
    steps = [np.abs(np.diff(grey, axis=axis))[np.diff(ids, axis=axis) != 0] for axis in (0, 1)]
    found = np.concatenate(steps)
    return float(found.mean()) if found.size else 0.0


def _differ(size: tuple[int, ...], drawn: tuple[int, ...], files: tuple[Path, Path]) -> DataError:
    return DataError(
        "an image and its mask differ in size", "a mask must have the size of its image: replace one of them",
        files[0], f"image {size[1]}x{size[0]}, mask {files[1]} {drawn[1]}x{drawn[0]}, width x height",
    )  # fmt: skip
