"""What a training will cost: time, memory, disk, images, with nothing left behind."""

import io
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from latentseg.cli import app
from latentseg.data.datasets import open_dataset
from latentseg.data.splits import draw_split
from latentseg.errors import UserError
from latentseg.presets import load_config
from latentseg.training import costs
from latentseg.training.costs import Costs, dry_run, measure_costs, views
from latentseg.training.loop import train

TINY = [
    "steps=40", "batch_size=2", "threads=1", "device=cpu", "model.weights_kind=none", "model.head_channels=16",
    "augment.crop=[32,32]", "data.scenes.train=12", "data.labeled=4", "data.scenes.val=3", "data.scenes.height=64",
    "data.scenes.width=64",
]  # fmt: skip
MEASURED = Costs(
    early=1.0,
    late=2.0,
    loading=0.125,
    scoring=3.0,
    features=0.0,
    feature_bytes=0,
    checkpoint_bytes=2_000_000,
    weights_bytes=1_000_000,
    uses_unlabeled=True,
    peak_bytes=1_500_000_000,
)


@pytest.fixture(autouse=True)
def one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "STEPS", 1)


def shown(monkeypatch: pytest.MonkeyPatch, measured: Costs, *options: str, run: Path | None = None) -> str:
    monkeypatch.setattr(costs, "measure_costs", lambda _config, _dataset: measured)
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(dry_run(load_config("scenes", [*TINY, *options]), run, resume=run is not None))
    return re.sub(r"\s+", " ", re.sub("[│┌┐└┘─]", " ", console.export_text()))


def test_time_follows_the_steps_and_the_validations(monkeypatch: pytest.MonkeyPatch) -> None:
    """10 steps of 1 s and 30 of 2 s; four times three images of 3 s."""
    text = shown(monkeypatch, MEASURED, "validate_every=10")
    assert "4 labelled, 8 unlabelled, 3 of val" in text
    assert "2 labelled and as many unlabelled ones, views of 32x32 pixels" in text
    assert "step 1000 ms, 2000 ms once the consistency has joined; 12.5 % of it waiting for images" in text
    assert "time 106 s: 40 steps 70 s, 4 validations 36 s" in text
    assert "memory 1.5 GB" in text
    assert "disk 8 MB in the run folder" in text
    assert "features" not in text


@pytest.mark.parametrize(
    ("steps", "every", "start", "validations"),
    [(10, 3, 0, 4), (9, 3, 0, 3), (10, 0, 0, 1), (10, 3, 3, 3), (10, 3, 10, 0)],
)
def test_validations_are_those_of_the_training(
    steps: int, every: int, start: int, validations: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every so many steps and after the last one, from where a run goes on."""
    last = SimpleNamespace(checkpoints=SimpleNamespace(last=lambda: SimpleNamespace(step=start)))
    monkeypatch.setattr(costs, "check_run_folder", lambda *_: None)
    monkeypatch.setattr(costs, "open_run", lambda _: last)
    (tmp_path / "config.yaml").touch()
    text = shown(monkeypatch, MEASURED, f"steps={steps}", f"validate_every={every}", run=tmp_path)
    assert re.search(rf", {validations} validations? {9 * validations} s", text)  # three images of 3 s


def test_processes_and_features_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """4 labelled images with 6 views and 8 with 2, each view 5 s and 1 MB; only the former without unlabelled ones."""
    features = replace(MEASURED, features=5.0, feature_bytes=1_000_000)
    views = ["augment.views=2", "augment.labeled_views=6"]
    options = ["devices=2", "cache=features", *views, f"cache_folder={tmp_path / 'cache'}"]
    text = shown(monkeypatch, features, *options)
    assert "shared by 2 processes" in text
    assert "without sending gradients" in text
    assert "features 3 min unless they are cached" in text  # 40 views
    assert f"40 MB for features in {tmp_path / 'cache'}" in text
    assert not (tmp_path / "cache").exists()
    text = shown(monkeypatch, replace(features, uses_unlabeled=False), *options)
    assert "features 2 min unless they are cached" in text  # 24 views


def test_a_run_that_goes_on_pays_what_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    options = ["steps=4", "checkpoint_every=2"]
    folder = train(load_config("scenes", [*TINY, *options]), tmp_path / "run").folder
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    text = shown(monkeypatch, MEASURED, *options, run=folder)
    assert "0 steps 0 s" in text
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_real_steps_are_timed_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    found = measure_costs(load_config("scenes", [*TINY, "cache=features", "augment.views=2"]))
    assert min(found.early, found.late, found.scoring, found.features, found.feature_bytes) > 0
    assert 0 <= found.loading < 1
    assert found.weights_bytes < found.checkpoint_bytes  # momentum comes on top
    assert found.peak_bytes > 100e6
    assert torch.get_num_threads() == threads
    assert list(temporary.iterdir()) == []
    assert not (tmp_path / "cache").exists()


def test_the_command_tells_and_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner  # noqa: PLC0415

    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["train", "scenes", *TINY, "--dry-run"])
    assert result.exit_code == 0
    assert "GB are free" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_what_would_be_refused_is_refused(tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    with pytest.raises(UserError, match="is not empty"):
        dry_run(load_config("scenes", TINY), tmp_path)
    with pytest.raises(UserError, match="nothing to resume"):
        dry_run(load_config("scenes", TINY), None, resume=True)
    with pytest.raises(UserError, match="cannot be divided among 3 processes"):
        dry_run(load_config("scenes", [*TINY, "devices=3"]))


@pytest.mark.parametrize(("power", "expected"), [(0, 24), (3, 24 + 12 * 49)])
def test_whole_images_count_as_views_by_their_pixels(power: int, expected: int) -> None:
    """4 labelled and 8 unlabelled images with two views of 32x32 each; a whole image has 49 times as many pixels."""
    options = ["method.name=latent_match", "model.frozen=true", "cache=features", "augment.views=2"]
    config = load_config("scenes", [*TINY, *options, f"method.neighbour_power={power}"], keep_unread=True)
    split = draw_split(open_dataset(config.data), config.data, 0)
    assert views(config, split, unlabeled=True) == expected
    assert views(config, split, unlabeled=False) == 8
