"""Images are upright, and their masks with them, whichever way up they were drawn."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from latentseg.config import DataConfig
from latentseg.data.datasets import open_dataset
from latentseg.data.images import read_rgb
from latentseg.data.opening import ORIENTATION
from latentseg.data.pairs import check_headers, read_pair, read_values, turning_note
from latentseg.errors import DataError

TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[:, ::-1],
}
"""What makes upright pixels those that a camera stores in an orientation."""
SIZES = {"wide": (40, 64), "square": (48, 48)}


def scene(size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An upright picture of two areas of which no turn looks like another, and its mask."""
    ids = np.zeros(size, np.uint8)
    ids[4:20, 6:30], ids[22:30, 28:36] = 1, 2
    noise = np.random.default_rng(0).integers(0, 30, (*size, 3))
    return (np.array([20, 120, 220])[ids][..., None] + noise).astype(np.uint8), ids


def write(path: Path, upright: NDArray[np.uint8], orientation: int, form: str = "PNG") -> Path:
    """A photo whose EXIF says how its stored pixels are turned."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(np.ascontiguousarray(TURNS[orientation](upright))).save(path, form, exif=exif)
    return path


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_upright_from_every_format(orientation: int, form: str, tmp_path: Path) -> None:
    pixels, _ = scene(SIZES["wide"])
    path = write(tmp_path / "a", pixels, orientation, form)
    with Image.open(path) as lazy:
        found = [read_rgb(path), read_rgb(lazy)]
    for each in found:
        assert each.shape == pixels.shape
        assert np.abs(each.astype(int) - pixels).mean() < (0.01 if form in {"PNG", "TIFF"} else 12)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("drawn_on", ["upright", "stored"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_are_turned_with_their_images(
    orientation: int, size: str, drawn_on: str, form: str, tmp_path: Path
) -> None:
    pixels, ids = scene(SIZES[size])
    image, mask = write(tmp_path / "a", pixels, orientation, form), tmp_path / "a.png"
    Image.fromarray(np.ascontiguousarray(TURNS[orientation](ids)) if drawn_on == "stored" else ids).save(mask)
    found, values = read_pair(image, mask)
    np.testing.assert_array_equal(found, pixels)
    np.testing.assert_array_equal(values, ids)
    np.testing.assert_array_equal(read_values(image, mask), ids)
    check_headers(image, mask)
    note = turning_note(image, mask)
    if drawn_on == "upright" or orientation == 1:
        assert note is None
    else:
        fits = "has the size of its stored pixels"
        if size == "square" or orientation < 5:
            fits = "fits the edges of its stored pixels better"
        assert note == f"EXIF turns the image, whose mask {fits}: the mask is turned with it"


def test_where_the_edges_do_not_tell_the_doubt_is_said(tmp_path: Path) -> None:
    pixels, ids = scene(SIZES["wide"])
    flat = np.full_like(pixels, 90)
    image, mask = write(tmp_path / "a.png", flat, 3), tmp_path / "mask.png"
    Image.fromarray(ids).save(mask)
    np.testing.assert_array_equal(read_pair(image, mask)[1], ids)
    assert turning_note(image, mask) == (
        "EXIF turns the image, whose mask fits either way: taken as drawn on the upright image; look at it"
    )


def test_a_mask_that_exif_turns_itself(tmp_path: Path) -> None:
    pixels, ids = scene(SIZES["wide"])
    image, mask = write(tmp_path / "a.png", pixels, 6), write(tmp_path / "mask.png", ids, 6)
    np.testing.assert_array_equal(read_pair(image, mask)[1], ids)
    assert turning_note(image, mask) is None


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_sizes_that_fit_no_reading(orientation: int, form: str, tmp_path: Path) -> None:
    pixels, _ = scene(SIZES["wide"])
    image, mask = write(tmp_path / "a", pixels, orientation, form), tmp_path / "mask.png"
    Image.new("L", (40, 40)).save(mask)
    for read in (read_pair, read_values, check_headers):
        with pytest.raises(DataError, match=r"differ in size \(image 64x40, mask .*mask\.png 40x40, width x height\)"):
            read(image, mask)


def test_one_rule_with_and_without_a_mask(folder_set: Callable[..., Path]) -> None:
    root = folder_set(train=1)
    pixels, ids = scene(SIZES["wide"])
    write(root / "images/train/00.png", pixels, 6)
    Image.fromarray(np.ascontiguousarray(TURNS[6](ids))).save(root / "masks/train/00.png")
    dataset = open_dataset(DataConfig(root=str(root)))
    item = dataset.items("train")[0]
    found: list[NDArray[Any]] = [dataset.read_image(item), dataset.read_pair(item)[0], read_rgb(item.image or "")]
    for each in found:
        np.testing.assert_array_equal(each, pixels)
    np.testing.assert_array_equal(dataset.read_targets(item), ids)
