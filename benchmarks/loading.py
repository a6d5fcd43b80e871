"""What loading costs: one image with its mask, by part; and how long a laptop run waits for its batches.

    python benchmarks/loading.py pair --camvid CAMVID --animals VOC2012
    python benchmarks/loading.py waiting --camvid CAMVID --animals VOC2012

`pair`: a 500x375 JPEG and its palette mask become the labelled view of preset `voc` (scale 0.5..1.5, crop 321x321,
mirror), on one core. Photos of that size are made from the smaller ones of VOC2012: scaled up, with mild noise, quality
91, 4:2:0. `waiting`: the share of a step in which the loop waits for its batch, after each image was read once.
Results: benchmarks/loading.json; what the code did before stands in it under `before`, and stays.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor

from latentseg.caching import cached_features
from latentseg.data.batches import batches
from latentseg.data.datasets import Dataset, Item, open_dataset
from latentseg.data.images import read_mask, read_pair, read_rgb, voc_color
from latentseg.data.splits import Split, draw_split
from latentseg.data.transforms import draw_view, view_image, view_targets, view_valid
from latentseg.parallel import make_fabric
from latentseg.presets import load_config
from latentseg.processor import full_speed
from latentseg.training import build_state, set_up, training_step

RESULTS = Path(__file__).parent / "loading.json"
PRESETS = ("scenes", "camvid", "animals", "camvid_match", "animals_match")
SIZE, PAIRS, MEAN = (500, 375), 32, (0.48, 0.46, 0.41)
WARM = 4
"""Steps that are not counted."""


def write_pairs(source: Dataset, root: Path) -> dict[str, list[float]]:
    """Write pairs of VOC's usual size in its layout; gives least, median and greatest kB of images and of masks."""
    for name in ("JPEGImages", "SegmentationClassAug", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    palette = [part for value in range(256) for part in voc_color(value)]
    rng = np.random.default_rng(0)
    kept: list[str] = []
    for item in source.items("train"):
        assert item.image is not None
        pixels = Image.fromarray(source.read_image(item))
        if item.mask is None or pixels.width <= pixels.height or len(kept) == PAIRS:
            continue
        noise = rng.normal(0, 7, (SIZE[1], SIZE[0], 1))
        photo = np.clip(np.asarray(pixels.resize(SIZE, Image.Resampling.BICUBIC)) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(photo).save(root / f"JPEGImages/{item.id}.jpg", quality=91, subsampling=2)
        mask = Image.fromarray(read_mask(item.mask)).resize(SIZE, Image.Resampling.NEAREST)
        mask.putpalette(palette)
        mask.save(root / f"SegmentationClassAug/{item.id}.png")
        kept.append(item.id)
    (root / "ImageSets/Segmentation/train_aug.txt").write_text("".join(f"{name}\n" for name in kept))
    return {name: _kilobytes(root / name) for name in ("JPEGImages", "SegmentationClassAug")}


def _kilobytes(folder: Path) -> list[float]:
    sizes = sorted(path.stat().st_size / 1000 for path in folder.iterdir())
    return [round(size, 1) for size in (sizes[0], statistics.median(sizes), sizes[-1])]


def measure_pair(animals: str, rounds: int = 10) -> dict[str, Any]:
    """CPU milliseconds of a pair by part, medians; `pair` is the whole, and not the sum of the parts.

    Args:
        animals: Root of a VOC set, from whose photos larger ones are made.
        rounds: How often each of the pairs is loaded.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        source = open_dataset(load_config("animals", [f"data.root={animals}", "data.train_list=train"]).data)
        sizes = write_pairs(source, Path(folder))
        config = load_config("voc", [f"data.root={folder}", "data.labeled=all", "model.weights_kind=none"])
        dataset = open_dataset(config.data)
        seconds: dict[str, list[float]] = {}
        for number in range(rounds + 1):
            for place, item in enumerate(dataset.items("train")):
                for part, function in _parts(dataset, item, [number, place]).items():
                    began = time.process_time()
                    function()
                    if number:  # the first round warms up
                        seconds.setdefault(part, []).append(time.process_time() - began)
    return {
        "ms": {part: round(1000 * statistics.median(values), 2) for part, values in seconds.items()},
        "quartiles_of_pair": [round(1000 * value, 2) for value in statistics.quantiles(seconds["pair"], n=4)],
        "kilobytes": sizes,
    }


def _parts(dataset: Dataset, item: Item, seed: list[int]) -> dict[str, Callable[[], object]]:
    augment = load_config("voc", ["data.root=."]).augment
    view = draw_view(SIZE[1], SIZE[0], augment, np.random.default_rng(seed))
    image, mask = item.image, item.mask
    assert image is not None
    assert mask is not None
    pixels, ids = dataset.read_pair(item)

    def pair() -> tuple[Tensor, Tensor, Tensor]:
        one, other = dataset.read_pair(item)
        return view_image(one, view, augment, MEAN), view_targets(other, view, augment), view_valid(view, augment)

    return {
        "pair": pair,
        "decode image": lambda: read_rgb(image),
        "decode mask": lambda: read_mask(mask),
        "decode both": lambda: read_pair(image, mask),
        "decode both, class ids": lambda: dataset.read_pair(item),
        "view of the image": lambda: view_image(pixels, view, augment, MEAN),
        "view of the class ids": lambda: view_targets(ids, view, augment),
    }


def measure_waiting(preset: str, root: str | None, steps: int = 24, threads: int = 0) -> dict[str, Any]:
    """Waiting for a batch as a share of the step, wall clock, after each image was read once.

    As many images are taken as the steps need; with `cache: features` the labelled ones have two views, not 64.

    Args:
        preset: A laptop preset.
        root: Of its data set; None for scenes.
        steps: Steps to time, after four others.
        threads: Of PyTorch; 0: as many as a run would take.
    """
    if threads:
        torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        options = [f"cache_folder={folder}", "method.consistency_start=0"] + ([f"data.root={root}"] if root else [])
        config = load_config(preset, options + ["augment.labeled_views=2"] * preset.endswith("_match"))
        dataset = open_dataset(config.data, remember=config.cache == "images")
        whole = draw_split(dataset, config.data, 0)
        split = Split(whole.labeled[:40], whole.unlabeled[: (steps + WARM) * config.batch_size])
        torch.manual_seed(0)
        state, fabric = build_state(config, dataset.classes, split), make_fabric(config)
        nets, optimizers = set_up(fabric, state)
        reads, stores = state.method.uses_unlabeled, None
        if config.cache == "features":
            stores = cached_features(config, state.segmenter, dataset, split, reads)
        for item in split.labeled:
            dataset.read_pair(item)
        for item in split.unlabeled if stores is None else []:
            dataset.read_image(item)
        waits, works = [], []
        stream = batches(dataset, split, config, state.segmenter.mean, 0, reads, stores)
        with full_speed():
            for _ in range(steps + WARM):
                began = time.perf_counter()
                step, batch = next(stream)
                came = time.perf_counter()
                training_step(fabric, state.method, nets, optimizers, batch.to(fabric.device), step)
                waits.append(came - began)
                works.append(time.perf_counter() - came)
    waits, works = waits[WARM:], works[WARM:]
    return {
        "share": round(sum(waits) / (sum(waits) + sum(works)), 4),
        "waiting_ms": round(1000 * statistics.median(waits), 2),
        "step_ms": round(1000 * statistics.median(works), 1),
        "threads": torch.get_num_threads(),
    }


def root_of(preset: str, camvid: str, animals: str) -> str | None:
    """Which data a preset reads."""
    return camvid if preset.startswith("camvid") else animals if preset.startswith("animals") else None


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["pair", "waiting"])
    parser.add_argument("--camvid", required=True)
    parser.add_argument("--animals", required=True)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--threads", type=int, default=0, help="of PyTorch while it waits and trains")
    options = parser.parse_args()
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    processor = platform.processor() or platform.machine()
    rows["machine"] = {"processor": processor, "torch": torch.__version__, "pillow": PIL.__version__}
    if options.what == "pair":
        rows["pair"] = measure_pair(options.animals, options.rounds)
    else:
        roots = {preset: root_of(preset, options.camvid, options.animals) for preset in PRESETS}
        rows["waiting"] = {
            preset: measure_waiting(preset, root, options.steps, options.threads) for preset, root in roots.items()
        }
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
