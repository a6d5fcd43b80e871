"""The work on cells: done once by any number of workers, whatever is found in the folders."""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from latentseg.config import Config
from latentseg.data.plain import write_scenes
from latentseg.errors import RunError, UserError
from latentseg.inference.evaluate import evaluate
from latentseg.presets import dump_config, load_config
from latentseg.runs.locks import hold
from latentseg.runs.metrics import read_metrics
from latentseg.sweeps import work as sweep_work
from latentseg.sweeps.cells import Sweep, cell_lock, cell_state, read_done
from latentseg.sweeps.run import run_sweep
from latentseg.sweeps.work import run_cell, work
from latentseg.training.loop import train

Calls = list[tuple[str, str]]


def test_a_cell_is_trained_scored_and_written(tiny: Callable[..., Sweep], tmp_path: Path) -> None:
    sweep = tiny("rows=[+ latent classes]", "grid.seed=0")
    folder = tmp_path / "root" / sweep.cells[0].folder
    assert cell_state(sweep.cells[0], tmp_path / "root", sweep.splits).kind == "open"
    assert run_sweep(sweep, tmp_path / "root") == tmp_path / "root" / "sweeps" / "tiny.json"
    done = json.loads((folder / "DONE").read_text())
    assert done.keys() == {"steps", "seconds", "scores", "finished", "host"}
    assert done["steps"] == 2
    assert done["seconds"] == pytest.approx(sum(row.get("seconds", 0) for row in read_metrics(folder)))
    assert done["seconds"] > 0
    for split in ("val", "test"):
        scores = json.loads(evaluate(folder, split).to_json())["scores"]
        assert done["scores"][split] == {name: scores[name] for name in ("miou", "iou", "pixel_accuracy")}
    assert sorted(path.name for path in folder.glob("evaluation-*")) == [
        "evaluation-test-last-2.json",  # the sweep's own is the first; val was scored by the training
        "evaluation-test-last.json",
        "evaluation-val-last.json",
    ]
    assert cell_state(sweep.cells[0], tmp_path / "root", sweep.splits).text(2) == "done"
    assert list((tmp_path / "root" / "locks").iterdir()) == []


def test_workers_share_the_cells(
    tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = tiny("grid.seed=[0,1,2,3]")
    evaluate = vars(sweep_work)["evaluate"]
    by: dict[str, int] = {}

    together = threading.Barrier(3, timeout=60)

    def slow(folder: Path, split: str, overrides: list[str]) -> object:
        if threading.get_ident() not in by.values():
            by[folder.name] = threading.get_ident()
            together.wait()  # each has a cell at the same time
        return evaluate(folder, split, overrides)

    monkeypatch.setattr(sweep_work, "evaluate", slow)
    workers = [threading.Thread(target=work, args=(sweep, tmp_path, lambda: None)) for _ in range(3)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    names = sorted(cell.folder for cell in sweep.cells)
    for what in ("train", "val", "test"):
        assert sorted(name for kind, name in fake if kind == what) == names
    assert len(set(by.values())) == 3


def test_a_cell_that_another_sweep_finished_is_not_run(tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls) -> None:
    run_sweep(tiny("grid.seed=1"), tmp_path)
    fake.clear()
    both = tiny()
    run_sweep(both, tmp_path)
    assert {name for _, name in fake} == {cell.folder for cell in both.cells if cell.grid["seed"] == 0}


def test_a_further_split_is_scored_without_training(tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls) -> None:
    cell = tiny("splits=val", "rows=supervised", "grid.seed=0").cells[0]
    run_sweep(tiny("splits=val", "rows=supervised", "grid.seed=0"), tmp_path)
    run_sweep(tiny("splits=test", "rows=supervised", "grid.seed=0"), tmp_path)
    assert [kind for kind, _ in fake] == ["train", "val", "test"]
    done = json.loads((tmp_path / cell.folder / "DONE").read_text())
    assert done["scores"].keys() == {"val", "test"}
    assert done["seconds"] == 3.5


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"steps": 2}'])
def test_a_damaged_done_file_does_not_count(
    tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls, damage: str
) -> None:
    sweep = tiny("rows=supervised", "grid.seed=0")
    run_sweep(sweep, tmp_path)
    (tmp_path / sweep.cells[0].folder / "DONE").write_text(damage)
    run_sweep(sweep, tmp_path)
    assert [kind for kind, _ in fake] == ["train", "val", "test", "val", "test"]
    assert read_done(tmp_path / sweep.cells[0].folder, sweep.splits) is not None


def test_an_evaluation_by_hand_is_not_taken_for_the_cells_score(
    tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls
) -> None:
    """It may have been made with other options, such as inference.mirror=true."""
    sweep = tiny("rows=supervised", "grid.seed=0", "splits=test")
    folder = tmp_path / sweep.cells[0].folder
    folder.mkdir()
    scores = {"miou": 0.9, "iou": [0.9, None], "pixel_accuracy": 0.9}
    (folder / "evaluation-test-last.json").write_text(json.dumps({"step": 2, "scores": scores}))
    run_cell(sweep, sweep.cells[0], tmp_path)
    assert json.loads((folder / "DONE").read_text())["scores"]["test"]["miou"] == 0.5


def test_a_run_without_its_last_checkpoint_fails(
    tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = tiny("rows=supervised", "grid.seed=0", "splits=test", "steps=3")
    run_cell(sweep, sweep.cells[0], tmp_path)  # what is scored is of step 2
    assert "has no checkpoint of step 3" in (tmp_path / sweep.cells[0].folder / "FAILED").read_text()


def test_a_failed_cell_is_named_and_tried_again(
    tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, train = tiny("rows=supervised"), vars(sweep_work)["train"]
    bad = tmp_path / sweep.cells[0].folder

    def failing(error: Exception) -> None:
        def fails(config: Config, folder: Path, resume: bool) -> None:
            if folder == bad:
                raise error
            train(config, folder, resume)

        monkeypatch.setattr(sweep_work, "train", fails)

    failing(UserError("no such data:\nset data.root"))
    with pytest.raises(UserError, match=rf"(?s)1 of 2 cells failed.*{bad.name}: no such data: set data.root"):
        run_sweep(sweep, tmp_path)
    assert (bad / "FAILED").read_text() == "no such data: set data.root\n"
    assert read_done(tmp_path / sweep.cells[1].folder, sweep.splits) is not None
    assert cell_state(sweep.cells[0], tmp_path, sweep.splits).text(2) == (
        "failed at step 0 of 2: no such data: set data.root"
    )
    failing(ZeroDivisionError("by zero"))
    with pytest.raises(UserError, match="ZeroDivisionError: by zero"):
        run_sweep(sweep, tmp_path)
    assert "Traceback" in (bad / "FAILED").read_text()
    monkeypatch.setattr(sweep_work, "train", train)
    run_sweep(sweep, tmp_path)
    assert not (bad / "FAILED").exists()
    assert [name for kind, name in fake if kind == "train"] == [sweep.cells[1].folder, bad.name]


def test_a_run_that_a_worker_left_in_its_first_moment_is_begun_again(
    tiny: Callable[..., Sweep], tmp_path: Path
) -> None:
    sweep = tiny("rows=supervised", "grid.seed=0", "splits=val")
    folder = tmp_path / sweep.cells[0].folder
    folder.mkdir()
    (folder / ".config.yaml.tmp").write_text("st")
    run_cell(sweep, sweep.cells[0], tmp_path)
    assert (folder / "DONE").exists()


def test_a_resumed_cell_keeps_its_threads(tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls) -> None:
    cell = tiny("rows=supervised", "grid.seed=0", "threads=2").cells[0]
    (tmp_path / cell.folder).mkdir()
    (tmp_path / cell.folder / "config.yaml").write_text(dump_config(cell.config))
    sweep = tiny("rows=supervised", "grid.seed=0", "threads=null")
    run_cell(sweep, sweep.cells[0], tmp_path)
    assert load_config(tmp_path / cell.folder / "config.yaml").threads == 2


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_held_cell_is_waited_for(tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls, by_hand: bool) -> None:
    """By another worker, or by somebody who trains in the folder."""
    sweep = tiny("rows=supervised")
    cell = sweep.cells[0]
    with hold(tmp_path / cell.folder / "LOCK" if by_hand else cell_lock(cell, tmp_path), "it"):
        done = threading.Thread(target=run_sweep, args=(sweep, tmp_path))
        done.start()
        while read_done(tmp_path / sweep.cells[1].folder, sweep.splits) is None:
            time.sleep(0.01)
        time.sleep(0.1)
        assert [name for kind, name in fake if kind == "train"] == [sweep.cells[1].folder]
        assert done.is_alive()
    done.join()
    assert [name for kind, name in fake if kind == "train"] == [sweep.cells[1].folder, cell.folder]


def test_the_lock_of_a_dead_machine_is_taken_over(tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls) -> None:
    sweep = tiny("rows=supervised", "grid.seed=0")
    path = cell_lock(sweep.cells[0], tmp_path)
    path.parent.mkdir()
    path.write_text(json.dumps({"host": "far", "pid": 1, "space": "x", "born": "1", "token": "t", "started": ""}))
    assert cell_state(sweep.cells[0], tmp_path, sweep.splits).text(2) == "running by pid 1 on far at step 0 of 2"
    os.utime(path, (1, 1))
    run_sweep(sweep, tmp_path)
    assert list(path.parent.iterdir()) == []
    assert ("train", sweep.cells[0].folder) in fake


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.kind=folder", "needs data.root"),
        ("devices=2", "worker is one process"),
        ("data.labeled=99", "99 labelled"),
        ("splits=[holdout]", "no split holdout"),
        ("model.weights_kind=coco", r"model\.weights_kind=coco does not fit"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_begun(
    tiny: Callable[..., Sweep], tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run_sweep(tiny(override), tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_a_run_that_was_begun_goes_on_as_it_was(tiny: Callable[..., Sweep], tmp_path: Path) -> None:
    """Begun by an earlier version, with an option in its configuration that its method does not read, and log_every."""
    sweep = tiny("rows=supervised", "grid.seed=0", "splits=val", "log_every=2")
    cell = sweep.cells[0]
    folder = tmp_path / cell.folder
    begun = load_config("scenes", [*cell.options, "method.num_latent=7", "log_every=1"], keep_unread=True)
    train(begun, folder)
    for path in (folder / "checkpoints").glob("step_*"):  # stopped before its first checkpoint
        path.unlink()
    run_cell(sweep, cell, tmp_path)
    assert read_done(folder, ("val",)) is not None
    assert load_config(folder / "config.yaml", of_run=True) == begun
    assert [row["step"] for row in read_metrics(folder) if "ce" in row] == [2]  # ours, which changes no result


def test_groups_that_do_not_fit_are_refused_too(sweep_of: Callable[..., Sweep], tmp_path: Path) -> None:
    sweep = sweep_of("base: scenes\nrows: {a: {method.name: given_classes, method.groups: {a: [road], b: [car]}}}\n")
    with pytest.raises(UserError, match=r"method\.groups does not fit"):
        run_sweep(sweep, tmp_path / "root")
    assert not (tmp_path / "root").exists()


# the data, wherever it lies


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """A data set of files: /tmp/.../a/set."""
    options = ["data.scenes.train=8", "data.scenes.val=1", "data.scenes.test=1", "data.scenes.height=64"]
    write_scenes(load_config("scenes", [*options, "data.scenes.width=64"]).data, tmp_path / "a" / "set")
    return tmp_path / "a" / "set"


def test_a_data_set_that_lies_elsewhere_has_the_same_cells(
    tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls, scenes: Path
) -> None:
    def sweep(root: Path, split: str) -> Sweep:
        options = ["data.kind=folder", f"data.root={root}", "rows=supervised", "grid.seed=0", f"splits={split}"]
        return tiny(*options)

    root = tmp_path / "root"
    run_sweep(sweep(scenes, "val"), root)
    moved = shutil.copytree(scenes, tmp_path / "b" / "set")
    shutil.rmtree(scenes)
    run_sweep(sweep(moved, "val"), root)
    assert [call for call, _ in fake] == ["train", "val"]
    run_sweep(sweep(moved, "test"), root)  # the run folder names the place where it was trained
    assert [call for call, _ in fake] == ["train", "val", f"test data.root={moved}"]


def test_another_data_set_of_the_same_name_is_refused(
    tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls, scenes: Path
) -> None:
    root, other = tmp_path / "root", shutil.copytree(scenes, tmp_path / "b" / "set")
    options = ("data.kind=folder", "rows=supervised", "grid.seed=0")
    run_sweep(tiny(*options, f"data.root={scenes}"), root)
    image = other / "images" / "val" / "0.png"
    image.write_bytes(image.read_bytes() + b"x")
    with pytest.raises(UserError, match=r"(?s)/b/set has other images or masks .* than .*/a/set, .*--run-root"):
        run_sweep(tiny(*options, f"data.root={other}"), root)
    run_sweep(tiny(*options, f"data.root={other}"), tmp_path / "other")
    assert [call for call, _ in fake if call == "train"] == ["train"] * 2
    (note,) = (root / "data").iterdir()
    for damage in ("", "[" * 100_000, "{}"):
        note.write_text(damage)
        with pytest.raises(RunError, match=r"is damaged .*: delete it, it is made anew"):
            run_sweep(tiny(*options, f"data.root={scenes}"), root)
