"""The cells of a sweep: each an ordinary run folder, which tells how far it is.

The folder is a function of the cell's configuration alone, so sweeps share the cells that they have in common.
"""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentseg.checkpoints import write_atomically
from latentseg.config import Config, Mark, marked
from latentseg.errors import UserError
from latentseg.locks import live_owner
from latentseg.runs import read_metrics

FREE = tuple(marked(Mark.RUNTIME))
"""Options that may differ between two workers on one cell."""


@dataclass(frozen=True)
class Cell:
    """One run of a sweep."""

    row: str
    column: Any
    grid: dict[str, Any]
    options: tuple[str, ...]
    """`key=value` on top of the base."""
    config: Config
    folder: str
    """Name of the run folder below the run root."""


@dataclass(frozen=True)
class Sweep:
    """A grid of runs."""

    name: str
    summary: str
    base: str
    table: int | str | None
    splits: tuple[str, ...]
    options: dict[str, Any]
    rows: dict[str, dict[str, Any]]
    column_key: str | None
    columns: tuple[Any, ...]
    grid: dict[str, list[Any]]
    cells: tuple[Cell, ...]
    source: str
    """What `read_sweep` was given, and its overrides: a worker process reads the same."""
    overrides: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Hash of the set of cells."""
        return hashlib.sha256(" ".join(sorted(cell.folder for cell in self.cells)).encode()).hexdigest()[:8]

    def to_json(self) -> str:
        """What the report needs to find and arrange the cells."""
        names = ("name", "summary", "table", "splits", "base", "options", "column_key", "columns", "grid")
        cells = [
            {name: getattr(cell, name) for name in ("row", "column", "grid", "options", "folder")}
            for cell in self.cells
        ]
        head = {name: getattr(self, name) for name in names}
        return json.dumps(head | {"rows": list(self.rows), "cells": cells}, indent=1, ensure_ascii=False)


@dataclass(frozen=True)
class State:
    """How far a cell is: done, running, failed, stopped (on the way, nobody works on it) or open."""

    kind: str
    step: int = 0
    owner: str = ""
    message: str = ""

    def text(self, steps: int) -> str:
        """For people."""
        held = f" by {self.owner}" if self.owner else ""
        at = f" at step {self.step} of {steps}" if self.kind in ("running", "stopped", "failed") else ""
        return f"{self.kind}{held}{at}" + (f": {self.message}" if self.message else "")


def cell_state(cell: Cell, run_root: Path, splits: tuple[str, ...]) -> State:
    """Look at a cell's folder and locks."""
    folder = run_root / cell.folder
    if read_done(folder, splits):
        return State("done", cell.config.steps)
    step = max((row["step"] for row in read_metrics(folder)[-1:]), default=0)
    if owner := cell_owner(cell, run_root):
        return State("running", step, owner)
    if (folder / "FAILED").is_file():
        return State("failed", step, message=(folder / "FAILED").read_text(encoding="utf-8").strip().splitlines()[-1])
    return State("stopped" if (folder / "config.yaml").is_file() else "open", step)


def cell_lock(cell: Cell, run_root: Path) -> Path:
    """The lock of who works on a cell."""
    return run_root / "locks" / f"{cell.folder}.lock"


def cell_owner(cell: Cell, run_root: Path) -> str | None:
    """Who works on a cell: a worker, or somebody who trains in its folder by hand."""
    return live_owner(cell_lock(cell, run_root)) or live_owner(run_root / cell.folder / "LOCK")


def read_done(folder: Path, splits: tuple[str, ...]) -> dict[str, Any] | None:
    """The figures of a finished cell; None if it is not finished, or not scored on each of the splits."""
    try:
        done = json.loads((folder / "DONE").read_text(encoding="utf-8"))
        return dict(done) if set(splits) <= done["scores"].keys() else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_sweep(sweep: Sweep, run_root: Path) -> Path:
    """Write RUN_ROOT/sweeps/NAME.json, where the report begins."""
    path = run_root / "sweeps" / f"{sweep.name}.json"
    content = sweep.to_json().encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write the run root {run_root}: {error.strerror}; choose one by --run-root") from error
    if not path.is_file() or path.read_bytes() != content:
        write_atomically(path, content)
    return path


def threads_each(workers: int) -> int:
    """Threads for each of several workers on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // workers)


def folder_name(config: Config) -> str:
    """Readable name of a cell's folder, with a hash of the options that are not at their default.

    Runtime-only options do not count, nor do defaults, so that an option that a later version adds leaves names alone.
    """
    tree = config.model_dump(mode="json", exclude_defaults=True)
    for option in FREE:
        section, _, name = option.rpartition(".")
        (tree.get(section, {}) if section else tree).pop(name, None)
    digest = hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:8]
    data, labeled = Path(config.data.root or config.data.kind).name, str(config.data.labeled)
    labeled = Path(labeled).stem if "/" in labeled and not re.fullmatch(r"\d+/\d+", labeled) else labeled
    name = f"{data}-{config.method.name}-{labeled}-s{config.seed}"
    return f"{re.sub('[^A-Za-z0-9._]+', '-', name).strip('-.')}-{digest}"
