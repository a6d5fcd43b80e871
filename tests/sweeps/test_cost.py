"""The dry run: cells, their states, and what is left to pay."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from latentseg import cli
from latentseg.data import caching
from latentseg.sweeps import cost as sweep_cost
from latentseg.sweeps.cells import Cell, Sweep
from latentseg.sweeps.cost import Cost, dry_run, measure
from latentseg.sweeps.files import read_sweep
from latentseg.sweeps.work import run_cell
from latentseg.training import costs

CACHED = ("cache=features", "augment.views=2", "model.frozen=true", "grid.seed=0")


def shown(sweep: Sweep, run_root: Path) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(dry_run(sweep, run_root, 2))
    return console.export_text()


def test_a_dry_run_lists_the_cells_times_a_few_steps_and_leaves_nothing(
    tiny: Callable[..., Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "STEPS", 1)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    sweep, root = tiny("steps=20", "threads=null"), tmp_path / "root"
    text = shown(sweep, root)
    assert not root.exists()
    assert list(temporary.iterdir()) == []
    assert all(cell.folder in text for cell in sweep.cells)
    assert text.count("open") == 4
    assert "with 2 workers" in text


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """Numbers of images whose features are computed; the user's cache is the folder `cache`."""
    found: list[int] = []
    fill = caching._fill

    def spy(store: object, items: list[object], *others: object) -> None:
        found.append(len(items))
        fill(store, items, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(caching, "_fill", spy)
    monkeypatch.setattr(costs, "STEPS", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return found


def test_a_dry_run_computes_a_few_features_once_for_all_kinds_of_cells(
    tiny: Callable[..., Sweep], tmp_path: Path, encoded: list[int]
) -> None:
    sweep, folder = tiny(*CACHED), tmp_path / "few"
    first, second = (measure(cell, sweep, 1, folder) for cell in sweep.cells)
    assert encoded == [2, 2]  # a batch of labelled images, then one of unlabelled ones
    assert min(first.features, first.step, first.scoring) > 0
    assert (first.views, second.views) == (8, 16)
    measure(tiny(*CACHED, "method.num_latent=7").cells[1], sweep, 1, folder)
    assert encoded == [2, 2]
    assert not (tmp_path / "cache").exists()


def test_a_dry_run_takes_features_from_the_cache(
    tiny: Callable[..., Sweep], tmp_path: Path, encoded: list[int]
) -> None:
    sweep = tiny(*CACHED, "rows=[supervised]", "splits=[val]")
    run_cell(sweep, sweep.cells[0], tmp_path / "root")
    assert encoded == [4]
    cost = measure(sweep.cells[0], sweep, 1, tmp_path / "few")
    assert encoded == [4]
    assert (cost.features, cost.views) == (0, 0)
    assert not (tmp_path / "few").exists()
    assert "features" not in shown(tiny(*CACHED, "rows=[supervised]", "steps=3"), tmp_path / "root")
    assert "for the features of all images" in shown(tiny(*CACHED), tmp_path / "root")  # a row reads unlabelled ones


def test_a_dry_run_counts_what_is_left(
    tiny: Callable[..., Sweep], tmp_path: Path, fake: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = tiny("steps=100")
    measured: list[Cell] = []

    def measured_cost(cell: Cell, sweep: Sweep, threads: int, folder: Path) -> Cost:
        measured.append(cell)
        return Cost(step=1.0, scoring=10.0, features=1.0, views=60 if cell.row == "supervised" else 0)

    monkeypatch.setattr(sweep_cost, "measure", measured_cost)
    (tmp_path / sweep.cells[0].folder).mkdir()
    (tmp_path / sweep.cells[0].folder / "metrics.jsonl").write_text('{"step": 50}\n')
    text = shown(sweep, tmp_path)
    assert [cell.row for cell in measured] == ["supervised", "+ latent classes"]  # seeds cost the same
    assert "together 3 min with 2 workers, and once 60 s for the features" in text  # (60 + 3 * 110) / 2 seconds
    sweep = tiny("rows=supervised")
    for cell in sweep.cells:
        run_cell(sweep, cell, tmp_path)
    assert "nothing is left to do" in shown(sweep, tmp_path)


def test_a_dry_run_without_data_still_lists_the_cells(tmp_path: Path) -> None:
    text = shown(read_sweep("table3_voc"), tmp_path)
    assert "the cost cannot be told: " in text
    assert text.count("open") == 15


def test_piped_output_cuts_no_names(tiny: Callable[..., Sweep], tmp_path: Path, fake: list[tuple[str, str]]) -> None:
    sweep = tiny("rows=supervised")
    for cell in sweep.cells:
        run_cell(sweep, cell, tmp_path)
    options = ["rows=supervised", "--run-root", str(tmp_path), "--dry-run"]
    result = CliRunner().invoke(cli.app, ["sweep", str(tmp_path / "tiny.yaml"), *options], env={"COLUMNS": "40"})
    assert result.exit_code == 0
    for cell in sweep.cells:
        assert re.search(rf"supervised +│ {cell.grid['seed']} +│ done +│ {cell.folder} ", result.stdout)
