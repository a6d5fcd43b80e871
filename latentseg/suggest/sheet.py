"""A contact sheet: each chosen image beside its prediction and where the model is unsure, with rank and reasons."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from latentseg.inference.legend import legend
from latentseg.inference.model import Model
from latentseg.inference.pictures import left_unpainted, overlay
from latentseg.inference.stream import Pixels
from latentseg.suggest.signals import entropy_map

SIDE, GAP, LINE, LETTERS = 200, 8, 17, 12
"""Pixels: of a picture's longer side, between things, of a line of text, and of its letters."""
PER_ROW, LINES = 2, 4
"""Images in a row; lines of text under each, the last of which says that there are more."""
UNSURE = np.array([215, 48, 39])
"""Colour of a pixel about which nothing is known."""


def card(model: Model, pixels: Pixels, probs: Callable[[Pixels, tuple[int, int]], Tensor]) -> NDArray[np.uint8]:
    """Image, prediction and doubt side by side, RGB, shape (h, 3 * SIDE + 2 * GAP, 3); red: the classes are a guess.

    Args:
        model: Has the colours of the classes.
        pixels: The image as the network sees it, shape (h, w, 3).
        probs: S_c of it at a size.
    """
    scale = SIDE / max(pixels.shape[:2])
    height, width = (max(1, round(scale * side)) for side in pixels.shape[:2])
    small = np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    maps = probs(pixels, (height, width)).cpu()
    ids = maps.argmax(0).byte().numpy()
    unpainted = left_unpainted(model.classes, model.run.config.inference.unpainted)
    doubt = entropy_map(maps).clamp(0, 1).numpy()[..., None]
    grey = np.repeat(small.mean(2, keepdims=True), 3, axis=2)
    panels = [small, overlay(small, ids, model.run.palette, unpainted), grey * (1 - doubt) + UNSURE * doubt]
    picture = np.full((height, 3 * SIDE + 2 * GAP, 3), 255, np.uint8)
    for number, panel in enumerate(panels):
        left = number * (SIDE + GAP)
        picture[:, left : left + width] = panel.astype(np.uint8)
    return picture


def contact_sheet(
    cards: Sequence[NDArray[np.uint8]], texts: Sequence[Sequence[str]], model: Model
) -> NDArray[np.uint8]:
    """All cards with their lines of text, the best first, above the colours of the classes; RGB, shape (h, w, 3).

    Args:
        cards: From `card`.
        texts: Lines for each; the first is its title.
        model: Has the classes and their colours.
    """
    wide = max(picture.shape[1] for picture in cards) + 2 * GAP
    tall = max(picture.shape[0] for picture in cards) + (LINES + 1) * LINE + 2 * GAP
    across = min(PER_ROW, len(cards))
    colors = legend(model.classes, model.run.palette, across * wide)
    down = -(-len(cards) // across)
    sheet = Image.new("RGB", (across * wide, down * tall + len(colors)), "white")
    draw = ImageDraw.Draw(sheet)
    fonts = [ImageFont.load_default(LETTERS + 1), *[ImageFont.load_default(LETTERS)] * LINES]
    for number, (picture, lines) in enumerate(zip(cards, texts, strict=True)):
        left, top = number % across * wide + GAP, number // across * tall + GAP
        sheet.paste(Image.fromarray(picture), (left, top + LINE))
        shown = [*lines[:LINES], f"and {len(lines) - LINES} more reasons"] if len(lines) > LINES + 1 else lines
        places = [top, *(top + LINE + picture.shape[0] + 2 + LINE * row for row in range(LINES))]
        for line, font, y in zip(shown, fonts, places, strict=False):
            draw.text((left, y), _fitted(line, font, wide - 2 * GAP), "black", font)
    sheet.paste(Image.fromarray(colors), (0, down * tall))
    return np.array(sheet)


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """A text as one line of at most a width in pixels, cut in front, where names of files differ least."""
    line = " ".join(text.split())
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(f"…{line}") > width:
        line = line[1:]
    return f"…{line}"
