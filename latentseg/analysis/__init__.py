"""What the latent classes of a run mean: P(l|c), super-categories in words, and the claims of the paper's section 4.

`analyse` goes over a split once, a few images in memory at a time, and writes RUN/analysis/ (analysis-SPLIT for a split
other than val, with -best for the best checkpoint): analysis.json, summary.txt, latent_given_class.csv and .png,
latent_given_class_M.csv. A new analysis replaces the old one.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentseg.analysis import stats
from latentseg.analysis.findings import Analysis, Baseline, Ease, Shares
from latentseg.analysis.stats import Counts, Rows
from latentseg.data.datasets import Dataset, Item
from latentseg.errors import UserError
from latentseg.inference.model import Model, open_data, read_scored
from latentseg.inference.stream import Ready, in_threads
from latentseg.losses import latent_given_class
from latentseg.methods.given_classes import group_ids
from latentseg.metrics import scores
from latentseg.presets import differences
from latentseg.progress import track
from latentseg.report.latent import write_analysis

BACKGROUND = "background"
"""Name of the class that is no thing; a data set without it has no foreground either."""


@dataclass(frozen=True)
class _Meaning:
    """What the channels of the latent branch stand for."""

    names: list[str]
    mapping: list[int | None]
    given: Tensor  # P(l|c) of Eq. 7, shape (C, L)
    matrix: Tensor | None  # M, shape (C, L)


def analyse(
    run: str | Path,
    split: str = "val",
    checkpoint: str = "last",
    baseline: str | Path | None = None,
    overrides: list[str] | tuple[str, ...] = (),
) -> Analysis:
    """Say what the latent classes of a run mean on a split, and write it into the run folder.

    Args:
        run: The run folder, of a method with a latent branch.
        split: val, test, holdout or train.
        checkpoint: last, or best (by the validation during training).
        baseline: Folder of another run with the same classes, such as the supervised twin; its last checkpoint is
            scored on the same images.
        overrides: `key=value` for data.root, device, threads or inference.*, for both runs.

    Raises:
        UserError: The run has no latent branch; a run, its checkpoint or the split is missing or damaged; the data
            set or the baseline has other classes.
    """
    ours = Model.open(run, checkpoint, overrides)
    dataset = open_data(ours.run)
    items = dataset.items(split)
    if ours.segmenter.num_latent == 0:
        raise UserError(
            f"{run} has no latent branch (method.name={ours.run.config.method.name}), so there is nothing to analyse: "
            f"take a run of latent, given_classes or symmetric, and name this one with --baseline"
        )
    other = None if baseline is None else Model.open(baseline, overrides=overrides)
    datasets = [dataset, *([] if other is None else [open_data(other.run, ours.run.config.data)])]
    meaning = _meaning(ours, checkpoint)
    folder = _make_folder(ours.run.folder, split, checkpoint)
    counts = _count(ours, other, datasets, items, meaning.given)
    result = _figures(ours, other, counts, meaning, split, checkpoint)
    write_analysis(result, folder)
    return result


def _meaning(model: Model, checkpoint: str) -> _Meaning:
    """Names of the latent classes, and which of them stands for which class.

    Raises:
        UserError: The checkpoint does not hold M.
    """
    classes, method = model.run.classes, model.run.config.method
    if method.name == "symmetric":  # the second branch predicts the classes
        return _Meaning(list(classes), list(range(len(classes))), torch.eye(len(classes)), None)
    entry = model.run.checkpoints.best() if checkpoint == "best" else model.run.checkpoints.last()
    matrix = None if entry is None else model.run.checkpoints.read(entry).get("method.cooccurrence")
    if matrix is None:
        raise UserError(
            f"the {checkpoint} checkpoint of {model.run.folder} holds no M (method.cooccurrence): train anew"
        )
    given = latent_given_class(matrix)
    if method.name == "given_classes":
        groups = method.groups or "identity"
        names = list(classes) if isinstance(groups, str) else list(groups)
        return _Meaning(names, list(group_ids(groups, classes)), given, matrix)
    names = [f"l{number}" for number in range(matrix.shape[1])]
    mapping = [None if row is None else stats.dominant(row) for row in stats.given_rows(matrix)]
    return _Meaning(names, mapping, given, matrix)


def _make_folder(run: Path, split: str, checkpoint: str) -> Path:
    parts = ["analysis", *([split] if split != "val" else []), *(["best"] if checkpoint == "best" else [])]
    folder = run / "-".join(parts)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create {folder}: {error.strerror}; analyse a copy that you may write to") from error
    return folder


def _count(ours: Model, other: Model | None, datasets: list[Dataset], items: list[Item], given: Tensor) -> Counts:
    """Go over the images, at their original size; each model reads them from its data set, at its own scale."""
    counts = Counts(len(ours.run.classes), ours.segmenter.num_latent, given, other is not None)

    def read(item: Item) -> list[Ready[NDArray[np.uint8]]]:
        return [read_scored(dataset, item) for dataset in datasets]

    for (image, size, targets), *same in track(in_threads(read, items), "analysing", len(items)):
        probs = ours.probs(image, size)
        assert probs.latent is not None
        beside = None if other is None else other.probs(same[0][0], size, latent=False).semantic
        counts.add(probs.semantic, probs.latent, torch.from_numpy(targets), beside)
    return counts


def _figures(
    ours: Model, other: Model | None, counts: Counts, meaning: _Meaning, split: str, checkpoint: str
) -> Analysis:
    classes = list(ours.run.classes)
    of_m = None if meaning.matrix is None else stats.given_rows(meaning.matrix)
    structure = stats.structure(counts.soft, counts.won, classes, meaning.names)
    semantic = scores(counts.semantic[:-1], ours.run.config.inference.miou_over)
    latent = stats.mapped_scores(counts.won[:-1], meaning.mapping)
    mapped = stats.mapped_scores(counts.mapped[:-1], meaning.mapping)
    return Analysis(
        run=str(ours.run.folder),
        split=split,
        checkpoint=checkpoint,
        step=ours.step,
        images=counts.images,
        classes=classes,
        latent_names=meaning.names,
        mapping=meaning.mapping,
        structure=structure,
        latent_given_class_m=of_m,
        effective_m=None if of_m is None else stats.effective_counts(of_m),
        information=stats.information(counts.soft[:-1]),
        ease=Ease(
            *(part.miou for part in (semantic, latent, mapped)),
            *(part.pixel_accuracy for part in (semantic, latent, mapped)),
        ),
        semantic_iou=semantic.iou,
        baseline=None if other is None else _beside(ours, other, counts, structure.latent_given_class, semantic.iou),
    )


def _beside(ours: Model, other: Model, counts: Counts, rows: Rows, ours_iou: list[float]) -> Baseline:
    assert counts.baseline is not None
    result = scores(counts.baseline[:-1], ours.run.config.inference.miou_over)
    named = [number for number, name in enumerate(ours.run.classes) if name.strip().lower() == BACKGROUND]
    row = rows[named[0]] if named else None
    shares: tuple[Shares | None, Shares | None] = (None, None)
    if row is not None:
        background, dominant = named[0], stats.dominant(row)
        pairs = [
            stats.confused_with_background(table[:-1], background, called)
            for table, called in ((counts.baseline, background), (counts.semantic, background), (counts.won, dominant))
        ]
        shares = (Shares(*(missed for missed, _ in pairs)), Shares(*(invented for _, invented in pairs)))
    return Baseline(
        run=str(other.run.folder),
        step=other.step,
        miou=result.miou,
        iou=result.iou,
        ours=ours_iou,
        differences=differences(ours.run.config, other.run.config),
        foreground_called_background=shares[0],
        background_called_foreground=shares[1],
    )
