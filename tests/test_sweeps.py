"""Sweeps: what a file says, the folders as the truth, and workers that die at any time."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from latentseg import costs, training
from latentseg.config import Config
from latentseg.errors import UserError
from latentseg.inference.evaluate import evaluate
from latentseg.locks import hold, live_owner
from latentseg.presets import dump_config, load_config
from latentseg.runs import read_metrics
from latentseg.sweeps import cost as sweep_cost
from latentseg.sweeps import files as sweep_files
from latentseg.sweeps import run as sweeps
from latentseg.sweeps import work as sweep_work
from latentseg.sweeps.cells import Cell, Sweep, cell_lock, cell_state, folder_name, read_done, write_sweep
from latentseg.sweeps.cost import dry_run
from latentseg.sweeps.files import option_text, read_sweep, sweep_names, sweep_summaries
from latentseg.sweeps.queue import Queue
from latentseg.sweeps.run import run_sweep
from latentseg.sweeps.work import run_cell, work

optuna = pytest.importorskip("optuna")

TINY = """# Two methods on tiny scenes
base: scenes
table: 3
options:
  {steps: 2, batch_size: 2, threads: 1, device: cpu, log_every: 1, checkpoint_every: 1, cache: none, data.labeled: 4,
   data.scenes.train: 8, data.scenes.val: 1, data.scenes.test: 1, data.scenes.height: 64, data.scenes.width: 64,
   augment.crop: [32, 32], model.weights_kind: none, model.frozen: false, model.head_channels: 16,
   discriminator.downscale: 1, discriminator.width: 8, method.lambda_latent: 1}
rows:
  supervised: {method.name: supervised}
  + latent classes: {method.num_latent: 5}
grid: {seed: [0, 1]}
splits: [val, test]
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., Sweep]:
    """The sweep above, with overrides."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return lambda *overrides: read_sweep(path, overrides)


def sweep_of(tmp_path: Path, text: str, *overrides: str) -> Sweep:
    (tmp_path / "my.yaml").write_text(text)
    return read_sweep(tmp_path / "my.yaml", overrides)


Calls = list[tuple[str, str]]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Training and scoring that only leave files; returns what was called, with the folder's name."""
    calls: Calls = []

    def train(config: Config, folder: Path, resume: bool) -> None:
        assert resume
        calls.append(("train", folder.name))
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.yaml").write_text(dump_config(config))
        index = {"steps": [{"file": "last", "step": config.steps, "sha256": ""}], "best": None}
        (folder / "checkpoints" / "index.json").write_text(json.dumps(index))
        rows = [{"step": 1, "ce": 3.0, "seconds": 1.5}, {"step": 2, "seconds": 2.0}, {"step": 2, "val_miou": 0.1}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def evaluate(folder: Path, split: str) -> None:
        calls.append((split, folder.name))
        scores = {"miou": 0.5, "iou": [0.5, None], "pixel_accuracy": 0.75, "absent": 1}
        (folder / f"evaluation-{split}-last.json").write_text(json.dumps({"step": 2, "scores": scores}))

    monkeypatch.setattr(sweep_work, "train", train)
    monkeypatch.setattr(sweep_work, "evaluate", evaluate)
    monkeypatch.setattr(sweep_work, "POLL", 0.02)
    monkeypatch.setattr(sweeps, "POLL", 0.02)
    return calls


def trials(run_root: Path, sweep: Sweep) -> list[Any]:
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(run_root / "optuna.journal"))
    )
    return list(optuna.load_study(study_name=f"{sweep.name}-{sweep.digest}", storage=storage).trials)


# what a file says


def test_cells_are_the_product_of_rows_columns_and_grid(tmp_path: Path) -> None:
    text = "# Why\nbase: scenes\nrows: {a: {steps: 7}, b: }\ncolumns: {method.num_latent: [2, 4]}\n"
    sweep = sweep_of(tmp_path, text + "grid: {seed: [0, 1], data.labeled: [1/8, 12]}\noptions: {steps: 5}\n")
    assert (sweep.name, sweep.summary, sweep.table, sweep.splits) == ("my", "Why", None, ("val",))
    assert len(sweep.cells) == 16
    last = sweep.cells[-1]
    assert (last.row, last.column, last.grid) == ("b", 4, {"seed": 1, "data.labeled": 12})
    assert last.options == ("steps=5", "method.num_latent=4", "seed=1", "data.labeled=12")
    assert (last.config.steps, last.config.method.num_latent, last.config.data.labeled) == (5, 4, 12)
    assert {cell.config.steps for cell in sweep.cells if cell.row == "a"} == {7}
    assert len({cell.folder for cell in sweep.cells}) == 16


def test_without_rows_there_is_one(tmp_path: Path) -> None:
    assert [cell.row for cell in sweep_of(tmp_path, "base: scenes\n").cells] == ["proposed"]


def test_a_base_beside_the_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("steps: 3\ndata: {kind: scenes}\n")
    assert sweep_of(tmp_path, "base: mine.yaml\n").cells[0].config.steps == 3


@pytest.mark.parametrize("value", ["1/8", "all", "+ x", "1e-3", "3", "true", "null", "a: b", 3, 0.5, None, [1, "2"]])
def test_an_option_is_read_as_it_was_written(value: Any) -> None:
    assert sweep_files._parse_value(option_text("key", value).partition("=")[2]) == value


def test_options_as_a_person_writes_them() -> None:
    assert option_text("data.labeled", "1/30") == "data.labeled=1/30"
    assert option_text("augment.crop", [32, 32]) == "augment.crop=[32, 32]"


def test_overrides_apply_to_all_cells_but_a_rows_own_option_stays(tmp_path: Path) -> None:
    text = "base: scenes\noptions: {steps: 5}\nrows: {few: {}, all labels: {data.labeled: all}}\n"
    sweep = sweep_of(tmp_path, text, "steps=9", "data.labeled=1/30", "data.root=/a b")
    assert [cell.config.data.labeled for cell in sweep.cells] == ["1/30", "all"]
    assert {(cell.config.steps, cell.config.data.root) for cell in sweep.cells} == {(9, "/a b")}


def test_overrides_pick_rows_and_replace_lists(tiny: Callable[..., Sweep]) -> None:
    sweep = tiny("rows=[+ latent classes]", "grid.seed=[3,4,5]", "columns.method.num_latent=[2,3]", "splits=val")
    assert {cell.row for cell in sweep.cells} == {"+ latent classes"}
    assert [cell.grid["seed"] for cell in sweep.cells] == [3, 4, 5, 3, 4, 5]
    assert (sweep.column_key, sweep.columns, sweep.splits) == ("method.num_latent", (2, 3), ("val",))
    assert len(tiny("grid.seed=7", "rows=supervised").cells) == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rows=[superwised]", "no row 'superwised'; there are 'supervised', '. latent classes'"),
        ("seed=3", r"the sweep varies seed; choose its values by grid.seed=\[...\]"),
        ("steps", "not of the form key=value"),
        ("stepz=3", "row 'supervised': unknown option stepz; did you mean steps"),
        ("grid.sed=[3]", "unknown option sed; did you mean seed"),
        ("grid.seed=[]", "seed has no values"),
        ("splits=[vall]", "splits must be a list out of val, test"),
        ("grid.seed=[0,0]", "two cells are the same run: 'supervised' .* and 'supervised'"),
        ("data={kind: scenes}", "data is a section"),
        ("steps=[", "cannot be read"),
    ],
)
def test_overrides_that_make_no_sense_are_refused(tiny: Callable[..., Sweep], override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny(override)


def test_an_override_without_effect_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"every row of the sweep sets method.name itself"):
        sweep_of(tmp_path, "base: scenes\nrows: {a: {method.name: supervised}}\n", "method.name=latent")
    with pytest.raises(UserError, match=r"the columns of this sweep are method.num_latent"):
        sweep_of(tmp_path, "base: scenes\ncolumns: {method.num_latent: [2]}\n", "columns.seed=[1]")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows: {}", "a sweep needs `base"),
        ("[1]", "a sweep needs `base"),
        ("base: scenes\nrow: {}", "unknown key row; a sweep has base"),
        ("base: scenes\nrows: [a]", "rows must be"),
        ("base: scenes\nrows: {a: 3}", "rows must be"),
        ("base: scenes\noptions: 3", "options must be"),
        ("base: scenes\ncolumns: {seed: [1], steps: [2]}", "columns takes one key, found seed, steps"),
        ("base: scenez", "did you mean the preset scenes"),
        ("base: {", "not valid YAML"),
        ("base: scenes\nrows: {a: {}, b: {}}", "two cells are the same run"),
    ],
)
def test_files_that_are_not_understood(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sweep_of(tmp_path, text)


def test_an_unknown_sweep_names_the_shipped_ones() -> None:
    with pytest.raises(UserError, match=r"neither a YAML file nor a sweep that comes along: .*table3_voc"):
        read_sweep("table9_voc")


def test_the_folder_depends_on_what_changes_the_result_alone() -> None:
    def name(*overrides: str) -> str:
        return folder_name(load_config("scenes", overrides))

    assert name("threads=3", "workers=2", "cache_folder=x", "log_every=7", "data.check=quick", "device=cpu") == name()
    assert name("method.num_latent=20", "optim.momentum=0.9") == name()  # the defaults
    assert len({name(), name("steps=7"), name("method.num_latent=19"), name("seed=1"), name("data.root=a")}) == 5
    assert name("data.labeled=1/30", "data.root=/x/My Photos", "seed=2").startswith("My-Photos-latent-1-30-s2-")
    assert name("data.labeled=/x/lists/few.txt").startswith("scenes-latent-few-s0-")


def test_the_description_tells_the_report_everything(tiny: Callable[..., Sweep], tmp_path: Path) -> None:
    sweep = tiny()
    path = write_sweep(sweep, tmp_path / "root")
    assert path == tmp_path / "root" / "sweeps" / "tiny.json"
    content = json.loads(path.read_text())
    head = {"name": "tiny", "summary": "Two methods on tiny scenes", "table": 3, "base": "scenes", "columns": []}
    head |= {"column_key": None, "rows": ["supervised", "+ latent classes"], "grid": {"seed": [0, 1]}}
    assert {key: content[key] for key in head} == head
    assert content["splits"] == ["val", "test"]
    assert content["options"]["steps"] == 2
    assert len(content["cells"]) == 4
    cell = content["cells"][3]
    assert cell.keys() == {"row", "column", "grid", "options", "folder"}
    assert (cell["row"], cell["column"], cell["grid"], cell["folder"]) == (
        "+ latent classes",
        None,
        {"seed": 1},
        sweep.cells[3].folder,
    )
    assert folder_name(load_config(content["base"], cell["options"])) == cell["folder"]


# shipped sweeps

PAPER = {"table1_voc": 40, "table2_cityscapes": 40, "table3_voc": 15, "table4_voc": 30, "table5_voc": 25}
LAPTOP = {"table1_animals": 45, "table2_camvid": 45}
LAPTOP |= {f"table{t}_{data}": n for t, n in ((3, 12), (4, 6), (5, 18)) for data in ("animals", "camvid")}


def test_every_shipped_sweep_is_known() -> None:
    assert set(sweep_names()) == PAPER.keys() | LAPTOP.keys() | {"match_camvid", "match_animals"}
    assert all(sweep_summaries().values())


@pytest.mark.parametrize("name", ["match_camvid", "match_animals"])
def test_the_sweeps_of_all_methods_differ_in_the_method_alone(name: str) -> None:
    sweep = read_sweep(name)
    rows = {cell.row: cell.config for cell in sweep.cells if cell.grid["seed"] == 3}
    assert {config.method.name for config in rows.values()} == {
        *("supervised", "latent", "advsemiseg", "mean_teacher", "fixmatch", "unimatch", "cps", "latent_match")
    }
    plain = rows["latent_match"]
    for row, config in rows.items():
        same = plain.model_dump(exclude={"method", "steps", "data", "augment"})
        assert config.model_dump(exclude={"method", "steps", "data", "augment"}) == same
        assert (config.steps == plain.steps) == (not row.endswith(", equal time") and row != "all labels")
        assert (config.data == plain.data and config.augment == plain.augment) == (row != "all labels")
    assert plain.method.lambda_match == rows["fixmatch"].method.lambda_match == rows["mean_teacher"].method.lambda_match
    assert sweep.grid == {"seed": [0, 1, 2, 3, 4]}


@pytest.mark.parametrize(("name", "cells"), [*PAPER.items(), *LAPTOP.items()])
def test_shipped_sweeps_resolve_without_data(name: str, cells: int) -> None:
    sweep = read_sweep(name)
    assert len(sweep.cells) == cells
    assert sweep.summary.startswith(f"Table {sweep.table}")
    assert name.startswith(f"table{sweep.table}_")
    paper = name in PAPER
    seeds = 1 if sweep.table == 4 and not paper else 5 if paper else 3
    assert sweep.grid == {"seed": list(range(seeds))}
    if sweep.table in (1, 2):
        assert sweep.column_key == "data.labeled"
        assert [row for row in sweep.rows if row != "supervised"] == ["AdvSemiSeg", "proposed"]
    adversarial = {cell.row for cell in sweep.cells if cell.config.method.adversarial}
    assert adversarial == set(sweep.rows) - {"supervised", "all labels", "+ latent classes"}
    assert all(cell.config.method.lambda_lbl_adv == 0.01 for cell in sweep.cells if cell.row in adversarial)
    length = {"voc": 20000, "cityscapes": 40000}.get(name.partition("_")[2], sweep.options.get("steps"))
    assert {cell.config.steps for cell in sweep.cells} == {length}


def test_shipped_sweeps_share_their_common_cells() -> None:
    for data, first in (("animals", 1), ("camvid", 2), ("voc", 1)):
        proposed = {
            cell.folder
            for table, row, column in ((first, "proposed", 0), (3, "proposed", None), (5, "learned (20)", None))
            for sweep in [read_sweep(f"table{table}_{data}", [f"rows=[{row}]", "grid.seed=0"])]
            for cell in sweep.cells
            if column is None or cell.column == sweep.columns[column]
        }
        assert len(proposed) == 1
        assert proposed <= {
            cell.folder for cell in read_sweep(f"table4_{data}", ["grid.seed=0"]).cells if cell.column == 20
        }


# cells and workers


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
    (trial,) = trials(tmp_path / "root", sweep)
    assert trial.value == done["scores"]["val"]["miou"]
    assert trial.params == {"row": "+ latent classes", "seed": "0"}
    assert list((tmp_path / "root" / "locks").iterdir()) == []


WORKER = """
import sys
from pathlib import Path
from latentseg.sweeps.files import read_sweep
from latentseg.sweeps.run import run_sweep
run_sweep(read_sweep(sys.argv[1], sys.argv[3:]), Path(sys.argv[2]))
"""


def stamps(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_killed_worker_loses_nothing_and_another_one_goes_on(
    tiny: Callable[..., Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL in the middle of the second cell; a new worker in this process finishes it from its last checkpoint."""
    overrides = ["steps=6", "rows=supervised", "splits=val"]
    sweep, root = tiny(*overrides), tmp_path / "root"
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path / "tiny.yaml"), str(root), *overrides])
    first, second = (root / cell.folder for cell in sweep.cells)
    try:
        deadline = time.monotonic() + 60
        while len(read_metrics(second)) < 2 and worker.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        assert cell_state(sweep.cells[1], root, sweep.splits).owner == live_owner(cell_lock(sweep.cells[1], root))
        assert cell_state(sweep.cells[1], root, sweep.splits).kind == "running"
    finally:
        worker.kill()
        worker.wait()
    assert worker.returncode == -signal.SIGKILL
    assert read_done(first, ("val",)) is not None
    assert read_done(second, ("val",)) is None
    assert cell_lock(sweep.cells[1], root).exists()
    state = cell_state(sweep.cells[1], root, sweep.splits)
    assert state.kind == "stopped"
    assert 2 <= state.step < 6
    finished, began = stamps(first), (second / "environment.json").stat().st_mtime_ns
    trained = []
    train = training.train

    def spy(config: Config, folder: Path, resume: bool) -> None:
        trained.append(folder)
        train(config, folder, resume)

    monkeypatch.setattr(sweep_work, "train", spy)
    capfd.readouterr()
    run_sweep(sweep, root)
    assert trained == [second]
    assert stamps(first) == finished
    assert (second / "environment.json").stat().st_mtime_ns == began
    start = int(capfd.readouterr().err.split("steps ")[1].split(" to 6")[0])
    assert state.step - 1 <= start <= state.step
    assert [row["step"] for row in read_metrics(second) if "ce" in row] == list(range(1, 7))
    run_sweep(sweep, root)
    assert trained == [second]
    assert {trial.state.name for trial in trials(root, sweep)} == {"COMPLETE"}


def test_workers_share_the_cells(
    tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = tiny("grid.seed=[0,1,2,3]")
    evaluate = vars(sweep_work)["evaluate"]
    by: dict[str, int] = {}

    together = threading.Barrier(3, timeout=60)

    def slow(folder: Path, split: str) -> None:
        if threading.get_ident() not in by.values():
            by[folder.name] = threading.get_ident()
            together.wait()  # each has a cell at the same time
        evaluate(folder, split)

    monkeypatch.setattr(sweep_work, "evaluate", slow)
    Queue(sweep, tmp_path, None).fill()

    def worker() -> None:
        work(sweep, tmp_path, Queue(sweep, tmp_path, None), None, lambda: None)

    workers = [threading.Thread(target=worker) for _ in range(3)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    names = sorted(cell.folder for cell in sweep.cells)
    for what in ("train", "val", "test"):
        assert sorted(name for kind, name in fake if kind == what) == names
    assert len(set(by.values())) == 3
    assert sorted(trial.user_attrs["cell"] for trial in trials(tmp_path, sweep)) == names
    assert all(trial.state.name == "COMPLETE" for trial in trials(tmp_path, sweep))


def test_a_cell_that_another_sweep_finished_is_told_not_run(
    tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls
) -> None:
    run_sweep(tiny("grid.seed=1"), tmp_path)
    fake.clear()
    both = tiny()
    run_sweep(both, tmp_path)
    assert {name for _, name in fake} == {cell.folder for cell in both.cells if cell.grid["seed"] == 0}
    assert [trial.value for trial in trials(tmp_path, both)] == [0.5] * 4


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
    assert [kind for kind, _ in fake] == ["train", "val", "test"]
    assert read_done(tmp_path / sweep.cells[0].folder, sweep.splits) is not None


def test_scores_of_another_step_do_not_count(tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls) -> None:
    sweep = tiny("rows=supervised", "grid.seed=0", "splits=val")
    folder = tmp_path / sweep.cells[0].folder
    folder.mkdir()
    (folder / "evaluation-val-last.json").write_text(json.dumps({"step": 1, "scores": {}}))
    run_cell(sweep, sweep.cells[0], tmp_path, None)
    assert ("val", folder.name) in fake


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
    states = [trial.state.name for trial in trials(tmp_path, sweep)]
    assert sorted(states) == ["COMPLETE", "FAIL", "FAIL"]
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
    run_cell(sweep, sweep.cells[0], tmp_path, None)
    assert (folder / "DONE").exists()


def test_a_resumed_cell_keeps_its_threads(tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls) -> None:
    sweep = tiny("rows=supervised", "threads=null")
    first, second = (tmp_path / cell.folder for cell in sweep.cells)
    run_cell(sweep, sweep.cells[0], tmp_path, 2)
    assert load_config(first / "config.yaml").threads == 2
    second.mkdir()
    (second / "config.yaml").write_text(dump_config(sweep.cells[1].config))
    run_cell(sweep, sweep.cells[1], tmp_path, 2)
    assert load_config(second / "config.yaml").threads is None


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


# Optuna


def test_optuna_offers_each_cell_once_and_what_was_interrupted_is_found(
    tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls
) -> None:
    sweep = tiny()
    queue = Queue(sweep, tmp_path, None)
    queue.fill()
    queue.fill()
    offered = [queue.next() for _ in range(5)]
    assert [cell.folder if cell else None for cell in offered] == [*(cell.folder for cell in sweep.cells), None]
    assert len(trials(tmp_path, sweep)) == 4
    run_sweep(sweep, tmp_path)  # nothing is offered any more, and nothing is done
    assert len([kind for kind, _ in fake if kind == "train"]) == 4
    assert {trial.state.name for trial in trials(tmp_path, sweep)} == {"COMPLETE"}


def test_a_journal_line_that_a_killed_worker_left_unfinished_is_dropped(
    tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls
) -> None:
    sweep = tiny()
    Queue(sweep, tmp_path, None).fill()
    with (tmp_path / "optuna.journal").open("a") as file:
        file.write('{"op_code":4,"wor')
    run_sweep(sweep, tmp_path)
    assert len(trials(tmp_path, sweep)) == 4


def test_a_damaged_journal_is_named_with_the_remedy(tiny: Callable[..., Sweep], tmp_path: Path) -> None:
    (tmp_path / "optuna.journal").write_text("nonsense\nmore\n")
    with pytest.raises(UserError, match=r"optuna.journal: .*it may be removed: the folders are the truth"):
        run_sweep(tiny(), tmp_path)


def test_an_sql_storage_takes_the_place_of_the_journal(tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls) -> None:
    url = f"sqlite:///{tmp_path / 'trials.db'}"
    run_sweep(tiny("rows=supervised"), tmp_path, storage=url)
    assert not (tmp_path / "optuna.journal").exists()
    assert len(optuna.load_study(study_name=None, storage=url).trials) == 2
    with pytest.raises(UserError, match=r"Optuna cannot use nosql://x: .*check --storage"):
        run_sweep(tiny("rows=supervised"), tmp_path, storage="nosql://x")


def test_a_missing_optuna_is_explained(
    tiny: Callable[..., Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install 'latentseg\[sweep\]'"):
        run_sweep(tiny(), tmp_path)


# processes


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Worker processes that run `code` in place of a worker; they are ended in any case."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def replace_workers(
    monkeypatch: pytest.MonkeyPatch, started: "list[subprocess.Popen[bytes]]", codes: Callable[[int], str]
) -> None:
    def start(sweep: Sweep, root: Path, storage: str | None, threads: int, number: int) -> "subprocess.Popen[bytes]":
        started.append(subprocess.Popen([sys.executable, "-S", "-c", codes(len(started))]))
        return started[-1]

    monkeypatch.setattr(sweeps, "_start_worker", start)


def test_a_dead_worker_is_replaced(
    tiny: Callable[..., Sweep],
    tmp_path: Path,
    fake: Calls,
    monkeypatch: pytest.MonkeyPatch,
    started: "list[subprocess.Popen[bytes]]",
    capsys: pytest.CaptureFixture[str],
) -> None:
    sweep = tiny()
    run_sweep(sweep, tmp_path)
    replace_workers(monkeypatch, started, lambda number: "import os; os._exit(9)" if number < 3 else "")
    run_sweep(sweep, tmp_path, workers=2)
    assert 4 <= len(started) <= 5
    assert "another one takes its place" in capsys.readouterr().err


def test_workers_that_die_together_are_replaced_too(
    tiny: Callable[..., Sweep],
    tmp_path: Path,
    fake: Calls,
    monkeypatch: pytest.MonkeyPatch,
    started: "list[subprocess.Popen[bytes]]",
) -> None:
    """Nobody is left alive when the loop looks: as if the last had died between two looks."""
    sweep = tiny()
    run_sweep(sweep, tmp_path)

    def start(*_: object) -> "subprocess.Popen[bytes]":
        code = "import os; os._exit(9)" if len(started) < 2 else ""
        started.append(subprocess.Popen([sys.executable, "-S", "-c", code]))
        started[-1].wait()
        return started[-1]

    monkeypatch.setattr(sweeps, "_start_worker", start)
    run_sweep(sweep, tmp_path, workers=2)
    assert len(started) == 4


def test_workers_that_keep_dying_end_the_sweep(
    tiny: Callable[..., Sweep],
    tmp_path: Path,
    fake: Calls,
    monkeypatch: pytest.MonkeyPatch,
    started: "list[subprocess.Popen[bytes]]",
) -> None:
    replace_workers(monkeypatch, started, lambda number: "import os; os._exit(9)")
    with pytest.raises(UserError, match=r"workers kept dying.*logs"):
        run_sweep(tiny(), tmp_path, workers=2)
    assert len(started) == 2 + 2 * sweeps.REPLACEMENTS


@pytest.mark.parametrize("error", [KeyboardInterrupt, signal.SIGTERM])
def test_ctrl_c_and_sigterm_end_the_workers(
    tiny: Callable[..., Sweep],
    tmp_path: Path,
    fake: Calls,
    monkeypatch: pytest.MonkeyPatch,
    started: "list[subprocess.Popen[bytes]]",
    error: Any,
) -> None:
    replace_workers(monkeypatch, started, lambda number: "import time; time.sleep(60)")
    monkeypatch.setattr(sweeps, "POLL", 5)
    number = signal.SIGTERM if error is signal.SIGTERM else signal.SIGINT
    threading.Timer(1.0, os.kill, (os.getpid(), number)).start()
    expected = SystemExit if error is signal.SIGTERM else KeyboardInterrupt
    with pytest.raises(expected):
        run_sweep(tiny(), tmp_path, workers=2)
    assert [process.poll() for process in started] == [-signal.SIGTERM] * 2
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_worker_process_gets_its_orders_and_its_share_of_the_cores(
    tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real command line and environment, with a stand-in for the interpreter; then the orders are carried out."""
    stand_in = tmp_path / "python"
    stand_in.write_text(f"#!/bin/sh\ncat > {tmp_path}/orders\necho $OMP_NUM_THREADS $@ > {tmp_path}/arguments\n")
    stand_in.chmod(0o700)
    sweep = tiny("rows=supervised", "threads=null")
    monkeypatch.setattr(sys, "executable", str(stand_in))
    assert sweeps._start_worker(sweep, tmp_path, None, 3, 0).wait() == 0
    assert (tmp_path / "arguments").read_text().split() == ["3", "-m", "latentseg.sweeps.run"]
    orders = json.loads((tmp_path / "orders").read_text())
    assert orders["parent"] == os.getpid()
    Queue(sweep, tmp_path, None).fill()
    sweeps.worker_main(io.StringIO(json.dumps(orders | {"parent": os.getppid()})))
    assert [name for kind, name in fake if kind == "train"] == [cell.folder for cell in sweep.cells]
    assert {load_config(tmp_path / cell.folder / "config.yaml").threads for cell in sweep.cells} == {3}


def test_a_worker_ends_with_its_parent() -> None:
    read, write = os.pipe()
    middle = os.fork()
    if middle == 0:  # the parent of a worker
        if os.fork() == 0:
            os.write(write, b"x")
            sweeps._watch(os.getppid())  # never returns
        os.read(read, 1)
        os._exit(0)
    os.close(write)
    os.waitpid(middle, 0)
    assert os.read(read, 100) == b""  # the last one that held the pipe is gone


# progress and cost


def test_progress_counts_cells_and_steps(tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls) -> None:
    sweep = tiny()
    progress = sweeps.Progress(sweep, tmp_path)
    assert progress.text() == "0 of 4 cells done, 0 running"
    run_cell(sweep, sweep.cells[0], tmp_path, None)
    (tmp_path / sweep.cells[1].folder).mkdir()
    (tmp_path / sweep.cells[1].folder / "FAILED").write_text("no\n")
    (tmp_path / sweep.cells[2].folder).mkdir()
    (tmp_path / sweep.cells[2].folder / "metrics.jsonl").write_text('{"step": 1}\n')
    with hold(cell_lock(sweep.cells[2], tmp_path), "it"):
        text = progress.text()
    assert text.startswith(f"1 of 4 cells done, 1 running ({sweep.cells[2].folder} 1/2), 1 failed; ")
    assert text.endswith(" left")


def test_time_left_is_that_of_the_steps_left(
    tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = tiny()
    run_cell(sweep, sweep.cells[0], tmp_path, None)
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = sweeps.Progress(sweep, tmp_path)
    run_cell(sweep, sweep.cells[1], tmp_path, None)
    now += 60
    assert progress.text() == "2 of 4 cells done, 0 running; 2 min left"


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


def test_a_dry_run_of_cached_features_caches_a_few_in_a_temporary_folder(
    tiny: Callable[..., Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "STEPS", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cached = ("cache=features", "augment.views=2", "model.frozen=true", "rows=[supervised]", "grid.seed=0")
    cost = sweep_cost.measure(tiny(*cached).cells[0], tiny(*cached), 1)
    assert cost.features > 0
    assert cost.step > 0
    assert cost.scoring > 0
    assert not (tmp_path / "cache").exists()


def test_a_dry_run_counts_what_is_left(
    tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = tiny("steps=100")
    measured: list[Cell] = []

    def measure(cell: Cell, sweep: Sweep, threads: int) -> sweep_cost.Cost:
        measured.append(cell)
        return sweep_cost.Cost(step=1.0, scoring=10.0, features=60.0)

    monkeypatch.setattr(sweep_cost, "measure", measure)
    (tmp_path / sweep.cells[0].folder).mkdir()
    (tmp_path / sweep.cells[0].folder / "metrics.jsonl").write_text('{"step": 50}\n')
    text = shown(sweep, tmp_path)
    assert [cell.row for cell in measured] == ["supervised", "+ latent classes"]  # seeds cost the same
    assert "together 3 min with 2 workers, and once 60 s for the features" in text  # (60 + 3 * 110) / 2 seconds
    sweep = tiny("rows=supervised")
    run_sweep(sweep, tmp_path)
    assert "nothing is left to do" in shown(sweep, tmp_path)


def test_a_dry_run_without_data_still_lists_the_cells(tmp_path: Path) -> None:
    text = shown(read_sweep("table3_voc"), tmp_path)
    assert "the cost cannot be told: " in text
    assert text.count("open") == 15


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.kind=folder", "needs data.root"),
        ("devices=2", "worker is one process"),
        ("data.labeled=99", "99 labelled"),
        ("splits=[holdout]", "no split holdout"),
        ("method.groups.all=[road]", "method.groups does not fit"),
        ("model.weights_kind=coco", r"model\.weights_kind=coco does not fit"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_begun(
    tiny: Callable[..., Sweep], tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run_sweep(tiny(override), tmp_path / "root")
    assert not (tmp_path / "root").exists()
