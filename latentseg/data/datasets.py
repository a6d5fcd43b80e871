"""Data sets: how the images and masks that a layout lists are read, and which classes they have."""

import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentseg.config import DataConfig, ScenesConfig
from latentseg.data.colors import distinct_palette, mask_meaning
from latentseg.data.files import IMAGE_SUFFIXES, shorten
from latentseg.data.images import IGNORE_INDEX, read_rgb, resized, resized_ids
from latentseg.data.layouts import Item, Layout, hold_out, open_layout
from latentseg.data.masks import own_palette
from latentseg.data.pairs import read_pair, read_values
from latentseg.errors import DataError, UserError
from latentseg.scenes.draw import draw_scene


class Dataset:
    """The items of each split, and their pixels.

    Attributes:
        classes: Names of the classes, in the order of their ids.
        palette: RGB colour of each class, uint8, shape (C, 3).
        root: Folder that relative paths in list files refer to; None for scenes.
        notes: What seems wrong with the names of images, masks and classes.
    """

    def __init__(self, layout: Layout, config: DataConfig, remember: bool = False) -> None:
        self.config, self.remember = config, remember
        self.root, self.notes = layout.root, list(layout.notes)
        self.classes = _class_names(layout, config)
        self.notes += _alike(self.classes)
        values = config.class_map or layout.values or {value: value for value in range(len(self.classes))}
        _refuse_ignored_classes(self.classes, values, [] if config.class_map else config.ignored_values)
        colors = layout.colors
        if not colors and config.color_map is None:
            train = layout.splits.get("train", [])
            colors = own_palette([item.mask for item in train if item.mask is not None])
        self._read_mask, self._values, self.palette = mask_meaning(
            config, self.classes, layout.values, colors, layout.root
        )
        self._splits = hold_out(layout.splits, config.holdout, config.fold)
        self._cache: dict[tuple[Item, str], NDArray[np.uint8]] = {}

    @property
    def splits(self) -> list[str]:
        """Those that it has, with images in them."""
        return [split for split, items in self._splits.items() if items]

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
            raise DataError("the image has no mask, so it can be neither labelled nor scored", "add one", item.image)
        return self._ids(read_values(item.image, item.mask, self._read_mask), item)

    def _ids(self, raw: NDArray[np.integer[Any]], item: Item) -> NDArray[np.uint8]:
        return self._values.ids(raw, item.mask, len(self.classes))


def open_dataset(config: DataConfig, remember: bool = False) -> Dataset:
    """Find the images and masks of a data set; pixels are read later, and kept in memory with `remember`.

    Raises:
        UserError: The root is missing, not a folder or not laid out as `data.kind` says; the classes are unclear.
    """
    return Dataset(open_layout(config), config, remember)


@lru_cache(maxsize=8)  # image and targets of a scene come from one drawing
def _draw(config: ScenesConfig, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return draw_scene(config.seed, index, config.height, config.width)


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
        odd = [name for i, name in enumerate(names) if name in names[:i] or len(names) == 1]
        which = f" ({shorten(odd[0])})" if odd else ""
        raise UserError(
            f"{len(names)} names for {len(set(names))} classes{which}: 2 to {IGNORE_INDEX} classes are possible (255 "
            f"means ignored), each with a name of its own; change data.classes or classes.txt, which holds one a line"
        )
    for value, number in (config.class_map or {}).items():
        if number >= len(names):
            raise UserError(
                f"data.class_map: {value}: {number} is not possible; class ids are 0..{len(names) - 1} (data.classes "
                f"names {len(names)})"
            )
    return names


def _alike(names: tuple[str, ...]) -> list[str]:
    """A note on names that look the same: other capitals, or another Unicode form."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFKC", name).casefold(), name)
        if other != name:
            return [f"the classes {shorten(other)} and {shorten(name)} differ in capitals or Unicode form alone"]
    return []


def _refuse_ignored_classes(names: tuple[str, ...], values: dict[int, int], ignored: list[int]) -> None:
    """A class all of whose values mean "no label" could never be learned; mostly the ids start at 1."""
    lost = [value for value in ignored if values.get(value, IGNORE_INDEX) < IGNORE_INDEX]
    lost = [value for value in lost if not any(values[value] == c and v not in ignored for v, c in values.items())]
    if lost:
        shift = "{" + ", ".join(f"{number + 1}: {number}" for number in range(len(names))) + "}"
        more = f"; if the ids start at 1 and 0 means no label: 'data.class_map={shift}'" if 0 in lost else ""
        raise UserError(
            f"data.ignored_values={ignored}: value {lost[0]} is ignored, and is class {names[values[lost[0]]]!r} too, "
            f"which could never be learned; take it out{more}"
        )


__all__ = [
    "Dataset",
    "Item",
    "distinct_palette",
    "open_dataset",
]
