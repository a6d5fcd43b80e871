"""Pictures of predictions for the page (the paper's Figures 8 and 9), each image by itself as a data URI."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latentseg.console import track
from latentseg.data.datasets import Dataset, Item, distinct_palette, open_dataset
from latentseg.errors import UserError
from latentseg.inference.model import Model, open_data, read_scored
from latentseg.inference.pictures import spread
from latentseg.reading import read_whole
from latentseg.runs.folder import Run

IMAGES = 4
WIDTH = 480
"""Pixels of the longer side of a picture on the page."""


@dataclass(frozen=True)
class Picture:
    """One picture and what it shows."""

    title: str
    uri: str


@dataclass(frozen=True)
class Grid:
    """Rows of pictures: image, truth, one prediction per run, the latent map of the last run that has one."""

    title: str
    rows: list[tuple[str, list[Picture]]]
    """Name of the image, and its pictures."""
    legend: list[tuple[str, str]]
    """Class and its colour (CSS)."""
    missing: list[str]
    """Runs that are not shown, and why."""


def prediction_grid(title: str, folders: dict[str, Path], split: str) -> Grid:
    """Draw images of a split with what each run predicts there, as evaluation does.

    Args:
        title: What the runs have in common.
        folders: Run folders by name.
        split: Split of the first run's data set; the images are spread over it.

    Raises:
        UserError: The data set cannot be read, or no run can be loaded.
    """
    missing: list[str] = []
    models: dict[str, Model] = {}
    for name, folder in folders.items():
        try:
            models[name] = Model.open(folder)
        except UserError as error:
            missing.append(f"{name}: {error}")
    if not models:
        raise UserError("; ".join(missing))
    first = next(iter(models.values())).run
    dataset = open_dataset(first.config.data)
    items = dataset.items(split)
    items = [items[index] for index in spread(len(items), IMAGES)]
    rows = {item: _truth(dataset, item, first) for item in items}
    latent: dict[Item, Picture] = {}
    for name, model in track(models.items(), "drawing", len(models)):
        try:
            same = open_data(model.run, first.config.data)
        except UserError as error:
            missing.append(f"{name}: {error}")
            continue
        for item in items:
            image, size, _ = read_scored(same, item)
            labels, groups = model.labels(image, size)
            rows[item].append(Picture(name, map_uri(labels[0].cpu().numpy(), first.palette)))
            if groups is not None:
                palette = distinct_palette(model.segmenter.num_latent)
                latent[item] = Picture(f"latent map of {name}", map_uri(groups[0].cpu().numpy(), palette))
    named = [(item.id, rows[item] + ([latent[item]] if item in latent else [])) for item in items]
    colors = [f"rgb({r} {g} {b})" for r, g, b in first.palette.tolist()]
    legend = list(zip(first.classes, colors, strict=True))
    return Grid(f"{title}, {split}: {len(items)} images", named, legend, missing)


def _truth(dataset: Dataset, item: Item, run: Run) -> list[Picture]:
    targets = dataset.read_targets(item, resized=False)
    return [Picture("image", photo_uri(dataset.read_image(item))), Picture("truth", map_uri(targets, run.palette))]


def photo_uri(pixels: NDArray[np.uint8]) -> str:
    """A photograph (H, W, 3) as a JPEG data URI."""
    return _uri(_fit(Image.fromarray(pixels), Image.Resampling.LANCZOS).convert("RGB"), "jpeg")


def map_uri(ids: NDArray[np.uint8], palette: NDArray[np.uint8]) -> str:
    """A map of ids (H, W) in the colours of a palette (C, 3), ids beyond it black, as a PNG data URI."""
    colors = np.zeros((256, 3), np.uint8)
    colors[: len(palette)] = palette
    picture = _fit(Image.fromarray(ids), Image.Resampling.NEAREST)
    picture.putpalette(colors.tobytes())
    return _uri(picture, "png")


def file_uri(path: Path) -> str | None:
    """A PNG file as a data URI; None if it is not there or is not a PNG."""
    try:
        content = read_whole(path)
    except OSError:
        return None
    png = content.startswith(b"\x89PNG")
    return "data:image/png;base64," + base64.b64encode(content).decode() if png else None


def _fit(picture: Image.Image, method: Image.Resampling) -> Image.Image:
    scale = WIDTH / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, method) if scale < 1 else picture


def _uri(picture: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    if kind == "jpeg":
        picture.save(buffer, "JPEG", quality=82)
    else:
        picture.save(buffer, "PNG", optimize=True)
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()
