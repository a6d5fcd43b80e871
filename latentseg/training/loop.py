"""The one training loop. It knows no method."""

import shlex
import signal
import sys
import threading
import time
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from latentseg.analysis import figures_while_training
from latentseg.config import Config
from latentseg.console import console, track_steps
from latentseg.data.batches import Batch
from latentseg.data.changes import changed_files, remember_files
from latentseg.data.check import print_notes
from latentseg.data.datasets import Item
from latentseg.distributed import average, from_first, is_first, largest, peers_named, world
from latentseg.engine import connected, full_speed
from latentseg.errors import UserError
from latentseg.inference.evaluate import score_items
from latentseg.inference.model import Model
from latentseg.runs.folder import Run, create_run, make_folder, recorded_precision
from latentseg.runs.locks import hold
from latentseg.runs.log import Log
from latentseg.runs.metrics import read_metrics
from latentseg.runs.place import LOCK, check_arguments, check_run_folder, free_path
from latentseg.signals import Stop, heeded, leave
from latentseg.training.findings import findings
from latentseg.training.notes import check_first
from latentseg.training.origin import Origin
from latentseg.training.pictures import draw, keep
from latentseg.training.trainer import Trainer

ANALYSED = 200
"""Held-out images on which the latent branch is judged at each validation."""


def train(config: Config, run: str | Path | None = None, resume: bool = False, origin: str | Path | None = None) -> Run:
    """Train as the configuration says and leave a run folder.

    SIGTERM, SIGHUP, SIGUSR1 and Ctrl-C end the running step, save a checkpoint and end the process with the status
    128 + number of the signal (143, 129, 138; Ctrl-C raises KeyboardInterrupt); a second one ends it at once.

    Args:
        config: The run, from `load_config`.
        run: The run folder; `runs/DATA-METHOD-sSEED` with the first free number if None.
        resume: Go on from the last checkpoint in `run`, bit for bit; start if it has none.
        origin: A run folder: a new run begins with the weights of its last checkpoint.

    Returns:
        The run, with what was found of terms that did nothing.

    Raises:
        UserError: Bad input, found before training; or a loss that is not finite.
    """
    check_arguments(config, run, resume)
    if resume and origin:
        raise UserError("--from begins a new run, --resume goes on with one that was begun: take one of them")
    folder = Path(run) if run else free_path(Path("runs") / f"{config.data.kind}-{config.method.name}-s{config.seed}")
    with heeded() as stop:
        if is_first():
            check_run_folder(folder, config, resume)
        if resume:
            config = recorded_precision(folder, config)
        given = Origin.open(origin) if origin else None
        trainer = Trainer.open(config)
        result, stopped = _train(trainer, folder, resume, given, stop)
    if stopped and not is_first():
        sys.exit(0)  # Fabric would take another status for a crash, and kill the process that started this one
    if stopped:
        leave(stopped)
    return result


def _train(trainer: Trainer, folder: Path, resume: bool, origin: Origin | None, stop: Stop) -> tuple[Run, int]:
    """Connect the processes and run the steps; the run, and the signal that stopped it or 0."""
    trainer, scored, report = check_first(trainer)
    config, dataset, split = trainer.config, trainer.dataset, trainer.split
    lost = threading.Event()
    with ExitStack() as stack:
        stack.enter_context(connected(trainer.fabric))
        stack.enter_context(full_speed())

        def begin() -> tuple[Run, int, bool]:
            nonlocal lost
            make_folder(folder)
            lost = stack.enter_context(hold(folder / LOCK, f"the run {folder}"))
            if resume:
                print_notes(changed_files(split, {config.validate_split: scored}, folder / "split"))
            run = create_run(folder, config, dataset, split, origin.note() if origin else None)
            remember_files(split, {config.validate_split: scored}, folder / "split")
            if report:
                report.write(folder / "split")
            entry = run.checkpoints.last() if resume else None
            start = entry.step if entry else 0
            several = f", {world()} processes" if world() > 1 else ""
            share = f" ({split.share})" if split.share else ""
            console.print(
                f"{folder}: {config.method.name}, {len(split.labeled)} labelled{share} and {len(split.unlabeled)} "
                f"unlabelled images, {len(dataset.classes)} classes, steps {start} to {config.steps}{several}",
                markup=False,
                highlight=False,
            )
            return run, start, bool(scored) and _validates(config, start) and not _was_validated(run, start)

        run, start, pending = from_first(begin)
        with peers_named():
            result = _fit(trainer, scored, run, start, pending, stop, lost)
    if report and scored:
        print_notes(report.score_notes)
    return result


def _resume(trainer: Trainer, run: Run) -> None:
    """Take up the last checkpoint, which process 0 reads for all; without one, all start from its weights."""

    def tensors() -> tuple[bool, dict[str, Tensor] | None]:
        entry = run.checkpoints.last()
        run.checkpoints.take_up(entry.step if entry else 0)
        if entry:
            return True, run.checkpoints.read(entry)
        if origin := Origin.noted(run.folder):
            _say(f"{run.folder} {origin.give(trainer.state, run.classes, trainer.config.method.name)}")
        start = {name: value.cpu() for name, value in trainer.state.tensors().items()} if world() > 1 else None
        return False, start

    begun, found = from_first(tensors)
    if found is not None:
        trainer.state.load(found, begun)


def _fit(
    trainer: Trainer, scored: list[Item], run: Run, start: int, pending: bool, stop: Stop, lost: threading.Event
) -> tuple[Run, int]:
    """Run the steps from `start`; log, validate and save on the way.

    A stop is asked for by a signal to any of the processes; all learn of it at the end of a step.
    """
    config, part = trainer.config, trainer.part
    trainer.place()  # only now have the tensors their precision
    _resume(trainer, run)
    trainer.seek(start)
    log = Log(run.folder, start, config) if part.rank == 0 else None
    seconds, images, asked = 0.0, 0, 0
    with stop.deferred(), log or nullcontext(), track_steps(config.steps, start, log is not None) as show:
        if pending:  # stopped before its validation
            asked = _validate(trainer, scored, run, log, stop)
        while trainer.done < config.steps and not asked:
            began = time.perf_counter()
            step, batch = trainer.read()
            terms = _learn(trainer, step, batch, run)
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
                    _look(log, done, list(terms), ends)
                show(done, figures, rate, log.score if log else None)
                seconds, images = 0.0, 0
            asked = largest(stop.number, trainer.fabric.device)
            if scored and _validates(config, done) and not asked:
                asked = _validate(trainer, scored, run, log, stop)
            if lost.is_set():
                raise KeyboardInterrupt  # which `hold` explains: the folder is another process's by now
            if log and (done % config.checkpoint_every == 0 or ends or asked):
                run.checkpoints.save(done, _finite(trainer.state.tensors(), done))
    trainer.close()
    if asked and log:
        _say(_stopped(run, asked, trainer.done))
    return replace(run, findings=tuple(log.findings) if log else ()), asked


def _learn(trainer: Trainer, step: int, batch: Batch, run: Run) -> dict[str, Tensor]:
    """Take a step; a term that is not finite stops the run, and the message says how to go on."""
    config = trainer.config
    try:
        terms = trainer.learn(step, batch)
        every = config.log_every, config.checkpoint_every, config.validate_every or config.steps, config.steps
        if any(trainer.done % steps == 0 for steps in every):
            trainer.settle()
    except UserError as error:
        last = run.checkpoints.last()
        if last is None:
            raise
        raise UserError(
            f"{error}. From its last checkpoint, {last.file}, a new run begins by: latentseg train --from "
            f"{shlex.quote(str(run.folder))} optim.lr={trainer.config.optim.lr / 2:g} --run NEW_FOLDER"
        ) from error
    return terms


def _look(log: Log, step: int, terms: list[str], ends: bool) -> None:
    """Say what is found of terms that do nothing, each thing once."""
    for text in findings(log.recent, terms, ends):
        if text not in log.findings:
            log.findings.append(text)
            log.write(step, {"finding": text})
            console.print(f"note: step {step}: {text}", style="yellow", markup=False, highlight=False)


def _validates(config: Config, step: int) -> bool:
    """Whether a validation follows this step."""
    return step > 0 and (step == config.steps or (config.validate_every > 0 and step % config.validate_every == 0))


def _was_validated(run: Run, step: int) -> bool:
    name = f"{run.config.validate_split}_miou"
    return any(row["step"] == step and name in row for row in read_metrics(run.folder))


def _stopped(run: Run, number: int, step: int) -> str:
    last = run.checkpoints.last()
    saved = f"saved {last.file}" if last else "nothing to save yet"
    again = f"latentseg train {shlex.quote(str(run.folder))} --resume"
    return f"stopped by {signal.Signals(number).name} after step {step}: {saved}. Go on with: {again}"


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False)


def _validate(trainer: Trainer, items: list[Item], run: Run, log: Log | None, stop: Stop) -> int:
    """Score the held-out images, a part of them on each process; keep the weights if they are the best so far.

    Returns:
        The signal that asks to stop, or 0. In a single process it ends the scoring, which a resumed run begins again.
    """
    config, step = trainer.config, trainer.done
    model = Model.live(trainer.state.segmenter, config, trainer.dataset)
    cooccurrence = getattr(trainer.method, "cooccurrence", None)
    try:
        with stop.at_once() if world() == 1 else nullcontext():
            result = score_items(model, trainer.dataset, items)
            figures = {name: getattr(result, name) for name in ("miou", "iou", "pixel_accuracy")}
            if cooccurrence is not None:
                figures |= figures_while_training(model, trainer.dataset, items[:ANALYSED], cooccurrence)
            picture = draw(model, trainer.dataset, items) if log is not None else None
    except (KeyboardInterrupt, SystemExit):
        if not stop.number:
            raise
        return stop.number
    trainer.train_mode()
    if log is not None:
        log.write(step, {f"{config.validate_split}_{name}": figure for name, figure in figures.items()})
        console.print(f"step {step}: mIoU {result.miou_text()} on {config.validate_split}", highlight=False)
        best = run.checkpoints.best()
        if best is None or best.miou is None or result.miou > best.miou:
            tensors = _finite(trainer.state.tensors(optimizers=False), step)
            run.checkpoints.save_best(step, tensors, result.miou)
        if picture is not None:
            keep(run, log, step, picture)
    return largest(stop.number, trainer.fabric.device)


def _finite(tensors: dict[str, Tensor], step: int) -> dict[str, Tensor]:
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise UserError(
                f"step {step}: {name} holds values that are not finite; training stopped. The last checkpoint is "
                f"from before. Remedy: a lower optim.lr"
            )
    return tensors
