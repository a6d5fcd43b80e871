"""Predictions in the form of benchmarks: ids, palettes, and which runs fit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from live import Channels, live
from PIL import Image

from latentseg.data.colors import CITYSCAPES, VOC_CLASSES, voc_color
from latentseg.errors import UserError
from latentseg.inference.benchmarks import form_of
from latentseg.inference.model import Model
from latentseg.inference.predict import predict

PIXELS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]] * 2, np.uint8)
"""Classes 0, 1, 2 of the model, twice."""


def model(*classes: str) -> Model:
    made = live(Channels())
    return replace(made, run=replace(made.run, classes=classes))


def test_voc(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "2007_000001.png")
    predict(model("person", "background", "cat"), [tmp_path / "2007_000001.png"], tmp_path / "out", "voc")
    with Image.open(tmp_path / "out" / "index" / "2007_000001.png") as index:
        assert index.mode == "P"
        assert np.array(index).tolist() == [[15, 0, 8]] * 2
        assert np.array(index.convert("RGB"))[0].tolist() == [[192, 128, 128], [0, 0, 0], [64, 0, 0]]


def test_cityscapes(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    predict(model("bicycle", "road", "train"), [tmp_path / "a.png"], tmp_path / "out", "cityscapes")
    with Image.open(tmp_path / "out" / "index" / "a.png") as index:
        assert index.mode == "L"
        assert np.array(index).tolist() == [[33, 7, 31]] * 2


def test_all_classes_of_each_benchmark() -> None:
    form = form_of("voc", VOC_CLASSES)
    assert form.ids(np.arange(21, dtype=np.uint8)).tolist() == list(range(21))
    assert form.palette is not None
    assert form.palette[:3].tolist() == [list(voc_color(i)) for i in range(3)]
    ids = form_of("cityscapes", tuple(CITYSCAPES)).ids(np.arange(19, dtype=np.uint8))
    assert ids.tolist() == [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]


@pytest.mark.parametrize(
    ("benchmark", "message"),
    [
        (
            "voc",
            "--as voc, but the run has classes that voc does not know: road, pavement; its classes are background,",
        ),
        ("cityscapes", "that cityscapes does not know: pavement, cat; its classes are road, sidewalk, "),
        ("coco", "--as coco: choose voc or cityscapes"),
    ],
)
def test_a_run_of_other_classes_is_refused(tmp_path: Path, benchmark: str, message: str) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=message):
        predict(model("road", "pavement", "cat"), [tmp_path / "a.png"], tmp_path / "out", benchmark)
    assert not (tmp_path / "out").exists()
