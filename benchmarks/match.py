"""Weak-to-strong methods beside the paper's: one protocol, cached features, equal steps and equal time.

    python benchmarks/match.py camvid data.root=.../camvid
    python benchmarks/match.py animals_16 data.root=.../VOC2012
    python benchmarks/match.py animals_64 data.root=.../VOC2012

The cells are those of the shipped sweeps `match_camvid` and `match_animals` (1/16 and 1/64 of the labels). They were
tuned on other draws of the labelled images (seeds 10 to 12; animals on held-out training images) and are reported on
seeds 0 to 4 (docs/notebook/latent_match.md says where reported seeds had a part in it).
Figures of a cell go to benchmarks/match_SET.json as it ends; cells that are there are skipped. At the
end it prints the table, and ours against each other row by seed. `--trained` has three rows with the encoder trained
along, on images in memory and new views each epoch. `--long` has the rows with three times the steps, in
benchmarks/match_SET_long.json.
"""

import argparse
import json
from pathlib import Path

from tables import Cells, by_seed, collect, run, spread, summary

from latentseg.sweeps.cells import Sweep
from latentseg.sweeps.files import read_sweep

HERE = Path(__file__).parent
OURS = "latent_match"
SETS = {
    "camvid": ("match_camvid", [], ("val", "test")),
    "animals_16": ("match_animals", ["data.labeled=1/16"], ("val",)),
    "animals_64": ("match_animals", [], ("val",)),
}


TRAINED = ["cache=images", "model.frozen=false", "augment.views=null", "augment.labeled_views=null"]
TRAINED += [f"rows=[supervised,fixmatch,{OURS}]"]
LONG = ["steps=1800", f"rows=[supervised,mean_teacher,{OURS},latent,fixmatch,unimatch,all labels]"]


def sweeps(name: str, overrides: list[str], seeds: list[int], trained: bool, long: bool) -> list[Sweep]:
    """The sweep of a set, seed by seed, so that a stopped benchmark leaves whole comparisons."""
    source, own, _ = SETS[name]
    along = (TRAINED if trained else []) + (LONG if long else [])
    return [read_sweep(source, [*own, *along, *overrides, f"grid.seed=[{seed}]"]) for seed in seeds]


def against(cells: Cells, splits: tuple[str, ...], along: str = "") -> str:
    """Our row minus each other row on the same seeds, in points, as Markdown."""
    rows = [key.split(" | ")[0] for key in cells if ("trained along" in key) == bool(along)]
    lines = [f"| {OURS}{along} minus | split | points, mean ± sd | per seed |", "|---|---|---|---|"]
    for split in splits:
        ours = by_seed(cells, OURS + along, split)
        for row in dict.fromkeys(rows):
            theirs = by_seed(cells, row, split)
            differences = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
            if row != OURS + along and differences:
                each = " ".join(f"{value:+.1f}" for value in differences)
                lines.append(f"| {row} | {split} | {spread(differences)} | {each} |")
    return "\n".join(lines)


def main() -> None:
    """Run the cells that are missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(SETS))
    parser.add_argument("overrides", nargs="*", help="options for every cell, data.root above all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--run-root", type=Path, default=Path("runs/match"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--show", action="store_true", help="run nothing: collect what is done, print the tables")
    parser.add_argument("--trained", action="store_true", help="three rows with the encoder trained along, on images")
    parser.add_argument("--long", action="store_true", help="three times the steps: 1,800")
    options = parser.parse_args()
    path = HERE / f"match_{options.name}{'_long' * options.long}.json"
    splits = SETS[options.name][2]
    options.run_root.parent.mkdir(parents=True, exist_ok=True)
    for sweep in sweeps(options.name, options.overrides, options.seeds, options.trained, options.long):
        if options.show:
            collect(sweep, options.run_root, path)
        else:
            run(sweep, options.run_root, options.workers, path)
    cells: Cells = json.loads(path.read_text())
    for along in ("", ", encoder trained along"):
        if any(key.startswith(f"{OURS}{along} | ") for key in cells):
            print(summary(cells, splits, along), against(cells, splits, along), sep="\n\n")


if __name__ == "__main__":
    main()
