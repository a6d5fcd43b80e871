"""Which precision, memory format and compiler are fastest here for the steps of a run."""

import itertools
import math
import statistics
import tempfile
import time
from dataclasses import dataclass

import torch
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from torch import Tensor

from latentseg.config import Config
from latentseg.console import console, track
from latentseg.data.datasets import Dataset, open_dataset
from latentseg.data.splits import Split, draw_split
from latentseg.engine import choose_device, choose_precision, full_speed
from latentseg.training.trainer import Trainer

UNTIMED = 2
"""Steps of each choice that are not timed: the first ones take longer."""
CLOSE = 0.99
"""Least cosine between the gradients of a choice and those of float32 for which the choice counts as exact enough."""


@dataclass(frozen=True)
class Choice:
    """Options that change the speed of a run and the last digits of its numbers."""

    precision: str
    channels_last: bool
    compiled: bool = False

    @property
    def options(self) -> str:
        """As the command line takes them."""
        return (
            f"precision={self.precision} model.channels_last={str(self.channels_last).lower()} "
            f"compile={str(self.compiled).lower()}"
        )


@dataclass(frozen=True)
class Timing:
    """What a choice takes and how exact it is."""

    choice: Choice
    seconds: list[float]
    """Of each timed step."""
    cosine: float
    """Between the gradients of its first step and those of float32; 1 is exact."""

    @property
    def median(self) -> float:
        """Seconds of the middle step."""
        return statistics.median(self.seconds)

    def relative(self, other: "Timing") -> float:
        """Time in terms of another's, round by round."""
        return statistics.median(own / theirs for own, theirs in zip(self.seconds, other.seconds, strict=True))


def choices(compiled: bool) -> list[Choice]:
    """All combinations, float32 first; with the compiler too if asked for, which takes a minute each."""
    formats = ["32-true", "bf16-mixed"]
    every = itertools.product([False, True] if compiled else [False], formats, [True, False])
    return [Choice(precision, channels_last, compiler) for compiler, precision, channels_last in every]


def time_choices(config: Config, tried: list[Choice], rounds: int) -> list[Timing]:
    """Time steps of the run on one of its batches, the choices in turns: a busy moment of the machine meets all.

    Args:
        config: The run; its steps are those after the consistency has joined.
        tried: The choices; the first one gives the gradients that the others are compared with.
        rounds: Timed steps of each choice, after those that are not timed.

    Raises:
        UserError: The run could not begin.
    """
    console.print(f"{len(tried)} choices, {UNTIMED} + {rounds} steps of each, in turns", highlight=False)
    dataset = open_dataset(config.data)
    drawn = draw_split(dataset, config.data, config.seed)
    split = Split(drawn.labeled[: config.batch_size], drawn.unlabeled[: config.batch_size])
    with tempfile.TemporaryDirectory() as folder, full_speed():
        config = config.model_copy(update={"cache_folder": folder, "devices": 1, "num_nodes": 1})
        runs = [_Steps(_chosen(config, choice), dataset, split) for choice in track(tried, "choices prepared")]
        gradients: list[Tensor] = []
        seconds: list[list[float]] = [[] for _ in runs]
        turns = [*itertools.product(range(UNTIMED + rounds), range(len(runs)))]
        for turn, number in track(turns, "steps taken"):
            began = time.perf_counter()
            runs[number].take()
            if turn >= UNTIMED:
                seconds[number].append(time.perf_counter() - began)
            if turn == 0:
                gradients.append(runs[number].gradient())
    cosines = [float(torch.cosine_similarity(gradients[0], gradient, dim=0)) for gradient in gradients]
    return [Timing(*parts) for parts in zip(tried, seconds, cosines, strict=True)]


class _Steps:
    """Steps of a run on one batch."""

    def __init__(self, config: Config, dataset: Dataset, split: Split) -> None:
        self.trainer = Trainer.open(config, dataset, split)
        self.trainer.seek(min(math.ceil(config.steps * config.method.consistency_start), config.steps - 1))
        self.step, self.batch = self.trainer.read()

    def take(self) -> None:
        """Take the step, and wait for the device."""
        values = self.trainer.learn(self.step, self.batch)
        [float(value) for value in values.values()]
        if self.trainer.fabric.device.type == "cuda":
            torch.cuda.synchronize(self.trainer.fabric.device)

    def gradient(self) -> Tensor:
        """Of all parameters of the segmenter, in a row, float64, shape (parameters,)."""
        found = (parameter.grad for parameter in self.trainer.state.segmenter.parameters())
        return torch.cat([gradient.flatten() for gradient in found if gradient is not None]).cpu().double()


def _chosen(config: Config, choice: Choice) -> Config:
    model = config.model.model_copy(update={"channels_last": choice.channels_last})
    return config.model_copy(update={"precision": choice.precision, "compile": choice.compiled, "model": model})


def report(config: Config, timings: list[Timing]) -> RenderableType:
    """The choices, fastest first, and the options of the fastest that is exact enough."""
    device = choose_device(config.device)
    table = Table(title=f"one step on {device.type}, the choices in turns")
    for name in ("precision", "channels_last", "compile", "ms", "of the first's time", "gradient like float32's"):
        table.add_column(name)
    for timing in sorted(timings, key=lambda timing: timing.relative(timings[0])):
        choice, exact = timing.choice, "" if timing.cosine >= CLOSE else " (too far)"
        figures = f"{1000 * timing.median:.0f}", f"{timing.relative(timings[0]):.2f}", f"{timing.cosine:.4f}{exact}"
        table.add_row(choice.precision, str(choice.channels_last), str(choice.compiled), *figures)
    exact_ones = [timing for timing in timings if timing.cosine >= CLOSE]
    best = min(exact_ones, key=lambda timing: timing.relative(timings[0]))
    automatic = choose_precision(config.model_copy(update={"precision": "auto"}), device)
    return Group(table, Text(f"fastest: {best.choice.options}\n(precision=auto is {automatic} here)"))
