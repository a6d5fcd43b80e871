import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from checking import notes_of
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from latentseg.data.datasets import Item
from latentseg.data.leaks import leak_notes, shared_masks


def test_the_same_bytes_are_found_under_any_name(folder_set: Callable[..., Path], tmp_path: Path) -> None:
    root = folder_set(train=4, val=3)
    assert notes_of(root, labeled=2) == []
    (tmp_path / "pool").mkdir()
    shutil.copy(root / "images/val/01.png", tmp_path / "pool/copy.png")
    (note,) = notes_of(root, labeled=2, unlabeled=[str(tmp_path / "pool")])
    assert note.startswith(f"1 unlabelled images have the content of images of val ({tmp_path / 'pool/copy.png'} = 01)")
    (note,) = notes_of(root, labeled=2, unlabeled=[str(root / "images/val")])  # the very files
    assert note.startswith("3 unlabelled images have the content of images of val")
    for part in ("images", "masks"):
        shutil.copy(root / part / "val/02.png", root / part / "train/twin.png")
        (root / part / "test").mkdir()
        shutil.copy(root / part / "train/00.png", root / part / "test/00.png")
    notes = notes_of(root, labeled="all")
    assert [note.partition(":")[0] for note in notes] == [
        "1 labelled images have the content of images of test (00)",
        "1 labelled images have the content of images of val (twin = 02)",
    ]


@pytest.mark.parametrize("how", ["packed", "text", "bmp", "turned"])
def test_the_same_pixels_in_other_bytes_are_found(how: str, folder_set: Callable[..., Path]) -> None:
    root = folder_set(train=4, val=2, size=(30, 40))
    (root / "masks/train/00.png").unlink()
    with Image.open(root / "images/val/01.png") as image:
        pixels, note, exif = image.copy(), PngInfo(), Image.Exif()
    note.add_text("Comment", "a")
    exif[0x112] = 3
    for name in ("00", "02"):  # one unlabelled, one labelled
        path = root / f"images/train/{name}.png"
        if how == "packed":
            pixels.save(path, compress_level=1)
        elif how == "text":
            pixels.save(path, pnginfo=note)
        elif how == "bmp":
            path.unlink()
            pixels.save(path.with_suffix(".bmp"))
        else:
            pixels.transpose(Image.Transpose.ROTATE_180).save(path, exif=exif)
    for _ in range(2):  # the second time from what is remembered
        labelled, unlabelled = [note for note in notes_of(root) if "have the content of images of val" in note]
        assert labelled.startswith("1 labelled images have the content of images of val (02 = 01, saved otherwise): ")
        assert unlabelled.startswith("1 unlabelled images have the content of images of val (00 = 01, saved otherwise)")


def test_images_of_one_size_are_not_the_same(tmp_path: Path) -> None:
    for name, content in (("a", b"123"), ("b", b"124"), ("c", b"12")):
        (tmp_path / f"{name}.png").write_bytes(content)
    items = [Item(name, tmp_path / f"{name}.png") for name in "abc"]
    assert leak_notes("labeled", items[:1], [("val", items[1]), ("val", items[2])]) == []
    assert leak_notes("labeled", [Item("gone", tmp_path / "gone.png"), Item("3", scene=3)], [("val", items[0])]) == []


def test_a_mask_of_two_images_is_named() -> None:
    items = [Item("a", Path("a.png"), Path("m.png")), Item("b", Path("b.png"), Path("m.png"))]
    (note,) = shared_masks(items)
    assert note.startswith("1 masks belong to several images, as ")
    assert note.endswith("m.png to a.png, b.png: look at the list, or at data.pairs")
    assert shared_masks(items[:1]) == []


def test_a_mask_of_images_of_two_splits_is_named(folder_set: Callable[..., Path]) -> None:
    root = folder_set(train=3, val=1)
    (root / "masks/val/00.png").unlink()
    (root / "masks/val/00.png").symlink_to(root / "masks/train/00.png")
    (note,) = [note for note in notes_of(root) if "several images" in note]
    assert note.startswith(f"1 masks belong to several images, as {root}/masks/train/00.png to {root}/images/train/00")


def test_an_image_that_is_its_own_mask_is_named(folder_set: Callable[..., Path]) -> None:
    root = folder_set(train=3)
    shutil.copy(root / "masks/train/01.png", root / "images/train/01.png")
    assert "1 images are their own masks, byte by byte (01): put the pictures there" in notes_of(root)
