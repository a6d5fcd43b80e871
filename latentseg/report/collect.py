"""What the report reads: run folders and sweeps, whatever state they are in.

Nothing here fails on a cell that is missing, unfinished or damaged: the report shows it as missing, with the reason.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentseg.errors import UserError
from latentseg.report.files import Tree, metrics, number, read_json, read_options, read_text


@dataclass(frozen=True)
class Record:
    """One run: a folder given by itself, or a cell of a sweep."""

    folder: Path
    row: str
    """Row of the sweep's table; the folder's name for a run by itself."""
    column: Any = None
    grid: Tree = field(default_factory=dict)
    options: Tree = field(default_factory=dict)
    """The resolved configuration by dotted key; empty if it cannot be read."""
    state: str = "open"
    """done, failed, unfinished (has begun, nobody may be at it), open, or unreadable."""
    note: str = ""
    """Why it is not done."""
    scores: dict[str, Tree] = field(default_factory=dict)
    """By split: miou, iou, pixel_accuracy."""
    seconds: float | None = None
    """Seconds of training."""

    @property
    def seed(self) -> Any:
        """The seed."""
        return self.grid.get("seed", self.options.get("seed"))

    def miou(self, split: str) -> float | None:
        """Score (mIoU in %), None if it was not scored."""
        value = self.scores.get(split, {}).get("miou")
        return 100 * value if number(value) else None


@dataclass(frozen=True)
class SweepRecord:
    """A sweep and its cells."""

    name: str
    root: Path
    summary: str
    table: int | None
    base: str
    options: Tree
    column_key: str
    columns: list[Any]
    rows: list[str]
    grid: dict[str, list[Any]]
    splits: list[str]
    cells: list[Record]


def read_inputs(paths: list[Path]) -> tuple[list[SweepRecord], list[Record], list[str]]:
    """Read run folders, sweep roots and single sweep files.

    Returns:
        Sweeps, runs, and what could not be read.

    Raises:
        UserError: A path is none of these, or nothing at all can be read.
    """
    sweeps, runs, problems = [], [], []
    for path in paths:
        if (path / "config.yaml").is_file():
            runs.append(read_run(path))
            continue
        for file in _sweep_files(path):
            try:
                sweeps.append(read_sweep_file(file))
            except UserError as error:
                problems.append(str(error))
    if not sweeps and not runs:
        raise UserError("; ".join(problems) or "nothing to report: name run folders or the root of a sweep")
    return sweeps, runs, problems


def _sweep_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path} does not exist: name run folders (config.yaml in them) or the root of a sweep")
    files = sorted((path / "sweeps").glob("*.json"))
    if not files:
        runs = sorted(str(file.parent) for file in path.glob("*/config.yaml"))
        hint = f"; name the runs in it: {' '.join(runs[:4])}" if runs else ""
        raise UserError(f"{path} is neither a run folder (no config.yaml) nor a sweep's root (no sweeps/*.json){hint}")
    return files


def read_sweep_file(path: Path) -> SweepRecord:
    """Read RUN_ROOT/sweeps/NAME.json and the cells that it lists.

    Raises:
        UserError: The file is not the description of a sweep.
    """
    root = path.absolute().parent.parent
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        column_key = str(tree.get("column_key") or "")
        return SweepRecord(
            name=str(tree.get("name") or path.stem),
            root=root,
            summary=str(tree.get("summary") or ""),
            table=int(tree["table"]) if str(tree.get("table")).isdecimal() else None,
            base=str(tree.get("base") or ""),
            options=dict(tree.get("options") or {}),
            column_key=column_key,
            columns=list(tree["columns"]) if column_key else [None],
            rows=[str(row) for row in tree["rows"]],
            grid={str(key): list(values) for key, values in (tree.get("grid") or {}).items()},
            splits=[str(split) for split in tree.get("splits") or ["val"]],
            cells=[_cell(root, cell, bool(column_key)) for cell in tree["cells"]],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not the description of a sweep ({type(error).__name__}: {error})") from error


def _cell(root: Path, cell: Tree, columns: bool) -> Record:
    folder = Path(cell["folder"])
    here = root / folder
    if not here.exists() and (root / folder.name).exists():
        here = root / folder.name  # the root was moved
    return _record(here, str(cell["row"]), cell["column"] if columns else None, dict(cell.get("grid") or {}))


def read_run(folder: Path) -> Record:
    """Read a run folder by itself: the scores of its evaluations, or else of its last validation in training."""
    record = _record(folder, folder.absolute().name, None, {})
    scores = _validated(folder)
    for file in sorted(folder.glob("evaluation-*.json"), key=lambda file: file.stat().st_mtime):
        tree = read_json(file)
        if "error" in tree or not isinstance(tree.get("scores"), dict):
            continue
        notes = ["best checkpoint"] * (tree.get("checkpoint") == "best") + [*map(str, tree.get("overrides") or [])]
        split = str(tree.get("split")) + (f" ({', '.join(notes)})" if notes else "")
        step = tree["step"] if number(tree.get("step")) else 0
        if step >= scores.get(split, (0, {}))[0]:
            scores[split] = (step, tree["scores"])
    found = {split: scores[split][1] for split in sorted(scores, key=lambda split: " (" in split)}
    return Record(**(vars(record) | {"scores": found or record.scores, "state": "done" if found else record.state}))


def _validated(folder: Path) -> dict[str, tuple[int, Tree]]:
    """Step and scores of the last validation that metrics.jsonl holds, by split."""
    return {
        split: (row["step"], {name: row.get(f"{split}_{name}") for name in ("miou", "iou", "pixel_accuracy")})
        for row in metrics(folder)
        for split in ("val", "holdout")
        if number(row.get(f"{split}_miou")) and number(row.get("step"))
    }


def _record(folder: Path, row: str, column: Any, grid: Tree) -> Record:
    options, done = read_options(folder), {}
    rows = metrics(folder)
    spent = [row["seconds"] for row in rows if number(row.get("seconds"))]
    seconds = float(sum(spent)) if spent else None
    state, note = "open", "not begun"
    if (folder / "DONE").is_file():
        done = read_json(folder / "DONE")
        readable = isinstance(done.get("scores"), dict) and all(isinstance(v, dict) for v in done["scores"].values())
        state, note = ("done", "") if readable else ("unreadable", f"DONE cannot be read: {done.get('error', done)}")
        seconds = float(done["seconds"]) if number(done.get("seconds")) else seconds
    elif (folder / "FAILED").is_file():
        lines = read_text(folder / "FAILED").split("\n")
        state, note = "failed", next((line.strip() for line in reversed(lines) if line.strip()), "")
    elif options:
        step = max((row["step"] for row in rows if number(row.get("step"))), default=0)
        state, note = "unfinished", f"step {step} of {options.get('steps', '?')}"
    scores = done["scores"] if state == "done" else {}
    return Record(folder, row, column, grid, options, state, note, scores, seconds)
