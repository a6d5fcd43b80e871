"""COCO: an annotation of runs per class and image, with its score, as CVAT, FiftyOne and others import it."""

import json
from typing import Any

import numpy as np

from latentseg import __version__
from latentseg.annotate.proposals import Proposed, box
from latentseg.annotate.target import Labels, Sizes

FILE = "instances_default.json"


def encode(labels: Labels, proposed: Proposed) -> bytes | None:
    """The annotations of an image, with commas between them; None if nothing is proposed."""
    from pycocotools import mask as runs  # noqa: PLC0415 - an extra

    height, width = proposed.ids.shape
    notes: list[dict[str, Any]] = []
    for region in proposed.regions():
        coded = runs.encode(np.asfortranarray(region.pixels.astype(np.uint8)))
        notes.append({
            "id": (proposed.number - 1) * len(labels.classes) + region.label + 1,
            "image_id": proposed.number,
            "category_id": region.label + 1,
            "segmentation": {"size": [height, width], "counts": coded["counts"].decode("ascii")},
            "area": int(region.pixels.sum()),
            "bbox": list(box(region.pixels)),
            "iscrowd": 0,
            "score": region.confidence,
        })  # fmt: skip
    return ",\n".join(map(json.dumps, notes)).encode() or None


def head(labels: Labels) -> bytes:
    """What stands before the annotations."""
    categories = [
        {"id": number, "name": name, "supercategory": "", "color": color}
        for number, (name, color) in enumerate(zip(labels.classes, labels.palette.tolist(), strict=True), start=1)
    ]
    info = {"description": f"proposals of {labels.run}", "contributor": f"latentseg {__version__}"}
    return f'{{"info": {json.dumps(info)},\n"categories": {json.dumps(categories)},\n"annotations": [\n'.encode()


def tail(_labels: Labels, sizes: Sizes) -> bytes:
    """What stands behind them: the images."""
    images = [
        {"id": number, "file_name": image.as_posix(), "height": height, "width": width}
        for number, (image, (height, width)) in sorted(sizes.items())
    ]
    return f'\n],\n"images": {json.dumps(images)}}}\n'.encode()
