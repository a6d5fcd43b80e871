"""What the report reads: run folders and sweeps, whatever state they are in.

Nothing here fails on a cell that is missing, unfinished or damaged: the report shows it as missing, with the reason.
"""

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeGuard

from latentseg.errors import RunError, UserError
from latentseg.presets.plain import read_yaml_file
from latentseg.reading import read_whole
from latentseg.report.inputs import find_inputs
from latentseg.runs.checkpoints import Checkpoints
from latentseg.runs.metrics import read_metrics

Tree = dict[str, Any]
SUPERVISED, ALL_LABELS = "supervised", "all labels"
"""Rows that the others are compared with."""
WHOLE = ("data.class_map", "method.groups")
"""Options whose value is a mapping: one option, not one per key."""


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
    """By split: miou, iou, pixel_accuracy; of a run by itself also step."""
    seconds: float | None = None
    """Seconds of training."""
    step: int | None = None
    """Step of the last checkpoint, which pictures and analyses are of; None if nothing tells it."""

    @property
    def seed(self) -> Any:
        """The seed."""
        return self.grid.get("seed", self.options.get("seed"))

    @property
    def others(self) -> Tree:
        """Values of the grid's keys, the seed apart."""
        return {key: value for key, value in self.grid.items() if key != "seed"}

    def miou(self, split: str) -> float | None:
        """Score (mIoU in %), None if it was not scored."""
        value = self.scores.get(split, {}).get("miou")
        return 100 * value if number(value) else None

    def few_classes(self, split: str) -> list[str]:
        """Over how many classes the score is, where these are not all."""
        ious = self.scores.get(split, {}).get("iou")
        ious, over = ious if isinstance(ious, list) else [], self.options.get("inference.miou_over")
        known = len(ious) if over == "all" else sum(number(iou) and (over != "hit" or iou > 0) for iou in ious)
        return [f"{known} of {len(ious)} classes"] if known < len(ious) else []


@dataclass(frozen=True)
class Line:
    """The runs of a sweep that differ in the seed alone."""

    row: str
    column: Any
    others: Tree = field(default_factory=dict)
    """Values of the grid's further keys."""

    @property
    def label(self) -> str:
        """The row's name, with the grid's further keys."""
        return " · ".join([self.row, *(f"{key} {value}" for key, value in self.others.items())])


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
    splits: list[str]
    cells: list[Record]

    def lines(self, column: Any) -> list[Line]:
        """The table's lines in one column: rows times the grid without the seed, in the sweep's order."""
        cells = [cell for row in self.rows for cell in self.cells if (cell.row, cell.column) == (row, column)]
        found = [Line(cell.row, column, cell.others) for cell in cells]
        return [line for index, line in enumerate(found) if line not in found[:index]]

    def cells_of(self, line: Line) -> list[Record]:
        """The cells of a line, one per seed."""
        return [cell for cell in self.cells if Line(cell.row, cell.column, cell.others) == line]

    def scores(self, line: Line, split: str) -> dict[str, float]:
        """Score (mIoU in %) by seed, of the cells that have one."""
        scores = {str(cell.seed): cell.miou(split) for cell in self.cells_of(line)}
        return {seed: score for seed, score in scores.items() if score is not None}

    def full_column(self) -> Any:
        """The column with every label, of a sweep over data.labeled; None without one."""
        full = [column for column in self.columns if self.column_key == "data.labeled" and is_full(column)]
        return full[0] if full else None

    def full_scores(self, line: Line, split: str) -> dict[str, float]:
        """Scores with all labels that a line's share of the label gap refers to; empty if the sweep has none."""
        if ALL_LABELS in self.rows:
            return self.scores(replace(line, row=ALL_LABELS), split)
        full = self.full_column()
        return {} if full is None else self.scores(Line(SUPERVISED, full, line.others), split)


def is_full(column: Any) -> bool:
    """Whether a value of data.labeled means every label."""
    return str(column) in ("all", "1/1", "1.0")


def read_inputs(paths: list[Path]) -> tuple[list[SweepRecord], list[Record], list[str]]:
    """Read run folders, sweep roots and single sweep files.

    Returns:
        Sweeps, runs, and what could not be read.

    Raises:
        RunError: A path is none of these, or nothing at all can be read.
    """
    folders, files = find_inputs(paths)
    sweeps, problems = [], []
    for file in files:
        try:
            sweeps.append(read_sweep_file(file))
        except UserError as error:
            problems.append(str(error))
    if not sweeps and not folders:
        raise RunError("; ".join(problems) or "nothing to report: name run folders or the root of a sweep")
    return sweeps, [read_run(folder) for folder in folders], problems


def read_sweep_file(path: Path) -> SweepRecord:
    """Read RUN_ROOT/sweeps/NAME.json and the cells that it lists.

    Raises:
        RunError: The file is not the description of a sweep.
    """
    root = path.absolute().parent.parent
    try:
        tree = json.loads(read_whole(path))
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
            splits=[str(split) for split in tree.get("splits") or ["val"]],
            cells=[_cell(root, cell, bool(column_key)) for cell in tree["cells"]],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{path} is not the description of a sweep ({type(error).__name__}: {error})") from error


def _cell(root: Path, cell: Tree, columns: bool) -> Record:
    folder = Path(cell["folder"])
    here = root / folder
    if not here.exists() and (root / folder.name).exists():
        here = root / folder.name  # the root was moved
    return _record(here, str(cell["row"]), cell["column"] if columns else None, dict(cell.get("grid") or {}))


def read_run(folder: Path) -> Record:
    """Read a run folder by itself: the scores of its evaluations, or else of its last validation in training."""
    record = _record(folder, folder.absolute().name)
    scores: dict[str, Tree] = {}
    for row in metrics(folder):
        for split in ("val", "holdout"):
            if number(row.get(f"{split}_miou")) and number(row.get("step")):
                figures = {name: row.get(f"{split}_{name}") for name in ("miou", "iou", "pixel_accuracy")}
                scores[split] = figures | {"step": row["step"]}
    for file in sorted(folder.glob("evaluation-*.json"), key=lambda file: file.stat().st_mtime):
        tree = read_json(file)
        if not isinstance(tree.get("scores"), dict):
            continue
        overrides = tree["overrides"] if isinstance(tree.get("overrides"), list) else []
        notes = ["best checkpoint"] * (tree.get("checkpoint") == "best") + [*map(str, overrides)]
        split = str(tree.get("split")) + (f" ({', '.join(notes)})" if notes else "")
        step = tree["step"] if number(tree.get("step")) else 0
        if step >= scores.get(split, {"step": 0})["step"]:
            scores[split] = tree["scores"] | {"step": step}
    if not scores:
        return record
    ordered = {split: scores[split] for split in sorted(scores, key=lambda split: " (" in split)}
    last = record.step or max(figures["step"] for figures in scores.values())
    return replace(record, scores=ordered, state="done", step=last)


def _record(folder: Path, row: str, column: Any = None, grid: Tree | None = None) -> Record:
    options, done, rows = read_options(folder), {}, metrics(folder)
    spent = [row["seconds"] for row in rows if number(row.get("seconds"))]
    seconds = float(sum(spent)) if spent else None
    state, note = "open", "not begun"
    if (folder / "DONE").is_file():
        done = read_json(folder / "DONE")
        readable = isinstance(done.get("scores"), dict) and all(isinstance(v, dict) for v in done["scores"].values())
        state, note = ("done", "") if readable else ("unreadable", f"DONE cannot be read: {done.get('error', done)}")
        seconds = float(done["seconds"]) if number(done.get("seconds")) else seconds
    elif (folder / "FAILED").is_file():
        lines = (folder / "FAILED").read_text(encoding="utf-8", errors="replace").split("\n")
        state, note = "failed", next((line.strip() for line in reversed(lines) if line.strip()), "")
    elif options:
        step = max((row["step"] for row in rows if number(row.get("step"))), default=0)
        state, note = "unfinished", f"step {step} of {options.get('steps', '?')}"
    scores = done["scores"] if state == "done" else {}
    last = _last_step(folder, done)
    return Record(folder, row, column, grid or {}, options, state, note, scores, seconds, last)


def _last_step(folder: Path, done: Tree) -> int | None:
    """Step of the last checkpoint, or of the run's end where no checkpoint is left; None if nothing tells it."""
    last = Checkpoints(folder / "checkpoints").last()
    step = last.step if last else done.get("steps")
    return int(step) if number(step) else None


def number(value: Any) -> TypeGuard[float]:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_json(path: Path) -> Tree:
    """A JSON object, or {"error": why not}."""
    try:
        tree = json.loads(read_whole(path))
    except (OSError, ValueError, RecursionError) as error:
        return {"error": str(error)}
    return tree if isinstance(tree, dict) else {"error": f"holds a {type(tree).__name__}, not an object"}


def class_names(folder: Path) -> list[str]:
    """Names of a run's classes; none if they cannot be read."""
    try:
        return [str(entry["name"]) for entry in json.loads(read_whole(folder / "classes.json"))]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def metrics(folder: Path) -> list[Tree]:
    """Rows of metrics.jsonl; none if it cannot be read."""
    try:
        return [row for row in read_metrics(folder) if isinstance(row, dict)]
    except (OSError, UnicodeDecodeError, RecursionError):
        return []


def read_options(folder: Path) -> Tree:
    """The resolved configuration of a run by dotted key; empty if it cannot be read.

    Read as plain YAML, since the options of another version of the package may differ.
    """
    try:
        tree = read_yaml_file(folder / "config.yaml", str(folder / "config.yaml"))
    except UserError:
        return {}
    return _flat(tree) if isinstance(tree, dict) else {}


def _flat(tree: Tree, prefix: str = "") -> Tree:
    """Nested values by dotted key."""
    found: Tree = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        found |= _flat(value, f"{name}.") if isinstance(value, dict) and name not in WHOLE else {name: value}
    return found
