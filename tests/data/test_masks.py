"""Masks give the samples of their files, which the tests write byte by byte, or are refused."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from written import bmp, chunk, packed, png, tiff

from latentseg.config import DataConfig
from latentseg.data import masks as masks_module
from latentseg.data.datasets import open_dataset
from latentseg.data.masks import MaskValues, Palettes, own_palette, read_colors, read_mask, unpack, used_colors
from latentseg.errors import DataError

WIDE = np.array([[0, 1, 300], [1001, 4095, 65535]])


def samples(bits: int) -> NDArray[np.int64]:
    """Two rows of seven, so that the rows do not end with a byte."""
    return np.arange(14).reshape(2, 7) % (1 << bits)


@pytest.mark.parametrize("color", [0, 3])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_png_samples(bits: int, color: int, tmp_path: Path) -> None:
    more = [(b"PLTE", bytes(range(3 << min(bits, 6))))] if color == 3 else []
    (tmp_path / "a.png").write_bytes(png(samples(bits), bits, color, more))
    found = read_mask(tmp_path / "a.png")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, samples(bits))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("photometric", [0, 1, 3])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_tiff_samples(bits: int, photometric: int, compression: str, tmp_path: Path) -> None:
    """Photometric 0 means that white is zero: what is shown is inverted, what is stored is not."""
    more = [(320, 3, [257 * (i % 256) for i in range(3 << bits)])] if photometric == 3 else []
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(b"".join(packed(samples(bits), bits)), 7, 2, [bits], photometric, more))
    np.testing.assert_array_equal(read_mask(path), samples(bits))
    if compression != "raw":
        with Image.open(path) as image:
            shown = np.array(image, np.uint8)
            image.save(tmp_path / "b.tif", compression=compression)
        if photometric == 3:
            np.testing.assert_array_equal(read_mask(tmp_path / "b.tif"), samples(bits))
        else:  # Pillow writes what it shows, black is zero
            np.testing.assert_array_equal(read_mask(tmp_path / "b.tif"), shown)


@pytest.mark.parametrize("photometric", [0, 1])
def test_wide_samples(photometric: int, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(WIDE, 16))
    (tmp_path / "a.tif").write_bytes(tiff(WIDE.astype("<u2").tobytes(), 3, 2, [16], photometric))
    for name in ("a.png", "a.tif"):
        np.testing.assert_array_equal(read_mask(tmp_path / name), WIDE)


@pytest.mark.parametrize(
    ("kind", "form", "values"),
    [
        ("i1", 2, [0, -1, 7, -128]),
        ("<i2", 2, [0, -100, 7, -32768]),
        ("<i4", 2, [0, -100, 70000, -(2**31)]),
        ("<u4", 1, [0, 100, 70000, 2**32 - 1]),
    ],
)
def test_signed_and_32_bit_samples(kind: str, form: int, values: list[int], tmp_path: Path) -> None:
    array = np.array([values], kind)
    (tmp_path / "a.tif").write_bytes(tiff(array.tobytes(), 4, 1, [8 * array.itemsize], 1, [(339, 3, [form])]))
    assert read_mask(tmp_path / "a.tif").tolist() == [values]


GREY = [(i, i, i) for i in range(256)]


@pytest.mark.parametrize(
    ("bits", "palette"),
    [
        (1, [(0, 0, 0), (255, 255, 255)]),
        (1, [(255, 255, 255), (0, 0, 0)]),
        (4, [(17 * i,) * 3 for i in range(16)]),
        (8, GREY),
        (8, GREY[::-1]),
        (8, GREY[:3]),
    ],
)
def test_bmp_samples(bits: int, palette: list[tuple[int, int, int]], tmp_path: Path) -> None:
    ids = np.array([[0, 1, 1, 0, 1], [1, 1, 0, 0, 1]])
    (tmp_path / "a.bmp").write_bytes(bmp(ids, bits, palette))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.bmp"), ids)


@pytest.mark.parametrize(("bits", "palette"), [(4, GREY[:16]), (8, [(0, 0, 0), (255, 255, 255)])])
def test_a_bmp_that_pillow_misreads_is_refused(bits: int, palette: list[tuple[int, int, int]], tmp_path: Path) -> None:
    (tmp_path / "a.bmp").write_bytes(bmp(np.array([[0, 1, 1, 0]]), bits, palette))
    with pytest.raises(DataError, match="short grey palette, which is misread; save it as PNG"):
        read_mask(tmp_path / "a.bmp")


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "GIF", "JPEG2000", "TIFF"])
def test_formats_are_told_by_content(form: str, tmp_path: Path) -> None:
    path, options = tmp_path / "a.png", {"compression": "jpeg"} if form == "TIFF" else {}
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path, form, **options)
    for read in (read_mask, read_colors):
        with pytest.raises(DataError, match=rf"a format that alters values \({form}.*whatever its name says\)"):
            read(path)
    Image.fromarray(np.full((2, 2), 3, np.uint8)).save(tmp_path / "b.jpg", "PNG")
    assert read_mask(tmp_path / "b.jpg").tolist() == [[3, 3], [3, 3]]  # a PNG, whatever its name


def _la(path: Path) -> None:
    Image.new("LA", (2, 2)).save(path)


def _deep_la(path: Path) -> None:
    path.write_bytes(png(np.zeros((2, 2, 2), int), 16, 4))


def _pages(path: Path) -> None:
    Image.new("L", (2, 2)).save(path, "TIFF", save_all=True, append_images=[Image.new("L", (2, 2))] * 2)


def _bands(path: Path) -> None:
    path.write_bytes(tiff(bytes(8), 2, 2, [8, 8], 1, [(338, 3, [0])]))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: Image.new("RGB", (2, 2)).save(path), "a mask that is a colour image .*data.color_map"),
        (lambda path: Image.new("RGBA", (2, 2)).save(path), "a mask that is a colour image .*data.color_map"),
        (lambda path: Image.new("F", (2, 2)).save(path, "TIFF"), "a mask of floating-point numbers"),
        (_la, "a mask with transparency beside its values"),
        (_deep_la, "a mask with transparency beside its values"),
        (_pages, r"holds several pictures \(3 pages\)"),
        (_bands, r"has bands that are not said to be colours \(2 bands\)|of a kind that cannot be read \(2 bands"),
    ],
)
def test_what_holds_no_ids(write: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    write(tmp_path / "a.png")
    with pytest.raises(DataError, match=message):
        read_mask(tmp_path / "a.png")


def test_every_flipped_bit_of_header_palette_and_pixels_is_refused(tmp_path: Path) -> None:
    """Pillow accepts some, with other pixels: it does not compare the checksum of the pixels."""
    path, buffer = tmp_path / "a.png", io.BytesIO()
    mask = Image.fromarray(np.random.default_rng(0).integers(0, 4, (16, 16), dtype=np.uint8))
    mask.putpalette(range(12))
    mask.save(buffer, "PNG")
    content = buffer.getvalue()
    for bit in range(8 * content.index(b"IHDR"), 8 * (content.index(b"IEND") - 4)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(DataError):
            read_mask(path)
    for end in range(9, len(content) - 4, 7):
        path.write_bytes(content[:end])
        with pytest.raises(DataError):
            read_mask(path)


def test_a_mask_is_turned_by_its_own_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(samples(8).astype(np.uint8))
    for name in ("a.png", "a.tif"):
        image.save(tmp_path / name, exif=exif)
        np.testing.assert_array_equal(read_mask(tmp_path / name), np.rot90(samples(8), -1))


def test_wide_values_are_mapped_and_the_advice_works(folder_set: Callable[..., Path]) -> None:
    root = folder_set(train=1)
    raw = np.zeros((12, 16), np.int32)
    raw[0, :5], raw[1, :3], raw[2] = 1001, -100, 70000
    for path in (root / "masks").rglob("*.png"):
        Image.fromarray(raw).save(path.with_suffix(".tif"))
        path.unlink()
    options: dict[str, Any] = {"root": str(root), "classes": ["a", "b", "c"]}
    item = open_dataset(DataConfig(**options)).items("train")[0]
    advice = (
        r"values outside the 3 classes \(-100 \(3 pixels\), 1001 \(5 pixels\), 70000 \(16 pixels\); "
        r"allowed are 0\.\.2, 255\); add them to data.ignored_values, or map them with data.class_map"
    )
    with pytest.raises(DataError, match=advice):
        open_dataset(DataConfig(**options)).read_targets(item)
    mapped = open_dataset(DataConfig(**options, class_map={0: 0, 1001: 1, 70000: 2})).read_targets(item)
    expected = np.zeros((12, 16), np.uint8)
    expected[0, :5], expected[1, :3], expected[2] = 1, 255, 2
    np.testing.assert_array_equal(mapped, expected)
    ignored = open_dataset(DataConfig(**options, ignored_values=[-100, 1001, 70000])).read_targets(item)
    np.testing.assert_array_equal(ignored, np.where(expected == 0, 0, 255))


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64])
def test_values_at_the_edges(kind: type[np.integer[Any]]) -> None:
    values = MaskValues({0: 3, 7: 1, 255: 0, 2**32 - 1: 2, -(2**31): 4}, [8], -1)
    known = {0: 3, 7: 1, 255: 0, 8: 255} | ({} if kind == np.uint8 else {-(2**31): 4})
    known |= {2**32 - 1: 2} if kind == np.int64 else {}
    assert values.ids(np.array([[*known]], kind), None, 5).tolist() == [[*known.values()]]
    for wrong in (1, 6, 9, 254):
        with pytest.raises(DataError, match=rf"\({wrong} \(1 pixels\)"):
            values.ids(np.array([[0, wrong]], kind), None, 5)


def test_colours_of_every_kind_of_mask(tmp_path: Path) -> None:
    colors = np.array([[[1, 2, 3], [255, 0, 17]], [[0, 0, 0], [255, 255, 255]]], np.uint8)
    image, path = Image.fromarray(colors), tmp_path / "a.png"
    for shown in (image, image.convert("RGBA"), image.quantize(4)):
        shown.save(path)
        found = read_colors(path)
        assert [[list(unpack(value)) for value in row] for row in found.tolist()] == colors.tolist()
    path.write_bytes(png(np.array([[0, 1]]), 1))
    assert [unpack(value) for value in read_colors(path)[0].tolist()] == [(0, 0, 0), (255, 255, 255)]
    path.write_bytes(png(np.zeros((1, 1, 3), int), 16, 2))
    with pytest.raises(DataError, match="more than 8 bits per colour"):
        read_colors(path)


def palette_mask(path: Path, ids: Sequence[Sequence[int]], palette: Sequence[int]) -> Path:
    mask = Image.fromarray(np.array(ids, np.uint8))
    mask.putpalette(palette)
    mask.save(path)
    return path


def test_palettes_may_differ_in_unused_entries_alone(tmp_path: Path) -> None:
    one = palette_mask(tmp_path / "a.png", [[0, 1]], [0, 0, 0, 9, 9, 9, 5, 5, 5])
    two = palette_mask(tmp_path / "b.png", [[0, 2]], [0, 0, 0, 7, 7, 7, 5, 5, 5])
    three = palette_mask(tmp_path / "c.png", [[0, 1]], [0, 0, 0, 7, 7, 7])
    assert used_colors(one) == {0: (0, 0, 0), 1: (9, 9, 9)}
    palettes = Palettes()
    palettes.add(one, used_colors(one))
    palettes.add(two, used_colors(two))
    with pytest.raises(DataError, match=r"c\.png.*another colour.*1 is #070707, in .*a\.png #090909.*data.color_map"):
        palettes.add(three, used_colors(three))
    Image.new("L", (2, 2)).save(tmp_path / "d.png")
    assert used_colors(tmp_path / "d.png") == {}


def test_a_chunk_behind_the_pixels_is_no_damage(tmp_path: Path) -> None:
    content = png(samples(8), 8)
    late = chunk(b"tEXt", b"Comment\0late")
    (tmp_path / "a.png").write_bytes(content[:-12] + late + content[-12:] + b"rest")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), samples(8))


def colored_mask(path: Path, values: list[int], colors: dict[int, tuple[int, int, int]] | None) -> Path:
    mask = Image.fromarray(np.array([values], np.uint8))
    if colors is not None:
        flat = [0] * 768
        for value, color in colors.items():
            flat[3 * value : 3 * value + 3] = color
        mask.putpalette(flat)
    mask.save(path)
    return path


def test_the_palette_of_a_set_is_what_its_masks_give_to_their_values(tmp_path: Path) -> None:
    colors = {0: (9, 9, 9), 1: (200, 0, 0), 2: (0, 200, 0), 3: (1, 2, 3)}
    masks = [colored_mask(tmp_path / f"{n}.png", [0, n], colors) for n in (1, 2)]
    assert own_palette(masks) == {value: colors[value] for value in (0, 1, 2)}
    (tmp_path / "0.png").write_bytes(b"no mask")
    assert own_palette([tmp_path / "0.png", *masks]) == own_palette(masks)
    other = colored_mask(tmp_path / "3.png", [1], {1: (7, 7, 200)})
    assert own_palette([*masks, other])[1] == (200, 0, 0)


def test_a_palette_that_shows_nothing_is_none(tmp_path: Path) -> None:
    greys = {value: (value, value, value) for value in range(3)}
    one = {0: (0, 0, 0), 1: (200, 0, 0), 2: (200, 0, 0)}
    assert own_palette([colored_mask(tmp_path / "a.png", [0, 1, 2], greys)]) == {}
    assert own_palette([colored_mask(tmp_path / "b.png", [0, 1, 2], one)]) == {}
    assert own_palette([colored_mask(tmp_path / "c.png", [0, 1, 2], None)]) == {}
    assert own_palette([]) == {}


def test_masks_without_palette_are_left_after_a_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Path] = []

    def look(path: Path) -> dict[int, tuple[int, int, int]]:
        looked.append(path)
        return {}

    monkeypatch.setattr(masks_module, "used_colors", look)
    assert own_palette([tmp_path / str(n) for n in range(1000)]) == {}
    assert len(looked) == 4
