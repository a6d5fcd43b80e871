"""Pictures of predictions (the paper's Figures 8 and 9: image, truth, baseline, ours, latent map)."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

mpl.rcParams["font.size"] = 8


def colorize(labels: NDArray[np.uint8], palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Paint class ids (H, W) with a palette (C, 3); ids beyond it (255, ignored) become black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    return table[labels]


def image_grid(
    rows: Sequence[Sequence[NDArray[np.uint8]]],
    titles: Sequence[str],
    path: Path,
    legend: Sequence[tuple[str, NDArray[np.uint8]]] = (),
) -> None:
    """Write a grid of pictures with a title over each column.

    Args:
        rows: Pictures (H, W, 3), uint8, of one size within a row.
        titles: One per column.
        path: PNG to write.
        legend: Names and colours for a legend below.
    """
    height, width = rows[0][0].shape[:2]
    cell = 2.2
    legend_rows = -(-len(legend) // 7)
    tall = len(rows) * cell * height / width + 0.3
    figure = Figure(figsize=(cell * len(titles), tall + 0.22 * legend_rows), layout="constrained", dpi=160)
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for axes_row, pictures in zip(axes, rows, strict=True):
        for axis, picture in zip(axes_row, pictures, strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.axis("off")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    if legend:
        patches = [Patch(color=tuple(color / 255.0), label=name) for name, color in legend]
        figure.legend(handles=patches, loc="outside lower center", ncols=7, frameon=False, fontsize=7)
    figure.savefig(path)
