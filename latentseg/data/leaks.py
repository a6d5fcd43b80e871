"""Images that a run learns from and is scored by: the same file, the same bytes, or the same pixels in other bytes."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from latentseg.data.datasets import Item
from latentseg.data.files import first_three
from latentseg.data.lists import image_key
from latentseg.errors import DataError

KINDS = {"labeled": "labelled", "unlabeled": "unlabelled"}
REMEDY = {
    "labeled": "scores would be those of images with known answers: remove one of the two",
    "unlabeled": "scores would be those of images that were learned from: take them out of train or data.unlabeled",
}


def leak_notes(
    role: str, items: list[Item], kept_out: list[tuple[str, Item]], marks: Mapping[Item, int] | None = None
) -> list[str]:
    """Notes on images of a role (`labeled`, `unlabeled`) that are kept for scores as well.

    Files of the same size are compared by their bytes, images that were decoded by the marks of their pixels.

    Args:
        role: Of the images.
        items: The images.
        kept_out: Images that are kept for scores, each with its split.
        marks: Of the pixels of images; 0 or nothing: not known.
    """
    marks = marks or {}
    by_size: dict[int, list[tuple[str, Item]]] = defaultdict(list)
    for split, other in kept_out:
        by_size[_size(other)].append((split, other))
    by_mark = {mark: (split, other) for split, other in reversed(kept_out) if (mark := marks.get(other, 0))}
    digests: dict[Path, bytes] = {}
    found: dict[str, list[str]] = defaultdict(list)
    for item in items:
        for split, other in by_size.get(_size(item), ()) if item.image else ():
            if item.image and other.image and _digest(item.image, digests) == _digest(other.image, digests):
                same = item.image.resolve() == other.image.resolve()
                found[split].append(item.id if same or item.id == other.id else f"{item.id} = {other.id}")
                break
        else:
            if twin := by_mark.get(marks.get(item, 0)):
                found[twin[0]].append(f"{item.id} = {twin[1].id}, saved otherwise")
    return [
        f"{len(names)} {KINDS[role]} images have the content of images of {split} ({first_three(iter(names))}): "
        f"{REMEDY[role]}"
        for split, names in found.items()
    ]


def refuse_scored(item: Item, scored: set[str | Path]) -> None:
    """Refuse a labelled image that is kept for scores, the very file.

    Raises:
        DataError: It is.
    """
    if item.image and image_key(item) in scored:
        raise DataError("a labelled image is part of val, test or holdout too", REMEDY["labeled"], item.image)


def shared_masks(items: Iterable[Item]) -> list[str]:
    """A note on masks that serve several images, be they labelled or scored."""
    users: dict[Path, list[Item]] = defaultdict(list)
    for item in items:
        if item.mask:
            users[item.mask.resolve()].append(item)
    twice = {mask: images for mask, images in users.items() if len(images) > 1}
    if not twice:
        return []
    mask, images = next(iter(twice.items()))
    names = first_three(str(item.image) for item in images)
    return [f"{len(twice)} masks belong to several images, as {mask} to {names}: look at the list, or at data.pairs"]


def own_masks(items: Iterable[Item]) -> list[str]:
    """A note on images that are their own mask, byte by byte: what is asked for stands in the input."""
    digests: dict[Path, bytes] = {}
    pairs = [(item, item.image, item.mask) for item in items if item.image and item.mask]
    same = [
        item.id
        for item, image, mask in pairs
        if image.stat().st_size == mask.stat().st_size and _digest(image, digests) == _digest(mask, digests)
    ]
    if not same:
        return []
    return [f"{len(same)} images are their own masks, byte by byte ({first_three(iter(same))}): put the pictures there"]


def _size(item: Item) -> int:
    try:
        return item.image.stat().st_size if item.image else -1
    except OSError:  # the check of files tells
        return -1


def _digest(path: Path, known: dict[Path, bytes]) -> bytes:
    if path not in known:
        with path.open("rb") as file:
            known[path] = hashlib.file_digest(file, "blake2b").digest()
    return known[path]
