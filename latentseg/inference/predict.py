"""Predict images, folders of images and videos: index PNGs, overlays and latent maps as files."""

import itertools
from collections.abc import Iterator
from contextlib import closing
from importlib import import_module
from pathlib import Path

from latentseg.console import track
from latentseg.data.colors import distinct_palette
from latentseg.data.files import IMAGE_SUFFIXES, image_files
from latentseg.data.images import read_rgb
from latentseg.engine import full_speed
from latentseg.errors import UserError
from latentseg.inference.model import Model
from latentseg.inference.pictures import index_png, overlay, rgb_png, write_whole
from latentseg.inference.stream import Pixels, Ready, in_threads
from latentseg.models.segmenter import Output

KINDS = ("index", "overlay", "latent")
VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv"})
Jobs = dict[Path, Path]
"""What to predict: the name of the results, a path without suffix, and the file."""


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
    jobs = _jobs(paths)
    _check_results(model, jobs, out)
    images = {name: source for name, source in jobs.items() if not _is_video(source)}
    videos = {name: source for name, source in jobs.items() if _is_video(source)}
    if videos:
        _check_pyav(next(iter(videos.values())))
    broken: dict[Path, str] = {}
    with full_speed():
        count = _predict_images(model, images, out, broken) if images else 0
        for name, source in videos.items():
            count += _predict_video(model, name, source, out, broken)
    if broken:
        lines = [broken[source] for source in (images | videos).values() if source in broken]
        raise UserError(
            f"{len(broken)} of {len(jobs)} {'files' if videos else 'images'} cannot be read"
            f"{f'; what could is in {out}' if count else ''}:" + "".join(f"\n  - {line}" for line in lines[:10])
        )
    return count


def _predict_images(model: Model, images: Jobs, out: Path, broken: dict[Path, str]) -> int:
    """Write the results of images, whose number it gives; what cannot be read is added to `broken`, with the reason."""

    def read(name: Path) -> Ready[tuple[Path, Pixels]] | None:
        try:
            pixels = read_rgb(images[name], model.run.config.data.bits)
        except UserError as error:
            broken[images[name]] = str(error)
            return None
        return model.ready(pixels, (name, pixels))

    def write(predicted: tuple[tuple[Path, Pixels], Output]) -> None:
        (name, pixels), maps = predicted
        _write_maps(model, maps, out, name)
        colored = overlay(pixels, maps.semantic.numpy(), model.run.palette)
        write_whole(_result(out, "overlay", name), rgb_png(colored))

    predicted = track(model.stream(images, read, latent=True), "predicting", len(images))
    with closing(in_threads(write, predicted)) as written:
        return sum(1 for _ in written)


def _predict_video(model: Model, name: Path, source: Path, out: Path, broken: dict[Path, str]) -> int:
    """Write the results of a video, and give the number of its frames; `broken` as for images."""
    from latentseg.inference.video import Frame, Video, VideoWriter  # noqa: PLC0415 - PyAV is an extra

    try:
        video = Video(source)
    except UserError as error:
        broken[source] = str(error)
        return 0
    frames = video.frames()

    def ahead() -> Iterator[Frame]:
        for frame in in_threads(lambda _: next(frames, None), itertools.count(), threads=1):  # decoded in their order
            if frame is None:
                return
            yield frame

    def draw(predicted: tuple[Frame, Output]) -> Frame:
        frame, maps = predicted
        _write_maps(model, maps, out, name / f"{frame.number:06}")
        return frame._replace(pixels=overlay(frame.pixels, maps.semantic.numpy(), model.run.palette))

    with VideoWriter(_result(out, "overlay", name, ".mp4"), video.rate) as writer:
        predicted = model.stream(ahead(), lambda frame: model.ready(frame.pixels, frame), latent=True)
        drawn = in_threads(draw, track(predicted, source.name, video.count))
        with closing(in_threads(lambda frame: writer.add(frame.pixels, frame.seconds), drawn, threads=1)) as written:
            count = sum(1 for _ in written)
    if video.problem:
        broken[source] = f"{video.problem}; what was read before is predicted"
    return count


def _write_maps(model: Model, maps: Output, out: Path, name: Path) -> None:
    """Write the ids of an image, each map of shape (H, W), as index PNGs."""
    write_whole(_result(out, "index", name), index_png(maps.semantic.numpy(), model.run.palette))
    if maps.latent is not None:
        palette = distinct_palette(model.segmenter.num_latent)
        write_whole(_result(out, "latent", name), index_png(maps.latent.numpy(), palette))


def _result(out: Path, kind: str, name: Path, suffix: str = ".png") -> Path:
    return out / kind / name.parent / f"{name.name}{suffix}"


def _jobs(paths: list[Path]) -> Jobs:
    """All images and videos that the paths name.

    Raises:
        UserError: A path is missing, a folder holds no image, or two files would share a result.
    """
    jobs: Jobs = {}
    for path in paths:
        if path.is_dir():
            found = [(file.relative_to(path).with_suffix(""), file) for file in image_files(path)]
        elif path.is_file():
            found = [(Path(path.stem), path)]
        else:
            raise UserError(f"{path} does not exist: name images, folders of images, or videos")
        if not found:
            raise UserError(f"{path} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}); videos are named one by one")
        for name, source in found:
            if name in jobs:
                result = f"{name}.mp4" if _is_video(source) else f"{name}.png"
                raise UserError(f"{source} and {jobs[name]} would both become {result}: predict them one by one")
            jobs[name] = source
    return jobs


def _check_results(model: Model, jobs: Jobs, out: Path) -> None:
    """Refuse to overwrite a result, or to mix an image with the frames of a video.

    Raises:
        UserError: It would be so.
    """
    for name, source in jobs.items():
        for kind in KINDS if model.segmenter.num_latent else KINDS[:2]:
            suffix = (".mp4" if kind == "overlay" else "") if _is_video(source) else ".png"
            path = _result(out, kind, name, suffix)
            if path.exists():
                raise UserError(f"{path} exists and is not overwritten: name another folder with --out")
        above = [jobs[parent] for parent in name.parents if parent in jobs and _is_video(jobs[parent])]
        if above:
            raise UserError(f"{source} and the frames of {above[0]} would be mixed: predict them one by one")


def _is_video(source: Path) -> bool:
    return source.suffix.lower() in VIDEO_SUFFIXES


def _check_pyav(source: Path) -> None:
    try:
        import_module("av")
    except ImportError as error:
        raise UserError(f"{source} is a video, which needs PyAV: pip install 'latentseg[video]'") from error
