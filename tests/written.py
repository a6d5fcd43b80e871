"""Image files written byte by byte, so that no library's reading of them is believed."""

import struct
import zlib
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

Tag = tuple[int, int, Sequence[int]]  # number, kind (3 short, 4 long, 7 bytes), values


def packed(samples: NDArray[Any], bits: int) -> list[bytes]:
    """Rows of samples (H, W) or (H, W, bands) of 1 to 16 bits, the highest bit first, filled up to bytes."""
    rows = []
    for row in samples.reshape(len(samples), -1).tolist():
        text = "".join(format(value, f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        rows.append(int(text, 2).to_bytes(len(text) // 8, "big"))
    return rows


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(samples: NDArray[Any], bits: int, color: int = 0, more: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """A PNG: color 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGBA; `more` stands before the pixels."""
    height, width = samples.shape[:2]
    raw = b"".join(b"\0" + row for row in packed(samples, bits))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0))
    rest = b"".join(chunk(kind, content) for kind, content in more)
    return b"\x89PNG\r\n\x1a\n" + head + rest + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def tiff(
    content: bytes, width: int, height: int, bits: Sequence[int], photometric: int, more: Sequence[Tag] = ()
) -> bytes:
    """A little-endian TIFF in one strip: photometric 0 white is zero, 1 black is zero, 2 RGB, 3 palette."""
    known: dict[int, Tag] = {
        256: (256, 4, [width]), 257: (257, 4, [height]), 258: (258, 3, bits), 259: (259, 3, [1]),
        262: (262, 3, [photometric]), 273: (273, 4, [8]), 277: (277, 3, [len(bits)]), 278: (278, 4, [height]),
        279: (279, 4, [len(content)]),
    }  # fmt: skip
    tags = [*(known | {tag[0]: tag for tag in more}).values()]
    content += b"\0" * (len(content) % 2)
    at, entries, behind = 8 + len(content), b"", b""
    for number, kind, values in sorted(tags, key=lambda tag: tag[0]):
        value = (
            values if isinstance(values, bytes) else struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        )
        if len(value) > 4:
            place = at + 2 + 12 * len(tags) + 4 + len(behind)
            behind, value = behind + value + b"\0" * (len(value) % 2), struct.pack("<I", place)
        entries += struct.pack("<HHI", number, kind, len(values)) + value.ljust(4, b"\0")
    return struct.pack("<2sHI", b"II", 42, at) + content + struct.pack("<H", len(tags)) + entries + bytes(4) + behind


def bmp(samples: NDArray[Any], bits: int, palette: Sequence[tuple[int, int, int]]) -> bytes:
    """A BMP of palette indices (H, W)."""
    height, width = samples.shape
    content = b"".join(row.ljust((width * bits + 31) // 32 * 4, b"\0") for row in reversed(packed(samples, bits)))
    colors = b"".join(bytes((b, g, r, 0)) for r, g, b in palette)
    at = 54 + len(colors)
    head = struct.pack("<2sIHHI", b"BM", at + len(content), 0, 0, at)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, len(content), 0, 0, len(palette), 0)
    return head + info + colors + content
