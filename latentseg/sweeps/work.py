"""The work on the cells of a sweep, by any number of workers that share a run root. The folders are the truth.

Optuna hands out each cell once. It never offers an interrupted cell again, and may hand one to two workers at once; so
a cell is worked on under a lock that dies with its owner, a cell with a file DONE is finished, and what Optuna does not
offer any more is found by looking through the folders.
"""

import json
import socket
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from latentseg.checkpoints import Checkpoints, write_atomically
from latentseg.data.datasets import open_dataset
from latentseg.data.splits import draw_split
from latentseg.errors import UserError
from latentseg.inference.evaluate import evaluate
from latentseg.locks import try_hold
from latentseg.methods import group_ids
from latentseg.models.weights import check_kind
from latentseg.presets import load_config
from latentseg.runs import read_metrics
from latentseg.sweeps.cells import Cell, Sweep, cell_lock, cell_owner, read_done
from latentseg.sweeps.queue import Queue
from latentseg.training import train

POLL = 2.0
"""Seconds between two looks at cells that others hold."""

console = Console(stderr=True, soft_wrap=True)


def check_cells(sweep: Sweep) -> None:
    """Open the data sets, draw the splits and fit the groups of all cells, before any of them is begun.

    Raises:
        UserError: A cell could not run: processes, data, a split that is to be scored, groups or weights.
    """
    for cell in {(str(cell.config.data), cell.config.seed, cell.row): cell for cell in sweep.cells}.values():
        config = cell.config
        if config.devices * config.num_nodes > 1:
            raise UserError(
                f"row {cell.row}: devices={config.devices}, num_nodes={config.num_nodes}, but a sweep's worker is one "
                f"process: leave both at 1, and share the cells by --workers or by the same command on other machines"
            )
        dataset = open_dataset(config.data)
        draw_split(dataset, config.data, config.seed)
        for split in sweep.splits:
            dataset.items(split)
        if config.method.groups is not None:
            group_ids(config.method.groups, dataset.classes)
        check_kind(config.model)


def work(sweep: Sweep, run_root: Path, queue: Queue, threads: int | None, told: Callable[[], None]) -> None:
    """Take cells till each one is done or failed.

    Args:
        sweep: The sweep.
        run_root: Folder of all run folders.
        queue: Optuna's list of cells.
        threads: Threads of PyTorch, unless the cell says.
        told: Called after each cell.
    """

    def is_open(cell: Cell) -> bool:
        folder = run_root / cell.folder
        return read_done(folder, sweep.splits) is None and not (folder / "FAILED").is_file()

    while rest := [cell for cell in sweep.cells if is_open(cell)]:
        offered = queue.next()
        worked = False
        for cell in [offered] if offered else rest:
            if cell_owner(cell, run_root):
                continue
            with try_hold(cell_lock(cell, run_root)) as taken:
                worked = taken and is_open(cell)
                if worked:
                    console.print(f"cell {cell.folder}: {cell.row}", markup=False, highlight=False)
                    run_cell(sweep, cell, run_root, threads)
            if worked:
                queue.tell()
                told()
                break
        if not (worked or offered):
            time.sleep(POLL)  # all held by others: till they are done, or dead
    while queue.next():  # done by other sweeps, or failed: nothing is left to hand out
        pass
    queue.tell()


def run_cell(sweep: Sweep, cell: Cell, run_root: Path, threads: int | None) -> None:
    """Train, score and write DONE; what is there already is not repeated. An error goes to the file FAILED."""
    folder = run_root / cell.folder
    try:
        _train_cell(sweep, cell, folder, threads)
        scored = {split: _score(folder, split, cell.config.steps) for split in sweep.splits}
        old = read_done(folder, ()) or {"scores": {}}
        done = {
            "steps": cell.config.steps,
            "seconds": sum(row.get("seconds") or 0.0 for row in read_metrics(folder)),
            "scores": old["scores"] | scored,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "host": socket.gethostname(),
        }
        write_atomically(folder / "DONE", json.dumps(done, indent=1).encode())
    except Exception as error:  # noqa: BLE001 - whatever it is, the other cells go on
        message = f"{error}" if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        trace = "" if isinstance(error, UserError) else traceback.format_exc() + "\n"
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "FAILED", (trace + " ".join(message.split()) + "\n").encode())
        console.print(f"cell {cell.folder} failed: {message}", style="red", markup=False, highlight=False)


def _train_cell(sweep: Sweep, cell: Cell, folder: Path, threads: int | None) -> None:
    """Train to the last step, with the runtime options that the folder began with."""
    overrides = list(cell.options)
    if (folder / "config.yaml").is_file():
        begun = load_config(folder / "config.yaml")
        overrides += [f"threads={begun.threads or 'null'}", f"cache_folder={json.dumps(begun.cache_folder)}"]
    else:
        (folder / ".config.yaml.tmp").unlink(missing_ok=True)  # of a worker killed in its first moment
        overrides += [f"threads={threads}"] if threads and cell.config.threads is None else []
    last = Checkpoints(folder / "checkpoints").last()
    if last is None or last.step < cell.config.steps:
        train(load_config(sweep.base, overrides), folder, resume=True)


def _score(folder: Path, split: str, steps: int) -> dict[str, Any]:
    """Scores of the last step on a split; evaluated if no file has them, the validation's log included."""
    names = ("miou", "iou", "pixel_accuracy")
    for row in read_metrics(folder):
        if row["step"] == steps and all(f"{split}_{name}" in row for name in names):
            return {name: row[f"{split}_{name}"] for name in names}
    for attempt in range(2):
        for path in sorted(folder.glob(f"evaluation-{split}-last*.json")):
            evaluation = json.loads(path.read_text(encoding="utf-8"))
            if evaluation["step"] == steps and not evaluation.get("overrides"):
                return {name: evaluation["scores"][name] for name in names}
        if attempt == 0:
            evaluate(folder, split)
    raise UserError(f"{folder} has no checkpoint of step {steps}, the last one")
