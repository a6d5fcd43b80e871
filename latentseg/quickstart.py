"""The first look: the baseline and the latent-class method on the same few labelled street scenes."""

import math
from pathlib import Path

from rich.console import Console
from rich.table import Table

from latentseg.data.datasets import distinct_palette
from latentseg.errors import UserError
from latentseg.inference.evaluate import Evaluation, evaluate
from latentseg.inference.model import Model, open_data, read_scored
from latentseg.presets import load_config
from latentseg.report.figures import colorize, image_grid
from latentseg.runs.folder import read_metrics
from latentseg.sweeps.cells import training_seconds
from latentseg.training.loop import train

METHODS = ("supervised", "latent")
PICTURES = 4
console = Console(soft_wrap=True)


def quickstart(out: Path, overrides: list[str] | tuple[str, ...] = ()) -> None:
    """Train preset `scenes` with both methods, print both scores and draw one picture. Interrupted, it goes on.

    Args:
        out: Folder for the two run folders and `comparison.png`: a new one, or one that was not finished.
        overrides: `key=value` for both runs.

    Raises:
        UserError: The folder holds something else or a finished quickstart, or several processes are asked for.
    """
    if out.exists() and not (out.is_dir() and {path.name for path in out.iterdir()} <= {*METHODS, ".DS_Store"}):
        raise UserError(f"{out} exists and is not overwritten: remove it, or name another folder with --out")
    config = load_config("scenes", overrides)
    if config.devices * config.num_nodes > 1:
        raise UserError("the quickstart is for one process: leave devices and num_nodes at 1")
    results: dict[str, tuple[Evaluation, float]] = {}
    for name in METHODS:
        run = train(load_config("scenes", [*overrides, f"method.name={name}"]), out / name, resume=True)
        results[name] = (evaluate(run.folder, "test"), training_seconds(read_metrics(run.folder)))
    console.print(_table(results))
    picture = out / "comparison.png"
    _draw(out, picture)
    console.print(f"run folders {out}/supervised and {out}/latent, picture {picture}", markup=False, highlight=False)


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
    table.add_row("mIoU", *(f"{100 * evaluation.scores.miou:.2f}" for evaluation in evaluations), style="bold")
    table.add_row("training, seconds", *(f"{seconds:.0f}" for _, seconds in results.values()))
    return table


def _draw(out: Path, path: Path) -> None:
    """Image, truth, baseline, ours, latent map of the first test scenes."""
    baseline, ours = (Model.open(out / name) for name in METHODS)
    dataset = open_data(ours.run)
    palette, latent_palette = ours.run.palette, distinct_palette(ours.segmenter.num_latent)
    rows = []
    for item in dataset.items("test")[:PICTURES]:
        image, size, targets = read_scored(dataset, item)
        labels = ours.labels(image, size)
        assert labels.latent is not None
        rows.append(
            [
                image,
                colorize(targets, palette),
                colorize(baseline.labels(image, size).semantic[0].cpu().numpy(), palette),
                colorize(labels.semantic[0].cpu().numpy(), palette),
                colorize(labels.latent[0].cpu().numpy(), latent_palette),
            ]
        )
    legend = list(zip(ours.run.classes, palette, strict=True))
    image_grid(rows, ("image", "truth", "supervised", "latent (ours)", "latent classes"), path, legend)
