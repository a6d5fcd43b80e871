"""Why the gains are small: what if pseudo-labels, or the latent map, were right?

    python benchmarks/match_why.py camvid data.root=.../camvid
    python benchmarks/match_why.py animals data.root=.../VOC2012

Cells of benchmarks/match.py, in which the truth of the unlabelled images stands in for parts of what is predicted. The
truth reaches a loss here and nowhere else: these rows are bounds, no methods. Draws of the labels are others than the
reported ones, both weights are 1 but for L_cons's 0.1. Beside the scores, for latent_match: how often, on the pixels
where the teacher is unsure, its class is right, how often the class is right that its latent map names through P(c|l),
and how often one of both is. Figures go to benchmarks/match_why_SET.json as cells end; those that are there are
skipped.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F

from latentseg.caching import cached_features
from latentseg.data.batches import batches
from latentseg.data.datasets import open_dataset
from latentseg.data.hidden import HiddenTruth
from latentseg.data.splits import draw_split
from latentseg.evaluation import score_items
from latentseg.losses import IGNORE_INDEX, latent_given_class, probabilities
from latentseg.methods.latent_match import LatentMatch
from latentseg.methods.pseudo import PseudoLabels
from latentseg.optim import decay
from latentseg.parallel import make_fabric
from latentseg.presets import load_config
from latentseg.training import build_state, set_up, training_step

HERE = Path(__file__).parent
LABELED = {"camvid": 12, "animals": "1/64"}
SHARED = ["steps=600", "data.check=quick", "cache=features", "augment.views=4", "augment.labeled_views=64"]
SHARED += ["method.grid=heads", "threads=1"]
OURS = ["method.name=latent_match", "method.threshold=0.97"]
ROWS: dict[str, tuple[list[str], str]] = {
    "supervised": (["method.name=supervised"], ""),
    "fixmatch": (["method.name=fixmatch"], ""),
    "fixmatch, accepted labels right": (["method.name=fixmatch"], "accepted"),
    "fixmatch, rejected labels known": (["method.name=fixmatch"], "rejected"),
    "fixmatch, all labels known": (["method.name=fixmatch"], "all"),
    "latent_match": (OURS, ""),
    "latent_match, latent map right": (OURS, "latent"),
    "latent_match, latent map right, weight 1": ([*OURS, "method.lambda_cons=1"], "latent"),
}


Map = Callable[[LatentMatch, Tensor], Tensor]


class Oracle:
    """The truth of the step, in place of parts of what is predicted.

    Args:
        kind: What is right: accepted, rejected (and then accepted, too), all, latent; nothing if empty.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.truth: Tensor | None = None
        self.found: list[list[float]] = []

    def on_grid(self, like: Tensor) -> Tensor:
        """Truth on the grid of maps (N, ..., h, w), 255 where unknown."""
        assert self.truth is not None
        sampled = F.interpolate(self.truth[:, None].float(), like.shape[-2:], mode="nearest-exact")
        return sampled[:, 0].long()

    def labels(self, given: PseudoLabels) -> PseudoLabels:
        """Pseudo-labels with the truth in them."""
        truth = self.on_grid(given.classes)
        known = given.valid & (truth != IGNORE_INDEX)
        classes = given.classes.where(~known, truth)
        if self.kind == "accepted":
            return PseudoLabels(classes, given.confidence, given.accepted & known, given.valid)
        mixed = given.classes.where(given.accepted, classes) if self.kind == "rejected" else classes
        return PseudoLabels(mixed, given.confidence, known, given.valid)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Let the methods see the truth."""
        take = PseudoLabels.of
        with ExitStack() as replaced:
            if self.kind in ("accepted", "rejected", "all"):
                replaced.enter_context(patch.object(PseudoLabels, "of", lambda *parts: self.labels(take(*parts))))
            else:
                latent_map = self.bound() if self.kind == "latent" else self.watched()
                replaced.enter_context(patch.object(LatentMatch, "_map", latent_map))
            yield

    def bound(self) -> Map:
        """P(l | true class) as the latent map; nothing where the truth is unknown."""

        def true_map(method: LatentMatch, logits: Tensor) -> Tensor:
            truth = self.on_grid(logits)
            known = truth != IGNORE_INDEX
            rows = latent_given_class(method.cooccurrence)[truth.where(known, 0)]
            return (rows * known.unsqueeze(-1)).movedim(-1, 1)

        return true_map

    def watched(self) -> Map:
        """The method's own map; on the way, what it knows of unsure pixels is counted."""
        original = LatentMatch._map  # noqa: SLF001 - its place in the method is what this script is about

        def map_and_count(method: LatentMatch, logits: Tensor) -> Tensor:
            probs = original(method, logits)
            lesson = method.lesson
            assert lesson is not None
            truth = self.on_grid(logits)
            unsure = lesson.given.rejected & (truth != IGNORE_INDEX)
            if bool(unsure.any()):
                joint = method.cooccurrence / method.cooccurrence.sum(0).clamp(min=1e-12)
                named = torch.einsum("cl,nlhw->nchw", joint, probabilities(logits)).argmax(1)
                right, also = (lesson.given.classes == truth)[unsure], (named == truth)[unsure]
                self.found.append([float(values.double().mean()) for values in (right, also, right | also)])
            return probs

        return map_and_count


def run(name: str, label: str, seed: int, overrides: list[str]) -> dict[str, float]:
    """Train one cell and score it on val, in %."""
    options, kind = ROWS[label]
    labeled = f"data.labeled={LABELED[name]}"
    config = load_config(name, [*SHARED, labeled, f"seed={seed}", *options, *overrides])
    torch.set_num_threads(1)
    dataset = open_dataset(config.data)
    split = draw_split(dataset, config.data, config.seed)
    torch.manual_seed(config.seed)
    state = build_state(config, dataset.classes, split)
    fabric = make_fabric(config)
    nets, optimizers = set_up(fabric, state)
    reads = state.method.uses_unlabeled
    stores = cached_features(config, state.segmenter, dataset, split, reads)
    hidden, oracle = HiddenTruth(dataset, split, config, stores), Oracle(kind)
    began = time.perf_counter()
    with oracle.at_work():
        for step, batch in batches(dataset, split, config, state.segmenter.mean, 0, reads, stores):
            decay(optimizers, step / config.steps, config.optim.power)
            oracle.truth = hidden.targets(step) if reads else None
            training_step(fabric, state.method, nets, optimizers, batch, step)
    seconds = time.perf_counter() - began
    cell = {"val": 100 * score_items(state.segmenter, dataset, dataset.items("val"), config.inference).miou}
    if oracle.found:
        means = torch.tensor(oracle.found[-200:]).mean(0).tolist()
        cell |= {key: 100 * value for key, value in zip(("semantic", "latent", "either"), means, strict=True)}
    return {key: round(value, 2) for key, value in cell.items()} | {"seconds": round(seconds)}


def main() -> None:
    """Run the cells that are missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(LABELED))
    parser.add_argument("overrides", nargs="*", help="options for every cell, data.root above all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11])
    options = parser.parse_args()
    path = HERE / f"match_why_{options.name}.json"
    cells = json.loads(path.read_text()) if path.exists() else {}
    for seed in options.seeds:
        for label in ROWS:
            key = f"{label} | {seed}"
            if key not in cells:
                cells[key] = run(options.name, label, seed, options.overrides)
                path.write_text(json.dumps(cells, indent=1) + "\n")
                print(key, cells[key], flush=True)
    print("| row | val mIoU per seed | - supervised |", "|---|---|---|", sep="\n")
    for label in ROWS:
        done = [seed for seed in options.seeds if f"{label} | {seed}" in cells]
        scores = [cells[f"{label} | {seed}"]["val"] for seed in done]
        gains = [score - cells[f"supervised | {seed}"]["val"] for seed, score in zip(done, scores, strict=True)]
        columns = [" ".join(f"{value:{form}}" for value in row) for row, form in ((scores, ".1f"), (gains, "+.1f"))]
        print(f"| {label} | {' | '.join(columns)} |")


if __name__ == "__main__":
    main()
