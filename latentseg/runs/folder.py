"""The run folder: everything that a run needs to be understood, resumed and used.

config.yaml        the resolved configuration
classes.json       names and colours of the classes
environment.json   versions and machine
split/             labeled.txt and unlabeled.txt, as drawn
metrics.jsonl      one line per logged step or validation
LOCK               while a process trains it
tensorboard/       the same for TensorBoard
checkpoints/       the last two, the best, and index.json
evaluation-*.json  scores
"""

import json
import math
import os
import platform
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from latentseg.runs.checkpoints import Checkpoints, write_atomically
from latentseg.config import Config, Mark, marked
from latentseg.data.datasets import Dataset
from latentseg.data.splits import Split, write_split
from latentseg.errors import UserError
from latentseg.engine import choose_device, choose_precision
from latentseg.presets import differences, dump_config, load_config, load_run

LOCK = "LOCK"
"""Name of the file in the run folder by which one process at a time trains it."""


@dataclass(frozen=True)
class Run:
    """A run folder that exists."""

    folder: Path
    config: Config
    classes: tuple[str, ...]
    palette: NDArray[np.uint8]

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
        UserError: The folder holds something else, another configuration, or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder for the run with --run")
    used = folder.is_dir() and any(not path.name.startswith(LOCK) for path in folder.iterdir())
    if used and not resume:
        raise UserError(f"{folder} is not empty: --resume goes on with its run, --run NAME takes another folder")
    if used:
        if not (folder / "config.yaml").is_file():
            raise UserError(f"{folder} holds no run (no config.yaml): take another folder with --run")
        _check_same(folder, config)
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"cannot create {folder}: {existing} is not a folder that you may write to")


def _check_same(folder: Path, config: Config) -> None:
    """Refuse to go on with other options than the run began with, but for those that change no result."""
    began = load_config(folder / "config.yaml", of_run=True)
    found = differences(_as_trained(config), _as_trained(began))
    changed = [line for line in found if line.split(":")[0] not in marked(Mark.RUNTIME)]
    if changed == [f"steps: {config.steps} here, {began.steps} there"]:
        raise UserError(
            f"{folder} was started for {began.steps} steps, and its learning rates have been falling to 0 since: a run "
            f"cannot be made longer. Start a new one from its weights: latentseg train {folder / 'config.yaml'} "
            f"steps={config.steps} model.weights={folder} model.weights_kind=latentseg --run NEW_FOLDER"
        )
    if changed:
        raise UserError(
            f"{folder} holds a run with another configuration ({'; '.join(changed)}): "
            f"resume it with its own config.yaml, or take another folder with --run"
        )


def recorded_precision(folder: Path, config: Config) -> Config:
    """The configuration of a run that goes on: where it says precision=auto, with the precision that it began with.

    Another device must not change it in silence. A run folder that does not tell leaves the choice to the device.
    """
    try:
        began = json.loads((folder / "environment.json").read_text(encoding="utf-8"))["precision"]
    except (OSError, ValueError, KeyError):
        return config
    return config.model_copy(update={"precision": began}) if config.precision == "auto" else config


def _as_trained(config: Config) -> Config:
    """The configuration without what changes no result: whether decoded images are kept in memory, and inference.mode,
    which was `whole` where it is `auto` now."""
    inference = config.inference.model_copy(update={"mode": config.inference.mode.replace("auto", "whole")})
    cache = config.cache if config.cache == "features" else "none"
    return config.model_copy(update={"cache": cache, "inference": inference})


def make_folder(folder: Path) -> None:
    """Make the run folder, unless it is there.

    Raises:
        UserError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the run folder {folder}: {error.strerror}") from error


def create_run(folder: Path, config: Config, dataset: Dataset, split: Split) -> Run:
    """Make the run folder, or take up one with the same configuration.

    Raises:
        UserError: The folder cannot be written, or its split is not the one drawn now (the data has changed).
    """
    run = Run(folder, config, dataset.classes, np.asarray(dataset.palette, np.uint8))
    make_folder(folder)
    if not (folder / "environment.json").exists():
        classes = [
            {"name": name, "color": color.tolist()} for name, color in zip(run.classes, run.palette, strict=True)
        ]
        write_atomically(folder / "config.yaml", dump_config(config).encode())
        write_atomically(folder / "classes.json", json.dumps(classes, indent=1).encode())
        write_split(split, folder / "split")
        write_atomically(folder / "environment.json", json.dumps(environment(config), indent=1).encode())
        return run
    again = free_path(folder / "split-now")
    write_split(split, again)
    same = all(
        (folder / "split" / name).read_bytes() == (again / name).read_bytes()
        for name in ("labeled.txt", "unlabeled.txt")
    )
    shutil.rmtree(again)
    if not same:
        raise UserError(f"the data set has changed since {folder} was started: its split differs. Start a new run")
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
        entries = json.loads((folder / "classes.json").read_text(encoding="utf-8"))
        names = tuple(str(entry["name"]) for entry in entries)
        palette = np.array([entry["color"] for entry in entries], np.uint8).reshape(len(names), 3)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}/classes.json cannot be read ({error}): the run folder is incomplete") from error
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


class Log:
    """metrics.jsonl and TensorBoard, in step."""

    def __init__(self, folder: Path, start: int) -> None:
        """Open the log of a run that goes on after `start` steps; later lines of a killed process are dropped."""
        self._path = folder / "metrics.jsonl"
        kept = [row for row in read_metrics(folder) if row["step"] <= start]
        write_atomically(self._path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)

    def write(self, step: int, figures: dict[str, Any]) -> None:
        """Add one line: figures after `step` steps."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step} | finite_or_none(figures)) + "\n")
        for name, value in figures.items():
            if isinstance(value, int | float):
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what TensorBoard still holds."""
        self._board.close()


def finite_or_none(value: Any) -> Any:
    """The same value with None for each number that JSON does not know (NaN, infinity)."""
    if isinstance(value, dict):
        return {key: finite_or_none(part) for key, part in value.items()}
    if isinstance(value, list):
        return [finite_or_none(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl. A last line that a killed process left unfinished is left out."""
    path = folder / "metrics.jsonl"
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows
