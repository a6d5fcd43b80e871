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
import shlex
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from latentseg.config import Config, Mark, marked
from latentseg.data.datasets import Dataset
from latentseg.data.splits import Split, write_split
from latentseg.engine import Precision, choose_device, choose_precision
from latentseg.errors import RunError
from latentseg.presets import differences, dump_config, load_config, load_run
from latentseg.runs.checkpoints import Checkpoints, write_atomically

PICTURES = "pictures"
"""Name of the folder of pictures in the run folder."""
LOCK = "LOCK"
"""Name of the file in the run folder by which one process at a time trains it."""


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
        """The run's checkpoints."""
        return Checkpoints(self.folder / "checkpoints")


def free_path(path: Path) -> Path:
    """The path itself if nothing is there, else the first free of NAME-2, NAME-3, ..."""
    candidate, number = path, 2
    while candidate.exists():
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return candidate


def check_run_folder(folder: Path, config: Config, resume: bool) -> None:
    """Refuse a folder that cannot take this run, before any work.

    Raises:
        RunError: The folder holds something else, another configuration, or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; name a folder for the run with --run")
    used = folder.is_dir() and any(map(_counts, folder.iterdir()))
    if used and not resume:
        raise RunError(f"{folder} is not empty: --resume goes on with its run, --run NAME takes another folder")
    if used:
        if not (folder / "config.yaml").is_file():
            raise RunError(f"{folder} holds no run (no config.yaml): take another folder with --run")
        _check_same(folder, config)
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise RunError(f"cannot create {folder}: {existing} is not a folder that you may write to")


def _counts(path: Path) -> bool:
    """Whether something in a folder makes it a used one: a lock does not, nor what a kill or a file manager leaves."""
    hidden = path.name.startswith(".") or path.name.lower() in ("thumbs.db", "desktop.ini")
    return path.is_dir() if hidden else not path.name.startswith(LOCK)


def _check_same(folder: Path, config: Config) -> None:
    """Refuse to go on with other options than the run began with, but for those that change no result."""
    began = load_config(folder / "config.yaml", of_run=True)
    found = differences(_as_trained(config), _as_trained(began))
    changed = [line for line in found if line.split(":")[0] not in marked(Mark.RUNTIME)]
    if changed == [f"steps: {config.steps} here, {began.steps} there"]:
        raise RunError(
            f"{folder} was started for {began.steps} steps, and its learning rates have been falling to 0 since: a run "
            f"cannot be made longer. Start a new one from its weights: latentseg train --from "
            f"{shlex.quote(str(folder))} steps={config.steps} --run NEW_FOLDER"
        )
    if changed:
        raise RunError(
            f"{folder} holds a run with another configuration ({'; '.join(changed)}): "
            f"resume it with its own config.yaml, or take another folder with --run"
        )


def recorded_precision(folder: Path, config: Config) -> Config:
    """The configuration of a run that goes on: where it says precision=auto, with the precision that it began with.

    Another device must not change it in silence. A run folder that does not tell leaves the choice to the device.
    """
    try:
        began = json.loads((folder / "environment.json").read_bytes())["precision"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return config
    known = began in get_args(Precision)
    return config.model_copy(update={"precision": began}) if known and config.precision == "auto" else config


def _as_trained(config: Config) -> Config:
    """The configuration without what changes no result.

    That is whether decoded images are kept in memory, and inference.mode, which was `whole` where it is `auto` now.
    """
    inference = config.inference.model_copy(update={"mode": config.inference.mode.replace("auto", "whole")})
    cache = config.cache if config.cache == "features" else "none"
    return config.model_copy(update={"cache": cache, "inference": inference})


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
        classes = [
            {"name": name, "color": color.tolist()} for name, color in zip(run.classes, run.palette, strict=True)
        ]
        write_atomically(folder / "config.yaml", dump_config(config).encode())
        if origin is not None:
            write_atomically(folder / "from.json", json.dumps(origin, indent=1).encode())
        write_atomically(folder / "classes.json", json.dumps(classes, indent=1).encode())
        write_split(split, folder / "split")
        write_atomically(folder / "environment.json", json.dumps(environment(config), indent=1).encode())
        return run
    for name, items in (("labeled", split.labeled), ("unlabeled", split.unlabeled)):
        try:
            began = (folder / "split" / f"{name}.txt").read_bytes()
        except OSError as error:
            raise RunError(f"{folder}/split/{name}.txt cannot be read: {error.strerror}; start a new run") from error
        if began != "".join(f"{item.id}\n" for item in items).encode():
            raise RunError(f"the data set has changed since {folder} was started: its split differs. Start a new run")
    return run


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
        entries = json.loads((folder / "classes.json").read_bytes())
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
        "packages": {name: metadata.version(name) for name in packages},
    }
