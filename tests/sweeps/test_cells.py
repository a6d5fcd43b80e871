"""Cells: the names of their folders, and how far they are."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from latentseg.presets import load_config
from latentseg.runs.locks import hold
from latentseg.sweeps.cells import Cell, Sweep, cell_lock, cell_state, folder_name, kind
from latentseg.sweeps.files import read_sweep


def name(*overrides: str) -> str:
    return folder_name(load_config("scenes", overrides))


def test_the_folder_depends_on_what_changes_the_result_alone() -> None:
    assert name("threads=3", "workers=2", "cache_folder=x", "log_every=7", "data.check=quick", "device=cpu") == name()
    assert name("method.num_latent=20", "optim.momentum=0.9") == name()  # the defaults
    assert len({name(), name("steps=7"), name("method.num_latent=19"), name("seed=1"), name("data.root=a")}) == 5
    assert name("data.labeled=1/30", "data.root=/x/My Photos", "seed=2").startswith("My-Photos-latent-1-30-s2-")
    assert name("data.labeled=/x/lists/few.txt").startswith("scenes-latent-few-s0-")


def test_the_folder_does_not_depend_on_where_the_data_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Machines may mount a data set at different places; its own name counts."""
    assert name("data.root=/mnt/a/CamVid") == name("data.root=/scratch/CamVid/") == name("data.root=CamVid")
    assert name("data.root=/mnt/a/CamVid") != name("data.root=/mnt/a/CamVid2")
    (tmp_path / "CamVid").mkdir()
    monkeypatch.chdir(tmp_path / "CamVid")
    assert name("data.root=.") == name("data.root=CamVid")


def test_folders_of_commit_0dad059_are_found_by_their_names(tmp_path: Path) -> None:
    """Its hash had the whole of data.root and unread options in it; long measurements were made under such names."""
    options = "{steps: 6000, validate_every: 1500, data.labeled: 1/64, data.check: quick, cache: features, "
    options += "augment.views: 4, augment.labeled_views: 64, method.grid: heads, data.root: /data/VOC2012}"
    rows = "{supervised: {method.name: supervised}, latent: {method.name: latent}}"
    (tmp_path / "long.yaml").write_text(f"base: animals\noptions: {options}\nrows: {rows}\n")
    supervised, latent = read_sweep(tmp_path / "long.yaml").cells
    assert supervised.earlier == "VOC2012-supervised-1-64-s0-2740b632"  # computed there
    assert latent.earlier == folder_name(latent.config, whole_root=True)


def test_a_folder_of_the_earlier_name_is_used_unless_there_is_one_of_the_new(
    tiny: Callable[..., Sweep], tmp_path: Path
) -> None:
    cell = tiny("data.root=/mnt/a/set").cells[0]
    assert cell.folder != cell.earlier

    def places() -> list[str]:
        return [cell.folder for cell in tiny("data.root=/mnt/a/set").at(tmp_path).cells]

    others = [cell.folder for cell in tiny("data.root=/mnt/a/set").cells[1:]]
    assert places() == [cell.folder, *others]
    (tmp_path / cell.earlier).mkdir()
    assert places() == [cell.earlier, *others]
    (tmp_path / cell.folder).mkdir()
    assert places() == [cell.folder, *others]


def test_the_kind_of_a_cell_is_what_its_steps_cost(tiny: Callable[..., Sweep]) -> None:
    def kinds(*overrides: str) -> set[str]:
        return {kind(cell.config) for cell in tiny(*overrides).cells}

    assert len(kinds()) == 2
    assert kinds() == kinds("steps=9", "data.labeled=3", "grid.seed=[4,5]")
    assert kinds().isdisjoint(kinds("data.labeled=all"))
    assert kinds().isdisjoint(kinds("batch_size=3"))


@pytest.fixture
def cell(tiny: Callable[..., Sweep]) -> Cell:
    return tiny("grid.seed=0").cells[0]


def test_the_state_of_a_cell(cell: Cell, tmp_path: Path) -> None:
    def text() -> str:
        return cell_state(cell, tmp_path, ("val",)).text(2)

    folder = tmp_path / cell.folder
    assert text() == "open"
    folder.mkdir()
    (folder / "config.yaml").touch()
    (folder / "metrics.jsonl").write_text('{"step": 1, "seconds": 1.5}\n{"step": 1, "val_miou": 0.1}\n')
    assert text() == "stopped at step 1 of 2"
    assert cell_state(cell, tmp_path, ("val",)).seconds == 1.5
    with hold(cell_lock(cell, tmp_path), "it"):
        assert text().startswith(f"running by pid {os.getpid()} on ")
    with hold(folder / "LOCK", "the run"):
        assert text().endswith(" at step 1 of 2")
    (folder / "FAILED").write_text("Traceback\nZeroDivisionError: by zero\n")
    assert text() == "failed at step 1 of 2: ZeroDivisionError: by zero"
    for content in (b"", b"\xff\n", b"\n\n"):  # a full disk, a damaged one
        (folder / "FAILED").write_bytes(content)
        assert text().startswith("failed at step 1 of 2: ")
    (folder / "DONE").write_text('{"seconds": 7, "scores": {"val": {}}}')
    assert text() == "done"
    assert cell_state(cell, tmp_path, ("val",)).seconds == 7
    assert cell_state(cell, tmp_path, ("val", "test")).kind == "failed"  # not scored on each split
