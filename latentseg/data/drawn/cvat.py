"""CVAT: masks, polygons and boxes of the export `CVAT for images 1.1`, an XML file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray

from latentseg.data.drawn.runs import of_counts
from latentseg.data.drawn.shapes import Canvas
from latentseg.data.drawn.store import (
    Annotations,
    Drawing,
    ImageIndex,
    Uncovered,
    files_below,
    numbered,
    size_of,
    understood,
)
from latentseg.data.files import first_three, shorten
from latentseg.errors import DataError

SHAPES = ("mask", "polygon", "box")
"""Kinds of shapes that have an area and are drawn; others are left out, with a note."""
NO_SHAPES = frozenset({"tag"})


def read_cvat(path: Path) -> ET.Element | None:
    """The content of an XML file of CVAT; None if it is none.

    Raises:
        DataError: It cannot be read.
    """
    try:
        root = ET.parse(path).getroot()  # noqa: S314 - the expat of today's Python refuses entities that blow up
    except (ET.ParseError, OSError, ValueError, LookupError) as error:
        raise DataError("cannot be read as XML", "export it again, or remove it", path, str(error)) from error
    return root if root.tag == "annotations" and root.find("image") is not None else None


def cvat(root: Path, uncovered: Uncovered = "background") -> Annotations:
    """The shapes of all XML files below a folder, those of a higher z_order on top; a folder may name the split.

    Classes are in the order of the labels of the task. An image without shapes is unlabelled.

    Raises:
        DataError: There is no such file, or it names an image that is missing.
    """
    trees = {path: tree for path in files_below(root, ".xml") if (tree := read_cvat(path)) is not None}
    if not trees:
        raise DataError("no XML file of CVAT", "give the folder of the images and of annotations.xml", root)
    listed = [each.text or "" for tree in trees.values() for each in tree.iterfind(".//labels/label/name")]
    images = [(path, image) for path, tree in trees.items() for image in tree.iter("image")]
    drawn = [shape for _, image in images for shape in image if shape.tag in SHAPES]
    ids = numbered([*listed, *sorted({str(shape.get("label")) for shape in drawn} - set(listed))], uncovered)
    index, drawings, used = ImageIndex(root), list[Drawing](), set[Path]()
    for path, entry in images:
        image = index.find(str(entry.get("name")), path.parent)
        if image is None:
            cause = "an XML file of CVAT whose image is missing"
            raise DataError(cause, "add the image, or export again", path, shorten(str(entry.get("name"))))
        if any(shape.tag in SHAPES for shape in entry):
            used.add(image)
            draw = _drawing(entry, ids, image, path, uncovered)
            drawings.append(Drawing(index.split_of(image), index.id_of(image), image, draw))
    other = {shape.tag for _, image in images for shape in image} - {*SHAPES, *NO_SHAPES}
    notes = [f"shapes of CVAT that are left out: {first_three(iter(sorted(other)))}"] if other else []
    bare = [(index.split_of(path), index.id_of(path), path) for path in index.files if path not in used]
    return Annotations(tuple(ids), drawings, list(trees), bare, tuple(notes), uncovered)


def _drawing(
    entry: ET.Element, ids: dict[str, int], image: Path, path: Path, uncovered: Uncovered
) -> Callable[[], NDArray[np.uint8]]:
    def draw() -> NDArray[np.uint8]:
        with understood(path, "a shape that cannot be drawn", str(entry.get("name"))):
            canvas = Canvas(size_of(image, int(entry.attrib["height"]), int(entry.attrib["width"])), uncovered)
            shapes = [shape for shape in entry if shape.tag in SHAPES]
            for shape in sorted(shapes, key=lambda shape: int(shape.get("z_order", 0))):
                _draw(canvas, shape.tag, shape.attrib, ids.get(shape.attrib["label"], 0))
        return canvas.mask()

    return draw


def _draw(canvas: Canvas, kind: str, values: dict[str, Any], value: int) -> None:
    if kind == "mask":
        counts = [int(number) for number in values["rle"].split(",")]
        region = of_counts(counts, (int(values["height"]), int(values["width"])))
        canvas.paint(region, value, (int(values["top"]), int(values["left"])))
    elif kind == "polygon":
        corners = [tuple(float(part) for part in corner.split(",")) for corner in values["points"].split(";")]
        if not canvas.shape("polygon", corners, value):
            raise ValueError(f"a polygon of {len(corners)} points")
    else:
        left, top, right, bottom = (float(values[name]) for name in ("xtl", "ytl", "xbr", "ybr"))
        canvas.shape("rectangle", [(left, top), (right, bottom)], value)
