"""LabelMe: a JSON file of polygons per image, a list of labels, and a configuration with their colours."""

import json
import os
from typing import Any

from latentseg.annotate.polygons import filled, polygons
from latentseg.annotate.proposals import Proposed, mean_probability
from latentseg.annotate.target import Labels
from latentseg.data.drawn.labelme import NO_LABEL

LABELS, CONFIGURATION = "labels.txt", "labelme.yaml"
CENTRE = 0.5
"""Of a pixel: in LabelMe the upper left corner of an image is (0, 0)."""


def encode(labels: Labels, proposed: Proposed) -> bytes | None:
    """The file of an image; None if nothing is proposed."""
    height, width = proposed.ids.shape
    shapes: list[dict[str, Any]] = []
    for region in proposed.regions():
        for polygon in polygons(region.pixels):
            piece, (left, top) = filled(polygon)
            around = proposed.probs[top : top + piece.shape[0], left : left + piece.shape[1]]
            shapes.append({
                "label": labels.classes[region.label],
                "points": [[x + CENTRE, y + CENTRE] for x, y in polygon],
                "group_id": None,
                "description": f"confidence {mean_probability(around, piece)}",
                "shape_type": "polygon",
                "flags": {},
                "mask": None,
            })  # fmt: skip
    if not shapes:
        return None
    file = labels.out / proposed.image
    tree = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": os.path.relpath(labels.images / proposed.image, file.parent),
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    return json.dumps(tree).encode()


def beside(labels: Labels) -> dict[str, bytes]:
    """The list of labels, and the configuration with their colours (JSON is YAML)."""
    colors = dict(zip(labels.classes, labels.palette.tolist(), strict=True))
    return {
        LABELS: "".join(f"{name}\n" for name in (NO_LABEL, *labels.classes)).encode(),
        CONFIGURATION: f"shape_color: manual\nlabel_colors: {json.dumps(colors)}\n".encode(),
    }
