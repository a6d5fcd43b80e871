"""Stands in for `latentseg.training.trainer.Trainer` till that is merged; same names, so only imports change then."""

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from latentseg.caching import cached_features
from latentseg.config import Config
from latentseg.data.batches import Batch, batches
from latentseg.data.datasets import Dataset, open_dataset
from latentseg.data.splits import Split, draw_split
from latentseg.methods import Method
from latentseg.optim import decay
from latentseg.parallel import make_fabric
from latentseg.training import build_state, set_up, training_step


class Trainer:
    """Takes the steps of a run."""

    def __init__(self, config: Config, dataset: Dataset, split: Split) -> None:
        self.config, self.dataset, self.split, self.waited = config, dataset, split, 0.0
        torch.manual_seed(config.seed)
        self.state, self.fabric = build_state(config, dataset.classes, split), make_fabric(config)
        self._nets, self._optimizers = set_up(self.fabric, self.state)
        self._stream: Iterator[tuple[int, Batch]] = iter(())

    @classmethod
    def open(cls, config: Config, dataset: Dataset | None = None, split: Split | None = None) -> "Trainer":
        """Open the data set, draw the split, and build networks, method and optimisers."""
        if config.threads:
            torch.set_num_threads(config.threads)
        dataset = dataset or open_dataset(config.data, remember=config.cache == "images")
        return cls(config, dataset, split or draw_split(dataset, config.data, config.seed))

    @property
    def method(self) -> Method:
        """What is learned."""
        return self.state.method

    def seek(self, step: int) -> None:
        """Go to a step: the next batch is that step's. Features are computed now if they are cached."""
        reads, stores, segmenter = self.method.uses_unlabeled, None, self.state.segmenter
        if self.config.cache == "features":
            stores = cached_features(self.config, segmenter, self.dataset, self.split, reads)
        self._stream = batches(self.dataset, self.split, self.config, segmenter.mean, step, reads, stores)

    def step(self) -> dict[str, Tensor]:
        """Take the next step."""
        return self.learn(*self.read())

    def read(self) -> tuple[int, Batch]:
        """Number of the next step, and its batch, on the device."""
        began = time.perf_counter()
        step, batch = next(self._stream)
        self.waited = time.perf_counter() - began
        return step, batch.to(self.fabric.device)

    def learn(self, step: int, batch: Batch) -> dict[str, Tensor]:
        """Take a step on a batch; gives the value of each term."""
        decay(self._optimizers, step / self.config.steps, self.config.optim.power)
        return training_step(self.fabric, self.method, self._nets, self._optimizers, batch, step)

    def train_mode(self) -> None:
        """Go on training after the segmenter was scored."""
        self._nets.train()

    def close(self) -> None:
        """End the stream of batches."""
        self._stream = iter(())
