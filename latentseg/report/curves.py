"""Curves of the report: mIoU over the labelled fraction (the paper's Figures 4 and 5), and learning curves."""

import base64
import io
import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from latentseg.report.collect import Record, SweepRecord, is_full, metrics, number
from latentseg.report.paper import PAPER
from latentseg.report.statistics import summarize

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#e69f00", "#56b4e9", "#8c564b", "#7f7f7f", "#b8a800")
NOT_CURVES = ("step", "seconds", "images_per_second")
PANELS = 30
"""Figures of which curves are drawn."""
SMOOTH = 15
"""A curve is smoothed over one part in so many of its points."""
Points = NDArray[np.float64]
"""Points (step, value) of one curve, shape (n, 2)."""


@dataclass(frozen=True)
class Chart:
    """A picture for the page."""

    title: str
    uri: str
    alt: str


def color_of(index: int) -> str:
    """Colour of the index-th curve."""
    return COLORS[index % len(COLORS)]


def svg_uri(figure: Figure) -> str:
    """The figure as a data URI; letters become outlines, so that it needs no font."""
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "latentseg"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def labeled_share(column: Any) -> float | None:
    """The labelled fraction that a value of data.labeled names; None for a number of images or a list file."""
    if is_full(column):
        return 1.0
    try:
        share = float(Fraction(str(column)))
    except (ValueError, ZeroDivisionError):
        return None
    return share if 0 < share < 1 else None


def fraction_chart(sweep: SweepRecord, split: str) -> Chart | None:
    """MIoU over the labelled fraction, ours (whole lines) and the paper's (dashed); None for another kind of sweep."""
    shares = {column: share for column in sweep.columns if (share := labeled_share(column)) is not None}
    if sweep.column_key != "data.labeled" or len(shares) < 2:
        return None
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    axes = figure.subplots()
    ticks = {share: str(column) for column, share in shares.items()}
    for index, line in enumerate(sweep.lines(next(iter(shares)))):
        found = {x: summarize(sweep.scores(replace(line, column=column), split)) for column, x in shares.items()}
        points = [(x, s.mean, math.nan if s.spread is None else s.spread) for x, s in found.items() if s]
        if points:
            x, y, error = zip(*points, strict=True)
            name = _plain(f"{line.label}, ours")
            axes.errorbar(x, y, error, color=color_of(index), marker="o", capsize=3, label=name)
        paper = PAPER.get(sweep.table or 0)
        if paper and line.row in paper.rows:
            printed = {labeled_share(column): column for column in paper.columns}
            ticks |= {share: column for share, column in printed.items() if share}
            known = sorted((share, paper.score(line.row, column)) for share, column in printed.items() if share)
            name = _plain(f"{line.label}, paper")
            axes.plot(*zip(*known, strict=True), color=color_of(index), ls="--", marker="s", mfc="none", label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(ticks), list(map(_plain, ticks.values())))
    axes.minorticks_off()
    axes.set_xlabel("labelled fraction of the training images")
    axes.set_ylabel("mIoU in %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return Chart(f"mIoU over the labelled fraction, {split}", svg_uri(figure), "curves of the table above")


def _plain(text: str) -> str:
    """Text that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")


def learning_charts(groups: dict[str, list[Record]]) -> list[Chart]:
    """One picture per figure in metrics.jsonl, one curve per group: the mean over its runs, and their range.

    Args:
        groups: Runs by name; the order gives the colours (`color_of`).
    """
    curves: dict[str, dict[int, list[Points]]] = {}
    for index, records in enumerate(groups.values()):
        for record in records:
            for name, points in _series(record).items():
                curves.setdefault(name, {}).setdefault(index, []).append(points)
    return [_panel(name, of_name) for name, of_name in list(curves.items())[:PANELS]]


def _series(record: Record) -> dict[str, Points]:
    found: dict[str, list[tuple[float, float]]] = {}
    for row in metrics(record.folder):
        for name, value in row.items():
            if name not in NOT_CURVES and number(value) and number(row.get("step")):
                found.setdefault(name, []).append((row["step"], value))
    return {name: np.array(points, np.float64) for name, points in found.items()}


def _panel(name: str, curves: dict[int, list[Points]]) -> Chart:
    figure = Figure(figsize=(3.6, 2.3), layout="constrained")
    axes = figure.subplots()
    for index, runs in curves.items():
        draw_runs(axes, [_smooth(points) for points in runs], color_of(index))
    axes.grid(alpha=0.3)
    axes.set_xlabel("step")
    axes.margins(x=0.01)
    return Chart(name, svg_uri(figure), f"{name} over the steps")


def _smooth(points: Points) -> Points:
    """Centred running mean; at the ends over the points that there are."""
    half = math.ceil(len(points) / SMOOTH) // 2
    sums = np.concatenate([[0.0], points[:, 1].cumsum()])
    low = np.maximum(np.arange(len(points)) - half, 0)
    high = np.minimum(np.arange(len(points)) + half + 1, len(points))
    return np.stack([points[:, 0], (sums[high] - sums[low]) / (high - low)], 1)


def draw_runs(axes: Axes, runs: list[Points], color: str) -> None:
    """The mean of some curves at the steps that all have, and their range; or each by itself. One point is a marker."""
    shared = sorted(set.intersection(*(set(points[:, 0].tolist()) for points in runs)))
    if len(runs) > 1 and len(shared) >= min(2, max(map(len, runs))):
        stack = np.array([np.interp(shared, points[:, 0], points[:, 1]) for points in runs])
        axes.fill_between(shared, stack.min(0), stack.max(0), color=color, alpha=0.15, lw=0 if len(shared) > 1 else 3)
        runs = [np.stack([np.array(shared), stack.mean(0)], 1)]
    for points in runs:
        axes.plot(points[:, 0], points[:, 1], color=color, lw=1.2, marker="o" if len(points) == 1 else None, ms=4)
