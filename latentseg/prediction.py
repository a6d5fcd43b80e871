"""Predict images with a trained run: from Python, or folders of images and videos from the command line."""

import itertools
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latentseg.config import InferenceConfig
from latentseg.data.images import IMAGE_SUFFIXES, distinct_palette, image_files, read_rgb, resized
from latentseg.errors import UserError
from latentseg.inference import largest, load_segmenter, predict_probs, to_tensor
from latentseg.models.segmenter import Segmenter
from latentseg.parallel import Precision, choose_precision
from latentseg.pictures import index_png, overlay, rgb_png, write_whole
from latentseg.pipeline import Maps, Ready, in_threads, predict_all
from latentseg.processor import full_speed
from latentseg.progress import track
from latentseg.runs import Run, open_run

if TYPE_CHECKING:
    from latentseg.video import Frame

KINDS = ("index", "overlay", "latent")
VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv"})


@dataclass(frozen=True)
class _Job:
    """A file to predict."""

    source: Path
    name: Path
    """Its name in the results, without suffix."""

    @property
    def is_video(self) -> bool:
        return self.source.suffix.lower() in VIDEO_SUFFIXES


@dataclass(frozen=True)
class _Seen:
    """An image, or a frame of a video, on its way through the network."""

    name: Path
    pixels: NDArray[np.uint8]
    frame: "Frame | None" = None


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

    @property
    def precision(self) -> Precision:
        """Number format of its forward passes."""
        return choose_precision(self.run.config, next(self.segmenter.parameters()).device)

    def predict(
        self, image: str | Path | Image.Image | NDArray[Any], inference: InferenceConfig | None = None
    ) -> Prediction:
        """Predict one image, at its own size.

        Args:
            image: A path, a Pillow image, or an array, such as RGB of shape (H, W, 3), uint8: what `read_rgb` takes.
            inference: Whole or sliding window, scales, mirror; the run's choice if None.

        Raises:
            UserError: The image cannot be read, or the array is no image.
        """
        pixels = read_rgb(image)
        height, width = pixels.shape[:2]
        device = next(self.segmenter.parameters()).device
        batch = to_tensor(resized(pixels, self.run.config.data.resize), device)
        inference = inference or self.run.config.inference
        probs = predict_probs(self.segmenter, batch, inference, (height, width), self.precision)
        return Prediction(
            labels=largest(probs.semantic)[0].cpu().numpy(),
            probs=probs.semantic[0].cpu().numpy(),
            latent=None if probs.latent is None else largest(probs.latent)[0].cpu().numpy(),
        )


def load(run: str | Path, checkpoint: str = "last", overrides: list[str] | tuple[str, ...] = ()) -> Model:
    """Load a trained run.

    Args:
        run: The run folder.
        checkpoint: last, or best.
        overrides: `key=value` for device, threads, precision or inference.*.

    Raises:
        UserError: The run or its checkpoint is missing or damaged.
    """
    opened = open_run(run, overrides)
    return Model(opened, *load_segmenter(opened, checkpoint))


def predict(model: Model, paths: list[Path], out: Path) -> int:
    """Predict images, folders of images, and videos; write index PNGs, colour overlays and latent maps.

    A few images are in memory at a time. A folder's images keep their relative path below OUT/index, OUT/overlay and
    OUT/latent. A video becomes OUT/overlay/NAME.mp4, without sound, and OUT/index/NAME/000000.png and so on, a PNG per
    frame; OUT/latent likewise. Nothing is overwritten.

    Args:
        model: From `load`.
        paths: Images, videos (PyAV must be installed), and folders of images (searched recursively).
        out: Folder of the results.

    Returns:
        Number of images, the frames of videos among them.

    Raises:
        UserError: A path is missing, a folder holds no image, PyAV is missing, or a result exists; or, after all
            others are predicted, the files that cannot be read.
    """
    jobs = list(_jobs(paths))
    _check_results(model, jobs, out)
    videos = [job for job in jobs if job.is_video]
    if videos:
        _check_pyav(videos[0])
    images = [job for job in jobs if not job.is_video]
    broken: list[str] = []
    with full_speed():
        count = _predict_images(model, images, out, broken) if images else 0
        for job in videos:
            count += _predict_video(model, job, out, broken)
    if broken:
        raise UserError(
            f"{len(broken)} of {len(jobs)} {'files' if videos else 'images'} cannot be read"
            f"{f'; what could is in {out}' if count else ''}:" + "".join(f"\n  - {line}" for line in broken[:10])
        )
    return count


def _predict_images(model: Model, jobs: list[_Job], out: Path, broken: list[str]) -> int:
    def read(job: _Job) -> Ready[_Seen] | str:
        try:
            return _ready(model, _Seen(job.name, read_rgb(job.source)))
        except UserError as error:
            return str(error)

    def readable() -> Iterator[Ready[_Seen]]:
        for image in in_threads(read, jobs):
            if isinstance(image, str):
                broken.append(image)
            else:
                yield image

    def write(predicted: tuple[_Seen, Maps]) -> None:
        seen, maps = predicted
        _write_maps(model, maps, out, seen.name)
        colored = overlay(seen.pixels, maps.labels.numpy(), model.run.palette)
        write_whole(_result(out, "overlay", seen.name), rgb_png(colored))

    predicted = track(_predict_all(model, readable()), "predicting", len(jobs))
    with closing(in_threads(write, predicted)) as written:
        return sum(1 for _ in written)


def _predict_video(model: Model, job: _Job, out: Path, broken: list[str]) -> int:
    from latentseg.video import Frame, Video, VideoWriter  # noqa: PLC0415 - PyAV is an extra

    try:
        video = Video(job.source)
    except UserError as error:
        broken.append(str(error))
        return 0
    frames = video.frames()

    def seen() -> Iterator[Ready[_Seen]]:
        for frame in in_threads(lambda _: next(frames, None), itertools.count(), threads=1):  # decoded in their order
            if frame is None:
                return
            yield _ready(model, _Seen(job.name / f"{frame.number:06}", frame.pixels, frame))

    def draw(predicted: tuple[_Seen, Maps]) -> Frame:
        image, maps = predicted
        _write_maps(model, maps, out, image.name)
        assert image.frame is not None
        return image.frame._replace(pixels=overlay(image.pixels, maps.labels.numpy(), model.run.palette))

    with VideoWriter(_result(out, "overlay", job.name, ".mp4"), video.rate) as writer:
        drawn = in_threads(draw, track(_predict_all(model, seen()), job.source.name, video.count))
        with closing(in_threads(lambda frame: writer.add(frame.pixels, frame.seconds), drawn, threads=1)) as written:
            count = sum(1 for _ in written)
    if video.problem:
        broken.append(f"{video.problem}; what was read before is predicted")
    return count


def _ready(model: Model, seen: _Seen) -> Ready[_Seen]:
    return Ready(seen, resized(seen.pixels, model.run.config.data.resize), (seen.pixels.shape[0], seen.pixels.shape[1]))


def _predict_all(model: Model, images: Iterable[Ready[_Seen]]) -> Iterator[tuple[_Seen, Maps]]:
    return predict_all(model.segmenter, images, model.run.config.inference, model.precision, latent=True)


def _write_maps(model: Model, maps: Maps, out: Path, name: Path) -> None:
    write_whole(_result(out, "index", name), index_png(maps.labels.numpy(), model.run.palette))
    if maps.latent is not None:
        palette = distinct_palette(model.segmenter.num_latent)
        write_whole(_result(out, "latent", name), index_png(maps.latent.numpy(), palette))


def _result(out: Path, kind: str, name: Path, suffix: str = ".png") -> Path:
    return out / kind / name.parent / f"{name.name}{suffix}"


def _check_results(model: Model, jobs: list[_Job], out: Path) -> None:
    """Two jobs must not share a result, and none may exist.

    Raises:
        UserError: It is so.
    """
    kinds = KINDS if model.segmenter.num_latent else KINDS[:2]
    sources: dict[Path, _Job] = {}
    for job in jobs:
        other = sources.setdefault(job.name, job)
        if other is not job:
            what = f"{job.name}{'.png' if not job.is_video else '.mp4'}"
            raise UserError(f"{job.source} and {other.source} would both become {what}: predict them one by one")
        for kind in kinds:
            suffix = (".mp4" if kind == "overlay" else "") if job.is_video else ".png"
            path = _result(out, kind, job.name, suffix)
            if path.exists():
                raise UserError(f"{path} exists and is not overwritten: name another folder with --out")
    for job in jobs:
        above = [sources[parent] for parent in job.name.parents if parent in sources]
        if any(other.is_video for other in above):
            raise UserError(f"{job.source} and the frames of {above[0].source} would be mixed: predict them one by one")


def _check_pyav(job: _Job) -> None:
    try:
        import_module("av")
    except ImportError as error:
        raise UserError(f"{job.source} is a video, which needs PyAV: pip install 'latentseg[video]'") from error


def _jobs(paths: list[Path]) -> Iterator[_Job]:
    for path in paths:
        if path.is_dir():
            found = image_files(path)
            if not found:
                raise UserError(
                    f"{path} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}); videos are named one by one"
                )
            yield from (_Job(file, file.relative_to(path).with_suffix("")) for file in found)
        elif path.is_file():
            yield _Job(path, Path(path.stem))
        else:
            raise UserError(f"{path} does not exist: name images, folders of images, or videos")
