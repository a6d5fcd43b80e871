"""Regions as polygons that Pillow, and with it LabelMe's converter, fills to the same pixels.

The corners are centres of pixels at the edge of a region. A hole stays one: a bridge there and back, through pixels of
the region, joins its outline to the outer one.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from contourpy import FillType, contour_generator
from numpy.typing import NDArray

from latentseg.data.drawn.shapes import Canvas

Corner = tuple[int, int]
"""Column and row of a pixel."""
NEAR = 0.999
"""Level of the contour, between 0 (outside) and 1 (inside): so high that it passes by the inner pixels' centres."""


def polygons(pixels: NDArray[np.bool_]) -> Iterator[list[Corner]]:
    """The pieces of a region, shape (H, W), as polygons of at least three corners, which may coincide.

    Pixels that touch at a corner alone belong to different pieces.
    """
    around = np.pad(pixels, 1).astype(np.float32)
    found = contour_generator(z=around, fill_type=FillType.OuterOffset).filled(NEAR, 2)
    for points, offsets in zip(*found, strict=True):
        corners = [(int(x), int(y)) for x, y in np.rint(points).astype(int) - 1]
        rings = [corners[start : end - 1] for start, end in pairwise(offsets.tolist())]  # the last is the first
        polygon = _straight(_bridged(rings, pixels))
        yield polygon + polygon[-1:] * (3 - len(polygon))


def filled(polygon: list[Corner]) -> tuple[NDArray[np.bool_], Corner]:
    """The pixels of a polygon, cut out, shape (h, w), and their upper left one."""
    xs, ys = zip(*polygon, strict=True)
    left, top = min(xs), min(ys)
    canvas = Canvas((max(ys) - top + 1, max(xs) - left + 1))
    canvas.shape("polygon", [(x - left, y - top) for x, y in polygon], 1)
    return canvas.mask() > 0, (left, top)


def _bridged(rings: list[list[Corner]], pixels: NDArray[np.bool_]) -> list[Corner]:
    """An outline, and those of its holes, as one.

    From the leftmost corner of a hole's outline, the bridge goes left to the next edge of the region. That belongs to
    the outer outline, or to a hole that reaches further left and is joined already.
    """
    whole, *holes = rings
    for hole in sorted(holes, key=min):
        first = hole.index(min(hole))
        x, y = hole[first]
        while x > 0 and pixels[y, x - 1]:
            x -= 1
        at = whole.index((x, y))
        whole = [*whole[: at + 1], *hole[first:], *hole[: first + 1], *whole[at:]]
    return whole


def _straight(corners: list[Corner]) -> list[Corner]:
    """Without corners that repeat the one before, or lie on a row, column or diagonal of neighbours."""
    apart = [corner for i, corner in enumerate(corners) if corner != corners[i - 1]] or corners[:1]
    if len(apart) < 3:
        return apart
    steps = [(x - apart[i - 1][0], y - apart[i - 1][1]) for i, (x, y) in enumerate(apart)]
    return [
        corner
        for corner, step, following in zip(apart, steps, [*steps[1:], steps[0]], strict=True)
        if step != following or max(map(abs, step)) > 1
    ]
