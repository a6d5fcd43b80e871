"""Every figure of docs/speed.md, from one run on a quiet machine; each is a ratio to something measured beside it.

    python benchmarks/speed.py all --camvid CAMVID --animals VOC2012
    python benchmarks/speed.py step growth ...          # some of it; the rest of speed.json stays
    PYTHONPATH=OLDER_CHECKOUT python benchmarks/speed.py step --before COMMIT --camvid CAMVID --animals VOC2012
    python benchmarks/speed.py draw                     # speed.png and growth.png from speed.json

`step`: parts and ratios of a step, CPU time of one thread. `wall`: whole steps with loading ahead, wall clock.
`memory`: one step of preset voc. `growth`: a step over its sizes. `choices`: number formats and memory orders.
`weak`: two processes against one. Loading and prediction have scripts of their own beside this one.
Results: benchmarks/speed.json, with machine, versions and the time of each part.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
RESULTS = HERE / "speed.json"
LAPTOP = ("scenes", "camvid", "animals")
VOC = ["batch_size=1", "precision=bf16-mixed", "workers=0", "model.weights_kind=none"]
"""A ratio does not depend on the batch; two images instead of twenty keep a turn short."""


def root_of(preset: str, options: argparse.Namespace) -> str | None:
    """Which data a preset reads."""
    roots: dict[str, str | None] = {"camvid": options.camvid, "animals": options.animals}
    return roots.get(preset)


def measure_steps(options: argparse.Namespace) -> dict[str, Any]:
    """Parts of a step, without and with the discriminator."""
    from step import measure_step, write_photos  # noqa: PLC0415 - older code is measured with --before

    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as photos:
        write_photos(Path(photos))
        for preset in options.presets:
            root = photos if preset == "voc" else root_of(preset, options)
            for adversarial in (False, True):
                more = VOC if preset == "voc" else []
                rounds = 3 if preset == "voc" else options.rounds
                row = measure_step(preset, root, adversarial, rounds, *more)
                rows[f"{preset}{' with discriminator' * adversarial}"] = show(row)
    return rows


def measure_wall(options: argparse.Namespace) -> dict[str, Any]:
    """Blocks of real steps, batches read ahead, against blocks of the bare network; wall clock, threads as in a run."""
    import torch  # noqa: PLC0415
    from step import Rig, bare  # noqa: PLC0415

    from latentseg.data.batches import batches  # noqa: PLC0415
    from latentseg.processor import full_speed  # noqa: PLC0415
    from latentseg.training import training_step  # noqa: PLC0415

    rows: dict[str, Any] = {}
    for preset in LAPTOP:
        for adversarial in (False, True):
            terms = ["method.lambda_lbl_adv=0.01", "method.lambda_ulbl_adv=0.001"] if adversarial else []
            with full_speed():
                rig = Rig(preset, root_of(preset, options), terms)
                batch, ratios = rig.data[0], []
                dataset, split = rig.data.dataset, rig.data.split
                stream = batches(dataset, split, rig.config, rig.state.segmenter.mean)
                for turn in range(options.rounds + 1):
                    began = time.perf_counter()
                    for _ in range(5):
                        number, seen = next(stream)
                        training_step(rig.fabric, rig.state.method, rig.nets, rig.optimizers, seen, number)
                    middle = time.perf_counter()
                    for _ in range(5):
                        bare(rig, batch)
                    if turn:
                        ratios.append((middle - began) / (time.perf_counter() - middle))
            row = {
                "ratio": round(statistics.median(ratios), 3),
                "quartiles": [round(value, 3) for value in statistics.quantiles(ratios, n=4)],
                "threads": torch.get_num_threads(),
            }
            rows[f"{preset}{' with discriminator' * adversarial}"] = show(row)
    return rows


def measure_memory(_options: argparse.Namespace) -> list[dict[str, Any]]:
    """Peak of a process that takes two steps of preset voc at full size."""
    rows = []
    for precision, pieces in (("bf16-mixed", 1), ("bf16-mixed", 5), ("32-true", 1)):
        command = [sys.executable, str(HERE / "step.py"), "voc", f"--precision={precision}", f"--pieces={pieces}"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rows.append(show(json.loads(said.splitlines()[-1])))
    return rows


def measure_growth(_options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds over each size, with the straight line through them."""
    from step import measure_growth as measure  # noqa: PLC0415

    rows: dict[str, Any] = {}
    for kind, points in measure(5).items():
        x, y = np.array(points).T
        slope, intercept = np.polyfit(x, y, 1)
        rest = y - slope * x - intercept
        explained = 1 - float(rest @ rest) / float(((y - y.mean()) ** 2).sum())
        rows[kind] = show(
            {"points": points, "slope": round(slope, 3), "at_zero": round(intercept, 1), "r2": round(explained, 4)}
        )
    return rows


def measure_choices(_options: argparse.Namespace) -> dict[str, Any]:
    """What `latentseg benchmark` finds, with one thread."""
    from step import write_photos  # noqa: PLC0415

    from latentseg.benchmark import choices, time_choices  # noqa: PLC0415
    from latentseg.presets import load_config  # noqa: PLC0415

    trained = ["model.weights_kind=none", "model.frozen=false", "threads=1"]
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as photos:
        write_photos(Path(photos))
        for name, preset, more in (
            ("Lite0, frozen", "scenes", ["threads=1"]),
            ("Lite0, trained", "scenes", trained),
            ("ResNet-18, trained", "scenes", ["model.encoder=resnet18", *trained]),
            ("DeepLab ResNet-101", "voc", [f"data.root={photos}", "threads=1", *VOC]),
        ):
            found = time_choices(load_config(preset, more), choices(compiled=False), rounds=2 if preset == "voc" else 5)
            rows[name] = show(
                {
                    timing.choice.options: {
                        "time": round(timing.relative(found[0]), 3),
                        "cosine": round(timing.cosine, 5),
                    }
                    for timing in found
                }
            )
    return rows


def measure_weak(_options: argparse.Namespace) -> dict[str, Any]:
    """Rate of two processes over twice that of one; and of two that know nothing of each other. One thread each."""
    trained = ["model.encoder=resnet18", "model.weights_kind=none", "model.frozen=false"]
    rows: dict[str, Any] = {}
    for name, more in (("scenes, Lite0 frozen", []), ("scenes, ResNet-18 trained", trained)):
        shared, apart = [], []
        for _ in range(3):
            [alone] = _rates([*more, "batch_size=4"], 1)
            [both] = _rates([*more, "batch_size=8", "devices=2"], 1)
            shared.append(both / (2 * alone))
            apart.append(statistics.mean(_rates([*more, "batch_size=4"], 2)) / alone)
        rows[name] = show(
            {
                "two_processes": round(statistics.median(shared), 3),
                "two_strangers": round(statistics.median(apart), 3),
                "all": [round(value, 3) for value in shared],
            }
        )
    return rows


def _rates(options: list[str], copies: int) -> list[float]:
    """Images per second of runs at the same time, after a warm-up."""
    options = [*options, "threads=1", "steps=60", "log_every=20", "data.scenes.val=1", "method.consistency_start=0"]
    with tempfile.TemporaryDirectory() as folder:
        runs = [Path(folder) / str(number) for number in range(copies)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "latentseg", "train", "scenes", *options, "--run", str(run)],
                env=environment,
                stderr=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
            for run in runs
        ]
        assert [process.wait() for process in started] == [0] * copies
        logs = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in runs]
    return [
        statistics.mean(row["images_per_second"] for row in log if row["step"] in (40, 60) and "ce" in row)
        for log in logs
    ]


def show(row: Any) -> Any:
    """Print a result as soon as it is there."""
    print(json.dumps(row), flush=True)
    return row


def draw() -> None:
    """Draw from speed.json what it holds."""
    results = json.loads(RESULTS.read_text())
    if "step" in results and "before" in results:
        draw_steps(results)
    if "growth" in results:
        draw_growth(results["growth"])


def draw_steps(results: dict[str, Any]) -> None:
    """Parts of a step, before and now."""
    import matplotlib.pyplot as plt  # noqa: PLC0415
    from matplotlib.patches import Patch  # noqa: PLC0415

    parts = ("loading", "forward", "losses", "discriminator", "backward", "optimizer")
    colors = {part: f"C{number}" for number, part in enumerate(parts)}
    names = [name for name in results["step"] if name in results.get("before", {})]
    figure, axes = plt.subplots(figsize=(9, 0.62 * 2 * len(names) / 1.3 + 1.2), layout="constrained")
    labels: list[tuple[float, str]] = []
    for place, name in enumerate(names):
        for shift, kind in ((0, "before"), (1, "step")):
            y, left = -(2.6 * place + shift), 0.0
            for part in parts:
                width = results[kind][name]["parts"].get(part, 0.0)
                axes.barh(y, width, 0.85, left=left, color=colors[part])
                left += width
            axes.text(left + 0.01, y, f"{results[kind][name]['ratio']:.2f}", va="center", fontsize=8)
            labels.append((y, f"{name}, {'before' if kind == 'before' else 'now'}"))
    axes.set_yticks([y for y, _ in labels], [label for _, label in labels], fontsize=8)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("CPU time of a step / of the bare network's forward and backward on the same images (one thread)")
    handles = [Patch(color=colors[part], label=part) for part in parts]
    axes.legend(handles=handles, ncols=6, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    figure.savefig(HERE / "speed.png", dpi=110)


def draw_growth(curves: dict[str, Any]) -> None:
    """Points and straight lines."""
    import matplotlib.pyplot as plt  # noqa: PLC0415

    axis_names = {
        "num_latent": "latent classes L",
        "classes": "classes C",
        "crop": "thousand pixels of the view",
        "batch": "labelled images in a batch",
    }
    figure, panels = plt.subplots(1, 4, figsize=(13, 3.2), layout="constrained")
    for panel, (kind, row) in zip(panels, curves.items(), strict=True):
        x, y = np.array(row["points"]).T
        panel.plot(x, y, "o")
        panel.plot(x, row["slope"] * x + row["at_zero"], "-", label=f"{row['slope']:.2f} ms each, R² {row['r2']:.3f}")
        panel.set(xlabel=axis_names[kind], ylabel="ms per step", ylim=(0, None))
        panel.legend(fontsize=8)
    figure.savefig(HERE / "growth.png", dpi=110)


MEASURES = {
    "step": measure_steps,
    "wall": measure_wall,
    "growth": measure_growth,
    "choices": measure_choices,
    "weak": measure_weak,
    "memory": measure_memory,
}


def main() -> None:
    """Measure what is asked for, write and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=["all", "draw", *MEASURES])
    parser.add_argument("--camvid", help="root of CamVid")
    parser.add_argument("--animals", help="root of VOC animals")
    parser.add_argument("--rounds", type=int, default=11)
    presets = (*LAPTOP, "voc")
    parser.add_argument("--presets", nargs="+", choices=presets, default=presets, help="step: these only")
    parser.add_argument("--before", metavar="COMMIT", help="older code is on PYTHONPATH: write its `step` as `before`")
    options = parser.parse_args()
    for what in MEASURES if "all" in options.what else options.what:
        if what == "draw":
            continue
        print(what, flush=True)
        found = MEASURES[what](options)
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        versions = {name: metadata.version(name) for name in ("torch", "lightning-fabric", "numpy", "pillow")}
        machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), **versions}
        results["machine"] = machine
        kind = "before" if options.before else what
        results[kind] = results.get(kind, {}) | found if what == "step" else found
        if options.before:
            results["before_commit"] = options.before
        results.setdefault("ended", {})[kind] = time.strftime("%Y-%m-%d %H:%M")
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    if not options.before:
        draw()


if __name__ == "__main__":
    main()
