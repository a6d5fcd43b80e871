"""What a sweep will cost, from a few real steps of each kind of cell."""

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from latentseg.console import console, duration
from latentseg.data.datasets import open_dataset
from latentseg.data.splits import draw_split
from latentseg.errors import UserError
from latentseg.sweeps.cells import Cell, State, Sweep, cell_state, kind, threads_each
from latentseg.training.costs import measure_costs, views


@dataclass(frozen=True)
class Cost:
    """Seconds that one kind of cell takes."""

    step: float
    """Per training step, mean over the run."""
    scoring: float
    """All scoring of a cell."""
    features: float
    """Per view of an image for its features, once for all cells with the same encoder, data and views."""
    views: int
    """Views whose features are not cached yet."""


def dry_run(sweep: Sweep, run_root: Path, workers: int = 1) -> RenderableType:
    """List the cells with their state, and what is left to pay. Nothing is left behind.

    Args:
        sweep: From `read_sweep`.
        run_root: Folder of all run folders; it need not exist.
        workers: Processes among which the cores are shared.
    """
    sweep = sweep.at(run_root)
    states = [cell_state(cell, run_root, sweep.splits) for cell in sweep.cells]
    kinds: dict[str, list[tuple[Cell, State]]] = {}
    for cell, state in {cell.folder: (cell, state) for cell, state in zip(sweep.cells, states, strict=True)}.values():
        if state.kind != "done":
            kinds.setdefault(kind(cell.config), []).append((cell, state))
    cells = _cells_table(sweep, states)
    if not kinds:
        return Group(cells, Text("nothing is left to do"))
    try:
        with tempfile.TemporaryDirectory() as folder:
            return Group(cells, *_cost_table(sweep, list(kinds.values()), workers, Path(folder)))
    except UserError as error:
        return Group(cells, Text(f"the cost cannot be told: {error}"))


def measure(cell: Cell, sweep: Sweep, threads: int, folder: Path) -> Cost:
    """Time a few steps of a cell, before and after its consistency begins, and the scoring of a few images.

    Features come from the user's cache if all are there; else a few are computed and kept in `folder`.
    """
    config = cell.config.model_copy(update={"threads": cell.config.threads or threads})
    dataset = open_dataset(config.data, remember=config.cache == "images")
    costs = measure_costs(config, dataset, folder)
    splits = [split for split in dict.fromkeys((config.validate_split, *sweep.splits)) if dataset.has(split)]
    scored = sum(len(dataset.items(split)) for split in splits)
    split = draw_split(dataset, config.data, config.seed)
    seen = views(config, split, costs.uses_unlabeled) if costs.features else 0
    scoring = 0.0 if math.isnan(costs.scoring) else costs.scoring * scored
    return Cost(costs.training_seconds(config) / config.steps, scoring, costs.features, seen)


def _cells_table(sweep: Sweep, states: list[State]) -> Table:
    table = Table(title=Text(f"{sweep.name}: {sweep.summary}"))
    keys = [*([sweep.column_key] if sweep.column_key else []), *sweep.grid]
    for name in ("row", *keys, "state", "folder"):
        table.add_column(name)
    for cell, state in zip(sweep.cells, states, strict=True):
        values = [*([cell.column] if sweep.column_key else []), *cell.grid.values()]
        table.add_row(*(Text(str(text)) for text in (cell.row, *values, state.text(cell.config.steps), cell.folder)))
    return table


def _cost_table(
    sweep: Sweep, kinds: list[list[tuple[Cell, State]]], workers: int, folder: Path
) -> list[RenderableType]:
    table = Table(title="expected cost of what is left, from a few timed steps")
    for name in ("kind of cell", "cells left", "ms per step", "steps each", "scoring", "per cell", "together"):
        table.add_column(name, justify="left" if name == "kind of cell" else "right")
    total = longest = 0.0
    costs = []
    for left in kinds:
        first = left[0][0]
        console.print(f"timing {first.row}", markup=False, highlight=False)
        cost = measure(first, sweep, threads_each(workers), folder)
        costs.append(cost)
        each = [cost.scoring + cost.step * max(0, cell.config.steps - state.step) for cell, state in left]
        total, longest = total + sum(each), max(longest, *each)
        column = f", {sweep.column_key}={first.column}" if sweep.column_key not in (None, "data.labeled") else ""
        figures = (f"{1000 * cost.step:.0f}", f"{first.config.steps}", duration(cost.scoring))
        sums = (duration(sum(each) / len(each)), duration(sum(each)))
        table.add_row(Text(f"{first.row}{column}"), str(len(left)), *figures, *sums)
    text = f"together {duration(max(total / workers, longest))} with {workers} worker{'s' if workers > 1 else ''}"
    features = max(cost.features for cost in costs) * max(cost.views for cost in costs)
    if features:
        text += f", and once {duration(features)} for the features of all images, which are not all cached yet"
    return [table, Text(text)]
