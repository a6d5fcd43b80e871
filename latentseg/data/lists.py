"""List files: which training images are labelled, as ids or as pairs of files."""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path

from latentseg.data.datasets import Dataset, Item
from latentseg.data.files import is_file, read_text, shorten
from latentseg.errors import DataError, UserError

FORM = "a line is a training id, or an image and its mask with a space or a tab between them (no comma)"
NEAR_LENGTH = 200
"""Longer lines are no ids: near ones are not looked for."""


def read_list(dataset: Dataset, path: Path) -> list[Item]:
    """Read a list of labelled images: a training id, or `image mask`, per line.

    The paths of a pair are absolute, or relative to the list file or to the root of the data set. A pair may name
    files outside the data set; its id is then the pair itself, with absolute paths.

    Raises:
        UserError: The file is missing.
        DataError: A line is unknown, repeated, without mask, or not for training.
    """
    if not is_file(path):
        raise UserError(
            f'data.labeled={shorten(str(path), 200)} is no fraction (1/8), number (12) or "all", and no list file of '
            f"that name exists"
        )
    known = {item.id: item for item in dataset.items("train")}
    files = {item.image.resolve(): item for item in known.values() if item.image}
    kept_out = {image_key(item): split for split, item in kept_out_items(dataset)}
    chosen: dict[str | Path, Item] = {}
    text = read_text(path)
    if dataset.config.kind == "cityscapes":  # UniMatch's lists name the same labels under numbers of their own
        text = text.replace("_gtFine_labelTrainIds.png", "_gtFine_labelIds.png")
    for number, line in enumerate(map(str.strip, text.splitlines()), start=1):
        if not line:
            continue
        item = known.get(line) or _pair(line, [path.parent, dataset.root], files)
        key = image_key(item) if item else line
        if item is None:
            raise DataError(f"line {number}: {_unknown(line, dataset, list(known))}", FORM, path)
        if not item.has_labels:
            raise DataError(f"line {number}: image {item.id} has no mask", "add one, or drop the line", path)
        if key in chosen:
            raise DataError(f"line {number}: image {item.id} is listed twice", "remove one of the lines", path)
        if item.id not in known and key in kept_out and key not in files:
            where = f"is part of split {kept_out[key]}, not of train"
            raise DataError(f"line {number}: {item.image} {where}", "remove the line", path)
        chosen[key] = item
    if not chosen:
        raise DataError("the list holds no image", f"at least one must be labelled: {FORM}", path)
    return list(chosen.values())


def kept_out_items(dataset: Dataset) -> Iterator[tuple[str, Item]]:
    """Images that are kept for scores, each with its split."""
    for split in ("val", "test", "holdout"):
        for item in dataset.items(split) if dataset.has(split) else ():
            yield split, item


def mask_files(dataset: Dataset) -> set[Path]:
    """The masks of all splits, resolved: they may lie among the images, and are none."""
    items = (item for split in dataset.splits for item in dataset.items(split))
    return {item.mask.resolve() for item in items if item.mask}


def image_key(item: Item) -> str | Path:
    """What makes two items the same image: the file, whatever leads to it."""
    return item.image.resolve() if item.image else item.id


def _pair(line: str, bases: list[Path | None], files: dict[Path, Item]) -> Item | None:
    """The item of an `image mask` line; paths may hold spaces, so every gap is tried."""
    for gap in re.finditer(r"\s+", line):
        image, mask = (next(_existing(part, bases), None) for part in (line[: gap.start()], line[gap.end() :]))
        if image and mask:
            known = files.get(image)
            same = known is not None and known.mask is not None and known.mask.resolve() == mask
            return known if same else Item(f"{image} {mask}", image, mask)
    return None


def _existing(name: str, bases: list[Path | None]) -> Iterator[Path]:
    """Files a path can mean; published lists write paths below the root with a leading slash, Windows with others."""
    for written in dict.fromkeys((name, name.replace("\\", "/"))):
        options = [Path(written)] if Path(written).is_absolute() else []
        options += [base / written.lstrip("/") for base in bases if base]
        yield from (option.resolve() for option in options if is_file(option))


def _unknown(line: str, dataset: Dataset, known: list[str]) -> str:
    for split, item in kept_out_items(dataset):
        if line == item.id:
            return f"image {line} is part of split {split}, not of train"
    near = difflib.get_close_matches(line, known, n=3) if len(line) <= NEAR_LENGTH else []
    hint = f"; near: {', '.join(near)}" if near else ""
    return f"{shorten(line)} is neither a training image nor a pair `image mask` of files that exist{hint}"
