"""How a mask file becomes the values that its samples hold, and what these values stand for."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latentseg.data.images import IGNORE_INDEX
from latentseg.data.opening import check_sums, opened, orientation, raw_mode, tiff_tag, turned
from latentseg.errors import DataError

PALETTES, PLAIN = 32, 3
"""Masks that are looked at for a palette; masks without one after which no further are."""
LOSSLESS = frozenset({"PNG", "BMP", "TIFF"})
LOSSY_TIFF = frozenset({"jpeg", "tiff_jpeg", "webp"})
AS_PNG = "save masks as PNG, one class id per pixel"
RGB = tuple[int, int, int]
Read = Callable[[Path], NDArray[np.integer[Any]]]


def read_mask(path: Path) -> NDArray[np.integer[Any]]:
    """The samples of an index mask (palette or one grey channel), shape (H, W): uint8 where they fit.

    They are those of the file: Pillow scales grey of 1, 2 and 4 bits and inverts a TIFF's, which is undone. A mask
    with EXIF of its own is turned by it.

    Raises:
        DataError: The file is missing, damaged, of a format that alters values (by content, whatever its name), a
            colour image, or holds more than one value per pixel.
    """
    with opened(path) as mask:
        _check_format(mask, path)
        if mask.mode not in {"P", "L", "1", "I"} and not mask.mode.startswith("I;16"):
            raise _no_ids(mask, path)
        return _upright(_samples(mask), mask)


def read_colors(path: Path) -> NDArray[np.int32]:
    """The colours of a mask, packed as `pack` does, shape (H, W); grey and palette masks as they look.

    Raises:
        DataError: As `read_mask`; the mask holds more than 8 bits per colour.
    """
    with opened(path) as mask:
        _check_format(mask, path)
        if ";16" in raw_mode(mask) or mask.mode in {"I", "F"}:
            raise DataError("a colour mask with more than 8 bits per colour", "save it with 8 bits", path)
        shown = np.array(mask.convert("RGB").convert("RGBA"))
        return _upright((shown.view("<u4")[..., 0] & 0xFFFFFF).astype(np.int32), mask)


def pack(color: RGB) -> int:
    """One number for an RGB colour."""
    return color[0] | color[1] << 8 | color[2] << 16


def unpack(packed: int) -> RGB:
    """The colour of its number."""
    return packed & 255, packed >> 8 & 255, packed >> 16 & 255


def hex_color(color: RGB) -> str:
    """A colour as #rrggbb."""
    return "#" + "".join(f"{part:02x}" for part in color)


def used_colors(path: Path) -> dict[int, RGB]:
    """RGB colours that a palette mask gives to the values in it; empty for masks without a palette.

    Raises:
        DataError: As `read_mask`.
    """
    with opened(path) as mask:
        if mask.mode != "P":
            return {}
        used = np.flatnonzero(np.bincount(np.array(mask).ravel(), minlength=256))
        flat = mask.getpalette("RGB") or []
        return {int(i): (flat[3 * i], flat[3 * i + 1], flat[3 * i + 2]) for i in used if 3 * i + 2 < len(flat)}


def own_palette(masks: Sequence[Path]) -> dict[int, RGB]:
    """Colours that the palettes of a sample of masks give to the values in them, the first mask's where they disagree.

    Empty if the first ones have no palette, or one that shows nothing: values as greys, or two in one colour.
    """
    found: dict[int, RGB] = {}
    for number, path in enumerate(masks[:: max(1, len(masks) // PALETTES)][:PALETTES]):
        try:
            found = used_colors(path) | found
        except DataError:  # the data check tells of it
            continue
        if number >= PLAIN and not found:
            break
    greys = all(color == (value,) * 3 for value, color in found.items())
    return {} if greys or len(set(found.values())) < len(found) else found


class Palettes:
    """What the palettes of a data set's masks say about the values that are used, gathered file by file."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[RGB, Path]] = {}

    def add(self, path: Path, used: dict[int, RGB]) -> None:
        """Compare the colours of one mask, as `used_colors` gives them, with those of the masks before it.

        Raises:
            DataError: A value has another colour than in a mask before: it may stand for another class.
        """
        for value, color in used.items():
            before, where = self._seen.setdefault(value, (color, path))
            if color != before:
                raise DataError(
                    "a palette that gives a value another colour than other masks do",
                    "read the masks by their colours with data.color_map=FILE, or by their values alone with "
                    "data.color_map=index",
                    path, f"{value} is {hex_color(color)}, in {where} {hex_color(before)}",
                )  # fmt: skip


class MaskValues:
    """What the values of a mask stand for.

    Args:
        values: Mask value -> class id.
        ignored: Mask values without a label; they become 255, whatever `values` says.
        others: What all other values become: 255 (ignored) or -1 (refused).
        colors: The name of the colour map whose packed colours the values are; None: they are ids.
    """

    def __init__(self, values: dict[int, int], ignored: list[int], others: int, colors: str | None = None) -> None:
        known = values | dict.fromkeys(ignored, IGNORE_INDEX)
        self._colors, self._others = colors, others
        self._keys = np.array(sorted(known), np.int64)
        self._ids = np.array([known[key] for key in sorted(known)], np.int16)
        # Bytes have a table of their own, in which an id that no value has marks the refused ones: where a byte is
        # refused, the others cannot take all 256 ids.
        entries = np.array([known.get(value, others) for value in range(256)], np.int16)
        self._refused = min(set(range(256)) - set(entries.tolist())) if (entries < 0).any() else None
        self._bytes = np.where(entries < 0, self._refused or 0, entries).astype(np.uint8).tobytes()

    def ids(self, raw: NDArray[np.integer[Any]], mask: Path | None, num_classes: int) -> NDArray[np.uint8]:
        """Class ids of a mask's values, shape (H, W), 255 where there is no label.

        Raises:
            DataError: A value is refused.
        """
        if raw.dtype == np.uint8:  # Python's own look-up of bytes takes half the time of NumPy's
            ids = bytearray(raw).translate(self._bytes)
            if self._refused is None or self._refused not in ids:
                return np.frombuffer(ids, np.uint8).reshape(raw.shape)
        place = np.minimum(np.searchsorted(self._keys, raw), len(self._keys) - 1)
        found = np.where(self._keys[place] == raw, self._ids[place], self._others)
        if (found < 0).any():
            raise self._unknown(raw[found < 0], mask, num_classes)
        return found.astype(np.uint8)

    def _unknown(self, wrong: NDArray[np.integer[Any]], mask: Path | None, num_classes: int) -> DataError:
        values, counts = np.unique(wrong, return_counts=True)
        most = np.argsort(-counts, kind="stable")[:10] if self._colors else range(min(10, len(values)))
        listed = [f"{hex_color(unpack(values[i])) if self._colors else values[i]} ({counts[i]} pixels)" for i in most]
        more = f" and {len(values) - 10} more" if len(values) > 10 else ""
        if self._colors:
            remedy = "add them to the map; ignore in place of a name means no label"
            return DataError(
                f"colours that data.color_map={self._colors} lacks", remedy, mask, ", ".join(listed) + more
            )
        return DataError(
            f"values outside the {num_classes} classes", "add them to data.ignored_values, or map them with "
            "data.class_map", mask, f"{', '.join(listed)}{more}; allowed are {ranges(self._keys)}",
        )  # fmt: skip


def ranges(values: NDArray[np.int64]) -> str:
    """Sorted values as text: 0..10, 255."""
    groups = np.split(values, np.flatnonzero(np.diff(values) > 1) + 1)
    return ", ".join(f"{group[0]}..{group[-1]}" if len(group) > 1 else str(group[0]) for group in groups if len(group))


def _check_format(mask: Image.Image, path: Path) -> None:
    lossy = mask.format == "TIFF" and mask.info.get("compression") in LOSSY_TIFF
    if mask.format not in LOSSLESS or lossy:
        kind = f"{mask.format}{' compressed as JPEG or WebP' if lossy else ''}, whatever its name says"
        raise DataError("a mask in a format that alters values", AS_PNG, path, kind)
    check_sums(mask)


def _upright(values: NDArray[Any], mask: Image.Image) -> NDArray[Any]:
    """Values turned as the EXIF of the mask says; Pillow has turned a TIFF as it decoded it."""
    stored = 1 if mask.format == "TIFF" else orientation(mask)
    return values if stored == 1 else turned(values, stored)


def _samples(mask: Image.Image) -> NDArray[np.integer[Any]]:
    """The samples as the file holds them, before it is decoded."""
    raw, signed = raw_mode(mask), tiff_tag(mask, 339, (1,))[0] == 2
    if mask.mode == "I" or mask.mode.startswith("I;16"):
        wide = np.array(mask, dtype=np.int32)
        return wide.astype(np.int64) % 2**32 if raw.startswith("I;32") and not signed and (wide < 0).any() else wide
    values = np.asarray(mask, dtype=np.uint8)  # read only: nothing writes into raw values
    form = re.fullmatch(r"(L|1);?([24]?)(I?)R?", raw)
    if form and form[0] not in {"L", "1"}:
        top = 2 ** int(form[2] or {"L": 8, "1": 1}[form[1]]) - 1
        values = values // (255 // top) if form[1] == "L" else values
        values = top - values if form[3] else values
    return values.view(np.int8).astype(np.int32) if signed else values


def _no_ids(mask: Image.Image, path: Path) -> DataError:
    if mask.mode == "F":
        return DataError(
            "a mask of floating-point numbers", "save masks with whole numbers, one class id per pixel", path
        )
    if mask.mode in {"LA", "La", "PA"} or raw_mode(mask).startswith("LA"):
        return DataError("a mask with transparency beside its values", AS_PNG, path)
    return DataError(
        "a mask that is a colour image",
        "say which colour is which class with data.color_map: a file of lines such as `128 64 128 road`, or palette",
        path, f"mode {mask.mode}",
    )  # fmt: skip
