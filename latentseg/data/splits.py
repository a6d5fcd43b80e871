"""Which training images keep their labels: draws, list files, and the lists that a run leaves behind."""

import difflib
import re
from collections.abc import Iterator, Set
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from latentseg.config import DataConfig
from latentseg.data.datasets import Dataset, Item
from latentseg.data.files import image_files, read_text
from latentseg.data.images import IGNORE_INDEX
from latentseg.errors import UserError


@dataclass(frozen=True)
class Split:
    """Labelled and unlabelled training images; the unlabelled ones have lost their masks."""

    labeled: list[Item]
    unlabeled: list[Item]


def draw_split(dataset: Dataset, config: DataConfig, seed: int) -> Split:
    """Choose the labelled images as `data.labeled` says; the other training images are unlabelled.

    "all" takes every training image that has a mask. A fraction counts all training images (floor) and draws among
    those with masks. The draw is the beginning of one permutation per seed, so a smaller draw with the same seed is
    part of a larger one. Files in the folders of `data.unlabeled` follow; a file found twice counts once.

    Args:
        dataset: The data set.
        config: `labeled`, `every_class`, `unlabeled`, and `split_seed`, which goes before `seed`.
        seed: Seed of the draw.

    Raises:
        UserError: No labelled image, more than have masks, a bad list file, or an image both labelled and not.
    """
    train = dataset.items("train")
    number = _number(config.labeled, len(train))
    if config.labeled == "all":
        labeled = _all_labeled(train)
    elif number is None:
        labeled = read_list(dataset, Path(str(config.labeled)).expanduser())
    else:
        labeled = _draw(dataset, config, number, seed if config.split_seed is None else config.split_seed)
    used = {_key(item) for item in labeled}
    rest = {key: replace(item, mask=None) for item in train if (key := _key(item)) not in used}
    return Split(labeled, [*rest.values(), *_further(config.unlabeled, used, rest.keys())])


def write_split(split: Split, folder: Path) -> None:
    """Write labeled.txt and unlabeled.txt, one id a line; `data.labeled` reads the first one back.

    Raises:
        UserError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, items in (("labeled", split.labeled), ("unlabeled", split.unlabeled)):
            (folder / f"{name}.txt").write_text("".join(f"{item.id}\n" for item in items), encoding="utf-8")
    except OSError as error:
        raise UserError(f"the split cannot be written to {folder}: {error}") from error


def read_list(dataset: Dataset, path: Path) -> list[Item]:
    """Read a list of labelled images: a training id, or `image mask`, per line.

    The paths of a pair are absolute, or relative to the list file or to the root of the data set. A pair may name
    files outside the data set; its id is then the pair itself, with absolute paths.

    Raises:
        UserError: The file is missing, or a line is unknown, repeated, without mask, or not for training.
    """
    if not path.is_file():
        raise UserError(
            f'data.labeled={path} is no fraction (1/8), number (12) or "all", and no list file of that name exists'
        )
    known = {item.id: item for item in dataset.items("train")}
    files = {item.image.resolve(): item for item in known.values() if item.image}
    kept_out = {
        item.image.resolve() if item.image else item.id: split
        for split in ("val", "test", "holdout")
        if dataset.has(split)
        for item in dataset.items(split)
    }
    chosen: dict[str | Path, Item] = {}
    text = read_text(path)
    if dataset.config.kind == "cityscapes":  # UniMatch's lists name the same labels under numbers of their own
        text = text.replace("_gtFine_labelTrainIds.png", "_gtFine_labelIds.png")
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        item = known.get(line.strip()) or _pair(line.strip(), [path.parent, dataset.root], files)
        if item is None:
            raise UserError(f"{place}: {_unknown(line.strip(), dataset, list(known))}")
        if not item.has_labels:
            raise UserError(f"{place}: image {item.id} has no mask, so it cannot be labelled; add one or drop it")
        if _key(item) in chosen:
            raise UserError(f"{place}: image {item.id} is listed twice; remove one of the lines")
        if item.id not in known and _key(item) in kept_out and _key(item) not in files:
            raise UserError(f"{place}: {item.image} is part of split {kept_out[_key(item)]}, not of train; drop it")
        chosen[_key(item)] = item
    if not chosen:
        raise UserError(f"data.labeled={path} lists no image; at least one must be labelled")
    return list(chosen.values())


def _number(labeled: str | float, images: int) -> int | None:
    """How many images a number or a fraction asks for; None for anything else."""
    text = str(labeled)
    if not re.fullmatch(r"\s*\d+(\s*/\s*\d+|\.\d*(e-?\d+)?|e-?\d+)?\s*", text):
        return None
    if text.strip().isdigit():
        return int(text)
    number = int(images * Fraction(text.replace(" ", "")))
    if number == 0:
        raise UserError(
            f"data.labeled={labeled} of {images} training images is less than one image; "
            f"take a larger fraction, or a number such as data.labeled=1"
        )
    return number


def _all_labeled(train: list[Item]) -> list[Item]:
    labeled = [item for item in train if item.has_labels]
    if not labeled:
        raise UserError(
            f"data.labeled=all, but none of the {len(train)} training images has a mask (a file of the same name in "
            f"the masks' folder)"
        )
    return labeled


def _draw(dataset: Dataset, config: DataConfig, number: int, seed: int) -> list[Item]:
    train = dataset.items("train")
    able = [item for item in train if item.has_labels]
    if number > len(able):
        raise UserError(
            f"data.labeled={config.labeled} asks for {number} labelled images, but {len(able)} of the {len(train)} "
            f"training images have a mask (a file of the same name in the masks' folder)"
        )
    order = [able[i] for i in np.random.default_rng(seed).permutation(len(able))]
    return (_cover(dataset, order, number) if config.every_class else order)[:number]


def _cover(dataset: Dataset, order: list[Item], number: int) -> list[Item]:
    """Move images to the front so that the first `number` hold every class.

    Classes are served from the rarest to the commonest; one that is not covered yet takes the first image of the
    permutation that holds it.
    """
    holds = [set(np.unique(dataset.read_targets(item)).tolist()) - {IGNORE_INDEX} for item in order]
    images = {c: [i for i, held in enumerate(holds) if c in held] for c in set().union(*holds)}
    front: list[int] = []
    for c in sorted(images, key=lambda c: (len(images[c]), c)):
        if not any(c in holds[i] for i in front):
            front.append(images[c][0])
    if len(front) > number:
        covered = set().union(*(holds[i] for i in front[:number]))
        missing = ", ".join(dataset.classes[c] for c in sorted(images.keys() - covered))
        raise UserError(
            f"data.every_class: {number} labelled images are too few, this draw needs {len(front)}; not covered: "
            f"{missing}. Raise data.labeled or change the seed"
        )
    return [order[i] for i in front] + [item for i, item in enumerate(order) if i not in front]


def _further(folders: list[str], labeled: Set[str | Path], known: Set[str | Path]) -> list[Item]:
    items: dict[str | Path, Item] = {}
    for name in folders:
        folder = Path(name).expanduser()
        files = image_files(folder) if folder.is_dir() else []
        if not files:
            state = "holds no image" if folder.is_dir() else "is not a folder"
            raise UserError(f"data.unlabeled: {folder} {state}; correct or remove it")
        for path in (file.resolve() for file in files):
            if path in labeled:
                raise UserError(f"{path} is labelled, and in the folder {folder} of data.unlabeled; take it out there")
            if path not in known:
                items[path] = Item(str(path), path)
    return list(items.values())


def _key(item: Item) -> str | Path:
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
    """Files a path can mean; published lists write paths below the root with a leading slash."""
    options = [Path(name)] if Path(name).is_absolute() else []
    options += [base / name.lstrip("/") for base in bases if base]
    return (option.resolve() for option in options if option.is_file())


def _unknown(line: str, dataset: Dataset, known: list[str]) -> str:
    for split in ("holdout", "val", "test"):
        if dataset.has(split) and line in {item.id for item in dataset.items(split)}:
            return f"image {line} is part of split {split}, not of train; remove the line"
    near = difflib.get_close_matches(line, known, n=3)
    hint = f"; near: {', '.join(near)}" if near else ""
    return f"{line} is neither a training image nor a pair `image mask` of files that exist{hint}"
