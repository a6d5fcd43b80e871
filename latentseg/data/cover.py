"""A draw of labelled images that holds every class, changed as little as that takes."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from latentseg.console import track
from latentseg.data.datasets import Dataset, Item
from latentseg.data.files import first_three
from latentseg.data.images import IGNORE_INDEX
from latentseg.errors import UserError

AT_ONCE = 16
"""Masks that are read before it is asked whether that is enough."""


def cover_classes(dataset: Dataset, order: list[Item], number: int, strict: bool) -> tuple[list[Item], list[str]]:
    """The first `number` images of an order, or nearly: images of classes that these lack replace the last of them.

    A draw that holds every class stays as it is. Otherwise an image leaves, from the end, if all its classes are in
    others; the new ones stand at the end. Masks are read until every class of the data set is found.

    Args:
        dataset: Reads the masks.
        order: Images with masks, in the order of the draw.
        number: How many are wanted.
        strict: Refuse where some class that the order holds cannot be covered; else a note says so.

    Returns:
        The images, and notes.

    Raises:
        UserError: `strict`, and the number is too small.
    """
    holds, everything = list[set[int]](), set[int]()
    for held in track(_held(dataset, order, number), "looking for every class", len(order)):
        holds.append(held)
        everything |= held
        if len(everything) == len(dataset.classes):
            break
    drawn = set[int]().union(*holds[:number])
    if drawn == everything:
        return order[:number], []
    chosen = _replaced(holds, number, everything)
    missing = everything - set[int]().union(*(holds[i] for i in chosen))
    if missing and len(front := _smallest(holds)) <= number:
        rest = (i for i in range(len(order)) if i not in front)
        chosen, missing = [*front, *(i for i, _ in zip(rest, range(number - len(front)), strict=False))], set()
    lacked, left = (", ".join(dataset.classes[c] for c in sorted(found)) for found in (everything - drawn, missing))
    if missing and strict:
        raise UserError(
            f"data.every_class: {number} labelled images are too few; not covered: {left}. Raise data.labeled or "
            f"change the seed"
        )
    came = [order[i].id for i in chosen if i >= number]
    by = f"replaced by {first_three(iter(came))} (data.every_class=false keeps the draw)"
    brought = f"the draw of {number} labelled images lacked {lacked}: {len(came)} of the images {by}"
    too_few = f"{number} labelled images are too few to hold every class; not covered: {left}"
    return [order[i] for i in chosen], [brought] * bool(came) + [too_few] * bool(missing)


def _held(dataset: Dataset, order: list[Item], number: int) -> Iterator[set[int]]:
    """The classes that each image holds; none where the mask cannot be read, which the data check will tell.

    Masks are read a few at once, none of the rest with the first `number`.
    """

    def classes_of(item: Item) -> set[int]:
        try:
            pixels = np.bincount(dataset.read_targets(item).ravel(), minlength=256)
            return set(np.flatnonzero(pixels).tolist()) - {IGNORE_INDEX}
        except UserError:
            return set()

    with ThreadPoolExecutor() as pool:
        for part in (order[:number], order[number:]):
            for start in range(0, len(part), AT_ONCE):
                yield from pool.map(classes_of, part[start : start + AT_ONCE])


def _replaced(holds: list[set[int]], number: int, everything: set[int]) -> list[int]:
    """Bring in images of missing classes, the rarest first, as long as one of the draw can leave for each."""
    chosen = list(range(number))
    counts = Counter(c for held in holds for c in held)
    for c in sorted(everything, key=lambda c: (counts[c], c)):
        if any(c in holds[i] for i in chosen):
            continue
        new = next(i for i, held in enumerate(holds) if c in held)
        times = Counter(c for i in [*chosen, new] for c in holds[i])
        leaves = next((i for i in reversed(chosen) if i < number and all(times[k] > 1 for k in holds[i])), None)
        if leaves is not None:
            chosen = [i for i in chosen if i != leaves] + [new]
    return chosen


def _smallest(holds: list[set[int]]) -> list[int]:
    """A few images that hold every class: each class, from the rarest on, brings the first image that holds it."""
    counts = Counter(c for held in holds for c in held)
    front: list[int] = []
    for c in sorted(counts, key=lambda c: (counts[c], c)):
        if not any(c in holds[i] for i in front):
            front.append(next(i for i, held in enumerate(holds) if c in held))
    return front
