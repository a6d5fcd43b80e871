"""The first look: the baseline and our method on the same few labelled street scenes."""

import math
from pathlib import Path

from rich.console import Console
from rich.table import Table

from latentseg.data.images import IGNORE_INDEX
from latentseg.errors import UserError
from latentseg.inference.evaluate import Evaluation, evaluate
from latentseg.inference.model import Model, open_data, read_scored
from latentseg.presets import load_config
from latentseg.report.figures import colorize, image_grid
from latentseg.runs.metrics import read_metrics
from latentseg.sweeps.cells import training_seconds
from latentseg.training.loop import train

METHODS = ("supervised", "latent_match")
PRESET = "scenes_match"
PICTURED = (0.0, 0.1, 0.25, 0.5)
"""Which test scenes are shown, by rank: the largest gain in pixel accuracy first, 0.5 is the median."""
console = Console(soft_wrap=True)


def quickstart(out: Path, overrides: list[str] | tuple[str, ...] = ()) -> None:
    """Train preset `scenes_match` with both methods, print both scores, draw a picture. Interrupted, it goes on.

    Args:
        out: Folder for the two run folders and `comparison.png`: a new one, or one that was not finished.
        overrides: `key=value` for both runs.

    Raises:
        UserError: The folder holds something else or a finished quickstart, or several processes are asked for.
    """
    if out.exists() and not (out.is_dir() and {path.name for path in out.iterdir()} <= {*METHODS, ".DS_Store"}):
        raise UserError(f"{out} exists and is not overwritten: remove it, or name another folder with --out")
    config = load_config(PRESET, overrides)
    if config.devices * config.num_nodes > 1:
        raise UserError("the quickstart is for one process: leave devices and num_nodes at 1")
    results: dict[str, tuple[Evaluation, float]] = {}
    for name in METHODS:
        config = load_config(PRESET, [*overrides, f"method.name={name}"], keep_unread=True)
        run = train(config, out / name, resume=True)
        results[name] = (evaluate(run.folder, "test"), training_seconds(read_metrics(run.folder)))
    console.print(_table(results))
    picture = out / "comparison.png"
    _draw(out, picture)
    folders = " and ".join(str(out / name) for name in METHODS)
    console.print(f"run folders {folders}, picture {picture}", markup=False, highlight=False)


def _table(results: dict[str, tuple[Evaluation, float]]) -> Table:
    table = Table(title="IoU in %, test scenes, last step, one seed")
    table.add_column("class")
    for name in results:
        table.add_column(name, justify="right")
    evaluations = [evaluation for evaluation, _ in results.values()]
    for index, name in enumerate(evaluations[0].classes):
        ious = [evaluation.scores.iou[index] for evaluation in evaluations]
        table.add_row(name, *("absent" if math.isnan(iou) else f"{100 * iou:.1f}" for iou in ious))
    table.add_section()
    table.add_row("mIoU", *(evaluation.scores.miou_text() for evaluation in evaluations), style="bold")
    table.add_row("training, seconds", *(f"{seconds:.0f}" for _, seconds in results.values()))
    return table


def _draw(out: Path, path: Path) -> None:
    """Image, truth, baseline and ours of the test scenes at the ranks PICTURED, with the gain of each."""
    models = [Model.open(out / name) for name in METHODS]
    dataset = open_data(models[1].run)
    palette, shown = models[1].run.palette, []
    for item in dataset.items("test"):
        image, size, targets = read_scored(dataset, item)
        maps = [model.labels(image, size, latent=False).semantic[0].cpu().numpy() for model in models]
        known = targets != IGNORE_INDEX
        baseline, ours = (100 * float((labels == targets)[known].mean()) for labels in maps)
        shown.append((ours - baseline, [image, *(colorize(labels, palette) for labels in (targets, *maps))]))
    shown.sort(key=lambda scene: -scene[0])
    rows = [shown[int(rank * (len(shown) - 1))] for rank in PICTURED]
    legend = list(zip(models[1].run.classes, palette, strict=True))
    gains = ", ".join(f"{gain:+.1f}" for gain, _ in rows)
    console.print(f"rows of the picture: gains in pixel accuracy {gains} points (largest, 10 %, 25 %, median)")
    image_grid([pictures for _, pictures in rows], ("image", "truth", *METHODS), path, legend)
