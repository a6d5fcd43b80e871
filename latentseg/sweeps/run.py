"""Run a sweep: here, in several processes of this machine, or by one command per cell for any scheduler.

Progress, replacement of the dead, an orderly end.
"""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import IO

from latentseg.console import console, duration
from latentseg.errors import UserError
from latentseg.signals import heeded
from latentseg.sweeps.cells import State, Sweep, cell_owner, cell_state, kind, threads_each
from latentseg.sweeps.files import read_sweep, write_sweep
from latentseg.sweeps.work import check_cells, work

POLL = 0.5
"""Seconds between two looks at the workers."""
LINE_SECONDS = 30.0
"""Without a terminal: seconds between two lines of progress."""
GRACE = 20.0
"""Seconds that a worker has to end its step and save."""
REPLACEMENTS = 3
"""A worker that dies is replaced this many times."""


def run_sweep(sweep: Sweep, run_root: Path, workers: int = 1, cell: str | None = None) -> Path:
    """Run every cell that is not done, beside whoever else works on the same run root.

    Args:
        sweep: From `read_sweep`.
        run_root: Folder of all run folders.
        workers: 1 works here; more are processes of this machine, which share its cores.
        cell: Name of a cell's folder: run this one alone, here.

    Returns:
        The description of the sweep, RUN_ROOT/sweeps/NAME.json.

    Raises:
        UserError: A cell could not run (its data, groups or weights), and nothing was begun; cells have failed (all
            others are done); workers keep dying; there is no such cell; or the run root cannot be written.
    """
    whole = sweep.at(run_root)
    runs = {one.folder: one for one in whole.cells if cell in (None, one.folder)}
    sweep = replace(whole, cells=tuple(runs.values()))
    if not sweep.cells:
        raise UserError(f"--cell={cell}: {sweep.name} with these options has no such cell; --dry-run lists its cells")
    notes = check_cells(sweep, run_root)
    path = write_sweep(whole, run_root, notes)
    for one in sweep.cells:
        if not cell_owner(one, run_root):
            (run_root / one.folder / "FAILED").unlink(missing_ok=True)  # tried again
    progress = Progress(sweep, run_root)
    with heeded():
        if workers == 1 or cell:
            work(sweep, run_root, progress.line)
        else:
            _run_workers(sweep, run_root, workers, progress)
    states = [(one, cell_state(one, run_root, sweep.splits)) for one in sweep.cells]
    failed = [f"{run_root / one.folder}: {state.message}" for one, state in states if state.kind == "failed"]
    if failed:
        raise UserError(
            f"{len(failed)} of {len(sweep.cells)} cells failed (file FAILED); the same command tries them again:\n"
            + "\n".join(failed)
        )
    done = f"cell {cell}" if cell else f"all {len(sweep.cells)} cells"
    console.print(f"{sweep.name}: {done} done, {path}", markup=False, highlight=False)
    return path


def commands(sweep: Sweep, run_root: Path) -> list[str]:
    """One shell command for each cell that is not done; together they finish the sweep, in any order, on any machine.

    Each is this sweep with `--cell`, so it makes the same folder, and finds it done, locked or begun as a worker does.
    """
    sweep = sweep.at(run_root)
    left = [cell for cell in sweep.cells if cell_state(cell, run_root, sweep.splits).kind != "done"]
    command = ["latentseg", "sweep", sweep.source, *sweep.overrides, "--run-root", str(run_root), "--cell"]
    return [shlex.join([*command, folder]) for folder in dict.fromkeys(cell.folder for cell in left)]


class Progress:
    """How far the sweep is, from the folders, and when it will be done."""

    def __init__(self, sweep: Sweep, run_root: Path) -> None:
        """Start the clock."""
        self._sweep, self._run_root = sweep, run_root
        self._kinds = [kind(cell.config) for cell in sweep.cells]
        self._began, self._start = time.monotonic(), [state.step for state in self._look()]

    def _look(self) -> list[State]:
        return [cell_state(cell, self._run_root, self._sweep.splits) for cell in self._sweep.cells]

    def text(self) -> str:
        """Cells by state, the running ones with their steps, and the time left."""
        states = self._look()
        kinds = [state.kind for state in states]
        looked = zip(self._sweep.cells, states, strict=True)
        running = [f"{cell.folder} {s.step}/{cell.config.steps}" for cell, s in looked if s.kind == "running"]
        text = f"{kinds.count('done')} of {len(kinds)} cells done, {len(running)} running"
        text += f" ({', '.join(running)})" if running else ""
        text += f", {kinds.count('failed')} failed" if "failed" in kinds else ""
        left = self._seconds_left(states)
        return text + ("" if left is None else f"; {duration(left)} left")

    def _seconds_left(self, states: list[State]) -> float | None:
        """At the pace since the start; a step counts as long as steps of this kind of cell took, or else of any."""
        seconds, steps = defaultdict[str, float](float), defaultdict[str, int](int)
        for name, state in zip(self._kinds, states, strict=True):
            seconds[name] += state.seconds
            steps[name] += state.step if state.seconds else 0
        mean = sum(seconds.values()) / sum(steps.values()) if any(steps.values()) else 1.0
        gained = left = 0.0
        for cell, name, state, start in zip(self._sweep.cells, self._kinds, states, self._start, strict=True):
            each = seconds[name] / steps[name] if steps[name] else mean
            gained += each * (state.step - start)
            left += each * (cell.config.steps - state.step) * (state.kind != "failed")
        return (time.monotonic() - self._began) * left / gained if gained > 0 else None

    def line(self) -> None:
        """Print it."""
        console.print(f"{self._sweep.name}: {self.text()}", markup=False, highlight=False)


def _run_workers(sweep: Sweep, run_root: Path, workers: int, progress: Progress) -> None:
    threads = threads_each(workers)
    running = [_start_worker(sweep, run_root, threads, number) for number in range(workers)]
    left = REPLACEMENTS * workers
    last = time.monotonic()
    try:
        with console.status(progress.text()) as status:
            # a worker that has died since the last look is still to be replaced
            while any(worker.poll() is None or (worker.returncode and left > 0) for worker in running):
                time.sleep(POLL)
                for number, worker in enumerate(running):
                    if worker.poll() not in (None, 0) and left > 0:
                        left -= 1
                        told = f"worker {number} died ({worker.returncode}, {run_root}/logs)"
                        console.print(f"{told}; another one takes its place", markup=False, highlight=False)
                        running[number] = _start_worker(sweep, run_root, threads, number)
                if console.is_terminal:
                    status.update(progress.text())
                elif time.monotonic() - last > LINE_SECONDS:
                    last = time.monotonic()
                    progress.line()
    finally:
        _end(running)
    if any(worker.returncode for worker in running):
        raise UserError(f"workers kept dying, the last lines of {run_root}/logs say why; the same command goes on")


def _start_worker(sweep: Sweep, run_root: Path, threads: int, number: int) -> "subprocess.Popen[bytes]":
    """Start a process that works on the sweep. It reads the sweep from its input, and writes into a log file."""
    log = run_root / "logs" / f"{socket.gethostname()}-{number}.log"
    log.parent.mkdir(exist_ok=True)
    free = any(cell.config.threads is None for cell in sweep.cells)
    overrides = [*sweep.overrides, *([f"threads={threads}"] if free else [])]
    order = {"source": sweep.source, "overrides": overrides, "run_root": str(run_root), "parent": os.getpid()}
    environment = os.environ | {"OMP_NUM_THREADS": str(sweep.cells[0].config.threads or threads)}
    command = [sys.executable, "-m", __name__]
    with log.open("ab") as output:
        worker = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment, process_group=0
        )  # in a group of its own: Ctrl-C is for this process, which ends the workers
    assert worker.stdin is not None
    with worker.stdin as pipe:
        pipe.write(json.dumps(order).encode())
    return worker


def _end(workers: "list[subprocess.Popen[bytes]]") -> None:
    for worker in workers:
        worker.terminate()
    for worker in workers:
        try:
            worker.wait(timeout=GRACE)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def _watch(parent: int) -> None:
    """End this process when its parent is gone, however that went; its cell is saved first, as after SIGTERM."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)


def worker_main(order: IO[str]) -> None:
    """A worker process: what to do comes as JSON."""
    orders = json.load(order)
    threading.Thread(target=_watch, args=(orders["parent"],), daemon=True).start()
    run_root = Path(orders["run_root"])
    sweep = read_sweep(orders["source"], orders["overrides"]).at(run_root)
    with heeded(patient=True):  # whoever started it ends it if it takes too long
        work(sweep, run_root, lambda: None)


if __name__ == "__main__":
    worker_main(sys.stdin)
