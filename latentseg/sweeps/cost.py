"""What a sweep will cost, from a few real steps of each kind of cell."""

import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from latentseg.caching import cached_features
from latentseg.config import Config
from latentseg.data.batches import batches
from latentseg.data.datasets import Dataset, open_dataset
from latentseg.data.splits import Split, draw_split
from latentseg.errors import UserError
from latentseg.evaluation import score_items
from latentseg.parallel import choose_precision, make_fabric
from latentseg.presets import load_config
from latentseg.sweeps.cells import Cell, State, Sweep, cell_state, duration, threads_each
from latentseg.training import build_state, set_up, training_step

STEPS = 3
"""Timed steps per kind and phase, after one that is not timed."""
IMAGES = 2
"""Scored images per kind."""

console = Console(stderr=True, soft_wrap=True)


@dataclass(frozen=True)
class Cost:
    """Seconds that one kind of cell takes."""

    step: float
    """Per training step, mean over the run."""
    scoring: float
    """All scoring of a cell."""
    features: float
    """Once, for all cells with the same encoder, data and views, unless they are cached already."""


def dry_run(sweep: Sweep, run_root: Path, workers: int = 1) -> RenderableType:
    """List the cells with their state, and what is left to pay. Nothing is left behind.

    Args:
        sweep: From `read_sweep`.
        run_root: Folder of all run folders; it need not exist.
        workers: Processes among which the cores are shared.
    """
    states = [cell_state(cell, run_root, sweep.splits) for cell in sweep.cells]
    kinds: dict[str, list[tuple[Cell, State]]] = {}
    for cell, state in zip(sweep.cells, states, strict=True):
        kinds.setdefault(_kind(cell.config), []).append((cell, state))
    parts: list[RenderableType] = [_cells_table(sweep, states)]
    if all(state.kind == "done" for state in states):
        return Group(*parts, Text("nothing is left to do"))
    try:
        return Group(*parts, *_cost_table(sweep, kinds, workers))
    except UserError as error:
        return Group(*parts, Text(f"the cost cannot be told: {error}"))


def measure(cell: Cell, sweep: Sweep, threads: int) -> Cost:
    """Time a few steps of a cell, before and after its consistency begins, and the scoring of a few images."""
    config = cell.config
    with tempfile.TemporaryDirectory() as folder, _threads(config.threads or threads):
        config = load_config(sweep.base, [*cell.options, f"cache_folder={json.dumps(folder)}"])
        dataset = open_dataset(config.data, remember=config.cache == "images")
        split = draw_split(dataset, config.data, config.seed)
        images = len(split.labeled) + len(split.unlabeled)
        if config.cache == "features":  # of a few images only
            few = config.batch_size
            split = Split(split.labeled[:few], split.unlabeled[:few])
        torch.manual_seed(config.seed)
        began = int(config.steps * config.method.consistency_start)
        steps, features = _time_steps(config, dataset, split, began)
        share = config.method.consistency_start
        step = share * steps[0] + (1 - share) * steps[-1]
        return Cost(step, _time_scoring(config, sweep, dataset), features * images)


def _time_steps(config: Config, dataset: Dataset, split: Split, began: int) -> tuple[list[float], float]:
    """Seconds per step before and after the consistency begins, and per image for its features."""
    state = build_state(config, dataset.classes, split)
    fabric = make_fabric(config)
    nets, optimizers = set_up(fabric, state)
    reads, stores, features = state.method.uses_unlabeled, None, 0.0
    if config.cache == "features":
        clock = time.perf_counter()
        stores = cached_features(config, state.segmenter, dataset, split, unlabeled=True)
        features = (time.perf_counter() - clock) / (len(split.labeled) + len(split.unlabeled))
    seconds = []
    for first in sorted({0, min(began, config.steps - 1)}):
        stream = batches(dataset, split, config, state.segmenter.mean, first, reads, stores)
        clock, timed = time.perf_counter(), 0
        for step, batch in itertools.islice(stream, STEPS + 1):
            values = training_step(fabric, state.method, nets, optimizers, batch.to(fabric.device), step)
            [float(value) for value in values.values()]  # waits for the device
            if timed == 0:
                clock = time.perf_counter()
            timed += 1
        seconds.append((time.perf_counter() - clock) / max(1, timed - 1))
    return seconds, features


def _time_scoring(config: Config, sweep: Sweep, dataset: Dataset) -> float:
    state = build_state(config, dataset.classes, draw_split(dataset, config.data, config.seed))
    set_up(make_fabric(config), state)
    splits = [split for split in dict.fromkeys((config.validate_split, *sweep.splits)) if dataset.has(split)]
    items = dataset.items(splits[0])[:IMAGES] if splits else []
    clock = time.perf_counter()
    precision = choose_precision(config, next(state.segmenter.parameters()).device)
    score_items(state.segmenter, dataset, items, config.inference, precision)
    each = (time.perf_counter() - clock) / max(1, len(items))
    return each * sum(len(dataset.items(split)) for split in splits)


def _kind(config: Config) -> str:
    """Cells that cost the same have the same kind: seed, labels and length do not count."""
    tree = config.model_dump(mode="json", exclude={"seed": True, "steps": True, "data": {"labeled", "split_seed"}})
    return json.dumps(tree | {"all": config.data.labeled == "all"}, sort_keys=True)


def _cells_table(sweep: Sweep, states: list[State]) -> Table:
    table = Table(title=f"{sweep.name}: {sweep.summary}")
    keys = [*([sweep.column_key] if sweep.column_key else []), *sweep.grid]
    for name in ("row", *keys, "state", "folder"):
        table.add_column(name)
    for cell, state in zip(sweep.cells, states, strict=True):
        values = [*([cell.column] if sweep.column_key else []), *cell.grid.values()]
        table.add_row(*(Text(str(text)) for text in (cell.row, *values, state.text(cell.config.steps), cell.folder)))
    return table


def _cost_table(sweep: Sweep, kinds: dict[str, list[tuple[Cell, State]]], workers: int) -> list[RenderableType]:
    table = Table(title="expected cost of what is left, from a few timed steps")
    for name in ("kind of cell", "cells left", "ms per step", "steps each", "scoring", "per cell", "together"):
        table.add_column(name, justify="left" if name == "kind of cell" else "right")
    total = features = longest = 0.0
    for cells in kinds.values():
        left = [(cell, state) for cell, state in cells if state.kind != "done"]
        if not left:
            continue
        first = left[0][0]
        console.print(f"timing {first.row}", markup=False, highlight=False)
        cost = measure(first, sweep, threads_each(workers))
        each = [cost.scoring + cost.step * max(0, cell.config.steps - state.step) for cell, state in left]
        total, features, longest = total + sum(each), max(features, cost.features), max(longest, *each)
        column = f", {sweep.column_key}={first.column}" if sweep.column_key not in (None, "data.labeled") else ""
        figures = (f"{1000 * cost.step:.0f}", f"{first.config.steps}", duration(cost.scoring))
        sums = (duration(sum(each) / len(each)), duration(sum(each)))
        table.add_row(Text(f"{first.row}{column}"), str(len(left)), *figures, *sums)
    text = f"together {duration(max(total / workers, longest))} with {workers} worker{'s' if workers > 1 else ''}"
    if features:
        text += f", and once {duration(features)} for the features of all images if they are not cached yet"
    return [table, Text(text)]


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
