"""The files of an analysis: figures as JSON, words, P(l|c) as CSV and as heat maps."""

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from latentseg.analysis import stats
from latentseg.analysis.findings import Analysis
from latentseg.analysis.stats import Rows
from latentseg.checkpoints import write_atomically
from latentseg.report.heatmap import Block, Panel, heat_maps

IGNORED = "(ignored)"
"""Name of the row for ignored pixels."""


def write_analysis(result: Analysis, folder: Path) -> None:
    """Write analysis.json (last), summary.txt, the matrices and their picture into a folder."""
    found, of_m = result.structure, result.latent_given_class_m
    matrices: dict[str, Rows] = {"latent_given_class.csv": [*found.latent_given_class, found.ignored]}
    if of_m is None:
        (folder / "latent_given_class_M.csv").unlink(missing_ok=True)  # of a run that was here before
    else:
        matrices["latent_given_class_M.csv"] = of_m
    for name, rows in matrices.items():
        write_atomically(folder / name, _table(result, rows).encode())
    picture = io.BytesIO()
    draw(result).savefig(picture, format="png")
    write_atomically(folder / "latent_given_class.png", picture.getvalue())
    write_atomically(folder / "summary.txt", f"{result.text()}\n".encode())
    write_atomically(folder / "analysis.json", json.dumps(result.to_dict(), indent=1, allow_nan=False).encode())


def _table(result: Analysis, rows: Rows) -> str:
    """CSV in the order of the blocks; empty cells for a class that was not seen, ignored pixels in the last row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = result.structure.column_order
    writer.writerow(["class", *(result.latent_names[column] for column in columns)])
    names = [*result.classes, IGNORED][: len(rows)]
    for number in [*result.structure.row_order, len(result.classes)][: len(rows)]:
        name, row = names[number], rows[number]
        writer.writerow([name, *("" if row is None else f"{row[column]:.6f}" for column in columns)])
    return text.getvalue()


def draw(result: Analysis) -> Figure:
    """P(l|c) of the split and, where there is one, of M, as heat maps in the order of the blocks."""
    found, of_m = result.structure, result.latent_given_class_m
    order = [*found.row_order, len(result.classes)]
    columns = found.column_order
    matrices: dict[str, Rows] = {f"{result.split}: truth and S_l": [*found.latent_given_class, found.ignored]}
    if of_m is not None:
        matrices["training: M (Eq. 9)"] = [*of_m, None]
    empty = [math.nan] * len(columns)
    panels = [Panel(title, np.array([rows[n] or empty for n in order])[:, columns]) for title, rows in matrices.items()]
    seen = [(position, found.latent_given_class[n]) for position, n in enumerate(found.row_order)]
    places = [(position, columns.index(stats.dominant(row))) for position, row in seen if row]
    blocks = [
        Block(min(inside), max(inside), column)
        for column in sorted({column for _, column in places})
        for inside in [[position for position, place in places if place == column]]
    ]
    idle = [columns.index(latent) for latent in found.idle]
    return heat_maps(
        f"P(l | c) of the run {Path(result.run).name}, step {result.step}",
        panels,
        [*(result.classes[n] for n in found.row_order), IGNORED],
        [result.latent_names[n] for n in columns],
        blocks,
        rule=len(result.classes),
        faint=idle,
    )
