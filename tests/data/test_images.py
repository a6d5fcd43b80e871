"""One reader: a file, a Pillow image and an array give the same pixels, which are known by hand."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from latentseg.data.images import read_rgb
from latentseg.data.pairs import check_headers
from latentseg.errors import UserError

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
DEEP = GREY.astype(np.uint16) * 257 + np.uint16(100)  # 16 bit: rounds to GREY
ALPHA = np.array([[0, 255, 128, 51]] * 3, np.uint8)
RGB = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)


def on_white(pixels: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) and (H, W): the colour where alpha is 255, white where it is 0, their mean in between."""
    share = alpha[..., None] / 255
    return (share * pixels + (1 - share) * 255).round().astype(np.uint8)


def thrice(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[..., None], 3, 2)


def palette(transparency: bytes | int | None = None) -> Image.Image:
    """Ids 0 to 11 in twelve colours, the first few transparent."""
    image = Image.fromarray(GREY // 20)
    image.putpalette(RGB.tobytes())
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


def cmyk() -> tuple[Image.Image, NDArray[np.uint8]]:
    """RGB as inks without black."""
    image = Image.merge("CMYK", [*Image.fromarray(255 - RGB).split(), Image.new("L", (4, 3))])
    return image, RGB


ALPHAS = bytes([0, 255, 128] + [255] * 9)
ONES = (GREY // 20 % 2).astype(bool)
LA, RGBA = (np.concatenate([base, ALPHA[..., None]], 2) for base in (GREY[..., None], RGB))
CASES: dict[str, tuple[Image.Image, NDArray[np.uint8], str, int]] = {
    # the image, its pixels, a suffix that keeps its mode, and how far they may be off (rounding of alpha)
    "1": (Image.fromarray(ONES), thrice(255 * ONES.astype(np.uint8)), ".png", 0),
    "L": (Image.fromarray(GREY), thrice(GREY), ".png", 0),
    "LA": (Image.fromarray(LA), on_white(thrice(GREY), ALPHA), ".png", 1),
    "P": (palette(), RGB, ".png", 0),
    "P, one transparent": (palette(2), on_white(RGB, 255 * (GREY != 40).astype(np.uint8)), ".png", 0),
    "P, alphas": (palette(ALPHAS), on_white(RGB, np.frombuffer(ALPHAS, np.uint8)[GREY // 20]), ".png", 1),
    "RGB": (Image.fromarray(RGB), RGB, ".png", 0),
    "RGBA": (Image.fromarray(RGBA), on_white(RGB, ALPHA), ".png", 1),
    "CMYK": (*cmyk(), ".tif", 0),
    "I": (Image.fromarray(DEEP.astype(np.int32)), thrice(GREY), ".tif", 0),
    "I;16": (Image.fromarray(DEEP), thrice(GREY), ".png", 0),
    "I;16B": (Image.fromarray(DEEP.astype(">u2")), thrice(GREY), ".tif", 0),
}
ARRAYS = ("1", "L", "LA", "RGB", "RGBA", "I", "I;16", "I;16B")
"""Modes that an array can say; one of palette ids or of inks cannot be told from another."""


@pytest.mark.parametrize("case", CASES)
def test_a_file_an_image_and_an_array_give_the_same_pixels(case: str, tmp_path: Path) -> None:
    image, expected, suffix, off = CASES[case]
    assert image.mode == case.split(",", 1)[0]
    path = tmp_path / f"a{suffix}"
    image.save(path)
    pixels = read_rgb(path)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (3, 4, 3)
    assert np.abs(pixels.astype(int) - expected).max() <= off
    with Image.open(path) as lazy, Image.open(path) as loaded:
        loaded.load()
        others: list[Any] = [str(path), image, lazy, loaded] + [np.array(image)] * (case in ARRAYS)
        for other in others:
            np.testing.assert_array_equal(read_rgb(other), pixels)


def test_floating_point_is_refused_from_everywhere(tmp_path: Path) -> None:
    image = Image.new("F", (4, 3))
    image.save(tmp_path / "a.tif")
    for source in (tmp_path / "a.tif", image):
        with pytest.raises(UserError, match="floating-point values of unknown range; save it with 8 or 16 bits"):
            read_rgb(source)
    with pytest.raises(UserError, match=r"shape \(3, 4\), float32: expected \(H, W, 3\) RGB, uint8"):
        read_rgb(np.array(image))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.uint16),
        np.zeros((4, 4), np.int64),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_arrays_that_are_no_image(array: NDArray[Any]) -> None:
    with pytest.raises(UserError, match=r"image array of shape \(.*expected \(H, W, 3\) RGB, uint8"):
        read_rgb(array)


def test_an_array_may_be_a_view() -> None:
    np.testing.assert_array_equal(read_rgb(RGB[::-1, ::-1]), RGB[::-1, ::-1].copy())


def png(orientation: int, late: bool) -> bytes:
    """RGB as PNG, its EXIF before or behind the pixels."""
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(buffer, "PNG", exif=exif)
    content = buffer.getvalue()
    begin = content.index(b"eXIf") - 4
    end = begin + 12 + struct.unpack(">I", content[begin : begin + 4])[0]
    return content[:begin] + content[end:-12] + content[begin:end] + content[-12:] if late else content


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_one_rule_for_exif(orientation: int, late: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(orientation, late))
    mirrored = RGB[:, ::-1] if orientation in (2, 4, 5, 7) else RGB
    turns = {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}[orientation]
    upright = np.rot90(mirrored, turns)
    with Image.open(path) as lazy, Image.open(path) as loaded:
        loaded.load()
        for source in (path, lazy, loaded):
            np.testing.assert_array_equal(read_rgb(source), upright)


def test_headers_alone_decode_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(png(6, late=True))
    Image.new("L", (4, 3)).save(tmp_path / "mask.png")

    def refuse(_: Image.Image) -> None:
        raise AssertionError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse)
    check_headers(tmp_path / "a.png", None)
    check_headers(tmp_path / "a.png", tmp_path / "mask.png")


def test_a_broken_image_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:900])
    for source in (path, Image.open(path)):
        with pytest.raises(UserError, match="has no readable image content"):
            read_rgb(source)
