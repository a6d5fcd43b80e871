"""What a training will cost, from a few real steps of it. Nothing is left behind."""

import math
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.table import Table
from rich.text import Text

from latentseg.config import Config
from latentseg.console import duration
from latentseg.data.batches import LABELED, UNLABELED, Part, views_of
from latentseg.data.caching import cache_root, images_of, stored_features
from latentseg.data.check import check_data
from latentseg.data.datasets import Dataset, open_dataset
from latentseg.data.neighbours import asks_neighbours
from latentseg.data.splits import Split, draw_split
from latentseg.engine import choose_device, choose_precision, full_speed
from latentseg.inference.evaluate import score_items
from latentseg.inference.model import Model
from latentseg.methods.table import METHODS
from latentseg.models.whole import SIDE
from latentseg.runs.folder import open_run
from latentseg.runs.place import check_arguments, check_run_folder
from latentseg.training.trainer import Trainer

STEPS = 3
"""Timed steps per phase, after one that is not timed."""
IMAGES = 4
"""Scored images, after one that is not timed."""


@dataclass(frozen=True)
class Costs:
    """What was measured; seconds and bytes are those of one process."""

    early: float
    """Seconds per step before the consistency begins."""
    late: float
    """Seconds per step after that."""
    loading: float
    """Share of the later steps' time that goes by until the batch is there."""
    scoring: float
    """Seconds per scored image; NaN if none can be scored."""
    features: float
    """Seconds per view of an image for its features, once; 0 if they are all cached."""
    feature_bytes: int
    """Bytes on disk per view of an image for its features."""
    checkpoint_bytes: int
    """Bytes of one checkpoint."""
    weights_bytes: int
    """Bytes of the best weights, which come without the optimisers."""
    uses_unlabeled: bool
    """Whether the method reads unlabelled images."""
    peak_bytes: int
    """Most memory that was held: of the GPU, or of the whole process on a CPU."""

    def training_seconds(self, config: Config, start: int = 0) -> float:
        """Seconds of all steps from `start` on, without validations."""
        first_late = math.ceil(config.steps * config.method.consistency_start)
        early = max(0, min(first_late, config.steps) - start)
        return early * self.early + (config.steps - start - early) * self.late


def measure_costs(config: Config, dataset: Dataset | None = None, folder: Path | None = None) -> Costs:
    """Time a few steps before and after the consistency begins, and the scoring of a few images.

    Of several processes one is timed, with its part of the batch; what they send each other is not.

    Args:
        config: The run.
        dataset: Its data set, if it is open already.
        folder: Where features of a few images are kept, unless the cache holds all that the run reads; a temporary
            folder if None.

    Raises:
        UserError: The run could not begin.
    """
    processes = config.devices * config.num_nodes
    with ExitStack() as stack:
        folder = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(_threads(config.threads))
        stack.enter_context(full_speed())
        config = config.model_copy(update={"devices": 1, "num_nodes": 1})
        dataset = dataset or open_dataset(config.data, remember=config.cache == "images")
        split = draw_split(dataset, config.data, config.seed)
        reads = METHODS[config.method.name].uses_unlabeled(config.method)
        trainer = Trainer.open(config, dataset, split, Part(0, processes))
        trainer.place()  # the cache knows the encoder's weights in their precision
        cached = config.cache == "features" and stored_features(config, trainer.state.segmenter, split, reads)
        if config.cache != "none" and not cached:  # a few images, which are there after the step that is not timed
            few = Split(split.labeled[: config.batch_size], split.unlabeled[: config.batch_size])
            config = config.model_copy(update={"cache_folder": str(folder)})
            trainer = Trainer.open(config, dataset, few, Part(0, processes))
        costs = _time_steps(trainer)
        if config.cache == "features":
            seen = views(config, trainer.split, reads)
            stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            costs = replace(costs, features=0.0 if cached else costs.features / seen, feature_bytes=stored // seen)
        scoring = _time_scoring(trainer)
        return replace(costs, scoring=scoring, peak_bytes=_peak(choose_device(config.device)))


def views(config: Config, split: Split, unlabeled: bool) -> int:
    """Views that the encoder has to see before a run with `cache=features`; a whole image counts by its pixels.

    Args:
        config: How many views an image of each stream has.
        split: The images.
        unlabeled: Whether the unlabelled ones are read.
    """
    streams = [(LABELED, split.labeled), *([(UNLABELED, split.unlabeled)] if unlabeled else [])]
    seen = sum(len(items) * (views_of(stream, config.augment, len(items)) or 1) for stream, items in streams)
    if not (unlabeled and split.unlabeled and asks_neighbours(config)):
        return seen
    return seen + round(len(images_of(split)) * SIDE**2 / math.prod(config.augment.crop))


def dry_run(config: Config, run: Path | None = None, resume: bool = False) -> Table:
    """What `train` with the same arguments would take: time, memory, disk and images.

    Args:
        config: The run.
        run: The run folder, if it has a name; only looked at.
        resume: Whether it would go on from its last checkpoint.

    Raises:
        UserError: The run could not begin.
    """
    check_arguments(config, run, resume)
    start = 0
    if run:
        check_run_folder(run, config, resume)
        entry = open_run(run).checkpoints.last() if resume and (run / "config.yaml").exists() else None
        start = entry.step if entry else 0
    dataset = open_dataset(config.data, remember=config.cache == "images")
    split = draw_split(dataset, config.data, config.seed)
    scored = dataset.items(config.validate_split) if dataset.has(config.validate_split) else []
    report = check_data(dataset, split, {config.validate_split: scored}, "quick")
    report.settle(config.data.on_bad)
    costs = measure_costs(config, dataset)
    table = Table(title="expected, from a few timed steps", show_header=False)
    for name, text in _lines(config, costs, start, split, len(scored), run or Path()):
        table.add_row(name, Text(text))
    return table


def _lines(
    config: Config, costs: Costs, start: int, split: Split, scored: int, folder: Path
) -> Iterator[tuple[str, str]]:
    processes, device = config.devices * config.num_nodes, choose_device(config.device)
    unlabeled = len(split.unlabeled) if costs.uses_unlabeled else 0
    yield "images", f"{len(split.labeled)} labelled, {unlabeled} unlabelled, {scored} of {config.validate_split}"
    kinds = "labelled and as many unlabelled" if unlabeled else "labelled"
    height, width = config.augment.crop
    shares = f", shared by {processes} processes" if processes > 1 else ""
    yield "batch", f"{config.batch_size} {kinds} ones, views of {width}x{height} pixels{shares}"
    precision = choose_precision(config, device)
    threads = f", {config.threads or torch.get_num_threads()} threads" if device.type == "cpu" else ""
    yield "on", f"{device.type}{threads}, {precision}"
    late = f", {1000 * costs.late:.0f} ms once the consistency has joined" if costs.late != costs.early else ""
    yield "step", f"{1000 * costs.early:.0f} ms{late}; {100 * costs.loading:.1f} % of it waiting for images"
    steps = costs.training_seconds(config, start)
    parts = [f"{config.steps - start} steps {duration(steps)}"]
    every = config.validate_every or config.steps
    validations = sum(done > start for done in {*range(every, config.steps, every), config.steps})
    validating = validations * scored * costs.scoring if scored else 0.0
    if scored:
        parts.append(f"{validations} validation{'s' if validations > 1 else ''} {duration(validating)}")
    seen = views(config, split, costs.uses_unlabeled)
    if costs.features:
        parts.append(f"features {duration(seen * costs.features)} unless they are cached")
    total = steps + validating + seen * costs.features
    yield "time", f"{duration(total)}: {', '.join(parts)}" + (", without sending gradients" if processes > 1 else "")
    each = " per process" if processes > 1 else ""
    yield "memory", f"{costs.peak_bytes / 1e9:.1f} GB{each}" + (" of the GPU" if device.type == "cuda" else "")
    needed = 3 * costs.checkpoint_bytes + 2 * costs.weights_bytes  # while a third and a better one are written
    yield "disk", f"{needed / 1e6:.0f} MB in the run folder, {_free(folder) / 1e9:.0f} GB are free"
    if costs.features:
        root = cache_root(config)
        stored = seen * costs.feature_bytes / 1e6
        yield "", f"{stored:.0f} MB for features in {root}, {_free(root) / 1e9:.0f} GB are free"


def _free(folder: Path) -> int:
    """Bytes left where a folder is or would be."""
    return shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists())).free


def _time_steps(trainer: Trainer) -> Costs:
    """Costs without scoring and memory; `features` for all views together."""
    config, reads = trainer.config, trainer.method.uses_unlabeled
    began = time.perf_counter()
    trainer.seek(0)
    features = time.perf_counter() - began if config.cache == "features" else 0.0
    joins = METHODS[config.method.name].joins_late and reads
    late = math.ceil(config.steps * config.method.consistency_start) if joins else 0
    phases = []
    for first in sorted({0, min(late, config.steps - 1)}):
        trainer.seek(first)
        waits, ends = [], [time.perf_counter()]
        for _ in range(min(STEPS + 1, config.steps - first)):
            values = trainer.step()
            [float(value) for value in values.values()]  # waits for the device
            waits.append(trainer.waited)
            ends.append(time.perf_counter())
        skipped = min(1, len(waits) - 1)  # the first step warms up
        seconds = ends[-1] - ends[skipped]
        phases.append((seconds / (len(waits) - skipped), sum(waits[skipped:]) / seconds))
    trainer.close()
    tensors, weights = (sum(tensor.nbytes for tensor in trainer.state.tensors(both).values()) for both in (True, False))
    return Costs(phases[0][0], phases[-1][0], phases[-1][1], math.nan, features, 0, tensors, weights, reads, 0)


def _time_scoring(trainer: Trainer) -> float:
    config, dataset = trainer.config, trainer.dataset
    if not dataset.has(config.validate_split):
        return math.nan
    items = dataset.items(config.validate_split)[:IMAGES]
    model = Model.live(trainer.state.segmenter, config, dataset)
    score_items(model, dataset, items[:1])  # warms up
    began = time.perf_counter()
    score_items(model, dataset, items)
    return (time.perf_counter() - began) / len(items)


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
