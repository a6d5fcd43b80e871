"""A study: what it keeps of a cell, what it skips, how it goes on; no cell is trained."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import study

from latentseg.errors import UserError
from latentseg.presets import dump_config
from latentseg.sweeps.cells import Cell, Sweep
from latentseg.sweeps.files import read_sweep

SWEEP = """# Three rows
base: scenes
options: {steps: 20, data.check: quick}
rows:
  supervised: {method.name: supervised}
  "ours, with L = 5": {method.num_latent: 5}
  all labels: {method.name: supervised, data.labeled: all}
grid: {seed: [0, 1]}
splits: [val]
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "three.yaml"
    path.write_text(SWEEP)
    return path


def finish(cell: Cell, run_root: Path, name: str | None = None) -> Path:
    """What a finished run of a cell leaves."""
    folder = run_root / (name or cell.folder)
    folder.mkdir(parents=True)
    score = 0.3 + 0.1 * cell.config.seed
    scores = {"val": {"miou": score, "iou": [score, 0.5], "pixel_accuracy": 0.9}}
    (folder / "config.yaml").write_text(dump_config(cell.config))
    (folder / "DONE").write_text(json.dumps({"steps": cell.config.steps, "seconds": 7.04, "scores": scores}))
    return folder


class Runs:
    """In place of `run_sweep`: finishes cells, and stops after a number of them."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, int]] = []
        self.left = 99
        self.fails: str | None = None

    def __call__(self, sweep: Sweep, run_root: Path, workers: int) -> None:
        assert workers == 2
        for cell in sweep.cells:
            if (run_root / cell.folder / "DONE").exists():
                continue
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            if cell.row != self.fails:
                self.ran.append((cell.row, cell.config.seed))
                finish(cell, run_root)
        if self.fails:
            raise UserError(f"{self.fails} failed")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    found = Runs()
    monkeypatch.setattr(study, "run_sweep", found)
    return found


@pytest.fixture
def go(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """The command; gives the JSON file."""

    def command(*more: str, status: int = 0) -> dict[str, Any]:
        out = tmp_path / "three.json"
        monkeypatch.setattr(
            sys, "argv", ["study.py", str(source), "--run-root", str(tmp_path / "runs"), "--out", str(out), *more]
        )
        with pytest.raises(SystemExit) as ended:
            study.main()
        assert ended.value.code == status
        return dict(json.loads(out.read_text()))

    return command


def test_seeds_are_the_outer_loop_and_each_cell_is_kept(runs: Runs, go: Callable[..., dict[str, Any]]) -> None:
    cells = go("--workers", "2")
    rows = ["supervised", "ours, with L = 5", "all labels"]
    assert runs.ran == [(row, seed) for seed in (0, 1) for row in rows]
    assert cells["ours, with L = 5 | 1"] == {
        "options": ["steps=20", "method.num_latent=5", "seed=1"],
        "steps": 20,
        "seconds": 7.0,
        "val": 0.4,
        "val_iou": [0.4, 0.5],
    }


def test_a_stopped_study_leaves_its_cells_and_goes_on(
    runs: Runs, go: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    runs.left = 2
    with pytest.raises(KeyboardInterrupt):
        go("--workers", "2")
    assert list(json.loads((tmp_path / "three.json").read_text())) == ["ours, with L = 5 | 0", "supervised | 0"]
    runs.left = 99
    assert len(go("--workers", "2")) == 6
    assert len(runs.ran) == 6


def test_cells_in_the_file_are_not_run_again(
    runs: Runs, go: Callable[..., dict[str, Any]], source: Path, tmp_path: Path
) -> None:
    go("--workers", "2", "grid.seed=[0]")
    runs.ran.clear()
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    source.write_text(SWEEP.replace("  all labels", "  new: {method.num_latent: 9}\n  all labels"))
    go("--workers", "2")
    assert runs.ran == [("new", 0), ("supervised", 1), ("ours, with L = 5", 1), ("new", 1), ("all labels", 1)]


def test_a_failed_cell_leaves_the_other_seeds_alone(
    runs: Runs, go: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    runs.fails = "supervised"
    cells = go("--workers", "2", status=1)
    assert [key for key in cells if key.startswith("all labels")] == ["all labels | 0", "all labels | 1"]
    assert "supervised failed" in capsys.readouterr().err


def test_show_runs_nothing_and_finds_runs_by_their_options(
    runs: Runs, go: Callable[..., dict[str, Any]], source: Path, tmp_path: Path
) -> None:
    sweep = read_sweep(source, ["data.check=full", "threads=3"])
    finish(sweep.cells[2], tmp_path / "runs", "any-name")
    renamed = finish(sweep.cells[4], tmp_path / "runs", "of-another-version") / "config.yaml"
    assert "validate_split: val\n" in renamed.read_text()  # a default, which another version calls
    renamed.write_text(renamed.read_text().replace("validate_split:", "scored_split:"))
    (tmp_path / "runs" / "unfinished").mkdir()
    assert list(go("--show")) == ["all labels | 0", "ours, with L = 5 | 0"]
    assert runs.ran == []


def test_a_run_that_does_not_know_an_option_of_the_cell_is_another_run(source: Path, tmp_path: Path) -> None:
    cell = read_sweep(source).cells[2]
    config = finish(cell, tmp_path) / "config.yaml"
    assert study.run_of(cell, tmp_path) is not None
    config.write_text(config.read_text().replace("num_latent: 5", "num_hidden: 5"))
    study.run_options.cache_clear()
    assert study.run_of(cell, tmp_path) is None


def test_a_cell_with_other_options_is_not_taken_for_this_one(runs: Runs, go: Callable[..., dict[str, Any]]) -> None:
    go("--workers", "2")
    del runs.ran[:]
    with pytest.raises(AssertionError, match="--out"):
        go("--workers", "2", "steps=30")
    assert runs.ran == []


def test_curve_has_what_was_logged_at_the_validations() -> None:
    rows: list[dict[str, Any]] = [
        {"step": 5, "ce": 3.0, "seconds": 1.0},
        {"step": 10, "ce": 2.0, "seconds": 1.0, "match": 0.123456789},
        {"step": 10, "val_miou": 0.25, "val_iou": [0.2, 0.3]},
        {"step": 20, "ce": 1.0, "seconds": 1.0},
        {"step": 20, "val_miou": 0.5, "val_iou": [0.4, 0.6]},
    ]
    assert study.curve(rows, "val_miou") == {
        "step": [10, 20],
        "ce": [2.0, 1.0],
        "match": [0.12346, None],
        "val_miou": [0.25, 0.5],
    }


def test_an_analysis_that_came_later_is_added(go: Callable[..., dict[str, Any]], source: Path, tmp_path: Path) -> None:
    cell = read_sweep(source).cells[2]
    folder = finish(cell, tmp_path / "runs")
    assert "latent" not in go("--show")["ours, with L = 5 | 0"]
    (folder / "analysis").mkdir()
    found: dict[str, Any] = {"step": 10, "run": "x", "figures": {"latent_miou": 0.5}, "effective_m": {"0.1": 4}}
    (folder / "analysis" / "analysis.json").write_text(json.dumps(found))
    assert "latent" not in go("--show")["ours, with L = 5 | 0"]
    (folder / "analysis" / "analysis.json").write_text(json.dumps(found | {"step": 20}))
    assert go("--show")["ours, with L = 5 | 0"]["latent"] == {"latent_miou": 0.5, "effective_m": {"0.1": 4}}


def test_columns_and_further_keys_are_part_of_the_name(source: Path) -> None:
    source.write_text(SWEEP.replace("grid:", "columns: {augment.views: [4, 16]}\ngrid:"))
    sweep = read_sweep(source, ["grid.seed=[3]", "rows=[supervised]"])
    assert [study.key_of(cell, sweep) for cell in sweep.cells] == [
        "supervised, augment.views=4 | 3",
        "supervised, augment.views=16 | 3",
    ]
    left = study.missing(sweep, {"supervised, augment.views=4 | 3": {}})
    assert left is not None
    assert [cell.column for cell in left.cells] == [16]
