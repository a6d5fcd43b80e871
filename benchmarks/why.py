"""Why the rows stand as they do: mIoU over the steps, IoU per class, and what the discriminator can tell.

    latentseg sweep benchmarks/curves.yaml data.root=.../camvid --run-root runs/tables
    python benchmarks/why.py camvid data.root=.../camvid --run-root runs/tables

Reads the runs of benchmarks/tables.py and of curves.yaml. For each adversarial row and seed, on every 4th validation
image: the discriminator's mean confidence on pixels that the segmenter has right and wrong, the chance that it is
higher on a right pixel than on a wrong one (area under the ROC curve; 0.5: it cannot tell), and the share and the
accuracy of the pixels above the confidence 0.2 that AdvSemiSeg trusts. Results: benchmarks/why_SET.json and .png.
"""

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from tables import SPLITS, label, sweeps
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from latentseg.checkpoints import load_module
from latentseg.data.datasets import open_dataset
from latentseg.data.splits import draw_split
from latentseg.inference.model import Model
from latentseg.losses import IGNORE_INDEX
from latentseg.runs import finite_or_none, open_run, read_metrics
from latentseg.sweeps.cells import Sweep, read_done
from latentseg.sweeps.files import read_sweep
from latentseg.training import build_state

HERE = Path(__file__).parent
TRUST = 0.2


@torch.no_grad()
def discriminator_figures(folder: Path) -> dict[str, float] | None:
    """What the discriminator of a finished run knows of right and wrong pixels; None if it has none."""
    run = open_run(folder)
    if not run.config.method.adversarial:
        return None
    dataset = open_dataset(run.config.data)
    state = build_state(run.config, run.classes, draw_split(dataset, run.config.data, run.config.seed))
    entry = run.checkpoints.last()
    assert entry is not None
    tensors = run.checkpoints.read(entry)
    for name, module in state.networks.items():
        load_module(name, module.eval(), tensors)
    model = Model(run, state.segmenter)
    confidences, rights = [], []
    for item in dataset.items("val")[::4]:
        probs = model.probs(dataset.read_image(item)).semantic
        targets = torch.from_numpy(dataset.read_targets(item)).long()
        valid = targets != IGNORE_INDEX
        confidence: Tensor = state.networks["discriminator"](probs).sigmoid()[0, 0]
        confidences.append(confidence[valid])
        rights.append((probs.argmax(1)[0] == targets)[valid])
    confidence, right = torch.cat(confidences), torch.cat(rights)
    trusted = confidence > TRUST
    return {
        "confidence_right": float(confidence[right].mean()),
        "confidence_wrong": float(confidence[~right].mean()),
        "auroc": float(binary_auroc(confidence, right.long(), thresholds=200)),
        "trusted": float(trusted.float().mean()),
        "accuracy_trusted": float(right[trusted].float().mean()) if bool(trusted.any()) else float("nan"),
        "accuracy": float(right.float().mean()),
    }


def per_class(cells: dict[str, Any], split: str) -> dict[str, list[float]]:
    """IoU of each row minus supervised's, per class, mean over the seeds, in points."""
    gains: dict[str, list[list[float]]] = defaultdict(list)
    for key, cell in cells.items():
        row, seed = key.split(" | ")
        base = cells.get(f"supervised | {seed}")
        if base and row != "supervised" and "trained along" not in row and not row.startswith("L ="):
            pairs = zip(cell[f"{split}_iou"], base[f"{split}_iou"], strict=True)
            gains[row].append([100 * (ours - theirs) for ours, theirs in pairs])
    return {
        row: [round(statistics.mean(values), 2) for values in zip(*seeds, strict=True)] for row, seeds in gains.items()
    }


def over_time(sweep: Sweep, run_root: Path) -> dict[str, dict[str, list[float]]]:
    """Of each finished row of curves.yaml: steps, mIoU in %, and the logged terms at these steps."""
    found: dict[str, dict[str, list[float]]] = {}
    for cell in sweep.cells:
        if read_done(run_root / cell.folder, ()) is None:
            continue
        rows = read_metrics(run_root / cell.folder)
        scored = {row["step"]: 100 * row["val_miou"] for row in rows if "val_miou" in row}
        found[cell.row] = {
            "step": [float(step) for step in scored],
            "miou": [round(value, 2) for value in scored.values()],
        }
        for name in ("cons", "real", "fake", "trusted", "latent"):
            values = {row["step"]: row[name] for row in rows if name in row}
            if values:
                found[cell.row][name] = [round(values.get(step, float("nan")), 4) for step in scored]
    return found


def plot(curves: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Two panels over the steps: mIoU minus supervised's, and the discriminator's losses."""
    figure = Figure(figsize=(10, 3.6), layout="constrained", dpi=130)
    gain, judge = figure.subplots(1, 2)
    base = curves["supervised"]["miou"]
    for row, values in curves.items():
        if row != "supervised":
            gain.plot(
                values["step"], [ours - theirs for ours, theirs in zip(values["miou"], base, strict=True)], label=row
            )
        if "real" in values:
            both = zip(values["real"], values["fake"], strict=True)
            judge.plot(values["step"], [(real + fake) / 2 for real, fake in both], label=row)
    gain.axhline(0, color="grey", lw=0.8)
    gain.set_title("val mIoU minus supervised's at the same step, points", fontsize=9)
    judge.axhline(0.693, color="grey", lw=0.8)
    judge.set_title("discriminator's loss, Eq. 12 (grey: it cannot tell)", fontsize=9)
    for axis in (gain, judge):
        axis.set_xlabel("step")
        axis.legend(fontsize=7, frameon=False)
    figure.savefig(path)


def main() -> None:
    """Collect what the finished runs say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(SPLITS))
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--run-root", type=Path, default=Path("runs/tables"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    judges: dict[str, dict[str, float]] = {}
    for sweep in sweeps(options.name, options.overrides, options.seeds, trained=False):
        for cell in sweep.cells:
            if sweep.table != 4 and read_done(options.run_root / cell.folder, ()):
                figures = discriminator_figures(options.run_root / cell.folder)
                if figures:
                    judges[label(sweep, cell)] = {name: round(value, 4) for name, value in figures.items()}
                    print(label(sweep, cell), judges[label(sweep, cell)], flush=True)
    cells = json.loads((HERE / f"tables_{options.name}.json").read_text())
    result: dict[str, Any] = {
        "discriminator": judges,
        "iou_gain": {s: per_class(cells, s) for s in SPLITS[options.name]},
    }
    result["classes"] = list(
        open_dataset(read_sweep(f"table3_{options.name}", options.overrides).cells[0].config.data).classes
    )
    if options.name == "camvid":
        result["over_time"] = over_time(read_sweep(HERE / "curves.yaml", options.overrides), options.run_root)
        if "supervised" in result["over_time"]:
            plot(result["over_time"], HERE / "why_camvid.png")
    (HERE / f"why_{options.name}.json").write_text(json.dumps(finite_or_none(result), indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
