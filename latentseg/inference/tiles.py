"""Parts of an image: windows, and tiles of a huge one, by which memory does not grow with classes times pixels."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from latentseg.config import InferenceConfig
from latentseg.console import console
from latentseg.errors import DataError
from latentseg.inference.stream import Pixels, Size
from latentseg.models.segmenter import Output

WHOLE_PIXELS = 2**23
"""Images up to this many pixels (a frame of 4K has fewer) are one piece: the network takes some 0.4 GB per 2^20."""
TILE = 1024
"""Longest side of a tile in pixels, in the largest of its scales and its maps."""
MARGIN, LEAST = 192, 96
"""Pixels around a tile that are predicted with it and dropped, so that it is seen in its surroundings: of the maps, and
at least so many of the image."""
Span = tuple[slice, int, slice, slice]


class Tile(NamedTuple):
    """A part of an image of h x w pixels, whose maps have H x W."""

    seen: tuple[slice, slice]
    """Rows and columns of the image that the network is shown."""
    size: Size
    """Height and width of the maps of what is seen."""
    kept: tuple[slice, slice]
    """Of those maps, what counts."""
    place: tuple[slice, slice]
    """Where that lies in the maps of the whole image."""


def tiles(shape: Size, size: Size, config: InferenceConfig) -> list[Tile]:
    """The tiles of an image; none if it is predicted in one piece.

    Args:
        shape: Height and width of the image as the network sees it.
        size: Those of its maps, which may be larger (`data.resize`).
        config: mode, window and scales.
    """
    factor = max(1.0, *config.scales, size[0] / shape[0], size[1] / shape[1])
    if config.mode == "whole" or shape[0] * shape[1] * factor**2 <= WHOLE_PIXELS:
        return []
    windows = config.window if config.mode == "slide" else (0, 0)
    rows, columns = (
        _spans(length, mapped, max(LEAST, int(TILE / factor), window), max(LEAST, int(MARGIN / factor)))
        for length, mapped, window in zip(shape, size, windows, strict=True)
    )
    return [Tile((r[0], c[0]), (r[1], c[1]), (r[2], c[2]), (r[3], c[3])) for r in rows for c in columns]


def in_tiles(
    predict: Callable[[Pixels, Size, bool], Output],
    images: Pixels,
    size: Size | None,
    latent: bool,
    config: InferenceConfig,
) -> Output:
    """What `predict` says of images, of huge ones tile by tile.

    The maps are held whole, as they are: a byte per pixel of labels. Of what lies behind them, such as probabilities,
    there is that of one tile.

    Args:
        predict: Of images, the size of their maps, and whether latent classes are wanted.
        images: Shape (N, h, w, 3) or (h, w, 3).
        size: Height and width of the maps; those of the images if None.
        latent: Handed on.
        config: As for `tiles`.
    """
    shape = (images.shape[-3], images.shape[-2])
    parts = tiles(shape, size or shape, config)
    if not parts:
        return predict(images, size or shape, latent)
    whole: Output | None = None
    for part in parts:
        maps = predict(np.ascontiguousarray(images[(..., *part.seen, slice(None))]), part.size, latent)
        if whole is None:
            empty = [None if tile is None else tile.new_empty(*tile.shape[:-2], *(size or shape)) for tile in maps]
            assert empty[0] is not None
            whole = Output(empty[0], empty[1])
        for target, tile in zip(whole, maps, strict=True):
            if target is not None and tile is not None:
                target[(..., *part.place)] = tile[(..., *part.kept)]
    assert whole is not None
    return whole


def _spans(length: int, mapped: int, side: int, margin: int) -> list[Span]:
    """What is seen, the length of its map, what of that is kept, and its place, for each tile along one axis."""
    count = -(-length // side)
    edges = [round(number * length / count) for number in range(count + 1)]
    spans = []
    for start, end in pairwise(edges):
        first, last = max(0, start - margin), min(length, end + margin)
        begin, left, right, stop = (round(at * mapped / length) for at in (first, start, end, last))
        spans.append((slice(first, last), stop - begin, slice(left - begin, right - begin), slice(left, right)))
    return spans


def tell_tiles(shape: Size, size: Size, config: InferenceConfig) -> bool:
    """Say that images are predicted in tiles, if this one is; arguments as for `tiles`."""
    if not tiles(shape, size, config):
        return False
    console.print(
        f"note: images of more than {WHOLE_PIXELS / 1e6:.1f} million pixels, such as one of {size[1]}x{size[0]}, are "
        f"predicted in tiles (inference.mode=whole takes them at once)",
        style="yellow",
        highlight=False,
    )
    return True


def no_memory(path: Path | None, detail: str) -> DataError:
    """The error of an image that the memory does not hold, with its size or what it was for."""
    return DataError(
        "there is not enough memory to predict the image",
        "predict it by windows (inference.mode=slide, with a smaller inference.window), one image at a time "
        "(inference.batch_size=1), or cut it into parts",
        path,
        detail,
    )


def starts(length: int, window: int, overlap: float) -> list[int]:
    """Evenly spread starts of windows that cover `length` and overlap by at least the given share."""
    stride = max(1, int(window * (1 - overlap)))
    count = -(-(length - window) // stride) + 1
    return [round(i * (length - window) / max(1, count - 1)) for i in range(count)]
