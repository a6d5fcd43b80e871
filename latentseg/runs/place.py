"""Where a run goes, and what can be refused before it begins. Without PyTorch."""

import os
import shlex
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from latentseg.config import Config, LoggerName, Mark, marked
from latentseg.errors import RunError, UserError
from latentseg.presets import differences, load_config

LOCK = "LOCK"
"""Name of the file in the run folder by which one process at a time trains it."""
SAVED = "model.safetensors"
"""Weights of a model that `Model.save_pretrained` has saved; it lies beside config.yaml and classes.json."""


def check_arguments(config: Config, run: str | Path | None, resume: bool) -> None:
    """Refuse what can be told to fail without a look at data or folders.

    Raises:
        UserError: There is no run to resume, a logger is missing, or the batch cannot be shared equally.
    """
    if resume and not run:
        raise UserError("nothing to resume: name the run folder with --run")
    check_loggers(config.loggers)
    processes = config.devices * config.num_nodes
    if config.batch_size % processes:
        raise UserError(
            f"batch_size={config.batch_size} cannot be divided among {processes} processes (devices={config.devices}, "
            f"num_nodes={config.num_nodes}): take a multiple of {processes}"
        )


def check_loggers(names: Sequence[LoggerName]) -> None:
    """Refuse loggers whose package is missing.

    Raises:
        UserError: Names the extra that brings it.
    """
    for name in names:
        if find_spec(name) is None:
            raise UserError(f"loggers=[{name}] needs the package {name}: pip install 'latentseg[{name}]'")


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
    if (folder / SAVED).is_file():
        raise RunError(
            f"{folder} is a saved model, which no training goes on with: a new run begins with its weights by "
            f"latentseg train --from {shlex.quote(str(folder))} --run NEW_FOLDER"
        )
    if used and not resume:
        raise RunError(f"{folder} is not empty: --resume goes on with its run, --run NAME takes another folder")
    if used:
        if not (folder / "config.yaml").is_file():
            raise RunError(f"{folder} holds no run (no config.yaml): take another folder with --run")
        _check_same(folder, config)
    existing = next(parent for parent in (folder, *folder.absolute().parents) if os.path.lexists(parent))
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


def _as_trained(config: Config) -> Config:
    """The configuration without what changes no result.

    That is whether decoded images are kept in memory, and inference.mode, which was `whole` where it is `auto` now.
    """
    inference = config.inference.model_copy(update={"mode": config.inference.mode.replace("auto", "whole")})
    cache = config.cache if config.cache == "features" else "none"
    return config.model_copy(update={"cache": cache, "inference": inference})
