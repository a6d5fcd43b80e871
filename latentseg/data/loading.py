"""The batches of a run in their order, read ahead by a thread or by workers."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from latentseg.config import Config
from latentseg.data.batches import NOTHING, WHOLE, Batch, Part, Seen, StepDataset
from latentseg.data.datasets import Dataset
from latentseg.data.splits import Split
from latentseg.errors import UserError
from latentseg.signals import leave_signals_to_parent


def batches(
    dataset: Dataset,
    split: Split,
    config: Config,
    mean: tuple[float, float, float],
    start: int = 0,
    unlabeled: bool = True,
    seen: Seen = NOTHING,
    part: Part = WHOLE,
) -> Iterator[tuple[int, Batch]]:
    """Step and batch, from step `start` to the last.

    Args:
        dataset: Reads the items.
        split: Labelled and unlabelled images.
        config: Steps, batch size, seed, workers, views.
        mean: The model's mean colour, RGB in 0..1, for the padding.
        start: First step; the batches are those of a run that began at 0.
        unlabeled: Whether the method uses unlabelled images.
        seen: What the frozen encoder has seen before.
        part: What this process takes of each batch.
    """
    steps = range(start, config.steps)
    by_step = StepDataset(dataset, split, config, mean, unlabeled, seen, part)
    dataset_of_steps: TorchDataset[Any] = _Told(by_step) if config.workers else by_step
    loader = DataLoader(
        dataset_of_steps,
        batch_size=None,
        sampler=steps,
        num_workers=config.workers,
        pin_memory=config.device in {"auto", "cuda"} and torch.cuda.is_available(),
        worker_init_fn=_begin_worker,
        generator=torch.Generator(),  # its own: the global one must not depend on where a run starts
    )
    stream = _raised(iter(loader)) if config.workers else _one_ahead(iter(loader), len(steps))
    return zip(steps, stream, strict=True)


class _Told(TorchDataset[Batch | UserError]):
    """Batches, or the error that took the place of one: raised in a worker it would come out as another error."""

    def __init__(self, dataset: StepDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, step: int) -> Batch | UserError:
        try:
            return self.dataset[step]
        except UserError as error:
            return error


def _raised(stream: Iterator[Batch | UserError]) -> Iterator[Batch]:
    for batch in stream:
        if isinstance(batch, UserError):
            raise batch
        yield batch


def _one_ahead(stream: Iterator[Batch], number: int) -> Iterator[Batch]:
    """The first batches of a stream: a thread reads the next while one is in use. Errors come out with their batch."""
    with ThreadPoolExecutor(1, "batches") as pool:
        coming = pool.submit(next, stream) if number else None
        for left in reversed(range(number)):
            assert coming is not None
            batch = coming.result()
            coming = pool.submit(next, stream) if left else None
            yield batch


def _begin_worker(_worker: int) -> None:
    torch.set_num_threads(1)
    leave_signals_to_parent()
