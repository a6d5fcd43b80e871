"""Time to quality: minutes of training until a validation first reaches an mIoU, and the curve on the way there.

    python benchmarks/quality.py animals data.root=.../VOC2012 --rows fixmatch "fixmatch, trained"
    python benchmarks/quality.py camvid data.root=.../camvid --rows latent_match
    python benchmarks/quality.py --show

Rows: the laptop preset as it is (`latent_match`, cached features), FixMatch on the same features, and FixMatch with the
same encoder trained along as UniMatch's code does it: new views of images, AdamW 1e-4, heads 1e-3, frozen BatchNorm.
The batch, the crop and the 6,000 steps of the schedule are the preset's. A run ends when every score is reached, or
after --minutes. Its clock is the CPU time of this process with one thread, and beside it the wall's, for steps and
their data alone: neither validations count, nor the features, whose filling is stated by itself (`cache_minutes`, from
a few images). Figures and curve go to benchmarks/quality.json at each validation, and the same command goes on from
there; what has ended is not run again. The table and quality.png are of all that it holds.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from latentseg.config import Config
from latentseg.data.splits import Split
from latentseg.engine import full_speed
from latentseg.errors import UserError
from latentseg.inference.evaluate import score_items
from latentseg.inference.model import Model
from latentseg.presets import load_config
from latentseg.runs.checkpoints import Checkpoints, write_atomically
from latentseg.training.costs import views
from latentseg.training.trainer import Trainer

OUT = Path(__file__).with_suffix(".json")
FIXMATCH = ["method.name=fixmatch", "method.threshold=0.95", "method.lambda_match=1"]
TRAINED = [
    *("cache=images", "augment.views=null", "augment.labeled_views=null", "model.frozen=false"),
    *("model.batchnorm=frozen", "optim.name=adamw", "optim.lr=1e-4", "optim.head_factor=10"),
]
ROWS = {"latent_match": list[str](), "fixmatch": FIXMATCH, "fixmatch, trained": [*FIXMATCH, *TRAINED]}
"""Options beside those of the preset."""
LABELS = {
    "latent_match": "latent_match, cached features",
    "fixmatch": "FixMatch, cached features",
    "fixmatch, trained": "FixMatch, encoder trained along",
}
AIMS: dict[str, dict[str, tuple[float, ...]]] = {
    "animals": {"val": (0.45, 0.50)},
    "camvid": {"val": (0.42,), "test": (0.42,)},
}
"""The mIoU to reach, by data set and split."""
OPTIONS = ["threads=1", "device=cpu", "workers=0"]
EVERY = {"features": 250, "images": 100}
"""Steps between two validations, by cache; at first they come after `FIRST`, and then twice as many each time."""
FIRST = 25
SAMPLE = 2, 8
"""Labelled and unlabelled images whose features are timed."""
Cells = dict[str, dict[str, Any]]
Curve = dict[str, list[float]]


@dataclass(frozen=True)
class Study:
    """What is run, and where its figures go."""

    data: str
    overrides: tuple[str, ...]
    minutes: float
    run_root: Path
    out: Path

    def config(self, row: str, seed: int) -> Config:
        """One run."""
        return load_config(f"{self.data}_match", [*ROWS[row], *OPTIONS, f"seed={seed}", *self.overrides])

    def ended(self, curve: Curve, steps: int) -> bool:
        """Whether nothing is left to do: all is reached, or there is no time or step left."""
        over = bool(curve["step"]) and (curve["cpu_minutes"][-1] >= self.minutes or curve["step"][-1] >= steps)
        return over or all(first(curve, split, aim) for split, aims in AIMS[self.data].items() for aim in aims)


def first(curve: Curve, split: str, aim: float) -> int | None:
    """Place in the curve, from 1, where a score is first reached."""
    return next((place for place, miou in enumerate(curve.get(split, []), start=1) if miou >= aim), None)


def read_cells(path: Path) -> Cells:
    """What was run so far."""
    found: Cells = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def write_cell(path: Path, key: str, cell: dict[str, Any]) -> None:
    """Put a run into the JSON file."""
    cells = dict(sorted((read_cells(path) | {key: cell}).items()))
    write_atomically(path, (json.dumps(cells, indent=1) + "\n").encode())


def run(study: Study, row: str, seed: int) -> None:
    """Train and validate until the run has ended; go on with one that was begun."""
    key, config = f"{study.data} | {row} | {seed}", study.config(row, seed)
    cell = read_cells(study.out).get(key, {})
    if cell and study.ended(cell["curve"], config.steps):
        return
    folder = study.run_root / f"{study.data}-{row.replace(', ', '-')}-s{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(folder)
    with full_speed():
        trainer = Trainer.open(config)
        trainer.place()
        entry, curve = checkpoints.last(), empty(study.data)
        if entry and cell:
            trainer.state.load(checkpoints.read(entry))
            curve = until(cell["curve"], entry.step)
        if config.cache == "features" and "cache_minutes" not in cell:
            cell["cache_minutes"] = round(filling_minutes(trainer), 2)
        trainer.seek(int(curve["step"][-1]) if curve["step"] else 0)
        while not study.ended(curve, config.steps):
            go_on(trainer, curve)
            print(key, {name: values[-1] for name, values in curve.items()}, flush=True)
            write_cell(study.out, key, cell | {"steps": config.steps, "limit": study.minutes, "curve": curve})
            checkpoints.save(trainer.done, trainer.state.tensors())
        trainer.close()


def empty(data: str) -> Curve:
    """No validation yet."""
    return {name: [] for name in ("step", "cpu_minutes", "wall_minutes", *AIMS[data])}


def until(curve: Curve, step: int) -> Curve:
    """The validations up to a step."""
    kept = sum(each <= step for each in curve["step"])
    return {name: values[:kept] for name, values in curve.items()}


def go_on(trainer: Trainer, curve: Curve) -> None:
    """Train up to the next validation, with the clock, and validate without it."""
    config = trainer.config
    began = time.process_time(), time.perf_counter()
    for _ in range(min(EVERY[config.cache], max(FIRST, trainer.done), config.steps - trainer.done)):
        trainer.step()
    spent = time.process_time() - began[0], time.perf_counter() - began[1]
    for name, seconds in zip(("cpu_minutes", "wall_minutes"), spent, strict=True):
        curve[name].append(round((curve[name] or [0.0])[-1] + seconds / 60, 5))
    curve["step"].append(trainer.done)
    model = Model.live(trainer.state.segmenter, config, trainer.dataset)
    for split in curve.keys() - {"step", "cpu_minutes", "wall_minutes"}:
        curve[split].append(round(score_items(model, trainer.dataset, trainer.dataset.items(split)).miou, 4))
    trainer.train_mode()


def filling_minutes(trainer: Trainer) -> float:
    """CPU minutes that the features of the whole run take, from those of a few images, in an empty cache."""
    split, (labeled, unlabeled) = trainer.split, SAMPLE
    few, reads = Split(split.labeled[:labeled], split.unlabeled[:unlabeled]), trainer.method.uses_unlabeled
    with tempfile.TemporaryDirectory() as folder:
        config = trainer.config.model_copy(update={"cache_folder": folder})
        timed = Trainer.open(config, trainer.dataset, few)
        timed.place()
        began = time.process_time()
        timed.seek(0)
        seconds = time.process_time() - began
        timed.close()
    return seconds / 60 * views(config, split, reads) / views(config, few, reads)


def table(cells: Cells) -> str:
    """CPU minutes to each score in Markdown, with those on the wall in brackets."""
    lines = ["| data, split | row | seed | mIoU % | CPU minutes (wall) | steps | best by then | cache, CPU minutes |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for key, cell in cells.items():
        data, row, seed = key.split(" | ")
        curve = cell["curve"]
        for split, aim in ((split, aim) for split, aims in AIMS[data].items() for aim in aims):
            place = first(curve, split, aim)
            at = (place or len(curve["step"])) - 1
            after = "" if place else "not within "
            minutes = f"{after}{curve['cpu_minutes'][at]:.2f} ({curve['wall_minutes'][at]:.2f})"
            best = f"{100 * max(curve[split][: at + 1]):.1f}"
            filled = f"{cell['cache_minutes']:.2f}" if "cache_minutes" in cell else "-"
            name = f"{data}, {split} | {row} | {seed} | {100 * aim:.0f}"
            lines.append(f"| {name} | {minutes} | {curve['step'][at]} | {best} | {filled} |")
    return "\n".join(lines)


def draw(cells: Cells) -> Figure:
    """The mIoU over CPU minutes, one panel for each data set and split; dotted with the filling of the cache."""
    there = {key.partition(" | ")[0] for key in cells}
    panels = [(data, split) for data, splits in AIMS.items() if data in there for split in splits]
    figure = Figure(figsize=(4.6 * len(panels), 4.2), layout="constrained", dpi=130)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (data, split) in zip(axes, panels, strict=True):
        for aim in AIMS[data][split]:
            axis.axhline(100 * aim, color="0.75", linewidth=0.8, linestyle="--", zorder=0)
        for place, row in enumerate(ROWS):
            for key, cell in cells.items():
                if key.split(" | ")[:2] != [data, row]:
                    continue
                minutes, scores = cell["curve"]["cpu_minutes"], [100 * miou for miou in cell["curve"][split]]
                axis.plot(minutes, scores, ".-", color=f"C{place}", label=LABELS[row], linewidth=1.2, markersize=4)
                if filled := cell.get("cache_minutes"):
                    late = [filled + minute for minute in minutes]
                    axis.plot(late, scores, ":", color=f"C{place}", label="the same, cache filled first", linewidth=1.2)
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("")
        axis.set(title=f"{data}, {split}", xlabel="CPU minutes of training (one thread)", ylabel="mIoU, %")
        shown = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
        if shown:
            axis.legend(shown.values(), shown.keys(), fontsize=7, frameon=False, loc="lower right")
    return figure


def main() -> None:
    """Run what is missing, then print the table and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", choices=[*AIMS], help="the data set")
    parser.add_argument("overrides", nargs="*", help="options of every run, data.root above all")
    parser.add_argument("--rows", nargs="+", choices=[*ROWS], default=[*ROWS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--minutes", type=float, default=40, help="CPU minutes of training after which a run ends")
    parser.add_argument("--run-root", type=Path, default=Path("runs/quality"))
    parser.add_argument("--out", type=Path, default=OUT, help="JSON file; benchmarks/quality.json if not given")
    parser.add_argument("--show", action="store_true", help="run nothing: print the table, draw the plot")
    options = parser.parse_intermixed_args()
    if not options.show and options.data is None:
        parser.error("name a data set, or --show")
    try:
        if not options.show:
            study = Study(options.data, tuple(options.overrides), options.minutes, options.run_root, options.out)
            for seed in options.seeds:
                for row in options.rows:
                    run(study, row, seed)
    except UserError as error:
        sys.exit(f"error: {error}")
    cells = read_cells(options.out)
    print(table(cells))
    if cells:
        draw(cells).savefig(options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
