"""P(l|c) as heat maps (the paper's Figures 6 and 7)."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from latentseg.analysis.findings import IGNORED, Analysis
from latentseg.analysis.stats import Rows, dominant

LONGEST = 24
"""Characters of a name that are shown."""
NUMBERED = 24
"""Columns up to which cells carry their figure."""
PAGE = 15.0
"""Width in inches up to which matrices stand side by side."""
MANY = 48
"""Rows from which on they are lower."""
GREY = "0.55"


def draw(result: Analysis) -> Figure:
    """P(l|c) of the split and, where there is one, of M, in an order in which the groups are blocks."""
    found, of_m = result.structure, result.latent_given_class_m
    columns = found.column_order
    matrices: dict[str, Rows] = {f"{result.split}: truth and S_l": [*found.latent_given_class, found.ignored]}
    if of_m is not None:
        matrices["training: M (Eq. 9)"] = [*of_m, None]
    order, empty = [*found.row_order, len(result.classes)], [math.nan] * len(columns)
    panels = {title: np.array([rows[n] or empty for n in order])[:, columns] for title, rows in matrices.items()}
    places: dict[int, list[int]] = {}  # of each block: its column, and the rows in it
    for position, row in enumerate(found.latent_given_class[number] for number in found.row_order):
        if row:
            places.setdefault(columns.index(dominant(row)), []).append(position)
    figure = heat_maps(
        panels,
        [*(result.classes[number] for number in found.row_order), IGNORED],
        [result.latent_names[number] for number in columns],
        {column: (min(rows), max(rows)) for column, rows in places.items()},
        faint=[columns.index(latent) for latent in found.idle],
    )
    title = f"P(l | c) of the run {Path(result.run).name}, step {result.step}"
    figure.suptitle(title, fontsize=9, fontweight="bold", parse_math=False)
    return figure


def heat_maps(
    panels: Mapping[str, NDArray[np.float64]],
    row_names: Sequence[str],
    column_names: Sequence[str],
    blocks: Mapping[int, tuple[int, int]],
    faint: Sequence[int] = (),
) -> Figure:
    """Draw matrices of one shape with common names, side by side where they fit a page, else one below the other.

    Args:
        panels: Values in 0..1, shape (rows, columns), by title; a row of NaN has no figures and is grey.
        row_names: Names of the rows, from the top; a line sets the last one apart.
        column_names: Names of the columns.
        blocks: Cells to frame: by column, first and last row.
        faint: Columns whose names are grey.
    """
    rows, columns = [_short(name) for name in row_names], [_short(name) for name in column_names]
    cell = 0.3 if len(columns) <= NUMBERED else 0.21
    wide, tall = max(cell * len(columns), 2.4), max((cell if len(rows) < MANY else 0.15) * len(rows), 1.2)
    beside = len(panels) * wide <= PAGE
    across, down = (len(panels), 1) if beside else (1, len(panels))
    left, foot = (0.3 + 0.065 * max(map(len, names)) for names in (rows, columns))
    size = (left + across * (wide + 0.1) + 0.6, 0.4 + down * (tall + foot + 0.3))
    figure = Figure(figsize=size, layout="constrained", dpi=160)
    axes = figure.subplots(down, across, squeeze=False, sharey=beside).flatten().tolist()
    colors = mpl.colormaps["Blues"].with_extremes(bad="0.9")
    for axis, (title, values) in zip(axes, panels.items(), strict=True):
        image = axis.imshow(values, cmap=colors, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axis.set_title(title, fontsize=8, parse_math=False)
        _name_axes(axis, rows, columns, faint)
        if len(columns) <= NUMBERED:
            _write_figures(axis, values)
        for column, (first, last) in blocks.items():
            corner = (column - 0.5, first - 0.5)
            axis.add_patch(Rectangle(corner, 1, last - first + 1, fill=False, ec="#d9480f", lw=1.1))
        axis.axhline(len(rows) - 1.5, color="0.2", lw=1.0)
    figure.colorbar(image, ax=axes, fraction=0.06, pad=0.01, aspect=30).ax.tick_params(labelsize=6, length=2)
    return figure


def _name_axes(axis: Axes, rows: Sequence[str], columns: Sequence[str], faint: Sequence[int]) -> None:
    axis.set_yticks(range(len(rows)), rows, fontsize=7, parse_math=False)  # a name may hold a $
    turned = 90 if max(map(len, columns)) > 3 or len(columns) > NUMBERED else 0
    axis.set_xticks(range(len(columns)), columns, fontsize=7, rotation=turned, parse_math=False)
    for number in faint:
        axis.get_xticklabels()[number].set_color(GREY)
    axis.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="0.88", lw=0.4)
    axis.tick_params(which="both", length=0)
    for spine in axis.spines.values():
        spine.set_color("0.7")


def _write_figures(axis: Axes, values: NDArray[np.float64]) -> None:
    for row, column in np.argwhere(values >= 0.05).tolist():  # NaN is not
        value = values[row, column]
        text = f"{value:.2f}".removeprefix("0")
        axis.text(column, row, text, ha="center", va="center", fontsize=5.5, color="white" if value > 0.55 else "0.15")


def _short(name: str) -> str:
    line = " ".join(name.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
