"""`latentseg train PHOTOS --folds 5`: as many runs, each of which holds out another part of the labelled images."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from latentseg.config import Config
from latentseg.data.datasets import open_dataset
from latentseg.errors import UserError
from latentseg.presets import dump_config
from latentseg.presets.plain import write_yaml
from latentseg.sweeps.cells import read_done
from latentseg.sweeps.files import read_sweep
from latentseg.sweeps.run import run_sweep


def run_folds(config: Config, number: int, run_root: Path) -> Table:
    """Train and score each fold; stopped, the same call goes on.

    Args:
        config: Of every run, but for what is held out.
        number: Of folds, at least 2.
        run_root: Folder of the run folders.

    Returns:
        IoU in % on the held-out images per class, mean and deviation over the folds, and mIoU by fold.

    Raises:
        UserError: A fold is smaller than an image, a run fails, or the folder cannot be written.
    """
    path = run_root / "folds.yaml"
    options: dict[str, Any] = {"data.holdout": 0, "validate_split": "holdout"}
    grid = {"data.fold": [f"{fold}/{number}" for fold in range(1, number + 1)]}
    tree = {"base": "base.yaml", "options": options, "grid": grid, "splits": ["holdout"]}
    plain = {"validate_split": "val", "data": config.data.model_copy(update={"holdout": 0, "fold": None})}
    try:
        run_root.mkdir(parents=True, exist_ok=True)
        (run_root / "base.yaml").write_text(dump_config(config.model_copy(update=plain)), encoding="utf-8")
        path.write_text(write_yaml(tree), encoding="utf-8")
    except OSError as error:
        raise UserError(f"the run root {run_root} cannot be written: {error.strerror}; choose one by --run") from error
    sweep = read_sweep(path)
    run_sweep(sweep, run_root)
    done = [read_done(run_root / cell.folder, ("holdout",)) for cell in sweep.at(run_root).cells]
    return _table(open_dataset(config.data).classes, [each["scores"]["holdout"] for each in done if each])


def _table(classes: Sequence[str], scores: list[dict[str, Any]]) -> Table:
    table = Table(title=f"IoU of held-out images, {len(scores)} folds, in %")
    for head in ("class", "mean", "deviation", "folds"):
        table.add_column(head, justify="left" if head == "class" else "right")
    rows = [(name, [score["iou"][i] for score in scores]) for i, name in enumerate(classes)]
    some = any(value is None for score in scores for value in score["iou"])
    mean_name = "mIoU (over the classes that a fold shows)" if some else "mIoU"
    for name, found in [*rows, (mean_name, [score["miou"] for score in scores])]:
        known = [100 * value for value in found if value is not None]
        mean = f"{statistics.mean(known):.1f}" if known else "absent"
        spread = f"{statistics.stdev(known):.1f}" if len(known) > 1 else ""
        each = " ".join("-" if value is None else f"{100 * value:.1f}" for value in found)
        table.add_row(Text(name), mean, spread, each)
    return table
