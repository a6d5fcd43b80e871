"""CVAT for images 1.1: a mask of runs per class and image, with its confidence as attribute."""

import json
import re
from xml.etree import ElementTree as ET

from latentseg.annotate.proposals import Proposed, box
from latentseg.annotate.target import Labels, Sizes
from latentseg.data.drawn.runs import counted

FILE, LABELS = "annotations.xml", "cvat_labels.json"
CONFIDENCE = "confidence"
NOT_IN_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def encode(labels: Labels, proposed: Proposed) -> bytes:
    """The element of an image.

    Raises:
        ValueError: XML cannot hold its name.
    """
    if NOT_IN_XML.search(proposed.image.as_posix()):
        raise ValueError("a control character")
    height, width = proposed.ids.shape
    image = _element("image", id=proposed.number - 1, name=proposed.image.as_posix(), width=width, height=height)
    for region in proposed.regions():
        left, top, wide, high = box(region.pixels)
        counts = counted(region.pixels[top : top + high, left : left + wide])
        mask = _element(
            "mask", label=labels.classes[region.label], source="auto", occluded=0, rle=", ".join(map(str, counts)),
            left=left, top=top, width=wide, height=high, z_order=0,
        )  # fmt: skip
        ET.SubElement(mask, "attribute", name=CONFIDENCE).text = str(region.confidence)
        image.append(mask)
    return _text(image)


def head(labels: Labels) -> bytes:
    """What stands before the images: the labels of the task."""
    meta = _element("meta")
    rows = ET.SubElement(ET.SubElement(meta, "task"), "labels")
    for each in _rows(labels):
        row = ET.SubElement(rows, "label")
        for key in ("name", "color", "type"):
            ET.SubElement(row, key).text = str(each[key])
    return b'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n' + _text(meta) + b"\n"


def tail(_labels: Labels, _sizes: Sizes) -> bytes:
    """What stands behind the images."""
    return b"\n</annotations>\n"


def beside(labels: Labels) -> dict[str, bytes]:
    """The labels for the field `Raw` of a new task."""
    return {LABELS: json.dumps(_rows(labels), indent=1).encode()}


def _rows(labels: Labels) -> list[dict[str, object]]:
    attribute = {"name": CONFIDENCE, "mutable": False, "input_type": "text", "default_value": "", "values": [""]}
    return [
        {"name": name, "color": color, "type": "any", "attributes": [attribute]}
        for name, color in zip(labels.classes, labels.colors, strict=True)
    ]


def _element(tag: str, **values: object) -> ET.Element:
    return ET.Element(tag, {key: str(value) for key, value in values.items()})


def _text(element: ET.Element) -> bytes:
    ET.indent(element)
    return ET.tostring(element, "unicode").encode()
