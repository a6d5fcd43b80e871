"""What survives kills, signals, full disks and flipped bits: tried, survived, lost.

    python benchmarks/reliability/run.py --out benchmarks/reliability/results.json [--scale 0.1] [--only kills ...]

Survived: the run goes on and ends with the log and the weights of one that was never disturbed, to the last bit; or, of
a damaged file, it is refused with one message. Anything else is lost. `--scale` shortens every part.
"""

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentseg.errors import RunError
from latentseg.runs.checkpoints import Checkpoints
from latentseg.runs.metrics import read_metrics

STEPS = 24
OPTIONS = [
    f"steps={STEPS}", "batch_size=4", "threads=1", "device=cpu", "log_every=1", "checkpoint_every=5",
    "validate_every=8", "data.labeled=4", "data.scenes.train=12", "data.scenes.val=2", "data.scenes.height=64",
    "data.scenes.width=64",
    "augment.crop=[32,32]", "model.weights_kind=none", "model.frozen=false", "model.head_channels=16",
    "discriminator.downscale=1", "discriminator.width=8", "method.lambda_lbl_adv=0.01", "method.num_latent=5",
]  # fmt: skip
SIGNALS = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129, signal.SIGUSR1: 138}
SLOWEST = 300
"""Seconds that a short run may take."""
Count = dict[str, int]


def command(folder: Path, *more: str) -> list[str]:
    """Train the short run in a folder, or go on with it."""
    return [sys.executable, "-m", "latentseg", "train", "scenes", *OPTIONS, *more, "--run", str(folder), "--resume"]


def finish(folder: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    """Run to the end."""
    return subprocess.run(command(folder, *more), capture_output=True, text=True, check=False, timeout=SLOWEST)


def begin(folder: Path, step: int, *more: str) -> "subprocess.Popen[str]":
    """Start a run, in a group of its own, and wait till it has logged so many steps (0: not even that)."""
    pipe = subprocess.DEVNULL
    run = subprocess.Popen(command(folder, *more), stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    end = time.monotonic() + SLOWEST
    while run.poll() is None and len(read_metrics(folder)) < step and time.monotonic() < end:
        time.sleep(0.005)
    return run


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
        and tensors.keys() == others.keys()
        and all(torch.equal(tensors[k], others[k]) for k in others)
    )


def counted(number: int, survives: Callable[[int], bool]) -> Count:
    """Try so often."""
    survived = sum(survives(each) for each in range(number))
    return {"tried": number, "survived": survived, "lost": number - survived}


class Trial:
    """Short runs in a temporary folder, each beside one that was never disturbed."""

    def __init__(self, root: Path, scale: float) -> None:
        self.root, self.scale, self.random = root, scale, random.Random(0)  # noqa: S311
        self._whole: dict[tuple[str, ...], Path] = {}

    def times(self, number: int) -> int:
        """So often at full scale."""
        return max(1, round(number * self.scale))

    def whole(self, *more: str) -> Path:
        """A run with these options that was never disturbed."""
        if more not in self._whole:
            self._whole[more] = self.root / f"whole-{len(self._whole)}"
            assert finish(self._whole[more], *more).returncode == 0
        return self._whole[more]

    def killed(self, name: str, victim: Callable[[int], int], *more: str) -> Callable[[int], bool]:
        """Kill a process of a run (-9) at a random moment, and go on."""

        def survives(number: int) -> bool:
            folder = self.root / f"{name}-{number}"
            run = begin(folder, self.random.randrange(STEPS - 1), *more)
            time.sleep(self.random.random() * 0.3)
            if run.poll() is None:
                os.kill(victim(run.pid), signal.SIGKILL)
            run.wait(SLOWEST)
            return finish(folder, *more).returncode == 0 and same(folder, self.whole(*more))

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
        return counted(self.times(20), self.killed("two", pick, "devices=2"))

    def _child(self, pid: int) -> int:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
        return int(self.random.choice(children)) if children else pid

    def signals(self) -> Count:
        """Four signals to the whole group: the right status, a checkpoint of that step, the same end."""

        def survives(number: int) -> bool:
            sent, status = list(SIGNALS.items())[number % len(SIGNALS)]
            folder = self.root / f"signal-{number}"
            run = begin(folder, self.random.randrange(1, STEPS // 2), "workers=1")
            os.killpg(run.pid, sent)
            ended = run.wait(SLOWEST)
            last = Checkpoints(folder / "checkpoints").last()
            saved = last is not None and last.step == read_metrics(folder)[-1]["step"]
            return ended == status and saved and finish(folder).returncode == 0 and same(folder, self.whole())

        return counted(self.times(40), survives)

    def kills_of_a_sweeps_worker(self) -> Count:
        """One of two workers of a sweep; the sweep itself replaces it."""
        grid = self.root / "sweep.yaml"
        options = ", ".join(option.replace("=", ": ", 1) for option in OPTIONS)
        grid.write_text(
            f"# Cells\nbase: scenes\noptions: {{{options}}}\nrows: {{latent: {{}}}}\n"
            f"grid: {{seed: [0, 1]}}\nsplits: [val]\n",
            encoding="utf-8",
        )

        def sweep(root: Path) -> list[str]:
            return [sys.executable, "-m", "latentseg", "sweep", str(grid), "--run-root", str(root), "--workers", "2"]

        calm = self.root / "calm"
        subprocess.run(sweep(calm), check=True, capture_output=True, timeout=2 * SLOWEST)

        def survives(number: int) -> bool:
            root = self.root / f"sweep-{number}"
            run = subprocess.Popen(sweep(root), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while run.poll() is None and not list(root.glob("*/metrics.jsonl")):
                time.sleep(0.05)
            time.sleep(self.random.random() * 2)
            if run.poll() is None:
                os.kill(self._child(run.pid), signal.SIGKILL)
            done = run.wait(2 * SLOWEST) == 0
            return done and all(same(folder.parent, calm / folder.parent.name) for folder in root.glob("*/DONE"))

        return counted(self.times(10), survives)

    def full_disk(self) -> Count:
        """No file may grow beyond a random size: the run ends with status 4 and no traceback, and goes on later."""

        def survives(number: int) -> bool:
            folder, most = self.root / f"full-{number}", self.random.randrange(1_000, 3_000_000)
            limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))  # noqa: E731
            done = subprocess.run(
                command(folder), capture_output=True, text=True, check=False, timeout=SLOWEST, preexec_fn=limit
            )
            said = done.returncode in (0, 4) and "Traceback" not in done.stderr
            return said and finish(folder).returncode == 0 and same(folder, self.whole())

        return counted(self.times(10), survives)

    def index_bits(self) -> Count:
        """Every bit of an index, flipped."""
        checkpoints = Checkpoints(self.root / "bits")
        for step in (2, 4):
            checkpoints.save(step, {"w": torch.full((2,), float(step))})
        index = checkpoints.folder / "index.json"
        content = index.read_bytes()

        def survives(bit: int) -> bool:
            index.write_bytes(_flipped(content, bit))
            last = checkpoints.last()
            return last is not None and last.step == 4 and checkpoints.read(last)["w"].tolist() == [4.0, 4.0]

        return counted(self.times(8 * len(content)), survives)

    def checkpoint_flips(self) -> Count:
        """One bit of a real checkpoint, anywhere: it must be refused."""
        checkpoints = Checkpoints(self.whole() / "checkpoints")
        last = checkpoints.last()
        assert last is not None
        path = checkpoints.folder / last.file
        content = path.read_bytes()

        def survives(_number: int) -> bool:
            path.write_bytes(_flipped(content, self.random.randrange(8 * len(content))))
            try:
                entry = checkpoints.last()
                assert entry is not None
                checkpoints.read(entry)
            except RunError:
                return True
            finally:
                path.write_bytes(content)
            return False

        return counted(self.times(1000), survives)


def _flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


PARTS: dict[str, Callable[[Trial], Count]] = {
    "kill -9 of a run with loaders": Trial.kills_with_loaders,
    "kill -9 of a loader": Trial.kills_of_a_loader,
    "kill -9 of one of two processes": Trial.kills_of_one_of_two,
    "kill -9 of a sweep's worker": Trial.kills_of_a_sweeps_worker,
    "signals": Trial.signals,
    "full disk": Trial.full_disk,
    "bits of the index": Trial.index_bits,
    "bits of a checkpoint": Trial.checkpoint_flips,
}


def main(arguments: list[str] | None = None) -> dict[str, Count]:
    """Run the parts and write their figures; the parts that a file has already and that are not run are kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    given = parser.parse_args(arguments)
    results: dict[str, Count] = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder), given.scale)
        for name in given.only:
            results[name] = PARTS[name](trial)
            print(f"{name}: {results[name]}", flush=True)
            given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return results


if __name__ == "__main__":
    sys.exit(any(count["lost"] for count in main().values()))
