"""Proposals: written, read again as labels, the same pixels and classes; what is left open; what is refused."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from live import Channels, files, live, photo, train_with
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from latentseg.annotate import coco
from latentseg.annotate.formats import FORMAT_NAMES, FormatName
from latentseg.annotate.plan import plan
from latentseg.annotate.polygons import filled, polygons
from latentseg.annotate.prelabel import prelabel
from latentseg.annotate.proposals import OPEN, Proposed
from latentseg.cli import app
from latentseg.config import InferenceConfig
from latentseg.data.datasets import open_dataset
from latentseg.data.drawn.runs import counted, of_counts, packed, unpacked
from latentseg.errors import DataError, UserError
from latentseg.found.recognise import recognise
from latentseg.inference.model import Model
from latentseg.presets import load_config

CLASSES = ('a & "b"', "background", "c<d>é")
SURE = 0.55


def model(inference: InferenceConfig | None = None) -> Model:
    made = live(Channels(), inference)
    return replace(made, run=replace(made.run, folder=Path("runs/photos"), classes=CLASSES))


def blots(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Regions of all sizes with holes, single pixels and pixels that touch at a corner."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8))
    noise = rng.integers(-60, 60, (height, width, 3))
    return np.clip(np.array(small.resize((width, height))) + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "photos"
    for name, size, seed in (("one.png", (40, 56), 0), ("day 2/two.png", (37, 20), 1), ("three & 3.png", (40, 56), 2)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(blots(*size, seed)).save(path)
    return folder


def expected(image: Path) -> NDArray[np.uint8]:
    probs = model().predict(image).probs
    return np.where(probs.max(0) >= SURE, probs.argmax(0), OPEN).astype(np.uint8)


def submitted(folder: Path) -> None:
    """What Label Studio makes of predictions that somebody submits unchanged, and exports."""
    path = folder / "label_studio_tasks.json"
    tasks = json.loads(path.read_text())
    for task in tasks:
        predictions = task.pop("predictions")
        task["annotations"] = [{"result": each["result"], "was_cancelled": False} for each in predictions]
    path.write_text(json.dumps(tasks))


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_a_round_trip_gives_the_same_classes_and_pixels(photos: Path, name: FormatName) -> None:
    assert prelabel(model(), plan(photos, name, photos, SURE)) == 3
    if name == "labelstudio":
        submitted(photos)
    given = [] if name == "masks" else ["data.uncovered=ignore"]
    found = recognise(photos, [*given, "data.labeled=all"])
    overrides = [*found.overrides, *given, "data.holdout=0", "data.labeled=all"]
    dataset = open_dataset(load_config("folder", [each for each in overrides if each.startswith("data.")]).data)
    assert dataset.classes == CLASSES
    items = [item for item in dataset.items("train") if item.has_labels]
    assert len(items) == 3
    for item in items:
        assert item.image is not None
        truth = expected(item.image)
        assert 0.05 < (truth == OPEN).mean() < 0.6
        assert set(np.unique(truth).tolist()) == {0, 1, 2, OPEN}
        np.testing.assert_array_equal(dataset.read_targets(item), truth)


def test_open_pixels_are_background_unless_it_is_said(photos: Path) -> None:
    prelabel(model(), plan(photos, "cvat", photos, SURE))
    dataset = open_dataset(load_config("folder", ["data.kind=cvat", f"data.root={photos}"]).data)
    assert dataset.classes == ("background", CLASSES[0], CLASSES[2])
    item = next(item for item in dataset.items("train") if item.id == "one")
    truth = expected(photos / "one.png")
    np.testing.assert_array_equal(dataset.read_targets(item), np.select([truth == 0, truth == 2], [1, 2], 0))


def region_of(image: Path, label: int) -> tuple[NDArray[np.bool_], float]:
    prediction = model().predict(image)
    pixels = expected(image) == label
    return pixels, float(prediction.probs.max(0)[pixels].mean())


def test_confidence_and_colours_of_each_format(photos: Path, tmp_path: Path) -> None:
    pixels, confidence = region_of(photos / "one.png", 2)
    colors = ["#{:02x}{:02x}{:02x}".format(*color) for color in model().run.palette.tolist()]
    out = {name: tmp_path / name for name in FORMAT_NAMES}
    for name, folder in out.items():
        prelabel(model(), plan(photos, name, folder, SURE))
    tree = json.loads((out["coco"] / coco.FILE).read_text())
    image = next(each for each in tree["images"] if each["file_name"] == "one.png")
    note = next(each for each in tree["annotations"] if (each["image_id"], each["category_id"]) == (image["id"], 3))
    assert note["score"] == pytest.approx(confidence, abs=1e-4)
    assert note["area"] == pixels.sum()
    assert len({each["id"] for each in tree["annotations"]}) == len(tree["annotations"]) == 9
    assert [each["color"] for each in tree["categories"]] == model().run.palette.tolist()

    tasks = json.loads((out["labelstudio"] / "label_studio_tasks.json").read_text())
    places = {task["data"]["image"]: task for task in tasks}
    assert "/data/local-files/?d=photos/day%202/two.png" in places
    (prediction,) = places["/data/local-files/?d=photos/one.png"]["predictions"]
    part = next(each for each in prediction["result"] if each["value"]["brushlabels"] == [CLASSES[2]])
    assert part["score"] == pytest.approx(confidence, abs=1e-4)
    assert prediction["model_version"] == "photos"
    brush = ET.parse(out["labelstudio"] / "label_studio_config.xml").find("BrushLabels")
    assert brush is not None
    assert [(each.get("value"), each.get("background")) for each in brush] == list(zip(CLASSES, colors, strict=True))
    assert (part["from_name"], part["to_name"]) == (brush.get("name"), brush.get("toName"))

    xml = ET.parse(out["cvat"] / "annotations.xml")
    mask = xml.find(f".//image[@name='one.png']/mask[@label='{CLASSES[2]}']")
    assert mask is not None
    assert float(mask.findtext("attribute", "")) == pytest.approx(confidence, abs=1e-4)
    rows = json.loads((out["cvat"] / "cvat_labels.json").read_text())
    assert [(row["name"], row["color"]) for row in rows] == list(zip(CLASSES, colors, strict=True))

    shapes = json.loads((out["labelme"] / "one.json").read_text())
    assert shapes["imagePath"] == "../photos/one.png"
    parts = [shape for shape in shapes["shapes"] if shape["label"] == CLASSES[2]]
    sizes = [filled([(int(x), int(y)) for x, y in shape["points"]])[0].sum() for shape in parts]
    means = [float(shape["description"].removeprefix("confidence ")) for shape in parts]
    assert sum(sizes) == pixels.sum()
    assert np.average(means, weights=sizes) == pytest.approx(confidence, abs=1e-4)

    with Image.open(out["masks"] / "masks" / "day 2" / "two.png") as picture:
        assert np.array_equal(np.array(picture), expected(photos / "day 2" / "two.png"))
        palette: Any = picture.getpalette()
        assert palette[:9] == model().run.palette.flatten().tolist()


def test_nothing_open_at_zero_and_nothing_proposed_at_one(photos: Path, tmp_path: Path) -> None:
    prelabel(model(), plan(photos, "masks", tmp_path / "all", 0))
    assert OPEN not in np.array(Image.open(tmp_path / "all" / "masks" / "one.png"))
    for name in FORMAT_NAMES:
        assert prelabel(model(), plan(photos, name, tmp_path / name, 1)) == 3
    assert files(tmp_path / "masks") == {"classes.txt"}
    assert files(tmp_path / "labelme") == {"labels.txt", "labelme.yaml"}
    tree = json.loads((tmp_path / "coco" / coco.FILE).read_text())
    assert (len(tree["images"]), tree["annotations"]) == (3, [])
    assert [
        task["predictions"] for task in json.loads((tmp_path / "labelstudio/label_studio_tasks.json").read_text())
    ] == [[]] * 3


@pytest.mark.parametrize("seed", range(6))
def test_polygons_are_filled_to_the_same_pixels(seed: int) -> None:
    pixels = blots(60, 44, seed)[..., 0] > (90, 128, 200)[seed % 3]
    pixels[20:40, 20:40] = True
    pixels[25:35, 25:35] = False  # a hole with an island that has a hole
    pixels[28:32, 28:32] = True
    pixels[29:31, 29:31] = False
    again = np.zeros_like(pixels)
    for polygon in polygons(pixels):
        piece, (left, top) = filled(polygon)
        part = again[top : top + piece.shape[0], left : left + piece.shape[1]]
        assert not (part & piece).any()
        part |= piece
    np.testing.assert_array_equal(again, pixels)


def test_a_hole_costs_a_bridge_and_straight_edges_no_corners() -> None:
    pixels = np.ones((9, 12), bool)
    pixels[3:6, 4:8] = False
    (polygon,) = polygons(pixels)
    around = [(3, 3), (3, 5), (4, 6), (7, 6), (8, 5), (8, 3), (7, 2), (4, 2), (3, 3)]
    assert polygon == [(0, 0), (11, 0), (11, 8), (0, 8), (0, 3), *around, (0, 3)]
    assert len(list(polygons(np.eye(3, dtype=bool)))) == 3


def test_runs() -> None:
    region = np.array([[0, 0, 1], [1, 1, 0]], bool)
    assert counted(region) == [2, 3, 1]
    assert counted(~region) == [0, 2, 3, 1]
    for each in (region, ~region, np.ones((300, 70), bool), np.zeros((300, 70), bool)):
        assert np.array_equal(of_counts(counted(each), (each.shape[0], each.shape[1])), each)
        assert np.array_equal(unpacked(packed(each)).reshape(*each.shape, 4), np.repeat(each[..., None] * 255, 4, 2))
    with pytest.raises(ValueError, match="runs of 5 pixels, but the box has 6"):
        of_counts([2, 3], (2, 3))


def test_regions_are_of_classes_that_are_proposed() -> None:
    ids = np.array([[2, OPEN], [0, 2]], np.uint8)
    regions = list(Proposed(Path("a.png"), 1, ids, np.array([[0.5, 0.2], [1, 0.75]], np.float32)).regions())
    assert [(region.label, region.confidence) for region in regions] == [(0, 1.0), (2, 0.625)]


def test_a_huge_image_goes_in_tiles(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentseg.inference.tiles.WHOLE_PIXELS", 500)
    monkeypatch.setattr("latentseg.inference.tiles.TILE", 16)
    prelabel(model(), plan(photos, "masks", tmp_path / "out", SURE))
    truth = expected(photos / "one.png")
    assert np.array_equal(np.array(Image.open(tmp_path / "out" / "masks" / "one.png")), truth)


def test_results_are_not_overwritten(photos: Path, tmp_path: Path) -> None:
    prelabel(model(), plan(photos, "labelme", tmp_path / "out", SURE))
    with pytest.raises(UserError, match=r"two\.json exists and is not overwritten: name another folder with --out"):
        plan(photos, "labelme", tmp_path / "out")
    other = tmp_path / "other"
    other.mkdir()
    (other / "classes.txt").write_text("x\ny\n")
    with pytest.raises(UserError, match=r"classes\.txt exists with other classes"):
        prelabel(model(), plan(photos, "masks", other))
    assert files(other) == {"classes.txt"}


@pytest.mark.parametrize("name", ["cvat", "labelme"])
def test_an_image_that_cannot_be_read_costs_that_image(photos: Path, tmp_path: Path, name: str) -> None:
    (photos / "bad.png").write_bytes(b"no image")
    with pytest.raises(
        DataError, match=r"(?s)1 of 4 images have no proposals; the proposals for the others are in .*bad\.png"
    ):
        prelabel(model(), plan(photos, name, tmp_path / "out", SURE))
    written = {"cvat": {"annotations.xml", "cvat_labels.json"}}.get(
        name, {"one.json", "three & 3.json", "day 2/two.json", "labels.txt", "labelme.yaml"}
    )
    assert files(tmp_path / "out") == written


@pytest.mark.parametrize(("name", "lost"), [("cvat", 2), ("labelstudio", 1), ("coco", 0), ("labelme", 0)])
def test_a_name_that_the_format_cannot_hold_costs_that_image(
    photos: Path, tmp_path: Path, name: str, lost: int
) -> None:
    for odd in (b"\xff.png", b"a\x01.png"):
        (photos / os.fsdecode(odd)).write_bytes((photos / "one.png").read_bytes())
    if lost:
        with pytest.raises(DataError, match=f"{lost} of 5 images have no proposals"):
            prelabel(model(), plan(photos, name, tmp_path / "out", SURE))
    else:
        assert prelabel(model(), plan(photos, name, tmp_path / "out", SURE)) == 5
    if name == "cvat":
        assert len(ET.parse(tmp_path / "out" / "annotations.xml").findall("image")) == 3


def test_the_verb(tmp_path: Path) -> None:
    run = train_with(tmp_path / "run", "method.name=supervised")
    (tmp_path / "new").mkdir()
    Image.fromarray(photo()).save(tmp_path / "new" / "a.png")
    words = ["prelabel", str(run), str(tmp_path / "new"), "--format", "cvat", "--threshold", "0.2"]
    result = CliRunner().invoke(app, [*words, "--set", "inference.mirror=true"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "1 images in " in result.output
    assert "next: make a task with the labels of cvat_labels.json (Raw) and upload annotations.xml" in result.output
    trained = Model.open(run, overrides=["inference.mirror=true"])
    probs = trained.predict(photo()).probs
    mask = ET.parse(tmp_path / "new-cvat" / "annotations.xml").find("image/mask")
    assert mask is not None
    pixels = (probs.argmax(0) == trained.classes.index(str(mask.get("label")))) & (probs.max(0) >= 0.2)
    assert float(mask.findtext("attribute", "")) == pytest.approx(probs.max(0)[pixels].mean(), abs=1e-4)


def test_where_no_image_can_be_read_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "bad.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="nothing is written"):
        prelabel(model(), plan(tmp_path / "photos", "coco"))
    assert list((tmp_path / "photos-coco").iterdir()) == []


@pytest.mark.parametrize(
    ("folder", "name", "threshold", "message"),
    [
        ("photos", "yolo", 0.5, "--format yolo: choose masks, coco, labelstudio, cvat, labelme"),
        ("photos", "cvat", 1.5, r"--threshold 1\.5 is no probability: choose one in 0\.\.1"),
        ("photos", "cvat", float("nan"), "--threshold nan is no probability"),
        ("photos/one.png", "cvat", 0.5, "is no folder: name the folder of the images"),
        ("nothing", "cvat", 0.5, "is no folder"),
        ("empty", "cvat", 0.5, "empty holds no image"),
    ],
)
def test_what_is_refused(photos: Path, folder: str, name: str, threshold: float, message: str) -> None:
    (photos.parent / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        plan(photos.parent / folder, name, None, threshold)


def test_a_list_in_place_of_a_folder(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = tmp_path / "next" / "suggest.txt"
    listed.parent.mkdir()
    listed.write_text(f"{photos / 'day 2/two.png'}\nphotos/one.png\n\n")
    monkeypatch.chdir(tmp_path)
    chosen = plan(listed, "labelme")
    assert chosen.out == listed.with_name("suggest-labelme")
    assert prelabel(model(), chosen) == 2
    assert (chosen.out / "day 2/two.json").is_file()
    assert (chosen.out / "one.json").is_file()
    listed.write_text("gone.png\n")
    with pytest.raises(UserError, match=r"suggest\.txt names gone\.png, which is no file here or in .*next"):
        plan(listed, "labelme")
    listed.write_text("\n")
    with pytest.raises(UserError, match="names no image"):
        plan(listed, "labelme")


def test_coco_without_pycocotools(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pycocotools.mask", None)
    with pytest.raises(UserError, match=r"needs pycocotools: pip install 'latentseg\[coco\]'"):
        plan(photos, "coco")


def test_results_lie_beside_the_folder(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan(photos, "cvat").out == photos.parent / "photos-cvat"
    monkeypatch.chdir(photos)
    assert plan(Path(), "cvat").out == photos.parent / "photos-cvat"
