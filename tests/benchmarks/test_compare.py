"""The arithmetic of a study, by hand."""

from math import nan
from pathlib import Path
from typing import Any

import compare
import pytest
from compare import Cells

ROWS = ["supervised", "ours", "all labels"]


def cell(val: float, iou: tuple[float | None, ...] = (0.5, 0.5), **more: Any) -> dict[str, Any]:
    return {"options": [], "steps": 10, "seconds": 20.0, "val": val, "val_iou": list(iou), **more}


@pytest.fixture
def cells() -> Cells:
    """Gains of 2 and 4 points, gaps of 10 and 14; seed 10 stands after seed 9, and one cell has no twin."""
    return {
        "all labels | 10": cell(0.54),
        "all labels | 9": cell(0.50),
        "ours | 10": cell(0.44, (0.6, 0.2), seconds=60.0),
        "ours | 11": cell(0.90, (0.9, 0.9)),
        "ours | 9": cell(0.42, (0.5, 0.4)),
        "supervised | 10": cell(0.40, (0.5, 0.3)),
        "supervised | 9": cell(0.40, (0.3, 0.3)),
    }


def line(table: str, row: str) -> list[str]:
    [found] = [line for line in table.splitlines() if line.startswith(f"| {row} |")]
    return [part.strip() for part in found.strip("|").split("|")]


def test_a_row_is_paired_with_the_baseline_by_seed(cells: Cells) -> None:
    row = line(compare.summary(cells, ROWS, ["val"], "supervised", "all labels"), "ours")
    assert row == ["ours", "val", "58.67 ± 27.15", "42.0 44.0 90.0", "3.00 ± 1.41", "+2.0 +4.0", "25 %", "33"]


def test_the_share_of_the_gap_takes_the_seeds_that_have_both() -> None:
    assert compare.closed({0: 1.0, 1: 3.0, 2: 90.0}, {0: 9.0, 1: 11.0, 3: -50.0}) == "20 %"


def test_a_gap_within_its_spread_is_none() -> None:
    assert compare.closed({0: 1.0, 1: 1.0}, {0: -2.0, 1: 6.0}) == "no clear gap"
    assert compare.closed({0: 1.0, 1: 1.0}, {0: 4.0, 1: 6.0}) == "20 %"


def test_one_seed_tells_no_share_and_no_spread(cells: Cells) -> None:
    one = {key: value for key, value in cells.items() if key.endswith(" 9")}
    row = line(compare.summary(one, ROWS, ["val"], "supervised", "all labels"), "ours")
    assert row[2:7] == ["42.00", "42.0", "2.00", "+2.0", "-"]


def test_our_row_minus_each_other_one(cells: Cells) -> None:
    table = compare.against(cells, ROWS, ["val"], "ours")
    assert line(table, "supervised")[2:] == ["3.00 ± 1.41", "+2.0 +4.0"]
    assert line(table, "all labels")[2:] == ["-9.00 ± 1.41", "-8.0 -10.0"]
    assert "| ours | val" not in table


def test_gain_of_each_class(cells: Cells) -> None:
    assert compare.class_gains(cells, "ours", "val", "supervised") == pytest.approx([15.0, 0.0])
    cells["ours | 9"]["val_iou"][1] = None
    assert compare.class_gains(cells, "ours", "val", "supervised") == pytest.approx([15.0, nan], nan_ok=True)


def test_rows_stand_as_the_sweep_has_them(cells: Cells) -> None:
    assert compare.row_names(cells, ["supervised", "not yet run", "ours"]) == ROWS


def test_curves_are_means_over_the_seeds(cells: Cells, tmp_path: Path) -> None:
    for seed, shift in ((9, 0.0), (10, 0.1)):
        for row, lead in (("supervised", 0.0), ("ours", 0.02 + shift)):
            cells[f"{row} | {seed}"]["curve"] = {"step": [1, 2], "val_miou": [0.3, 0.4 + lead], "ce": [None, 2 + shift]}
    steps, gains = compare.mean_curve(cells, "ours", compare.GAIN, "supervised")
    assert steps == [1, 2]
    assert gains == pytest.approx([0.0, 7.0])
    steps, losses = compare.mean_curve(cells, "ours", "ce", "supervised")
    assert steps == [2]
    assert losses == pytest.approx([2.05])
    compare.plot(cells, ROWS, ["gain", "ce"], "supervised", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000
