"""All that is owed of a GPU, by one command, in minutes, without a network.

    python benchmarks/gpu.py --minutes 9 --data CAMVID --out gpu.json     # once more: goes on with what is missing
    python benchmarks/gpu.py --out gpu.json --show                        # the table of a result
    python benchmarks/gpu.py --rehearse --out gpu.json                    # the same parts in miniature on a CPU

The parts come in the order of their importance. Each runs in a process of its own, has a limit, and leaves its figures
in the result as it ends; one that crashes, hangs or runs out of memory is recorded so, with the rows that it had. A
part that is in the result is not run again (--retry: those that did not end well are). Status 0: all is there and each
check held; 1: not so; 2: no GPU. How to carry all to a machine without a network: docs/gpu.md.
"""

import argparse
import json
import multiprocessing
import os
import platform
import queue
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import gpu_checks
import gpu_scores
import gpu_speed
import torch
from gpu_setting import Row, Setting

from latentseg.errors import is_out_of_memory
from latentseg.runs.checkpoints import write_atomically

Results = dict[str, Any]


class Part(NamedTuple):
    """One thing that is measured."""

    measure: Callable[[Setting], Iterator[Row]]
    limit: float
    """Seconds it may take; infinity: its share of the time that is left."""


SCORES = {name: Part(measure, float("inf")) for name, measure in gpu_scores.PARTS.items()}
PARTS = {
    "1 closed forms, float64": Part(gpu_checks.closed_forms, 45),
    "1 ten steps beside the CPU": Part(gpu_checks.ten_steps, 120),
    "1 bfloat16": Part(gpu_checks.half, 50),
    "1 stopped and resumed": Part(gpu_checks.resumed, 75),
    "1 NCCL, SyncBatchNorm": Part(gpu_checks.one_process, 45),
    "2 ResNet-101 at 321": Part(gpu_speed.resnet101, 110),
    "3 AdvSemiSeg as published": Part(gpu_speed.published, 60),
    "3b cached features": Part(gpu_speed.features, 60),
    gpu_scores.STEPS: Part(gpu_scores.steps, 75),
    **SCORES,
    "2 DINOv2 at 518": Part(gpu_speed.vision_transformers, 90),
    "2 prediction": Part(gpu_speed.prediction, 90),
    "2 compiled": Part(gpu_speed.compiled, 150),
}
UNSHOWN = ("options", "last", "terms")
"""Figures that the table leaves to the JSON file."""
LEAST = 12.0
"""Seconds with which a part is begun."""


def limit_of(name: str, results: Results, left: float) -> float:
    """Seconds for a part: its limit, a fair share for those that train, and never more than are left."""
    if name not in SCORES:
        return min(PARTS[name].limit, left)
    waiting = [row for row in SCORES if row not in results["parts"] or row == name]
    return min(left, gpu_scores.share(left, len(waiting)) + 2 * gpu_scores.AROUND)


def begin(name: str, setting: Setting, told: "multiprocessing.Queue[Row]") -> None:
    """What the process of a part does: hand each row over; say why it fails."""
    os.setsid()  # with all that it starts, it can be ended at once
    status = 0
    try:
        for row in PARTS[name].measure(setting):
            told.put(row)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is part of the result
        kind = "out of memory" if is_out_of_memory(error) else "failed"
        told.put(("error", {"kind": kind, "error": "".join(traceback.format_exception(error))[-3000:]}))
        status = 1
    told.close()
    told.join_thread()
    sys.stdout.flush()
    os._exit(status)  # what is left of a GPU's library need not be taken down


def run_part(name: str, setting: Setting) -> dict[str, Any]:
    """Run a part to its end or its limit; its status, seconds and rows."""
    context = multiprocessing.get_context("fork")  # this process has not touched the GPU; all is imported already
    told: multiprocessing.Queue[Row] = context.Queue()
    process = context.Process(target=begin, args=(name, setting, told))
    began, rows = time.monotonic(), dict[str, Any]()
    process.start()
    late = False
    while process.is_alive() and not late:
        rows |= _come(told, 0.2)
        late = time.monotonic() - began > setting.seconds
    if late:
        assert process.pid is not None
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
    rows |= _come(told, 0.2)
    error = rows.pop("error", None)
    status = "done" if process.exitcode == 0 else f"ended by signal {-(process.exitcode or 0)}"
    status = "took too long" if late else error["kind"] if error else status
    found = {"status": status, "seconds": round(time.monotonic() - began, 1), "rows": rows}
    return found | ({"error": error["error"]} if error else {})


def _come(told: "multiprocessing.Queue[Row]", seconds: float) -> dict[str, Any]:
    """Rows that have come by now, or come within some seconds."""
    rows: dict[str, Any] = {}
    while True:
        try:
            name, figures = told.get(timeout=seconds)
        except (queue.Empty, EOFError, OSError):
            return rows
        rows[name], seconds = figures, 0.01


def machine(device: str) -> dict[str, Any]:
    """What it was measured on; asked of nvidia-smi, as this process must not touch the GPU."""
    versions = {name: metadata.version(name) for name in ("torch", "torchvision", "timm", "lightning-fabric")}
    card = None
    if device == "cuda":
        with os.popen("nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader") as said:  # noqa: S605, S607
            card = said.read().strip()
    return {
        "gpu": card,
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "cuda": torch.version.cuda,
        **versions,
    }


def has_gpu() -> bool:
    """Whether PyTorch finds one, asked in another process: this one starts others, which could not use it then."""
    process = multiprocessing.get_context("fork").Process(target=_look)
    process.start()
    process.join()
    return process.exitcode == 0


def _look() -> None:
    os._exit(0 if torch.cuda.is_available() else 1)


def measure(options: argparse.Namespace, results: Results) -> None:
    """Run the parts that are missing, and write the result after each."""
    deadline = time.monotonic() + 60 * options.minutes
    for name in options.parts:
        known = results["parts"].get(name)
        if known and (known["status"] == "done" or not options.retry):
            continue
        left = deadline - time.monotonic()
        if left < LEAST:
            print(f"{name}: no time left", flush=True)
            continue
        rows = {part: one["rows"] for part, one in results["parts"].items()}
        setting = Setting(results["device"], options.data, limit_of(name, results, left), left, rows)
        results["parts"][name] = run_part(name, setting)
        write_atomically(options.out, (json.dumps(results, indent=1) + "\n").encode())
        print(f"{name}: {results['parts'][name]['status']}, {results['parts'][name]['seconds']} s", flush=True)


def held(part: dict[str, Any]) -> bool:
    """Whether a part ended, and each of its checks held."""
    return part["status"] == "done" and all(row.get("ok", True) for row in part["rows"].values())


def table(results: Results) -> str:
    """All parts and rows as Markdown."""
    lines = [f"{results['machine']}", "", "| part | row | figures |", "|---|---|---|"]
    for name in PARTS:
        part = results["parts"].get(name)
        if part is None:
            lines.append(f"| {name} | | not run |")
            continue
        head = f"{name}: {part['status']}, {part['seconds']} s"
        for row, figures in (part["rows"] or {"": {}}).items():
            shown = {key: value for key, value in figures.items() if key not in UNSHOWN}
            lines.append(f"| {head} | {row} | {', '.join(f'{key} {_short(value)}' for key, value in shown.items())} |")
            head = ""
        if "error" in part:
            lines.append(f"| | error | {part['error'].strip().splitlines()[-1][:200]} |")
    return "\n".join(lines)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key} {_short(one)}" for key, one in value.items())
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 0.01 else str(value)


def known(path: Path, parser: argparse.ArgumentParser) -> Results:
    """What is in a result; nothing if it is not there. Ends with status 2 if it is no result, or cannot become one."""
    if not path.absolute().parent.is_dir():
        parser.error(f"--out {path}: its folder does not exist")
    try:
        results: Results = json.loads(path.read_text()) if path.exists() else {}
        return results if not results else {key: results[key] for key in ("device", "machine", "parts")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        parser.error(f"--out {path} is no result of this script ({error!r}): name another file")


def main() -> None:
    """Measure what is missing and print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0, help="for all parts together")
    parser.add_argument("--data", help="root of CamVid (folders images and labels); drawn scenes without it")
    parser.add_argument("--out", type=Path, required=True, help="JSON file of the results")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART")
    parser.add_argument("--rehearse", action="store_true", help="in miniature on the CPU")
    parser.add_argument("--retry", action="store_true", help="run the parts again that did not end well")
    parser.add_argument("--show", action="store_true", help="only print what is there")
    options = parser.parse_args()
    device = "cpu" if options.rehearse else "cuda"
    if not (options.show or options.rehearse or has_gpu()):
        print("PyTorch finds no NVIDIA GPU here: take a machine with one, or --rehearse", file=sys.stderr)
        raise SystemExit(2)
    results = known(options.out, parser)
    if not results and options.show:
        parser.error(f"{options.out} is not there yet")
    if options.data and not (Path(options.data) / "images" / "train").is_dir():
        parser.error(f"--data {options.data}: it has no folder images/train, so it is not CamVid")
    if not results:
        results = {"device": device, "machine": machine(device), "parts": {}}
    if not options.show:
        if results["device"] != device:
            parser.error(f"{options.out} is of a run on {results['device']}: name another file with --out")
        measure(options, results)
    print(table(results))
    raise SystemExit(
        0 if all(name in results["parts"] and held(results["parts"][name]) for name in options.parts) else 1
    )


if __name__ == "__main__":
    main()
