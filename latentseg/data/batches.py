"""Batches: a pure function of seed and step, whatever the number of workers and wherever a run starts again."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from latentseg.config import Config
from latentseg.data.datasets import Dataset, Item
from latentseg.data.splits import Split
from latentseg.data.transforms import random_view

LABELED, UNLABELED = 0, 1  # streams
ORDER, VIEW = 0, 1  # what a seed is for: the order of an epoch, or the view of one image


@dataclass(frozen=True)
class Batch:
    """What one step sees.

    Attributes:
        images: Labelled images, RGB in 0..1, float32, shape (N, 3, H, W).
        targets: Their class ids, int64, shape (N, H, W); 255 is ignored.
        unlabeled: Unlabelled images, as `images`; None if the run uses none.
        unlabeled_valid: Where they show image and not padding, bool, shape (N, H, W).
    """

    images: Tensor
    targets: Tensor
    unlabeled: Tensor | None = None
    unlabeled_valid: Tensor | None = None

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on a device."""
        return self._each(lambda part: part.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory (the data loader calls this)."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return Batch(
            change(self.images),
            change(self.targets),
            None if self.unlabeled is None else change(self.unlabeled),
            None if self.unlabeled_valid is None else change(self.unlabeled_valid),
        )


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


class StepDataset(TorchDataset[Batch]):
    """Batch of each step. The view of an image depends on seed, stream, epoch and index alone.

    Attributes:
        notes: What the user should know about the streams.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: Split,
        config: Config,
        mean: tuple[float, float, float],
        unlabeled: bool = True,
    ) -> None:
        self.dataset, self.split, self.config, self.mean = dataset, split, config, mean
        self.uses_unlabeled = unlabeled and bool(split.unlabeled)
        self.notes = batch_notes(split, config.batch_size, self.uses_unlabeled)

    def __len__(self) -> int:
        return self.config.steps

    def __getitem__(self, step: int) -> Batch:
        images, targets, _ = self._stream(LABELED, self.split.labeled, step)
        if not self.uses_unlabeled:
            return Batch(images, targets)
        unlabeled, _, valid = self._stream(UNLABELED, self.split.unlabeled, step)
        return Batch(images, targets, unlabeled, valid)

    def _stream(self, stream: int, items: list[Item], step: int) -> tuple[Tensor, Tensor, Tensor]:
        views = []
        for epoch, index in indices(self.config.seed, stream, len(items), self.config.batch_size, step):
            image = self.dataset.read_image(items[index])
            targets = self.dataset.read_targets(items[index]) if stream == LABELED else None
            rng = np.random.default_rng([VIEW, self.config.seed, stream, epoch, index])
            views.append(random_view(image, targets, self.config.augment, self.mean, rng))
        images, labels, valid = zip(*views, strict=True)
        return torch.stack(images), torch.stack(labels), torch.stack(valid)


def batch_notes(split: Split, batch_size: int, unlabeled: bool = True) -> list[str]:
    """A note for each stream with fewer images than a batch."""
    streams = [("labelled", split.labeled)] + [("unlabelled", split.unlabeled)] * unlabeled
    return [
        f"{len(items)} {name} images are fewer than a batch ({batch_size}): they repeat within it, in other views"
        for name, items in streams
        if 0 < len(items) < batch_size
    ]


def batches(
    dataset: Dataset,
    split: Split,
    config: Config,
    mean: tuple[float, float, float],
    start: int = 0,
    unlabeled: bool = True,
) -> Iterator[tuple[int, Batch]]:
    """Step and batch, from step `start` to the last.

    Args:
        dataset: Reads the items.
        split: Labelled and unlabelled images.
        config: Steps, batch size, seed, workers, views.
        mean: The model's mean colour, RGB in 0..1, for the padding.
        start: First step; the batches are those of a run that began at 0.
        unlabeled: Whether the method uses unlabelled images.
    """
    steps = range(start, config.steps)
    loader = DataLoader(
        StepDataset(dataset, split, config, mean, unlabeled),
        batch_size=None,
        sampler=steps,
        num_workers=config.workers,
        pin_memory=config.device in {"auto", "cuda"} and torch.cuda.is_available(),
        worker_init_fn=_one_thread,
        generator=torch.Generator(),  # its own: the global one must not depend on where a run starts
    )
    return zip(steps, loader, strict=True)


def _one_thread(_worker: int) -> None:
    torch.set_num_threads(1)
