"""What suggested labels are worth: mIoU over 12, 24 and 48 labels, chosen by `latentseg suggest` or drawn.

    python benchmarks/suggest.py camvid data.root=.../camvid --run-root runs/suggest
    python benchmarks/suggest.py animals data.root=.../VOC2012 --run-root runs/suggest --rows random all
    python benchmarks/suggest.py --show

Every row of a seed starts from the same run of 12 labels, the draw of `data.labeled=12`. A row then chooses as many
training images as are labelled, their labels are revealed, and a new run is trained on all of them. Rows: `random`;
`covering`, a random draw whose new images show every class by their masks, as `data.every_class` draws (which nobody
can do before the labels are there); and the ways of `latentseg suggest --by`. A killed study goes on by the same
command: choices are lists beside the run folders, runs go on, scores are in benchmarks/suggest.json as each run ends.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import compare
import numpy as np

from latentseg.config import Config
from latentseg.data.cover import cover_classes
from latentseg.data.datasets import Dataset, Item, open_dataset
from latentseg.data.lists import read_list
from latentseg.data.splits import draw_split
from latentseg.errors import UserError
from latentseg.inference.evaluate import evaluate
from latentseg.inference.model import Model
from latentseg.presets import load_config
from latentseg.runs.checkpoints import write_atomically
from latentseg.runs.metrics import read_metrics
from latentseg.suggest import rank
from latentseg.suggest.look import Looker
from latentseg.suggest.ranking import WAYS
from latentseg.training.loop import train

OUT = Path(__file__).with_suffix(".json")
START = "start"
DRAWS = ("random", "covering")
ROWS = ["random", "covering", "all", "entropy", "diverse", "rare", "stratified"]
SPLITS = {"camvid": ("val", "test"), "animals": ("val",)}
METHODS = {"supervised": ("", ["method.name=supervised"]), "latent_match": ("_match", list[str]())}
"""Ending of the preset, and options."""
OPTIONS = [
    *("cache=features", "augment.views=4", "augment.labeled_views=64", "data.check=quick", "validate_every=0"),
    *("threads=1", "device=cpu", "checkpoint_every=500"),
]
Figures = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Study:
    """One data set, method and length."""

    data: str
    method: str
    steps: int
    overrides: tuple[str, ...]
    run_root: Path
    out: Path

    def key(self, row: str, labels: int, seed: int) -> str:
        """Name of a run in the JSON file; every row shares the first one."""
        return f"{self.data} | {self.method} | {self.steps} | {row} | {labels} | {seed}"

    def config(self, labeled: str, seed: int) -> Config:
        """A run on a list file of labelled images, or on a draw of a number of them."""
        ending, options = METHODS[self.method]
        given = [f"data.labeled={json.dumps(labeled)}", f"steps={self.steps}", f"seed={seed}"]
        return load_config(self.data + ending, [*OPTIONS, *options, *given, *self.overrides])

    def path(self, row: str, labels: int, seed: int) -> Path:
        """A name below the run root, for the list (.txt) and the run folder."""
        return self.run_root / f"{self.data}-{self.method}-{self.steps}-{row}-{labels}-s{seed}"


def read_figures(path: Path) -> Figures:
    """What is finished."""
    found: Figures = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def run_seed(study: Study, rows: Sequence[str], labels: Sequence[int], seed: int) -> None:
    """Train and score the rows of a seed, round by round, but for what is there."""
    dataset = open_dataset(study.config("1", seed).data)
    able = [item for item in dataset.items("train") if item.has_labels]
    first = draw_split(dataset, study.config(str(labels[0]), seed).data, seed).labeled
    base = finish(study, START, labels[0], seed, first)
    for row in rows:
        known, folder = first, base
        for number in labels[1:]:
            known = chosen(study, dataset, able, row, (known, folder), number, seed)
            folder = finish(study, row, number, seed, known)


def chosen(
    study: Study,
    dataset: Dataset,
    able: list[Item],
    row: str,
    before: tuple[list[Item], Path],
    number: int,
    seed: int,
) -> list[Item]:
    """The labelled images of the next round: those of the last one, and as many new ones as are missing."""
    path, (known, folder) = study.path(row, number, seed).with_suffix(".txt"), before
    if path.exists():
        return read_list(dataset, path)
    used = {item.id for item in known}
    rest, count = [item for item in able if item.id not in used], number - len(known)
    if row in DRAWS:
        order = [rest[i] for i in np.random.default_rng([seed, number]).permutation(len(rest))]
        new = order[:count] if row == "random" else cover_classes(dataset, order, count, strict=False)[0]
    else:
        items = {str(item.image): item for item in rest}
        looker = Looker.open(Model.open(folder), "last")
        new = [items[str(image)] for image in rank(looker, paths(rest), dataset, known, count, row, {}).images]
    write_atomically(path, "".join(f"{item.id}\n" for item in [*known, *new]).encode())
    return [*known, *new]


def paths(items: Sequence[Item]) -> list[Path]:
    """Files of images."""
    return [item.image for item in items if item.image]


def finish(study: Study, row: str, labels: int, seed: int, known: list[Item]) -> Path:
    """Train on these labels, score, and put the figures into the JSON file; what is there is not repeated."""
    folder, key = study.path(row, labels, seed), study.key(row, labels, seed)
    listed = folder.with_suffix(".txt")
    if not listed.exists():
        write_atomically(listed, "".join(f"{item.id}\n" for item in known).encode())
    if key in read_figures(study.out) and (folder / "config.yaml").is_file():
        return folder
    began = time.perf_counter()
    train(study.config(str(listed.absolute()), seed), folder, resume=True)
    found: dict[str, Any] = {"seconds": round(time.perf_counter() - began, 1), "images": [item.id for item in known]}
    for split in SPLITS[study.data]:
        found |= score(folder, split, study.steps)
    figures = read_figures(study.out) | {key: found}
    write_atomically(study.out, (json.dumps(dict(sorted(figures.items())), indent=1) + "\n").encode())
    print(key, {split: round(100 * found[split], 2) for split in SPLITS[study.data]}, flush=True)
    return folder


def score(folder: Path, split: str, steps: int) -> dict[str, Any]:
    """The mIoU and the IoU of each class: of the training's own last validation, or else evaluated."""
    for row in read_metrics(folder):
        if row["step"] == steps and f"{split}_miou" in row:
            return {split: row[f"{split}_miou"], f"{split}_iou": row[f"{split}_iou"]}
    evaluated = json.loads(evaluate(folder, split).to_json())["scores"]
    return {split: evaluated["miou"], f"{split}_iou": evaluated["iou"]}


def table(figures: Figures) -> str:
    """The mIoU by row and number of labels, mean and spread, and the difference to `random` by seed, in Markdown."""
    runs: dict[tuple[str, str, str], dict[tuple[str, int], dict[int, dict[str, Any]]]] = {}
    for key, cell in figures.items():
        data, method, steps, row, number, seed = key.split(" | ")
        runs.setdefault((data, method, steps), {}).setdefault((row, int(number)), {})[int(seed)] = cell
    lines = ["| data, method, steps | split | labels | row | mIoU %, mean ± sd | per seed | - random | per seed |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for name, cells in runs.items():
        order = {row: place for place, row in enumerate([START, *ROWS, *WAYS])}
        for split in SPLITS[name[0]]:
            for row, labels in sorted(cells, key=lambda cell: (cell[1], order[cell[0]])):
                own = {seed: 100 * cell[split] for seed, cell in sorted(cells[row, labels].items())}
                base = {seed: 100 * cell[split] for seed, cell in cells.get(("random", labels), {}).items()}
                gains = compare.paired(own, base) if row != "random" else {}
                each = (
                    " ".join(f"{value:{form}}" for value in of.values()) for of, form in ((own, ".1f"), (gains, "+.1f"))
                )
                shown, gained = each
                lines.append(
                    f"| {', '.join(name)} | {split} | {labels} | {row} | {compare.spread([*own.values()])} | {shown} | "
                    f"{compare.spread([*gains.values()])} | {gained} |"
                )
    return "\n".join([*lines, "", *verdicts(runs)])


def verdicts(runs: dict[tuple[str, str, str], dict[tuple[str, int], dict[int, dict[str, Any]]]]) -> list[str]:
    """Whether each row beats random by more than the spread of the difference, over all numbers of labels."""
    lines = []
    for name, cells in runs.items():
        for split in SPLITS[name[0]]:
            for row in dict.fromkeys(row for row, _ in cells if row not in ("random", START)):
                gains = [
                    100 * (cell[split] - cells["random", labels][seed][split])
                    for (own, labels), seeds in cells.items()
                    for seed, cell in seeds.items()
                    if own == row and seed in cells.get(("random", labels), {})
                ]
                if len(gains) > 1:
                    mean, spread = statistics.mean(gains), statistics.stdev(gains)
                    beats = "beats random" if mean > spread else "does not beat random by more than the spread"
                    text = f"{mean:+.2f} ± {spread:.2f} points over {len(gains)} runs"
                    lines.append(f"{', '.join(name)}, {split}: {row} {beats}: {text}.")
    return lines


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", choices=[*SPLITS], help="the data set")
    parser.add_argument("overrides", nargs="*", help="options of every run, data.root above all")
    parser.add_argument("--method", choices=[*METHODS], default="supervised")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--labels", type=int, nargs="+", default=[12, 24, 48])
    parser.add_argument("--rows", nargs="+", choices=[*dict.fromkeys([*DRAWS, *WAYS])], default=ROWS[:5])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--run-root", type=Path, default=Path("runs/suggest"))
    parser.add_argument("--out", type=Path, default=OUT, help="JSON file; benchmarks/suggest.json if not given")
    parser.add_argument("--show", action="store_true", help="run nothing, print the table")
    options = parser.parse_intermixed_args()
    if not options.show and options.data is None:
        parser.error("name a data set, or --show")
    try:
        if not options.show:
            overrides, root = tuple(options.overrides), options.run_root
            root.mkdir(parents=True, exist_ok=True)
            study = Study(options.data, options.method, options.steps, overrides, root, options.out)
            for seed in options.seeds:
                run_seed(study, options.rows, options.labels, seed)
    except UserError as error:
        sys.exit(f"error: {error}")
    print(table(read_figures(options.out)))


if __name__ == "__main__":
    main()
