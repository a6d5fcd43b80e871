"""Which images may be chosen, and which of a run have labels. Without PyTorch."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from latentseg.data.datasets import Dataset, Item
from latentseg.data.files import IMAGE_SUFFIXES, image_files
from latentseg.data.lists import image_key, kept_out_items, mask_files
from latentseg.data.splits import check_name
from latentseg.errors import UserError

LABELED, MASKS = "labelled in the run", "masks of its data set"


@dataclass(frozen=True)
class Candidates:
    """The images that may be chosen."""

    images: list[Path]
    left_out: dict[str, int]
    """How many are not looked at, by the reason."""


def find_images(paths: list[Path]) -> list[Path]:
    """All images that the paths name, each once, in their order.

    Raises:
        UserError: A path is missing, or there is no image.
        DataError: The name of an image cannot stand in a list, or a folder cannot be listed.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if os.path.isdir(path):  # noqa: PTH112 - a name that is too long is no error there
            images = image_files(path)
        elif os.path.isfile(path):  # noqa: PTH113
            images = [path]
        else:
            raise UserError(f"{path} does not exist: name folders of images, or images")
        if not images:
            raise UserError(f"{path} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
        for image in images:
            check_name(Item(str(image), image))
            found.setdefault(image.resolve(), image)
    return list(found.values())


def without_known(images: list[Path], dataset: Dataset | None, labeled: list[Item]) -> Candidates:
    """Leave out what has labels in a run, what is kept for scores, and the masks of its data set.

    Raises:
        UserError: Nothing is left.
    """
    why: dict[Path | str, str] = {}
    if dataset is not None:
        why = dict.fromkeys(mask_files(dataset), MASKS)
        why |= {image_key(item): f"kept for scores ({split})" for split, item in kept_out_items(dataset)}
    why |= {image_key(item): LABELED for item in labeled}
    reasons = {image: why.get(image.resolve()) for image in images}
    left_out = dict(sorted(Counter(reason for reason in reasons.values() if reason).items()))
    left = [image for image, reason in reasons.items() if reason is None]
    if not left:
        raise UserError(f"no image is left to choose from: {told(left_out)}; name a folder of other images")
    return Candidates(left, left_out)


def told(left_out: dict[str, int]) -> str:
    """How many images are left out, in words."""
    return ", ".join(f"{number} {reason}" for reason, number in left_out.items())
