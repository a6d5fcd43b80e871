"""What `train` says at its end: the scores, where the pictures are, and what to type next."""

import math
import shlex

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from latentseg.console import few_scored
from latentseg.runs.folder import PICTURES, Run
from latentseg.runs.metrics import read_metrics


def summary(run: Run) -> RenderableType:
    """Scores of the last validation by class, the best one's step, pictures, and the next commands."""
    name = f"{run.config.validate_split}_miou"
    rows = [row for row in read_metrics(run.folder) if isinstance(row.get(name), float)]
    parts: list[RenderableType] = [_table(run, rows[-1])] if rows else []
    if rows:
        best = max(rows, key=lambda row: float(row[name]))
        few = few_scored(best.get(f"{run.config.validate_split}_iou"), run.config.inference.miou_over)
        parts.append(Text(f"best: mIoU {100 * best[name]:.2f}{few} after step {best['step']} (--checkpoint best)"))
    folder = shlex.quote(str(run.folder))
    if (run.folder / PICTURES).is_dir():
        parts.append(Text(f"pictures (image, truth, prediction): {run.folder / PICTURES}"))
    parts.append(Text(f"next: latentseg predict {folder} PHOTOS --out predicted"))
    return Group(*parts)


def _table(run: Run, row: dict[str, object]) -> Table:
    split = run.config.validate_split
    table = Table(title=f"{split}, step {row['step']}")
    table.add_column("class")
    table.add_column("IoU %", justify="right")
    found = row.get(f"{split}_iou")
    for name, iou in zip(run.classes, found if isinstance(found, list) else [], strict=False):
        absent = iou is None or math.isnan(iou)
        table.add_row(Text(name), "absent" if absent else f"{100 * iou:.2f}")
    table.add_section()
    few = few_scored(found, run.config.inference.miou_over)
    table.add_row("mIoU", f"{100 * float(str(row[f'{split}_miou'])):.2f}{few}")
    return table
