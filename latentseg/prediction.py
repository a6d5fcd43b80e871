"""Predict images with a trained run: from Python, or folders of images from the command line."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from latentseg.config import InferenceConfig
from latentseg.data.datasets import IMAGE_SUFFIXES, distinct_palette, read_rgb, resized
from latentseg.data.images import image_files
from latentseg.errors import UserError
from latentseg.inference import load_segmenter, predict_probs, to_tensor
from latentseg.models.segmenter import Segmenter
from latentseg.progress import track
from latentseg.runs import Run, open_run

KINDS = ("index", "overlay", "latent")


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image."""

    labels: NDArray[np.uint8]
    """Class id per pixel, shape (H, W)."""
    probs: NDArray[np.float32]
    """Class probabilities, shape (C, H, W)."""
    latent: NDArray[np.uint8] | None
    """Latent class per pixel, shape (H, W), or None for a model without latent branch."""


@dataclass(frozen=True)
class Model:
    """A trained segmenter with what it takes to use it. Get one from `latentseg.load`."""

    run: Run
    segmenter: Segmenter
    step: int

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by id."""
        return self.run.classes

    def predict(
        self, image: str | Path | Image.Image | NDArray[np.uint8], inference: InferenceConfig | None = None
    ) -> Prediction:
        """Predict one image, at its own size.

        Args:
            image: A path, a Pillow image, or an RGB array of shape (H, W, 3), uint8.
            inference: Whole or sliding window, scales, mirror; the run's choice if None.

        Raises:
            UserError: The image cannot be read, or the array is not an RGB image.
        """
        pixels = _pixels(image)
        height, width = pixels.shape[:2]
        device = next(self.segmenter.parameters()).device
        batch = to_tensor(resized(pixels, self.run.config.data.resize), device)
        probs = predict_probs(self.segmenter, batch, inference or self.run.config.inference, (height, width))
        latent = probs.latent
        return Prediction(
            labels=probs.semantic[0].argmax(0).byte().cpu().numpy(),
            probs=probs.semantic[0].cpu().numpy(),
            latent=None if latent is None else latent[0].argmax(0).byte().cpu().numpy(),
        )


def load(run: str | Path, checkpoint: str = "last", overrides: list[str] | tuple[str, ...] = ()) -> Model:
    """Load a trained run.

    Args:
        run: The run folder.
        checkpoint: last, or best.
        overrides: `key=value` for device, threads or inference.*.

    Raises:
        UserError: The run or its checkpoint is missing or damaged.
    """
    opened = open_run(run, overrides)
    return Model(opened, *load_segmenter(opened, checkpoint))


def predict(model: Model, paths: list[Path], out: Path) -> int:
    """Predict images and folders of images; write index PNGs, colour overlays and latent maps.

    One image is in memory at a time. A folder's images keep their relative path below OUT/index, OUT/overlay and
    OUT/latent. Nothing is overwritten.

    Args:
        model: From `load`.
        paths: Images and folders (searched recursively).
        out: Folder of the results.

    Returns:
        Number of images.

    Raises:
        UserError: A path is missing, a folder holds no image, or a result exists; or, after all others are predicted,
            the images that cannot be read.
    """
    jobs = list(_jobs(paths))
    kinds = KINDS if model.segmenter.num_latent else KINDS[:2]
    targets: dict[Path, Path] = {}
    for source, name in jobs:
        if name in targets:
            raise UserError(f"{source} and {targets[name]} would both become {name}.png: predict them one by one")
        targets[name] = source
        for path in (_result(out, kind, name) for kind in kinds):
            if path.exists():
                raise UserError(f"{path} exists and is not overwritten: name another folder with --out")
    broken: list[str] = []
    for source, name in track(jobs, "predicting"):
        try:
            pixels = read_rgb(source)
        except UserError as error:
            broken.append(str(error))
        else:
            _write(model, pixels, out, name)
    if broken:
        raise UserError(
            f"{len(broken)} of {len(jobs)} images cannot be read; the others are in {out}:\n  - "
            + "\n  - ".join(broken[:10])
        )
    return len(jobs)


def _write(model: Model, pixels: NDArray[np.uint8], out: Path, name: Path) -> None:
    prediction = model.predict(pixels)
    palette = model.run.palette
    color = palette[prediction.labels].astype(np.uint16)
    pictures = {
        "index": _index_png(prediction.labels, palette),
        "overlay": Image.fromarray(((color + pixels) // 2).astype(np.uint8)),
    }
    if prediction.latent is not None:
        pictures["latent"] = _index_png(prediction.latent, distinct_palette(model.segmenter.num_latent))
    for kind, picture in pictures.items():
        path = _result(out, kind, name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error}") from error


def _index_png(ids: NDArray[np.uint8], palette: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(ids)
    picture.putpalette(palette.tobytes())  # grey becomes palette, the ids stay
    return picture


def _result(out: Path, kind: str, name: Path) -> Path:
    return out / kind / name.parent / f"{name.name}.png"


def _jobs(paths: list[Path]) -> Iterator[tuple[Path, Path]]:
    """Each image with its name in the results (without suffix)."""
    for path in paths:
        if path.is_dir():
            found = image_files(path)
            if not found:
                raise UserError(f"{path} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
            yield from ((file, file.relative_to(path).with_suffix("")) for file in found)
        elif path.is_file():
            yield path, Path(path.stem)
        else:
            raise UserError(f"{path} does not exist: name images or folders of images")


def _pixels(image: str | Path | Image.Image | NDArray[np.uint8]) -> NDArray[np.uint8]:
    if isinstance(image, str | Path):
        return read_rgb(Path(image))
    if isinstance(image, Image.Image):
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"), np.uint8)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise UserError(f"image array of shape {image.shape}, {image.dtype}: expected (H, W, 3) RGB, uint8")
    return image
