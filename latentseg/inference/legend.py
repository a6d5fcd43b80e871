"""A legend: which colour is which class, as pixels."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

LINE, GAP, LETTERS = 18, 6, 24
"""Height of a line and space between things, in pixels; letters of a name that are shown."""


def legend(names: Sequence[str], palette: NDArray[np.uint8], width: int = 480) -> NDArray[np.uint8]:
    """Swatches of colours with names, in lines that fit a width, on white: RGB, uint8, shape (h, width, 3).

    Args:
        names: Of the classes, by id.
        palette: Their colours, shape (C, 3).
        width: In pixels.
    """
    font = ImageFont.load_default(LINE - 6)
    shown = [name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…" for name in names]
    places: list[tuple[int, int]] = []
    x, y = GAP, GAP
    for name in shown:
        needed = LINE + GAP + round(font.getlength(name)) + 2 * GAP
        if x > GAP and x + needed > width:
            x, y = GAP, y + LINE + GAP
        places.append((x, y))
        x += needed
    picture = Image.new("RGB", (width, y + LINE + GAP), "white")
    draw = ImageDraw.Draw(picture)
    for name, color, (left, top) in zip(shown, palette.tolist(), places, strict=True):
        draw.rectangle((left, top, left + LINE - 1, top + LINE - 1), tuple(color), "black")
        draw.text((left + LINE + GAP, top + 1), name, "black", font)
    return np.array(picture)
