"""The formats in which proposals are written, and where each of them puts its files. Without PyTorch."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from latentseg.annotate import coco, cvat, label_studio, labelme, masks
from latentseg.annotate.proposals import Proposed
from latentseg.annotate.target import Labels, Sizes

FormatName = Literal["masks", "coco", "labelstudio", "cvat", "labelme"]
FORMAT_NAMES: tuple[FormatName, ...] = get_args(FormatName)


class Document(NamedTuple):
    """One file for all images: what stands before, between and behind what belongs to each."""

    name: str
    head: Callable[[Labels], bytes]
    tail: Callable[[Labels, Sizes], bytes]
    between: bytes = b",\n"


class Format(NamedTuple):
    """How a tool takes proposals.

    Attributes:
        encode: What belongs to an image; None if that is nothing.
        files: A file per image: its folder and its ending; or one document.
        beside: Further files by name: labels and colours.
        advice: What to do with the files.
    """

    encode: Callable[[Labels, Proposed], bytes | None]
    files: tuple[str, str] | Document
    beside: Callable[[Labels], dict[str, bytes]]
    advice: str


def _nothing(_: Labels) -> dict[str, bytes]:
    return {}


FORMATS: dict[FormatName, Format] = {
    "masks": Format(
        masks.encode, ("masks", ".png"), masks.beside, "a mask per image: ids in the order of classes.txt, 255 is open"
    ),
    "coco": Format(
        coco.encode, Document(coco.FILE, coco.head, coco.tail), _nothing, f"import {coco.FILE} as COCO 1.0 or COCO JSON"
    ),
    "labelstudio": Format(
        label_studio.encode,
        Document(label_studio.FILE, label_studio.head, label_studio.tail),
        label_studio.beside,
        f"set up a project with {label_studio.CONFIGURATION} (Labeling Interface, Code) and import {label_studio.FILE}",
    ),
    "cvat": Format(
        cvat.encode,
        Document(cvat.FILE, cvat.head, cvat.tail, between=b"\n"),
        cvat.beside,
        f"make a task with the labels of {cvat.LABELS} (Raw) and upload {cvat.FILE} as CVAT 1.1",
    ),
    "labelme": Format(
        labelme.encode,
        ("", ".json"),
        labelme.beside,
        f"labelme IMAGES --output OUT --labels OUT/{labelme.LABELS} --config OUT/{labelme.CONFIGURATION}",
    ),
}


def path_of(out: Path, name: FormatName, image: Path) -> Path:
    """The file of an image, whose name is without ending; or the one document."""
    files = FORMATS[name].files
    if isinstance(files, Document):
        return out / files.name
    return out / files[0] / image.parent / f"{image.name}{files[1]}"
