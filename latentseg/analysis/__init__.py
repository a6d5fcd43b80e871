"""What the latent classes of a run mean: P(l|c), super-categories in words, and the claims of the paper's section 4.

`analyse` goes over a split once, a few images in memory at a time. `stats` has the figures, `findings` says them in
words and tables, `files` writes and reads RUN/analysis, with the picture of `heatmap`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentseg.analysis import stats
from latentseg.analysis.files import analysis_folder, write_analysis
from latentseg.analysis.findings import Analysis, Baseline, Shares
from latentseg.analysis.stats import Counts
from latentseg.console import track
from latentseg.data.ahead import in_threads
from latentseg.data.datasets import Dataset, Item
from latentseg.distributed import all_reduce_sum, rank, world
from latentseg.engine import full_speed
from latentseg.errors import RunError, UserError
from latentseg.inference.model import Model, open_data, read_scored
from latentseg.inference.stream import Ready
from latentseg.methods.given_classes import group_ids
from latentseg.methods.table import METHODS
from latentseg.metrics import scores
from latentseg.presets import differences

BACKGROUND = "background"
"""Name of the class that is no thing; a data set without it has no foreground either."""


@dataclass(frozen=True)
class _Meaning:
    """What the channels of the latent branch stand for."""

    names: list[str]
    mapping: list[int | None]
    """The one that stands for each class; None for a class that M never saw."""
    cooccurrence: Tensor
    """M, shape (C, L); the identity where the channels are the classes."""


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
        able = [name for name, row in METHODS.items() if row.second != "nothing"]
        raise UserError(
            f"{run} has no latent branch (method.name={ours.run.config.method.name}), so there is nothing to analyse: "
            f"take a run of another method ({', '.join(able)}), and name this one with --baseline"
        )
    other = None if baseline is None else Model.open(baseline, overrides=overrides)
    datasets = [dataset, *([] if other is None else [open_data(other.run, ours.run.config.data)])]
    meaning = _meaning(ours, checkpoint)
    folder = _make_folder(ours.run.folder, split, checkpoint)
    with full_speed():
        counts = _count(ours, other, datasets, items, meaning.cooccurrence)
    result = _figures(ours, other, counts, meaning, split, checkpoint)
    write_analysis(result, folder)
    return result


def figures_while_training(model: Model, dataset: Dataset, items: list[Item], cooccurrence: Tensor) -> dict[str, float]:
    """What the latent branch is worth so far: the figures of `Counts.log`, of all processes.

    Args:
        model: The one in training, in eval mode.
        dataset: With the classes of the model, at its scale.
        items: Images with labels; several processes take an image each in turn.
        cooccurrence: M, shape (C, L).
    """
    counts = _count(model, None, [dataset], items[rank() :: world()], cooccurrence.cpu())
    counts.all_reduce(lambda table: all_reduce_sum(table.to(model.device)).cpu())
    return counts.log()


def _meaning(model: Model, checkpoint: str) -> _Meaning:
    """Names of the latent classes, and which of them stands for which class.

    Raises:
        RunError: The checkpoint does not hold M.
    """
    classes, method = model.run.classes, model.run.config.method
    second, matrix = METHODS[method.name].second, cooccurrence_of(model, checkpoint)
    if second == "classes":
        return _Meaning(list(classes), list(range(len(classes))), matrix)
    if second == "groups":
        groups = method.groups or "identity"
        names = list(classes) if isinstance(groups, str) else list(groups)
        return _Meaning(names, list(group_ids(groups, classes)), matrix)
    return _Meaning([f"l{number}" for number in range(matrix.shape[1])], stats.dominant_of(matrix), matrix)


def cooccurrence_of(model: Model, checkpoint: str) -> Tensor:
    """M of a run with a latent branch, shape (C, L); the identity where that branch predicts the classes.

    Args:
        model: From a run folder.
        checkpoint: last or best, the one that it was opened from.

    Raises:
        RunError: The checkpoint does not hold M.
    """
    classes, method = model.run.classes, model.run.config.method
    if METHODS[method.name].second == "classes":
        return torch.eye(len(classes))
    entry = model.run.checkpoints.best() if checkpoint == "best" else model.run.checkpoints.last()
    matrix = None if entry is None else model.run.checkpoints.read(entry).get("method.cooccurrence")
    shape = (len(classes), METHODS[method.name].second_channels(method, len(classes)))
    if matrix is None or tuple(matrix.shape) != shape:
        raise RunError(
            f"the {checkpoint} checkpoint of {model.run.folder} holds no M of {shape[0]} x {shape[1]} "
            f"(method.cooccurrence): train anew"
        )
    return matrix


def _make_folder(run: Path, split: str, checkpoint: str) -> Path:
    folder = analysis_folder(run, split, checkpoint)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot create {folder}: {error.strerror}; analyse a copy that you may write to") from error
    return folder


def _count(
    ours: Model, other: Model | None, datasets: list[Dataset], items: list[Item], cooccurrence: Tensor
) -> Counts:
    """Go over the images, at their original size; each model reads them from its data set, at its own scale."""
    counts = Counts(cooccurrence)

    def read(item: Item) -> list[Ready[NDArray[np.uint8]]]:
        return [read_scored(dataset, item) for dataset in datasets]

    for (image, size, targets), *same in track(in_threads(read, items), "analysing", len(items)):
        probs = ours.probs(image, size)
        assert probs.latent is not None
        beside = None if other is None else other.probs(same[0][0], size, latent=False).semantic
        counts.add(probs.semantic, probs.latent, torch.from_numpy(targets[None]), beside)
    return counts


def _figures(
    ours: Model, other: Model | None, counts: Counts, meaning: _Meaning, split: str, checkpoint: str
) -> Analysis:
    classes, over = list(ours.run.classes), ours.run.config.inference.miou_over
    learned = METHODS[ours.run.config.method.name].second != "classes"
    of_m = stats.given_rows(meaning.cooccurrence) if learned else None
    semantic = scores(counts.pixels["semantic"][:-1], over)
    return Analysis(
        run=str(ours.run.folder),
        split=split,
        checkpoint=checkpoint,
        step=ours.step,
        images=counts.images,
        classes=classes,
        latent_names=meaning.names,
        mapping=meaning.mapping,
        structure=stats.structure(counts.sums["latent"], counts.pixels["latent"], classes, meaning.names),
        latent_given_class_m=of_m,
        effective_m=None if of_m is None else stats.effective_counts(of_m),
        figures=counts.figures(meaning.mapping, over),
        semantic_iou=semantic.iou,
        baseline=None if other is None else _beside(ours, other, counts),
    )


def _beside(ours: Model, other: Model, counts: Counts) -> Baseline:
    pixels = {name: table[:-1] for name, table in counts.pixels.items()}
    result = scores(pixels["baseline"], ours.run.config.inference.miou_over)
    named = [number for number, name in enumerate(ours.run.classes) if name.strip().lower() == BACKGROUND]
    background = named[0] if named else 0
    row = stats.given_rows(counts.sums["latent"])[background]
    shares: tuple[Shares | None, Shares | None] = (None, None)
    if named and row is not None:
        called = {"baseline": background, "semantic": background, "latent": stats.dominant(row)}
        pairs = [stats.confused_with_background(pixels[name], background, column) for name, column in called.items()]
        shares = (Shares(*(missed for missed, _ in pairs)), Shares(*(invented for _, invented in pairs)))
    return Baseline(
        run=str(other.run.folder),
        step=other.step,
        miou=result.miou,
        iou=result.iou,
        differences=differences(ours.run.config, other.run.config),
        foreground_called_background=shares[0],
        background_called_foreground=shares[1],
    )
