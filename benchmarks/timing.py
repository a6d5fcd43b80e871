"""The timer: what a step, its data and a prediction cost, each as a ratio to something measured beside it.

    python benchmarks/timing.py all --camvid CAMVID --animals VOC2012      # an hour on 2 cores
    python benchmarks/timing.py step wall --presets scenes                 # some of it
    python benchmarks/timing.py step --presets scenes --set method.num_latent=50 --out fifty.json

    step        a step over the bare network's forward and backward, by part; CPU time of one thread
    wall        the same on the wall, batches read ahead, and the share of it that goes by waiting for batches
    cache       a step on cached features over one on images in memory; CPU time of one thread
    folding     frozen encoder, step and evaluation with BatchNorm folded over those without, and images per second
    peak        memory of a process that takes two steps of preset voc at full size
    processes   rate of two processes over twice that of one, and of two that know nothing of each other
    loading     CPU milliseconds to decode and augment an image of VOC's size with its mask
    rate        prediction and evaluation as a share of the bare forward's rate (--threads 1: CPU time, else wall clock)
    memory      that of prediction after many images and frames over that after a tenth of them

Results: benchmarks/timing.json; what is not measured again stays. Sections `old` and `before` in it are of the scripts
of commit 8b8335e. Precisions and memory formats: `latentseg benchmark PRESET`.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import timing_predict
import torch
from clocks import Clock, in_turns, ratio
from made import SIZE, write_folder

from latentseg.data.batches import Batch, StepDataset
from latentseg.data.datasets import open_dataset
from latentseg.data.splits import Split, draw_split
from latentseg.data.transforms import draw_view, view_image, view_targets
from latentseg.engine import full_speed
from latentseg.inference.evaluate import score_items
from latentseg.inference.model import Model
from latentseg.methods.base import Losses, Networks
from latentseg.presets import load_config, only_read
from latentseg.runs.metrics import read_metrics
from latentseg.training.trainer import Trainer

LATE = ["method.consistency_start=0", "method.ema_alpha=0.1"]
TERMS = {
    "": ["method.lambda_lbl_adv=0", "method.lambda_ulbl_adv=0"],
    " with discriminator": ["method.lambda_lbl_adv=0.01", "method.lambda_ulbl_adv=0.001"],
}
PRESETS = ("scenes", "camvid", "animals", "voc")
VOC = ["batch_size=1", "precision=bf16-mixed", "workers=0", "model.weights_kind=none", "data.kind=folder"]
"""A ratio does not depend on the batch: two images of voc instead of twenty keep a turn short."""
SCORED = 8  # images of an evaluation
IMAGES = 24  # labelled ones, and as many unlabelled ones; all are in memory before the clock starts


@contextmanager
def opened(preset: str, options: argparse.Namespace, terms: str, *more: str) -> Iterator[Trainer]:
    """A run of a preset on a few images, at its first step; freed memory is kept as in training."""
    with tempfile.TemporaryDirectory() as folder, full_speed():
        roots = {"camvid": options.camvid, "animals": options.animals, "voc": f"{folder}/set", "scenes": None}
        name = preset.partition("_")[0]
        if name == "voc":
            write_folder(Path(folder) / "set", IMAGES)
        where = [f"cache_folder={folder}/cache"] + ([f"data.root={roots[name]}"] if roots[name] else [])
        chosen = [*where, *(VOC if name == "voc" else []), *more, *options.set]
        method = load_config(preset, chosen).method.name
        config = load_config(preset, [*only_read([*LATE, *TERMS[terms]], method), *chosen])
        dataset = open_dataset(config.data, remember=config.cache == "images")
        drawn = draw_split(dataset, config.data, 0)
        trainer = Trainer.open(config, dataset, Split(drawn.labeled[:IMAGES], drawn.unlabeled[:IMAGES]))
        for item in [*trainer.split.labeled, *trainer.split.unlabeled]:
            dataset.read_pair(item) if item.mask or not item.image else dataset.read_image(item)
        trainer.seek(0)
        yield trainer
        trainer.close()


def bare(trainer: Trainer, batch: Batch, times: int = 1) -> None:
    """Forward and backward of the same segmenter on the same images, without a loss: the gradient is given."""
    for images in (batch.images, batch.unlabeled) * times:
        assert images is not None
        with trainer.fabric.autocast():
            maps = [logits for logits in trainer.state.segmenter(images) if logits is not None]
        torch.autograd.backward(maps, [torch.ones_like(logits) for logits in maps])


def parts_of_a_step(trainer: Trainer, data: StepDataset, number: int) -> dict[str, float]:
    """CPU seconds of one step by part: loading, forward, losses, discriminator (all of it), backward, optimizer."""
    clock, turn, method = Clock("losses"), [""], trainer.method

    def noted(nets: Networks, batch: Batch, step: int) -> Iterator[Losses]:
        for losses in method(nets, batch, step):
            turn[0] = losses.network
            yield losses

    names = {"segmenter": "forward", "discriminator": "discriminator"}
    watched: list[tuple[Any, str, Callable[[], str]]] = [
        (network, "forward", partial(str, names[name])) for name, network in trainer.state.networks.items()
    ]
    watched += [(optimizer, "step", lambda: "optimizer") for optimizer in trainer.state.optimizers.values()]
    watched += [(trainer.fabric, "backward", lambda: turn[0].replace("segmenter", "backward"))]
    with ExitStack() as stack:
        for owner, attribute, name in watched:
            stack.enter_context(patch.object(owner, attribute, clock.timed(getattr(owner, attribute), name)))
        stack.enter_context(patch.object(trainer.state, "method", noted))
        trainer.learn(number, clock.timed(data.__getitem__, lambda: "loading")(number))
        clock.tick()
    return clock.seconds


def time_step(trainer: Trainer, rounds: int) -> dict[str, Any]:
    """A step and its parts in terms of the bare network on the same images, in turns after one that does not count."""
    data = StepDataset(trainer.dataset, trainer.split, trainer.config, trainer.state.segmenter.mean)
    seconds: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        batch, began = data[number], time.process_time()
        bare(trainer, batch)
        middle = time.process_time()
        trainer.learn(number, data[number])
        found = {"bare": middle - began, "step": time.process_time() - middle}
        for name, value in (found | parts_of_a_step(trainer, data, number)).items() if number else ():
            seconds.setdefault(name, []).append(value)
    over = {name: ratio(values, seconds["bare"]) for name, values in seconds.items() if name != "bare"}
    parts = {name: row["ratio"] for name, row in over.items() if name != "step"}
    return over["step"] | {"parts": parts, "bare_cpu_seconds": round(statistics.median(seconds["bare"]), 3)}


def measure_step(options: argparse.Namespace) -> dict[str, Any]:
    """Every preset, without and with the discriminator."""
    rows = {}
    for preset in options.presets:
        for terms in TERMS:
            with opened(preset, options, terms, "threads=1") as trainer:
                rows[preset + terms] = show(time_step(trainer, 3 if preset == "voc" else options.rounds))
    return rows


def measure_wall(options: argparse.Namespace) -> dict[str, Any]:
    """The laptop presets, images in memory; on cached features without the bare network, which sees images."""
    rows = {}
    for preset in (preset for preset in options.presets if preset != "voc"):
        for terms in TERMS:
            with opened(preset, options, terms) as trainer:
                rows[preset + terms] = show(time_blocks(trainer, options.rounds))
        if preset != "scenes":
            with opened(f"{preset}_match", options, "", "augment.labeled_views=2") as trainer:
                rows[f"{preset}_match"] = show(time_blocks(trainer, options.rounds))
    return rows


def time_blocks(trainer: Trainer, rounds: int) -> dict[str, Any]:
    """Blocks of five steps: the share of the time that goes by waiting, and beside blocks of the bare network."""
    waits: list[float] = []

    def five() -> None:
        for _ in range(5):
            trainer.step()
            waits.append(trainer.waited)

    functions: dict[str, Callable[[], None]] = {"step": five}
    if trainer.config.cache != "features":
        functions["bare"] = partial(bare, trainer, trainer.read()[1], 5)
    seconds = in_turns(functions, rounds, time.perf_counter)
    found = ratio(seconds["step"], seconds["bare"]) if "bare" in seconds else {}
    share = round(sum(waits[5:]) / sum(seconds["step"]), 4)
    return found | {"waiting_share": share, "threads": torch.get_num_threads()}


def measure_cache(options: argparse.Namespace) -> dict[str, Any]:
    """Scenes with four views of each image: a whole step on cached features over one on images in memory."""
    rows: dict[str, Any] = {}
    last = " with discriminator"
    for method, terms in (("supervised", ""), ("latent", ""), ("latent", last), ("advsemiseg", last)):
        more = [f"method.name={method}", "augment.views=4", "threads=1", "data.scenes.train=40"]
        with ExitStack() as stack:
            caches = ("features", "images")
            both = [stack.enter_context(opened("scenes", options, terms, *more, f"cache={kind}")) for kind in caches]
            seconds = in_turns({kind: one.step for kind, one in zip(caches, both, strict=True)}, options.rounds)
        rows[method + terms] = show(ratio(seconds["features"], seconds["images"]))
    return rows


def measure_folding(options: argparse.Namespace) -> dict[str, Any]:
    """The laptop presets without the discriminator, CPU time of one thread: each part as it is and with no fold."""
    rows: dict[str, Any] = {}
    for preset in (preset for preset in options.presets if preset != "voc"):
        with opened(preset, options, "", "threads=1") as ours, opened(preset, options, "", "threads=1") as plain:
            plain.state.segmenter.cpu()  # a move drops what is folded
            images = {"encoder": 4 * ours.config.batch_size, "step": 2 * ours.config.batch_size, "evaluation": SCORED}
            both = [foldable(ours), foldable(plain)]
            for part, number in images.items():
                seconds = in_turns({"folded": both[0][part], "plain": both[1][part]}, options.rounds)
                rate = round(number / statistics.median(seconds["folded"]), 1)
                found = ratio(seconds["folded"], seconds["plain"]) | {"images_per_second": rate}
                rows[f"{preset}, {part}"] = show(found)
    return rows


def foldable(trainer: Trainer) -> dict[str, Callable[[], object]]:
    """What may run on a folded encoder: it alone on four batches of views, a step, images that are scored."""
    segmenter, images = trainer.state.segmenter, trainer.read()[1].images
    scored = trainer.dataset.items("val")[:SCORED]
    model = Model.live(segmenter, trainer.config, trainer.dataset)
    assert isinstance(images, torch.Tensor)

    @torch.no_grad()
    def encode() -> None:
        for _ in range(4):
            segmenter.encode(images)

    return {"encoder": encode, "step": trainer.step, "evaluation": lambda: score_items(model, trainer.dataset, scored)}


def start(preset: str, run: Path, *options: str) -> "subprocess.Popen[bytes]":
    """Begin to train in a process of its own."""
    command = [sys.executable, "-m", "latentseg", "train", preset, *options, "--run", str(run)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def measure_peak(_options: argparse.Namespace) -> dict[str, Any]:
    """Batch 10 + 10, crop 321, adversarial terms, consistency from the first step, random weights."""
    rows = {}
    with tempfile.TemporaryDirectory() as name:
        root = write_folder(Path(name) / "set", 40)
        fixed = ["data.kind=folder", f"data.root={root}", "data.labeled=1/2", "data.holdout=1", "steps=2", "workers=0"]
        for precision, pieces in (("bf16-mixed", 1), ("bf16-mixed", 5), ("32-true", 1)):
            chosen = [f"precision={precision}", f"model.micro_batches={pieces}"]
            more = ["validate_split=holdout", "model.weights_kind=none", LATE[0]]
            process = start("voc", Path(name) / "_".join(chosen), *fixed, *more, *chosen)
            _, status, usage = os.wait4(process.pid, 0)
            assert status == 0
            rows[" ".join(chosen)] = show({"peak_gb": round(usage.ru_maxrss / 2**20, 2)})
    return rows


def measure_processes(_options: argparse.Namespace) -> dict[str, Any]:
    """Images per second of scenes with one thread each, median of three rounds."""
    trained = ["model.encoder=resnet18", "model.weights_kind=none", "model.frozen=false"]
    rows = {}
    for name, more in (("Lite0 frozen", []), ("ResNet-18 trained", trained)):
        shared, apart = [], []
        for _ in range(3):
            alone = rate_of(1, *more)
            shared.append(round(rate_of(1, *more, "batch_size=8", "devices=2") / (2 * alone), 3))
            apart.append(round(rate_of(2, *more) / alone, 3))
        medians = {"two_processes": statistics.median(shared), "two_strangers": statistics.median(apart)}
        rows[f"scenes, {name}"] = show(medians | {"all": shared})
    return rows


def rate_of(copies: int, *options: str) -> float:
    """Images per second of runs at the same time, the mean of them, after a warm-up."""
    fixed = ["threads=1", "steps=60", "log_every=20", "data.scenes.val=1", LATE[0]]
    with tempfile.TemporaryDirectory() as folder:
        runs = [Path(folder) / str(number) for number in range(copies)]
        started = [start("scenes", run, *fixed, *options) for run in runs]
        assert [process.wait() for process in started] == [0] * copies
        rows = [row for run in runs for row in read_metrics(run) if row["step"] in (40, 60) and "ce" in row]
    return float(statistics.mean(row["images_per_second"] for row in rows))


def measure_loading(options: argparse.Namespace) -> dict[str, Any]:
    """A JPEG and its palette mask become the view of preset `voc`: scale 0.5..1.5, crop 321x321, mirror; medians."""
    torch.set_num_threads(1)
    augment, mean, seconds = load_config("voc", ["data.root=."]).augment, (0.48, 0.46, 0.41), dict[str, list[float]]()
    with tempfile.TemporaryDirectory() as folder:
        dataset = open_dataset(load_config("folder", [f"data.root={write_folder(Path(folder) / 'set', 16)}"]).data)
        for place, item in enumerate(dataset.items("train")):
            view, (pixels, ids) = draw_view(*SIZE, augment, np.random.default_rng(place)), dataset.read_pair(item)
            parts: dict[str, Callable[[], object]] = {
                "decode image": partial(dataset.read_image, item),
                "decode both, class ids": partial(dataset.read_pair, item),
                "view of the image": partial(view_image, pixels, view, augment, mean),
                "view of the class ids": partial(view_targets, ids, view, augment),
            }
            for name, taken in in_turns(parts, options.rounds).items():
                seconds.setdefault(name, []).extend(taken)
    rows = {name: round(1000 * statistics.median(taken), 2) for name, taken in seconds.items()}
    return rows | {"pair": round(sum([*rows.values()][1:]), 2)}


def show(row: Any) -> Any:
    """Print a result as soon as it is there."""
    print(json.dumps(row), flush=True)
    return row


PROBES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "step": measure_step,
    "wall": measure_wall,
    "cache": measure_cache,
    "folding": measure_folding,
    "peak": measure_peak,
    "processes": measure_processes,
    "loading": measure_loading,
    "rate": timing_predict.measure_rate,
    "memory": timing_predict.measure_memory,
}


def main() -> None:
    """Measure what is asked for, and put it into the results with machine, versions and time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("probes", nargs="+", choices=["all", *PROBES])
    parser.add_argument("--camvid", help="root of CamVid")
    parser.add_argument("--animals", help="root of VOC, for the animals")
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=PRESETS, help="of step, wall, folding")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="further options of step, wall, cache, folding"
    )
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch, for rate")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    versions = {name: metadata.version(name) for name in ("torch", "lightning-fabric", "numpy", "pillow")}
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), **versions}
    for name in PROBES if "all" in options.probes else options.probes:
        rows = PROBES[name](options)
        results = json.loads(options.out.read_text()) if options.out.exists() else {}
        rows = results.get(name, {}).get("rows", {}) | rows
        results[name] = {"machine": machine, "ended": time.strftime("%Y-%m-%d %H:%M"), "rows": rows}
        options.out.write_text(json.dumps(results, indent=1) + "\n")
        show({name: rows})


if __name__ == "__main__":
    main()
