"""Data sets: which images exist, which masks belong to them, and how both are read.

A layout (voc, cityscapes, folder, scenes) is one function that lists the items of each split and says what the values
of its masks mean; `Dataset` reads the items of any of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latentseg.config import DataConfig, ScenesConfig
from latentseg.data.colors import (
    CITYSCAPES,
    CITYSCAPES_LABEL_IDS,
    VOC_CLASSES,
    distinct_palette,
    mask_meaning,
    voc_color,
)
from latentseg.data.files import IMAGE_SUFFIXES, data_folder, files_by_stem, listing, read_text, voc_root
from latentseg.data.images import IGNORE_INDEX, read_rgb, resized, resized_ids
from latentseg.data.pairs import read_pair, read_values
from latentseg.errors import UserError
from latentseg.scenes.draw import CLASSES, PALETTE, draw_scene

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
    configuration must), `colors` gives the RGB colour of a mask value, `root` is the folder lists refer to.
    """

    root: Path | None
    splits: dict[str, list[Item]]
    classes: tuple[str, ...] | None = None
    values: dict[int, int] | None = None
    colors: dict[int, tuple[int, int, int]] = field(default_factory=dict)


class Dataset:
    """The items of each split, and their pixels.

    Attributes:
        classes: Names of the classes, in the order of their ids.
        palette: RGB colour of each class, uint8, shape (C, 3).
        root: Folder that relative paths in list files refer to; None for scenes.
    """

    def __init__(self, layout: Layout, config: DataConfig, remember: bool = False) -> None:
        self.config, self.remember = config, remember
        self.root = layout.root
        self.classes = _class_names(layout, config)
        self._read_mask, self._values, self.palette = mask_meaning(
            config, self.classes, layout.values, layout.colors, layout.root
        )
        self._splits = _hold_out(layout.splits, config.holdout)
        self._cache: dict[tuple[Item, str], NDArray[np.uint8]] = {}

    def has(self, split: str) -> bool:
        """Whether the data set has the split, with images in it."""
        return bool(self._splits.get(split))

    def items(self, split: str) -> list[Item]:
        """Items of `train` (without the held-out ones), `val`, `test` or `holdout`.

        Raises:
            UserError: The data set lacks the split, or it holds no image.
        """
        if split not in self._splits:
            hint = "; set data.holdout to the number of images to set aside" * (split == "holdout")
            raise UserError(
                f"the data set {self.root or self.config.kind} has no split {split}; "
                f"it has {', '.join(self._splits) or 'none'}{hint}"
            )
        if not self._splits[split]:
            raise UserError(
                f"split {split} of {self.root} holds no image ({' '.join(sorted(IMAGE_SUFFIXES))}); add some"
            )
        return list(self._splits[split])

    def read_pair(self, item: Item) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """What `read_image` and `read_targets` give of an image with labels; each file is opened once."""
        if item.image is None or item.mask is None or self.remember:
            return self.read_image(item), self.read_targets(item)
        pixels, raw = read_pair(item.image, item.mask, self._read_mask, self.config.bits)
        return resized(pixels, self.config.resize), resized_ids(self._ids(raw, item), self.config.resize)

    def read_image(self, item: Item) -> NDArray[np.uint8]:
        """Pixels of an image, RGB, shape (H, W, 3), scaled by `data.resize`."""

        def read() -> NDArray[np.uint8]:
            pixels = self._scene(item)[0].copy() if item.image is None else read_rgb(item.image, self.config.bits)
            return resized(pixels, self.config.resize)

        return self._remember(item, "image", read)

    def read_targets(self, item: Item, resized: bool = True) -> NDArray[np.uint8]:
        """Class ids of the pixels, shape (H, W), 255 where there is no label.

        Args:
            item: An image with labels.
            resized: At the size of `read_image`; otherwise at the original size, where scores are taken.

        Raises:
            UserError: No mask, a colour mask, another size than the image, or values outside the classes.
        """

        def read() -> NDArray[np.uint8]:
            return resized_ids(self._targets(item), self.config.resize if resized else 1.0)

        return self._remember(item, "resized" if resized else "original", read)

    def _remember(self, item: Item, what: str, read: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        if not self.remember:
            return read()
        if (item, what) not in self._cache:
            self._cache[item, what] = read()
        return self._cache[item, what].copy()

    def _scene(self, item: Item) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        return _draw(self.config.scenes, item.scene or 0)

    def _targets(self, item: Item) -> NDArray[np.uint8]:
        if item.image is None:
            return self._ids(self._scene(item)[1], item)
        if item.mask is None:
            raise UserError(f"image {item.image} has no mask, so it can be neither labelled nor scored; add one")
        return self._ids(read_values(item.image, item.mask, self._read_mask), item)

    def _ids(self, raw: NDArray[np.integer[Any]], item: Item) -> NDArray[np.uint8]:
        return self._values.ids(raw, item.mask, len(self.classes))


def open_dataset(config: DataConfig, remember: bool = False) -> Dataset:
    """Find the images and masks of a data set; pixels are read later, and kept in memory with `remember`.

    Raises:
        UserError: The root is missing, not a folder or not laid out as `data.kind` says; the classes are unclear.
    """
    layouts = {"voc": _voc, "cityscapes": _cityscapes, "folder": _folder, "scenes": _scenes}
    return Dataset(layouts[config.kind](config), config, remember)


def write_scenes(config: DataConfig, folder: Path) -> int:
    """Write the scenes in the layout `folder` (PNG images, palette masks, classes.txt); gives their number.

    Raises:
        UserError: The folder exists and is not empty, or cannot be written.
    """
    dataset = Dataset(_scenes(config), config.model_copy(update={"kind": "scenes", "resize": 1.0}))
    items = [item for split in ("train", "val", "test") for item in dataset.items(split)]
    try:
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is not empty; name a new folder, nothing is overwritten")
        for item in items:
            image, labels = folder / "images" / f"{item.id}.png", folder / "labels" / f"{item.id}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            labels.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(dataset.read_image(item)).save(image)
            mask = Image.fromarray(dataset.read_targets(item))
            mask.putpalette(dataset.palette.tobytes())
            mask.save(labels)
        (folder / "classes.txt").write_text("".join(f"{name}\n" for name in dataset.classes), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error}") from error
    return len(items)


@lru_cache(maxsize=8)  # image and targets of a scene come from one drawing
def _draw(config: ScenesConfig, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return draw_scene(config.seed, index, config.height, config.width)


def _voc(config: DataConfig) -> Layout:
    root = voc_root(data_folder(config.root, config.kind))
    masks = _part(root, config.masks, "voc")
    lists = _part(root, "ImageSets/Segmentation", "voc")
    train = config.train_list or ("train_aug" if (lists / "train_aug.txt").is_file() else "train")
    if not (lists / f"{train}.txt").is_file():
        raise UserError(f"data.train_list={train}: no {train}.txt in {lists}, which holds {listing(lists)}")
    have = {path.name for path in masks.iterdir()}
    splits: dict[str, list[Item]] = {}
    for split, name in (("train", train), ("val", "val"), ("test", "test")):
        if (lists / f"{name}.txt").is_file():
            lines = read_text(lists / f"{name}.txt").splitlines()
            stems = [Path(line.split()[0]).stem for line in lines if line.strip()]  # some lists name files
            splits[split] = [
                Item(i, root / "JPEGImages" / f"{i}.jpg", masks / f"{i}.png" if f"{i}.png" in have else None)
                for i in dict.fromkeys(stems)
            ]
    ids = range(len(VOC_CLASSES))
    return Layout(root, splits, VOC_CLASSES, {i: i for i in ids}, {i: voc_color(i) for i in ids})


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
    images = _part(root, "images", "folder")
    if (root / "masks").is_dir() and (root / "labels").is_dir():
        raise UserError(f"data.root={root} holds both masks and labels; keep the one that has the masks")
    masks = root / "labels" if (root / "labels").is_dir() else _part(root, "masks", "folder")
    splits: dict[str, list[Item]] = {}
    for split in _split_folders(images):
        of_stem = files_by_stem(masks / split)
        splits[split] = [Item(i, path, of_stem.get(i)) for i, path in files_by_stem(images / split).items()]
    names = root / "classes.txt"
    lines = [line.strip() for line in read_text(names).splitlines()] if names.is_file() else []
    return Layout(root, splits, tuple(line for line in lines if line) or None)


def _scenes(config: DataConfig) -> Layout:
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


def _hold_out(splits: dict[str, list[Item]], number: int) -> dict[str, list[Item]]:
    """Move `number` training images that have labels, drawn with a fixed seed, to the split `holdout`."""
    train = splits.get("train", [])
    able = [item for item in train if item.has_labels]
    if number == 0:
        return splits
    if number >= len(able):
        raise UserError(f"data.holdout={number}, but only {len(able)} training images have labels; hold out fewer")
    chosen = np.random.default_rng(HOLDOUT_SEED).permutation(len(able))[:number]
    held = {able[i] for i in chosen}
    return splits | {
        "train": [item for item in train if item not in held],
        "holdout": [item for item in train if item in held],
    }


def _class_names(layout: Layout, config: DataConfig) -> tuple[str, ...]:
    """Names of the classes, once names, layout and class map are known to fit."""
    own = None if config.class_map and layout.values else layout.classes
    names = tuple(config.classes or own or ())
    if not names:
        where = "" if layout.values else f", or one name per line in {layout.root}/classes.txt"
        raise UserError(f"the class names are missing: set data.classes, in the order of their ids{where}")
    if own and layout.values and len(names) != len(own):
        raise UserError(
            f"data.classes names {len(names)} classes, data.kind={config.kind} has {len(own)}; "
            f"say with data.class_map which mask value belongs to which class"
        )
    if not 2 <= len(names) <= IGNORE_INDEX or len(set(names)) < len(names):
        raise UserError(
            f"{len(names)} names for {len(set(names))} classes: 2 to {IGNORE_INDEX} classes are possible (255 means "
            f"ignored), each with a name of its own; change data.classes or classes.txt"
        )
    for value, number in (config.class_map or {}).items():
        if number >= len(names):
            raise UserError(
                f"data.class_map: {value}: {number} is not possible; class ids are 0..{len(names) - 1} (data.classes "
                f"names {len(names)})"
            )
    return names


__all__ = [
    "Dataset",
    "Item",
    "distinct_palette",
    "open_dataset",
    "write_scenes",
]
