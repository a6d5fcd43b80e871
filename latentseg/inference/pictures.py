"""Pictures of a prediction: index PNGs, colour overlays, and how they get to disk fast and whole."""

import io
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latentseg.errors import UserError

UP = 2
"""PNG's filter that leaves the difference to the row above."""


def index_png(ids: NDArray[np.uint8], palette: NDArray[np.uint8]) -> bytes:
    """Ids (H, W) as a palette PNG. Only runs are looked for: an eighth of the time, a file half as long again."""
    picture = Image.fromarray(ids)
    picture.putpalette(palette.tobytes())  # grey becomes palette, the ids stay
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return buffer.getvalue()


def overlay(pixels: NDArray[np.uint8], ids: NDArray[np.uint8], palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mean of an image (H, W, 3) and the colours of its ids (H, W), rounded down."""
    color = palette.take(ids, axis=0)
    mean: NDArray[np.uint8] = (color & pixels) + ((color ^ pixels) >> 1)  # never beyond a byte
    return mean


def rgb_png(pixels: NDArray[np.uint8]) -> bytes:
    """An image (H, W, 3) as PNG.

    Pillow tries five filters on each row and then looks for repetitions, which photographs lack. One filter and runs
    alone give a file of the same size, within a few per cent, more than ten times as fast.
    """
    height, width, _ = pixels.shape
    rows = pixels.reshape(height, 3 * width)
    lines = np.empty((height, 1 + 3 * width), np.uint8)
    lines[:, 0] = UP
    lines[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=lines[1:, 1:])
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB, not interlaced
    parts = (b"IHDR", header), (b"IDAT", packer.compress(lines.data) + packer.flush()), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a killed process leaves all of it or nothing under its name.

    Raises:
        UserError: The file or its folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # its folder may be a file
            temporary.unlink()
        raise UserError(f"cannot write {path}: {error}") from error
