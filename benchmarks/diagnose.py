"""Why the consistency helps or not: what the terms pull at, and how good the latent target is, over the steps.

    python benchmarks/diagnose.py camvid data.root=.../camvid seed=0

Trains as `latentseg train` would and, every EVERY steps, measures on held-out images (validate_split): the accuracy of
the latent target (argmax S_l against the latent class that P(l|c) gives the true class) beside that of the mapped
semantic branch (argmax S_lhat), both also where the semantic branch is wrong; mIoU; H(C|L) of the batch; and the
norm of each weighted term's gradient at the semantic branch's fused map, as a share. Results:
benchmarks/diagnose_PRESET.json and .png.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from latentseg.config import Config
from latentseg.data.batches import Batch, batches
from latentseg.data.datasets import Dataset, Item, open_dataset
from latentseg.data.splits import draw_split
from latentseg.inference import predict_probs, to_tensor
from latentseg.losses import latent_given_class, semantic_to_latent
from latentseg.methods import Networks
from latentseg.methods.latent import Latent
from latentseg.metrics import confusion_matrix, scores
from latentseg.models.segmenter import Segmenter
from latentseg.training.optim import decay
from latentseg.parallel import make_fabric
from latentseg.presets import load_config
from latentseg.training import build_state, set_up, training_step

HERE = Path(__file__).parent


def gradient_shares(method: Latent, nets: Networks, batch: Batch, step: int) -> dict[str, float]:
    """Norm of each weighted term's gradient at the semantic branch's fused map, as a share of all norms."""
    segmenter = nets["segmenter"]
    fused = [parameter for name, parameter in segmenter.named_parameters() if "semantic_head.fusion" in name]
    before = method.cooccurrence.clone()
    norms: dict[str, float] = {}
    for losses in method(nets, batch, step):
        if losses.network != "segmenter":
            continue
        for name, term in losses.terms.items():
            gradients = torch.autograd.grad(term.weight * term.value, fused, retain_graph=True, allow_unused=True)
            squares = [gradient.pow(2).sum() for gradient in gradients if gradient is not None]
            norms[name] = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
    method.cooccurrence.copy_(before)
    whole = sum(norms.values())
    return {name: round(norm / whole, 4) for name, norm in norms.items()}


def target_quality(
    segmenter: Segmenter, matrix: Tensor, dataset: Dataset, items: list[Item], config: Config
) -> dict[str, float]:
    """Accuracy of the latent target and of the mapped semantic branch, everywhere and where the latter is wrong."""
    segmenter.eval()
    given = latent_given_class(matrix)
    classes = len(dataset.classes)
    counts = torch.zeros(6, dtype=torch.float64)
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    for item in items:
        targets = torch.from_numpy(dataset.read_targets(item)).long()
        probs = predict_probs(segmenter, to_tensor(dataset.read_image(item)), config.inference)
        assert probs.latent is not None
        semantic = probs.semantic.argmax(1)[0]
        mapped = semantic_to_latent(probs.semantic, given).argmax(1)[0]
        latent = probs.latent.argmax(1)[0]
        valid = targets != 255
        truth = given.argmax(1)[targets.where(valid, 0)]
        wrong = valid & (semantic != targets)
        for index, mask in enumerate((valid, wrong)):
            counts[3 * index] += mask.sum()
            counts[3 * index + 1] += (mask & (latent == truth)).sum()
            counts[3 * index + 2] += (mask & (mapped == truth)).sum()
        confusion += confusion_matrix(semantic, targets, classes)
    total, right, right_mapped, wrongs, mended, mapped_there = counts.tolist()
    return {
        "miou": scores(confusion).miou,
        "latent_accuracy": right / total,
        "mapped_accuracy": right_mapped / total,
        "latent_accuracy_where_semantic_wrong": mended / wrongs,
        "mapped_accuracy_where_semantic_wrong": mapped_there / wrongs,
    }


def diagnose(config: Config, every: int, images: int) -> list[dict[str, Any]]:
    """Train and measure on the way."""
    if config.threads:
        torch.set_num_threads(config.threads)
    dataset = open_dataset(config.data)
    split = draw_split(dataset, config.data, config.seed)
    held_out = dataset.items(config.validate_split)
    held_out = held_out[:: max(1, len(held_out) // images)]
    torch.manual_seed(config.seed)
    state = build_state(config, dataset.classes, split)
    method = state.method
    assert isinstance(method, Latent)
    fabric = make_fabric(config)
    nets, optimizers = set_up(fabric, state)
    rows = []
    for step, batch in batches(dataset, split, config, state.segmenter.mean):
        decay(optimizers, step / config.steps, config.optim.power)
        row: dict[str, Any] = {"step": step + 1}
        measure = (step + 1) % every == 0
        if measure:
            row["gradient_shares"] = gradient_shares(method, nets, batch, step)
        values = training_step(fabric, method, nets, optimizers, batch, step)
        if measure:
            row |= {name: round(float(value), 4) for name, value in values.items()}
            row |= target_quality(state.segmenter, method.cooccurrence, dataset, held_out, config)
            nets.train()
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Three panels over the steps: gradient shares, accuracies, entropy and losses."""
    figure = Figure(figsize=(12, 4.2), layout="constrained", dpi=130)
    shares, accuracy, losses = figure.subplots(1, 3)
    steps = [row["step"] for row in rows]
    for name in rows[-1]["gradient_shares"]:
        shares.plot(steps, [row["gradient_shares"].get(name, 0) for row in rows], label=name)
        losses.plot(steps, [row.get(name) for row in rows], label="H(C|L)" if name == "latent" else name)
    for name in (key for key in rows[-1] if "accuracy" in key or key == "miou"):
        accuracy.plot(steps, [row[name] for row in rows], label=name.replace("_", " "))
    titles = ("share of the gradient norm, semantic branch", "on held-out images", "losses")
    for axis, title in zip((shares, accuracy, losses), titles, strict=True):
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("step")
        axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2, frameon=False)
    figure.savefig(path)


def main() -> None:
    """Diagnose one run of the latent method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--images", type=int, default=30, help="held-out images that are scored")
    options = parser.parse_args()
    rows = diagnose(load_config(options.preset, options.overrides), options.every, options.images)
    stem = HERE / f"diagnose_{options.preset}"
    stem.with_suffix(".json").write_text(json.dumps({"options": options.overrides[1:], "rows": rows}, indent=1) + "\n")
    plot(rows, stem.with_suffix(".png"))


if __name__ == "__main__":
    main()
