"""A folder in place of a preset, on the command line."""

from pathlib import Path

import layouts
import numpy as np
import pytest
from lightning_fabric.utilities.rank_zero import rank_zero_only
from PIL import Image
from typer.testing import CliRunner

from latentseg.cli import app
from latentseg.data.datasets import open_dataset
from latentseg.errors import DataError, UserError
from latentseg.presets import load_config
from latentseg.runs.metrics import read_metrics

STEPS = ["steps=1", "batch_size=2", "augment.crop=[64,64]", "model.head_channels=8", "model.weights_kind=none"]
TINY = [*STEPS, "model.frozen=false", "cache=none", "threads=1", "device=cpu"]


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def run(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    if isinstance(result.exception, Exception):
        raise result.exception
    assert result.exit_code == 0
    return result.output


@pytest.mark.slow
def test_a_folder_is_trained_scored_and_written_down(tmp_path: Path) -> None:
    layouts.label_studio(tmp_path / "photos")
    output = run("train", "photos", *TINY, "--run", "runs/a")
    assert "photos: Label Studio" in output
    assert "no split val: 2 of 11 labelled images are held out" in output
    run("init", "photos", *TINY)
    run("train", "photos.yaml", "--run", "runs/b")
    first, second = (read_metrics(tmp_path / "runs" / name)[-1]["holdout_miou"] for name in "ab")
    assert first == second
    assert "mIoU" in run("evaluate", "runs/a", "--split", "holdout")


def test_init_writes_reasons_and_overwrites_nothing(tmp_path: Path) -> None:
    layouts.binary(tmp_path / "photos")
    output = run("init", "photos", "data.labeled=5", "--out", "p.yaml")
    assert "latentseg train p.yaml" in output
    lines = (tmp_path / "p.yaml").read_text().splitlines()
    at = lines.index("  class_map: {0: 0, 255: 1}")
    assert lines[at - 2 : at] == [
        "  # masks hold 0 and 255 alone",
        "  # otherwise: another class for a value; one that is not named has no label",
    ]
    assert lines[lines.index("  labeled: 5") - 1] == "  # given on the command line"
    with pytest.raises(UserError, match=r"p\.yaml exists and is not overwritten"):
        run("init", "photos", "--out", "p.yaml")


def test_a_check_of_a_folder_says_what_it_takes_it_for(tmp_path: Path) -> None:
    layouts.beside(tmp_path / "photos")
    output = run("data", "check", "photos")
    assert "data.pairs=['{id}', '{id}_mask']" in output
    assert "11 of 11 images can be used" in output


def test_convert_writes_the_plain_layout(tmp_path: Path) -> None:
    truth = layouts.coco_panoptic(tmp_path / "photos")
    assert "11 images and 11 masks in plain" in run("data", "convert", "photos", "plain")
    dataset = open_dataset(load_config("folder", ["data.root=plain"]).data)
    assert {split: len(dataset.items(split)) for split in dataset.splits} == {"train": 8, "val": 3}
    for split in dataset.splits:
        for item in dataset.items(split):
            assert item.image is not None
            assert np.array_equal(dataset.read_targets(item), truth[item.image.stem])
    first = dataset.items("val")[0].image
    assert first is not None
    assert first.read_bytes() == (tmp_path / "photos" / "val2017" / first.name).read_bytes()
    with pytest.raises(UserError, match="plain is not empty"):
        run("data", "convert", "photos", "plain")


def test_converted_hold_out_is_val(tmp_path: Path) -> None:
    layouts.csv_pairs(tmp_path / "photos")
    (tmp_path / "photos" / "pairs.csv").write_text(
        "".join(f"files/{i:03}.png;files/{i + 500:03}.png\n" for i in range(10))
    )
    run("data", "convert", "photos", "plain")
    assert len(list((tmp_path / "plain" / "images" / "val").rglob("*.png"))) == 2


def test_show_counts_and_names_what_a_draw_lacks(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for i in range(8):
        mask = np.zeros((20, 30), np.uint8)
        mask[:, 15:] = 2 if i == 7 else 1
        layouts.save(root / f"{i}.png", np.random.default_rng(i).integers(0, 256, (20, 30, 3), dtype=np.uint8))
        layouts.save(root / f"{i}_mask.png", mask)
    layouts.save(root / "8.png", np.zeros((40, 60, 3), np.uint8))
    output = run("data", "show", "photos", "data.holdout=0", "data.every_class=false", "data.split_seed=1")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines() if line.startswith("│")]
    assert ["train", "9", "8", "30x20 to 60x40, 2 sizes", "30x20"] in rows
    assert ["class_2", "300 (1)"] in rows
    assert ["all", "8", "3 of 3", ""] in rows
    assert ["1/8", "1", "2 of 3", "class_2"] in rows


def test_a_folder_that_is_not_understood_ends_before_torch_is_there(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="no masks are recognised"):
        run("train", ".")


def test_a_time_takes_the_place_of_the_steps_that_a_folder_would_get(tmp_path: Path) -> None:
    layouts.binary(tmp_path / "photos")
    with pytest.raises(UserError, match="--time measures one process"):  # so the recipe's steps are no obstacle
        run("train", "photos", "--time", "20m", "devices=2", "device=cpu")
    with pytest.raises(UserError, match=r"leave out --resume and steps=N"):
        run("train", "photos", "--time", "20m", "steps=5")


def test_of_several_processes_one_prints_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layouts.binary(tmp_path / "photos")
    assert "photos: " in run("init", "photos", "--out", "first.yaml")
    monkeypatch.setattr(rank_zero_only, "rank", 1, raising=False)
    assert "photos: " not in run("init", "photos", "--out", "second.yaml")


def test_folds_take_no_resume(tmp_path: Path) -> None:
    layouts.plain(tmp_path / "photos")
    with pytest.raises(UserError, match="--folds goes on by itself"):
        run("train", "photos", "--folds", "3", "--resume", "--run", "runs/k")
