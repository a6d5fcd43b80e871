"""Single bits that flip: in an index, a checkpoint, masks and images."""

import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from reliability.counting import Count, counted, flipped

from latentseg.data.changes import changed_files, remember_files
from latentseg.data.datasets import Item
from latentseg.data.images import read_upright
from latentseg.data.masks import read_colors, read_mask
from latentseg.data.splits import Split
from latentseg.errors import RunError, UserError
from latentseg.runs.checkpoints import Checkpoints

Read = Callable[[Path], Any]


def index_bits(folder: Path, each: int = 1) -> Count:
    """Every bit of an index, or one of so many: the last checkpoint is found all the same, and is whole."""
    checkpoints = Checkpoints(folder / "bits")
    for step in (2, 4):
        checkpoints.save(step, {"w": torch.full((2,), float(step))})
    index = checkpoints.folder / "index.json"
    content = index.read_bytes()

    def survives(number: int) -> bool:
        index.write_bytes(flipped(content, number * each))
        last = checkpoints.last()
        return last is not None and last.step == 4 and checkpoints.read(last)["w"].tolist() == [4.0, 4.0]

    return counted(8 * len(content) // each, survives)


def checkpoint_bits(run: Path, number: int) -> Count:
    """One bit of a real checkpoint, anywhere: it must be refused."""
    checkpoints, rng = Checkpoints(run / "checkpoints"), random.Random(0)  # noqa: S311
    last = checkpoints.last()
    assert last is not None
    path = checkpoints.folder / last.file
    content = path.read_bytes()
    head = 8 * (8 + int.from_bytes(content[:8], "little"))

    def put(at: int, byte: bytes) -> None:
        with path.open("r+b") as file:
            file.seek(at)
            file.write(byte)

    def survives(number: int) -> bool:
        bit = rng.randrange(8 * len(content) if number % 2 else head)  # the head is small, and says what the rest means
        before = content[bit // 8 : bit // 8 + 1]
        put(bit // 8, flipped(before, bit % 8))
        try:
            entry = checkpoints.last()
            assert entry is not None
            checkpoints.read(entry)
        except RunError:
            return True
        finally:
            put(bit // 8, before)
        return entry.file != last.file  # the one before it, as it is

    return counted(number, survives)


def png_bits(folder: Path, number: int) -> Count:
    """Bits of PNG masks and images of every kind: refused, or the same pixels, the same way up."""
    return _bits(folder, number, list(_pngs()))


def jpeg_bits(folder: Path, number: int) -> Count:
    """Bits of JPEG images, which have no checksum: how many flips are noticed, or change no pixel.

    None counts as lost: the others lie in the format. What changed since a run began is told by its files.json.
    """
    small = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    path = folder / "made.jpg"
    Image.fromarray(small).resize((256, 192), Image.Resampling.BICUBIC).save(path, quality=90)
    count = _bits(folder, number, [("a photograph", ".jpg", path.read_bytes(), read_upright)])
    silent = count.pop("lost"), count.pop("first_lost")
    return count | {"survived": number, "lost": 0, "changed_in_silence": silent[0]}


def _bits(folder: Path, number: int, files: list[tuple[str, str, bytes, Read]]) -> Count:
    """Flip bits of files in turn: how many are refused, and how many change nothing."""
    rng = random.Random(0)  # noqa: S311
    how = {"refused": 0, "harmless": 0}
    whole: dict[str, Any] = {}
    lost: list[str] = []

    def survives(at: int) -> bool:
        name, suffix, content, read = files[at % len(files)]
        path = folder / f"flipped{suffix}"
        if name not in whole:
            path.write_bytes(content)
            whole[name] = read(path)
        bit = rng.randrange(8 * len(content))
        path.write_bytes(flipped(content, bit))
        try:
            found = read(path)
        except UserError:
            how["refused"] += 1
            return True
        if _alike(found, whole[name]):
            how["harmless"] += 1
            return True
        lost.append(f"{name}: bit {bit}")
        return False

    count = counted(number, survives)
    return count | how | {"first_lost": lost[:3]}


def _alike(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, tuple):
        return all(_alike(a, b) for a, b in zip(ours, theirs, strict=True))
    return bool(np.array_equal(ours, theirs))


def _pngs() -> Iterator[tuple[str, str, bytes, Read]]:
    """Name, ending, content and reader: masks by value and by colour, images with all that changes their pixels."""
    rng = np.random.default_rng(0)
    ids = np.kron(rng.integers(0, 4, (6, 8), dtype=np.uint8), np.ones((8, 8), np.uint8))
    colors = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    for bits in (2, 4, 8):
        yield f"a grey mask of {bits} bits", ".png", png(ids, bits), read_mask
    yield "a grey mask of 16 bits", ".png", png(ids.astype(np.uint16) * 300, 16), read_mask
    entries = (b"PLTE", bytes(rng.integers(0, 256, 12, dtype=np.uint8)))
    yield "a palette mask", ".png", png(ids, 8, 3, [entries]), read_mask
    yield "the colours of a palette mask", ".png", png(ids, 8, 3, [entries]), read_colors
    yield "an image", ".png", png(colors, 8, 2), read_upright
    yield "an image that says its way up", ".png", png(colors, 8, 2, [(b"eXIf", EXIF)]), read_upright
    yield "the same behind its pixels", ".png", png(colors, 8, 2, after=[(b"eXIf", EXIF)]), read_upright
    clear = [(b"tRNS", struct.pack(">3H", *(int(value) for value in colors[0, 0])))]
    yield "an image with a clear colour", ".png", png(colors, 8, 2, clear), read_upright


EXIF = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
"""Orientation 6."""


def png(
    samples: NDArray[Any],
    bits: int,
    color: int = 0,
    before: list[tuple[bytes, bytes]] | None = None,
    after: list[tuple[bytes, bytes]] | None = None,
) -> bytes:
    """A PNG with other parts before and after its pixels: color 0 grey, 2 RGB, 3 palette."""
    height, width = samples.shape[:2]
    rows = samples.reshape(height, -1)
    if bits < 8:
        each = 8 // bits
        rows = np.bitwise_or.reduce([rows[:, at::each] << (8 - bits * (at + 1)) for at in range(each)])
    raw = b"".join(b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes() for row in rows)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)), *(before or [])]
    parts += [(b"IDAT", zlib.compress(raw)), *(after or []), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in parts
    )
    return b"\x89PNG\r\n\x1a\n" + body


def bits_on_resume(folder: Path, number: int) -> Count:
    """Bits of JPEG images that flip after a run began: the resumed run names each that is labelled or scored."""
    rng = random.Random(0)  # noqa: S311
    items = [Item(f"{name}", folder / f"{name}.jpg") for name in ("labeled", "scored")]
    for item in items:
        assert item.image is not None
        Image.fromarray(np.random.default_rng(1).integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(item.image)
    split, scored = Split([items[0]], []), {"val": [items[1]]}
    (folder / "split").mkdir()
    remember_files(split, scored, folder / "split")
    assert changed_files(split, scored, folder / "split") == []

    def survives(at: int) -> bool:
        path = items[at % 2].image
        assert path is not None
        content = path.read_bytes()
        path.write_bytes(flipped(content, rng.randrange(8 * len(content))))
        notes = changed_files(split, scored, folder / "split")
        path.write_bytes(content)
        return any(items[at % 2].id in note for note in notes)

    return counted(number, survives)
