"""An accuracy study: a sweep in; the figures of each cell as JSON, and tables of paired gains as Markdown, out.

    python benchmarks/study.py benchmarks/tables_camvid.yaml data.root=.../camvid --workers 2
    python benchmarks/study.py match_camvid data.root=.../camvid --against latent_match
    python benchmarks/study.py benchmarks/long_animals.yaml data.root=... --run-root runs/long --show

The sweep is a YAML file or a shipped one. Its cells are run seed by seed, so that a stopped study leaves whole
comparisons; each is an ordinary run folder below --run-root, and a killed study goes on by the same command. The
figures of a cell go to benchmarks/NAME.json as it ends, and a cell that is there is not run again. --show runs nothing:
it collects what is finished below --run-root, whichever sweep or version made it, and prints.
"""

import argparse
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import compare
from compare import Cells

from latentseg.analysis import analyse
from latentseg.data.datasets import open_dataset
from latentseg.errors import UserError
from latentseg.methods.table import METHODS, readers
from latentseg.presets import only_read
from latentseg.presets.plain import read_yaml_file
from latentseg.runs.metrics import read_metrics
from latentseg.sweeps.cells import Cell, Sweep, read_done
from latentseg.sweeps.files import read_sweep
from latentseg.sweeps.run import run_sweep

HERE = Path(__file__).parent
POLL = 5.0  # seconds between two looks for cells that have ended
FREE = frozenset({
    "data.root", "data.check", "cache_folder", "threads", "device", "devices", "num_nodes", "workers", "compile",
    "checkpoint_every", "log_every", "model.channels_last",
})  # fmt: skip
"""Options in which two runs of one cell may differ."""
LOGGED = ("effective_0.1", "effective_0.9", "trusted")
"""Kept from the last line of the log."""
TIMES = ("seconds", "images_per_second")


def key_of(cell: Cell, sweep: Sweep) -> str:
    """`ROW, COLUMN=VALUE | SEED`, the name of a cell in the JSON file."""
    varied = ({sweep.column_key: cell.column} if sweep.column_key else {}) | cell.grid
    more = [f"{key}={value}" for key, value in varied.items() if key != "seed"]
    return f"{', '.join([cell.row, *more])} | {cell.config.seed}"


def that_count(options: Sequence[str], method: str) -> list[str]:
    """Of `key=value` options those that change the result of a method."""
    return only_read([option for option in options if option.partition("=")[0] not in FREE], method)


def read_cells(path: Path, sweep: Sweep) -> Cells:
    """The cells of a JSON file; one of this sweep that was run with other options is an error."""
    cells: Cells = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for cell in sweep.cells:
        key = key_of(cell, sweep)
        recorded = cells.get(key, {}).get("options", [])
        there, here = (that_count(some, cell.config.method.name) for some in (recorded, cell.options))
        if key in cells and set(there) != set(here):
            raise UserError(f"{path} holds {key!r} with {there}, not with {here}: take another file with --out")
    return cells


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree of options with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


@cache
def run_options(folder: Path) -> dict[str, Any]:
    """The resolved options of a run, which do not change once it is there."""
    return flat(dict(read_yaml_file(folder / "config.yaml", str(folder))))


def run_of(cell: Cell, run_root: Path) -> Path | None:
    """The finished run of a cell, found by its options and not by its name, which versions choose in other ways.

    An option that the run does not know must be at its default in the cell.
    """
    ours = flat(cell.config.model_dump(mode="json"))
    set_here = flat(cell.config.model_dump(mode="json", exclude_defaults=True)).keys()
    for done in sorted(run_root.glob("*/DONE")):
        theirs = run_options(done.parent)
        if all(
            value in ("auto", theirs[key]) if key in theirs else key not in set_here
            for key, value in ours.items()
            if key not in FREE and (not readers(key) or cell.config.method.name in readers(key))
        ):
            return done.parent
    return None


def figures(cell: Cell, done: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What is kept of a finished cell, from its file DONE and the rows of its log."""
    options = that_count(cell.options, cell.config.method.name)
    found = {"options": options, "steps": done["steps"], "seconds": round(done["seconds"], 1)}
    last: dict[str, Any] = next((row for row in reversed(rows) if "ce" in row), {})
    found |= {name: last[name] for name in LOGGED if name in last}
    found |= {split: scores["miou"] for split, scores in done["scores"].items()}
    found |= {f"{split}_iou": scores["iou"] for split, scores in done["scores"].items()}
    over_steps = curve(rows, f"{cell.config.validate_split}_miou")
    return found | ({"curve": over_steps} if len(over_steps["step"]) > 1 else {})


def curve(rows: list[dict[str, Any]], validated: str) -> dict[str, list[Any]]:
    """Every number that was logged at the steps with a validation, by name; None where it was not."""
    points: dict[int, dict[str, float]] = {row["step"]: {} for row in rows if validated in row}
    for row in rows:
        if row["step"] in points:
            numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
            points[row["step"]] |= {name: round(value, 5) for name, value in numbers.items() if name not in TIMES}
    names = dict.fromkeys(["step", *(name for point in points.values() for name in point)])
    return {name: [point.get(name) for point in points.values()] for name in names}


def latent_figures(folder: Path, steps: int) -> dict[str, Any] | None:
    """The figures of a run's analysis at its last step; None without one."""
    path = folder / "analysis" / "analysis.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found["figures"] | {"effective_m": found["effective_m"]} if found.get("step") == steps else None


def collect(sweep: Sweep, run_root: Path, path: Path) -> Cells:
    """Put the figures of finished cells, and of their analyses, into the JSON file; gives all that it holds."""
    cells = read_cells(path, sweep)
    before = json.dumps(cells)
    for cell in sweep.cells:
        key = key_of(cell, sweep)
        known = cells.get(key, {})
        if "latent" in known or (known and not run_root.is_dir()):
            continue
        folder = run_of(cell, run_root)
        done = read_done(folder, sweep.splits) if folder else None
        if not folder or not done:
            continue
        cells[key] = known or figures(cell, done, read_metrics(folder))
        if latent := latent_figures(folder, done["steps"]):
            cells[key]["latent"] = latent
        if not known:
            shown = {split: round(100 * cells[key][split], 2) for split in sweep.splits}
            print(key, shown, f"{done['seconds']:.0f} s", file=sys.stderr, flush=True)
    if json.dumps(cells) != before:
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(dict(sorted(cells.items())), indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)
    return cells


@contextmanager
def collecting(sweep: Sweep, run_root: Path, path: Path) -> Iterator[None]:
    """Collect while the cells run."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(POLL):
            collect(sweep, run_root, path)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        collect(sweep, run_root, path)


def missing(sweep: Sweep, cells: Cells) -> Sweep | None:
    """The part of a sweep that a file lacks, by rows and columns; None if it lacks nothing."""
    left = [cell for cell in sweep.cells if key_of(cell, sweep) not in cells]
    if not left:
        return None
    rows = [*dict.fromkeys(cell.row for cell in left)]
    picked = [f"rows={json.dumps(rows, ensure_ascii=False)}"]
    if sweep.column_key:
        columns = [*dict.fromkeys(cell.column for cell in left)]
        picked.append(f"columns.{sweep.column_key}={json.dumps(columns)}")
    return read_sweep(sweep.source, [*sweep.overrides, *picked])


def run(sweep: Sweep, run_root: Path, workers: int, path: Path) -> bool:
    """Run the cells that the JSON file lacks, seed by seed; tells whether all of them succeeded."""
    succeeded = True
    for seed in sweep.grid.get("seed", [None]):
        picked = [] if seed is None else [f"grid.seed=[{seed}]"]
        part = missing(read_sweep(sweep.source, [*sweep.overrides, *picked]), collect(sweep, run_root, path))
        if part is None:
            continue
        try:
            with collecting(part, run_root, path):
                run_sweep(part, run_root, workers)
        except UserError as error:  # the other seeds go on
            print(error, file=sys.stderr)
            succeeded = False
    return succeeded


def analyse_cells(sweep: Sweep, run_root: Path) -> None:
    """Analyse the finished cells that have a second branch, unless they are."""
    for cell in (cell for cell in sweep.cells if METHODS[cell.config.method.name].second != "nothing"):
        folder, root = run_of(cell, run_root), cell.config.data.root
        if folder and not latent_figures(folder, cell.config.steps):
            analyse(folder, overrides=[f"data.root={root}"] if root else [])


def main() -> None:
    """Run what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", help="a YAML file, or the name of a shipped sweep")
    parser.add_argument("overrides", nargs="*", help="options for every cell, data.root above all; rows=[..] picks")
    parser.add_argument("--run-root", type=Path, default=Path("runs/study"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file; benchmarks/NAME.json if not given")
    parser.add_argument("--show", action="store_true", help="run nothing: collect what is finished, print the tables")
    parser.add_argument("--analyse", action="store_true", help="analyse the latent classes of finished cells on val")
    parser.add_argument("--baseline", default="supervised", metavar="ROW", help="what gains are paired with")
    parser.add_argument("--full", default="all labels", metavar="ROW", help="what the gap is measured to")
    parser.add_argument("--against", metavar="ROW", help="print this row minus each other one, too")
    parser.add_argument("--classes", action="store_true", help="print the gain of each class, too")
    parser.add_argument("--plot", nargs="+", metavar="QUANTITY", help="draw logged quantities over the steps, or: gain")
    options = parser.parse_intermixed_args()
    try:
        sys.exit(not study(options))
    except UserError as error:
        sys.exit(f"error: {error}")


def study(options: argparse.Namespace) -> bool:
    """Do what the command line says; tells whether every cell that was run succeeded."""
    sweep = read_sweep(options.sweep, options.overrides)
    path = options.out or HERE / f"{sweep.name}.json"
    succeeded = options.show or run(sweep, options.run_root, options.workers, path)
    if options.analyse:
        analyse_cells(sweep, options.run_root)
    cells = collect(sweep, options.run_root, path)
    rows = compare.row_names(cells, [key_of(cell, sweep).rpartition(" | ")[0] for cell in sweep.cells])
    if options.against and options.against not in {*rows, *sweep.rows}:
        raise UserError(f"--against {options.against}: no such row in {path}; there are {', '.join(rows)}")
    print(compare.summary(cells, rows, sweep.splits, options.baseline, options.full))
    if options.against:
        print("", compare.against(cells, rows, sweep.splits, options.against), sep="\n")
    if options.classes:
        classes = open_dataset(sweep.cells[0].config.data).classes
        print("", compare.class_table(cells, rows, sweep.splits, options.baseline, classes), sep="\n")
    if options.plot:
        compare.plot(cells, rows, options.plot, options.baseline, path.with_suffix(".png"))
    return succeeded


if __name__ == "__main__":
    main()
