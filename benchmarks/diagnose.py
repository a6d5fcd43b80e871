"""What a score does not tell: what the terms pull at, how good the latent target is, what the discriminator knows.

    python benchmarks/diagnose.py terms camvid data.root=.../camvid seed=0 threads=1 --every 100
    python benchmarks/diagnose.py discriminator benchmarks/tables_camvid.yaml data.root=.../camvid

`terms` trains as `latentseg train` would and, every EVERY steps, measures on held-out images (validate_split): the
accuracy of the latent target (argmax S_l against the latent class that P(l|c) gives the true class) beside that of
the mapped semantic branch (argmax S_lhat), both also where the semantic branch is wrong; and the norm of each weighted
term's gradient at the semantic branch's fused map, as a share. Results: benchmarks/diagnose_PRESET.json.

`discriminator` reads the runs of a study (benchmarks/study.py). Of each adversarial run, on every 4th validation
image: the discriminator's mean confidence on pixels that the segmenter has right and wrong, the chance that it is
higher on a right pixel than on a wrong one (area under the ROC curve; 0.5: it cannot tell), and the share and accuracy
of the pixels above the confidence 0.2 that AdvSemiSeg trusts. Results: benchmarks/discriminator_STUDY.json.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from study import HERE, key_of, run_of
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from latentseg.config import Config
from latentseg.data.batches import Batch
from latentseg.data.datasets import Item
from latentseg.data.images import IGNORE_INDEX
from latentseg.inference.model import Model
from latentseg.losses import latent_given_class, semantic_to_latent
from latentseg.methods.base import Networks
from latentseg.methods.latent import Latent
from latentseg.models.segmenter import Output
from latentseg.presets import load_config
from latentseg.runs.folder import open_run
from latentseg.runs.metrics import finite_or_none
from latentseg.sweeps.files import read_sweep
from latentseg.training.trainer import Trainer


def probs_of(trainer: Trainer, item: Item) -> tuple[Output, Tensor]:
    """Probabilities (1, C, H, W) and (1, L, H, W) for an image, and its class ids (H, W)."""
    model = Model.live(trainer.state.segmenter, trainer.config, trainer.dataset)
    targets = torch.from_numpy(trainer.dataset.read_targets(item)).long()
    return model.probs(trainer.dataset.read_image(item)), targets


def gradient_shares(trainer: Trainer, batch: Batch, step: int) -> dict[str, float]:
    """Norm of each weighted term's gradient at the semantic branch's fused map, as a share of all norms."""
    nets = Networks(trainer.state.networks)
    fused = [value for name, value in nets["segmenter"].named_parameters() if "semantic_head.fusion" in name]
    assert isinstance(trainer.method, Latent)
    before = trainer.method.cooccurrence.clone()
    norms: dict[str, float] = {}
    for losses in trainer.method(nets, batch, step):
        for name, term in losses.terms.items() if losses.network == "segmenter" else ():
            gradients = torch.autograd.grad(term.weight * term.value, fused, retain_graph=True, allow_unused=True)
            squares = [gradient.pow(2).sum() for gradient in gradients if gradient is not None]
            norms[name] = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
    trainer.method.cooccurrence.copy_(before)
    return {name: round(norm / sum(norms.values()), 4) for name, norm in norms.items()}


def target_quality(trainer: Trainer, items: list[Item]) -> dict[str, float]:
    """Accuracy of the latent target and of the mapped semantic branch, everywhere and where the latter is wrong."""
    trainer.state.segmenter.eval()
    assert isinstance(trainer.method, Latent)
    given = latent_given_class(trainer.method.cooccurrence)
    counts = {name: torch.zeros(3, dtype=torch.float64) for name in ("", "_where_semantic_wrong")}
    for item in items:
        probs, targets = probs_of(trainer, item)
        assert probs.latent is not None
        mapped = semantic_to_latent(probs.semantic, given).argmax(1)[0]
        valid = targets != IGNORE_INDEX
        truth = given.argmax(1)[targets.where(valid, 0)]
        rights = (probs.latent.argmax(1)[0] == truth, mapped == truth)
        for name, mask in zip(counts, (valid, valid & (probs.semantic.argmax(1)[0] != targets)), strict=True):
            counts[name] += torch.stack([mask.sum(), *((mask & right).sum() for right in rights)])
    trainer.train_mode()
    return {
        f"{branch}_accuracy{name}": float(right / pixels)
        for name, (pixels, *of_branch) in counts.items()
        for branch, right in zip(("latent", "mapped"), of_branch, strict=True)
    }


def measure_terms(config: Config, every: int, images: int) -> list[dict[str, Any]]:
    """Train, and measure every so many steps on about so many held-out images."""
    trainer = Trainer.open(config)
    trainer.seek(0)
    held_out = trainer.dataset.items(config.validate_split)
    rows = []
    for _ in range(config.steps):
        step, batch = trainer.read()
        measured = (step + 1) % every == 0
        shares = gradient_shares(trainer, batch, step) if measured else {}
        values = trainer.learn(step, batch)
        if measured:
            row = {"step": step + 1, "gradient_shares": shares}
            row |= {name: round(float(value), 4) for name, value in values.items()}
            row |= target_quality(trainer, held_out[:: max(1, len(held_out) // images)])
            rows.append(row)
            print(json.dumps(row), flush=True)
    trainer.close()
    return rows


def open_trained(folder: Path) -> Trainer:
    """A run with the weights of its last step, in eval mode."""
    run = open_run(folder)
    trainer = Trainer.open(run.config)
    entry = run.checkpoints.last()
    assert entry is not None
    trainer.state.load(run.checkpoints.read(entry))
    for network in trainer.state.networks.values():
        network.eval()
    return trainer


@torch.no_grad()
def discriminator_figures(folder: Path) -> dict[str, float]:
    """What the discriminator of a finished run knows of right and wrong pixels; nothing if it has none."""
    trainer = open_trained(folder)
    if "discriminator" not in trainer.state.networks:
        return {}
    confidences, rights = [], []
    for item in trainer.dataset.items("val")[::4]:
        probs, targets = probs_of(trainer, item)
        valid = targets != IGNORE_INDEX
        confidences.append(trainer.state.networks["discriminator"](probs.semantic).sigmoid()[0, 0][valid])
        rights.append((probs.semantic.argmax(1)[0] == targets)[valid])
    confidence, right = torch.cat(confidences), torch.cat(rights)
    trusted = confidence > 0.2  # as AdvSemiSeg
    figures = {"confidence_right": confidence[right].mean(), "confidence_wrong": confidence[~right].mean()}
    figures |= {"auroc": binary_auroc(confidence, right.long(), thresholds=200), "trusted": trusted.float().mean()}
    figures |= {"accuracy_trusted": right[trusted].float().mean(), "accuracy": right.float().mean()}
    return {name: float(value) for name, value in figures.items()}


def main() -> None:
    """Measure, and write the results beside this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["terms", "discriminator"])
    parser.add_argument("source", help="terms: a preset; discriminator: the sweep of a study")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--every", type=int, default=50, help="terms: steps between two measurements")
    parser.add_argument("--images", type=int, default=30, help="terms: held-out images that are scored")
    parser.add_argument("--run-root", type=Path, default=Path("runs/study"), help="discriminator: where the runs are")
    options = parser.parse_intermixed_args()
    result: dict[str, Any]
    if options.what == "terms":
        rows = measure_terms(load_config(options.source, options.overrides), options.every, options.images)
        path = HERE / f"diagnose_{options.source}.json"
        result = {"options": [part for part in options.overrides if not part.startswith("data.root")], "rows": rows}
    else:
        sweep = read_sweep(options.source, options.overrides)
        path = HERE / f"discriminator_{sweep.name}.json"
        runs = {key_of(cell, sweep): run_of(cell, options.run_root) for cell in sweep.cells}
        found = {key: discriminator_figures(folder) for key, folder in runs.items() if folder}
        result = {key: figures for key, figures in found.items() if figures}
    path.write_text(json.dumps(finite_or_none(result), indent=1, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
