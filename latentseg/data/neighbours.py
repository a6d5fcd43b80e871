"""What the neighbours of an image show: class shares, carried from the labelled images to those that look alike.

Label propagation between whole images (Zhou et al., Learning with Local and Global Consistency, NIPS 2003), over the
nearest neighbours by the features of a frozen encoder. N images, F features, C classes.
"""

import io
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from latentseg.config import Config
from latentseg.console import track
from latentseg.data.ahead import in_threads
from latentseg.data.caching import images_of, make_root, store_key
from latentseg.data.datasets import Dataset, Item
from latentseg.data.images import IGNORE_INDEX
from latentseg.data.splits import Split
from latentseg.methods.table import METHODS
from latentseg.runs.checkpoints import write_atomically
from latentseg.runs.locks import hold

if TYPE_CHECKING:
    from latentseg.models.segmenter import Segmenter

NEIGHBOURS = 20
"""Nearest images that each image is joined to."""
SHARPNESS = 3
"""Exponent of the cosine between two images, which weighs the edge between them."""
CARRIED = 0.95
"""Share of what an image shows that comes from its neighbours, in each round; the rest is its own label."""
ROUNDS = 60
"""Rounds of propagation."""
FLOOR = 0.03
"""What an image is taken to show of each class at least, as a share of the average image."""
AT_ONCE = 2**25
"""Cosines that are in memory together, 134 MB."""
WHOLE = 0
"""Number of views, in the name of a file of features, that stands for whole images."""


class Describe(Protocol):
    """Looks at an image as a whole."""

    name: str
    """Which features it gives: other features have another name."""

    def __call__(self, pixels: NDArray[np.uint8], /) -> Tensor:
        """Features of an image (h, w, 3), shape (F,)."""


def asks_neighbours(config: Config) -> bool:
    """Whether the method of a run wants to know what the neighbours of an image show."""
    return METHODS[config.method.name].reads("method.neighbour_power") and config.method.neighbour_power > 0


def neighbour_shares(
    config: Config, dataset: Dataset, split: Split, segmenter: "Segmenter", describe: Describe
) -> Tensor:
    """How much of each class the images show that look like an unlabelled image, relative to the average image.

    Args:
        config: The run.
        dataset: Reads images and masks.
        split: Labelled and unlabelled images.
        segmenter: Whose frozen encoder looks: its weights are in the name of the file of features.
        describe: Looks at an image.

    Returns:
        Shape (images, C), float32, in the order of `split.unlabeled`: 1 is usual, 2 twice as much.
    """
    items = images_of(split)
    features = _whole_images(config, dataset, items, segmenter, describe)
    rows, num_classes = {item.id: row for row, item in enumerate(items)}, len(dataset.classes)
    shares = torch.zeros(len(items), num_classes)
    for item in split.labeled:
        ids = dataset.read_targets(item)
        counts = np.bincount(ids[ids != IGNORE_INDEX], minlength=num_classes)
        shares[rows[item.id]] = torch.from_numpy(counts / max(1, counts.sum()))
    return propagate(features, shares)[[rows[item.id] for item in split.unlabeled]]


def propagate(features: Tensor, shares: Tensor) -> Tensor:
    """Carry class shares over the graph of the images.

    Args:
        features: Shape (N, F).
        shares: Of the classes in each image that is labelled, 0 in all others, shape (N, C).

    Returns:
        Shape (N, C), on average 1 for each class; 1 throughout for a class that no labelled image shows.
    """
    graph = _graph(functional.normalize(features - features.mean(0)))
    own = shares / shares.sum(0).clamp(min=1e-9)  # rare classes count as much as others
    carried = own
    for _ in range(ROUNDS):
        carried = CARRIED * (graph @ carried) + (1 - CARRIED) * own
    mean = carried.mean(0)
    relative = torch.where(mean > 0, carried / mean.clamp(min=1e-30), 1)
    return (relative + FLOOR) / (1 + FLOOR)


def _graph(features: Tensor) -> Tensor:
    """Weights between neighbours, symmetric, over the roots of the sums of both; sparse, shape (N, N)."""
    images = len(features)
    count = min(NEIGHBOURS, images - 1)
    near, weights = [], []
    part = max(1, AT_ONCE // images)
    for first in range(0, images, part):
        cosines = features[first : first + part] @ features.T
        cosines[torch.arange(len(cosines)), torch.arange(first, first + len(cosines))] = -1  # not its own neighbour
        best = cosines.topk(count, 1)
        near.append(best.indices)
        weights.append(best.values.clamp(min=0) ** SHARPNESS)
    rows = torch.arange(images).repeat_interleave(count)
    places = torch.stack([rows, torch.cat(near).flatten()])
    values = torch.cat(weights).flatten()
    both = _sparse(torch.cat([places, places.flip(0)], 1), torch.cat([values, values]) / 2, images)
    roots = torch.sparse.sum(both, 1).to_dense().clamp(min=1e-9).rsqrt()
    one, other = both.indices()
    return _sparse(both.indices(), both.values() * roots[one] * roots[other], images)


def _sparse(places: Tensor, values: Tensor, size: int) -> Tensor:
    return torch.sparse_coo_tensor(places, values, (size, size), check_invariants=True).coalesce()


def _whole_images(
    config: Config, dataset: Dataset, items: list[Item], segmenter: "Segmenter", describe: Describe
) -> Tensor:
    """Features of all images, shape (N, F): from the cache folder, or computed now and kept there."""
    root = make_root(config)
    path = root / f"{store_key(config, segmenter, items, WHOLE)}-{describe.name}.npy"
    with hold(root / f"{path.name}.lock", f"features in {path}", wait=True):
        found = _read(path, len(items))
        if found is None:
            with closing(in_threads(dataset.read_image, items)) as images:
                rows = [describe(pixels) for pixels in track(images, "looking at whole images", len(items))]
            found = torch.stack(rows)
            content = io.BytesIO()
            np.save(content, found.numpy())
            write_atomically(path, content.getvalue())
    return found


def _read(path: Path, images: int) -> Tensor | None:
    """What a run before left, if it is whole."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return torch.from_numpy(array) if array.ndim == 2 and len(array) == images else None
