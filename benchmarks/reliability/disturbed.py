"""Short runs that are killed, stopped, or denied the disk, each beside one that was never disturbed.

Most are forks of a process that has PyTorch in memory, which run the command line as it is: seconds less for each.
Where the command starts itself again (several processes, sweeps) it is started in full.
"""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from reliability.counting import Count, counted
from torch import Tensor

from latentseg import cli
from latentseg.runs.checkpoints import Checkpoints
from latentseg.runs.metrics import read_metrics
from latentseg.training import loop  # so that no fork has to load it

STEPS, FEW = 24, 12
"""Of a run; at a scale below 0.1."""
OPTIONS = [
    "batch_size=4", "threads=1", "device=cpu", "log_every=1", "checkpoint_every=5",
    "validate_every=8", "data.labeled=4", "data.scenes.train=12", "data.scenes.val=2", "data.scenes.height=64",
    "data.scenes.width=64",
    "augment.crop=[32,32]", "model.weights_kind=none", "model.frozen=false", "model.head_channels=16",
    "discriminator.downscale=1", "discriminator.width=8", "method.lambda_lbl_adv=0.01", "method.num_latent=5",
]  # fmt: skip
SIGNALS = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129, signal.SIGUSR1: 138}
SLOWEST = 600
"""Seconds that a short run may take."""
FORK = get_context("fork")
assert loop


class Command:
    """`latentseg WORDS` in a process of its own, which leads a group. `limit`: no file may have more bytes."""

    def __init__(self, words: list[str], limit: int = 0) -> None:
        self._told, writer = os.pipe()
        self._process = FORK.Process(target=_run, args=(words, writer, limit))
        self._process.start()
        os.close(writer)
        self.pid = self._process.pid or 0

    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    def wait(self) -> tuple[int, str]:
        """Its status and its last words; a process of the group that is left is killed."""
        self._process.join(SLOWEST)
        if self.runs():
            self._process.kill()
            self._process.join()
        os.set_blocking(self._told, False)
        try:
            text = os.read(self._told, 1_000_000).decode(errors="replace")
        except BlockingIOError:
            text = ""
        os.close(self._told)
        return self._process.exitcode or 0, text


def _run(words: list[str], writer: int, limit: int) -> None:
    os.setsid()
    sys.stdout, sys.stderr = (os.fdopen(os.dup(writer), "w", buffering=1) for _ in range(2))
    os.dup2(writer, 1)
    os.dup2(writer, 2)
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.argv = ["latentseg", *words]
    cli.main()


def state(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """The log without times, and the last checkpoint."""
    rows = [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in read_metrics(folder)]
    checkpoints = Checkpoints(folder / "checkpoints")
    last = checkpoints.last()
    return rows, checkpoints.read(last) if last else {}


def same(ours: Path, theirs: Path) -> bool:
    """Whether two runs ended alike, to the last bit."""
    (rows, tensors), (other_rows, others) = state(ours), state(theirs)
    return (
        rows == other_rows
        and len(rows) >= FEW
        and tensors.keys() == others.keys()
        and all(torch.equal(tensors[k], others[k]) for k in others)
    )


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[bool]:
    """A disk of its own under a folder, if this user may mount one."""
    folder.mkdir()
    mounted = _quiet("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield mounted
    finally:
        if mounted:
            _quiet("umount", "--lazy", str(folder))


def _quiet(*words: str) -> bool:
    try:
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


class Trial:
    """Short runs in a temporary folder; `scale` says how many."""

    def __init__(self, root: Path, scale: float) -> None:
        self.root, self.scale, self.random = root, scale, random.Random(0)  # noqa: S311
        self.steps = STEPS if scale >= 0.1 else FEW
        self.options = [f"steps={self.steps}", *OPTIONS]
        self._whole: dict[tuple[str, ...], Path] = {}

    def times(self, number: int) -> int:
        """So often at full scale."""
        return max(1, round(number * self.scale))

    def whole(self, *more: str) -> Path:
        """A run with these options that was never disturbed."""
        if more not in self._whole:
            self._whole[more] = self.root / f"whole-{len(self._whole)}"
            status, told = self.begin(self._whole[more], 0, *more).wait()
            assert status == 0, told
        return self._whole[more]

    def begin(self, folder: Path, step: int, *more: str, limit: int = 0) -> Command:
        """Start a run, or go on with it, and wait till it has logged so many steps (0: not even that)."""
        words = ["train", "scenes", *self.options, *more, "--run", str(folder), "--resume"]
        run = Command(words, limit) if "devices=2" not in more else _Started(words)
        end = time.monotonic() + SLOWEST
        while run.runs() and len(read_metrics(folder)) < step and time.monotonic() < end:
            time.sleep(0.02)
        return run

    def ends_well(self, folder: Path, *more: str) -> bool | str:
        """Go on to the end, and compare with the run that was never disturbed."""
        status, told = self.begin(folder, 0, *more).wait()
        return (status == 0 and same(folder, self.whole(*more))) or f"ended otherwise, {status}: {told[-500:]}"

    def killed(self, name: str, victim: Callable[[int], int], *more: str) -> Callable[[int], bool | str]:
        """Kill a process of a run (-9) at a random moment, and go on."""

        def survives(number: int) -> bool | str:
            folder = self.root / f"{name}-{number}"
            run = self.begin(folder, self.random.randrange(self.steps - 1), *more)
            time.sleep(self.random.random() * 0.3)
            if run.runs():
                os.kill(victim(run.pid), signal.SIGKILL)
            run.wait()
            return self.ends_well(folder, *more)

        return survives

    def kills_with_loaders(self) -> Count:
        """The training process, while two processes load for it."""
        return counted(self.times(40), self.killed("kill", lambda pid: pid, "workers=2"))

    def kills_of_a_loader(self) -> Count:
        """A process that loads."""
        return counted(self.times(20), self.killed("loader", self._child, "workers=2"))

    def kills_of_one_of_two(self) -> Count:
        """The first or the second of two processes."""
        pick = lambda pid: self.random.choice([pid, self._child(pid)])  # noqa: E731
        return counted(self.times(10), self.killed("two", pick, "devices=2"))

    def _child(self, pid: int) -> int:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
        return int(self.random.choice(children)) if children else pid

    def signals(self) -> Count:
        """Four signals to the whole group: the right status, a checkpoint of that step, the same end."""
        self.whole("workers=2")

        def survives(number: int) -> bool | str:
            sent, status = list(SIGNALS.items())[number % len(SIGNALS)]
            folder = self.root / f"signal-{number}"
            run = self.begin(folder, self.random.randrange(1, self.steps // 2), "workers=2")
            os.killpg(run.pid, sent)
            ended, told = run.wait()
            last = Checkpoints(folder / "checkpoints").last()
            saved = last is not None and last.step == read_metrics(folder)[-1]["step"] and last.file in told
            right = ended == status and saved
            return self.ends_well(folder, "workers=2") if right else f"{sent}, {ended}: {told[-500:]}"

        return counted(self.times(40), survives)

    def kills_of_a_sweeps_worker(self) -> Count:
        """One of two workers of a sweep; the sweep itself replaces it."""
        grid = self.root / "sweep.yaml"
        options = ", ".join(option.replace("=", ": ", 1) for option in self.options)
        grid.write_text(
            f"# Cells\nbase: scenes\noptions: {{{options}}}\nrows: {{latent: {{}}}}\n"
            f"grid: {{seed: [0, 1]}}\nsplits: [val]\n",
            encoding="utf-8",
        )
        calm = self.root / "calm"
        Command(["sweep", str(grid), "--run-root", str(calm)]).wait()

        def survives(number: int) -> bool | str:
            root = self.root / f"sweep-{number}"
            run = Command(["sweep", str(grid), "--run-root", str(root), "--workers", "2"])
            while run.runs() and not list(root.glob("*/metrics.jsonl")):
                time.sleep(0.05)
            time.sleep(self.random.random() * 2)
            if run.runs():
                os.kill(self._child(run.pid), signal.SIGKILL)
            cells = [folder.parent for folder in root.glob("*/DONE")] if run.wait()[0] == 0 else []
            return len(cells) == 2 and all(same(folder, calm / folder.name) for folder in cells)

        return counted(self.times(5), survives)

    def full_disk(self) -> Count:
        """A disk of a random size, or no file beyond it: status 4, no traceback, and it goes on once there is room."""

        def survives(number: int) -> bool | str:
            disk, size = self.root / f"full-{number}", int(10 ** self.random.uniform(3, 8))
            with small_disk(disk, f"{max(size, 4096) if number % 2 else 1 << 30}") as possible:
                mounted = possible and number % 2 == 1
                status, told = self.begin(disk / "run", 0, limit=0 if mounted else size).wait()
                said = status in {0, 4} and "Traceback" not in told and "internal error" not in told
                if mounted:
                    _quiet("mount", "-o", "remount,size=1g", str(disk))
                return self.ends_well(disk / "run") if said else f"{status}: {told[-500:]}"

        return counted(self.times(16), survives)

    def read_only_disk(self) -> Count:
        """Read-only from the start, or the folder of checkpoints at a random moment; as for a full one."""

        def survives(number: int) -> bool | str:
            disk = self.root / f"frozen-{number}"
            with small_disk(disk, "1g"):
                if number % 2:
                    run = self.begin(disk / "run", self.random.randrange(5, self.steps - 4))
                    undo = _froze(disk / "run" / "checkpoints")
                else:
                    undo = _froze(disk)
                    run = self.begin(disk / "run", 0)
                status, told = run.wait()
                undo()
                said = status == 4 and "Traceback" not in told and "internal error" not in told
                return self.ends_well(disk / "run") if said else f"{status}: {told[-500:]}"

        return counted(self.times(10), survives)

    def writers_that_fail(self) -> Count:
        """The log becomes /dev/full at a random step: the run goes on to its end without it, and says so."""

        def survives(number: int) -> bool | str:
            folder = self.root / f"writer-{number}"
            run = self.begin(folder, self.random.randrange(1, self.steps - 6))
            log = folder / "metrics.jsonl"
            link = folder / ".link"
            link.symlink_to("/dev/full")
            link.replace(log)
            status, told = run.wait()
            log.unlink()
            tensors, others = state(folder)[1], state(self.whole())[1]
            alike = tensors.keys() == others.keys() and all(torch.equal(tensors[k], others[k]) for k in others)
            good = status == 0 and "goes on without it" in told and "Traceback" not in told and alike
            return good or f"{status}: {told[-500:]}"

        return counted(self.times(5), survives)


def _froze(folder: Path) -> Callable[[], Any]:
    """Make a folder one that nothing can be written into, also by root where that is possible; gives what undoes it."""
    if _quiet("mount", "-o", "remount,ro", str(folder)):
        return lambda: _quiet("mount", "-o", "remount,rw", str(folder))
    if _quiet("chattr", "+i", str(folder)):
        return lambda: _quiet("chattr", "-i", str(folder))
    folder.chmod(0o500)
    return lambda: folder.chmod(0o700)


class _Started(Command):
    """The same by a command that is started in full, as one that starts itself again must be."""

    def __init__(self, words: list[str]) -> None:
        pipe = subprocess.PIPE
        self._command = subprocess.Popen(
            [sys.executable, "-m", "latentseg", *words], stdout=pipe, stderr=subprocess.STDOUT, start_new_session=True
        )
        self.pid = self._command.pid

    def runs(self) -> bool:
        return self._command.poll() is None

    def wait(self) -> tuple[int, str]:
        text = self._command.communicate(timeout=SLOWEST)[0].decode(errors="replace")
        return self._command.returncode, text
