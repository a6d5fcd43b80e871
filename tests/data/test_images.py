"""One reader: a file, a Pillow image and an array give the same pixels, which are known by hand."""

import io
import struct
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms
from written import packed, tiff
from written import png as hand_png

from latentseg.data.images import read_rgb, used_bits
from latentseg.data.masks import read_mask
from latentseg.data.opening import PIXEL_LIMIT
from latentseg.data.pairs import check_headers
from latentseg.errors import DataError, UserError

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
    (tmp_path / "a.png").write_bytes(png(6, late=False))
    Image.new("L", (3, 4)).save(tmp_path / "mask.png")

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


UNREAD = "of a kind that cannot be read \\(2 bands of 8 bits\\)"
GREY_AND_WEIGHT: Any = [[[7] * 3, [255] * 3]] if int(PIL.__version__.partition(".")[0]) >= 13 else UNREAD
"""Grey premultiplied by its transparency: Pillow reads it from 13 on; before, it is refused."""
FOUR = np.array([[[10, 20, 30, 5], [200, 100, 50, 250]]], np.uint8)


@pytest.mark.parametrize(
    ("bands", "photometric", "extra", "expected"),
    [
        (FOUR, 2, [0], FOUR[..., :3]),
        (FOUR, 2, [], FOUR[..., :3]),  # a band of which the file says nothing is no transparency either
        (FOUR.astype("<u2") * 257, 2, [0], FOUR[..., :3]),
        (FOUR.astype("<u2") * 257, 2, [], FOUR[..., :3]),
        (np.dstack([FOUR, FOUR[..., :1]]), 2, [0, 0], FOUR[..., :3]),
        (np.dstack([FOUR[..., :3], [[255, 0]]]).astype(np.uint8), 2, [2], [[[10, 20, 30], [255, 255, 255]]]),
        (np.dstack([FOUR[..., :3], [[255, 0]]]).astype(np.uint8), 2, [1], [[[10, 20, 30], [255, 255, 255]]]),
        (np.array([[[7, 255], [9, 0]]], np.uint8), 1, [2], [[[7] * 3, [255] * 3]]),
        (np.array([[[7, 255], [0, 0]]], np.uint8), 1, [1], GREY_AND_WEIGHT),
        (FOUR, 2, [2], "has a band that is called transparency, but looks like a measurement"),
        (FOUR, 1, [0, 0, 0], r"4 bands of 8 bits"),
        (FOUR[..., :2], 1, [0], r"bands that are not said to be colours \(2 bands\)|" + UNREAD),
        (np.zeros((1, 2, 9), np.uint8), 2, [0] * 6, r"9 bands of 8 bits"),
        (FOUR.astype(np.float32), 2, [0], r"4 bands of 32 bits"),
    ],
)
def test_bands_of_a_tiff(
    bands: NDArray[Any], photometric: int, extra: list[int], expected: Any, tmp_path: Path
) -> None:
    path, number = tmp_path / "a.tif", bands.shape[2]
    more = [(338, 3, extra)] * bool(extra) + [(339, 3, [3] * number)] * (bands.dtype.kind == "f")
    path.write_bytes(tiff(bands.tobytes(), 2, 1, [8 * bands.itemsize] * number, photometric, more))
    if isinstance(expected, str):
        with pytest.raises(DataError, match=expected):
            read_rgb(path)
    else:
        np.testing.assert_array_equal(read_rgb(path), expected)


@pytest.mark.parametrize(("kind", "refused"), [("u1", False), ("<u2", True)])
def test_bands_one_after_the_other(kind: str, refused: bool, tmp_path: Path) -> None:
    """Pillow takes the two halves of such a sample of 16 bits for two pixels."""
    path, bands = tmp_path / "a.tif", np.moveaxis(RGB.astype(kind) * (257 if refused else 1), 2, 0)
    size = bands[0].nbytes
    more = [(284, 3, [2]), (273, 4, [8, 8 + size, 8 + 2 * size]), (279, 4, [size] * 3)]
    path.write_bytes(tiff(bands.tobytes(), 4, 3, [8 * bands.itemsize] * 3, 2, more))
    if refused:
        with pytest.raises(DataError, match="3 bands of 16 bits, one after the other"):
            read_rgb(path)
    else:
        np.testing.assert_array_equal(read_rgb(path), RGB)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_white_is_zero_and_few_bits(bits: int, tmp_path: Path) -> None:
    samples, top = np.arange(14).reshape(2, 7) % (1 << bits), (1 << bits) - 1
    for photometric in (0, 1):
        content = b"".join(packed(samples, bits))
        (tmp_path / "a.tif").write_bytes(tiff(content, 7, 2, [bits], photometric))
        shown = (samples if photometric else top - samples) * 255 // top
        np.testing.assert_array_equal(read_rgb(tmp_path / "a.tif"), thrice(shown.astype(np.uint8)))


@pytest.mark.parametrize(("bits", "clear"), [(1, 0), (2, 2), (4, 3), (8, 200), (16, 300)])
def test_the_transparent_grey_of_a_png(bits: int, clear: int, tmp_path: Path) -> None:
    """Pillow compares the scaled pixels with the sample."""
    top = (1 << bits) - 1
    content = hand_png(np.array([[clear, top, clear]]), bits, 0, [(b"tRNS", struct.pack(">H", clear))])
    (tmp_path / "a.png").write_bytes(content)
    assert read_rgb(tmp_path / "a.png")[0, :, 1].tolist() == [255, 255, 255]
    content = hand_png(np.array([[clear, clear - 1 if clear else top]]), bits, 0, [(b"tRNS", struct.pack(">H", clear))])
    (tmp_path / "a.png").write_bytes(content)
    other = clear - 1 if clear else top
    assert read_rgb(tmp_path / "a.png")[0, :, 1].tolist() == [255, round(other * 255 / top)]


TWELVE = np.array([0, 300, 4095, 4000, 17, 2048])


def test_twelve_bits_in_sixteen(tmp_path: Path) -> None:
    expected = [round(value * 255 / 4095) for value in TWELVE]
    for name, content in {
        "grey.png": hand_png(TWELVE[None], 16),
        "color.png": hand_png(TWELVE.reshape(1, 2, 3), 16, 2),
        "grey.tif": tiff(TWELVE.astype("<u2").tobytes(), 6, 1, [16], 1),
        "color.tif": tiff(TWELVE.astype("<u2").tobytes(), 2, 1, [16] * 3, 2),
        "four.tif": tiff(np.append(TWELVE.reshape(2, 3), [[9], [9]], 1).astype("<u2").tobytes(), 2, 1, [16] * 4, 2,
                         [(338, 3, [0])]),
    }.items():  # fmt: skip
        path = tmp_path / name
        path.write_bytes(content)
        found = read_rgb(path, 12)
        assert (found.ravel() if name[0] != "g" else found[..., 0].ravel()).tolist() == expected
        assert used_bits(path) == 12
        assert read_rgb(path).max() in {15, 16}
        with pytest.raises(DataError, match=r"samples outside 0\.\.2047 \(0\.\.4095\); set data.bits"):
            read_rgb(path, 11)
    path = tmp_path / "packed.tif"
    path.write_bytes(tiff(b"".join(packed(TWELVE[None], 12)), 6, 1, [12], 1))
    assert read_rgb(path)[0, :, 0].tolist() == expected  # the file says so itself
    assert used_bits(path) is None
    Image.fromarray(GREY).save(tmp_path / "byte.png")
    assert used_bits(tmp_path / "byte.png") is None


def test_signed_samples_are_no_picture(tmp_path: Path) -> None:
    for kind, message in (("i1", "signed samples"), ("<i2", r"samples outside 0\.\.65535 \(-100\.\.7\)")):
        array = np.array([[-100, 7]], kind)
        content = tiff(array.tobytes(), 2, 1, [8 * array.itemsize], 1, [(339, 3, [2])])
        (tmp_path / "a.tif").write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_rgb(tmp_path / "a.tif")


@pytest.mark.parametrize("form", ["TIFF", "PNG", "WEBP", "GIF"])
def test_several_pictures_are_refused(form: str, tmp_path: Path) -> None:
    pages = [Image.fromarray(np.roll(RGB, i, 0)) for i in range(3)]
    pages[0].save(tmp_path / "a", form, save_all=True, append_images=pages[1:], duration=100)
    for read in (read_rgb, lambda path: check_headers(path, None)):
        with pytest.raises(DataError, match=r"holds several pictures \(3 pages\); save each as a file of its own"):
            read(tmp_path / "a")


def test_previews_are_no_pictures(tmp_path: Path) -> None:
    """Cameras add one to a JPEG, programs for maps add smaller copies to a TIFF."""
    small = Image.fromarray(RGB).resize((2, 2))
    Image.fromarray(RGB).save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[small], quality=95)
    assert read_rgb(tmp_path / "a.jpg").shape == RGB.shape
    first = tiff(RGB.tobytes(), 4, 3, [8] * 3, 2)
    second = tiff(bytes(12), 2, 2, [8] * 3, 2, [(254, 4, [1])])
    at, behind = struct.unpack("<I", second[4:8])[0], len(first)
    moved = bytearray(second)
    for i in range(struct.unpack_from("<H", second, at)[0]):  # places count from the beginning of the file
        place = at + 2 + 12 * i
        number, kind, count, value = struct.unpack_from("<HHII", second, place)
        if number == 273 or count * {3: 2, 4: 4}[kind] > 4:
            struct.pack_into("<I", moved, place + 8, value + behind)
    whole = bytearray(first + moved)
    directory = struct.unpack("<I", first[4:8])[0]
    struct.pack_into("<I", whole, directory + 2 + 12 * struct.unpack_from("<H", first, directory)[0], behind + at)
    (tmp_path / "a.tif").write_bytes(whole)
    with Image.open(tmp_path / "a.tif") as image:
        assert getattr(image, "n_frames", 1) == 2
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.tif"), RGB)


def test_inks_of_a_jpeg(tmp_path: Path) -> None:
    """Adobe's are stored inverted."""
    inks = Image.merge("CMYK", [Image.new("L", (8, 8), value) for value in (255, 0, 0, 0)])
    inks.save(tmp_path / "a.jpg", quality=100)
    assert np.abs(read_rgb(tmp_path / "a.jpg").astype(int) - [0, 255, 255]).max() <= 3


def swapped_profile() -> bytes:
    """sRGB with red and blue exchanged."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = profile.replace(b"rXYZ", b"????", 1).replace(b"bXYZ", b"rXYZ", 1).replace(b"????", b"bXYZ", 1)
    return content.replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))


def test_colours_of_a_profile_become_srgb(tmp_path: Path) -> None:
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.fromarray(RGB)
    for profile, expected, off in ((own, RGB, 0), (b"no profile", RGB, 0), (swapped_profile(), RGB[..., ::-1], 3)):
        for name, kind in (
            ("a.png", image),
            ("a.tif", image),
            ("b.png", image.convert("RGBA")),
            ("c.png", image.quantize(12)),
        ):
            kind.save(tmp_path / name, icc_profile=profile)
            assert np.abs(read_rgb(tmp_path / name).astype(int) - expected).max() <= off
    Image.fromarray(GREY).save(tmp_path / "grey.png", icc_profile=swapped_profile())
    np.testing.assert_array_equal(read_rgb(tmp_path / "grey.png"), thrice(GREY))  # a profile of another kind


def test_lab_becomes_rgb(tmp_path: Path) -> None:
    lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab.apply(Image.fromarray(RGB)).save(tmp_path / "a.tif")
    assert np.abs(read_rgb(tmp_path / "a.tif").astype(int) - RGB).mean() < 2  # 8 bits of Lab are coarse


@pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Truncated File")
def test_a_tiff_that_is_cut_off_is_not_called_strange(tmp_path: Path) -> None:
    """Its tags stand at its end where it is compressed."""
    path = tmp_path / "a.tif"
    for kind in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        Image.fromarray(RGB).save(path, compression=kind)
        whole = path.read_bytes()
        for length in (8, 20, len(whole) // 2, len(whole) - 9):
            path.write_bytes(whole[:length])
            with pytest.raises(DataError, match="has no readable image content"):
                read_rgb(path)
    code = f"from latentseg.data.images import read_rgb; read_rgb({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert "DataError" in done.stderr
    assert "Warning" not in done.stderr


def test_a_palette_image_without_palette_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(hand_png(np.array([[0, 1]]), 8, 3))
    for read in (read_rgb, read_mask, lambda path: check_headers(path, None)):
        with pytest.raises(DataError, match=r"a\.png: is a palette image that lacks its palette; save it again"):
            read(path)


def test_a_flipped_bit_of_the_pixels_is_refused(tmp_path: Path) -> None:
    """Pillow compares no checksum of them; some flips give other pixels without an error."""
    content = hand_png(np.arange(300).reshape(10, 10, 3) % 256, 8, 2)
    for bit in range(8 * content.index(b"IDAT"), 8 * content.index(b"IEND") - 32, 7):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "a.png").write_bytes(flipped)
        with pytest.raises(DataError, match=r"has no readable image content"):
            read_rgb(tmp_path / "a.png")


def test_a_flipped_bit_of_exif_behind_the_pixels_is_refused(tmp_path: Path) -> None:
    """Pillow compares no checksum there; some flips would turn the image, or turn it no more."""
    content = png(6, late=True)
    begin = content.index(b"eXIf")
    for bit in range(8 * begin, 8 * content.index(b"IEND") - 32):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "a.png").write_bytes(flipped)
        with pytest.raises(DataError, match=r"has no readable image content"):
            read_rgb(tmp_path / "a.png")


def test_a_large_image_is_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Image.MAX_IMAGE_PIXELS == PIXEL_LIMIT == 2**30
    Image.fromarray(RGB).save(tmp_path / "a.png")
    for limit in (11, 5):  # beyond ours, and beyond the one at which Pillow refuses
        monkeypatch.setattr("latentseg.data.opening.PIXEL_LIMIT", limit)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        warned = pytest.warns(Image.DecompressionBombWarning) if limit == 11 else nullcontext()
        message = r"a sound image, but beyond the limit of pixels .*cut it into tiles"
        with warned, pytest.raises(DataError, match=message):
            read_rgb(tmp_path / "a.png")


def test_what_cannot_be_opened_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(DataError, match=r"folder\.png: cannot be read \(Is a directory\); make it readable"):
        read_rgb(tmp_path / "folder.png")

    def denied(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", denied)
    with pytest.raises(DataError, match=r"a\.png: cannot be read \(Permission denied\)"):
        read_rgb(tmp_path / "a.png")


def test_the_palette_of_a_tiff_has_16_bits(tmp_path: Path) -> None:
    """One of 8 bits would be black; the samples of a mask need none."""
    path, samples = tmp_path / "a.tif", np.array([[0, 1], [2, 1]], np.uint8)
    table = [0, 250, 100] + [0] * 253 + [0, 40, 9] + [0] * 253 + [0, 7, 255] + [0] * 253
    path.write_bytes(tiff(samples.tobytes(), 2, 2, [8], 3, [(320, 3, [value * 257 for value in table])]))
    assert read_rgb(path).tolist() == [[[0, 0, 0], [250, 40, 7]], [[100, 9, 255], [250, 40, 7]]]
    path.write_bytes(tiff(samples.tobytes(), 2, 2, [8], 3, [(320, 3, table)]))
    with pytest.raises(DataError, match="a palette of 8 bits in a TIFF"):
        read_rgb(path)
    assert read_mask(path).tolist() == samples.tolist()
