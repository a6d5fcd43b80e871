"""Tiny runs on drawn scenes, and how two of them are compared."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentseg.config import Config
from latentseg.data.datasets import open_dataset
from latentseg.data.splits import draw_split
from latentseg.presets import load_config, only_read
from latentseg.runs.folder import open_run
from latentseg.runs.metrics import read_metrics
from latentseg.training.trainer import State, build_state

# A network of the real kind, from random weights, on views as small as the discriminator takes.
TINY = [
    "steps=6",
    "batch_size=2",
    "threads=1",
    "device=cpu",
    "log_every=1",
    "checkpoint_every=2",
    "validate_every=2",
    "data.labeled=4",
    "data.scenes.train=12",
    "data.scenes.val=2",
    "data.scenes.height=64",
    "data.scenes.width=64",
    "augment.crop=[32,32]",
    "model.weights_kind=none",
    "model.frozen=false",
    "model.head_channels=16",
    "discriminator.downscale=1",
    "discriminator.width=8",
    "method.lambda_lbl_adv=0.01",
    "method.lambda_ulbl_adv=0.001",
    "method.num_latent=5",
]


FIELDS = {"ce", "latent", "adv", "adv_u", "real", "fake"}


LESSON = {"confidence", "accepted", "agreement", "accepted_accuracy"}


def tiny(*overrides: str) -> Config:
    """A configuration with those of the options that its method reads."""
    options = [*TINY, *overrides]
    names = [option.partition("=")[2] for option in options if option.startswith("method.name=")]
    return load_config("scenes", only_read(options, [*["latent"], *names][-1]))


def rows(folder: Path) -> list[dict[str, Any]]:
    found = read_metrics(folder)
    for row in found:
        row.pop("images_per_second", None)
        row.pop("seconds", None)
    return found


def last_tensors(folder: Path) -> tuple[int, dict[str, Tensor]]:
    checkpoints = open_run(folder).checkpoints
    entry = checkpoints.last()
    assert entry is not None
    return entry.step, checkpoints.read(entry)


def assert_same_run(ours: Path, theirs: Path) -> None:
    """The same log, the same last and best checkpoint, to the last bit."""
    assert rows(ours) == rows(theirs)
    left, right = open_run(ours).checkpoints, open_run(theirs).checkpoints
    for entry, other in ((left.last(), right.last()), (left.best(), right.best())):
        assert entry is not None
        assert other is not None
        assert (entry.step, entry.miou) == (other.step, other.miou)
        tensors, others = left.read(entry), right.read(other)
        assert tensors.keys() == others.keys()
        assert [key for key in tensors if not torch.equal(tensors[key], others[key])] == []
    files = [{path.name for path in (folder / "checkpoints").iterdir()} for folder in (ours, theirs)]
    assert files[0] == files[1]


class StoppedError(Exception):
    """The end of a process, for tests in this one."""


def on_call(number: int, function: Callable[..., Any], action: Callable[[Any], Any]) -> Callable[..., Any]:
    """The same function, except that the result of call `number` goes through `action`."""
    calls = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        result = function(*args, **kwargs)
        return action(result) if calls == number else result

    return counted


def stop(_result: Any) -> None:
    raise StoppedError


SUPERVISED = ["method.name=supervised", "steps=2", "validate_every=0", "data.scenes.val=1"]


def state_of(config: Config) -> State:
    dataset = open_dataset(config.data)
    split = draw_split(dataset, config.data, config.seed)
    torch.manual_seed(config.seed)
    return build_state(config, dataset.classes, split)
