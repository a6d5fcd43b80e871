"""Predict images, folders of images and videos: index PNGs, overlays and latent maps as files."""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentseg.console import console, track
from latentseg.data.ahead import in_threads
from latentseg.data.colors import distinct_palette
from latentseg.data.files import is_file
from latentseg.data.images import read_rgb
from latentseg.engine import full_speed
from latentseg.errors import DataError, UserError
from latentseg.inference.benchmarks import Form, form_of
from latentseg.inference.geotiff import NOTE, geotiff, has_place, has_rasterio
from latentseg.inference.jobs import Jobs, find_jobs, grouped, is_video, tell_skipped, without_masks
from latentseg.inference.legend import legend
from latentseg.inference.model import Model
from latentseg.inference.pictures import (
    check_writable,
    index_png,
    left_unpainted,
    overlay,
    overlay_png,
    small_png,
    write_whole,
)
from latentseg.inference.stream import Pixels, Ready
from latentseg.inference.tiles import no_memory
from latentseg.models.segmenter import Output

KINDS = ("index", "overlay", "latent")
LEGENDS = ("legend.png", "latent_legend.png")
"""Beside the folders: the colours of the classes, and of the latent classes."""
Named = tuple[Path, Pixels]
"""An image by its name in the jobs."""


class Wanted(NamedTuple):
    """What is written of an image.

    Attributes:
        out: Folder of the results.
        unpainted: Classes that an overlay leaves as the image; None: it paints all.
        form: Of the ids.
        placed: Files whose index maps are written as GeoTIFF, too.
    """

    out: Path
    unpainted: NDArray[np.bool_] | None
    form: Form
    placed: frozenset[Path]


def predict(model: Model, paths: list[Path], out: Path, benchmark: str | None = None) -> int:
    """Predict images, folders of images, and videos; write index PNGs, colour overlays and latent maps.

    A few images are in memory at a time; a huge one (`inference.mode`) takes about 12 bytes per pixel. A folder's
    images keep their relative path below OUT/index, OUT/overlay and OUT/latent. A video becomes OUT/overlay/NAME.mp4,
    without sound, and OUT/index/NAME/000000.png and so on, a PNG per frame; OUT/latent likewise. OUT/legend.png and
    OUT/latent_legend.png say which colour is which class. The index map of a GeoTIFF is written as OUT/index/NAME.tif,
    too, with its georeference, if rasterio is installed. Nothing is overwritten.

    Args:
        model: From `load`.
        paths: Images, videos (PyAV must be installed), and folders of images (searched recursively).
        out: Folder of the results.
        benchmark: voc or cityscapes: the ids in the index PNGs are those of the benchmark (`form_of`).

    Returns:
        Number of images, the frames of videos among them.

    Raises:
        UserError: A path is missing, a folder holds no image, PyAV is missing, a result exists, or a class is none of
            the benchmark's.
        DataError: After all others are predicted: files that cannot be read, predicted in memory or written.
    """
    jobs = without_masks(find_jobs(paths), model.run.config.data)
    unpainted = left_unpainted(model.classes, model.run.config.inference.unpainted)
    form = form_of(benchmark, model.classes) if benchmark else Form(None, model.run.palette)
    wanted = Wanted(out, unpainted, form, _placed(jobs))
    _check_results(model, jobs, wanted)
    legends = _legends(model, out)
    tell_skipped(paths)
    images = {name: source for name, source in jobs.items() if not is_video(source)}
    videos = {name: source for name, source in jobs.items() if is_video(source)}
    if videos:
        _check_pyav(next(iter(videos.values())))
    failures: dict[Path, UserError] = {}
    with full_speed():
        count = _predict_images(model, images, wanted, failures) if images else 0
        for name, source in videos.items():
            count += _predict_video(model, name, source, wanted, failures)
    for path, content in legends.items() if count else ():
        write_whole(path, content)
    if failures:
        ordered = {source: failures[source] for source in jobs.values() if source in failures}
        raise DataError(
            f"{len(failures)} of {len(jobs)} {'files' if videos else 'images'} cannot be predicted",
            f"{f'the results of the others are in {out}' if count else 'nothing is written'}:\n{grouped(ordered)}",
        )
    return count


def _predict_images(model: Model, images: Jobs, wanted: Wanted, failures: dict[Path, UserError]) -> int:
    """Write the results of images, whose number it gives; those that fail are added to `failures`."""
    read, failed = reading(model, images, failures)

    def write(predicted: tuple[Named, Output]) -> bool:
        (name, pixels), maps = predicted
        try:
            _write_maps(model, maps, wanted, name, images[name])
            picture = overlay_png(pixels, maps.semantic.numpy(), model.run.palette, wanted.unpainted)
            write_whole(_result(wanted.out, "overlay", name), picture)
        except MemoryError:
            failures[images[name]] = no_memory(images[name], "to write its results")
        except DataError as error:
            failures[images[name]] = error
        return images[name] not in failures

    predicted = track(model.stream(images, read, latent=True, failed=failed), "predicting", len(images))
    with closing(in_threads(write, predicted)) as written:
        return sum(written)


def reading(
    model: Model, images: Jobs, failures: dict[Path, UserError]
) -> tuple[Callable[[Path], Ready[Named] | None], Callable[[Named], None]]:
    """What `Model.stream` asks for: how to read an image by its name in the jobs, and what to do if one is too large.

    Args:
        model: Whose options say how.
        images: The jobs.
        failures: Is given the images that cannot be read, or do not fit into memory.
    """

    def read(name: Path) -> Ready[Named] | None:
        try:
            pixels = read_rgb(images[name], model.run.config.data.bits)
            return model.ready(pixels, (name, pixels))
        except MemoryError:
            failures[images[name]] = no_memory(images[name], "to read it")
        except UserError as error:
            failures[images[name]] = error
        return None

    def failed(owner: Named) -> None:
        name, pixels = owner
        failures[images[name]] = no_memory(images[name], f"{pixels.shape[1]}x{pixels.shape[0]}")

    return read, failed


def _predict_video(model: Model, name: Path, source: Path, wanted: Wanted, failures: dict[Path, UserError]) -> int:
    """Write the results of a video, and give the number of its frames; `failures` as for images."""
    from latentseg.inference.video import Frame, Video, VideoWriter  # noqa: PLC0415 - PyAV is an extra

    try:
        video = Video(source)
    except UserError as error:
        failures[source] = error
        return 0
    frames = video.frames()

    def ahead() -> Iterator[Frame]:
        for frame in in_threads(lambda _: next(frames, None), itertools.count(), threads=1):  # decoded in their order
            if frame is None:
                return
            yield frame

    def draw(predicted: tuple[Frame, Output]) -> Frame:
        frame, maps = predicted
        _write_maps(model, maps, wanted, name / f"{frame.number:06}", source)
        return frame._replace(pixels=overlay(frame.pixels, maps.semantic.numpy(), model.run.palette, wanted.unpainted))

    count = 0
    try:
        with VideoWriter(_result(wanted.out, "overlay", name, ".mp4"), video.rate) as writer:
            predicted = model.stream(ahead(), lambda frame: model.ready(frame.pixels, frame), latent=True)
            drawn = in_threads(draw, track(predicted, source.name, video.count))
            with closing(in_threads(lambda frame: writer.add(frame.pixels, frame.seconds), drawn, threads=1)) as done:
                count = sum(1 for _ in done)
    except DataError as error:
        failures[source] = error
    if video.problem:
        failures[source] = UserError(f"{video.problem}; what was read before is predicted")
    return count


def _write_maps(model: Model, maps: Output, wanted: Wanted, name: Path, source: Path) -> None:
    """Write the ids of an image, each map of shape (H, W), as index PNGs, and as GeoTIFF if the image is one."""
    ids = wanted.form.ids(maps.semantic.numpy())
    if source in wanted.placed:  # first, as it may fail
        write_whole(_result(wanted.out, "index", name, ".tif"), geotiff(ids, wanted.form.palette, source))
    write_whole(_result(wanted.out, "index", name), index_png(ids, wanted.form.palette))
    if maps.latent is not None:
        palette = distinct_palette(model.segmenter.num_latent)
        write_whole(_result(wanted.out, "latent", name), index_png(maps.latent.numpy(), palette))


def _result(out: Path, kind: str, name: Path, suffix: str = ".png") -> Path:
    return out / kind / name.parent / f"{name.name}{suffix}"


def _legends(model: Model, out: Path) -> dict[Path, bytes]:
    """The legends that are not there yet, as PNG.

    Raises:
        UserError: One is there for other classes.
    """
    latent = model.segmenter.num_latent
    tables = [(model.classes, model.run.palette)]
    tables += [(tuple(f"latent {number}" for number in range(latent)), distinct_palette(latent))] * bool(latent)
    found: dict[Path, bytes] = {}
    for name, (names, palette) in zip(LEGENDS, tables, strict=False):
        path, content = out / name, small_png(legend(names, palette))
        if not is_file(path):
            found[path] = content
        elif path.read_bytes() != content:
            raise UserError(f"{path} is the legend of other classes: name another folder with --out")
    return found


def _placed(jobs: Jobs) -> frozenset[Path]:
    """The GeoTIFFs among the files, if their georeference can be kept; else a note says that it is not."""
    found = frozenset(source for source in jobs.values() if has_place(source))
    if found and not has_rasterio():
        console.print(f"note: {NOTE}", style="yellow", markup=False, highlight=False)
        return frozenset()
    return found


def _check_results(model: Model, jobs: Jobs, wanted: Wanted) -> None:
    """Refuse to overwrite a result, to mix an image with the frames of a video, or to write where nobody may.

    Raises:
        UserError: It would be so.
    """
    check_writable(wanted.out)
    for name, source in jobs.items():
        endings = [(kind, ".png") for kind in (KINDS if model.segmenter.num_latent else KINDS[:2])]
        if is_video(source):
            endings = [(kind, ".mp4" if kind == "overlay" else "") for kind, _ in endings]
        for kind, suffix in [*endings, *([("index", ".tif")] if source in wanted.placed else [])]:
            path = _result(wanted.out, kind, name, suffix)
            if os.path.exists(path):  # noqa: PTH110 - long names
                raise UserError(f"{path} exists and is not overwritten: name another folder with --out")
        above = [jobs[parent] for parent in name.parents if parent in jobs and is_video(jobs[parent])]
        if above:
            raise UserError(f"{source} and the frames of {above[0]} would be mixed: predict them one by one")


def _check_pyav(source: Path) -> None:
    try:
        import_module("av")
    except ImportError as error:
        raise UserError(f"{source} is a video, which needs PyAV: pip install 'latentseg[video]'") from error
