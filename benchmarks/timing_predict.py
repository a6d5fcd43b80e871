"""Probes of the timer: how near prediction and evaluation come to the bare network, and whether memory stays flat.

The models are trained for one step on made data, so that they are opened as any run is.
"""

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from functools import partial
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clocks import in_turns, ratio
from made import SIZE, photo, write_folder

from latentseg import Model, load, load_config, predict, train
from latentseg.data.datasets import open_dataset
from latentseg.evaluation import score_items
from latentseg.pipeline import PIXELS
from latentseg.processor import full_speed
from latentseg.video import VideoWriter

NETWORKS = {
    "deeplab_resnet101": ("voc", ["precision=bf16-mixed", "workers=0"], 8, 2),
    "lite0": ("animals", ["precision=32-true", "data.classes=null", "data.class_map=null"], 16, 9),
}
"""Preset, options, images and rounds."""
SMALL, IMAGES, FRAMES = (96, 128), 2000, 1000


def trained(name: str, method: str, root: Path, run: Path) -> Model:
    """A model after one step on a set of the layout `folder`."""
    preset, options, _, _ = NETWORKS[name]
    data = ["data.kind=folder", f"data.root={root}", "data.check=quick", "cache=none", "validate_split=test"]
    options = [*data, *options, "steps=1", "batch_size=1", "model.weights_kind=none", f"method.name={method}"]
    return load(train(load_config(preset, options), run).folder)


@torch.inference_mode()
def bare(model: Model, images: int, latent: bool) -> None:
    """Forward tensors of the same number and size, padded as the encoder wants, in the batches that prediction has."""
    device = next(model.segmenter.parameters()).device
    full = model.run.config.inference.batch_size or max(1, PIXELS[device.type] // (SIZE[0] * SIZE[1]))
    tensor = torch.rand(full, 3, *model.segmenter.valid_size(*SIZE), device=device)
    for begin in range(0, images, full):
        with torch.autocast(device.type, torch.bfloat16, enabled=model.precision == "bf16-mixed"):
            model.segmenter(tensor[: images - begin], latent=latent)


def score(model: Model, root: Path) -> None:
    """What the verb `evaluate` does with the images of val in a set."""
    dataset = open_dataset(model.run.config.data.model_copy(update={"root": str(root)}))
    score_items(model.segmenter, dataset, dataset.items("val"), model.run.config.inference, model.precision)


def measure_rate(options: argparse.Namespace) -> dict[str, Any]:
    """Of each network the bare forward's time over that of the verb; in turns, in one process."""
    torch.set_num_threads(options.threads)
    rows: dict[str, Any] = {}
    for name, (_, _, images, rounds) in NETWORKS.items():
        with tempfile.TemporaryDirectory() as folder, full_speed():
            root, number = write_folder(Path(folder) / "set", images), count()
            plain, both = (trained(name, method, root, Path(folder) / method) for method in ("supervised", "latent"))

            def predict_all(model: Model, root: Path, number: "count[int]") -> None:
                predict(model, [root / "images/val"], root / str(next(number)))

            functions: dict[str, Callable[[], object]] = {
                "bare": partial(bare, plain, images, latent=False),
                "predict": partial(predict_all, plain, root, number),
                "evaluate": partial(score, plain, root),
                "bare_latent": partial(bare, both, images, latent=True),
                "predict_latent": partial(predict_all, both, root, number),
            }
            clock = time.process_time if options.threads == 1 else time.perf_counter
            seconds = in_turns(functions, rounds, clock)
            row = {what: ratio(seconds["bare"], seconds[what]) for what in ("predict", "evaluate")}
            row["predict_latent"] = ratio(seconds["bare_latent"], seconds["predict_latent"])
            ms = round(1000 * statistics.median(seconds["bare"]) / images, 1)
            rows[name] = row | {"bare_ms_per_image": ms, "precision": plain.precision, "rounds": rounds}
    return {"processor" if options.threads == 1 else "wall": rows}


def _peaks(kind: str, folder: Path) -> list[float]:
    """Peak MB of this process after a tenth of the images or frames, and after all of them."""
    torch.set_num_threads(1)
    number = FRAMES if kind == "video" else IMAGES
    sets = [write_folder(folder / str(part), part, size=SMALL) for part in (number // 10, number)]
    model = trained("lite0", "latent", sets[0], folder / "run")
    found = []
    for root, images in zip(sets, (number // 10, number), strict=True):
        source = root / "images/val"
        if kind == "video":
            source = root / "clip.mp4"
            with VideoWriter(source, Fraction(25)) as writer:
                for frame in range(images):
                    writer.add(np.roll(photo(frame % 8, SMALL), frame, 1), Fraction(frame, 25))
        if kind == "evaluate":
            score(model, root)
        else:
            predict(model, [source], root / "out")
        found.append(round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1))
    return found


def measure_growth(_options: argparse.Namespace) -> dict[str, Any]:
    """Growth of the peak over many images, predicted and scored, and over the frames of a video."""
    rows: dict[str, Any] = {}
    for kind in ("predict", "evaluate", "video"):
        with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, get_context("spawn")) as alone:
            tenth, peak = alone.submit(_peaks, kind, Path(folder)).result()
        rows[kind] = {"peak_mb_after_a_tenth": tenth, "peak_mb": peak, "growth_mb": round(peak - tenth, 1)}
    return rows
