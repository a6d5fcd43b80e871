"""The paper's two presets at full size: each starts, takes two steps, is killed, goes on, and is scored.

    python benchmarks/paper_presets.py      # 2 cores: about 20 minutes, 12 GB

The data are generated blocks in the official layouts (24 training and 2 validation images), the weights random ones
in the layout of resnet101COCO-41f33a49.pth: losses and scores only tell that everything ran. Model, crop, batch,
losses, workers and number of steps are the preset's: a run gets SIGKILL as soon as the index names the checkpoint of
its second step, and again, resumed, after the third. The last cell has the consistency from the first step on (for
voc with it: benchmarks/speed.py). A process above 16 GB is stopped, and the result says so. Needs Linux (/proc).
Results: benchmarks/paper_presets.json, cell by cell; a cell that is there is skipped. Its seconds are wall
time on a busy machine (load 2 to 7 on 2 cores) and no speeds: those are in speed.json.
"""

import argparse
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import BatchNorm2d
from torch.nn.functional import interpolate
from torchvision.models import resnet101

from latentseg.checkpoints import Checkpoints
from latentseg.data.images import CITYSCAPES_LABEL_IDS, VOC_CLASSES, voc_color
from latentseg.presets import differences, load_config
from latentseg.runs import read_metrics

RESULT = Path(__file__).with_suffix(".json")
TRAIN, VAL = 24, 2
LIMIT_GB = 16.0
OPTIONS = ["data.labeled=1/2", "checkpoint_every=1", "log_every=1", "threads=2"]
TERMS = frozenset({"ce", "latent", "adv", "adv_u", "real", "fake"})


class Cell(NamedTuple):
    """A preset, and what is measured with it."""

    preset: str
    options: list[str]
    """Overrides, beside the files."""
    terms: frozenset[str] = TERMS
    """What is logged as a loss."""
    may_be_zero: frozenset[str] = frozenset()
    """Terms that need not be above 0 in the first steps."""
    scored: bool = True
    """Whether the last checkpoint is evaluated."""


START = [*OPTIONS, "method.consistency_start=0"]
CELLS = {
    "voc": Cell("voc", OPTIONS),
    "cityscapes": Cell("cityscapes", OPTIONS),
    "cityscapes, consistency from step 1": Cell("cityscapes", START, TERMS | {"cons"}, scored=False),
}


def blocks(
    rng: np.random.Generator, size: tuple[int, int], values: Sequence[int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An image (H, W, 3) of 6 x 8 shaded blocks, and the mask value of each of its pixels."""
    rows, columns = (np.arange(length) * count // length for length, count in zip(size, (6, 8), strict=True))
    mask = rng.choice(np.array(values, np.uint8), (6, 8))[rows][:, columns]
    colors = np.random.default_rng(0).integers(40, 200, (256, 3))  # the same for every image: something to learn
    shade = rng.integers(-30, 30, (48, 64, 1))[np.arange(size[0]) * 48 // size[0]][
        :, np.arange(size[1]) * 64 // size[1]
    ]
    return (colors[mask] + shade).astype(np.uint8), mask


def write_voc(folder: Path) -> Path:
    """VOCdevkit with palette masks (0 to 20, outlines 255) and the lists train_aug and val; gives its root."""
    root = folder / "VOCdevkit" / "VOC2012"
    lists = root / "ImageSets" / "Segmentation"
    for part in (root / "JPEGImages", root / "SegmentationClassAug", lists):
        part.mkdir(parents=True, exist_ok=True)
    palette = [part for value in range(256) for part in voc_color(value)]
    ids = [f"2007_{number:06d}" for number in range(TRAIN + VAL)]
    for number, name in enumerate(ids):
        size = ((375, 500), (333, 500), (500, 375))[number % 3]
        image, values = blocks(np.random.default_rng(number), size, range(len(VOC_CLASSES)))
        values[:: size[0] // 6] = values[:, :: size[1] // 8] = 255
        Image.fromarray(image).save(root / "JPEGImages" / f"{name}.jpg")
        mask = Image.fromarray(values)
        mask.putpalette(palette)
        mask.save(root / "SegmentationClassAug" / f"{name}.png")
    (lists / "train_aug.txt").write_text("\n".join(ids[:TRAIN]) + "\n")
    (lists / "val.txt").write_text("\n".join(ids[TRAIN:]) + "\n")
    return root.parent


def write_cityscapes(folder: Path) -> Path:
    """leftImg8bit and gtFine with folders of cities and labelIds (0 to 33), 2048 x 1024; gives their root."""
    root = folder / "cityscapes"
    for number in range(TRAIN + VAL):
        split, city = ("val", "frankfurt") if number >= TRAIN else ("train", ("aachen", "ulm")[number % 2])
        image, labels = blocks(np.random.default_rng(number), (1024, 2048), range(CITYSCAPES_LABEL_IDS))
        files = {"leftImg8bit": ("leftImg8bit", image), "gtFine": ("gtFine_labelIds", labels)}
        for part, (ending, pixels) in files.items():
            path = root / part / split / city / f"{city}_{number:06d}_000019_{ending}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return root


def random_resnet101() -> dict[str, Tensor]:
    """Tensors of torchvision's ResNet-101, He-initialised; the statistics of the BatchNorms are those of a batch."""
    torch.manual_seed(0)
    net = resnet101(weights=None).train()
    for norm in (module for module in net.modules() if isinstance(module, BatchNorm2d)):
        norm.momentum = None  # the plain mean over what comes
    with torch.no_grad():
        net(interpolate(255 * torch.rand(4, 3, 12, 12) - 115, scale_factor=20))
    state: dict[str, Tensor] = net.state_dict()
    return state


def write_weights(folder: Path) -> Path:
    """A file as resnet101COCO-41f33a49.pth: old format, keys without num_batches_tracked, a head of 21 classes."""
    skipped = ("fc.", "num_batches_tracked")
    state = {key: value for key, value in random_resnet101().items() if not any(part in key for part in skipped)}
    for branch in range(4):
        state[f"layer5.conv2d_list.{branch}.weight"] = 0.01 * torch.randn(len(VOC_CLASSES), 2048, 3, 3)
        state[f"layer5.conv2d_list.{branch}.bias"] = torch.zeros(len(VOC_CLASSES))
    path = folder / "resnet101COCO-41f33a49.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return path


def watch(arguments: list[str], run: Path, until: int | None = None) -> dict[str, Any]:
    """Run latentseg, and kill it once the run has the checkpoint of step `until`, or when it exceeds the limit.

    Returns:
        Exit status (-9: killed), peak memory, and the seconds after which each log line and checkpoint was there.
    """
    old, seen, peak = _marks(run), dict[str, float](), 0.0
    began = time.perf_counter()
    with run.with_suffix(".log").open("a") as log:
        command = [sys.executable, "-m", "latentseg", *arguments]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        while process.poll() is None and peak <= LIMIT_GB and f"checkpoint {until}" not in seen:
            time.sleep(0.1)
            peak = max(peak, _peak_gb(process.pid))
            now = round(time.perf_counter() - began, 1)
            seen |= {mark: now for mark in _marks(run) if mark not in old and mark not in seen}
    finally:
        process.kill()
        process.wait()
        with suppress(ProcessLookupError):  # loading workers would notice within seconds
            os.killpg(process.pid, signal.SIGKILL)
    return {"exit": process.returncode, "over_limit": peak > LIMIT_GB, "peak_gb": round(peak, 2), "seconds": seen}


def _marks(run: Path) -> list[str]:
    last = Checkpoints(run / "checkpoints").last()
    return [f"line {row['step']}" for row in read_metrics(run)] + [f"checkpoint {last.step}" if last else ""]


def _peak_gb(process: int) -> float:
    with suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
        return int(found[1]) / 2**20 if found else 0.0
    return 0.0


def measure(cell: Cell, files: list[str], run: Path) -> dict[str, Any]:
    """Train, kill, resume, kill; score if the cell asks for it."""
    preset, options = cell.preset, cell.options
    result: dict[str, Any] = {"options": options}
    result["train"] = watch(["train", preset, *files, *options, "--run", str(run)], run, until=2)
    seconds, before = result["train"]["seconds"], read_metrics(run)
    if "checkpoint 2" not in seconds:
        return result | {"checks": {"reached step 2": False}}
    result["step_seconds"] = round(seconds["line 2"] - seconds["checkpoint 1"], 1)
    result["resume"] = watch(["train", str(run), "--resume"], run, until=3)
    rows, last = read_metrics(run), Checkpoints(run / "checkpoints").last()
    losses = {row["step"]: {name: round(row[name], 4) for name in sorted(cell.terms & row.keys())} for row in rows}
    config = load_config(run / "config.yaml")
    changed = {line.split(":")[0] for line in differences(config, load_config(preset))}
    checks = {
        "options differ from the preset as told": changed == {option.split("=")[0] for option in files + options},
        "both processes ended by SIGKILL": result["train"]["exit"] == result["resume"]["exit"] == -signal.SIGKILL,
        "resumed at step 2": f"steps 2 to {config.steps}" in run.with_suffix(".log").read_text(),
        "first two log lines kept, step 3 follows": rows[:2] == before and [row["step"] for row in rows] == [1, 2, 3],
        "index names step 3": last is not None and last.step == 3,
        "all terms finite and above 0": all(sound(cell, terms) for terms in losses.values()),
    }
    result |= {"losses": losses, "checks": checks}
    return result | _score(run, checks) if cell.scored else result


def sound(cell: Cell, terms: dict[str, float]) -> bool:
    """Whether the losses of a step are those of the cell, finite, and above 0 where they must be."""
    above = all(value > 0 for name, value in terms.items() if name not in cell.may_be_zero)
    return terms.keys() == cell.terms and all(map(math.isfinite, terms.values())) and above


def _score(run: Path, checks: dict[str, bool]) -> dict[str, Any]:
    watched = watch(["evaluate", str(run)], run)
    path = run / "evaluation-val-last.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    checks["scored step 3"] = result.get("step") == 3 and result["images"] == VAL
    kept = {name: result.get(name) for name in ("step", "images", "seconds")}
    return {"evaluate": watched | kept | {"miou": result.get("scores", {}).get("miou")}}


def main(cells: dict[str, Cell], out: Path, about: str | None, weights: Mapping[str, Callable[[Path], Path]]) -> None:
    """Measure the cells that are missing in a result file; status 1 if a check failed.

    Args:
        cells: By name.
        out: The result file.
        about: What --help says.
        weights: By preset, what writes the file of its weights into a folder.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", choices=list(cells), default=list(cells))
    chosen = parser.parse_args().cells
    results: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    with tempfile.TemporaryDirectory(prefix=f"{out.stem}-") as name:
        folder = Path(name)
        roots = {"voc": write_voc(folder), "cityscapes": write_cityscapes(folder)}
        for number, key in enumerate(key for key in chosen if key not in results):
            cell, run = cells[key], folder / f"run-{number}"
            root = roots[load_config(cell.preset).data.kind]
            results[key] = measure(cell, [f"data.root={root}", f"model.weights={weights[cell.preset](folder)}"], run)
            if (run / "environment.json").exists():
                results["machine"] = json.loads((run / "environment.json").read_text())
            out.write_text(json.dumps(results, indent=1) + "\n")
            print(key, json.dumps(results[key], indent=1), flush=True)
            if not all(results[key]["checks"].values()):
                print(run.with_suffix(".log").read_text()[-3000:])
    sys.exit(not all(all(results[key]["checks"].values()) for key in chosen))


if __name__ == "__main__":
    main(CELLS, RESULT, __doc__, dict.fromkeys(("voc", "cityscapes"), write_weights))
