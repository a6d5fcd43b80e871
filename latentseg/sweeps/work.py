"""The work on the cells of a sweep, by any number of workers that share a run root. The folders are the truth.

A worker takes the first open cell whose lock it gets; the lock dies with its owner. A cell with a file DONE is done.
"""

import hashlib
import json
import socket
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from latentseg.config import DataConfig
from latentseg.console import console
from latentseg.data.datasets import Dataset, open_dataset
from latentseg.data.splits import draw_split
from latentseg.errors import RunError, UserError
from latentseg.inference.evaluate import evaluate
from latentseg.methods.given_classes import group_ids
from latentseg.models.weights import check_kind
from latentseg.presets import load_config
from latentseg.runs.checkpoints import Checkpoints, write_atomically
from latentseg.runs.locks import try_hold
from latentseg.runs.metrics import read_metrics
from latentseg.sweeps.cells import FREE, Cell, Sweep, cell_lock, cell_owner, data_name, read_done, training_seconds
from latentseg.sweeps.files import SPLITS, option_text
from latentseg.training.loop import train

POLL = 2.0
"""Seconds between two looks at cells that others hold."""


def check_cells(sweep: Sweep, run_root: Path) -> dict[Path, str]:
    """Open the data sets, draw the splits and fit the groups of all cells, before any of them is begun.

    Returns:
        Files to write below the run root, and their content: which data its cells are made of.

    Raises:
        UserError: A cell could not run: processes, data, a split that is to be scored, groups or weights; or the run
            root has cells of another data set of the same name.
    """
    notes: dict[Path, str] = {}
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
        if config.data.root and (note := _data_note(config.data, run_root)) not in notes:
            notes[note] = _same_data(dataset, config.data.root, note)
    return notes


def _data_note(data: DataConfig, run_root: Path) -> Path:
    """Where a run root notes the files of a data set, by its name and the options that choose among its files."""
    others = {"root", "labeled", "split_seed", "every_class", "check", "unlabeled", "resize"}
    tree = json.dumps(data.model_dump(mode="json", exclude=others, exclude_defaults=True), sort_keys=True)
    return run_root / "data" / f"{data_name(data.root or '')}-{hashlib.sha256(tree.encode()).hexdigest()[:8]}.json"


def _same_data(dataset: Dataset, root: str, note: Path) -> str:
    """Refuse a data set with other files than those of the note: folders are named by the data set's name alone."""
    digest = hashlib.sha256()
    for split in SPLITS:
        for item in dataset.items(split) if dataset.has(split) else []:
            sizes = [path.stat().st_size if path and path.is_file() else None for path in (item.image, item.mask)]
            digest.update(f"{split} {item.id} {sizes}\n".encode())
    files = digest.hexdigest()
    try:
        known = json.loads(note.read_bytes()) if note.is_file() else {"files": files, "root": root}
        before, where = known["files"], known["root"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"{note} is damaged ({error}): delete it, it is made anew") from error
    if before != files:
        raise UserError(
            f"data.root={root} has other images or masks (names, sizes) than {where}, which the cells of "
            f"{note.parent.parent} were made of: take another --run-root, or the same data"
        )
    return json.dumps({"root": str(Path(root).absolute()), "files": files})


def work(sweep: Sweep, run_root: Path, told: Callable[[], None]) -> None:
    """Take cells till each one is done or failed; `told` is called after each."""

    def is_open(cell: Cell) -> bool:
        folder = run_root / cell.folder
        return read_done(folder, sweep.splits) is None and not (folder / "FAILED").is_file()

    def taken_and_run(cell: Cell) -> bool:
        if cell_owner(cell, run_root):
            return False
        with try_hold(cell_lock(cell, run_root)) as taken:
            if not (taken and is_open(cell)):
                return False
            console.print(f"cell {cell.folder}: {cell.row}", markup=False, highlight=False)
            run_cell(sweep, cell, run_root)
        return True

    waiting = False
    while rest := [cell for cell in sweep.cells if is_open(cell)]:
        if any(taken_and_run(cell) for cell in rest):
            told()
            waiting = False
            continue
        if not waiting:
            waiting = True
            console.print(f"waiting for {len(rest)} cells that others work on", markup=False, highlight=False)
        time.sleep(POLL)  # till they are done, or dead


def run_cell(sweep: Sweep, cell: Cell, run_root: Path) -> None:
    """Train, score and write DONE; what is there already is not repeated. An error goes to the file FAILED."""
    folder = run_root / cell.folder
    try:
        _train_cell(cell, folder)
        scores = (read_done(folder, ()) or {"scores": {}})["scores"]
        scores |= {split: _score(cell, folder, split) for split in sweep.splits if split not in scores}
        done = {
            "steps": cell.config.steps,
            "seconds": training_seconds(read_metrics(folder)),
            "scores": scores,
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


def _train_cell(cell: Cell, folder: Path) -> None:
    """Train to the last step. A run that was begun goes on as it was, but for options that change no result."""
    config = cell.config
    if (folder / "config.yaml").is_file():
        mine = [option for option in cell.options if option.partition("=")[0] in set(FREE) - {"threads"}]
        config = load_config(folder / "config.yaml", mine, of_run=True)
    last = Checkpoints(folder / "checkpoints").last()
    if last is None or last.step < cell.config.steps:
        train(config, folder, resume=True)


def _score(cell: Cell, folder: Path, split: str) -> dict[str, Any]:
    """Scores of the last step on a split: of the training's own last validation, or else evaluated."""
    names, steps = ("miou", "iou", "pixel_accuracy"), cell.config.steps
    for row in read_metrics(folder):
        if row["step"] == steps and all(f"{split}_{name}" in row for name in names):
            return {name: row[f"{split}_{name}"] for name in names}
    root = cell.config.data.root
    moved = root is not None and load_config(folder / "config.yaml", of_run=True).data.root != root
    evaluation = json.loads(evaluate(folder, split, overrides=[option_text("data.root", root)] * moved).to_json())
    if evaluation["step"] != steps:
        raise UserError(f"{folder} has no checkpoint of step {steps}, the last one")
    return {name: evaluation["scores"][name] for name in names}
