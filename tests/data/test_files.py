import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checking import notes_of
from PIL import Image

from latentseg.config import DataConfig
from latentseg.data.datasets import open_dataset
from latentseg.data.files import (
    BROKEN_LINK,
    SEEN_FOLDER,
    image_files,
    read_text,
    shorten,
    skipped_files,
    skipped_note,
)
from latentseg.data.pairing import mask_like, near_names, orphan_notes
from latentseg.errors import DataError, UserError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_linked_folders_are_followed_and_circles_end(tmp_path: Path) -> None:
    root, far = tmp_path / "root", tmp_path / "far"
    touch(root / "a/1.png", far / "deep/2.png", root / ".cache/hidden.png", root / ".3.png")
    (root / "disk").symlink_to(far)
    (far / "deep/back").symlink_to(root)
    (root / "again").symlink_to(root / "a")
    (root / "own").symlink_to(root / "own")
    names = [path.relative_to(root).as_posix() for path in image_files(root)]
    assert names == ["a/1.png", "disk/deep/2.png"]  # the folder itself, never a link to it
    found = skipped_files(root)
    assert {path.name for path in found[SEEN_FOLDER]} == {"back", "again"}
    assert found[BROKEN_LINK] == [root / "own"]


def test_what_is_left_out_is_counted_and_named(tmp_path: Path) -> None:
    touch(
        *(
            tmp_path / name
            for name in ("1.png", "2.heic", "deep/3.HEIC", "4.avif", "5.gif", "6", "notes.txt", ".DS_Store")
        )
    )
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert {what: [path.name for path in paths] for what, paths in skipped_files(tmp_path).items()} == {
        ".heic": ["2.heic", "3.HEIC"],
        ".avif": ["4.avif"],
        ".gif": ["5.gif"],
        "no ending": ["6"],
        "broken link": ["gone.jpg"],
    }
    (note,) = skipped_note(tmp_path)
    assert note.startswith(f"6 files below {tmp_path} are left out: 2 .heic (2.heic, 3.HEIC), 1 .avif (4.avif), ")
    (tmp_path / "all").mkdir()
    assert skipped_note(tmp_path / "all") == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0)
    with pytest.raises(DataError, match="shut: the folder cannot be listed"):
        image_files(tmp_path)


@pytest.mark.parametrize("root", ["x" * 5000, "a\0b", "~nobody_of_this_name/x"])
def test_odd_names_of_folders_are_no_crash(root: str) -> None:
    with pytest.raises(UserError, match="does not exist") as error:
        open_dataset(DataConfig.model_construct(root=root))  # the configuration refuses most of them
    assert len(str(error.value)) < 400
    assert shorten("a \n b" * 100, 10) == "a ba ba..."


@pytest.mark.parametrize(
    ("mask", "image"),
    [
        ("s04_mask", "s04"),
        ("S04", "s04"),
        ("cafe\u0301", "caf\u00e9"),
        ("s04", "s04_image"),
        ("city/s04_gt_mask", "city/s04_photo"),
    ],
)
def test_masks_are_told_from_images_that_they_nearly_name(mask: str, image: str) -> None:
    assert near_names(["frame_7", mask], ["frame_8", "s0", image, "other"]) == {mask: image}


def test_orphans_are_named_with_both_names() -> None:
    assert orphan_notes("train", Path("masks"), [], ["bare"]) == []
    (note,) = orphan_notes("train", Path("masks"), ["x9", "s04_mask"], ["s04", "s05"])
    assert note == (
        "2 masks of train belong to no image, and 2 images have no mask: mask s04_mask, beside the image s04; also x9. "
        "A mask bears the name of its image: rename those in masks"
    )
    (note,) = orphan_notes("val", Path("masks"), ["cafe\u0301"], ["caf\u00e9"])
    assert "once composed (NFC) and once not (NFD)" in note
    (note,) = orphan_notes("val", Path("masks"), ["x9"], [])
    assert "mask x9; an image of the same name is missing" in note


def test_a_data_set_says_which_masks_belong_to_no_image(folder_set: Callable[..., Path]) -> None:
    root = folder_set(train=3)
    assert open_dataset(DataConfig(root=str(root))).notes == []
    (root / "masks/train/01.png").rename(root / "masks/train/01_mask.png")
    (note,) = open_dataset(DataConfig(root=str(root))).notes
    assert note.startswith("1 masks of train belong to no image, and 1 images have no mask: mask 01_mask, beside the")


@pytest.mark.parametrize("form", ["cam1.2021.05.{}", "scene {}", "scene {} b.c"])
@pytest.mark.parametrize("line", ["{}", "{}  ", "/JPEGImages/{}.jpg /SegmentationClassAug/{}.png", "JPEGImages/{}.jpg"])
def test_ids_of_voc_may_hold_dots_and_spaces(voc_set: Callable[..., Path], form: str, line: str) -> None:
    root = voc_set(train=3)
    voc = root / "VOCdevkit/VOC2012"
    names = [form.format(i) for i in range(3)]
    for i, name in enumerate(names):
        (voc / f"JPEGImages/2007_00000{i}.jpg").rename(voc / f"JPEGImages/{name}.jpg")
        (voc / f"SegmentationClassAug/2007_00000{i}.png").rename(voc / f"SegmentationClassAug/{name}.png")
    text = "".join(line.format(name, name) + "\n" for name in names)
    (voc / "ImageSets/Segmentation/train.txt").write_text(text)
    items = open_dataset(DataConfig(kind="voc", root=str(root))).items("train")
    assert [item.id for item in items] == names
    assert [item.mask for item in items] == [voc / f"SegmentationClassAug/{name}.png" for name in names]


def test_lists_of_voc_with_flags_and_without_images(voc_set: Callable[..., Path]) -> None:
    root = voc_set(train=1)
    path = root / "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt"
    path.write_text("2007_000000  1\n2007_000009 -1\nJPEGImages/a.b.jpg SegmentationClassAug/a.b.png\nno such\n")
    dataset = open_dataset(DataConfig(kind="voc", root=str(root)))
    assert [item.id for item in dataset.items("train")] == ["2007_000000", "2007_000009", "a.b", "no such"]
    assert [item.has_labels for item in dataset.items("train")] == [True, False, False, False]


def test_masks_among_the_images_are_suspected(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paths = []
    for name, pixels in {
        "a": rng.integers(0, 256, (40, 40, 3)),
        "a_masks": rng.integers(0, 4, (40, 40)),
        "b.x": rng.integers(0, 256, (40, 40, 3)),
        "b.x-seg": rng.integers(0, 4, (40, 40)),
        "lonely_mask": rng.integers(0, 4, (40, 40)),
    }.items():
        paths.append(tmp_path / f"{name}.png")
        Image.fromarray(pixels.astype(np.uint8)).save(paths[-1])
    assert mask_like(paths) == [paths[1], paths[3]]
    grey = rng.integers(0, 256, (40, 40)).astype(np.uint8)  # photographs of one channel are none
    for path in (paths[1], paths[3]):
        Image.fromarray(grey).save(path)
    assert mask_like(paths) == []
    for path in (paths[1], paths[3]):
        path.write_text("broken")
    assert mask_like(paths) == []


def test_labelmes_first_line_is_no_class(folder_set: Callable[..., Path]) -> None:
    root = folder_set()
    (root / "classes.txt").write_text("__ignore__\n_background_\nthing\nsky\n")
    dataset = open_dataset(DataConfig(root=str(root)))
    assert dataset.classes == ("_background_", "thing", "sky")
    (note,) = dataset.notes
    assert "__ignore__ (id -1, saved as 255): it is no class, so _background_ is id 0" in note
    (root / "classes.txt").write_text("_background_\n__ignore__\n")
    with pytest.raises(DataError, match="stands among the classes"):
        open_dataset(DataConfig(root=str(root)))


def test_a_value_is_no_class_and_ignored_at_once(folder_set: Callable[..., Path]) -> None:
    root = str(folder_set())
    with pytest.raises(UserError, match=r"value 0 is ignored.*'ground'.*'data.class_map=\{1: 0, 2: 1, 3: 2\}'"):
        open_dataset(DataConfig(root=root, ignored_values=[0, 255]))
    with pytest.raises(
        UserError, match=r"value 2 is ignored, and is class 'sky' too, which could never be learned; ta"
    ):
        open_dataset(DataConfig(root=root, ignored_values=[2]))
    assert len(open_dataset(DataConfig(root=root, ignored_values=[3, 255])).classes) == 3
    assert len(open_dataset(DataConfig(root=root, ignored_values=[0], class_map={0: 0})).classes) == 3


def test_folders_that_are_not_read_are_named(folder_set: Callable[..., Path]) -> None:
    root = folder_set()
    for name in ("valid", "pool", ".cache"):
        (root / "images" / name).mkdir()
    (note,) = notes_of(root)
    assert note.startswith(f"folders in {root}/images that are not read: pool, valid. The splits are called train, val")
    shutil.copy(root / "images/train/00.png", root / "images/pool/x.png")
    (note,) = notes_of(root, unlabeled=[str(root / "images/pool")])
    assert note.startswith(f"folders in {root}/images that are not read: valid. ")


def test_masks_among_the_unlabelled_images_are_named(folder_set: Callable[..., Path]) -> None:
    root = folder_set(train=4)
    notes = notes_of(root, unlabeled=[str(root / "masks/train")])
    assert "4 of 8 training images are masks of the data set: 00.png, 01.png, 02.png, ..." in notes


def test_where_masks_were_looked_for_is_said(folder_set: Callable[..., Path]) -> None:
    root = folder_set(val=1)
    masks = root / "masks"
    (masks / "train").rename(masks / "training")
    with pytest.raises(DataError, match=rf"in {masks}/train, which is missing; .* holds training, val"):
        notes_of(root)
    (masks / "train").mkdir()
    (masks / "train/00.gif").write_bytes(b"")
    with pytest.raises(DataError, match=r"which holds 00.gif; .*1 files below .* are left out: 1 .gif \(00.gif\)"):
        notes_of(root)


def test_a_text_that_is_not_there_is_not_called_unreadable(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.txt: the file does not exist; correct its name, or write it"):
        read_text(tmp_path / "none.txt")


@pytest.mark.parametrize("coding", ["UTF-16LE", "UTF-16BE", "UTF-32", "WINDOWS-1252"])
def test_the_remedy_for_other_encodings_works(coding: str, tmp_path: Path) -> None:
    path, names = tmp_path / "list.txt", "Straße\nbar\n"
    path.write_bytes(names.encode(coding))
    with pytest.raises(DataError, match=rf"if it is {coding}: iconv -f {coding} -t UTF-8 OLD > NEW") as caught:
        read_text(path)
    assert str(path) in str(caught.value)
    path.write_bytes(path.read_bytes().decode(coding).encode())  # what iconv does
    assert read_text(path) == names
