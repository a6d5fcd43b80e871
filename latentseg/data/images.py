"""How image and mask files become arrays, and what mask values and class ids stand for."""

import colorsys
import struct
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from latentseg.errors import UserError

IGNORE_INDEX = 255  # as in losses.py, which imports nothing of ours and is imported by no reader of data
LOSSY_SUFFIXES = frozenset({".jpg", ".jpeg", ".webp"})
ORIENTATION = 0x0112  # EXIF tag; 5 to 8 exchange width and height
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)

# fmt: off
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on
# Official table: name -> (labelId, colour), in the order of the train ids.
CITYSCAPES = {
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}
CITYSCAPES_LABEL_IDS = 34  # 0..33; those without a train id are ignored


def read_rgb(image: str | Path | Image.Image | NDArray[Any], mask: Path | None = None) -> NDArray[np.uint8]:
    """An image as RGB, uint8, shape (H, W, 3): the same pixels from a file, a Pillow image or an array.

    16-bit grey is scaled to 8 bit (65535 becomes 255); transparent pixels are laid on white, as viewers do.
    Masks carry no EXIF orientation: an image is read as stored if its mask fits the stored size, turned if it
    fits the turned size, and turned if it has no mask.

    Args:
        image: A file; a Pillow image; or an array, upright: uint8 of shape (H, W, 3), RGB, of shape (H, W, 4) or
            (H, W, 2), with alpha, or grey of shape (H, W), which may also be bool, uint16 or int32 (0..65535).
        mask: Its mask, of which only the size is read.

    Raises:
        UserError: A file is missing, no image, or truncated, the sizes differ, or the pixels are floating-point
            numbers or an array of another kind.
    """
    source = _from_array(image) if isinstance(image, np.ndarray) else image
    with _opened(source) as opened:
        return _upright_rgb(opened, source, mask, _size(mask))


def _from_array(array: NDArray[Any]) -> Image.Image:
    """A Pillow image of an array, (H, W) or (H, W, channels), as `read_rgb` takes it."""
    channels, kind = array.shape[2:], array.dtype.name
    grey = array.ndim == 2 and kind in {"bool", "uint8", "uint16", "int32"}
    if array.size == 0 or not (grey or (channels in {(2,), (3,), (4,)} and kind == "uint8")):
        raise UserError(
            f"image array of shape {array.shape}, {kind}: expected (H, W, 3) RGB, uint8; or uint8 with alpha, "
            f"(H, W, 4) or (H, W, 2); or grey, (H, W), uint8, bool, uint16 or int32 (0..65535)"
        )
    return Image.fromarray(array)


def read_pair(path: Path, mask: Path) -> tuple[NDArray[np.uint8], NDArray[np.integer[Any]]]:
    """An image as `read_rgb` gives it and its mask as `read_mask` does; each file is opened once.

    Raises:
        UserError: As `read_rgb` and `read_mask`.
    """
    raw = read_mask(mask)
    with _opened(path) as image:
        return _upright_rgb(image, path, mask, raw.shape[::-1]), raw


def read_mask(path: Path) -> NDArray[np.integer[Any]]:
    """Raw values of an index mask (palette or single channel), shape (H, W).

    Raises:
        UserError: The file is missing, truncated, a colour image, or of a format that alters values.
    """
    if path.suffix.lower() in LOSSY_SUFFIXES:
        raise UserError(f"mask {path} is in a format that alters values; save masks as PNG, one class id per pixel")
    with _opened(path) as mask:
        if mask.mode not in {"P", "L", "1", "I"} and not mask.mode.startswith("I;16"):
            raise UserError(
                f"mask {path} is a colour image (mode {mask.mode}); masks hold one class id per pixel: save "
                f"them as palette or single-channel PNG, and map other values with data.class_map"
            )
        return np.array(mask, dtype=np.uint8 if mask.mode in {"P", "L", "1"} else np.int32)


def check_headers(path: Path, mask: Path | None, raw: NDArray[np.integer[Any]] | None = None) -> None:
    """Open an image and its mask without decoding them; their sizes must agree.

    Args:
        path: The image.
        mask: Its mask.
        raw: What `read_mask` gave for it: it is not opened once more.

    Raises:
        UserError: A file is missing or no image, or the sizes differ.
    """
    with _opened(path) as image:
        if mask is not None:
            _must_turn(image, path, mask, _size(mask) if raw is None else raw.shape[::-1])


def resized(pixels: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """Scale an image (H, W, 3) by a factor, smoothly; the same array if the factor is 1."""
    return _scaled(pixels, factor, Image.Resampling.BILINEAR)


def resized_ids(ids: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """Scale a map of ids (H, W) by a factor, taking the nearest pixel; the same array if the factor is 1."""
    return _scaled(ids, factor, Image.Resampling.NEAREST)


def _scaled(pixels: NDArray[np.uint8], factor: float, how: Image.Resampling) -> NDArray[np.uint8]:
    if factor == 1.0:
        return pixels
    height, width = (max(1, round(size * factor)) for size in pixels.shape[:2])
    return np.array(Image.fromarray(pixels).resize((width, height), how))


@contextmanager
def _opened(source: str | Path | Image.Image) -> Iterator[Image.Image]:
    """A file as Pillow image, closed at the end; an image as it is. What cannot be decoded inside is explained."""
    try:
        with nullcontext(source) if isinstance(source, Image.Image) else Image.open(source) as image:
            yield image
    except FileNotFoundError as error:
        raise UserError(f"{source} does not exist; add the file, or leave it out of the lists") from error
    except UNREADABLE as error:
        raise UserError(f"{source} has no readable image content ({error}); replace or remove the file") from error


def _size(mask: Path | None) -> tuple[int, ...] | None:
    """Width and height that a mask file says it has."""
    if mask is None:
        return None
    with _opened(mask) as opened:
        return opened.size


def _upright_rgb(
    image: Image.Image, source: object, mask: Path | None, wanted: tuple[int, ...] | None
) -> NDArray[np.uint8]:
    upright = ImageOps.exif_transpose(image) if _must_turn(image, source, mask, wanted) else image
    return np.array(_to_rgb(upright, source))


def _must_turn(image: Image.Image, source: object, mask: Path | None, wanted: tuple[int, ...] | None) -> bool:
    """Whether EXIF turns an image whose mask is `wanted` wide and high; None: it has no mask."""
    if wanted is None:
        return bool(image.getexif().get(ORIENTATION, 1) != 1)
    if wanted == image.size:
        return False
    # Pillow decodes a whole PNG to look for EXIF behind the pixels; beside a mask only what stands before them counts.
    has_exif = image.format != "PNG" or "exif" in image.info
    if has_exif and image.getexif().get(ORIENTATION) in {5, 6, 7, 8} and wanted == image.size[::-1]:
        return True
    raise UserError(
        f"image {source} is {image.size[0]}x{image.size[1]}, but its mask {mask} is {wanted[0]}x{wanted[1]} "
        f"(width x height); a mask must have the size of its image"
    )


def _to_rgb(image: Image.Image, source: object) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = np.clip(np.array(image, dtype=np.int32), 0, 65535)
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise UserError(f"image {source} holds floating-point values of unknown range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


class MaskValues:
    """What the values of a mask stand for.

    Args:
        values: Mask value -> class id.
        ignored: Mask values without a label; they become 255, whatever `values` says.
        others: What all other values become: 255 (ignored) or -1 (refused).
    """

    def __init__(self, values: dict[int, int], ignored: list[int], others: int) -> None:
        self.table = np.full(257, others, np.int16)  # the last entry stands for values that do not fit a byte
        self.table[list(values)] = list(values.values())
        self.table[ignored] = IGNORE_INDEX
        # Bytes have a table of their own, in which an id that no value has marks the refused ones: where a byte is
        # refused, the others cannot take all 256 ids.
        entries = self.table[:256]
        self._refused = min(set(range(256)) - set(entries.tolist())) if (entries < 0).any() else None
        self._bytes = np.where(entries < 0, self._refused or 0, entries).astype(np.uint8).tobytes()

    def ids(self, raw: NDArray[np.integer[Any]], mask: Path | None, num_classes: int) -> NDArray[np.uint8]:
        """Class ids of a mask's values, shape (H, W), 255 where there is no label.

        Raises:
            UserError: A value is refused.
        """
        if raw.dtype == np.uint8:  # Python's own look-up of bytes takes half the time of NumPy's
            ids = bytearray(raw).translate(self._bytes)
            if self._refused is None or self._refused not in ids:
                return np.frombuffer(ids, np.uint8).reshape(raw.shape)
        found = self.table[raw if raw.dtype == np.uint8 else np.where((raw < 0) | (raw > 255), 256, raw)]
        if (found < 0).any():
            wrong, counts = np.unique(raw[found < 0], return_counts=True)
            listed = [f"{value} ({n} pixels)" for value, n in zip(wrong, counts, strict=True)][:10]
            raise UserError(
                f"mask {mask} holds values outside the {num_classes} classes: {', '.join(listed)}; "
                f"allowed are {ranges(np.flatnonzero(self.table >= 0))}. Add them to data.ignored_values, or map "
                f"them with data.class_map"
            )
        return found.astype(np.uint8)


def distinct_palette(number: int) -> NDArray[np.uint8]:
    """RGB colours that tell neighbouring ids apart, shape (number, 3); the golden ratio spreads the hues."""
    colors = np.zeros((number, 3), np.uint8)
    for i in range(number):
        rgb = colorsys.hsv_to_rgb(i * 0.618034 % 1, (0.9, 0.55)[i % 2], (0.95, 0.75, 0.55)[i % 3])
        colors[i] = [round(255 * part) for part in rgb]
    return colors


def voc_color(value: int) -> tuple[int, int, int]:
    """RGB colour of a VOC class: bits of its id, three at a time, fill each channel from the top."""
    r, g, b = (sum((value >> 3 * k + channel & 1) << 7 - k for k in range(8)) for channel in range(3))
    return r, g, b


def class_palette(number: int, values: dict[int, int], colors: dict[int, tuple[int, int, int]]) -> NDArray[np.uint8]:
    """Colour of each class: the layout's for its lowest mask value, or else one of `number` distinct colours."""
    palette = distinct_palette(number)
    for value in sorted(values, reverse=True):
        if value in colors and values[value] < number:
            palette[values[value]] = colors[value]
    return palette


def ranges(values: NDArray[np.int64]) -> str:
    """Sorted values as text: 0..10, 255."""
    groups = np.split(values, np.flatnonzero(np.diff(values) > 1) + 1)
    return ", ".join(f"{group[0]}..{group[-1]}" if len(group) > 1 else str(group[0]) for group in groups if len(group))
