"""Data sets written in the plain layout: images/{train,val,test}, masks beside them, classes.txt."""

import shutil
from pathlib import Path

from PIL import Image

from latentseg.config import DataConfig
from latentseg.console import track
from latentseg.data.datasets import Dataset, Item, open_dataset
from latentseg.data.layouts import scenes_layout
from latentseg.errors import UserError


def write_scenes(config: DataConfig, folder: Path) -> int:
    """Write the scenes in the layout `folder` (PNG images, palette masks, classes.txt); gives their number.

    Raises:
        UserError: The folder exists and is not empty, or cannot be written.
    """
    dataset = Dataset(scenes_layout(config), config.model_copy(update={"kind": "scenes", "resize": 1.0}))
    return _write(dataset, {split: split for split in ("train", "val", "test")}, folder, "labels")


def convert(config: DataConfig, folder: Path) -> tuple[int, int]:
    """Write any data set in the layout `folder`: images are copied as they are, masks hold class ids and a palette.

    Held-out images become val, or holdout where there is one.

    Returns:
        The number of images, and of masks.

    Raises:
        UserError: The folder exists and is not empty, or cannot be written.
        DataError: A mask cannot be read.
    """
    dataset = open_dataset(config.model_copy(update={"resize": 1.0}))
    splits = {split: split for split in dataset.splits}
    if "holdout" in splits and "val" not in splits:
        splits["holdout"] = "val"
    count = _write(dataset, splits, folder, "masks")
    return count, sum(item.has_labels for split in splits for item in dataset.items(split))


def _write(dataset: Dataset, splits: dict[str, str], folder: Path, masks: str) -> int:
    """Write splits under their new names."""
    items = [(new, item) for split, new in splits.items() for item in dataset.items(split)]
    try:
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is not empty; name a new folder, nothing is overwritten")
        for split, item in track(items, "writing images"):
            name = item.id.removeprefix(f"{split}/")
            _write_image(dataset, item, folder / "images" / split / name)
            if item.has_labels:
                _write_mask(dataset, item, folder / masks / split / f"{name}.png")
        (folder / "classes.txt").write_text("".join(f"{name}\n" for name in dataset.classes), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error}") from error
    return len(items)


def _write_image(dataset: Dataset, item: Item, stem: Path) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    if item.image is None:
        Image.fromarray(dataset.read_image(item)).save(f"{stem}.png")
    else:
        shutil.copyfile(item.image, f"{stem}{item.image.suffix}")


def _write_mask(dataset: Dataset, item: Item, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.fromarray(dataset.read_targets(item, resized=False))
    mask.putpalette(dataset.palette.tobytes())
    mask.save(path)
