"""Many images through one network: threads decode ahead of it and encode behind it, it never waits for them.

`data.ahead.in_threads` stands at both ends; between them the network takes batches of images of equal size
(`in_batches`). Each part pulls from the one before it and holds a bounded number of images, so memory does not grow
with their number.
"""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from latentseg.data.ahead import AHEAD

Thing = TypeVar("Thing")
Pixels = NDArray[np.uint8]
"""RGB images, shape (H, W, 3) or (N, H, W, 3)."""
Size = tuple[int, int]
"""Height and width in pixels."""
Ready = tuple[Pixels, Size, Thing]
"""An image as the network sees it, shape (h, w, 3); the size of its result; and what it belongs to."""
BATCH_PIXELS = {"cpu": 2**18, "cuda": 2**22, "mps": 2**21}
"""Pixels of a batch: small images gain by company; beyond the cache of a CPU larger batches are slower."""
MAX_BATCH_SIZE = 64
"""Images in a batch, unless `inference.batch_size` says otherwise."""


def in_batches(images: Iterable[Ready[Thing]], batch_size: int | None, pixels: int) -> Iterator[list[Ready[Thing]]]:
    """Yield images of equal size together; when many wait for company, those that have waited longest go as they are.

    Args:
        images: Any number of them.
        batch_size: Images in a full batch; None, as many as have `pixels` together.
        pixels: From `BATCH_PIXELS`.
    """
    groups: dict[tuple[int, ...], list[Ready[Thing]]] = {}
    for one in images:
        image, size, _ = one
        key = (*image.shape, *size)
        group = groups.setdefault(key, [])
        group.append(one)
        full = batch_size or min(MAX_BATCH_SIZE, max(1, pixels // max(image.size // 3, size[0] * size[1])))
        if len(group) >= full:
            yield groups.pop(key)
        elif sum(map(len, groups.values())) >= AHEAD + full:
            yield groups.pop(next(iter(groups)))
    yield from groups.values()
