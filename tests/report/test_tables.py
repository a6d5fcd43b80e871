import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentseg.console import duration
from latentseg.report.collect import Record, SweepRecord, read_inputs
from latentseg.report.page import write_report
from latentseg.report.tables import (
    DASH,
    Table,
    cost_table,
    difference_table,
    line_table,
    paper_form,
    run_table,
    unfinished,
)

Make = Callable[..., Path]


def read(root: Path) -> SweepRecord:
    (sweep,), _, problems = read_inputs([root])
    assert problems == []
    return sweep


def column(table: Table, name: str) -> list[tuple[str, str]]:
    index = table.header.index(name)
    return [(row[index].text, row[index].note) for row in table.rows]


def test_table_3_with_known_values(make_sweep: Make) -> None:
    scores: dict[str, dict[Any, list[float | str]]] = {
        "supervised": {None: [0.40, 0.42, 0.41]},
        "+ latent classes": {None: [0.43, 0.42, "open"]},
        "proposed": {None: [0.44, 0.46, 0.42]},
        "all labels": {None: [0.50, 0.50, 0.53]},
    }
    table = line_table(read(make_sweep(scores, table=3)), "val")
    assert column(table, "mIoU in %") == [
        ("41.00 ± 1.00", ""),
        ("42.50 ± 0.71", "2 of 3 seeds"),
        ("44.00 ± 2.00", ""),
        ("51.00 ± 1.73", ""),
    ]
    assert [text for text, _ in column(table, "paper")] == ["64.1", "67.3", "71.3", "\N{EN DASH}"]
    assert column(table, "to supervised, paired")[1:] == [
        ("+1.50 ± 2.12", "+3.00, +0.00"),
        ("+3.00 ± 1.73", "+4.00, +4.00, +1.00"),
        ("+10.00 ± 2.00", "+10.00, +8.00, +12.00"),
    ]
    # (3 + 0) / (10 + 8) of two seeds, (4 + 4 + 1) / (10 + 8 + 12) of three
    assert column(table, "share of the label gap") == [("", ""), ("17 %", "2 seeds"), ("30 %", "3 seeds"), ("", "")]
    assert column(table, "seed: mIoU in %")[1] == ("0: 43.00; 1: 42.00; 2: open", "")


def test_table_1_relative_performance_and_gap(make_sweep: Make) -> None:
    scores: dict[str, dict[Any, list[float | str]]] = {
        "supervised": {"1/8": [0.40, 0.44], "all": [0.60, 0.60]},
        "proposed": {"1/8": [0.45, 0.49], "all": [0.50, 0.60]},
        "AdvSemiSeg": {"1/8": ["failed", "running"], "all": ["unreadable", 0.5]},
    }
    sweep = read(make_sweep(scores, table=1, column_key="data.labeled"))
    ours, paper = paper_form(sweep, "val", {})
    assert column(ours, "1/8") == [
        ("42.00 ± 2.83", ""),
        ("70.0 %", ""),
        ("47.00 ± 2.83", ""),
        ("85.5 %", ""),
        ("missing", "0 of 2 seeds"),
        ("\N{EN DASH}", ""),
    ]
    assert column(ours, "all")[-2:] == [("50.00", "1 of 2 seeds"), ("100.0 %", "")]
    assert [text for text, _ in column(paper, "1/8")] == ["69.5", "92.8 %", "71.3", "95.1 %"]
    gaps = column(line_table(sweep, "val"), "share of the label gap")
    assert gaps[:3] == [("", ""), ("28 %", "2 seeds"), ("\N{EN DASH}", "")]  # 5 / 18
    assert unfinished(sweep.cells) == [
        "AdvSemiSeg, 1/8, seed 0: failed (the term 'cons' is nan)",
        "AdvSemiSeg, 1/8, seed 1: unfinished (step 30 of 30)",
        "AdvSemiSeg, all, seed 0: unreadable (DONE cannot be read: Expecting value: line 1 column 12 (char 11))",
    ]


def test_the_paper_stands_beside_the_first_split_alone(make_sweep: Make) -> None:
    scores: dict[str, dict[Any, list[float | str]]] = {"proposed": {2: [0.4], 20: [0.5]}}
    sweep = read(make_sweep(scores, table=4, column_key="method.num_latent", splits=("val", "test")))
    effective = {"2": {"0.1": 2, "0.9": 1}}
    ours, paper = paper_form(sweep, "val", effective)
    assert [[entry.text for entry in row] for row in ours.rows] == [
        ["proposed", "40.00", "50.00"],
        ["effective, t = 0.1", "2", "\N{EN DASH}"],
        ["effective, t = 0.9", "1", "\N{EN DASH}"],
    ]
    assert [entry.text for entry in paper.rows[2]][1:] == ["2", "4", "6", "10", "14", "14"]
    assert len(paper_form(sweep, "test", effective)) == 1


def test_further_keys_of_the_grid_are_lines_of_their_own(make_sweep: Make) -> None:
    sweep = read(make_sweep({"proposed": {None: [0.4, 0.5]}}))
    for number, cell in enumerate(sweep.cells):
        cell.grid["optim.lr"] = number
    table = line_table(sweep, "val")
    assert [row[0].text for row in table.rows] == ["proposed · optim.lr 0", "proposed · optim.lr 1"]
    assert column(table, "mIoU in %") == [("40.00", ""), ("50.00", "")]


def test_differences_and_cost(make_sweep: Make) -> None:
    scores: dict[str, dict[Any, list[float | str]]] = {"a": {"1/8": [0.4, 0.4]}, "b": {"1/8": [0.5, "running"]}}
    sweep = read(make_sweep(scores, column_key="data.labeled", methods={"b": "latent"}))
    groups = {row: [cell for cell in sweep.cells if cell.row == row] for row in sweep.rows}
    differences = difference_table(groups)
    assert differences is not None
    assert [[entry.text for entry in row] for row in differences.rows] == [
        ["method.name", "supervised", "latent"],
        ["seed", "0, 1", "0, 1"],
    ]
    cost = cost_table(groups)
    assert cost is not None
    # 60 s from DONE; the cell that is not done has 3 lines of 2.5 s
    assert [[entry.text for entry in row] for row in cost.rows] == [
        ["a", "2", "60 s", "2000 ms", "2 min"],
        ["b", "2", "34 s", "2000 ms", "68 s"],
        ["together", "", "", "", "3 min"],
    ]
    assert difference_table({"a": groups["a"][:1]}) is None


@pytest.mark.parametrize(("seconds", "words"), [(119, "119 s"), (121, "2 min"), (7300, "2.0 h")])
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_columns_that_are_lists(make_sweep: Make, tmp_path: Path) -> None:
    root = make_sweep({"proposed": {"a": [0.4], "b": [0.5]}}, column_key="augment.crop")
    path = root / "sweeps" / "sweep.json"
    path.write_text(path.read_text().replace('"a"', "[32, 32]").replace('"b"', "[64, 64]"))
    page = write_report([root], tmp_path / "report.html").read_text()
    assert "[64, 64]" in page
    assert "50.00" in page


def test_many_cells_that_were_not_begun_are_counted(make_sweep: Make) -> None:
    sweep = read(make_sweep({"a": {None: ["open"] * 4}, "b": {None: ["open", "open", "open", "failed"]}}))
    assert unfinished(sweep.cells) == ["b, seed 3: failed (the term 'cons' is nan)", "not begun: 4 of a, 3 of b"]


def test_scores_over_fewer_classes_say_so(make_sweep: Make) -> None:
    root = make_sweep({"supervised": {None: [0.40, 0.42]}})
    done = next(iter(sorted(root.rglob("DONE"))))
    figures = json.loads(done.read_text())
    figures["scores"]["val"]["iou"] = [0.4, None, 0.4]
    done.write_text(json.dumps(figures))
    table = line_table(read(root), "val")
    assert column(table, "mIoU in %") == [("41.00 ± 1.41", "2 of 3 classes")]
    assert column(table, "seed: mIoU in %") == [("0: 40.00 over 2 of 3 classes; 1: 42.00", "")]


def test_single_runs_are_ranked_with_their_scores_beside_the_name() -> None:
    options = {"method.name": "latent", "data.labeled": 12, "seed": 0, "steps": 9}
    scored = {
        name: Record(Path(name), name, options=options, scores={"val": {"miou": miou, "step": 9}}, step=9)
        for name, miou in (("poor", 0.25), ("best", 0.5), ("fair", 0.4))
    }
    table = run_table({"bare": Record(Path("bare"), "bare"), **scored}, ["val"])
    assert table.header == ["run", "val: mIoU in %", "method", "labelled", "seed", "steps"]
    assert [[entry.text for entry in row][:3] for row in table.rows] == [
        ["best", "50.00", "latent"],
        ["fair", "40.00", "latent"],
        ["poor", "25.00", "latent"],
        ["bare", DASH, DASH],
    ]
