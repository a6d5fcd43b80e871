"""CVAT for images 1.1: what is drawn, in which order, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentseg.data.datasets import Dataset, open_dataset
from latentseg.errors import DataError
from latentseg.found.recognise import recognise
from latentseg.presets import load_config

LABELS = "<meta><job><labels><label><name>road</name></label><label><name>car</name></label></labels></job></meta>"
ROAD = '<polygon label="road" points="0.4,2.0;5.0,2.0;5.0,4.0;0.0,4.0" z_order="0"/>'
CAR = '<box label="car" xtl="1.0" ytl="0.0" xbr="2.0" ybr="3.0" z_order="1"/>'
MASK = '<mask label="car" rle="1, 2, 1" left="4" top="3" width="2" height="2" z_order="2"/>'


def write(root: Path, shapes: str, labels: str = LABELS, name: str = "a.png") -> Path:
    root.mkdir(exist_ok=True)
    for each in ("a.png", "b.png"):
        Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(root / each)
    image = f'<image id="0" name="{name}" width="6" height="5">{shapes}</image>'
    empty = '<image id="1" name="b.png" width="6" height="5"/>'
    text = (
        f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>{labels}{image}{empty}</annotations>'
    )
    (root / "annotations.xml").write_text(text)
    return root


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def opened(root: Path, *overrides: str) -> Dataset:
    return open_dataset(load_config("folder", ["data.kind=cvat", f"data.root={root}", *overrides]).data)


def test_shapes_are_drawn_by_their_z_order(tmp_path: Path) -> None:
    dataset = opened(write(tmp_path / "set", MASK + CAR + ROAD))
    assert dataset.classes == ("background", "road", "car")
    first, second = dataset.items("train")
    assert (first.id, first.has_labels, second.id, second.has_labels) == ("a", True, "b", False)
    assert dataset.read_targets(first).tolist() == [
        [0, 2, 2, 0, 0, 0],
        [0, 2, 2, 0, 0, 0],
        [1, 2, 2, 1, 1, 1],
        [1, 2, 2, 1, 1, 2],
        [1, 1, 1, 1, 2, 1],
    ]


def test_pixels_that_nothing_covers_may_have_no_label(tmp_path: Path) -> None:
    root = write(tmp_path / "set", ROAD)
    before = opened(root)
    assert before.read_targets(before.items("train")[0])[0].tolist() == [0] * 6
    dataset = opened(root, "data.uncovered=ignore")
    assert dataset.classes == ("road", "car")
    targets = dataset.read_targets(dataset.items("train")[0])
    assert targets[:2].tolist() == [[255] * 6] * 2
    assert targets[2:].tolist() == [[0] * 6] * 3


def test_labels_that_the_task_does_not_list_follow(tmp_path: Path) -> None:
    assert opened(write(tmp_path / "set", CAR + ROAD, "")).classes == ("background", "car", "road")


def test_it_is_recognised_and_other_xml_is_not(tmp_path: Path) -> None:
    root = write(tmp_path / "set", ROAD)
    (root / "boxes.xml").write_text("<annotation><object/></annotation>")
    found = recognise(root)
    assert {choice.key: choice.value for choice in found.choices}["data.kind"] == "cvat"
    (root / "abroken.xml").write_text("<annotations>")
    with pytest.raises(DataError, match=r"abroken\.xml: cannot be read as XML"):
        recognise(root)
    (root / "annotations.xml").unlink()
    with pytest.raises(DataError, match=r"XML is read as CVAT for images 1\.1"):
        recognise(root)


def test_other_shapes_are_left_out_and_said(tmp_path: Path) -> None:
    notes = opened(write(tmp_path / "set", ROAD + '<polyline label="car" points="0,0;3,3"/>')).notes
    assert "shapes of CVAT that are left out: polyline" in notes


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ('<mask label="car" rle="1, 2" left="0" top="0" width="2" height="2"/>', "runs of 3 pixels, but the box has 4"),
        ('<mask label="car" rle="1, x" left="0" top="0" width="2" height="2"/>', "invalid literal"),
        ('<polygon label="car" points="0,0;1,1"/>', "a polygon of 2 points"),
        ('<polygon points="0,0;1,1;2,2"/>', "a shape that cannot be drawn"),
    ],
)
def test_a_damaged_shape_is_named(tmp_path: Path, shapes: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"a shape that cannot be drawn.*{message}|{message}"):
        opened(write(tmp_path / "set", shapes))


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"an XML file of CVAT whose image is missing \(c\.png\)"):
        opened(write(tmp_path / "set", ROAD, name="c.png"))


def test_a_folder_without_cvat(tmp_path: Path) -> None:
    root = write(tmp_path / "set", ROAD)
    (root / "annotations.xml").unlink()
    with pytest.raises(DataError, match="no XML file of CVAT"):
        opened(root)
