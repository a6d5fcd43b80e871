import base64
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from latentseg.report import curves
from latentseg.report.collect import read_run


@pytest.mark.parametrize(
    ("column", "share"),
    [
        ("1/8", 0.125),
        (0.25, 0.25),
        ("all", 1.0),
        (12, None),
        ("list.txt", None),
        ("1/0", None),
        ("1/1", 1.0),
        (1, None),
    ],
)
def test_labeled_share(column: object, share: float | None) -> None:
    assert curves.labeled_share(column) == share


def test_smoothing_keeps_a_line_and_its_ends() -> None:
    points = np.stack([np.arange(60.0), np.full(60, 3.0)], 1)
    assert np.allclose(curves._smooth(points), points)
    spike = points.copy()
    spike[30, 1] = 8.0
    smooth = curves._smooth(spike)  # ceil(60 / 15) // 2 = 2: windows of 5
    assert smooth[:, 1].max() == pytest.approx(4.0)
    assert np.flatnonzero(smooth[:, 1] > 3.5).tolist() == [28, 29, 30, 31, 32]
    short = points[:4]
    assert np.array_equal(curves._smooth(short), short)


def test_one_panel_per_term(make_run: Callable[..., Path]) -> None:
    runs = [make_run("a"), make_run("b", seed=1)]
    rows = [{"step": s, "ce": 1.0, "cons": 2.0, "val_miou": 0.5, "val_iou": [1.0], "seconds": 1.0} for s in (1, 2, 3)]
    (runs[1] / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    charts = curves.learning_charts({"x": [read_run(run) for run in runs], "nothing": []})
    assert [chart.title for chart in charts] == ["ce", "cons", "val_miou"]
    svg = base64.b64decode(charts[0].uri.partition(",")[2]).decode()
    assert svg.startswith("<?xml")
    assert "<text" not in svg, "letters are outlines: no font is needed"


def test_a_run_with_one_validation_has_a_marker(make_run: Callable[..., Path]) -> None:
    runs = [make_run("a"), make_run("b", seed=1)]
    for run, miou in zip(runs, (0.25, 0.5), strict=True):
        with (run / "metrics.jsonl").open("a") as log:
            log.write(json.dumps({"step": 30, "val_miou": miou}) + "\n")
    charts = curves.learning_charts({"one": [read_run(runs[0])], "both": [read_run(run) for run in runs]})
    assert [chart.title for chart in charts] == ["ce", "val_miou"]


def test_single_points_are_markers_and_lines_are_not() -> None:
    def drawn(*runs: list[tuple[float, float]]) -> list[tuple[list[tuple[float, float]], str]]:
        axes = Figure().subplots()
        curves.draw_runs(axes, [np.array(points, float) for points in runs], "red")
        lines = [line for line in axes.lines if isinstance(line, Line2D)]
        return [([(x, y) for x, y in np.asarray(line.get_xydata())], str(line.get_marker())) for line in lines]

    assert drawn([(30, 0.25)]) == [([(30, 0.25)], "o")]
    assert drawn([(30, 0.25)], [(30, 0.75)]) == [([(30, 0.5)], "o")], "the mean of two seeds"
    assert drawn([(10, 1), (20, 2)]) == [([(10, 1), (20, 2)], "None")]
    # one step in common is no curve: each by itself, none is lost
    assert drawn([(10, 1), (20, 2)], [(20, 3)]) == [([(10, 1), (20, 2)], "None"), ([(20, 3)], "o")]


def test_runs_with_other_steps_are_drawn_one_by_one(make_run: Callable[..., Path]) -> None:
    runs = [make_run("a"), make_run("b")]
    rows = [{"step": s, "ce": 1.0} for s in (11, 21)]
    (runs[1] / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(curves.learning_charts({"x": [read_run(run) for run in runs]})) == 1
