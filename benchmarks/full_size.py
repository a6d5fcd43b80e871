"""The presets for GPUs at full size: each starts, takes two steps, is killed, goes on, and is scored.

    python benchmarks/full_size.py                       # 2 cores: 50 minutes, 12 GB

The data are made in the official layouts (24 training and 2 validation images), the weights are random ones in the
layouts of resnet101COCO-41f33a49.pth, torchvision's ResNet-101 and timm's DINOv2-S: losses and scores only tell that
everything ran. A run gets SIGKILL as soon as the index names the checkpoint of its second step, and again, resumed,
after the third. An untrained teacher may be sure of no pixel or of each, so `match` or `cons` may be 0. Results:
benchmarks/full_size.json; a cell that is there is skipped.
"""

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import timm
import torch
from made import write_cityscapes, write_voc
from torch import Tensor
from torch.nn import BatchNorm2d
from torch.nn.functional import interpolate
from torchvision.models import resnet101

from latentseg.data.colors import VOC_CLASSES
from latentseg.presets import differences, load_config
from latentseg.runs.checkpoints import Checkpoints
from latentseg.runs.metrics import read_metrics

RESULT = Path(__file__).with_suffix(".json")
TRAIN, VAL = 24, 2
ALWAYS = ["data.labeled=1/2", "checkpoint_every=1", "log_every=1"]
PAPER = [*ALWAYS, "threads=2"]
MATCH = [*ALWAYS, "threads=1", "method.consistency_start=0"]
CELLS: dict[str, list[str]] = {
    "voc": PAPER,
    "cityscapes": PAPER,
    "cityscapes, consistency from step 1": [*PAPER, "method.consistency_start=0"],
    "voc_match_dinov2": [*MATCH, "batch_size=2", "workers=2"],
    "cityscapes_match_dinov2": [*MATCH, "batch_size=1", "workers=2"],
    "voc_match": [*MATCH, "batch_size=2", "workers=2"],
    "cityscapes_match": [*MATCH, "batch_size=1", "workers=0"],
}
TERMS = {"ce", "latent", "adv", "adv_u", "real", "fake", "match", "cons"}
MAY_BE_ZERO = {"match", "cons"}


def random_resnet101() -> dict[str, Tensor]:
    """Tensors of torchvision's ResNet-101, He-initialised; the statistics of the BatchNorms are those of a batch."""
    torch.manual_seed(0)
    net = resnet101(weights=None).train()
    for norm in (module for module in net.modules() if isinstance(module, BatchNorm2d)):
        norm.momentum = None  # the plain mean over what comes
    with torch.no_grad():
        net(interpolate(255 * torch.rand(4, 3, 12, 12) - 115, scale_factor=20))
    return dict(net.state_dict())


def write_weights(preset: str, path: Path) -> None:
    """A file of the kind that the preset wants; the paper's has keys as in Caffe and a head of 21 classes."""
    torch.manual_seed(0)
    if preset.endswith("dinov2"):
        state = timm.create_model("vit_small_patch14_dinov2.lvd142m", pretrained=False).state_dict()
    else:
        state = random_resnet101()
    if preset in ("voc", "cityscapes"):
        skipped = ("fc.", "num_batches_tracked")
        state = {key: value for key, value in state.items() if not any(part in key for part in skipped)}
        for branch in range(4):
            state[f"layer5.conv2d_list.{branch}.weight"] = 0.01 * torch.randn(len(VOC_CLASSES), 2048, 3, 3)
            state[f"layer5.conv2d_list.{branch}.bias"] = torch.zeros(len(VOC_CLASSES))
    torch.save(state, path, _use_new_zipfile_serialization=preset not in ("voc", "cityscapes"))


def last_step(run: Path) -> int:
    """Step of the last checkpoint that the index names; 0 if there is none."""
    entry = Checkpoints(run / "checkpoints").last()
    return entry.step if entry else 0


def watch(arguments: list[str], run: Path, until: int = sys.maxsize) -> dict[str, Any]:
    """Run latentseg, and kill it once the run has the checkpoint of step `until`: exit is -9 then."""
    began = time.perf_counter()
    with run.with_suffix(".log").open("a") as log:
        command = [sys.executable, "-m", "latentseg", *arguments]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    ended = 0
    while not ended:
        time.sleep(0.1)
        if last_step(run) >= until:
            os.killpg(process.pid, signal.SIGKILL)  # loading workers would notice within seconds
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = round(time.perf_counter() - began, 1)
    return {"exit": process.returncode, "peak_gb": round(usage.ru_maxrss / 2**20, 2), "seconds": seconds}


def measure(preset: str, files: list[str], options: list[str], run: Path) -> dict[str, Any]:
    """Train, kill, resume, kill, score; `checks` says what went as it should."""
    trained = watch(["train", preset, *files, *options, "--run", str(run)], run, until=2)
    before = read_metrics(run)
    resumed = watch(["train", str(run), "--resume"], run, until=3)
    rows, step = read_metrics(run), last_step(run)
    evaluated = watch(["evaluate", str(run)], run)
    path = run / "evaluation-val-last.json"
    nothing: dict[str, Any] = {"step": 0, "images": 0, "scores": {"miou": None}}
    found = json.loads(path.read_text()) if path.exists() else nothing
    losses = {row["step"]: {name: round(row[name], 4) for name in sorted(TERMS & row.keys())} for row in rows}
    config = load_config(run / "config.yaml")
    changed = {line.split(":")[0] for line in differences(config, load_config(preset))}
    terms = [(name, value) for of_step in losses.values() for name, value in of_step.items()]
    checks = {
        "options differ from the preset as told": changed == {option.split("=")[0] for option in files + options},
        "both processes ended by SIGKILL": trained["exit"] == resumed["exit"] == -signal.SIGKILL,
        "resumed at step 2": f"steps 2 to {config.steps}" in run.with_suffix(".log").read_text(),
        "first two log lines kept, step 3 follows": rows[:2] == before and [row["step"] for row in rows] == [1, 2, 3],
        "index names step 3": step == 3,
        "all terms finite and above 0": all(0 <= value < math.inf for _, value in terms)
        and all(value > 0 for name, value in terms if name not in MAY_BE_ZERO),
        "scored step 3": found["step"] == 3 and found["images"] == VAL,
    }
    evaluated |= {"step": found["step"], "images": found["images"], "miou": found["scores"]["miou"]}
    result = {"options": options, "train": trained, "resume": resumed, "losses": losses, "checks": checks}
    return result | {"evaluate": evaluated, "machine": json.loads((run / "environment.json").read_text())}


def main() -> None:
    """Measure the cells that are missing in the result file; status 1 if a check failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=list(CELLS))
    chosen = parser.parse_args().cells
    results: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cityscapes = write_cityscapes(folder / "cityscapes", TRAIN, VAL)
        roots = {"voc": write_voc(folder / "voc", TRAIN, VAL), "cityscapes": cityscapes}
        for key in (key for key in chosen if key not in results):
            preset, run = key.partition(",")[0], folder / f"run-{list(CELLS).index(key)}"
            write_weights(preset, folder / "weights.pth")
            files = [f"data.root={roots[load_config(preset).data.kind]}", f"model.weights={folder / 'weights.pth'}"]
            results[key] = measure(preset, files, CELLS[key], run)
            RESULT.write_text(json.dumps(results, indent=1) + "\n")
            print(key, json.dumps(results[key], indent=1), flush=True)
            if not all(results[key]["checks"].values()):
                print(run.with_suffix(".log").read_text()[-3000:])
    sys.exit(not all(all(results[key]["checks"].values()) for key in chosen))


if __name__ == "__main__":
    main()
