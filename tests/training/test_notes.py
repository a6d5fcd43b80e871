"""What is said before the first step and beside the scores, and training without what cannot be used."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentseg.config import Config
from latentseg.errors import DataError
from latentseg.inference.evaluate import evaluate
from latentseg.presets import load_config
from latentseg.report.collect import read_run
from latentseg.training.loop import train


def small(root: Path, *options: str, method: str = "supervised") -> Config:
    """One step on a data set of files."""
    sizes = ["steps=1", "batch_size=2", "augment.crop=[32,32]", "threads=1", "device=cpu", "workers=0", "cache=none"]
    plain = ["model.weights_kind=none", "model.frozen=false", "model.head_channels=16", "data.labeled=all"]
    return load_config("folder", [f"data.root={root}", f"method.name={method}", *sizes, *plain, *options])


@pytest.fixture
def two_of_three(folder_set: Callable[..., Path]) -> Path:
    """Masks hold classes 0 and 1 alone; every image is labelled."""
    root = folder_set(train=4, val=2, size=(40, 40))
    for path in (root / "masks").rglob("*.png"):
        Image.fromarray(np.array(Image.open(path)) % 2).save(path)
    return root


def test_notes_on_classes_stand_before_training_and_beside_each_score(
    two_of_three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(small(two_of_three), tmp_path / "run").folder
    err = capsys.readouterr().err
    note = "class sky in no mask that was read (4 labelled, 2 of val): mask values or names may be meant otherwise"
    assert err.count(note) == 2
    before, _, after = err.partition("step 1: mIoU ")
    assert f"note: {note}\n" in before
    assert f"note: {note}\n" in after
    evaluation = evaluate(run)
    assert evaluation.notes == [note]
    assert json.loads((run / "evaluation-val-last.json").read_text())["notes"] == [note]
    scored = 3 - evaluation.scores.absent
    if scored < 3:
        assert f"({scored} of 3 classes scored)" in after
        assert read_run(run).few_classes("val") == [f"{scored} of 3 classes"]
    (run / "split/check.json").unlink()
    assert evaluate(run).notes == []  # an older run


def test_a_share_says_of_what(two_of_three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (two_of_three / "masks/train/00.png").unlink()
    train(small(two_of_three, "data.labeled=1/2"), tmp_path / "run")
    line = "2 labelled (1/2 of the 4 training images, of which 1 have no mask) and 2 unlabelled images"
    assert line in capsys.readouterr().err


def test_nothing_to_learn_from_or_to_score_is_noted(
    folder_set: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder_set(train=4, val=0, size=(40, 40))
    train(small(root, method="fixmatch"), tmp_path / "run")
    err = capsys.readouterr().err
    assert "note: nothing is unlabelled, and fixmatch learns from unlabelled images: it is supervised here" in err
    assert "note: the data set has no split val: nothing is scored while it trains" in err
    assert "it is supervised here" in (tmp_path / "run/split/check.json").read_text()
    train(small(root), tmp_path / "supervised")
    assert "nothing is unlabelled" not in capsys.readouterr().err


def test_training_goes_on_without_what_cannot_be_used(
    folder_set: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder_set(train=6, val=3, bare=2, size=(40, 40))
    for path in ("images/train/00.png", "masks/train/03.png", "images/val/01.png"):
        (root / path).write_text("broken")
    with pytest.raises(DataError, match="3 of 9 images cannot be used; mend them, or"):
        train(small(root), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run = train(small(root, "data.on_bad=skip"), tmp_path / "run").folder
    assert (run / "split/labeled.txt").read_text().split() == ["02", "04", "05"]
    assert (run / "split/unlabeled.txt").read_text().split() == ["01"]
    assert len((run / "split/skipped.txt").read_text().splitlines()) == 3
    assert "3 labelled and 1 unlabelled images" in capsys.readouterr().err
    evaluation = evaluate(run)
    assert (evaluation.images, evaluation.skipped) == (2, 1)
    train(small(root, "data.on_bad=skip"), run, resume=True)


def test_changed_files_are_told_on_resume(
    two_of_three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(small(two_of_three), tmp_path / "run")
    mask = two_of_three / "masks/train/02.png"
    Image.fromarray(1 - np.array(Image.open(mask))).save(mask)
    capsys.readouterr()
    train(small(two_of_three), tmp_path / "run", resume=True)
    assert "the content of 1 images or masks of labeled has changed (02)" in capsys.readouterr().err.replace("\n", " ")
    Image.new("RGB", (40, 40)).save(two_of_three / "images/train/new.png")
    with pytest.raises(DataError, match=r"the data set has changed since .*: unlabeled images 1 more \(new\)"):
        train(small(two_of_three), tmp_path / "run", resume=True)
