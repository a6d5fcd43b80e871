"""Probes of the timer: how near prediction and evaluation come to the bare network, and whether memory stays flat."""

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
from latentseg.engine import full_speed
from latentseg.inference.evaluate import score_items
from latentseg.inference.video import VideoWriter

NETWORKS = {
    "deeplab_resnet101": ("voc", ["precision=bf16-mixed", "workers=0"], 8, 2),
    "lite0": ("animals", ["precision=32-true", "data.classes=null", "data.class_map=null"], 16, 9),
}  # preset, options, images and rounds
SMALL, IMAGES, FRAMES = (96, 128), 2000, 1000


def trained(name: str, method: str, root: Path, run: Path, *further: str) -> Model:
    """A model after one step on a set of the layout `folder`, which takes one image at a time (as on a CPU anyway)."""
    preset, more, _, _ = NETWORKS[name]
    options = ["data.kind=folder", f"data.root={root}", "data.check=quick", "data.labeled=1", "cache=none", *more]
    options += ["steps=1", "batch_size=1", "data.holdout=1", "validate_split=holdout", "model.weights_kind=none"]
    options += ["inference.batch_size=1", f"method.name={method}", *further]
    return load(train(load_config(preset, options), run).folder)


@full_speed()  # as the verbs
@torch.inference_mode()
def bare(model: Model, images: int) -> None:
    """Forward tensors of the same number and size, padded as the encoder wants."""
    device = model.device
    tensor = torch.rand(1, 3, *model.segmenter.valid_size(*SIZE), device=device)
    for _ in range(images):
        with torch.autocast(device.type, torch.bfloat16, enabled=model.precision == "bf16-mixed"):
            model.segmenter(tensor)


@full_speed()
def score(model: Model, root: Path) -> None:
    """What the verb `evaluate` does with the images of val in a set."""
    dataset = open_dataset(model.run.config.data.model_copy(update={"root": str(root)}))
    score_items(model, dataset, dataset.items("val"))


def measure_rate(options: argparse.Namespace) -> dict[str, Any]:
    """Of each network the bare forward's time over that of the verb; in turns, in one process."""
    torch.set_num_threads(options.threads)
    kind, clock = ("processor", time.process_time) if options.threads == 1 else ("wall", time.perf_counter)
    rows: dict[str, Any] = {}
    for name, (_, _, images, rounds) in NETWORKS.items():
        with tempfile.TemporaryDirectory() as folder:
            root, number = write_folder(Path(folder) / "set", images), count()
            model = trained(name, "supervised", root, Path(folder) / "run")
            functions: dict[str, Callable[[], object]] = {
                "bare": partial(bare, model, images),
                "predict": lambda: predict(model, [root / "images/val"], root / str(next(number))),  # noqa: B023
                "evaluate": partial(score, model, root),
            }
            seconds = in_turns(functions, rounds, clock)
            rows[f"{name}, {kind}"] = {what: ratio(seconds["bare"], seconds[what]) for what in ("predict", "evaluate")}
            rows[f"{name}, {kind}"]["bare_ms_per_image"] = round(1000 * statistics.median(seconds["bare"]) / images, 1)
    return rows


def _peaks(kind: str, folder: Path) -> list[float]:
    """Peak MB of this process after a tenth of the images or frames, and after all of them."""
    torch.set_num_threads(1)
    number = FRAMES if kind == "video" else IMAGES
    sets = [write_folder(folder / str(part), part, size=SMALL) for part in (number // 10, number)]
    model = trained("lite0", "latent", sets[0], folder / "run")
    found = []
    for root in sets:
        if kind == "video":
            with VideoWriter(root / "clip.mp4", Fraction(25)) as writer:
                for frame in range(int(root.name)):
                    writer.add(np.roll(photo(frame % 8, SMALL), frame, 1), Fraction(frame, 25))
        if kind == "evaluate":
            score(model, root)
        else:
            predict(model, [root / ("clip.mp4" if kind == "video" else "images/val")], root / "out")
        found.append(round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1))
    return found


def measure_memory(_options: argparse.Namespace) -> dict[str, Any]:
    """Growth of the peak over many images, predicted and scored, and over the frames of a video."""
    rows: dict[str, Any] = {}
    for kind in ("predict", "evaluate", "video"):
        with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, get_context("spawn")) as alone:
            tenth, peak = alone.submit(_peaks, kind, Path(folder)).result()
        rows[kind] = {"peak_mb_after_a_tenth": tenth, "peak_mb": peak, "growth_mb": round(peak - tenth, 1)}
    return rows
