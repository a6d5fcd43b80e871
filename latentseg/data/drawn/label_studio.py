"""Label Studio: JSON of brushes and polygons, or a PNG for each label and task."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from latentseg.data.drawn.runs import unpacked
from latentseg.data.drawn.shapes import Canvas
from latentseg.data.drawn.store import (
    ODD,
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
from latentseg.data.masks import read_mask
from latentseg.errors import DataError

Tree = dict[str, Any]
KINDS = {"brushlabels": "brush", "polygonlabels": "polygon"}
PNG = re.compile(r"task-(?P<task>\d+)-annotation-(?P<annotation>\d+)-by-.*-tag-(?P<tag>.+)-(?P<number>\d+)\.png")
"""Name of a file of the export `brush labels to PNG`."""
REMEDY = "export `JSON` from Label Studio, and lay the images beside it"


class Region(NamedTuple):
    """What is painted of one label."""

    label: str
    values: Tree


def regions_of(task: Any) -> list[Region] | None:
    """What is painted in a task of the exports JSON and JSON-MIN; None if it is no task with labels of pixels."""
    if not isinstance(task, dict):
        return None
    found: list[Region] = []
    done = [each for each in task.get("annotations") or [] if not each.get("was_cancelled")]
    parts: Iterable[Any] = [part.get("value", {}) | part for part in (done[-1].get("result", []) if done else [])]
    if "annotations" not in task:  # JSON-MIN: lists of regions by the name of the tool
        parts = [part for value in task.values() if isinstance(value, list) for part in value if isinstance(part, dict)]
    for part in parts:
        kind = next((kind for kind in KINDS if part.get(kind)), None)
        if kind:
            found.append(Region(str(part[kind][0]), part))
    return found or None


def is_label_studio(tree: Any) -> bool:
    """Whether the content of a JSON file is an export with labels of pixels."""
    try:
        return isinstance(tree, list) and any(regions_of(task) for task in tree)
    except ODD:  # damaged: its reader says so
        return any(isinstance(task, dict) and "annotations" in task for task in tree)


def label_studio(root: Path, uncovered: Uncovered = "background") -> Annotations:
    """The regions of all exports below a folder; later ones lie on top, the rest is `uncovered`.

    Of several annotations of a task the last one counts. Everything is for training.

    Raises:
        DataError: There is no export, or it names an image that is missing.
    """
    trees = {path: tree for path in json_files(root) if is_label_studio(tree := read_json(path))}
    if not trees:
        return _of_pngs(root, uncovered)
    painted: dict[Path, list[tuple[Tree, list[Region] | None]]] = {}
    for path, tree in trees.items():
        with understood(path):
            painted[path] = [(task, regions_of(task)) for task in tree]
    tasks = [(path, task, regions) for path, found in painted.items() for task, regions in found if regions]
    ids = numbered(sorted({region.label for _, _, regions in tasks for region in regions}), uncovered)
    index, drawings = ImageIndex(root), list[Drawing]()
    for path, task, regions in tasks:
        image = _image(task, index, path)
        drawings.append(Drawing("train", index.id_of(image), image, _drawing(regions, ids, image, path, uncovered)))
    several = sum(len(task.get("annotations") or []) > 1 for _, task, _ in tasks)
    notes = [f"{several} tasks have several annotations: the last one counts"] if several else []
    used = {drawing.image for drawing in drawings}
    bare = [("train", index.id_of(path), path) for path in index.files if path not in used and not PNG.match(path.name)]
    return Annotations(tuple(ids), drawings, list(trees), bare, tuple(notes), uncovered)


def _image(task: Tree, index: ImageIndex, path: Path) -> Path:
    """The file of a task, whose name may follow eight letters that Label Studio has put before it."""
    data = task.get("data") if isinstance(task.get("data"), dict) else task
    texts = [value for value in (data or {}).values() if isinstance(value, str)]
    for text in texts:
        name = re.split(r"[/=]", unquote(text))[-1]
        for form in (name, re.sub(r"^[0-9a-f]{8}-", "", name)):
            if found := index.find(form, path.parent):
                return found
    raise DataError("a task whose image is missing", REMEDY, path, f"task {task.get('id')}: {', '.join(texts)[:200]}")


def _drawing(
    regions: list[Region], ids: dict[str, int], image: Path, path: Path, uncovered: Uncovered
) -> Callable[[], NDArray[np.uint8]]:
    def draw() -> NDArray[np.uint8]:
        with understood(path, "a region that cannot be drawn", image.name):
            sizes = [size_of(image, values["original_height"], values["original_width"]) for _, values in regions]
            canvas = Canvas(sizes[0], uncovered)
            for (label, values), (height, width) in zip(regions, sizes, strict=True):
                if "points" in values:
                    corners = [(x * width / 100, y * height / 100) for x, y in values["points"]]
                    if not canvas.shape("polygon", corners, ids.get(label, 0)):
                        raise ValueError(f"{label}: a polygon of {len(corners)} points")
                else:
                    alpha = unpacked(values["rle"]).reshape(height, width, 4)[..., 3]
                    canvas.paint(alpha > 0, ids.get(label, 0))
        return canvas.mask()

    return draw


def _of_pngs(root: Path, uncovered: Uncovered) -> Annotations:
    """PNG files of single labels, of images that bear the number of their task."""
    index = ImageIndex(root)
    of_task: dict[str, list[tuple[str, Path]]] = {}
    for path in index.files:
        if found := PNG.fullmatch(path.name):
            of_task.setdefault(found["task"], []).append((found["tag"], path))
    if not of_task:
        raise DataError("no export of Label Studio with brushes or polygons", REMEDY, root)
    photos = [path for path in index.files if not PNG.fullmatch(path.name)]
    named = {re.sub(r"^(task[-_ ]?)?0*(?=\d)", "", path.stem): path for path in photos}
    lost = [task for task in of_task if task not in named]
    if lost:
        cause = "PNG files of Label Studio do not say which image they belong to"
        raise DataError(cause, f"{REMEDY}, or name each image task-NUMBER", root, f"no image task-{lost[0]}")
    ids = numbered(sorted({tag for found in of_task.values() for tag, _ in found}), uncovered)
    drawings = [
        Drawing("train", index.id_of(named[task]), named[task], _stacked(found, ids, uncovered))
        for task, found in of_task.items()
    ]
    used = {each.image for each in drawings}
    bare = [("train", index.id_of(path), path) for path in photos if path not in used]
    files = [path for found in of_task.values() for _, path in found]
    return Annotations(tuple(ids), drawings, files, bare, uncovered=uncovered)


def _stacked(
    found: list[tuple[str, Path]], ids: dict[str, int], uncovered: Uncovered
) -> Callable[[], NDArray[np.uint8]]:
    def draw() -> NDArray[np.uint8]:
        layers: Iterator[tuple[int, NDArray[Any]]] = ((ids.get(tag, 0), read_mask(path)) for tag, path in found)
        value, first = next(layers)
        canvas = Canvas(first.shape[:2], uncovered)
        canvas.paint(first > 0, value)
        for value, layer in layers:
            canvas.paint(layer > 0, value)
        return canvas.mask()

    return draw
