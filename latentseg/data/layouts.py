"""Layouts: each is one function that lists the items of each split and says what the values of its masks mean."""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from latentseg.config import DataConfig
from latentseg.data.class_file import listed_classes
from latentseg.data.colors import CITYSCAPES, CITYSCAPES_LABEL_IDS, VOC_CLASSES, color_entries, voc_color
from latentseg.data.drawn.store import drawn_masks
from latentseg.data.files import data_folder, files_by_stem, home_path, is_file, listing, read_text, shorten, voc_root
from latentseg.data.images import IGNORE_INDEX
from latentseg.data.pair_lists import read_pair_list
from latentseg.data.pairing import near_names, orphan_notes, unread_notes
from latentseg.data.templates import SPLITS, Row, match_pairs, plain_pairs
from latentseg.errors import UserError
from latentseg.scenes.draw import CLASSES, PALETTE

HOLDOUT_SEED = 0  # the held-out images stay the same whatever the run's seed
SCENES_APART = 1_000_000  # distance between the first scenes of train, val and test


@dataclass(frozen=True)
class Item:
    """One image of a data set.

    Attributes:
        id: Its name, unique in its split, and the line that names it in a list file.
        image: Its file; None for a drawn scene.
        mask: The file of its labels; None if it has none, or must not use them.
        scene: Number of the drawn scene; None for files.
    """

    id: str
    image: Path | None = None
    mask: Path | None = None
    scene: int | None = None

    @property
    def has_labels(self) -> bool:
        """Whether labels can be read for it."""
        return self.mask is not None or self.scene is not None


@dataclass(frozen=True)
class Layout:
    """What a layout finds: items by split, and the meaning of mask values.

    `values` maps mask value to class id (None: the value is the id), `classes` names the ids (None: the
    configuration must), `colors` gives the RGB colour of a mask value, `root` is the folder lists refer to, `notes` say
    what seems wrong with the names of images, masks and classes.
    """

    root: Path | None
    splits: dict[str, list[Item]]
    classes: tuple[str, ...] | None = None
    values: dict[int, int] | None = None
    colors: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def open_layout(config: DataConfig) -> Layout:
    """List the images and masks of a data set.

    Raises:
        UserError: The root is missing or no folder, or not laid out as `data.kind` says.
    """
    layouts = {"voc": _voc, "cityscapes": _cityscapes, "folder": _folder, "scenes": scenes_layout}
    return layouts.get(config.kind, _annotated)(config)


def _voc(config: DataConfig) -> Layout:
    root = voc_root(data_folder(config.root, config.kind))
    masks = _part(root, config.masks, "voc")
    images, have = files_by_stem(root / "JPEGImages"), files_by_stem(masks)
    splits: dict[str, list[Item]] = {}
    notes: list[str] = []
    for split, lines in _voc_lists(config, root, images).items():
        splits[split] = [
            Item(i, images.get(i, root / "JPEGImages" / f"{i}.jpg"), have.get(i))
            for i in dict.fromkeys(_voc_id(line, images) for line in lines)
        ]
        bare = [item.id for item in splits[split] if item.mask is None]
        if near := near_names(sorted(have.keys() - {item.id for item in splits[split]}), bare):
            notes += orphan_notes(split, masks, sorted(near), bare)
    listed = color_entries(root / "labelmap.txt") if (root / "labelmap.txt").is_file() else []
    named = {name: color for color, name in listed}
    names = tuple(named) or listed_classes(root / "class_names.txt")[0] or VOC_CLASSES
    colors = dict(enumerate(named.values())) or {i: voc_color(i) for i in range(len(names))}
    values = {i: i for i in range(len(names))}
    return Layout(root, splits, names, values, colors, tuple(notes))


def _voc_lists(config: DataConfig, root: Path, images: dict[str, Path]) -> dict[str, list[str]]:
    """Lines of the lists by split; without lists every image is for training."""
    lists = root / "ImageSets" / "Segmentation"
    if config.train_list is None and not [*lists.glob("*.txt")]:
        return {"train": list(images)}
    _part(root, "ImageSets/Segmentation", "voc")
    train = config.train_list or ("train_aug" if (lists / "train_aug.txt").is_file() else "train")
    if not is_file(lists / f"{train}.txt"):
        raise UserError(f"data.train_list={shorten(train)}: no such list in {lists}, which holds {listing(lists)}")
    files = {split: lists / f"{name}.txt" for split, name in (("train", train), ("val", "val"), ("test", "test"))}
    return {
        split: [line.strip() for line in read_text(path).splitlines() if line.strip()]
        for split, path in files.items()
        if path.is_file()
    }


def _voc_id(line: str, images: Collection[str]) -> str:
    """The image that a line of a list means: its id, which may hold dots and spaces, or its file, or both files."""
    first = line.split(maxsplit=1)[0]
    files = [found.group(1) for found in re.finditer(r"([^/\\]+?)\.(?:jpe?g|png)(?=\s|$)", line, re.IGNORECASE)]
    for name in (line, *files, first):
        if name in images:
            return name
    with_flag = re.fullmatch(r"\S+\s+-?[01]", line)  # VOC's lists of one class
    return files[0] if files else first if with_flag else line


def _cityscapes(config: DataConfig) -> Layout:
    root = data_folder(config.root, config.kind)
    images, masks = (_part(root, name, "cityscapes") for name in ("leftImg8bit", "gtFine"))
    splits: dict[str, list[Item]] = {}
    for split in _split_folders(images):
        splits[split] = []
        for path in sorted((images / split).glob("*/*_leftImg8bit.png")):
            stem = path.name.removesuffix("_leftImg8bit.png")
            mask = masks / split / path.parent.name / f"{stem}_gtFine_labelIds.png"
            splits[split].append(Item(f"{path.parent.name}/{stem}", path, mask if mask.is_file() else None))
    values = dict.fromkeys(range(CITYSCAPES_LABEL_IDS), IGNORE_INDEX)
    values |= {label: number for number, (label, _) in enumerate(CITYSCAPES.values())}
    return Layout(root, splits, tuple(CITYSCAPES), values, dict(CITYSCAPES.values()))


def _folder(config: DataConfig) -> Layout:
    root = data_folder(config.root, config.kind)
    names, notes = listed_classes(root / "classes.txt")
    if isinstance(config.pairs, str):
        rows = read_pair_list(root / home_path(config.pairs), root)
    elif config.pairs is not None:
        rows, found = match_pairs(root, *config.pairs)
        notes = [*found, *notes]
    else:
        images, masks = plain_folders(root)
        rows = []
        for split in _split_folders(images):
            more, found = plain_pairs(images, masks, split)
            rows, notes = [*rows, *more], [*notes, *found]
        notes += unread_notes(images, _split_folders(images), config.unlabeled)
    kept = _split_folders(images) if config.pairs is None else []
    return Layout(root, _by_split(rows, notes, kept), names or None, notes=tuple(notes))


def plain_folders(root: Path) -> tuple[Path, Path]:
    """The folders of images and masks of the plain layout.

    Raises:
        UserError: One is missing, or there are two of masks.
    """
    images = _part(root, "images", "folder")
    if (root / "masks").is_dir() and (root / "labels").is_dir():
        raise UserError(f"data.root={root} holds both masks and labels; keep the one that has the masks")
    return images, root / "labels" if (root / "labels").is_dir() else _part(root, "masks", "folder")


def _annotated(config: DataConfig) -> Layout:
    from latentseg.data.drawn import coco, cvat, label_studio, labelme  # noqa: PLC0415 - most data sets need none of them

    root = data_folder(config.root, config.kind)
    of_kind = {
        "coco": coco.coco,
        "cvat": cvat.cvat,
        "labelme": labelme.labelme,
        "label_studio": label_studio.label_studio,
    }
    found = of_kind[config.kind](root, config.uncovered)
    masks, undrawn = drawn_masks(found, skip=config.on_bad == "skip")
    notes = [*found.notes, *undrawn]
    rows = [Row(each.split, each.id, each.image, masks.get((each.split, each.id))) for each in found.drawings]
    rows += [Row(*each, None) for each in found.bare]
    return Layout(root, _by_split(rows, notes, []), found.classes, notes=tuple(notes))


def _by_split(rows: list[Row], notes: list[str], kept: list[str]) -> dict[str, list[Item]]:
    """Items by split. A val or test without any mask, which cannot be scored, is left out with a note, unless kept."""
    splits: dict[str, list[Item]] = {}
    for split in SPLITS:
        items = [Item(row.id, row.image, row.mask) for row in rows if row.split == split]
        if items and split not in (*kept, "train") and all(item.mask is None for item in items):
            notes.append(f"{len(items)} images of {split} have no mask: they are not used")
        elif items or split in kept:
            splits[split] = items
    return splits


def scenes_layout(config: DataConfig) -> Layout:
    """The drawn scenes, which have numbers instead of files."""
    numbers = {"train": config.scenes.train, "val": config.scenes.val, "test": config.scenes.test}
    splits: dict[str, list[Item]] = {}
    for first, (split, number) in enumerate(numbers.items()):
        splits[split] = [Item(f"{split}/{i}", scene=first * SCENES_APART + i) for i in range(number)]
    r_g_b = {value: (int(r), int(g), int(b)) for value, (r, g, b) in enumerate(PALETTE)}
    values = {value: value for value in range(len(CLASSES))}
    return Layout(None, splits, tuple(CLASSES), values, r_g_b)


def _part(root: Path, name: str, kind: str) -> Path:
    if not (root / name).is_dir():
        expected = {
            "voc": "JPEGImages, ImageSets/Segmentation and the masks (data.masks: SegmentationClassAug or "
            "SegmentationClass)",
            "cityscapes": "leftImg8bit/{train,val,test}/CITY and gtFine/{train,val,test}/CITY",
            "folder": "images/{train,val,test} and masks/{train,val,test} (or labels/...)",
        }[kind]
        raise UserError(f"{root} has no folder {name}; data.kind={kind} expects {expected}; found {listing(root)}")
    return root / name


def _split_folders(images: Path) -> list[str]:
    splits = [split for split in ("train", "val", "test") if (images / split).is_dir()]
    if not splits:
        raise UserError(f"{images} has none of the folders train, val, test; found {listing(images)}")
    return splits


def hold_out(splits: dict[str, list[Item]], number: int, fold: str | None = None) -> dict[str, list[Item]]:
    """Move `number` training images that have labels, or a fold such as 2/5, drawn with a fixed seed, to `holdout`."""
    train = splits.get("train", [])
    able = [item for item in train if item.has_labels]
    if number == 0 and fold is None:
        return splits
    part, parts = map(int, fold.split("/")) if fold else (1, 1)
    if number >= len(able) or parts > len(able):
        option = f"data.fold={fold}" if fold else f"data.holdout={number}"
        raise UserError(f"{option}, but only {len(able)} training images have labels; hold out fewer")
    order = np.random.default_rng(HOLDOUT_SEED).permutation(len(able))
    held = {able[i] for i in (order[part - 1 :: parts] if fold else order[:number])}
    return splits | {
        "train": [item for item in train if item not in held],
        "holdout": [item for item in train if item in held],
    }
