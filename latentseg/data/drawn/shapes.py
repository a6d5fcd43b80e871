"""Outlines and boxes drawn into a mask, as LabelMe's own converter draws them."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from latentseg.data.drawn.store import Uncovered
from latentseg.data.images import IGNORE_INDEX

FAR = 1e6
"""Pixels; a corner that lies farther out is a mistake."""
LINE_WIDTH, POINT_SIZE = 10, 5  # pixels, as LabelMe's converter
FILL: dict[Uncovered, int] = {"background": 0, "ignore": IGNORE_INDEX}
"""Value of pixels that nothing covers."""


def check_corners(values: Iterable[float]) -> None:
    """Refuse coordinates that are no numbers, or far out: libraries that draw would hang, or crash.

    Raises:
        ValueError: One is.
    """
    for value in values:
        if not -FAR <= value <= FAR:  # nor is it so for NaN
            raise ValueError(f"a corner at {value}")


class Canvas:
    """A mask in the making; what is drawn later lies on top.

    Args:
        size: Height and width.
        uncovered: What the pixels are that nothing covers.
    """

    def __init__(self, size: tuple[int, int], uncovered: Uncovered = "background") -> None:
        self._image = Image.new("L", (size[1], size[0]), FILL[uncovered])

    def shape(self, kind: str, points: Sequence[Sequence[float]], value: int) -> bool:
        """Draw one by its corners (x, y) in pixels; whether it is of a kind that can be drawn.

        Raises:
            ValueError: A corner is no point, or lies nowhere near the image.
        """
        draw, corners = ImageDraw.Draw(self._image), [(float(x), float(y)) for x, y in points]
        check_corners(value for corner in corners for value in corner)
        if kind == "polygon" and len(corners) > 2:
            draw.polygon(corners, outline=value, fill=value)
        elif kind == "rectangle" and len(corners) == 2:
            (left, right), (top, bottom) = (sorted(side) for side in zip(*corners, strict=True))
            draw.rectangle((left, top, right, bottom), outline=value, fill=value)
        elif kind == "circle" and len(corners) == 2:
            (x, y), edge = corners[0], math.dist(*corners)
            draw.ellipse((x - edge, y - edge, x + edge, y + edge), outline=value, fill=value)
        elif kind in {"line", "linestrip"} and len(corners) > 1:
            draw.line(corners, fill=value, width=LINE_WIDTH)
        elif kind == "point" and len(corners) == 1:
            x, y = corners[0]
            draw.ellipse((x - POINT_SIZE, y - POINT_SIZE, x + POINT_SIZE, y + POINT_SIZE), fill=value)
        else:
            return False
        return True

    def paint(self, region: NDArray[np.bool_], value: int, place: tuple[int, int] = (0, 0)) -> None:
        """Fill a region, shape (h, w), whose upper left pixel lies at a row and a column."""
        self._image.paste(value, (place[1], place[0]), Image.fromarray(region.astype(np.uint8) * 255))

    def mask(self) -> NDArray[np.uint8]:
        """The values, shape (H, W)."""
        return np.array(self._image)
