"""What the cells of a study say: paired differences over the seeds and the share of a gap, as Markdown and curves."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

Cells = dict[str, dict[str, Any]]
"""Figures of each cell under `ROW | SEED`; a split's name holds its mIoU, `SPLIT_iou` the IoU of each class."""
GAIN = "gain"
"""In place of a logged quantity: val mIoU minus the baseline's at the same step."""


def row_names(cells: Cells, first: Sequence[str] = ()) -> list[str]:
    """Rows that have a cell: those named `first`, then the others."""
    found = dict.fromkeys(key.rpartition(" | ")[0] for key in cells)
    return [row for row in dict.fromkeys([*first, *found]) if row in found]


def of_row(cells: Cells, row: str) -> dict[int, dict[str, Any]]:
    """The cells of a row by seed."""
    seeds = {int(key.rpartition(" | ")[2]): cell for key, cell in cells.items() if key.rpartition(" | ")[0] == row}
    return dict(sorted(seeds.items()))


def by_seed(cells: Cells, row: str, split: str) -> dict[int, float]:
    """Score of a row by seed, mIoU in %."""
    return {seed: 100 * cell[split] for seed, cell in of_row(cells, row).items() if split in cell}


def paired(ours: dict[int, float], theirs: dict[int, float]) -> dict[int, float]:
    """Ours minus theirs, on the seeds that both have."""
    return {seed: ours[seed] - theirs[seed] for seed in ours if seed in theirs}


def spread(values: Sequence[float]) -> str:
    """Mean and sample standard deviation; of one value the mean alone."""
    if not values:
        return "-"
    mean = f"{statistics.mean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2f}"


def closed(gains: dict[int, float], gaps: dict[int, float]) -> str:
    """Share of the gap that a row closes: its mean gain over the mean gap, both in points, on the seeds with both."""
    seeds = gains.keys() & gaps.keys()
    if len(seeds) < 2:
        return "-"
    own, gap = [gains[seed] for seed in seeds], [gaps[seed] for seed in seeds]
    if statistics.mean(gap) <= statistics.stdev(gap):
        return "no clear gap"
    return f"{100 * statistics.mean(own) / statistics.mean(gap):.0f} %"


def summary(cells: Cells, rows: Sequence[str], splits: Sequence[str], baseline: str, full: str) -> str:
    """Of each row mean and deviation, each seed, the paired difference to the baseline, and the share of the gap."""
    lines = [f"| row | split | mIoU %, mean ± sd | per seed | - {baseline} | per seed | closed | s |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for split in splits:
        base = by_seed(cells, baseline, split)
        gaps = paired(by_seed(cells, full, split), base)
        for row in rows:
            own = by_seed(cells, row, split)
            if not own:
                continue
            gains = paired(own, base)
            seconds = [cell["seconds"] for cell in of_row(cells, row).values() if "seconds" in cell]
            lines.append(
                f"| {row} | {split} | {spread([*own.values()])} | {_each(own, '.1f')} | {spread([*gains.values()])} | "
                f"{_each(gains, '+.1f')} | {closed(gains, gaps)} | "
                f"{f'{statistics.mean(seconds):.0f}' if seconds else '-'} |"
            )
    return "\n".join(lines)


def against(cells: Cells, rows: Sequence[str], splits: Sequence[str], ours: str) -> str:
    """One row minus each other one, on the seeds that both have."""
    lines = [f"| {ours} minus | split | points, mean ± sd | per seed |", "|---|---|---|---|"]
    for split in splits:
        for row in rows:
            leads = paired(by_seed(cells, ours, split), by_seed(cells, row, split))
            if row != ours and leads:
                lines.append(f"| {row} | {split} | {spread([*leads.values()])} | {_each(leads, '+.1f')} |")
    return "\n".join(lines)


def class_gains(cells: Cells, row: str, split: str, baseline: str) -> list[float]:
    """IoU of a row minus the baseline's in points, by class, mean over the seeds; NaN for a class without IoU."""
    ours, theirs = of_row(cells, row), of_row(cells, baseline)
    ious = [[np.array(of[seed][f"{split}_iou"], float) for of in (ours, theirs)] for seed in ours if seed in theirs]
    return [float(gain) for gain in np.mean([100 * (own - other) for own, other in ious], axis=0)] if ious else []


def class_table(cells: Cells, rows: Sequence[str], splits: Sequence[str], baseline: str, classes: Sequence[str]) -> str:
    """Gain over the baseline by class, in points, mean over the seeds."""
    lines = [f"| IoU minus {baseline}'s | split | {' | '.join(classes)} |", "|---|---|" + "---|" * len(classes)]
    for split in splits:
        for row in rows:
            gains = class_gains(cells, row, split, baseline)
            if row != baseline and gains:
                lines.append(f"| {row} | {split} | {' | '.join(f'{gain:+.1f}' for gain in gains)} |")
    return "\n".join(lines)


def mean_curve(cells: Cells, row: str, name: str, baseline: str) -> tuple[list[int], list[float]]:
    """Steps, and a logged quantity or `GAIN` there, mean over the seeds, where all of them have it."""
    values: dict[int, list[float]] = {}
    curves = {seed: cell["curve"] for seed, cell in of_row(cells, row).items() if "curve" in cell}
    bases = {seed: cell.get("curve", {"step": []}) for seed, cell in of_row(cells, baseline).items()}
    for seed, curve in curves.items():
        base = bases.get(seed, {"step": []})
        theirs = dict(zip(base["step"], base.get("val_miou", []), strict=False))
        for place, step in enumerate(curve["step"]):
            if name == GAIN and step in theirs:
                values.setdefault(step, []).append(100 * (curve["val_miou"][place] - theirs[step]))
            elif curve.get(name) and curve[name][place] is not None:
                values.setdefault(step, []).append(curve[name][place])
    means = {step: statistics.mean(of_step) for step, of_step in values.items() if len(of_step) == len(curves)}
    return list(means), list(means.values())


def plot(cells: Cells, rows: Sequence[str], names: Sequence[str], baseline: str, path: Path) -> None:
    """One panel for each quantity over the steps, one line for each row."""
    figure = Figure(figsize=(5 * len(names), 3.6), layout="constrained", dpi=130)
    for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for row in rows:
            steps, values = mean_curve(cells, row, name, baseline)
            if values and (name != GAIN or row != baseline):
                axis.plot(steps, values, label=row)
        title = f"val mIoU minus that of {baseline} at the same step, points" if name == GAIN else name
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("step")
        axis.legend(fontsize=7, frameon=False)
    figure.savefig(path)


def _each(values: dict[int, float], form: str) -> str:
    return " ".join(format(value, form) for value in values.values())
