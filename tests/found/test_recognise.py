"""What is said of folders that are odd, ambiguous or empty, and what people decide themselves."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import layouts
import numpy as np
import pytest
from layouts import save

from latentseg.data.datasets import Dataset, open_dataset
from latentseg.data.masks import read_mask
from latentseg.errors import DataError
from latentseg.found.choices import Found
from latentseg.found.recognise import recognise
from latentseg.presets import load_config

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def opened(found: Found, *more: str) -> Dataset:
    return open_dataset(load_config("folder", [*found.overrides, *more]).data)


def chosen(found: Found) -> dict[str, object]:
    return {choice.key: choice.value for choice in found.choices}


def photos(root: Path, *values: int, name: str = "{}_mask.png", folder: str = "") -> Path:
    """Six images, and masks that hold all the values."""
    mask = np.resize(np.array(values, np.uint8), (40, 40))
    for i in range(6):
        save(root / folder / f"p{i}.png", PHOTO)
        save(root / name.format(f"p{i}"), mask)
    return root


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("{}_mask.png", ""),
        ("mask_{}.png", ""),
        ("{}-seg.png", ""),
        ("masks/{}.png", ""),
        ("ground_truth/{}.png", "photos"),
        ("x/annotations/{}_labels.png", "x/pictures"),
        ("2/GT/{}.png", "2/RGB"),
    ],
)
def test_names_of_images_and_masks(name: str, folder: str, tmp_path: Path) -> None:
    found = recognise(photos(tmp_path / "set", 0, 1, 2, name=name, folder=folder), ["data.holdout=0"])
    items = opened(found).items("train")
    assert [(item.id, item.mask is not None) for item in items] == [(f"p{i}", True) for i in range(6)]


def test_the_split_of_a_folder_is_found_under_its_usual_names(tmp_path: Path) -> None:
    for split in ("Train", "valid", "test"):
        photos(tmp_path / "set" / split, 0, 1, name="masks/{}.png", folder="images")
    dataset = opened(recognise(tmp_path / "set"))
    assert {split: len(dataset.items(split)) for split in dataset.splits} == {"train": 6, "val": 6, "test": 6}


@pytest.mark.parametrize(
    ("images", "masks", "splits"),
    [
        ("images/{}", "masks/{}", ("train", "val")),
        ("images/{}", "masks/{}", ("train", "valid")),
        ("{}/images", "{}/masks", ("Train", "Val")),
        ("img/{}", "gt_{}", ("train", "validation")),
        ("{}", "{}annot", ("train", "val")),
        ("set/{}", "annotations/{}/x", ("train2017", "val2017")),
    ],
)
def test_images_of_all_splits_may_bear_the_same_names(
    images: str, masks: str, splits: tuple[str, str], tmp_path: Path
) -> None:
    """The masks of train never become those of val."""
    for value, split in enumerate(splits):
        photos(tmp_path / "set", value, 2, name=f"{masks.format(split)}/{{}}.png", folder=images.format(split))
    dataset = opened(recognise(tmp_path / "set"))
    assert {split: len(dataset.items(split)) for split in dataset.splits} == {"train": 6, "val": 6}
    for value, split in enumerate(("train", "val")):
        assert all(np.unique(read_mask(item.mask)).tolist() == [value, 2] for item in dataset.items(split) if item.mask)
        assert all(item.has_labels for item in dataset.items(split))


LINES = [f"p{i}.png,p{i}_mask.png,{'val' if i > 3 else 'train'}" for i in range(6)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("p9.png,p9_mask.png,train", "line 7 names a file that is not there (p9.png)"),
        ("p0.png,p1_mask.png,train", "line 7 names no image, or one that is named before"),
        (f"{'x' * 200_000},,", "cannot be read as CSV (field larger than field limit (131072))"),
    ],
)
def test_a_list_of_pairs_that_is_wrong_is_named(line: str, message: str, tmp_path: Path) -> None:
    root = photos(tmp_path / "set", 0, 1)
    (root / "pairs.csv").write_text("\n".join([*LINES, line]))
    (told,) = [problem.what for problem in recognise(root).problems]
    assert message in told
    assert told.startswith(f"a list of pairs that is not used: {root}/pairs.csv: ")
    with pytest.raises(DataError, match=re.escape(message)):
        open_dataset(load_config("folder", [f"data.root={root}", "data.pairs=pairs.csv", "data.classes=[a,b]"]).data)


def test_an_image_of_no_split_in_a_list_of_pairs_is_refused(tmp_path: Path) -> None:
    """It would be one more for training."""
    root = photos(tmp_path / "set", 0, 1)
    (root / "pairs.csv").write_text("\n".join(LINES))
    assert {split: len(opened(recognise(root)).items(split)) for split in ("train", "val")} == {"train": 4, "val": 2}
    (root / "pairs.csv").write_text("\n".join([*LINES[:5], "p5.png,p5_mask.png,holdout"]))
    with pytest.raises(DataError, match=r"line 6 names no split, as most lines do \(p5.png,p5_mask.png,holdout\)"):
        open_dataset(load_config("folder", [f"data.root={root}", "data.pairs=pairs.csv", "data.classes=[a,b]"]).data)


def test_every_site_has_folders_of_its_own(tmp_path: Path) -> None:
    for site in ("a", "b"):
        photos(tmp_path / "set" / site, 0, 1, name="masks/{}.png", folder="images")
    found = recognise(tmp_path / "set", ["data.holdout=0"])
    assert chosen(found)["data.pairs"] == ["*/images/{id}", "*/masks/{id}"]
    items = opened(found).items("train")
    assert sorted(item.id for item in items) == [f"{site}/p{i}" for site in "ab" for i in range(6)]
    assert all(item.mask and item.image and item.mask.parents[1] == item.image.parents[1] for item in items)


def test_masks_of_all_splits_in_one_folder(tmp_path: Path) -> None:
    photos(tmp_path / "set", 0, 1, name="masks/{}.png", folder="images/train")
    save(tmp_path / "set" / "images" / "val" / "q.png", PHOTO)
    save(tmp_path / "set" / "masks" / "q.png", np.resize(np.array([0, 1], np.uint8), (40, 40)))
    dataset = opened(recognise(tmp_path / "set"))
    assert {split: sum(i.has_labels for i in dataset.items(split)) for split in dataset.splits} == {
        "train": 6,
        "val": 1,
    }


def test_pictures_named_after_labelled_images_are_said(tmp_path: Path) -> None:
    root = photos(tmp_path / "set", 0, 1)
    save(root / "p0_overlay.png", PHOTO)
    assert [problem.what for problem in recognise(root).problems] == [
        "1 images without mask are named after images with one (p0_overlay)"
    ]


def test_a_photograph_and_a_mask_told_by_their_endings(tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / "set" / f"p{i}.jpg", PHOTO)
        save(tmp_path / "set" / f"p{i}.png", np.resize(np.array([0, 1], np.uint8), (40, 40)))
    assert chosen(recognise(tmp_path / "set"))["data.pairs"] == ["{id}.jpg", "{id}.png"]


@pytest.mark.parametrize(
    ("values", "classes", "mapping"),
    [
        ((0, 1, 2), ["class_0", "class_1", "class_2"], None),
        ((0, 1, 2, 255), ["class_0", "class_1", "class_2"], None),
        ((0, 255), ["background", "foreground"], {0: 0, 255: 1}),
        ((0, 1), ["background", "foreground"], None),
        ((0, 128), ["background", "foreground"], {0: 0, 128: 1}),
        ((1, 2, 7), ["class_1", "class_2", "class_7"], {1: 0, 2: 1, 7: 2}),
    ],
)
def test_values_without_names(
    values: tuple[int, ...], classes: list[str], mapping: dict[int, int] | None, tmp_path: Path
) -> None:
    found = recognise(photos(tmp_path / "set", *values))
    assert chosen(found).get("data.classes") == classes
    assert chosen(found).get("data.class_map") == mapping
    ids = opened(found).read_targets(opened(found).items("train")[0])
    assert len(np.unique(ids)) == len(values)


@pytest.mark.parametrize(
    ("values", "names", "mapping"),
    [
        ((0, 1), "a b c", None),
        ((1, 2, 3), "a b c", {1: 0, 2: 1, 3: 2}),
        ((0, 255), "a b", {0: 0, 255: 1}),
        ((0, 1, 2), "a void c", {0: 0, 2: 1}),
        ((0, 1), "__ignore__ a b", None),
    ],
)
def test_values_with_names(values: tuple[int, ...], names: str, mapping: object, tmp_path: Path) -> None:
    root = photos(tmp_path / "set", *values)
    (root / "labels.txt").write_text(names.replace(" ", "\n"))
    found = recognise(root)
    assert chosen(found)["data.classes"] == [name for name in names.split() if name not in {"void", "__ignore__"}]
    assert chosen(found).get("data.class_map") == mapping


def test_names_that_do_not_fit_are_refused_and_the_remedy_works(tmp_path: Path) -> None:
    root = photos(tmp_path / "set", 0, 1, 2, 3)
    (root / "labels.txt").write_text("a\nb\nc\n")
    with pytest.raises(DataError, match=r"3 names do not cover.*data\.class_map=\{1: 0, 2: 1, 3: 2\}"):
        recognise(root)
    given = ["data.class_map={1: 0, 2: 1, 3: 2}", "data.classes=[a,b,c]"]
    ids = opened(recognise(root, given), *given).read_targets(opened(recognise(root, given), *given).items("train")[0])
    assert np.unique(ids).tolist() == [0, 1, 2, 255]


def test_smoothed_masks_are_no_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="more than 64 values"):
        recognise(photos(tmp_path / "set", *range(100)))


def test_colours_and_numbers_do_not_mix(tmp_path: Path) -> None:
    root = photos(tmp_path / "set", 0, 1)
    save(root / "p0_mask.png", PHOTO)
    with pytest.raises(DataError, match="1 masks show colours, 5 hold numbers"):
        recognise(root)


def test_masks_saved_as_jpeg_are_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a mask in a format that alters values.*; save masks as PNG"):
        recognise(photos(tmp_path / "set", 0, 1, name="masks/{}.jpg"))


def test_a_folder_without_masks_says_what_it_holds(tmp_path: Path) -> None:
    save(tmp_path / "set" / "a.png", PHOTO)
    (tmp_path / "set" / "a.txt").write_text("0 0.1 0.1 0.2 0.2\n")
    with pytest.raises(DataError, match=r"no masks are recognised.*YOLO"):
        recognise(tmp_path / "set")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "scan.nii").write_text("")
    with pytest.raises(DataError, match=r"no images are in it.*volumes"):
        recognise(tmp_path / "other")


def test_a_test_folder_without_masks_is_left_out_and_said(tmp_path: Path) -> None:
    root = photos(tmp_path / "set", 0, 1, name="train/masks/{}.png", folder="train/images")
    save(root / "test" / "images" / "t.png", PHOTO)
    found = recognise(root)
    assert opened(found).splits == ["train", "holdout"]
    assert [problem.what for problem in found.problems] == ["1 images of test have no mask: they are not used"]


def test_a_plain_val_folder_without_masks_is_not_scored(tmp_path: Path) -> None:
    root = photos(tmp_path / "set", 0, 1, name="masks/train/{}.png", folder="images/train")
    save(root / "images" / "val" / "v.png", PHOTO)
    found = recognise(root)
    assert (chosen(found)["data.holdout"], chosen(found)["validate_split"]) == (1, "holdout")
    assert [problem.what[:30] for problem in found.problems] == ["no image of val has a mask: a "]


def test_further_images_are_unlabelled_by_their_folder_s_name_or_named(tmp_path: Path) -> None:
    root = photos(tmp_path / "set", 0, 1, name="masks/{}.png", folder="images")
    save(root / "unlabeled" / "u.png", PHOTO)
    save(root / "extra" / "v.png", PHOTO)
    found = recognise(root)
    assert chosen(found)["data.unlabeled"] == [str(root / "unlabeled")]
    assert [problem.what for problem in found.problems] == [f"1 images in {root / 'extra'}"]


def test_a_fifth_is_held_out_the_same_each_time(tmp_path: Path) -> None:
    found = recognise(photos(tmp_path / "set", 0, 1))
    assert (chosen(found)["data.holdout"], chosen(found)["validate_split"]) == (1, "holdout")
    held = [[item.id for item in opened(found).items("holdout")] for _ in range(2)]
    assert held[0] == held[1]


def test_a_value_that_means_no_label_needs_no_name(tmp_path: Path) -> None:
    root = photos(tmp_path / "set", 0, 1, 11)
    given = ["data.classes=[cat,dog]"]
    assert [problem.what for problem in recognise(root, given).problems if "do not cover" in problem.what]
    assert not recognise(root, [*given, "data.ignored_values=[11,255]"]).problems


def test_what_is_given_is_not_looked_for(tmp_path: Path) -> None:
    root = photos(tmp_path / "set", 0, 1)
    given = ["data.holdout=3", "data.classes=[cat,dog]"]
    found = recognise(root, given)
    assert not {"data.holdout", "data.classes"} & chosen(found).keys()
    assert opened(found, *given).classes == ("cat", "dog")
    assert len(opened(found, *given).items("holdout")) == 3


def test_list_markup_is_shown_as_it_is(tmp_path: Path, printed: Callable[[object], str]) -> None:
    found = recognise(photos(tmp_path / "set", 0, 255))
    assert "[background, foreground]" in printed(found.table())


def test_drawn_masks_follow_the_annotations(tmp_path: Path) -> None:
    root = tmp_path / "set"
    layouts.labelme(root)
    first = opened(recognise(root))
    before = first.read_targets(first.items("train")[0])
    for path in root.glob("*.json"):
        tree = json.loads(path.read_text())
        path.write_text(json.dumps(tree | {"shapes": tree["shapes"][:2]}))
    second = opened(recognise(root))
    assert not np.array_equal(before, second.read_targets(second.items("train")[0]))


def test_outlines_of_coco_that_are_missing_are_said(tmp_path: Path) -> None:
    root = tmp_path / "set"
    layouts.coco_panoptic(root)
    path = root / "annotations" / "panoptic_train2017.json"
    tree = json.loads(path.read_text())
    path.write_text(json.dumps(tree | {"annotations": tree["annotations"][1:]}))
    (root / "train2017" / f"{tree['images'][1]['file_name'].split('.')[0]}.jpg").unlink()
    found = recognise(root)
    assert [problem.what for problem in found.problems] == [
        "1 images of panoptic_train2017.json are not there: left out",
        "1 images of panoptic_train2017.json have no outlines: unlabelled",
    ]
    assert sum(not item.has_labels for item in opened(found).items("train")) == 1


def test_images_of_several_tasks_need_their_number(tmp_path: Path) -> None:
    root = tmp_path / "set"
    layouts.label_studio_png(root)
    (root / "task-1.jpg").rename(root / "street.jpg")
    with pytest.raises(DataError, match=r"do not say which image.*export `JSON`"):
        recognise(root)
