"""A picture for each validation: images, truth and prediction side by side, always of the same held-out images."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latentseg.console import console
from latentseg.data.datasets import Dataset, Item
from latentseg.errors import UserError
from latentseg.inference.legend import legend
from latentseg.inference.model import Model, read_scored
from latentseg.inference.pictures import small_png, spread, write_whole
from latentseg.runs.folder import PICTURES, Run
from latentseg.runs.log import Log

IMAGES, SIDE, GAP = 3, 240, 4
"""How many images; pixels of their longer side, and between them."""


def draw(model: Model, dataset: Dataset, items: list[Item]) -> NDArray[np.uint8]:
    """Draw a row for each of three images (image, truth, prediction) above a legend: RGB, uint8, shape (h, w, 3).

    Args:
        model: In eval mode.
        dataset: Reads the images.
        items: Images with labels; those that are drawn are spread evenly over them.
    """
    colors = np.zeros((256, 3), np.uint8)  # no label: black
    colors[: len(model.run.palette)] = model.run.palette
    rows = []
    for item in (items[index] for index in spread(len(items), IMAGES)):
        pixels, size, targets = read_scored(dataset, item)
        labels = model.labels(pixels, size, latent=False).semantic[0].cpu().numpy()
        rows.append([_fitted(pixels), _fitted(colors[targets], smooth=False), _fitted(colors[labels], smooth=False)])
    width = max(panel.shape[1] for row in rows for panel in row)
    lines = [_beside(row, width) for row in rows]
    return np.concatenate([*lines, legend(model.classes, model.run.palette, lines[0].shape[1])])


def keep(run: Run, log: Log, step: int, picture: NDArray[np.uint8]) -> None:
    """Write the picture of a validation to the run folder and to TensorBoard; of others the best one's stays.

    A picture that cannot be written ends no run; that is said.
    """
    best = run.checkpoints.best()
    kept = {step, best.step if best else step}
    folder, content = run.folder / PICTURES, small_png(picture)
    log.picture(step, content, picture.shape[0], picture.shape[1])
    try:
        write_whole(picture_path(run.folder, step), content)
        for path in folder.glob("step-*.png"):
            if path not in {picture_path(run.folder, number) for number in kept}:
                path.unlink()
    except (OSError, UserError) as error:
        console.print(f"note: no picture in {folder}: {error}", style="yellow", markup=False, highlight=False)


def picture_path(folder: Path, step: int) -> Path:
    """Where the picture of the validation after a step lies in a run folder."""
    return folder / PICTURES / f"step-{step}.png"


def _fitted(pixels: NDArray[np.uint8], smooth: bool = True) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) scaled so that the longer side is `SIDE`."""
    scale = SIDE / max(pixels.shape[:2])
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    how = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return np.array(Image.fromarray(pixels).resize(size, how))


def _beside(panels: list[NDArray[np.uint8]], width: int) -> NDArray[np.uint8]:
    """Panels in a row, each on white in a cell of a width, with gaps."""
    height = max(len(panel) for panel in panels)
    row = np.full((height + GAP, len(panels) * (width + GAP), 3), 255, np.uint8)
    for number, panel in enumerate(panels):
        left = number * (width + GAP)
        row[: panel.shape[0], left : left + panel.shape[1]] = panel
    return row
