"""Pictures of validations: what they show, which stay, where they go; and the words at the end."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import tiny

from latentseg.data.datasets import open_dataset
from latentseg.errors import DataError
from latentseg.inference.model import Model, read_scored
from latentseg.models.segmenter import build_segmenter
from latentseg.runs.folder import Run
from latentseg.runs.metrics import read_metrics
from latentseg.training import pictures
from latentseg.training.loop import train
from latentseg.training.pictures import GAP, SIDE, draw
from latentseg.training.summary import summary


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tiny("steps=4", "validate_every=1", "data.scenes.val=4"), tmp_path_factory.mktemp("runs") / "run 1")


def test_it_shows_image_truth_and_prediction_of_the_same_images() -> None:
    config = tiny("data.scenes.val=5")
    dataset = open_dataset(config.data)
    torch.manual_seed(0)
    model = Model.live(build_segmenter(config.model, 19, 0).eval(), config, dataset)
    items = dataset.items("val")
    picture = draw(model, dataset, items)
    assert picture.shape[1] == 3 * (SIDE + GAP)
    assert (picture == draw(model, dataset, items)).all()
    colors = np.zeros((256, 3), np.uint8)
    colors[:19] = dataset.palette
    for row, item in enumerate((items[0], items[2], items[4])):
        pixels, size, targets = read_scored(dataset, item)
        labels = model.labels(pixels, size).semantic[0].numpy()
        area = picture[row * (SIDE + GAP) : row * (SIDE + GAP) + SIDE]
        step = SIDE / 64  # each pixel of a scene of 64 x 64, at its centre
        places = np.rint((np.arange(64) + 0.5) * step - 0.5).astype(int)
        for number, shown in ((1, colors[targets]), (2, colors[labels])):
            panel = area[:, number * (SIDE + GAP) : number * (SIDE + GAP) + SIDE]
            assert (panel[np.ix_(places, places)] == shown).all()
        photo = area[:, :SIDE].astype(float).mean((0, 1))
        np.testing.assert_allclose(photo, pixels.astype(float).mean((0, 1)), atol=2)


def test_the_last_and_the_best_stay(run: Run) -> None:
    best = run.checkpoints.best()
    assert best is not None
    names = {path.name for path in (run.folder / "pictures").iterdir()}
    assert names == {"step-4.png", f"step-{best.step}.png"}
    with Image.open(run.folder / "pictures" / "step-4.png") as picture:
        assert picture.width == 3 * (SIDE + GAP)


def test_tensorboard_has_them_all(run: Run) -> None:
    board = EventAccumulator(str(run.folder / "tensorboard"))
    board.Reload()
    (tag,) = board.Tags()["images"]
    assert tag == "image, truth, prediction"
    assert [event.step for event in board.Images(tag)] == [1, 2, 3, 4]
    with Image.open(run.folder / "pictures" / "step-4.png") as picture:
        last = Image.open(io.BytesIO(board.Images(tag)[-1].encoded_image_string))
        assert (np.asarray(last) == np.asarray(picture)).all()


def test_a_picture_that_cannot_be_written_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, _content: bytes) -> None:
        raise DataError("its results cannot be written", "look", path)

    monkeypatch.setattr(pictures, "write_whole", refuse)
    result = train(tiny("steps=2", "validate_every=0"), tmp_path / "run")
    assert result.checkpoints.last() is not None
    assert f"note: no picture in {tmp_path}/run/pictures: " in capsys.readouterr().err


def told(run: Run) -> str:
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(summary(run))
    return console.export_text()


def test_the_end_tells_scores_pictures_and_what_is_next(run: Run) -> None:
    text = told(run)
    rows = [row for row in read_metrics(run.folder) if "val_miou" in row]
    best = max(rows, key=lambda row: float(row["val_miou"]))
    last = f"{100 * rows[-1]['val_miou']:.2f}"
    assert "val, step 4" in text
    assert [line.split("│")[2].strip() for line in text.splitlines() if "│ mIoU" in line] == [last]
    assert sum("absent" in line for line in text.splitlines()) == rows[-1]["val_iou"].count(None)
    assert f"best: mIoU {100 * best['val_miou']:.2f} after step {best['step']} (--checkpoint best)" in text
    assert f"pictures (image, truth, prediction): {run.folder}/pictures" in text.replace("\n", "")
    assert f"next: latentseg predict '{run.folder}' PHOTOS --out predicted" in text.replace("\n", " ")


def test_a_run_without_validation_says_what_is_next(tmp_path: Path) -> None:
    run = train(tiny("steps=1", "data.scenes.val=1", "method.name=supervised"), tmp_path / "run")
    (run.folder / "metrics.jsonl").unlink()
    assert "IoU" not in told(run)
    assert "next: latentseg predict" in told(run)
