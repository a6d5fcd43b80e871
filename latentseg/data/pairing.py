"""Names of images and masks that seem to belong together and do not, and files that seem to lie in the wrong place."""

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from latentseg.config import DataConfig
from latentseg.data.files import first_three, home_path, listing, skipped_note

SEPARATORS = "-_. "  # the first one is no range in a pattern
FEW_VALUES = 64
"""A picture of one channel with no more values than these looks like a mask."""


def orphan_notes(split: str, folder: Path, masks: list[str], bare: list[str]) -> list[str]:
    """A note on masks that belong to no image, with an example of both names; none if there is no such mask.

    Args:
        split: Where they are.
        folder: Of the masks.
        masks: Their stems.
        bare: Stems of the images that have no mask.
    """
    if not masks:
        return []
    near = near_names(masks, bare)
    example = next(iter(near), masks[0])
    if example not in near:
        images = f", those without a mask are {first_three(iter(bare))}" if bare else ""
        why = f"; an image of the same name is missing{images}"
    elif unicodedata.normalize("NFC", example) == unicodedata.normalize("NFC", near[example]):
        why = f", beside the image {near[example]}: the same letters, once composed (NFC) and once not (NFD)"
    else:
        why = f", beside the image {near[example]}"
    names = first_three(name for name in masks if name != example)
    also = f"; also {names}" if names else ""
    text = f"{len(masks)} masks of {split} belong to no image, and {len(bare)} images have no mask: mask {example}{why}"
    return [f"{text}{also}. A mask bears the name of its image: rename those in {folder}"]


def maskless_notes(masks: Path, split: str) -> list[str]:
    """Notes on a split without any mask: where they are looked for, and what is there.

    Args:
        masks: The folder of all masks.
        split: Its folder is missing, or holds no mask.
    """
    folder = masks / split
    inside = f"holds {listing(folder)}" if folder.is_dir() else "is missing"
    meant = f"no image of {split} has a mask: a mask is a file of the image's name in {folder}"
    return [f"{meant}, which {inside}; {masks} holds {listing(masks)}"]


def unread_notes(images: Path, splits: list[str], unlabeled: list[str]) -> list[str]:
    """A note on folders of images that are no split, and that `data.unlabeled` does not name."""
    named = {Path(os.path.realpath(home_path(name))) for name in unlabeled}
    folders = [path for path in sorted(images.iterdir()) if path.is_dir() and path.name not in splits]
    left = [path for path in folders if path.resolve() not in named and not path.name.startswith(".")]
    if not left:
        return []
    note = f"folders in {images} that are not read: {first_three(path.name for path in left)}. The splits are called "
    return [f"{note}train, val and test; unlabelled images are named by data.unlabeled=[FOLDER]"]


def near_names(masks: Iterable[str], images: Iterable[str]) -> dict[str, str]:
    """The image that a mask is likely meant for, by mask: other capitals, another Unicode form, or a further word."""
    found: dict[str, str] = {}
    words = {form: image for image in reversed(list(images)) for form in reversed(_forms(image))}
    for mask in masks:
        image = next((words[form] for form in _forms(mask) if form in words), None)
        if image is not None:
            found[mask] = image
    return found


def _forms(name: str) -> list[str]:
    """A name without capitals in composed form, then without its last words, as long as they hold no digit."""
    forms = [unicodedata.normalize("NFC", name).casefold()]
    while word := re.search(rf"(?<=[^/])[{SEPARATORS}][^{SEPARATORS}/\d]*$", forms[-1]):
        forms.append(forms[-1][: word.start()])
    return forms


def listing_notes(config: DataConfig, root: Path, images: list[Path], masks: list[Path]) -> list[str]:
    """Notes on files that are left out, and on masks among the images.

    Args:
        config: Which folders are searched.
        root: Of the data set.
        images: Training images.
        masks: Of the data set.
    """
    parts = [root / name for name in ("images", "masks", "labels")] if config.kind == "folder" else []
    folders = [*(part for part in parts if part.is_dir()), *map(home_path, config.unlabeled)]
    notes = [note for folder in folders for note in skipped_note(folder)]
    if found := mask_like(images):
        names = first_three(path.name for path in found)
        notes.append(
            f"{len(found)} of {len(images)} training images look like masks ({names}: one channel, few values, named "
            f"after another image): move them out of {found[0].parent}"
        )
    known = {path.resolve() for path in masks}
    if found := [path for path in images if path.resolve() in known]:
        names = first_three(path.name for path in found)
        notes.append(f"{len(found)} of {len(images)} training images are masks of the data set: {names}")
    return notes


def mask_like(images: list[Path]) -> list[Path]:
    """Files among images that look like masks: another one's name and a word more, one channel, few values."""
    stems = {path.with_suffix("") for path in images}
    named = [path for path in images if any(path.with_name(stem) in stems for stem in shorter(path.stem))]
    if not all(has_few_values(path) for path in named[:3]):
        return []
    return [path for path in named if _has_one_channel(path)]


def shorter(stem: str) -> list[str]:
    """A name without its last words."""
    return [stem[:i] for i, mark in enumerate(stem) if mark in SEPARATORS and i]


def _has_one_channel(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.mode in {"1", "L", "P", "I"} or image.mode.startswith("I;16")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def has_few_values(path: Path) -> bool:
    """Whether a picture has one channel, with no more values than classes; False if it cannot be read."""
    try:
        with Image.open(path) as image:
            return len(image.getbands()) == 1 and len(image.getcolors(FEW_VALUES) or []) > 0
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
