"""Which training images keep their labels: draws, list files, and the lists that a run leaves behind."""

import re
from collections.abc import Set
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from latentseg.config import DataConfig
from latentseg.data.cover import cover_classes
from latentseg.data.datasets import Dataset, Item
from latentseg.data.files import home_path, image_files, is_folder, shorten, skipped_note
from latentseg.data.lists import image_key, read_list
from latentseg.errors import DataError, UserError

SMALL_DRAW = 200
"""Draws of fewer images are looked at for classes that they lack, with data.every_class=null."""
NUMBER_LENGTH = 40
"""A longer text is no number."""


@dataclass(frozen=True)
class Split:
    """Labelled and unlabelled training images; the unlabelled ones have lost their masks."""

    labeled: list[Item]
    unlabeled: list[Item]
    notes: list[str] = field(default_factory=list, compare=False)
    """What is worth to know of the draw."""
    share: str = field(default="", compare=False)
    """Of what a fraction is one: "1/30 of the 367 training images"; else empty."""


def draw_split(dataset: Dataset, config: DataConfig, seed: int) -> Split:
    """Choose the labelled images as `data.labeled` says; the other training images are unlabelled.

    "all" takes every training image that has a mask. A fraction counts all training images (floor) and draws among
    those with masks. The draw is the beginning of one permutation per seed, so a smaller draw with the same seed is
    part of a larger one, but for images that are brought in for their classes (`data.every_class`). Files in the
    folders of `data.unlabeled` follow; a file found twice counts once.

    Args:
        dataset: The data set.
        config: `labeled`, `every_class`, `unlabeled`, and `split_seed`, which goes before `seed`.
        seed: Seed of the draw.

    Raises:
        UserError: No labelled image, more than have masks, a bad list file, or an image both labelled and not.
    """
    train = dataset.items("train")
    number, notes = _number(config.labeled, len(train)), list[str]()
    if config.labeled == "all":
        labeled = _all_labeled(dataset, train)
    elif number is None:
        labeled = read_list(dataset, home_path(str(config.labeled)))
    else:
        labeled, notes = _draw(dataset, config, number, seed if config.split_seed is None else config.split_seed)
    used = {image_key(item) for item in labeled}
    rest = {key: replace(item, mask=None) for item in train if (key := image_key(item)) not in used}
    is_share = number is not None and not str(config.labeled).strip().isdigit()
    bare = len(train) - sum(item.has_labels for item in train)
    without = f", of which {bare} have no mask" if bare else ""
    return Split(
        labeled,
        [*rest.values(), *_further(config.unlabeled, used, rest.keys())],
        notes,
        f"{config.labeled} of the {len(train)} training images{without}" if is_share else "",
    )


def write_split(split: Split, folder: Path) -> None:
    """Write labeled.txt and unlabeled.txt, one id a line; `data.labeled` reads the first one back.

    Raises:
        UserError: The folder cannot be written.
        DataError: The name of an image cannot stand in a list.
    """
    for item in (*split.labeled, *split.unlabeled):
        check_name(item)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, items in (("labeled", split.labeled), ("unlabeled", split.unlabeled)):
            (folder / f"{name}.txt").write_text("".join(f"{item.id}\n" for item in items), encoding="utf-8")
    except OSError as error:
        raise UserError(f"the split cannot be written to {folder}: {error}") from error


def check_name(item: Item) -> None:
    """Refuse an image whose name cannot stand in a list.

    Raises:
        DataError: The name is not UTF-8, or holds the end of a line.
    """
    if len(item.id.splitlines()) > 1 or any("\udc80" <= sign <= "\udcff" for sign in item.id):
        cause = "the name of the file is not UTF-8, or holds the end of a line"
        raise DataError(cause, "rename it: lists of images are text", ascii(str(item.image or item.id)))


def _number(labeled: str | float, images: int) -> int | None:
    """How many images a number or a fraction asks for; None for anything else."""
    text = str(labeled).strip()
    if len(text) > NUMBER_LENGTH or not re.fullmatch(r"\d+(\s*/\s*\d+|\.\d*(e-?\d+)?|e-?\d+)?", text):
        return None
    share = text.replace(" ", "")
    if not text.isdigit():
        fits = "/" in share or 1e-9 < float(share) < 1  # others would take a while as a fraction
        number = int(images * Fraction(share)) if fits else 0
    else:
        number = int(text)
    if number == 0:
        raise UserError(
            f"data.labeled={labeled} of {images} training images is less than one image, or no share of them; "
            f"take a larger fraction, or a number such as data.labeled=1"
        )
    return number


def _all_labeled(dataset: Dataset, train: list[Item]) -> list[Item]:
    labeled = [item for item in train if item.has_labels]
    if not labeled:
        raise DataError(f"data.labeled=all, but none of the {len(train)} training images has a mask", _names(dataset))
    return labeled


def _draw(dataset: Dataset, config: DataConfig, number: int, seed: int) -> tuple[list[Item], list[str]]:
    train = dataset.items("train")
    able = [item for item in train if item.has_labels]
    if number > len(able):
        raise DataError(
            f"data.labeled={config.labeled} asks for {number} labelled images, but {len(able)} of the {len(train)} "
            f"training images have a mask",
            _names(dataset),
        )
    order = [able[i] for i in np.random.default_rng(seed).permutation(len(able))]
    if config.every_class or (config.every_class is None and number < SMALL_DRAW):
        return cover_classes(dataset, order, number, strict=bool(config.every_class))
    return order[:number], []


def _names(dataset: Dataset) -> str:
    """What to do about images without masks."""
    parts = [dataset.root / name for name in ("masks", "labels")] if dataset.root else []
    left_out = [note for part in parts if part.is_dir() for note in skipped_note(part)]
    return "; ".join([*dataset.notes, *left_out]) or "a mask is a file of the image's name in the masks' folder"


def _further(folders: list[str], labeled: Set[str | Path], known: Set[str | Path]) -> list[Item]:
    items: dict[str | Path, Item] = {}
    for name in folders:
        folder = home_path(name)
        files = image_files(folder) if is_folder(folder) else []
        if not files:
            state = "holds no image" if is_folder(folder) else "is not a folder"
            raise DataError(f"data.unlabeled: {shorten(name, 200)} {state}", "correct or remove it")
        for path in (file.resolve() for file in files):
            if path in labeled:
                cause = "an image is labelled, and in a folder of data.unlabeled"
                raise DataError(cause, "take it out there", path, str(folder))
            if path not in known:
                items[path] = Item(str(path), path)
    return list(items.values())
