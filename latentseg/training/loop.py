"""The one training loop. It knows no method."""

import time
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from latentseg.analysis import figures_while_training
from latentseg.config import Config
from latentseg.console import console, track_steps
from latentseg.data.changes import changed_files, remember_files
from latentseg.data.check import print_notes
from latentseg.data.datasets import Item
from latentseg.distributed import average, from_first, is_first, peers_named, world
from latentseg.engine import connected, full_speed
from latentseg.errors import UserError
from latentseg.inference.evaluate import score_items
from latentseg.inference.model import Model
from latentseg.runs.folder import (
    LOCK,
    Log,
    Run,
    check_run_folder,
    create_run,
    free_path,
    make_folder,
    recorded_precision,
)
from latentseg.runs.locks import hold
from latentseg.training.notes import check_first
from latentseg.training.trainer import Trainer

ANALYSED = 200
"""Held-out images on which the latent branch is judged at each validation."""


def train(config: Config, run: str | Path | None = None, resume: bool = False) -> Run:
    """Train as the configuration says and leave a run folder.

    Args:
        config: The run, from `load_config`.
        run: The run folder; `runs/DATA-METHOD-sSEED` with the first free number if None.
        resume: Go on from the last checkpoint in `run`, bit for bit; start if it has none.

    Raises:
        UserError: Bad input, found before training; or a loss that is not finite.
    """
    check_arguments(config, run, resume)
    folder = Path(run) if run else free_path(Path("runs") / f"{config.data.kind}-{config.method.name}-s{config.seed}")
    if is_first():
        check_run_folder(folder, config, resume)
    if resume:
        config = recorded_precision(folder, config)
    trainer = Trainer.open(config)
    trainer, scored, report = check_first(trainer)
    dataset, split = trainer.dataset, trainer.split
    with ExitStack() as stack:
        stack.enter_context(connected(trainer.fabric))
        stack.enter_context(full_speed())

        def begin() -> tuple[Run, int]:
            make_folder(folder)
            stack.enter_context(hold(folder / LOCK, f"the run {folder}"))
            if resume:
                print_notes(changed_files(split, {config.validate_split: scored}, folder / "split"))
            run_folder = create_run(folder, config, dataset, split)
            remember_files(split, {config.validate_split: scored}, folder / "split")
            if report:
                report.write(folder / "split")
            entry = run_folder.checkpoints.last() if resume else None
            start = entry.step if entry else 0
            several = f", {world()} processes" if world() > 1 else ""
            share = f" ({split.share})" if split.share else ""
            console.print(
                f"{folder}: {config.method.name}, {len(split.labeled)} labelled{share} and {len(split.unlabeled)} "
                f"unlabelled images, {len(dataset.classes)} classes, steps {start} to {config.steps}{several}",
                markup=False,
                highlight=False,
            )
            return run_folder, start

        run_folder, start = from_first(begin)
        with peers_named():
            _fit(trainer, scored, run_folder, start)
    if report and scored:
        print_notes(report.score_notes)
    return run_folder


def check_arguments(config: Config, run: str | Path | None, resume: bool) -> None:
    """Refuse what can be told to fail without a look at data or folders.

    Raises:
        UserError: There is no run to resume, or the batch cannot be shared equally.
    """
    if resume and not run:
        raise UserError("nothing to resume: name the run folder with --run")
    processes = config.devices * config.num_nodes
    if config.batch_size % processes:
        raise UserError(
            f"batch_size={config.batch_size} cannot be divided among {processes} processes (devices={config.devices}, "
            f"num_nodes={config.num_nodes}): take a multiple of {processes}"
        )


def _resume(trainer: Trainer, run: Run) -> None:
    """Take up the last checkpoint, which process 0 reads for all; without one, all start from its weights."""

    def tensors() -> dict[str, Tensor] | None:
        entry = run.checkpoints.last()
        run.checkpoints.drop_later_best(entry.step if entry else 0)
        if entry:
            return run.checkpoints.read(entry)
        return {name: value.cpu() for name, value in trainer.state.tensors().items()} if world() > 1 else None

    found = from_first(tensors)
    if found is not None:
        trainer.state.load(found)


def _fit(trainer: Trainer, scored: list[Item], run: Run, start: int) -> None:
    """Run the steps from `start`; log, validate and save on the way."""
    config, part = trainer.config, trainer.part
    trainer.place()  # only now have the tensors their precision
    _resume(trainer, run)
    trainer.seek(start)
    log = Log(run.folder, start) if part.rank == 0 else None
    seconds, images = 0.0, 0
    with track_steps(config.steps, start, log is not None) as show:
        while trainer.done < config.steps:
            began = time.perf_counter()
            step, batch = trainer.read()
            terms = trainer.learn(step, batch)
            images += len(batch) * part.world
            done, ends = trainer.done, trainer.done == config.steps
            logs = done % config.log_every == 0 or ends
            if logs:
                average(terms.values())
                figures = {name: float(value) for name, value in terms.items()}
            seconds += time.perf_counter() - began
            if logs:
                figures |= trainer.describe()
                rate = images / seconds
                if log:
                    log.write(done, figures | {"seconds": round(seconds, 3), "images_per_second": round(rate, 2)})
                show(done, figures, rate)
                seconds, images = 0.0, 0
            if scored and (ends or (config.validate_every and done % config.validate_every == 0)):
                _validate(trainer, scored, run, log)
            if log and (done % config.checkpoint_every == 0 or ends):
                run.checkpoints.save(done, _finite(trainer.state.tensors(), done))
    trainer.close()
    if log:
        log.close()


def _validate(trainer: Trainer, items: list[Item], run: Run, log: Log | None) -> None:
    """Score the held-out images, a part of them on each process; keep the weights if they are the best so far."""
    config, step = trainer.config, trainer.done
    model = Model.live(trainer.state.segmenter, config, trainer.dataset)
    result = score_items(model, trainer.dataset, items)
    figures = {name: getattr(result, name) for name in ("miou", "iou", "pixel_accuracy")}
    cooccurrence = getattr(trainer.method, "cooccurrence", None)
    if cooccurrence is not None:
        figures |= figures_while_training(model, trainer.dataset, items[:ANALYSED], cooccurrence)
    trainer.train_mode()
    if log is None:
        return
    log.write(step, {f"{config.validate_split}_{name}": figure for name, figure in figures.items()})
    console.print(f"step {step}: mIoU {result.miou_text()} on {config.validate_split}", highlight=False)
    best = run.checkpoints.best()
    if best is None or best.miou is None or result.miou > best.miou:
        tensors = _finite(trainer.state.tensors(optimizers=False), step)
        run.checkpoints.save_best(step, tensors, result.miou)


def _finite(tensors: dict[str, Tensor], step: int) -> dict[str, Tensor]:
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise UserError(
                f"step {step}: {name} holds values that are not finite; training stopped. The last checkpoint is "
                f"from before. Remedy: a lower optim.lr"
            )
    return tensors
