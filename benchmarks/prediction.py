"""How near prediction and evaluation come to the bare network, and whether memory stays flat.

    python benchmarks/prediction.py rate       # share of the bare forward's rate: ResNet-101 (bf16), Lite0 (float32)
    python benchmarks/prediction.py memory     # resident memory after 200 and 2,000 images, 100 and 1,000 frames
    python benchmarks/prediction.py batches    # the forward by size of the batch
    python benchmarks/prediction.py parts      # milliseconds of counting, mixing and encoding, before and now

Images are generated: 500 x 375, as detailed as photographs, weights random. `predict` decodes a JPEG and writes index
PNG and overlay (`latent` adds the latent map); `evaluate` decodes image and mask and counts. Bare is the segmenter's
forward on tensors in memory: same precision, sizes, batches, threads; for `predict` with the branches that it shows,
for `evaluate` without the latent one. All are timed in turns in one process; `--threads 1`, the
default, compares processor time, so that other jobs on the machine do not count. Results: benchmarks/prediction.json.
"""

import argparse
import io
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from latentseg.config import Config
from latentseg.data.datasets import Dataset, distinct_palette, open_dataset
from latentseg.inference.evaluate import score_items
from latentseg.inference.model import Model, argmax
from latentseg.inference.pictures import index_png, overlay, rgb_png
from latentseg.inference.predict import predict
from latentseg.inference.stream import BATCH_PIXELS
from latentseg.metrics import confusion_matrix
from latentseg.models.segmenter import build_segmenter
from latentseg.parallel import choose_device, choose_precision
from latentseg.presets import load_config
from latentseg.processor import full_speed
from latentseg.runs import Run

HERE = Path(__file__).parent
HEIGHT, WIDTH, CLASSES, LATENT = 375, 500, 21, 20
NETWORKS = {
    "deeplab_resnet101": ("voc", ["precision=bf16-mixed"]),
    "lite0": ("animals", ["precision=32-true", "data.classes=null", "data.class_map=null"]),
}


def photo(seed: int, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """Clouds of colour at all scales, with a little noise: as hard to compress as a photograph."""
    rng = np.random.default_rng(seed)
    pixels = 128 + rng.normal(0, 3, (height, width, 3)).astype(np.float32)
    for octave in range(2, 8):
        coarse = torch.from_numpy(
            rng.normal(0, 72 / 2 ** (octave / 2), (1, 3, 2**octave, 2**octave)).astype(np.float32)
        )
        pixels += functional.interpolate(coarse, (height, width), mode="bicubic")[0].permute(1, 2, 0).numpy()
    return pixels.clip(0, 255).astype(np.uint8)


def write_set(root: Path, number: int, height: int = HEIGHT, width: int = WIDTH, different: int = 8) -> Path:
    """A data set of the layout `folder`: photographs as JPEG, masks of large regions."""
    for folder in ("images/val", "images/train", "masks/val", "masks/train"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(f"class {number}" for number in range(CLASSES)))
    for index in range(number):
        image, mask = root / "images/val" / f"{index:05}.jpg", root / "masks/val" / f"{index:05}.png"
        if index < different:
            pixels = photo(index, height, width)
            Image.fromarray(pixels).save(image, quality=90)
            Image.fromarray(pixels[..., 0] // 64 * 4).save(mask)
        else:  # the same again
            os.link(root / "images/val" / f"{index % different:05}.jpg", image)
            os.link(root / "masks/val" / f"{index % different:05}.png", mask)
    return root


def untrained(config: Config, root: Path, latent: bool) -> Model:
    """A model with random weights."""
    torch.manual_seed(0)
    segmenter = build_segmenter(config.model, CLASSES, LATENT if latent else 0).to(choose_device(config.device)).eval()
    names = tuple((root / "classes.txt").read_text().split("\n"))
    return Model(Run(root / "run", config, names, distinct_palette(CLASSES)), segmenter)


def network_config(name: str, root: Path) -> Config:
    """The preset of a network, random weights."""
    preset, options = NETWORKS[name]
    data = ["data.kind=folder", f"data.root={root}", "cache=none"]
    return load_config(preset, [*data, *options, "model.weights_kind=none"])


@torch.inference_mode()
def bare(model: Model, images: int, latent: bool) -> None:
    """Forward tensors of the same number and size, padded as the encoder wants, in the batches that prediction has."""
    device = model.device
    full = model.run.config.inference.batch_size or max(1, BATCH_PIXELS[device.type] // (HEIGHT * WIDTH))
    tensor = torch.rand(full, 3, *model.segmenter.valid_size(HEIGHT, WIDTH), device=device)
    for begin in range(0, images, full):
        with torch.autocast(device.type, torch.bfloat16, enabled=model.precision == "bf16-mixed"):
            model.segmenter(tensor[: images - begin], latent=latent)


def predict_all_to(model: Model, folder: Path, out: Path, number: Iterator[int]) -> None:
    """The verb `predict`, to a new folder each time."""
    predict(model, [folder], out / str(next(number)))


def score(model: Model, dataset: Dataset) -> None:
    """What the verb `evaluate` does with the images."""
    score_items(model, dataset, dataset.items("val"))


def in_turns(
    functions: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each function, timed in turns after a first turn that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(rounds + 1):
        for name, function in functions.items():
            began = clock()
            with full_speed():  # as the verbs do
                function()
            if turn:
                seconds[name].append(clock() - began)
    return seconds


def measure_rate(name: str, images: int, rounds: int, threads: int) -> dict[str, Any]:
    """Share of the bare forward's rate: median of the rounds, each against the bare forward beside it.

    With one thread processor time is measured, of all threads of the process: the share that is left where every
    processor is busy, whatever else runs on the machine. With several threads it is time on the wall.
    """
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        root, out = write_set(Path(folder) / "set", images), Path(folder) / "out"
        config = network_config(name, root)
        dataset, numbers = open_dataset(config.data), count()
        plain, both = (untrained(config, root, latent) for latent in (False, True))
        photos = root / "images/val"
        seconds = in_turns(
            {
                "bare": partial(bare, plain, images, latent=False),
                "predict": partial(predict_all_to, plain, photos, out, numbers),
                "evaluate": partial(score, plain, dataset),
                "bare_latent": partial(bare, both, images, latent=True),
                "predict_latent": partial(predict_all_to, both, photos, out, numbers),
            },
            rounds,
            time.process_time if threads == 1 else time.perf_counter,
        )
    row: dict[str, Any] = {"images": images, "rounds": rounds, "threads": threads, "precision": plain.precision}
    row["bare_ms_per_image"] = round(1000 * statistics.median(seconds["bare"]) / images, 1)
    for what, base in (("predict", "bare"), ("evaluate", "bare"), ("predict_latent", "bare_latent")):
        shares = sorted(one / other for one, other in zip(seconds[base], seconds[what], strict=True))
        row[what] = {
            "share": round(statistics.median(shares), 3),
            "from": round(shares[0], 3),
            "to": round(shares[-1], 3),
        }
    return row


def resident_mb() -> float:
    """Memory of this process that lies in RAM (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


@contextmanager
def watched(owner: Any, name: str, at: tuple[int, ...]) -> Iterator[dict[str, float]]:
    """Note the resident memory when a function is called for the nth time."""
    found: dict[str, float] = {}
    original, calls = getattr(owner, name), count(1)

    def call(*arguments: Any, **options: Any) -> Any:
        number = next(calls)
        if number in at:
            found[str(number)] = resident_mb()
        return original(*arguments, **options)

    setattr(owner, name, call)
    try:
        yield found
    finally:
        setattr(owner, name, original)


def tiny(root: Path) -> Model:
    """Lite0 on images of half the side, its latent branch included."""
    return untrained(network_config("lite0", root).model_copy(), root, latent=True)


def measure_memory(images: int = 2000, frames: int = 1000) -> dict[str, Any]:
    """Resident MB over many images, predicted and scored, and over the frames of a video."""
    from latentseg.inference import evaluate as evaluation  # noqa: PLC0415
    from latentseg.inference import predict as prediction  # noqa: PLC0415
    from latentseg.inference.video import VideoWriter  # noqa: PLC0415

    torch.set_num_threads(1)
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        root, out = write_set(Path(folder) / "set", images, 96, 128, different=50), Path(folder) / "out"
        model = tiny(root)
        clip = Path(folder) / "clip.mp4"
        with VideoWriter(clip, Fraction(25)) as writer:
            for number in range(frames):
                writer.add(np.roll(photo(number % 8, 96, 128), number, 1), Fraction(number, 25))
        dataset = open_dataset(model.run.config.data)
        drawn, counted = (prediction, "overlay"), (evaluation, "confusion_matrix")  # called once per image
        jobs: dict[str, tuple[Callable[[], object], tuple[Any, str], int]] = {
            "predict": (partial(predict, model, [root / "images/val"], out / "images"), drawn, images),
            "evaluate": (partial(score, model, dataset), counted, images),
            "video": (partial(predict, model, [clip], out / "video"), drawn, frames),
        }
        for name, (job, called, number) in jobs.items():
            with watched(*called, (number // 10, number // 2, number)) as found:
                job()
            result[name] = {
                "resident_mb_after": found,
                "growth_mb": round(found[str(number)] - found[str(number // 10)], 1),
            }
    return result


def milliseconds(function: Callable[[], object], rounds: int = 15) -> float:
    """Median."""
    return round(1000 * statistics.median(in_turns({"it": function}, rounds)["it"]), 2)


def pillow_png(picture: Image.Image) -> bytes:
    """The PNG that Pillow writes unasked."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def boolean_gather(preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The confusion matrix of before: pixels picked by a mask, in int64."""
    valid = targets != 255
    truth, guess = targets[valid].long(), preds[valid].long()
    assert 0 <= int(truth.min()) <= int(truth.max()) < CLASSES
    assert 0 <= int(guess.min()) <= int(guess.max()) < CLASSES
    return torch.bincount(truth * CLASSES + guess, minlength=CLASSES**2)


def measure_parts() -> dict[str, Any]:
    """Milliseconds per image of 500 x 375, and kilobytes; `before` is how it was done up to now."""
    torch.manual_seed(0)
    pixels, palette = photo(0), distinct_palette(CLASSES)
    logits = functional.interpolate(torch.randn(1, CLASSES, 12, 16), (HEIGHT, WIDTH), mode="bilinear")
    labels = argmax(logits)[0]
    ids, targets = labels.numpy(), labels.roll(5, 0)
    mixed, wide = overlay(pixels, ids, palette), labels.long()
    old_index = Image.fromarray(ids)
    old_index.putpalette(palette.tobytes())
    parts: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "classes of the logits": (lambda: logits.softmax(1).argmax(1), lambda: argmax(logits)),
        "confusion matrix": (
            lambda: boolean_gather(wide, targets),
            lambda: confusion_matrix(labels, targets, CLASSES),
        ),
        "reading both id maps (copy)": (
            lambda: (wide.clone(), targets.clone()),
            lambda: (labels.clone(), targets.clone()),
        ),
        "overlay": (
            lambda: ((palette[ids].astype(np.uint16) + pixels) // 2).astype(np.uint8),
            lambda: overlay(pixels, ids, palette),
        ),
        "overlay PNG": (lambda: pillow_png(Image.fromarray(mixed)), lambda: rgb_png(mixed)),
        "index PNG": (lambda: pillow_png(old_index), lambda: index_png(ids, palette)),
    }
    result: dict[str, Any] = {
        name: {"before_ms": milliseconds(old), "ms": milliseconds(new)} for name, (old, new) in parts.items()
    }
    result["overlay PNG"] |= {
        "before_kb": len(pillow_png(Image.fromarray(mixed))) // 1000,
        "kb": len(rgb_png(mixed)) // 1000,
    }
    result["index PNG"] |= {"before_kb": len(pillow_png(old_index)) / 1000, "kb": len(index_png(ids, palette)) / 1000}
    return result


def measure_batches(rounds: int = 9) -> dict[str, dict[str, float]]:
    """Milliseconds per image of Lite0's forward, by size of the images and of the batch."""
    torch.manual_seed(0)
    config = load_config("animals", ["model.weights_kind=none", "data.root=none"])
    segmenter = build_segmenter(config.model, CLASSES, 0).eval()
    result: dict[str, dict[str, float]] = {}
    with torch.inference_mode():
        for height, width in ((96, 128), (192, 256), (384, 512)):
            batches = {str(number): torch.rand(number, 3, height, width) for number in (1, 2, 4, 8)}
            seconds = in_turns({name: partial(segmenter, batch) for name, batch in batches.items()}, rounds)
            result[f"{height}x{width}"] = {
                name: round(1000 * statistics.median(several) / int(name), 1) for name, several in seconds.items()
            }
    return result


def main() -> None:
    """Measure and add to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["rate", "memory", "batches", "parts"])
    parser.add_argument("--network", choices=list(NETWORKS), help="rate: this one only")
    parser.add_argument("--images", type=int, help="rate: 8 for ResNet-101 and 16 for Lite0 if not given")
    parser.add_argument("--rounds", type=int, help="rate: 2 and 9 if not given")
    parser.add_argument("--threads", type=int, default=1, help="rate: of PyTorch; 1 measures processor time")
    options = parser.parse_args()
    path = HERE / "prediction.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    if options.what == "rate":
        for name in [options.network] if options.network else NETWORKS:
            images, rounds = (8, 2) if name.startswith("deeplab") else (16, 9)
            row = measure_rate(name, options.images or images, options.rounds or rounds, options.threads)
            results.setdefault(name, {})["processor" if options.threads == 1 else "wall"] = row
    else:
        others: dict[str, Callable[[], Any]] = {
            "memory": measure_memory,
            "batches": measure_batches,
            "parts": measure_parts,
        }
        results[options.what] = others[options.what]()
    results["machine"] = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "bfloat16": choose_precision(load_config("voc", ["precision=auto"]), torch.device("cpu")) == "bf16-mixed",
        "torch": torch.__version__,
        "pillow": version("pillow"),
        "av": version("av"),
        "python": platform.python_version(),
    }
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
