"""Annotations that are damaged or odd are refused by their file: no traceback, no crash of a library, no wrong mask."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latentseg.config import DataConfig
from latentseg.data.datasets import Dataset, open_dataset
from latentseg.data.drawn.runs import counted, of_counts, of_text
from latentseg.errors import DataError

HEIGHT, WIDTH = 8, 6
BOX = [1, 1, 4, 1, 4, 5, 1, 5]
CORNERS = [[1, 1], [4, 1], [4, 5], [1, 5]]
SIZE = {"height": HEIGHT, "width": WIDTH}
LABELME = {"shapes": [{"label": "a", "points": CORNERS}], "imagePath": "x.png", "imageHeight": 8, "imageWidth": 6}
REGION = {"original_height": 8, "original_width": 6, "value": {"points": CORNERS, "polygonlabels": ["a"]}}
STUDIO = [{"data": {"image": "x.png"}, "annotations": [{"result": [REGION]}]}]
COCO = {
    "images": [{"id": 1, "file_name": "x.png", **SIZE}],
    "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    "annotations": [
        {"image_id": 1, "category_id": 1, "segmentation": [BOX]},
        {"image_id": 1, "category_id": 2, "segmentation": {"size": [HEIGHT, WIDTH], "counts": [2, 3, 43]}},
    ],
}
TREES: dict[str, Any] = {"labelme": LABELME, "label_studio": STUDIO, "coco": COCO}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def open_as(tmp_path: Path) -> Callable[..., Dataset]:
    def opened(kind: str, tree: Any, **options: object) -> Dataset:
        root = tmp_path / "set"
        root.mkdir(exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / "x.png")
        (root / "x.json").write_text(json.dumps(tree))
        return open_dataset(DataConfig.model_validate({"kind": kind, "root": str(root), "labeled": "all", **options}))

    return opened


def changed(kind: str, path: str, value: object) -> Any:
    tree = copy.deepcopy(TREES[kind])
    part, *rest = [int(name) if name.isdigit() else name for name in path.split(".")]
    at = tree
    for name in rest:
        at, part = at[part], name
    at[part] = value
    return tree


@pytest.mark.parametrize(
    ("kind", "path", "values", "message"),
    [
        ("labelme", "shapes.0", [5, None, [1]], "annotations of an unknown form"),
        ("labelme", "shapes.0.points", [None, 7, [], [[1]], [["x", 1]] * 3], "a shape that cannot be drawn"),
        ("labelme", "shapes.0.points.1.0", [float("nan"), 1e300, -1e9], r"a shape .*x.json \(a corner at"),
        ("labelme", "imageHeight", ["8", -8, 10**9, 7, [8]], r"another size than its annotations say.*6x8, annotated"),
        ("label_studio", "0.annotations.0.result.0", [5, None, "x"], "annotations of an unknown form"),
        ("label_studio", "0.annotations", [7, {"a": 1}], "annotations of an unknown form"),
        ("label_studio", "0.annotations.0.result.0.value.points", [[[1, 1]], None], "a region that cannot be drawn"),
        ("label_studio", "0.annotations.0.result.0.original_width", [10**30, 5], "another size than its annotations"),
        ("coco", "images.0", [5, {}, {"id": [1]}], "annotations of an unknown form"),
        ("coco", "categories.0", [None, {"id": {}, "name": "a"}], "annotations of an unknown form"),
        ("coco", "annotations.1.category_id", [None, []], "annotations of an unknown form"),
        ("coco", "annotations.1.category_id", [9], "categories that are not listed"),
        ("coco", "annotations.0.segmentation.0", [[1, 2, 3, 4], [*BOX, 1], "x", 3], "an outline that cannot be drawn"),
        ("coco", "annotations.0.segmentation.0.0", [float("nan"), 1e9, "x"], "an outline that cannot be drawn"),
        ("coco", "annotations.1.segmentation.size", [[6, 8], [-1, 6], None], "an outline that cannot be drawn"),
        ("coco", "annotations.1.segmentation.counts", [[2, 3], [], [2, -3, 49], "0", "o", "é"], "an outline that"),
        ("coco", "images.0.width", [10**9, None, 5], "another size than its annotations say"),
    ],
)  # fmt: skip
def test_what_is_damaged_is_refused_by_its_file(
    kind: str, path: str, values: list[object], message: str, open_as: Callable[..., Dataset]
) -> None:
    pytest.importorskip("pycocotools")
    for value in values:
        with pytest.raises(DataError, match=f"(?s){message}") as caught:
            open_as(kind, changed(kind, path, value))
        assert "x.json" in str(caught.value) or "x.png" in str(caught.value)


def test_runs_of_coco_are_read_as_pycocotools_does() -> None:
    mask = pytest.importorskip("pycocotools.mask")
    random = np.random.default_rng(0)
    for share in (0.01, 0.2, 0.9):
        region = random.random((37, 53)) < share
        text = mask.encode(np.asfortranarray(region.astype(np.uint8)))["counts"].decode()
        assert of_text(text) == counted(region.T)
        np.testing.assert_array_equal(of_counts(of_text(text), (53, 37)).T, region)


def test_masks_of_coco_pixel_by_pixel(open_as: Callable[..., Dataset]) -> None:
    pytest.importorskip("pycocotools")
    dataset = open_as("coco", COCO)
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[1:5, 1:4] = 1
    expected[2:5, 0] = 2  # counts run down the columns
    np.testing.assert_array_equal(dataset.read_targets(dataset.items("train")[0]), expected)


def test_what_cannot_be_drawn_is_named_at_once_and_left_out_if_asked(
    open_as: Callable[..., Dataset], tmp_path: Path
) -> None:
    open_as("labelme", LABELME)
    for name in "yz":
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / f"set/{name}.png")
        tree = changed("labelme", "shapes.0.points", None) | {"imagePath": f"{name}.png"}
        (tmp_path / f"set/{name}.json").write_text(json.dumps(tree))
    with pytest.raises(DataError, match=r"(?s)annotations of 2 of 3 images .*2 x a shape that .*y.json .*z.json"):
        open_as("labelme", LABELME)
    dataset = open_as("labelme", LABELME, on_bad="skip")
    assert [item.id for item in dataset.items("train") if item.has_labels] == ["x"]
    (note,) = dataset.notes
    assert "2 of 3 images cannot be drawn; they have no label (data.on_bad=skip)" in note


def test_an_image_is_annotated_once(open_as: Callable[..., Dataset]) -> None:
    twice = changed("coco", "images", [COCO["images"][0], COCO["images"][0] | {"id": 2}])
    twice["annotations"][1]["image_id"] = 2
    with pytest.raises(DataError, match=r"1 images are annotated twice \(x\); leave one of the annotations"):
        open_as("coco", twice)


def test_images_that_differ_by_their_ending_keep_their_masks(open_as: Callable[..., Dataset], tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "set/x.bmp")
    both = changed("coco", "images", [COCO["images"][0], COCO["images"][0] | {"id": 2, "file_name": "x.bmp"}])
    both["annotations"][1]["image_id"] = 2
    dataset = open_as("coco", both)
    values = {item.id: np.unique(dataset.read_targets(item)).tolist() for item in dataset.items("train")}
    assert values == {"x.png": [0, 1], "x.bmp": [0, 2]}


@pytest.mark.parametrize("said", [{}, {"imageHeight": 6, "imageWidth": 8}])
def test_shapes_lie_on_the_upright_image(said: dict[str, int], open_as: Callable[..., Dataset], tmp_path: Path) -> None:
    """LabelMe shows it so, and need not say the size."""
    (tmp_path / "set").mkdir()
    exif = Image.Exif()
    exif[0x112] = 6
    Image.new("RGB", (6, 8)).save(tmp_path / "set/y.jpg", exif=exif)  # upright it is 8 wide and 6 high
    tree = {"shapes": [{"label": "a", "points": [[5, 1], [7, 1], [7, 3], [5, 3]]}], "imagePath": "y.jpg"} | said
    (tmp_path / "set/y.json").write_text(json.dumps(tree))
    dataset = open_as("labelme", LABELME)
    ids = dataset.read_targets(next(item for item in dataset.items("train") if item.id == "y"))
    expected = np.zeros((6, 8), np.uint8)
    expected[1:4, 5:8] = 1
    np.testing.assert_array_equal(ids, expected)
