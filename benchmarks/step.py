"""What one step costs: the method against the bare network, and one real step of preset `voc`.

    python benchmarks/step.py ratio     # camvid, animals, scenes: method / bare forward + backward, same images
    python benchmarks/step.py cache     # scenes: a step on cached features / on images in memory, loading included
    python benchmarks/step.py voc       # ResNet-101, batch 10 + 10, crop 321, L = 20, adversarial: seconds, peak memory

Images are random: their content does not change the cost. Data loading is left out, but for `cache`, which draws
scenes. Results: benchmarks/step_*.json.
"""

import argparse
import json
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from latentseg.caching import cached_features
from latentseg.config import Config
from latentseg.data.batches import Batch, batches
from latentseg.data.datasets import open_dataset
from latentseg.data.splits import Split, draw_split
from latentseg.methods import Networks
from latentseg.parallel import make_fabric
from latentseg.presets import load_config
from latentseg.training import State, build_state, set_up, training_step

HERE = Path(__file__).parent
CLASSES = {"camvid": 11, "animals": 7, "scenes": 19, "voc": 21}


def random_batch(config: Config, num_classes: int) -> Batch:
    """A labelled and an unlabelled batch of the configured size."""
    generator = torch.Generator().manual_seed(0)
    shape = (config.batch_size, *config.augment.crop)
    images, unlabeled = (torch.rand(shape[0], 3, *shape[1:], generator=generator) for _ in range(2))
    targets = torch.randint(0, num_classes, shape, generator=generator)
    return Batch(images, targets, unlabeled, torch.ones(shape, dtype=torch.bool))


def bare(nets: Networks, batch: Batch, gradients: list[torch.Tensor]) -> None:
    """Forward and backward of the same segmenter on the same images, without a loss: the gradient is given."""
    assert batch.unlabeled is not None
    for images in (batch.images, batch.unlabeled):
        semantic, latent = nets["segmenter"](images)
        torch.autograd.backward([semantic, latent], gradients)


def median_seconds(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time functions in turns, so that a busy moment of the machine meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(rounds + 1):
        for name, function in functions.items():
            began = time.process_time()
            function()
            if turn:  # the first turn warms up
                seconds[name].append(time.process_time() - began)
    return seconds


def class_names(preset: str) -> list[str]:
    """Stand-ins for the names of a preset's classes."""
    return [str(number) for number in range(CLASSES[preset])]


def measure_ratio(preset: str, rounds: int) -> dict[str, Any]:
    """Ratio of the step (forward, losses, backward, optimiser) to the bare network, without and with D."""
    torch.set_num_threads(1)
    row: dict[str, Any] = {}
    for name, weights in (("latent", (0.0, 0.0)), ("latent+adv", (0.01, 0.001))):
        options = [f"method.lambda_lbl_adv={weights[0]}", f"method.lambda_ulbl_adv={weights[1]}"]
        config = load_config(preset, [*options, "method.ema_alpha=0.1", "method.consistency_start=0"])
        state = build_state(config, class_names(preset), Split([], []))
        fabric = make_fabric(config)
        nets, optimizers = set_up(fabric, state)
        batch = random_batch(config, CLASSES[preset])
        with torch.no_grad():
            gradients = [torch.ones_like(logits) for logits in nets["segmenter"](batch.images)]
        functions: dict[str, Callable[[], object]] = {
            "bare": partial(bare, nets, batch, gradients),
            "step": partial(training_step, fabric, state.method, nets, optimizers, batch, 9),
        }
        seconds = median_seconds(functions, rounds)
        ratios = [step / base for step, base in zip(seconds["step"], seconds["bare"], strict=True)]
        row[name] = {
            "ratio": round(statistics.median(ratios), 3),
            "quartiles": [round(value, 3) for value in statistics.quantiles(ratios, n=4)],
            "bare_cpu_seconds": round(statistics.median(seconds["bare"]), 3),
        }
    return row


def measure_cache(rounds: int) -> dict[str, Any]:
    """Ratio of a whole step on cached features to one on images in memory, and what the features of an image cost."""
    torch.set_num_threads(1)
    methods = {
        "supervised": ["method.name=supervised"],
        "latent": [],
        "latent+adv": ["method.lambda_lbl_adv=0.01", "method.lambda_ulbl_adv=0.001"],
        "advsemiseg": ["method.name=advsemiseg", "method.lambda_lbl_adv=0.01", "method.lambda_ulbl_adv=0.001"],
    }
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        common = ["augment.views=4", "method.consistency_start=0", "data.scenes.train=40", f"cache_folder={folder}"]
        for name, options in methods.items():
            functions: dict[str, Callable[[], object]] = {}
            for cache in ("images", "features"):
                config = load_config("scenes", [*common, *options, f"cache={cache}"])
                dataset = open_dataset(config.data, remember=cache == "images")
                split = draw_split(dataset, config.data, 0)
                state = build_state(config, dataset.classes, split)
                fabric = make_fabric(config)
                nets, optimizers = set_up(fabric, state)
                began = time.process_time()
                stores = cached_features(config, state.segmenter, dataset, split, True) if cache == "features" else None
                if stores and name == "supervised":
                    rows["features_cpu_seconds_per_image"] = round((time.process_time() - began) / 40, 3)
                reads = state.method.uses_unlabeled
                for item in [*split.labeled, *split.unlabeled]:
                    dataset.read_image(item)  # in memory, where they are kept
                stream = batches(dataset, split, config, state.segmenter.mean, 0, reads, stores)
                functions[cache] = partial(one_step, fabric, state, nets, optimizers, stream)
            seconds = median_seconds(functions, rounds)
            ratios = [one / other for one, other in zip(seconds["features"], seconds["images"], strict=True)]
            rows[name] = {
                "ratio": round(statistics.median(ratios), 3),
                "quartiles": [round(value, 3) for value in statistics.quantiles(ratios, n=4)],
                "features_cpu_seconds": round(statistics.median(seconds["features"]), 3),
            }
    return rows


def one_step(
    fabric: Fabric, state: State, nets: Networks, optimizers: dict[str, Any], stream: Iterator[tuple[int, Batch]]
) -> None:
    """Load the next batch and take a step."""
    step, batch = next(stream)
    training_step(fabric, state.method, nets, optimizers, batch, step)


def measure_voc(precision: str) -> dict[str, Any]:
    """Seconds of one warm step and peak memory of the process; weights are random (no file is at hand)."""
    overrides = ["model.weights_kind=none", "method.consistency_start=0", "method.ema_alpha=0.001"]
    config = load_config("voc", [*overrides, f"precision={precision}"])
    state = build_state(config, class_names("voc"), Split([], []))
    fabric = make_fabric(config)
    nets, optimizers = set_up(fabric, state)
    batch = random_batch(config, CLASSES["voc"])
    seconds, terms = [], {}
    for step in range(2):
        began = time.perf_counter()
        terms = training_step(fabric, state.method, nets, optimizers, batch, step)
        seconds.append(round(time.perf_counter() - began, 1))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "seconds": seconds,
        "peak_gb": round(peak, 2),
        "threads": torch.get_num_threads(),
        "terms": {name: round(float(value), 4) for name, value in terms.items()},
    }


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["ratio", "cache", "voc"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--precision", default="32-true")
    options = parser.parse_args()
    machine = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__}
    if options.what == "voc":
        path, rows = HERE / f"step_voc_{options.precision}.json", {"voc": measure_voc(options.precision)}
    elif options.what == "cache":
        path, rows = HERE / "step_cache.json", measure_cache(options.rounds)
    else:
        path = HERE / "step_ratio.json"
        rows = {preset: measure_ratio(preset, options.rounds) for preset in ("camvid", "animals", "scenes")}
    path.write_text(json.dumps({"machine": machine} | rows, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
