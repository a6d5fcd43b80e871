"""Which images to choose: a score from 0 to 1 for each, times how far it is from what is known. NumPy only.

The score is the weighted mean of the places that an image has among all of them, by each signal. The distance is that
of the encoder's features to the nearest labelled or chosen image, over the largest one (farthest-first, as the
core-set of arXiv:1708.00489). An image like one that is known is worth nothing, however unsure the model is of it.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
LEAST = 0.01
"""Labelled images that a class has at least, in the growth of what is labelled: a class without any is no infinity."""
SHOWN = 0.01
"""Share of the pixels from which an image is said to show a class."""


@dataclass(frozen=True)
class Pool:
    """Figures of N images without labels."""

    signals: dict[str, Floats]
    """By name, shape (N,): the larger, the more the labels would teach."""
    expected: Floats
    """Expected share of the pixels of each class, shape (N, C)."""
    won: Floats
    """Share of the pixels where each class is the most probable, shape (N, C)."""
    features: Floats
    """Pooled features of the encoder, shape (N, F)."""


@dataclass(frozen=True)
class Known:
    """Figures of the images with labels, or of none."""

    pixels: Floats
    """Labelled pixels of each class, in images: the shares of each image, added up; shape (C,)."""
    shown: Floats
    """Labelled images that show each class, shape (C,)."""
    features: Floats
    """Shape (K, F); K may be 0."""

    @classmethod
    def nothing(cls, num_classes: int) -> "Known":
        """No labelled image."""
        counts = np.zeros(num_classes, np.float32)
        return cls(counts, counts, np.zeros((0, 1), np.float32))


@dataclass(frozen=True)
class Way:
    """How images are chosen."""

    weights: dict[str, float] = field(default_factory=dict)
    """Of the signals in the score, and of `rare`; signals that a run does not have are left out."""
    spread: float = 0.0
    """Power of the distance to what is known; 0: it does not count."""
    drawn: bool = False
    """Drawn at random."""
    classes: bool = False
    """Each one for the class that the fewest images show so far."""


WAYS = {
    "all": Way({"entropy": 1, "branches": 1, "teacher": 1, "rare": 3}, spread=1),
    "entropy": Way({"entropy": 1}),
    "branches": Way({"branches": 1}),
    "teacher": Way({"teacher": 1}),
    "rare": Way({"rare": 1}),
    "diverse": Way(spread=1),
    "stratified": Way(drawn=True, classes=True),
    "random": Way(drawn=True),
}
"""What `--by` names."""


@dataclass(frozen=True)
class Pick:
    """One chosen image."""

    index: int
    value: float
    """What the choice went by: score times distance, both in 0..1; 0 for a draw."""
    places: dict[str, float]
    """Share of the images that it is above, by signal, `rare` and `distance`, when it was chosen."""
    rare: int
    """The class whose labels it would multiply most, or for which it was drawn."""


def choose(pool: Pool, known: Known, count: int, way: Way, seed: int) -> list[Pick]:
    """Choose images one by one, the best first; each one counts as known for the next. Equal input, equal choice.

    Args:
        pool: The images.
        known: Those with labels.
        count: How many; at most as many as there are.
        way: How.
        seed: Of a draw.
    """
    number = len(pool.features)
    fixed = {name: place(values) for name, values in pool.signals.items()}
    order = np.random.default_rng(seed).permutation(number) if way.drawn else np.arange(number)
    near, is_open, picks = nearest(pool.features, known.features), np.ones(number, np.bool_), list[Pick]()
    for _ in range(min(count, number)):
        growth = grown(pool.expected, known.pixels)
        places = fixed | {"rare": place(growth.mean(1)), "distance": place(near)}
        score, far = mean_of(places, way.weights), relative(near, is_open)
        if way.drawn:
            index, rare = drawn(order, is_open, pool.won, known.shown, way.classes)
            value = 0.0
        else:
            values = score * far**way.spread
            index = int(np.lexsort((-order, score, values, is_open))[-1])
            rare, value = int(growth[index].argmax()), float(values[index])
        picks.append(Pick(index, value, {name: float(of[index]) for name, of in places.items()}, rare))
        is_open[index] = False
        near = np.minimum(near, distances(pool.features, pool.features[index]))
        shown = known.shown + (pool.won[index] >= SHOWN)
        known = replace(known, pixels=known.pixels + pool.expected[index], shown=shown)
    return picks


def place(values: Floats) -> Floats:
    """Share of the values that each one is above, equal ones counting half: in 0..1, whatever the scale."""
    _, which, times = np.unique(values, return_inverse=True, return_counts=True)
    below = np.cumsum(times) - times
    return np.asarray(((below + times / 2) / len(values))[which], np.float32)


def grown(expected: Floats, pixels: Floats) -> Floats:
    """How often each image would double the labelled pixels of each class, log2(1 + expected / labelled), (N, C)."""
    return np.asarray(np.log2(1 + expected / (pixels + LEAST)), np.float32)


def mean_of(places: dict[str, Floats], weights: dict[str, float]) -> Floats:
    """Weighted mean of the places, shape (N,); 1 without weights."""
    used = {name: weight for name, weight in weights.items() if name in places}
    if not used:
        return np.ones_like(next(iter(places.values())))
    total = sum((weight * places[name] for name, weight in used.items()), start=np.float32(0))
    return np.asarray(total / sum(used.values()), np.float32)


def distances(features: Floats, one: Floats) -> Floats:
    """Euclidean distances of features (N, F) to one of them, shape (N,)."""
    return np.asarray(np.linalg.norm(features - one, axis=1), np.float32)


def nearest(features: Floats, centres: Floats) -> Floats:
    """Distance of features (N, F) to the nearest of the centres (K, F); without centres infinite."""
    near = np.full(len(features), np.inf, np.float32)
    for centre in centres:
        near = np.minimum(near, distances(features, centre))
    return near


def relative(near: Floats, is_open: NDArray[np.bool_]) -> Floats:
    """Distances over the largest one of an image that may be chosen; 1 where nothing is known."""
    largest = near[is_open].max()
    return np.ones_like(near) if np.isinf(largest) else near / max(largest, np.finfo(np.float32).tiny)


def drawn(
    order: NDArray[np.int64], is_open: NDArray[np.bool_], won: Floats, shown: Floats, classes: bool
) -> tuple[int, int]:
    """The next image of an order; with `classes` the next that shows the class which the fewest images show.

    Returns:
        The image, and that class (without one, the image's largest).
    """
    rest = order[is_open[order]]
    for c in np.argsort(shown, kind="stable").tolist() if classes else ():
        showing = won[rest, c] >= SHOWN
        if showing.any():
            return int(rest[showing.argmax()]), c
    return int(rest[0]), int(won[rest[0]].argmax())
