"""The paper's tables at laptop scale: every method in one protocol, on cached features, by the shipped sweeps.

    python benchmarks/tables.py camvid data.root=.../camvid
    python benchmarks/tables.py animals data.root=.../VOC2012

The cells are those of `table3_SET`, `table5_SET`, `table4_SET` and of row AdvSemiSeg in `table1_animals` or
`table2_camvid` at the smallest fraction; those of Table 3 also with the encoder trained along (`--trained`). Figures
of a cell go to benchmarks/tables_SET.json as it ends; cells that are there are skipped. At the end it prints the table.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from latentseg.sweeps.cells import Cell, Sweep, read_done
from latentseg.sweeps.files import read_sweep

HERE = Path(__file__).parent
SPLITS = {"camvid": ("val", "test"), "animals": ("val",)}
FRACTION = {"camvid": ("table2_camvid", "1/30"), "animals": ("table1_animals", "1/16")}
ALONG = ["cache=images", "model.frozen=false"]
Cells = dict[str, dict[str, Any]]


def sweeps(name: str, overrides: list[str], seeds: list[int], trained: bool) -> list[Sweep]:
    """The sweeps of a data set, seed by seed, so that a stopped benchmark leaves whole comparisons."""
    if trained:
        rows = "rows=[supervised,+ latent classes,proposed]"
        return [read_sweep(f"table3_{name}", [*overrides, *ALONG, rows, f"grid.seed=[{seed}]"]) for seed in seeds]
    found = []
    advsemiseg, fraction = FRACTION[name]
    for seed in seeds:
        one = [*overrides, f"grid.seed=[{seed}]"]
        found.append(read_sweep(f"table3_{name}", one))
        found.append(read_sweep(advsemiseg, [*one, "rows=[AdvSemiSeg]", f"columns.data.labeled=[{fraction}]"]))
        found.append(read_sweep(f"table5_{name}", [*one, "rows=[KL,manual,semantic classes]"]))
    found.append(read_sweep(f"table4_{name}", [*overrides, "grid.seed=[0]"]))
    return found


def label(sweep: Sweep, cell: Cell) -> str:
    """Row and seed; Table 4's cells bear their number of latent classes, and L = 20 is the proposed method."""
    row = cell.row if sweep.table != 4 or cell.column == 20 else f"L = {cell.column}"
    along = ", encoder trained along" if not cell.config.model.frozen else ""
    return f"{row}{along} | {cell.grid['seed']}"


def collect(sweep: Sweep, run_root: Path, path: Path) -> None:
    """Put the figures of finished cells into the JSON file."""
    cells: Cells = json.loads(path.read_text()) if path.exists() else {}
    for cell in sweep.cells:
        done = read_done(run_root / cell.folder, sweep.splits)
        key = label(sweep, cell)
        if done is None or key in cells:
            continue
        scores = {split: done["scores"][split] for split in sweep.splits}
        options = [option for option in cell.options if not option.startswith(("data.root=", "cache_folder="))]
        log = [json.loads(line) for line in (run_root / cell.folder / "metrics.jsonl").read_text().splitlines()]
        last = [row for row in log if "ce" in row][-1]
        ends = {name: last[name] for name in ("effective_0.1", "effective_0.9", "trusted") if name in last}
        cells[key] = {"options": options, "steps": done["steps"], "seconds": round(done["seconds"], 1), **ends}
        cells[key] |= {split: result["miou"] for split, result in scores.items()}
        cells[key] |= {f"{split}_iou": result["iou"] for split, result in scores.items()}
        print(key, {split: round(100 * result["miou"], 2) for split, result in scores.items()}, flush=True)
    path.write_text(json.dumps(dict(sorted(cells.items())), indent=1) + "\n")


def run(sweep: Sweep, run_root: Path, workers: int, path: Path) -> None:
    """Run a sweep as a user would, unless all its figures are there, and collect figures meanwhile."""
    collect(sweep, run_root, path)
    cells: Cells = json.loads(path.read_text())
    if all(label(sweep, cell) in cells for cell in sweep.cells):
        return
    command = [sys.executable, "-m", "latentseg", "sweep", sweep.source, *sweep.overrides]
    command += ["--run-root", str(run_root), "--workers", str(workers)]
    with (run_root.parent / f"{run_root.name}.log").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        while process.poll() is None:
            time.sleep(5)
            collect(sweep, run_root, path)
    collect(sweep, run_root, path)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}; see {log.name}")


def summary(cells: Cells, splits: tuple[str, ...], along: str = "") -> str:
    """Mean and deviation over the seeds, paired differences to supervised, share of the label gap, as Markdown."""
    rows = list(dict.fromkeys(key.split(" | ")[0] for key in cells if ("trained along" in key) == bool(along)))
    order = [
        "supervised",
        "supervised, equal time",
        "latent",
        "latent, equal time",
        "+ latent classes",
        "proposed",
        "AdvSemiSeg",
        "manual",
        "semantic classes",
        "KL",
        "mean_teacher",
        "mean_teacher, equal time",
        "fixmatch",
        "fixmatch, equal time",
        "unimatch",
        "cps",
        "latent_match",
        "all labels",
    ]
    rows.sort(key=lambda row: order.index(row.removesuffix(along)) if row.removesuffix(along) in order else 99)
    lines = ["| row | split | mIoU %, mean ± sd | per seed | - supervised | per seed | closed | s |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for split in splits:
        base = by_seed(cells, f"supervised{along}", split)
        full = by_seed(cells, "all labels", split)
        for row in rows:
            own = by_seed(cells, row, split)
            paired = {seed: own[seed] - base[seed] for seed in own if seed in base}
            gaps = [full[seed] - base[seed] for seed in full if seed in base]
            seconds = [cell["seconds"] for key, cell in cells.items() if key.split(" | ")[0] == row]
            lines.append(
                f"| {row} | {split} | {spread(list(own.values()))} | {' '.join(f'{v:.1f}' for v in own.values())} | "
                f"{spread(list(paired.values()))} | {' '.join(f'{v:+.1f}' for v in paired.values())} | "
                f"{closed(list(paired.values()), [] if along else gaps)} | {statistics.mean(seconds):.0f} |"
            )
    return "\n".join(lines)


def by_seed(cells: Cells, row: str, split: str) -> dict[str, float]:
    """Score of a row in %, by seed."""
    return {key.split(" | ")[1]: 100 * cell[split] for key, cell in cells.items() if key.split(" | ")[0] == row}


def spread(values: list[float]) -> str:
    """Mean and sample deviation; the mean alone of one seed."""
    if not values:
        return "-"
    mean = f"{statistics.mean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2f}"


def closed(paired: list[float], gaps: list[float]) -> str:
    """Share of the label gap; none where the gap itself is not clear of its spread over the seeds."""
    if len(gaps) < 2 or len(paired) < 2 or statistics.mean(gaps) < statistics.stdev(gaps):
        return "-"
    return f"{100 * statistics.mean(paired) / statistics.mean(gaps):.0f} %"


def main() -> None:
    """Run the cells that are missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(SPLITS))
    parser.add_argument("overrides", nargs="*", help="options for every cell, data.root above all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trained", action="store_true", help="the rows of Table 3 with the encoder trained along")
    parser.add_argument("--run-root", type=Path, default=Path("runs/tables"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--show", action="store_true", help="run nothing: collect what is done, print the table")
    options = parser.parse_args()
    path = HERE / f"tables_{options.name}.json"
    options.run_root.parent.mkdir(parents=True, exist_ok=True)
    for sweep in sweeps(options.name, options.overrides, options.seeds, options.trained):
        if options.show:
            collect(sweep, options.run_root, path)
        else:
            run(sweep, options.run_root, options.workers, path)
    cells: Cells = json.loads(path.read_text())
    print(summary(cells, SPLITS[options.name]))
    if any("trained along" in key for key in cells):
        print(summary(cells, SPLITS[options.name], ", encoder trained along"))


if __name__ == "__main__":
    main()
