"""PNGs that any reader opens, and files that are whole or not there."""

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentseg.errors import UserError
from latentseg.inference.pictures import index_png, overlay, rgb_png, write_whole


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (37, 53), (200, 3)])
def test_rgb_png(size: tuple[int, int]) -> None:
    for pixels in (
        np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8),
        np.zeros((*size, 3), np.uint8),
    ):
        content = rgb_png(pixels)
        with Image.open(io.BytesIO(content)) as image:
            image.verify()  # checksums
        with Image.open(io.BytesIO(content)) as image:
            assert (image.mode, image.size) == ("RGB", size[::-1])
            assert np.array_equal(np.array(image), pixels)


def test_rgb_png_of_one_that_is_not_contiguous() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)[:, ::-1]
    assert np.array_equal(np.array(Image.open(io.BytesIO(rgb_png(pixels)))), pixels)


def test_index_png() -> None:
    ids = np.random.default_rng(0).integers(0, 21, (37, 53), dtype=np.uint8)
    palette = np.random.default_rng(1).integers(0, 256, (21, 3), dtype=np.uint8)
    with Image.open(io.BytesIO(index_png(ids, palette))) as image:
        assert image.mode == "P"
        assert np.array_equal(np.array(image), ids)
        assert np.array_equal(np.array(image.convert("RGB")), palette[ids])


def test_overlay_is_the_mean_rounded_down() -> None:
    values = np.arange(256, dtype=np.uint8)
    pixels = np.repeat(values[:, None, None], 3, 2).repeat(256, 1)  # every value beside every colour
    palette = np.repeat(values[:, None], 3, 1)
    ids = values[None].repeat(256, 0)
    expected = (palette[ids].astype(np.uint16) + pixels) // 2
    assert np.array_equal(overlay(pixels, ids, palette), expected)


def test_flat_pictures_are_small() -> None:
    assert len(rgb_png(np.full((375, 500, 3), 200, np.uint8))) < 10_000
    assert len(zlib.compress(rgb_png(np.zeros((375, 500, 3), np.uint8)))) < 10_000


def test_files_are_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "deep" / "a.png", b"content")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.png"]

    def half(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(UserError, match=r"cannot write .*b\.png: .*No space left"):
        write_whole(tmp_path / "deep" / "b.png", b"content")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.png"]
