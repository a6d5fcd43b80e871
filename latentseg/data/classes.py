"""Pixels and images of each class, and what they tell of masks that are not what they seem."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from latentseg.config import DataConfig
from latentseg.data.images import IGNORE_INDEX

LABELED = "labeled"
IN_BETWEEN = 0.8
"""A class of which more pixels lie on slopes between two others looks like the product of a smooth resize."""
SLOPES = 3
"""Fewer such classes may be chance."""
SEEN = 30
"""So may be fewer pixels of them."""


@dataclass
class MaskCounts:
    """What was found in masks, by value (0 to 255; larger and negative ones are left out): int64, shape (256,)."""

    masks: int = 0
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    images: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    between: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    """Pixels on a slope: of two opposite neighbours one is lower, one higher."""

    @classmethod
    def of(cls, mask: NDArray[np.integer[Any]]) -> "MaskCounts":
        """Count one mask, shape (H, W)."""
        values = mask if mask.dtype == np.uint8 else mask[(mask >= 0) & (mask <= 255)].astype(np.uint8)
        pixels = np.bincount(values.ravel(), minlength=256)
        slopes = np.zeros(256, np.int64)
        if np.count_nonzero(pixels) > SLOPES:  # else there is nothing to suspect, and time to save
            slopes = np.bincount(mask[_on_slope(mask)].clip(0, 255), minlength=256)
        return cls(1, pixels, (pixels > 0).astype(np.int64), slopes)

    def add(self, other: "MaskCounts") -> None:
        """Count those of another, too."""
        self.masks += other.masks
        self.pixels, self.images = self.pixels + other.pixels, self.images + other.images
        self.between = self.between + other.between

    @property
    def values(self) -> set[int]:
        """Those that occur."""
        return set(np.flatnonzero(self.pixels).tolist())

    def resized_smoothly(self) -> list[int]:
        """Values that live on slopes between others; none if they are few."""
        found = np.flatnonzero(self.between > IN_BETWEEN * self.pixels)
        return found.tolist() if len(found) >= SLOPES and self.pixels[found].sum() >= SEEN else []


def _on_slope(mask: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Pixels between a lower and a higher neighbour, left and right or above and below."""
    found = np.zeros(mask.shape, np.bool_)
    for pixels, inner in ((mask, found), (mask.T, found.T)):
        low, value, high = pixels[:-2], pixels[1:-1], pixels[2:]
        inner[1:-1] |= ((low < value) & (value < high)) | ((low > value) & (value > high))
    return found


def class_notes(names: Sequence[str], counts: dict[str, MaskCounts]) -> list[str]:
    """What will make scores mean less than they seem to: classes without pixels.

    Args:
        names: Of the classes.
        counts: By role: `labeled`, and each split that is scored.
    """
    labeled = counts.get(LABELED)
    if labeled is None or not labeled.masks:
        return []
    scored = {role: found for role, found in counts.items() if role != LABELED and found.masks}
    ids = range(len(names))
    occurring = set[int]().union(*(found.values for found in counts.values()))
    unlearned = [c for c in ids if c not in labeled.values and c in occurring]
    nowhere = [c for c in ids if c not in occurring]
    notes = []
    if unlearned:
        where = ", ".join(role for role, found in scored.items() if found.values & set(unlearned))
        notes.append(
            f"no labelled pixel of {_named(names, unlearned)} in the {labeled.masks} labelled images, but in {where}: "
            f"what is not shown is not learned; label more images, or draw them by data.every_class=true"
        )
    if nowhere:
        read = [f"{labeled.masks} labelled", *(f"{found.masks} of {role}" for role, found in scored.items())]
        why = "mask values or names may be meant otherwise"
        notes.append(f"{_named(names, nowhere)} in no mask that was read ({', '.join(read)}): {why}")
    if blank := [role for role, found in scored.items() if found.values == {IGNORE_INDEX}]:
        notes.append(f"no pixel of {', '.join(blank)} has a label: there is nothing to score")
    if len(labeled.values - {IGNORE_INDEX}) == 1:
        only = names[min(labeled.values)]
        notes.append(f"all labelled pixels are of one class, {only}: there is nothing to tell apart")
    return notes


def _named(names: Sequence[str], ids: list[int]) -> str:
    more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
    return f"{'class' if len(ids) == 1 else 'classes'} {', '.join(names[c] for c in ids[:5])}{more}"


def mask_notes(config: DataConfig, num_classes: int, counts: MaskCounts, values: set[int] | None = None) -> list[str]:
    """What the values of masks look like: an offered `data.class_map`, or a smooth resize.

    Args:
        config: Whether they are mapped.
        num_classes: Of the data set.
        counts: Of class ids, or of raw values where ids were refused.
        values: Those that occur, if some are beyond those that are counted.
    """
    values, notes = counts.values if values is None else values, []
    if slopes := counts.resized_smoothly():
        listed = ", ".join(map(str, slopes[:8])) + ", ..." * (len(slopes) > 8)
        notes.append(
            f"masks look as if they had been resized smoothly: the values {listed} lie on borders alone, between two "
            f"others. Resize masks by the nearest pixel (in Pillow: Image.Resampling.NEAREST), from the originals"
        )
    elif config.class_map is None and config.kind == "folder":
        known = values - {IGNORE_INDEX}
        if max(known, default=0) == num_classes:
            shift = _map({number + 1: number for number in range(num_classes)})
            notes.append(
                f"masks hold values up to {num_classes}, one more than the last of {num_classes} ids: if they start at "
                f"1, and 0 means no label, say so by 'data.class_map={shift}'"
            )
        elif len(values) == num_classes and min(values) >= 0 and not _are_ids(values, num_classes):
            listed = ", ".join(map(str, sorted(values)[:8])) + ", ..." * (num_classes > 8)
            meant = ", and 255 means ignored" if IGNORE_INDEX in values else ""
            mapped = _map({value: number for number, value in enumerate(sorted(values))})
            notes.append(
                f"masks hold the values {listed} alone, as many as there are classes{meant}: if they are the classes "
                f"in their order, say so by 'data.class_map={mapped}'"
            )
    return notes


def _are_ids(values: set[int], num_classes: int) -> bool:
    """Whether all are ids or "no label", and not only the last class is missing, which 255 may stand for."""
    known = values - {IGNORE_INDEX}
    return known <= set(range(num_classes)) and known != set(range(num_classes - 1))


def binary_notes(config: DataConfig, num_classes: int, counts: dict[str, MaskCounts]) -> list[str]:
    """A note on masks of 0 and 255 in one role, where those of the others hold 0 and 1; arguments as above."""
    if num_classes != 2 or config.class_map is not None or config.kind != "folder":
        return []
    of_one = {role for role, found in counts.items() if 1 in found.values}
    odd = [role for role, found in counts.items() if found.values == {0, IGNORE_INDEX}]
    if not of_one or not odd or any(IGNORE_INDEX in counts[role].values for role in of_one):
        return []
    mapped, others = _map({0: 0, 1: 1, IGNORE_INDEX: 1}), ", ".join(sorted(of_one))
    note = f"masks of {', '.join(odd)} hold 0 and 255 alone, and 255 means ignored; those of {others} hold 1: "
    return [f"{note}if both are the second class, say so by 'data.class_map={mapped}'"]


def _map(values: dict[int, int]) -> str:
    """As an override has it."""
    return "{" + ", ".join(f"{value}: {number}" for value, number in values.items()) + "}"


def class_table(names: Sequence[str], counts: dict[str, MaskCounts]) -> Table:
    """Pixels, and images that hold them, per class and role."""
    table = Table(title="pixels (images) per class")
    table.add_column("class")
    for role, found in counts.items():
        table.add_column(f"{role}, {found.masks} masks", justify="right")
    rows = [*enumerate(names), (IGNORE_INDEX, "no label")]
    for c, name in rows:
        cells = (f"{found.pixels[c]:,} ({found.images[c]:,})" for found in counts.values())
        table.add_row(Text(name), *cells)
    return table


def class_figures(names: Sequence[str], counts: dict[str, MaskCounts]) -> dict[str, dict[str, dict[str, int]]]:
    """The same as numbers: by role, class, and pixels or images."""
    return {
        role: {name: {"pixels": int(found.pixels[c]), "images": int(found.images[c])} for c, name in enumerate(names)}
        for role, found in counts.items()
    }
