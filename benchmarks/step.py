"""What a step costs: its parts, whole steps against the bare network, growth, memory. `speed.py` runs all of it.

    python benchmarks/step.py cache     # scenes: a step on cached features / on images in memory, loading included
    python benchmarks/step.py voc       # ResNet-101, batch 10 + 10, crop 321, L = 20, adversarial: seconds, peak memory

Figures are CPU time of one thread and ratios of it. `measure_step` runs with older code too (PYTHONPATH), from
1d20932 on.
"""

import argparse
import json
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from lightning_fabric import Fabric
from PIL import Image

from latentseg.caching import cached_features
from latentseg.config import Config
from latentseg.data.batches import Batch, StepDataset, batches
from latentseg.data.datasets import open_dataset
from latentseg.data.splits import Split, draw_split
from latentseg.methods import Networks
from latentseg.parallel import make_fabric
from latentseg.presets import load_config
from latentseg.training import State, build_state, set_up, training_step

try:
    from latentseg.processor import full_speed
except ImportError:  # older code
    full_speed = nullcontext  # type: ignore[assignment]

HERE = Path(__file__).parent
CLASSES = {"camvid": 11, "animals": 7, "scenes": 19, "voc": 21}


def random_batch(config: Config, num_classes: int) -> Batch:
    """A labelled and an unlabelled batch of the configured size."""
    generator = torch.Generator().manual_seed(0)
    shape = (config.batch_size, *config.augment.crop)
    images, unlabeled = (torch.rand(shape[0], 3, *shape[1:], generator=generator) for _ in range(2))
    targets = torch.randint(0, num_classes, shape, generator=generator)
    return Batch(images, targets, unlabeled, torch.ones(shape, dtype=torch.bool))


def bare(rig: "Rig", batch: Batch) -> None:
    """Forward and backward of the same segmenter on the same images, without a loss: the gradient is given."""
    assert batch.unlabeled is not None
    for images in (batch.images, batch.unlabeled):
        with rig.fabric.autocast():
            semantic, latent = rig.state.segmenter(images)
        torch.autograd.backward([semantic, latent], rig.gradients)


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


def write_photos(root: Path, number: int = 40) -> None:
    """Photo-like JPEGs of 500x375 pixels with palette masks in the layout of VOC: smooth random colours and regions."""
    for name in ("JPEGImages", "SegmentationClassAug", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    random = np.random.default_rng(0)
    for n in range(number):
        coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((500, 375), 3)
        pixels = np.asarray(coarse) + random.normal(0, 8, (375, 500, 1))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"JPEGImages/{n}.jpg", quality=90)
        ids = Image.fromarray(random.integers(0, 21, (6, 8), dtype=np.uint8)).resize((500, 375), 0)
        ids.putpalette(list(range(256)) * 3)
        ids.save(root / f"SegmentationClassAug/{n}.png")
    (root / "ImageSets/Segmentation/train_aug.txt").write_text("".join(f"{n}\n" for n in range(number)))


class Clock:
    """CPU time of a step by part. What runs within another part is taken out of that one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inside: list[str] = []
        self._last = time.process_time()

    def _tick(self) -> None:
        now = time.process_time()
        part = self._inside[-1] if self._inside else "losses"
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._last
        self._last = now

    def begin(self, name: str) -> None:
        """From here on time belongs to a part."""
        self._tick()
        self._inside.append(name)

    def end(self) -> None:
        """The part that was begun last is over."""
        self._tick()
        self._inside.pop()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time that belongs to a part."""
        self.begin(name)
        try:
            yield
        finally:
            self.end()


def timed(function: Callable[..., Any], clock: Clock, name: Callable[[], str]) -> Callable[..., Any]:
    """The same function, with its time on the clock."""

    def call(*arguments: Any, **options: Any) -> Any:
        with clock.part(name()):
            return function(*arguments, **options)

    return call


def parts_of_a_step(rig: "Rig", number: int) -> dict[str, float]:
    """CPU seconds of one step by part: loading, forward, losses, discriminator (all of it), backward, optimizer."""
    clock, turn = Clock(), [""]

    def method(nets: Networks, batch: Batch, step: int) -> Iterator[Any]:
        for losses in rig.state.method(nets, batch, step):
            turn[0] = losses.network
            yield losses

    def backward_of() -> str:
        return "discriminator" if turn[0] == "discriminator" else "backward"

    with ExitStack() as stack:

        def watch(owner: Any, attribute: str, name: Callable[[], str]) -> None:
            stack.enter_context(patch.object(owner, attribute, timed(getattr(owner, attribute), clock, name)))

        for network, name in (("segmenter", "forward"), ("discriminator", "discriminator")):
            if network in rig.nets:
                hooks = partial(lambda name, *_: clock.begin(name), name), lambda *_: clock.end()
                stack.callback(rig.nets[network].register_forward_pre_hook(hooks[0]).remove)
                stack.callback(rig.nets[network].register_forward_hook(hooks[1]).remove)
        watch(rig.fabric, "backward", backward_of)
        for optimizer in rig.optimizers.values():
            watch(optimizer, "step", lambda: "optimizer")
            watch(optimizer, "zero_grad", lambda: "optimizer")
        with clock.part("loading"):
            batch = rig.data[number]
        training_step(rig.fabric, method, rig.nets, rig.optimizers, batch, number)  # type: ignore[arg-type]
        with clock.part("end"):
            pass
    clock.seconds.pop("end")
    return clock.seconds


class Rig:
    """A run of a preset, ready to take steps."""

    def __init__(self, preset: str, root: str | None, options: list[str]) -> None:
        common = ["method.consistency_start=0", "method.ema_alpha=0.1", "model.weights_kind=none"]
        where = [f"data.root={root}"] if root else []
        self.config = config = load_config(preset, [*common[: 3 if preset == "voc" else 2], *where, *options])
        dataset = open_dataset(config.data, remember=config.cache == "images")
        drawn = draw_split(dataset, config.data, 0)
        split = Split(drawn.labeled[:24], drawn.unlabeled[:24])
        for item in [*split.labeled, *split.unlabeled]:
            dataset.read_image(item)  # in memory, where they are kept
        for item in split.labeled:
            dataset.read_targets(item)
        torch.manual_seed(0)
        self.state = build_state(config, dataset.classes, split)
        self.fabric = make_fabric(config)
        self.nets, self.optimizers = set_up(self.fabric, self.state)
        self.data = StepDataset(dataset, split, config, self.state.segmenter.mean)
        batch = self.data[0]
        with torch.no_grad():
            self.gradients = [torch.ones_like(logits) for logits in self.nets["segmenter"](batch.images)]

    def step(self, number: int) -> None:
        """A whole step, loading included."""
        training_step(self.fabric, self.state.method, self.nets, self.optimizers, self.data[number], number)


def measure_step(preset: str, root: str | None, adversarial: bool, rounds: int, *options: str) -> dict[str, Any]:
    """Parts of a step, and the whole one, in terms of the bare network on the same number of images.

    The bare network is forward and backward of the same segmenter on both batches, its gradient given. The three are
    measured in turns. One thread.

    Args:
        preset: What to train.
        root: Of its data set; None for scenes.
        adversarial: With the discriminator.
        rounds: Turns, after one that is not counted.
        options: Further options.
    """
    torch.set_num_threads(1)
    weights = (0.01, 0.001) if adversarial else (0.0, 0.0)
    terms = [f"method.lambda_lbl_adv={weights[0]}", f"method.lambda_ulbl_adv={weights[1]}"]
    parts: dict[str, list[float]] = {}
    ratios, bares = [], []
    with full_speed():
        rig = Rig(preset, root, [*terms, *options])
        for number in range(rounds + 1):
            batch = rig.data[number]
            took = [cpu_seconds(partial(bare, rig, batch)), cpu_seconds(partial(rig.step, number))]
            shares = parts_of_a_step(rig, number)
            if number:
                bares.append(took[0])
                ratios.append(took[1] / took[0])
                for name, value in shares.items():
                    parts.setdefault(name, []).append(value / took[0])
    return {
        "ratio": round(statistics.median(ratios), 3),
        "quartiles": [round(value, 3) for value in statistics.quantiles(ratios, n=4)],
        "parts": {name: round(statistics.median(values), 3) for name, values in parts.items()},
        "bare_cpu_seconds": round(statistics.median(bares), 3),
    }


def cpu_seconds(function: Callable[[], object]) -> float:
    """CPU time of a call, all threads."""
    began = time.process_time()
    function()
    return time.process_time() - began


GROWTH = {
    "num_latent": (2, 10, 20, 30, 40, 50),
    "classes": (2, 20, 50, 100, 150),
    "crop": (64, 128, 192, 256, 320),
    "batch": (1, 2, 4, 6, 8),
}
"""What grows, one at a time, from scenes' 19 classes, L = 20, crop 128 x 192, batch 4 + 4."""


def measure_growth(rounds: int) -> dict[str, list[tuple[float, float]]]:
    """CPU milliseconds of a step (no loading) over each size; crops by their area in thousands of pixels."""
    torch.set_num_threads(1)
    curves: dict[str, list[tuple[float, float]]] = {}
    for kind, values in GROWTH.items():
        functions: dict[str, Callable[[], object]] = {}
        for value in values:
            options = {
                "num_latent": [f"method.num_latent={value}"],
                "crop": [f"augment.crop=[{value},{value}]"],
                "batch": [f"batch_size={value}"],
            }.get(kind, [])
            config = load_config("scenes", [*options, "method.ema_alpha=0.1", "method.consistency_start=0"])
            number = value if kind == "classes" else CLASSES["scenes"]
            state = build_state(config, [str(name) for name in range(number)], Split([], []))
            fabric = make_fabric(config)
            nets, optimizers = set_up(fabric, state)
            batch = random_batch(config, number)
            functions[str(value)] = partial(training_step, fabric, state.method, nets, optimizers, batch, 9)
        with full_speed():
            seconds = median_seconds(functions, rounds)
        curves[kind] = [
            (value**2 / 1000 if kind == "crop" else value, round(1000 * statistics.median(seconds[str(value)]), 1))
            for value in values
        ]
    return curves


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


def measure_voc(precision: str, pieces: int) -> dict[str, Any]:
    """Seconds of one warm step and peak memory of the process; weights are random (no file is at hand)."""
    overrides = ["model.weights_kind=none", "method.consistency_start=0", "method.ema_alpha=0.001"]
    config = load_config("voc", [*overrides, f"precision={precision}", f"model.pieces={pieces}"])
    state = build_state(config, class_names("voc"), Split([], []))
    fabric = make_fabric(config)
    nets, optimizers = set_up(fabric, state)
    batch = random_batch(config, CLASSES["voc"])
    seconds, terms = [], {}
    with full_speed():
        for step in range(2):
            began = time.perf_counter()
            terms = training_step(fabric, state.method, nets, optimizers, batch, step)
            seconds.append(round(time.perf_counter() - began, 1))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "precision": precision,
        "pieces": pieces,
        "seconds": seconds,
        "peak_gb": round(peak, 2),
        "threads": torch.get_num_threads(),
        "terms": {name: round(float(value), 4) for name, value in terms.items()},
    }


def main() -> None:
    """Measure and print; the results of `cache` are kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["cache", "voc"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--pieces", type=int, default=1)
    options = parser.parse_args()
    if options.what == "voc":
        print(json.dumps(measure_voc(options.precision, options.pieces)))
        return
    machine = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__}
    rows = {"machine": machine} | measure_cache(options.rounds)
    (HERE / "step_cache.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
