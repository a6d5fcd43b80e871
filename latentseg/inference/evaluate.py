"""Scores of a model over a split of a data set, at the original size of the images."""

import json
import math
import re
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from latentseg.config import Mark, marked
from latentseg.console import track
from latentseg.data.check import readable
from latentseg.data.datasets import Dataset, Item
from latentseg.data.report import CHECK
from latentseg.distributed import all_reduce_sum, rank, world
from latentseg.engine import connected, full_speed, make_fabric
from latentseg.errors import DataError
from latentseg.inference.model import Model, open_data, read_scored
from latentseg.metrics import Scores, confusion_matrix, scores
from latentseg.reading import read_whole
from latentseg.runs.checkpoints import write_atomically
from latentseg.runs.folder import open_run
from latentseg.runs.metrics import finite_or_none
from latentseg.runs.place import free_path


def score_items(model: Model, dataset: Dataset, items: list[Item]) -> Scores:
    """Predict images and compare with their masks at the original size. Leaves the segmenter in eval mode.

    Several processes take an image each in turn; all return the scores of all images.

    Args:
        model: A trained one, or one in training.
        dataset: With the classes of the model, at its scale.
        items: Images with labels.
    """
    model.segmenter.eval()
    num_classes = len(dataset.classes)
    matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    own = items[rank() :: world()]
    predicted = model.stream(own, partial(read_scored, dataset))
    for targets, labels in track(predicted, "scoring", len(own)) if rank() == 0 else predicted:
        matrix += confusion_matrix(labels.semantic, torch.from_numpy(targets), num_classes)
    return scores(all_reduce_sum(matrix.to(model.device)).cpu(), model.run.config.inference.miou_over)


@dataclass(frozen=True)
class Evaluation:
    """Scores of one checkpoint on one split."""

    run: str
    split: str
    checkpoint: str
    step: int
    images: int
    seconds: float
    classes: list[str]
    scores: Scores
    overrides: list[str] = field(default_factory=list)
    """Options that were not those of the run, as key=value, but for those that change no score (`Mark.RUNTIME`)."""
    root: str | None = None
    """Folder of the data set; None for drawn scenes."""
    skipped: int = 0
    """Images that cannot be used and were left out (data.on_bad=skip)."""
    notes: list[str] = field(default_factory=list)
    """What makes the scores mean less than they seem to: classes that were not labelled, or are not in the masks."""

    def __repr__(self) -> str:
        score, where = f"mIoU {self.scores.miou_text('%')}", f"{self.split}, {self.images} images"
        return f"Evaluation({self.run!r}, {self.checkpoint} checkpoint, step {self.step}, {where}: {score})"

    def to_json(self) -> str:
        """All figures; NaN, the IoU of an absent class, becomes null."""
        return json.dumps(finite_or_none(asdict(self)), indent=1, allow_nan=False)

    def table(self) -> RenderableType:
        """IoU per class and the summary, in %; the notes follow."""
        skipped = f" ({self.skipped} more cannot be used)" if self.skipped else ""
        table = Table(title=Text(f"{self.run}: {self.split}, {self.images} images{skipped}, step {self.step}"))
        table.add_column("class")
        table.add_column("IoU %", justify="right")
        for name, iou in zip(self.classes, self.scores.iou, strict=True):
            table.add_row(Text(name), "absent" if math.isnan(iou) else f"{100 * iou:.2f}")
        table.add_section()
        table.add_row("mIoU", self.scores.miou_text())
        table.add_row("pixel accuracy", f"{100 * self.scores.pixel_accuracy:.2f}")
        return Group(table, *(Text(f"note: {note}", style="yellow") for note in self.notes))


def evaluate(
    run: str | Path, split: str = "val", checkpoint: str = "last", overrides: list[str] | tuple[str, ...] = ()
) -> Evaluation:
    """Score a run on a split and write `evaluation-SPLIT-CHECKPOINT.json` into its folder.

    Overrides that may change the scores are kept in it and in its name: evaluation-val-last-inference.mirror=true.json

    Args:
        run: The run folder.
        split: val, test, holdout or train.
        checkpoint: last, or best (by the validation during training).
        overrides: `key=value` for data.root, device, devices, num_nodes, threads, precision or inference.*.

    Raises:
        UserError: The run, its checkpoint or the split is missing or damaged, or the data set has other classes.
        DataError: No image of the split can be scored.
    """
    opened = open_run(run, overrides)
    dataset = open_data(opened)
    every = [item for item in dataset.items(split) if item.has_labels or split != "train"]
    items = readable(dataset, every) if opened.config.data.on_bad == "skip" else every
    if not items:
        why = f"none of the {len(every)} can be used" if every else "none has a mask"
        raise DataError(f"no image of {split} can be scored", "mend or add some: see data check", dataset.root, why)
    kept = sorted(text for text in overrides if text.partition("=")[0].strip() not in marked(Mark.RUNTIME))
    with connected(make_fabric(opened.config)), full_speed():  # first: it tells each process its GPU
        model = Model.open(opened, checkpoint)
        began = time.perf_counter()
        result = score_items(model, dataset, items)
        evaluation = Evaluation(
            run=str(run),
            split=split,
            checkpoint=checkpoint,
            step=model.step,
            images=len(items),
            seconds=round(time.perf_counter() - began, 1),
            classes=list(model.classes),
            scores=result,
            overrides=kept,
            root=opened.config.data.root,
            skipped=len(every) - len(items),
            notes=_score_notes(opened.folder),
        )
        if rank() == 0:
            name = "-".join(["evaluation", split, checkpoint, *(re.sub(r"[^\w.=]+", "_", part) for part in kept)])
            short = name.encode()[:200].decode(errors="ignore")  # a file system counts bytes
            path = free_path(opened.folder / f"{short}.json")
            write_atomically(path, evaluation.to_json().encode())
    return evaluation


def _score_notes(run: Path) -> list[str]:
    """What the check before the training noted of classes; nothing for an older run, or a folder that was changed."""
    try:
        notes = json.loads(read_whole(run / "split" / CHECK))["score_notes"]
        return [str(note) for note in notes]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
