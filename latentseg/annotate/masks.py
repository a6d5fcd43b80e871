"""Masks: an index PNG per image in the colours of the classes, 255 where nothing is proposed."""

import numpy as np

from latentseg.annotate.proposals import OPEN, Proposed
from latentseg.annotate.target import Labels
from latentseg.inference.pictures import index_png

OPEN_COLOR = (224, 224, 192)
"""As VOC shows pixels without label."""


def encode(labels: Labels, proposed: Proposed) -> bytes | None:
    """The mask of an image; None if nothing is proposed."""
    if (proposed.ids == OPEN).all():
        return None
    palette = np.zeros((OPEN + 1, 3), np.uint8)
    palette[: len(labels.palette)] = labels.palette
    palette[OPEN] = OPEN_COLOR
    return index_png(proposed.ids, palette)


def beside(labels: Labels) -> dict[str, bytes]:
    """The names of the ids, one a line."""
    return {"classes.txt": "".join(f"{name}\n" for name in labels.classes).encode()}
