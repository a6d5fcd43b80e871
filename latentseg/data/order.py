"""In which order a stream shows its images: a pure function of seed and step."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

ORDER = 0  # what the seed is for


def indices(seed: int, stream: int, length: int, batch_size: int, step: int) -> list[tuple[int, int]]:
    """Epoch and index of each image of a batch.

    The permutations of all epochs stand one after the other, and step k takes the k-th piece of `batch_size`: batches
    straddle epochs, and no image is dropped. Fewer images than a batch repeat within it.

    Args:
        seed: Seed of the run.
        stream: LABELED or UNLABELED; each has its own order.
        length: Number of images in the stream.
        batch_size: Images in a batch.
        step: Number of the step, from 0.
    """
    places = range(step * batch_size, (step + 1) * batch_size)
    return [
        (place // length, int(_permutation(seed, stream, length, place // length)[place % length])) for place in places
    ]


@lru_cache(maxsize=64)
def _permutation(seed: int, stream: int, length: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([ORDER, seed, stream, epoch]).permutation(length)
