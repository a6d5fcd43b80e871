"""Run a sweep here or in several processes of this machine: progress, replacement of the dead, an orderly end."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO

from rich.console import Console

from latentseg.errors import UserError
from latentseg.progress import duration
from latentseg.sweeps.cells import Sweep, cell_owner, cell_state, threads_each, write_sweep
from latentseg.sweeps.files import read_sweep
from latentseg.sweeps.queue import Queue
from latentseg.sweeps.work import check_cells, work

POLL = 0.5
"""Seconds between two looks at the workers."""
LINE_SECONDS = 30.0
"""Without a terminal: seconds between two lines of progress."""
REPLACEMENTS = 3
"""A worker that dies is replaced this many times."""

console = Console(stderr=True, soft_wrap=True)


def run_sweep(sweep: Sweep, run_root: Path, workers: int = 1, storage: str | None = None) -> Path:
    """Run every cell that is not done, beside whoever else works on the same run root.

    Args:
        sweep: From `read_sweep`.
        run_root: Folder of all run folders.
        workers: 1 works here; more are processes of this machine, which share its cores.
        storage: SQL storage of Optuna by URL; a journal file in the run root if None.

    Returns:
        The description of the sweep, RUN_ROOT/sweeps/NAME.json.

    Raises:
        UserError: A cell could not run (its data, groups or weights), and nothing was begun; cells have failed (all
            others are done); workers keep dying; or the run root cannot be written.
    """
    check_cells(sweep)
    path = write_sweep(sweep, run_root)
    for cell in sweep.cells:
        if not cell_owner(cell, run_root):
            (run_root / cell.folder / "FAILED").unlink(missing_ok=True)  # tried again
    queue = Queue(sweep, run_root, storage)
    queue.fill()
    progress = Progress(sweep, run_root)
    with _polite_end():
        if workers == 1:
            work(sweep, run_root, queue, None, progress.line)
        else:
            _run_workers(sweep, run_root, workers, storage, progress)
    states = [(cell, cell_state(cell, run_root, sweep.splits)) for cell in sweep.cells]
    failed = [f"{run_root / cell.folder}: {state.message}" for cell, state in states if state.kind == "failed"]
    if failed:
        raise UserError(
            f"{len(failed)} of {len(sweep.cells)} cells failed (file FAILED); the same command tries them again:\n"
            + "\n".join(failed)
        )
    console.print(f"all {len(sweep.cells)} cells of {sweep.name} are done: {path}", markup=False, highlight=False)
    return path


class Progress:
    """How far the sweep is, from the folders, and when it will be done."""

    def __init__(self, sweep: Sweep, run_root: Path) -> None:
        """Start the clock."""
        self._sweep, self._run_root = sweep, run_root
        self._began, self._start = time.monotonic(), self._look()[0]

    def _look(self) -> tuple[float, str]:
        """Share of all steps that are made, and a line of text."""
        share, running = 0.0, []
        counts = {"done": 0, "running": 0, "failed": 0}
        for cell in self._sweep.cells:
            state = cell_state(cell, self._run_root, self._sweep.splits)
            over = state.kind in ("done", "failed")
            share += 1.0 if over else min(1.0, state.step / cell.config.steps)
            counts[state.kind] = counts.get(state.kind, 0) + 1
            if state.kind == "running":
                running.append(f"{cell.folder} {state.step}/{cell.config.steps}")
        text = f"{counts['done']} of {len(self._sweep.cells)} cells done, {counts['running']} running"
        text += f" ({', '.join(running)})" if running else ""
        text += f", {counts['failed']} failed" if counts["failed"] else ""
        return share, text

    def text(self) -> str:
        """Cells by state, the running ones with their steps, and the time left."""
        share, text = self._look()
        gained, seconds = share - self._start, time.monotonic() - self._began
        left = seconds * (len(self._sweep.cells) - share) / gained if gained > 0 else None
        return text + ("" if left is None else f"; {duration(left)} left")

    def line(self) -> None:
        """Print it."""
        console.print(f"{self._sweep.name}: {self.text()}", markup=False, highlight=False)


def _run_workers(sweep: Sweep, run_root: Path, workers: int, storage: str | None, progress: Progress) -> None:
    threads = threads_each(workers)
    running = [_start_worker(sweep, run_root, storage, threads, number) for number in range(workers)]
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
                        log = _log_file(run_root, number)
                        console.print(f"worker {number} died ({worker.returncode}, {log}); another one takes its place")
                        running[number] = _start_worker(sweep, run_root, storage, threads, number)
                if console.is_terminal:
                    status.update(progress.text())
                elif time.monotonic() - last > LINE_SECONDS:
                    last = time.monotonic()
                    progress.line()
    finally:
        _end(running)
    if any(worker.returncode for worker in running):
        raise UserError(f"workers kept dying, the last lines of {run_root}/logs say why; the same command goes on")


def _start_worker(
    sweep: Sweep, run_root: Path, storage: str | None, threads: int, number: int
) -> "subprocess.Popen[bytes]":
    """Start a process that works on the sweep. It reads the sweep from its input, and writes into a log file."""
    log = _log_file(run_root, number)
    log.parent.mkdir(exist_ok=True)
    fixed = sweep.cells[0].config.threads
    order = {"source": sweep.source, "overrides": sweep.overrides, "run_root": str(run_root), "storage": storage}
    environment = os.environ | {"OMP_NUM_THREADS": str(fixed or threads)}
    with log.open("ab") as output:
        worker = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=environment,
        )
    assert worker.stdin is not None
    with worker.stdin as pipe:
        pipe.write(json.dumps(order | {"threads": threads, "parent": os.getpid()}).encode())
    return worker


def _log_file(run_root: Path, number: int) -> Path:
    return run_root / "logs" / f"{socket.gethostname()}-{number}.log"


def _end(workers: "list[subprocess.Popen[bytes]]") -> None:
    for worker in workers:
        worker.terminate()
    for worker in workers:
        try:
            worker.wait(timeout=20)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


@contextmanager
def _polite_end() -> Iterator[None]:
    """Let SIGTERM, which batch systems send, end this process as Ctrl-C does: locks are let go, children ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _watch(parent: int) -> None:
    """End this process when its parent is gone, however that went."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def worker_main(order: IO[str]) -> None:
    """A worker process: what to do comes as JSON."""
    orders = json.load(order)
    threading.Thread(target=_watch, args=(orders["parent"],), daemon=True).start()
    run_root = Path(orders["run_root"])
    sweep = read_sweep(orders["source"], orders["overrides"])
    with _polite_end():
        work(sweep, run_root, Queue(sweep, run_root, orders["storage"]), orders["threads"], lambda: None)


if __name__ == "__main__":
    worker_main(sys.stdin)
