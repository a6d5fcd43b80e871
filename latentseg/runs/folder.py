"""The run folder: everything that a run needs to be understood, resumed and used.

config.yaml        the resolved configuration
from.json          the run whose weights it began with, if there is one
classes.json       names and colours of the classes
environment.json   versions and machine
split/             labeled.txt and unlabeled.txt, as drawn
metrics.jsonl      one line per logged step or validation
LOCK               while a process trains it
tensorboard/       the same for TensorBoard
pictures/          image, truth and prediction at the last validation and at the best one
checkpoints/       the last two, the best, and index.json
evaluation-*.json  scores
"""

import json
import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from latentseg.config import Config
from latentseg.data.datasets import Dataset
from latentseg.data.splits import Split, write_split
from latentseg.engine import Precision, choose_device, choose_precision
from latentseg.errors import RunError
from latentseg.presets import dump_config, load_run
from latentseg.reading import read_whole
from latentseg.runs.checkpoints import Checkpoints, write_atomically
from latentseg.runs.place import SAVED

PICTURES = "pictures"
"""Name of the folder of pictures in the run folder."""


@dataclass(frozen=True)
class Run:
    """A run folder that exists."""

    folder: Path
    config: Config
    classes: tuple[str, ...]
    palette: NDArray[np.uint8]
    findings: tuple[str, ...] = ()
    """Of a run that was just trained: what its terms did not do (`training.findings`)."""

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {self.config.method.name}, {len(self.classes)} classes)"

    @property
    def checkpoints(self) -> Checkpoints:
        """The run's checkpoints; of a saved model its weights."""
        saved = (self.folder / SAVED).is_file()
        return Checkpoints(self.folder if saved else self.folder / "checkpoints")


def recorded_precision(folder: Path, config: Config) -> Config:
    """The configuration of a run that goes on: where it says precision=auto, with the precision that it began with.

    Another device must not change it in silence. A run folder that does not tell leaves the choice to the device.
    """
    try:
        began = json.loads(read_whole(folder / "environment.json"))["precision"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return config
    known = began in get_args(Precision)
    return config.model_copy(update={"precision": began}) if known and config.precision == "auto" else config


def make_folder(folder: Path) -> None:
    """Make the run folder, unless it is there.

    Raises:
        RunError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot create the run folder {folder}: {error.strerror}") from error


def create_run(
    folder: Path, config: Config, dataset: Dataset, split: Split, origin: dict[str, Any] | None = None
) -> Run:
    """Make the run folder, or take up one with the same configuration.

    Args:
        folder: The run folder; one that a kill left half made is made anew.
        config: The run.
        dataset: Has the classes and their colours.
        split: As drawn now.
        origin: Whose weights a new run begins with, for `from.json`.

    Raises:
        RunError: The folder cannot be written, or its split is not the one drawn now (the data has changed).
    """
    run = Run(folder, config, dataset.classes, np.asarray(dataset.palette, np.uint8))
    make_folder(folder)
    if not (folder / "environment.json").exists():
        write_atomically(folder / "config.yaml", dump_config(config).encode())
        if origin is not None:
            write_atomically(folder / "from.json", json.dumps(origin, indent=1).encode())
        write_atomically(folder / "classes.json", json.dumps(class_list(run), indent=1).encode())
        write_split(split, folder / "split")
        write_atomically(folder / "environment.json", json.dumps(environment(config), indent=1).encode())
        return run
    for name, items in (("labeled", split.labeled), ("unlabeled", split.unlabeled)):
        try:
            began = read_whole(folder / "split" / f"{name}.txt")
        except OSError as error:
            raise RunError(f"{folder}/split/{name}.txt cannot be read: {error.strerror}; start a new run") from error
        if began != "".join(f"{item.id}\n" for item in items).encode():
            raise RunError(f"the data set has changed since {folder} was started: its split differs. Start a new run")
    return run


def class_list(run: Run) -> list[dict[str, Any]]:
    """Names and colours of the classes, for `classes.json`."""
    return [{"name": name, "color": color.tolist()} for name, color in zip(run.classes, run.palette, strict=True)]


def open_run(folder: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Run:
    """Open a run folder for inference.

    Args:
        folder: The run folder.
        overrides: `key=value` for this use only: data.root, device, devices, num_nodes, threads and inference.*. The
            number of processes is not that of the training, but 1 unless named here.

    Raises:
        UserError: There is no run, or an override would change what was trained.
    """
    folder = Path(folder)
    config = load_run(folder, overrides)
    try:
        entries = json.loads(read_whole(folder / "classes.json"))
        names = tuple(str(entry["name"]) for entry in entries)
        palette = np.array([entry["color"] for entry in entries], np.uint8).reshape(len(names), 3)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise RunError(f"{folder}/classes.json cannot be read ({error}): the run folder is incomplete") from error
    return Run(folder, config, names, palette)


def environment(config: Config) -> dict[str, Any]:
    """Versions, machine and the precision on its device, for the run folder."""
    packages = ("latentseg", "torch", "torchvision", "timm", "lightning-fabric", "numpy", "pillow")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "precision": choose_precision(config, choose_device(config.device)),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "packages": {name: _version(name) for name in packages},
    }


def _version(name: str) -> str | None:
    """Version of a package; None if it is not installed, as latentseg that runs from its source tree."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
