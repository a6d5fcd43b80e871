"""COCO: instances (polygons and runs, by pycocotools) or panoptic segments (a PNG of ids) in a JSON file per split."""

import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentseg.data.drawn.runs import of_counts, of_text
from latentseg.data.drawn.shapes import FILL, check_corners
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
from latentseg.data.files import is_file, shorten
from latentseg.data.images import IGNORE_INDEX
from latentseg.data.masks import read_colors
from latentseg.data.templates import split_in
from latentseg.errors import DataError, UserError

Tree = dict[str, Any]
Draw = Callable[[], NDArray[np.uint8]]


def is_coco(tree: Any) -> bool:
    """Whether the content of a JSON file is COCO's, with something that can be drawn."""
    if not (isinstance(tree, dict) and {"images", "annotations", "categories"} <= tree.keys()):
        return False
    notes = [note for note in tree["annotations"] or () if isinstance(note, dict)] if _are_lists(tree) else []
    return any(note.get("segmentation") or "segments_info" in note for note in notes)


def _has_segments(notes: list[Any]) -> bool:
    return bool(notes) and isinstance(notes[0], dict) and "segments_info" in notes[0]


def _are_lists(tree: Tree) -> bool:
    return all(isinstance(tree[name], list) for name in ("images", "annotations", "categories"))


def coco(root: Path, uncovered: Uncovered = "background") -> Annotations:
    """The annotations of all COCO files below a folder.

    Panoptic files are taken where there are any, else instances*.json, else all. The name of a file or of its folder
    names the split, else it is train. Categories become classes in the order of their ids. Instances: the pixels that
    none covers are `uncovered`, later ones lie on top, crowds have no label but where an instance lies. Panoptic: void
    and crowds have no label, and there is no background. Images without annotations are unlabelled, or left out of
    val and test.

    Raises:
        DataError: There is no such file, or its parts do not fit.
    """
    trees = {path: tree for path in json_files(root) if is_coco(tree := read_json(path))}
    if not trees:
        raise DataError("no JSON file of COCO with outlines", "give the folder that holds images and JSON files", root)
    panoptic = [path for path, tree in trees.items() if _has_segments(tree["annotations"])]
    chosen = panoptic or [path for path in trees if path.name.startswith("instances")] or list(trees)
    notes = [f"{path.relative_to(root)} is not used, but {chosen[0].name}" for path in trees if path not in chosen]
    categories = _categories({path: trees[path] for path in chosen})
    names = [name for _, name in sorted(categories.items())]
    ids = {name: number for number, name in enumerate(dict.fromkeys(names))} if panoptic else numbered(names, uncovered)
    of_category = {number: ids.get(name, 0) for number, name in categories.items()}
    folders = [path.with_suffix("") for path in chosen] if panoptic else []
    index = ImageIndex(root, (folder for folder in folders if folder.is_dir()))
    drawings, used, files = list[Drawing](), set[Path](), list(chosen)
    for path in chosen:
        split, missing, empty = split_in((path.stem, *reversed(path.relative_to(root).parts[:-1]))), 0, 0
        for entry, parts in _entries(trees[path], path):
            image = index.find(str(entry["file_name"]), path.parent, re.sub(r"^[^_]*_", "", path.stem))
            missing += image is None
            empty += not parts
            if image is None or not parts:
                used |= {image} if image and split != "train" else set()
                continue
            used.add(image)
            draw = (
                _panoptic(parts[0], of_category, path)
                if panoptic
                else _instances(entry, parts, of_category, (image, path), uncovered)
            )
            files += [_panoptic_file(parts[0], path)] if panoptic else []
            drawings.append(Drawing(split, index.id_of(image), image, draw))
        notes += [f"{missing} images of {path.name} are not there: left out"] if missing else []
        lost = "unlabelled" if split == "train" else "left out"
        notes += [f"{empty} images of {path.name} have no outlines: {lost}"] if empty else []
    bare = [("train", index.id_of(path), path) for path in index.files if path not in used]
    kept = [each for each in bare if index.split_of(each[2]) == "train"]
    notes += (
        [f"{len(bare) - len(kept)} images of val or test are in no file: left out"] if len(kept) < len(bare) else []
    )
    return Annotations(tuple(ids), drawings, files, kept, tuple(notes), uncovered)


def _entries(tree: Tree, path: Path) -> list[tuple[Tree, list[Tree]]]:
    """The images of a file, each with its annotations that have an area."""
    with understood(path):
        of_image = defaultdict(list)
        for note in tree["annotations"]:
            if note.get("segmentation") or "segments_info" in note:
                of_image[note["image_id"]].append(note)
        return [(entry, of_image[entry["id"]]) for entry in tree["images"] if entry["file_name"]]


def _categories(trees: dict[Path, Tree]) -> dict[int, str]:
    """Names by id, without a head that no annotation uses and under which the others stand (Roboflow)."""
    names: dict[int, str] = {}
    above, used = set[str](), set[int]()
    for path, tree in trees.items():
        with understood(path):
            for category in tree["categories"]:
                number, name = int(category["id"]), str(category["name"])
                if names.setdefault(number, name) != name:
                    cause = f"category {number} is {shorten(names[number])} in one file, {shorten(name)} in another"
                    raise DataError(cause, "export them with the same categories", path)
                above.add(str(category.get("supercategory") or ""))
            for note in tree["annotations"]:
                used |= {int(part["category_id"]) for part in note.get("segments_info", [note])}
    if lost := used - names.keys():
        raise DataError("annotations of categories that are not listed", "export it again", path, f"{sorted(lost)[:5]}")
    return {number: name for number, name in names.items() if number in used or name not in above}


def _instances(
    entry: Tree, parts: list[Tree], ids: dict[int, int], files: tuple[Path, Path], uncovered: Uncovered
) -> Draw:
    def draw() -> NDArray[np.uint8]:
        try:
            from pycocotools import mask as runs  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise UserError("instances of COCO are drawn by pycocotools: pip install 'latentseg[coco]'") from error
        image, path = files
        with understood(path, "an image without its size", image.name):
            said = entry["height"], entry["width"]
        size = size_of(image, *said)
        mask = np.full(size, FILL[uncovered], np.uint8)
        for note in sorted(parts, key=lambda note: not note.get("iscrowd")):  # crowds first; else in their order
            with understood(path, "an outline that cannot be drawn", f"annotation {note.get('id')} of {image.name}"):
                region = _region(note["segmentation"], size, runs)
                mask[region] = IGNORE_INDEX if note.get("iscrowd") else ids[int(note["category_id"])]
        return mask

    return draw


def _region(outline: Any, size: tuple[int, int], runs: Any) -> NDArray[np.bool_]:
    """Pixels of an outline: runs (counts from column to column, or their text) or polygons."""
    if isinstance(outline, dict):
        if list(outline["size"]) != list(size):
            raise ValueError(f"runs of an image of {outline['size']}")
        counts = outline["counts"]
        return of_counts(of_text(counts) if isinstance(counts, str) else counts, size[::-1]).T
    for polygon in outline:
        check_corners(polygon)
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"a polygon of {len(polygon)} numbers")
    decoded: NDArray[np.uint8] = runs.decode(runs.merge(runs.frPyObjects(outline, *size)))
    return decoded > 0


def _panoptic_file(part: Tree, path: Path) -> Path:
    folder = path.with_suffix("")
    with understood(path):
        file = (folder if folder.is_dir() else path.parent) / str(part["file_name"])
    if not is_file(file):
        raise DataError(f"no PNG of segments in {folder}", "unpack the PNG files there", path, shorten(file.name))
    return file


def _panoptic(part: Tree, ids: dict[int, int], path: Path) -> Draw:
    def draw() -> NDArray[np.uint8]:
        file = _panoptic_file(part, path)
        colors = read_colors(file)
        segments, places = np.unique(colors, return_inverse=True)
        with understood(path, detail=file.name):
            known = {
                int(info["id"]): IGNORE_INDEX if info.get("iscrowd") else ids[int(info["category_id"])]
                for info in part["segments_info"]
            } | {0: IGNORE_INDEX}
        if lost := set(segments.tolist()) - known.keys():
            raise DataError("segments that the JSON file does not list", "export it again", file, str(sorted(lost)[:5]))
        values = np.array([known[segment] for segment in segments.tolist()], np.uint8)
        return values[places].reshape(colors.shape)

    return draw
