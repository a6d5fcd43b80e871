"""LabelMe: a JSON file of shapes beside each image."""

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latentseg.data.drawn.shapes import Canvas
from latentseg.data.drawn.store import (
    Annotations,
    Drawing,
    ImageIndex,
    Uncovered,
    json_files,
    numbered,
    read_json,
    size_of,
    understood,
)
from latentseg.data.files import first_three, read_text, shorten
from latentseg.data.images import IGNORE_INDEX
from latentseg.errors import DataError

NO_LABEL = "__ignore__"
"""Shapes of this name have no label."""
KINDS = frozenset({"polygon", "rectangle", "circle", "line", "linestrip", "point", "mask"})


def is_labelme(tree: Any) -> bool:
    """Whether the content of a JSON file is LabelMe's."""
    return isinstance(tree, dict) and isinstance(tree.get("shapes"), list) and "imagePath" in tree


def labelme(root: Path, uncovered: Uncovered = "background") -> Annotations:
    """The shapes of all JSON files below a folder; a folder of the name of a split is one.

    Classes are in the order of labels.txt or classes.txt, else of their names. Pixels outside of the shapes are
    `uncovered`.

    Raises:
        DataError: There is no such file, or one names an image that is missing.
    """
    trees = {path: tree for path in json_files(root) if is_labelme(tree := read_json(path))}
    if not trees:
        raise DataError("no JSON file of LabelMe", "give the folder that holds the images and their JSON files", root)
    index, seen, other = ImageIndex(root), set[str](), set[str]()
    for path, tree in trees.items():
        with understood(path):
            seen |= {str(shape["label"]) for shape in tree["shapes"]}
            other |= {str(shape.get("shape_type") or "polygon") for shape in tree["shapes"]} - KINDS
    listed = [root / name for name in ("labels.txt", "classes.txt") if (root / name).is_file()]
    order = [line.strip() for line in read_text(listed[0]).splitlines() if line.strip()] if listed else []
    names = [name for name in [*order, *sorted(seen - set(order))] if name != NO_LABEL]
    ids = numbered(names, uncovered)
    drawings, used, notes = [], set[Path](), list[str]()
    for path, tree in trees.items():
        image = index.find(str(tree["imagePath"]).replace("\\", "/").rpartition("/")[2], path.parent)
        if image is None:
            cause = "a JSON file of LabelMe whose image is missing"
            raise DataError(cause, "add the image, or remove the file", path, shorten(str(tree["imagePath"])))
        used.add(image)
        drawings.append(
            Drawing(index.split_of(image), index.id_of(image), image, _drawing(tree, ids, image, path, uncovered))
        )
    if other:
        notes.append(f"shapes of LabelMe that are left out: {first_three(iter(sorted(other)))}")
    bare = [(index.split_of(path), index.id_of(path), path) for path in index.files if path not in used]
    return Annotations(tuple(ids), drawings, [*trees, *listed[:1]], bare, tuple(notes), uncovered)


def _drawing(tree: dict[str, Any], ids: dict[str, int], image: Path, path: Path, uncovered: Uncovered) -> Any:
    def draw() -> NDArray[np.uint8]:
        canvas = Canvas(size_of(image, tree.get("imageHeight") or None, tree.get("imageWidth") or None), uncovered)
        with understood(path, "a shape that cannot be drawn"):
            for shape in tree["shapes"]:
                _draw(canvas, shape, ids)
        return canvas.mask()

    return draw


def _draw(canvas: Canvas, shape: dict[str, Any], ids: dict[str, int]) -> None:
    label = str(shape["label"])
    value = IGNORE_INDEX if label == NO_LABEL else ids.get(label, 0)  # 0: the background by another name
    kind = shape.get("shape_type") or "polygon"
    if kind == "mask":
        x, y = shape["points"][0]
        region = np.array(Image.open(BytesIO(base64.b64decode(shape["mask"]))).convert("L")) > 0
        canvas.paint(region, value, (round(y), round(x)))
    elif kind in KINDS and not canvas.shape(kind, shape["points"], value):
        raise ValueError(f"{label}: {kind} of {len(shape['points'])} points")
