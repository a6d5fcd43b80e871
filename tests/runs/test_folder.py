"""The run folder: what it holds, what may change, and what a cut-off log leaves."""

import json
import math
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from latentseg.data.datasets import open_dataset
from latentseg.data.splits import draw_split
from latentseg.errors import RunError, UserError
from latentseg.presets import dump_config, load_config
from latentseg.runs.folder import Run, create_run, environment, open_run, recorded_precision
from latentseg.runs.log import Log
from latentseg.runs.metrics import finite_or_none, read_metrics
from latentseg.runs.place import LOCK, check_run_folder, free_path

CONFIG = load_config("scenes", ["data.scenes.train=6", "data.scenes.val=1", "data.scenes.test=1", "data.labeled=2"])


def make(folder: Path, *overrides: str) -> Run:
    """Create a run folder without training."""
    options = ["data.scenes.train=6", "data.scenes.val=1", "data.scenes.test=1", "data.labeled=2", *overrides]
    config = load_config("scenes", options)
    dataset = open_dataset(config.data)
    return create_run(folder, config, dataset, draw_split(dataset, config.data, config.seed))


def test_a_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """latentseg itself, where it runs from its source tree."""

    def version(name: str) -> str:
        if name == "latentseg":
            raise metadata.PackageNotFoundError(name)
        return "1.2"

    monkeypatch.setattr(metadata, "version", version)
    packages = environment(CONFIG)["packages"]
    assert packages["latentseg"] is None
    assert packages["torch"] == "1.2"


def test_a_run_folder_opens_as_it_was_made(tmp_path: Path) -> None:
    made = make(tmp_path / "a" / "run")
    again = open_run(made.folder)
    assert (again.config, again.classes) == (CONFIG, made.classes)
    assert again.palette.tolist() == made.palette.tolist()
    assert len(again.classes) == 19
    assert (made.folder / "split" / "labeled.txt").read_text().count("\n") == 2
    assert {"python", "platform", "cores", "threads", "cuda", "precision", "packages"} == set(
        json.loads((made.folder / "environment.json").read_text())
    )


def test_creating_it_again_changes_nothing(tmp_path: Path) -> None:
    make(tmp_path / "run")
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    make(tmp_path / "run")
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files} == before
    assert not (tmp_path / "run" / "split-now").exists()


LEFT = (".config.yaml.tmp", ".DS_Store", "Thumbs.db", f"{LOCK}.0123", f".{LOCK}.0123")


def test_what_a_kill_or_a_file_manager_leaves_makes_no_run(tmp_path: Path) -> None:
    for name in LEFT:
        (tmp_path / name).write_text("half a line")
    for resume in (False, True):
        check_run_folder(tmp_path, CONFIG, resume)
    make(tmp_path)
    with pytest.raises(RunError, match="is not empty"):
        check_run_folder(tmp_path, CONFIG, resume=False)
    check_run_folder(tmp_path, CONFIG, resume=True)
    (tmp_path / "other" / ".git").mkdir(parents=True)
    with pytest.raises(RunError, match="is not empty"):
        check_run_folder(tmp_path / "other", CONFIG, resume=False)


def test_a_run_folder_that_was_half_made_is_made_whole(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole").folder
    make(tmp_path / "half")
    for path in (tmp_path / "half" / "environment.json", tmp_path / "half" / "split" / "unlabeled.txt"):
        path.unlink()
    (tmp_path / "half" / "classes.json").write_text("[{")
    check_run_folder(tmp_path / "half", CONFIG, resume=True)
    make(tmp_path / "half")
    for name in ("config.yaml", "classes.json", "split/labeled.txt", "split/unlabeled.txt"):
        assert (tmp_path / "half" / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(
    "text",
    ["", "[" * 100_000, '[{"name": "a", "color": [0, 0, 256]}]', '[{"name": "a", "color": [-1, 0, 0]}]',
     '[{"name": "a"}]', '[{"name": "a", "color": [1, 2]}]', '{"name": 3}', "7", "null"],
)  # fmt: skip
def test_classes_of_others_that_make_no_sense_are_one_message(tmp_path: Path, text: str) -> None:
    folder = make(tmp_path / "run").folder
    (folder / "classes.json").write_text(text)
    with pytest.raises(RunError, match=r"classes\.json cannot be read"):
        open_run(folder)


def test_a_run_without_its_split_does_not_go_on(tmp_path: Path) -> None:
    folder = make(tmp_path / "run").folder
    (folder / "split" / "unlabeled.txt").unlink()
    with pytest.raises(RunError, match=r"split/unlabeled\.txt cannot be read: No such file"):
        make(folder)


@pytest.mark.parametrize("text", ["", "[" * 100_000, "[]", '{"precision": "half"}', '{"precision": []}', "\x00"])
def test_an_environment_that_makes_no_sense_leaves_the_precision_open(tmp_path: Path, text: str) -> None:
    (tmp_path / "environment.json").write_text(text)
    assert recorded_precision(tmp_path, CONFIG) == CONFIG


def test_another_draw_is_another_run(tmp_path: Path) -> None:
    make(tmp_path / "run")
    with pytest.raises(UserError, match="its split differs"):
        make(tmp_path / "run", "data.split_seed=5")


@pytest.mark.parametrize(
    "key", ["device=cpu", "threads=1", "workers=3", "checkpoint_every=7", "log_every=7", "data.check=quick"]
)
def test_options_that_may_change_on_the_way(tmp_path: Path, key: str) -> None:
    (tmp_path / "config.yaml").write_text(dump_config(load_config("scenes")))
    check_run_folder(tmp_path, load_config("scenes", [key]), resume=True)


@pytest.mark.parametrize("key", ["seed=1", "precision=bf16-mixed", "method.name=supervised"])
def test_options_that_may_not(tmp_path: Path, key: str) -> None:
    (tmp_path / "config.yaml").write_text(dump_config(load_config("scenes")))
    with pytest.raises(UserError, match=rf"another configuration \({key.partition('=')[0]}: "):
        check_run_folder(tmp_path, load_config("scenes", [key]), resume=True)


def test_free_paths(tmp_path: Path) -> None:
    assert free_path(tmp_path / "a.json") == tmp_path / "a.json"
    for name in ("a.json", "a-2.json", "b"):
        (tmp_path / name).write_text("")
    assert free_path(tmp_path / "a.json") == tmp_path / "a-3.json"
    assert free_path(tmp_path / "b") == tmp_path / "b-2"


def test_the_log_goes_on_after_the_last_checkpoint(tmp_path: Path) -> None:
    log = Log(tmp_path, 0)
    for step in (1, 2, 3):
        log.write(step, {"ce": step / 2, "val_iou": [0.5, math.nan]})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "c')
    expected = [{"step": step, "ce": step / 2, "val_iou": [0.5, None]} for step in (1, 2, 3)]
    assert read_metrics(tmp_path) == expected
    log = Log(tmp_path, 2)
    log.write(3, {"ce": 9.0})
    assert read_metrics(tmp_path) == [*expected[:2], {"step": 3, "ce": 9.0}]
    assert list((tmp_path / "tensorboard").iterdir())


def test_no_log_is_an_empty_log(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": math.nan, "b": [1, -math.inf, {"c": math.inf}]}, {"a": None, "b": [1, None, {"c": None}]}),
        ({"a": 0.5, "b": 3, "c": "NaN", "d": None}, {"a": 0.5, "b": 3, "c": "NaN", "d": None}),
    ],
)
def test_json_knows_no_nan(value: Any, expected: Any) -> None:
    assert finite_or_none(value) == expected


def test_a_log_that_is_a_device_is_not_read(tmp_path: Path) -> None:
    """/dev/full never ends."""
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    assert read_metrics(tmp_path) == []
