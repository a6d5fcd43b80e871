"""What survives kills, signals, full disks, flipped bits and hostile files: tried, survived, lost.

    python benchmarks/reliability/run.py --out benchmarks/reliability/results.json [--scale 0.1] [--only kills ...]

Survived: the run goes on and ends with the log and the weights of one that was never disturbed, to the last bit; a
damaged file is refused with one message; a hostile one does nothing. Anything else is lost. `--scale` shortens every
part. Stopped, the same command goes on: parts that the file has, of the same package and as long, are not run again;
`--only` runs what it names in any case.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

if __name__ == "__main__":  # else the folder above is on the path
    sys.path.insert(0, str(Path(__file__).parents[1]))

from reliability import flips, hostile
from reliability.counting import Count
from reliability.disturbed import Trial
from reliability.fuzz_config import fuzz


def _fuzz(trial: Trial) -> Count:
    found = fuzz(trial.times(2000), seed=0)
    lost = sum(found[name] for name in ("tracebacks", "hangs", "long messages"))
    counts = {"tried": found["tried"], "survived": found["tried"] - lost, "lost": lost}
    return counts | {"refused": found["refused"], "first_lost": found["failures"][:3]}


PARTS: dict[str, Callable[[Trial], Count]] = {
    "bits of the index": lambda trial: flips.index_bits(trial.root, 1 if trial.scale >= 0.1 else 25),
    "bits of a checkpoint": lambda trial: flips.checkpoint_bits(trial.whole(), trial.times(1000)),
    "bits of PNG masks and images": lambda trial: flips.png_bits(trial.root, trial.times(10_000)),
    "bits of a JPEG image": lambda trial: flips.jpeg_bits(trial.root, trial.times(2000)),
    "bits of images, on resume": lambda trial: flips.bits_on_resume(trial.root, trial.times(200)),
    "malicious files": hostile.malicious,
    "odd configurations": _fuzz,
    "damaged data sets": lambda trial: hostile.data_files(trial.root, trial.times(1000)),
    "damaged run folders": lambda trial: hostile.run_folders(trial.whole(), trial.times(500)),
    "signals": Trial.signals,
    "kill -9 of a run with loaders": Trial.kills_with_loaders,
    "kill -9 of a loader": Trial.kills_of_a_loader,
    "full disk": Trial.full_disk,
    "read-only disk": Trial.read_only_disk,
    "a log that cannot be written": Trial.writers_that_fail,
    "kill -9 of one of two processes": Trial.kills_of_one_of_two,
    "kill -9 of a sweep's worker": Trial.kills_of_a_sweeps_worker,
    "a large image": lambda trial: hostile.large_image(trial, 10_000 if trial.scale >= 0.1 else 3000),
}


def _commit() -> str:
    """The last one that changed the package; with a + where it has been changed since."""
    git, package = ["git", "-C", str(Path(__file__).parents[2])], "latentseg"
    told = [
        subprocess.run([*git, *words, "--", package], capture_output=True, text=True, check=False).stdout.strip()
        for words in (["log", "-1", "--format=%h"], ["status", "--porcelain"])
    ]
    return f"{told[0] or 'unknown'}{'+' if told[1] else ''}"


def main(arguments: list[str] | None = None) -> dict[str, Count]:
    """Run the parts and write their figures; the parts that a file has already and that are not run are kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", nargs="*", choices=list(PARTS))
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)  # what is forked later must find no threads
    results: dict[str, Any] = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else {}
    commit = _commit()
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder), given.scale)
        for name in given.only or PARTS:
            known = results.get(name, {})
            if not given.only and (known.get("commit"), known.get("scale")) == (commit, given.scale):
                continue
            began = time.monotonic()
            made = {"scale": given.scale, "commit": commit, "date": f"{datetime.now(UTC):%Y-%m-%d}"}
            results[name] = PARTS[name](trial) | made | {"seconds": round(time.monotonic() - began)}
            print(f"{name}: {results[name]}", flush=True)
            given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return results


if __name__ == "__main__":
    sys.exit(any(count["lost"] for count in main().values()))
