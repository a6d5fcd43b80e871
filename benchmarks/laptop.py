"""Table 3 of the paper on real photographs, at laptop scale.

    python benchmarks/laptop.py camvid data.root=.../camvid
    python benchmarks/laptop.py animals data.root=.../VOC2012
    python benchmarks/laptop.py scenes

Rows: supervised, + latent, + latent + adversarial, supervised with all labels, and supervised for as long as + latent
takes. Each cell is an ordinary run; its figures go to benchmarks/laptop_SET.json as it ends, and a cell that is there
is skipped. Two cells run side by side, one thread each.
"""

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ADVERSARIAL = ["method.lambda_lbl_adv=0.01", "method.lambda_ulbl_adv=0.001"]
ROWS: dict[str, list[str]] = {
    "supervised": ["method.name=supervised"],
    "latent": [],
    "latent+adv": ADVERSARIAL,
    "all labels": ["method.name=supervised", "data.labeled=all"],
    "supervised, time of latent": ["method.name=supervised"],
}
SPLITS = {"camvid": ("val", "test"), "animals": ("val",), "scenes": ("val", "test")}
LOCK = threading.Lock()


class Bench:
    """The cells of one data set and the file with their figures."""

    def __init__(self, name: str, overrides: list[str], runs: Path) -> None:
        self.name, self.overrides, self.runs = name, overrides, runs
        self.path = HERE / f"laptop_{name}.json"
        self.cells: dict[str, dict[str, Any]] = json.loads(self.path.read_text()) if self.path.exists() else {}

    def run(self, row: str, seed: int) -> None:
        """Train and score one cell, unless it is done."""
        key = f"{row} | {seed}"
        if key in self.cells:
            return
        extra = list(ROWS[row])
        if row.endswith("time of latent"):
            extra.append(f"steps={self._steps_for_time_of_latent()}")
        folder = self.runs / f"{self.name}-{row.replace(' ', '_').replace(',', '')}-s{seed}"
        options = [*self.overrides, *extra, f"seed={seed}", "threads=1"]
        began = time.perf_counter()
        _latentseg("train", self.name, *options, "--run", str(folder), "--resume", log=folder.with_suffix(".log"))
        seconds = time.perf_counter() - began
        cell: dict[str, Any] = {"options": extra, "train_seconds": round(seconds, 1)}
        for split in SPLITS[self.name]:
            _latentseg("evaluate", str(folder), "--split", split, "threads=1", log=folder.with_suffix(".log"))
            result = json.loads((folder / f"evaluation-{split}-last.json").read_text())
            cell |= {"steps": result["step"], split: result["scores"]["miou"], f"{split}_iou": result["scores"]["iou"]}
        with LOCK:
            self.cells[key] = cell
            self.path.write_text(json.dumps(dict(sorted(self.cells.items())), indent=1) + "\n")
        print(key, {split: round(100 * cell[split], 2) for split in SPLITS[self.name]}, f"{seconds:.0f} s", flush=True)

    def _steps_for_time_of_latent(self) -> int:
        """Steps of the supervised row that take as long as + latent's: by the median ratio over the seeds at hand."""
        seeds = [key.split(" | ")[1] for key in self.cells if key.startswith("latent | ")]
        pairs = [(self.cells[f"latent | {seed}"], self.cells[f"supervised | {seed}"]) for seed in seeds]
        ratio: float = statistics.median(latent["train_seconds"] / base["train_seconds"] for latent, base in pairs)
        steps: int = pairs[0][1]["steps"]
        return round(ratio * steps)

    def summary(self, seeds: list[int]) -> str:
        """Mean, standard deviation, paired difference and share of the label gap, as a Markdown table."""
        lines = ["| row | split | mIoU %, mean ± sd | per seed | - supervised | per seed | closed | steps | s |"]
        lines.append("|---|---|---|---|---|---|---|---|---|")
        for split in SPLITS[self.name]:
            base = self._scores("supervised", split, seeds)
            gaps = _differences(self._scores("all labels", split, seeds), base)
            for row in ROWS:
                values = self._scores(row, split, seeds)
                if len(values) < len(seeds) or len(base) < len(seeds):
                    continue
                paired = _differences(values, base)
                cells = [self.cells[f"{row} | {seed}"] for seed in seeds]
                lines.append(
                    f"| {row} | {split} | {_spread(values)} | {' '.join(f'{value:.1f}' for value in values)} | "
                    f"{_spread(paired)} | {' '.join(f'{d:+.1f}' for d in paired)} | {_closed(paired, gaps)} | "
                    f"{statistics.mean(cell['steps'] for cell in cells):.0f} | "
                    f"{statistics.mean(cell['train_seconds'] for cell in cells):.0f} |"
                )
        return "\n".join(lines)

    def _scores(self, row: str, split: str, seeds: list[int]) -> list[float]:
        keys = [f"{row} | {seed}" for seed in seeds]
        return [100 * self.cells[key][split] for key in keys if key in self.cells]


def _differences(values: list[float], base: list[float]) -> list[float]:
    return [value - reference for value, reference in zip(values, base, strict=False)]


def _spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.2f} ± {deviation:.2f}"


def _closed(paired: list[float], gaps: list[float]) -> str:
    """Share of the label gap; none where the gap itself is not clear of its spread over the seeds."""
    if len(gaps) < 2 or statistics.mean(gaps) < statistics.stdev(gaps):
        return "no clear gap"
    return f"{100 * statistics.mean(paired) / statistics.mean(gaps):.0f} %"


def _latentseg(*arguments: str, log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        subprocess.run([sys.executable, "-m", "latentseg", *arguments], stdout=file, stderr=file, check=True)


def main() -> None:
    """Run the cells that are missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(SPLITS))
    parser.add_argument("overrides", nargs="*", help="options for every cell, data.root above all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--runs", type=Path, default=Path("runs/laptop"))
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    bench = Bench(options.name, options.overrides, options.runs)
    with ThreadPoolExecutor(options.jobs) as pool:
        for seed in options.seeds:  # the last row needs the times of the first two
            first = [row for row in options.rows if not row.endswith("time of latent")]
            list(pool.map(lambda row, seed=seed: bench.run(row, seed), first))
        late = [row for row in options.rows if row.endswith("time of latent")]
        list(pool.map(lambda cell: bench.run(*cell), [(row, seed) for row in late for seed in options.seeds]))
    print(bench.summary(options.seeds))


if __name__ == "__main__":
    main()
