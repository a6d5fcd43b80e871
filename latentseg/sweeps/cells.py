"""The cells of a sweep: each an ordinary run folder, which tells how far it is.

The folder's name is a function of the cell's configuration alone, so sweeps share the cells that they have in common.
Where the data and the cache of features lie does not count: machines may mount them anywhere.
"""

import hashlib
import json
import math
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from latentseg.config import Config, Mark, marked
from latentseg.reading import read_whole
from latentseg.runs.locks import live_owner
from latentseg.runs.metrics import read_metrics

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
    earlier: str
    """Its name by the rule before, which had all of data.root and unread options in it; such a folder is still used."""


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
    """Options of every row of the file, also of those without cells because `rows=[...]` leaves them out."""
    column_key: str | None
    columns: tuple[Any, ...]
    grid: dict[str, list[Any]]
    cells: tuple[Cell, ...]
    source: str
    """What `read_sweep` was given, and its overrides: a worker process reads the same."""
    overrides: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Sweep({self.name!r}, {len(self.cells)} cells in {len(self.rows)} rows)"

    def to_json(self) -> str:
        """What the report needs to find and arrange the cells."""
        head = {name: getattr(self, name) for name in ("name", "summary", "table", "splits", "base", "options")}
        names = ("row", "column", "grid", "options", "folder")
        cells = [{name: getattr(cell, name) for name in names} for cell in self.cells]
        rows = [row for row in self.rows if row in {cell.row for cell in self.cells}]
        columns = distinct([cell.column for cell in self.cells]) if self.column_key else []
        grid = {key: distinct([c.grid[key] for c in self.cells if key in c.grid]) for key in self.grid}
        axes = {"rows": rows, "column_key": self.column_key, "columns": columns, "grid": grid}
        return json.dumps(head | axes | {"cells": cells}, indent=1, ensure_ascii=False)

    def at(self, run_root: Path) -> "Sweep":
        """The same sweep with each cell in the folder that it has below `run_root`, of an earlier name too."""

        def placed(cell: Cell) -> Cell:
            moved = (run_root / cell.earlier).is_dir() and not (run_root / cell.folder).is_dir()
            return replace(cell, folder=cell.earlier) if moved else cell

        return replace(self, cells=tuple(map(placed, self.cells)))


def distinct(values: list[Any]) -> list[Any]:
    """Each value once: numbers by size, others in the order in which they came."""
    found = [value for place, value in enumerate(values) if value not in values[:place]]
    return sorted(found) if all(isinstance(value, int | float) for value in found) else found


@dataclass(frozen=True)
class State:
    """How far a cell is: done, running, failed, stopped (on the way, nobody works on it) or open."""

    kind: str
    step: int = 0
    owner: str = ""
    message: str = ""
    seconds: float = 0.0
    """Seconds of training so far."""

    def text(self, steps: int) -> str:
        """For people."""
        held = f" by {self.owner}" if self.owner else ""
        at = f" at step {self.step} of {steps}" if self.kind in ("running", "stopped", "failed") else ""
        return f"{self.kind}{held}{at}" + (f": {self.message}" if self.message else "")


def cell_state(cell: Cell, run_root: Path, splits: tuple[str, ...]) -> State:
    """Look at a cell's folder and locks."""
    folder = run_root / cell.folder
    if done := read_done(folder, splits):
        return State("done", cell.config.steps, seconds=done.get("seconds") or 0.0)
    rows = read_metrics(folder)
    step, seconds = rows[-1]["step"] if rows else 0, training_seconds(rows)
    if owner := cell_owner(cell, run_root):
        return State("running", step, owner, seconds=seconds)
    if (folder / "FAILED").is_file():
        told = (folder / "FAILED").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return State("failed", step, message=told[-1] if told else "no reason is noted", seconds=seconds)
    return State("stopped" if (folder / "config.yaml").is_file() else "open", step, seconds=seconds)


def training_seconds(rows: list[dict[str, Any]]) -> float:
    """Seconds of training that the lines of a metrics.jsonl add up to."""
    spent = [row.get("seconds") for row in rows]
    return sum(value for value in spent if isinstance(value, int | float) and math.isfinite(value))


def kind(config: Config) -> str:
    """Cells of one kind cost the same per step: seed, labels and length do not count."""
    tree = config.model_dump(mode="json", exclude={"seed": True, "steps": True, "data": {"labeled", "split_seed"}})
    return json.dumps(tree | {"all": config.data.labeled == "all"}, sort_keys=True)


def cell_lock(cell: Cell, run_root: Path) -> Path:
    """The lock of who works on a cell."""
    return run_root / "locks" / f"{cell.folder}.lock"


def cell_owner(cell: Cell, run_root: Path) -> str | None:
    """Who works on a cell: a worker, or somebody who trains in its folder by hand."""
    return live_owner(cell_lock(cell, run_root)) or live_owner(run_root / cell.folder / "LOCK")


def read_done(folder: Path, splits: tuple[str, ...]) -> dict[str, Any] | None:
    """The figures of a finished cell; None if it is not finished, or not scored on each of the splits."""
    try:
        done = json.loads(read_whole(folder / "DONE"))
        return dict(done) if set(splits) <= done["scores"].keys() else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def threads_each(workers: int) -> int:
    """Threads for each of several workers on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // workers)


def folder_name(config: Config, whole_root: bool = False) -> str:
    """Readable name of a cell's folder, with a hash of the options that are not at their default.

    Runtime-only options do not count, nor do defaults, so that an option that a later version adds leaves names alone.
    Of `data.root` its last part counts; `whole_root` gives the name by the rule before, in which all of it did.
    """
    tree = config.model_dump(mode="json", exclude_defaults=True)
    for option in FREE:
        section, _, name = option.rpartition(".")
        (tree.get(section, {}) if section else tree).pop(name, None)
    if config.data.root:
        tree["data"]["root"] = config.data.root if whole_root else data_name(config.data.root)
    digest = hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:8]
    data = data_name(config.data.root) if config.data.root else config.data.kind
    labeled = str(config.data.labeled)
    labeled = Path(labeled).stem if "/" in labeled and not re.fullmatch(r"\d+/\d+", labeled) else labeled
    name = f"{data}-{config.method.name}-{labeled}-s{config.seed}"
    return f"{re.sub('[^A-Za-z0-9._]+', '-', name).strip('-.')}-{digest}"


def data_name(root: str) -> str:
    """What a data set is called: the last part of the path of its folder."""
    return Path(root).absolute().name
