"""Many images through one network: threads decode ahead of it and encode behind it, it never waits for them.

`in_threads` stands at both ends; between them `predict_all` forms batches of images of equal size. Each part pulls from
the one before it and holds a bounded number of images, so memory does not grow with their number.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from latentseg.config import InferenceConfig
from latentseg.inference import predict_labels, to_tensor
from latentseg.models.segmenter import Segmenter
from latentseg.parallel import Precision

Thing = TypeVar("Thing")
Result = TypeVar("Result")
THREADS = min(8, max(2, (os.cpu_count() or 2) // 2))
"""Threads that decode, and threads that encode: two take what the network leaves of two cores; a GPU is fast."""
AHEAD = 8
"""Images that wait before the network, and behind it."""
PIXELS = {"cpu": 2**18, "cuda": 2**22, "mps": 2**21}
"""Pixels of a batch: small images gain by company; beyond the cache of a CPU larger batches are slower."""
MOST = 64
"""Images in a batch, unless `inference.batch_size` says otherwise."""


@dataclass(frozen=True)
class Ready(Generic[Thing]):
    """An image that waits for the network."""

    thing: Thing
    """What it belongs to."""
    image: NDArray[np.uint8]
    """As the network sees it, RGB, shape (h, w, 3)."""
    size: tuple[int, int]
    """Height and width of the result."""


@dataclass(frozen=True)
class Maps:
    """What the network says of one image, on the CPU."""

    labels: Tensor
    """Class id per pixel, uint8, shape (H, W)."""
    latent: Tensor | None
    """Latent class per pixel, likewise; None if not asked for, or without latent branch."""


def in_threads(
    function: Callable[[Thing], Result], things: Iterable[Thing], threads: int = THREADS, ahead: int = AHEAD
) -> Generator[Result, None, None]:
    """Yield `function(thing)` in the order of the things, while threads compute the next ones.

    The things are drawn by the caller's thread. The first error in their order ends it; what waits then is dropped.

    Args:
        function: Called by threads.
        things: Any number of them.
        threads: How many; one calls in order.
        ahead: Things drawn beyond the one that is yielded.
    """
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for thing in things:
            waiting.append(pool.submit(function, thing))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        if isinstance(things, Generator):
            things.close()  # now, also where a traceback still holds it: its own threads end, its bar goes


def predict_all(
    segmenter: Segmenter,
    images: Iterable[Ready[Thing]],
    inference: InferenceConfig,
    precision: Precision = "32-true",
    latent: bool = False,
) -> Iterator[tuple[Thing, Maps]]:
    """Predict images in batches of equal size. Those of equal size keep their order, others may pass them.

    Args:
        segmenter: In eval mode.
        images: Any number of them.
        inference: Windows, scales, mirror, and the size of a batch.
        precision: From `choose_precision`.
        latent: Whether the latent classes are wanted.
    """
    device = next(segmenter.parameters()).device
    for batch in _batches(images, inference.batch_size, PIXELS[device.type]):
        tensor = to_tensor(np.stack([one.image for one in batch]), device)
        maps = predict_labels(segmenter, tensor, inference, batch[0].size, precision, latent)
        semantic, groups = maps.semantic.cpu(), None if maps.latent is None else maps.latent.cpu()
        for number, one in enumerate(batch):
            yield one.thing, Maps(semantic[number], None if groups is None else groups[number])


def _batches(images: Iterable[Ready[Thing]], batch_size: int | None, pixels: int) -> Iterator[list[Ready[Thing]]]:
    """Images of equal size together; when many wait for company, those that have waited longest go as they are."""
    groups: dict[tuple[int, ...], list[Ready[Thing]]] = {}
    for one in images:
        key = (*one.image.shape, *one.size)
        group = groups.setdefault(key, [])
        group.append(one)
        full = batch_size or min(MOST, max(1, pixels // max(one.image.size // 3, one.size[0] * one.size[1])))
        if len(group) >= full:
            yield groups.pop(key)
        elif sum(map(len, groups.values())) >= AHEAD + full:
            yield groups.pop(next(iter(groups)))
    yield from groups.values()
