"""COCO: instances (polygons and runs, by pycocotools) or panoptic segments (a PNG of ids) in a JSON file per split."""

import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentseg.data.drawn.shapes import FILL
from latentseg.data.drawn.store import Annotations, Drawing, ImageIndex, Uncovered, json_files, numbered, read_json
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
    return any(note.get("segmentation") or "segments_info" in note for note in tree["annotations"])


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
    panoptic = [path for path, tree in trees.items() if "segments_info" in tree["annotations"][0]]
    chosen = panoptic or [path for path in trees if path.name.startswith("instances")] or list(trees)
    notes = [f"{path.relative_to(root)} is not used, but {chosen[0].name}" for path in trees if path not in chosen]
    categories = _categories([trees[path] for path in chosen])
    names = [name for _, name in sorted(categories.items())]
    ids = {name: number for number, name in enumerate(dict.fromkeys(names))} if panoptic else numbered(names, uncovered)
    of_category = {number: ids.get(name, 0) for number, name in categories.items()}
    folders = [path.with_suffix("") for path in chosen] if panoptic else []
    index = ImageIndex(root, (folder for folder in folders if folder.is_dir()))
    drawings, used, files = list[Drawing](), set[Path](), list(chosen)
    for path in chosen:
        split, missing, empty = split_in((path.stem, *reversed(path.relative_to(root).parts[:-1]))), 0, 0
        of_image = defaultdict(list)
        for note in trees[path]["annotations"]:
            of_image[note["image_id"]].append(note)
        for entry in trees[path]["images"]:
            image = index.find(str(entry["file_name"]), path.parent, re.sub(r"^[^_]*_", "", path.stem))
            missing += image is None
            parts = [note for note in of_image[entry["id"]] if note.get("segmentation") or "segments_info" in note]
            empty += not parts
            if image is None or not parts:
                used |= {image} if image and split != "train" else set()
                continue
            used.add(image)
            draw = (
                _panoptic(parts[0], of_category, path)
                if panoptic
                else _instances(entry, parts, of_category, path, uncovered)
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


def _categories(trees: list[Tree]) -> dict[int, str]:
    """Names by id, without a head that no annotation uses and under which the others stand (Roboflow)."""
    names: dict[int, str] = {}
    above, used = set[str](), set[int]()
    for tree in trees:
        for category in tree["categories"]:
            if names.setdefault(category["id"], category["name"]) != category["name"]:
                cause = (
                    f"category {category['id']} is {names[category['id']]} in one file, {category['name']} in another"
                )
                raise DataError(cause, "export them with the same categories")
            above.add(category.get("supercategory") or "")
        for note in tree["annotations"]:
            used |= {part["category_id"] for part in note.get("segments_info", [note])}
    if lost := used - names.keys():
        raise DataError(f"annotations of categories that are not listed: {sorted(lost)[:5]}", "export the file again")
    return {number: name for number, name in names.items() if number in used or name not in above}


def _instances(entry: Tree, parts: list[Tree], ids: dict[int, int], path: Path, uncovered: Uncovered) -> Draw:
    def draw() -> NDArray[np.uint8]:
        try:
            from pycocotools import mask as runs  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise UserError("instances of COCO are drawn by pycocotools: pip install 'latentseg[coco]'") from error
        height, width = entry["height"], entry["width"]
        mask = np.full((height, width), FILL[uncovered], np.uint8)
        for note in sorted(parts, key=lambda note: not note.get("iscrowd")):  # crowds first; else in their order
            outline = note["segmentation"]
            try:
                coded = outline
                if isinstance(outline, list) or isinstance(outline.get("counts"), list):
                    coded = runs.frPyObjects(outline, height, width)
                region = runs.decode(runs.merge(coded) if isinstance(coded, list) else coded)
                mask[region > 0] = IGNORE_INDEX if note.get("iscrowd") else ids[note["category_id"]]
            except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
                where = f"annotation {note.get('id')} of {entry['file_name']}: {error}"
                raise DataError("an outline that cannot be drawn", "remove or mend it", path, where) from error
        return mask

    return draw


def _panoptic_file(part: Tree, path: Path) -> Path:
    folder = path.with_suffix("")
    file = (folder if folder.is_dir() else path.parent) / str(part["file_name"])
    if not file.is_file():
        raise DataError(f"no PNG of segments in {folder}", "unpack the PNG files there", path, str(part["file_name"]))
    return file


def _panoptic(part: Tree, ids: dict[int, int], path: Path) -> Draw:
    def draw() -> NDArray[np.uint8]:
        file = _panoptic_file(part, path)
        colors = read_colors(file)
        segments, places = np.unique(colors, return_inverse=True)
        known = {
            info["id"]: IGNORE_INDEX if info.get("iscrowd") else ids[info["category_id"]]
            for info in part["segments_info"]
        } | {0: IGNORE_INDEX}
        if lost := set(segments.tolist()) - known.keys():
            raise DataError("segments that the JSON file does not list", "export it again", file, str(sorted(lost)[:5]))
        values = np.array([known[segment] for segment in segments.tolist()], np.uint8)
        return values[places].reshape(colors.shape)

    return draw
