"""Pictures of a prediction: index PNGs, colour overlays, and how they get to disk fast and whole."""

import errno
import hashlib
import io
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latentseg.errors import DataError, UserError

UP = 2
"""PNG's filter that leaves the difference to the row above."""
BACKGROUND = frozenset({"background", "_background_", "unlabelled", "unlabeled"})
"""Names of classes that are nothing of their own."""
STRIP = 256
"""Rows of a picture that are worked on at once."""


def index_png(ids: NDArray[np.uint8], palette: NDArray[np.uint8] | None) -> bytes:
    """Ids (H, W) as a palette PNG, or a grey one without a palette.

    Only runs are looked for: an eighth of the time, a file half as long again.
    """
    picture = Image.fromarray(ids)
    if palette is not None:
        picture.putpalette(palette.tobytes())  # grey becomes palette, the ids stay
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return buffer.getvalue()


def overlay(
    pixels: NDArray[np.uint8],
    ids: NDArray[np.uint8],
    palette: NDArray[np.uint8],
    unpainted: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """The mean of an image (H, W, 3) and the colours of its ids (H, W), rounded down.

    Args:
        pixels: The image, uint8.
        ids: Its class ids.
        palette: Colours of the classes, uint8, shape (C, 3).
        unpainted: Classes that leave the image as it is, shape (C,); none if None.
    """
    color = palette.take(ids, axis=0)
    mean: NDArray[np.uint8] = (color & pixels) + ((color ^ pixels) >> 1)  # never beyond a byte
    return mean if unpainted is None else np.where(unpainted.take(ids)[..., None], pixels, mean)


def left_unpainted(classes: Sequence[str], wanted: Sequence[str] | None) -> NDArray[np.bool_] | None:
    """Which classes an overlay leaves as the image, shape (C,); None if it paints all.

    Args:
        classes: Their names, by id.
        wanted: `inference.unpainted`; None: those that mean background by their name.

    Raises:
        UserError: A name is none of the classes.
    """
    unknown = [name for name in wanted or () if name not in classes]
    if unknown:
        raise UserError(f"inference.unpainted names {', '.join(unknown)}; the classes are {', '.join(classes)}")
    found = [name.lower() in BACKGROUND if wanted is None else name in wanted for name in classes]
    return np.array(found) if any(found) else None


def rgb_png(pixels: NDArray[np.uint8]) -> bytes:
    """An image (H, W, 3) as PNG.

    Pillow tries five filters on each row and then looks for repetitions, which photographs lack. One filter and runs
    alone give a file of the same size, within a few per cent, more than ten times as fast.
    """
    return _png((pixels.shape[0], pixels.shape[1]), _strips(pixels))


def overlay_png(
    pixels: NDArray[np.uint8],
    ids: NDArray[np.uint8],
    palette: NDArray[np.uint8],
    unpainted: NDArray[np.bool_] | None = None,
) -> bytes:
    """`rgb_png` of `overlay`, made in strips, as the image may be huge."""
    return _png(
        (pixels.shape[0], pixels.shape[1]),
        (overlay(*strips, palette, unpainted) for strips in zip(_strips(pixels), _strips(ids), strict=True)),
    )


def _strips(pixels: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(pixels), STRIP):
        yield pixels[start : start + STRIP]


def _png(size: tuple[int, int], strips: Iterable[NDArray[np.uint8]]) -> bytes:
    """A PNG of height and width `size`, from its strips (h, W, 3), from top to bottom."""
    height, width = size
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    above, packed = np.zeros(3 * width, np.uint8), []
    for strip in strips:
        rows = strip.reshape(len(strip), 3 * width)
        lines = np.empty((len(strip), 1 + 3 * width), np.uint8)
        lines[:, 0] = UP
        np.subtract(rows[0], above, out=lines[0, 1:])
        np.subtract(rows[1:], rows[:-1], out=lines[1:, 1:])
        above = rows[-1].copy()
        packed.append(packer.compress(lines.data))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB, not interlaced
    packed.append(packer.flush())
    chunks = [(b"IHDR", header), *((b"IDAT", content) for content in packed if content), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def spread(count: int, wanted: int) -> list[int]:
    """Up to `wanted` indices, spread evenly over 0..count-1."""
    if count <= wanted:
        return list(range(count))
    return [round(k * (count - 1) / (wanted - 1)) for k in range(wanted)]


def small_png(pixels: NDArray[np.uint8]) -> bytes:
    """An image (H, W, 3) as PNG, as small as it gets, in more time."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def check_writable(out: Path) -> None:
    """Refuse a folder of results where nobody may write.

    Raises:
        UserError: It is none, or lies in none.
    """
    existing = next(path for path in (out, *out.absolute().parents) if os.path.lexists(path))  # a broken link, too
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"cannot write {out}: {existing} is no folder that you may write to; name another with --out")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a killed process leaves all of it or nothing under its name.

    Raises:
        DataError: The file or its folder cannot be written.
        UserError: There is no room left, or the disk cannot be written: the next file will not fare better.
    """
    temporary = unfinished(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # its folder may be a file
            temporary.unlink()
        raise unwritten(path, error) from error


def unfinished(path: Path) -> Path:
    """The name of a file while it is written, which is no longer than a file system takes."""
    return path.with_name(f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.tmp")


def unwritten(path: Path, error: Exception) -> UserError:
    """What to say of a file that could not be written."""
    reason = getattr(error, "strerror", None) or str(error)
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return UserError(f"cannot write {path}: {reason}; what is written is whole. Take another folder with --out")
    return DataError(
        "its results cannot be written", "look at the folder, or name another one with --out", path, reason
    )
