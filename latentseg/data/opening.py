"""How image files are opened: damaged, oversized and ambiguous ones are refused with the reason."""

import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from latentseg.errors import DataError

PIXEL_LIMIT = 2**30
"""Of one image: 4 GB in Pillow's memory. Pillow's own limit is below what a map or a slide scanner gives."""
Image.MAX_IMAGE_PIXELS = PIXEL_LIMIT
logging.getLogger("PIL").addHandler(logging.NullHandler())  # what Pillow logs is in our messages
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # and what it warns of
ORIENTATION = 0x0112  # EXIF tag: 1 upright, 2 to 8 mirrored or turned; 5 to 8 exchange width and height
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
EXIF_IN = frozenset({"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"})  # keys of Pillow's info
TIFF = frozenset({b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"})  # how such a file begins
TIFF_NEEDS = frozenset({256, 257, 262, 273})
"""Tags of the size, the meaning of values, and the place of the pixels."""
REDUCED_OR_MASK = 5  # bits of a TIFF's NewSubfileType: such a page is no picture of its own
UNKNOWN_TIFF = (
    "is a TIFF of a kind that cannot be read",
    "save red, green and blue, or one grey band, with 8 bits each, pixel by pixel",
)

Source = str | Path | Image.Image


@contextmanager
def opened(source: Source) -> Iterator[Image.Image]:
    """A file as Pillow image, closed at the end; an image as it is. What cannot be decoded inside is explained.

    Raises:
        DataError: The file is missing or may not be read, is no image or damaged, is larger than `PIXEL_LIMIT`, or
            holds several pictures or bands of unknown meaning.
    """
    path = None if isinstance(source, Image.Image) else Path(source)
    try:
        if path is None:
            yield _unmapped(source)  # type: ignore[arg-type]
            return
        with Image.open(path) as image:
            _check_kind(image, path)
            yield _unmapped(image)
    except FileNotFoundError as error:
        raise DataError("does not exist", "add the file, or leave it out of the lists", path) from error
    except Image.DecompressionBombError as error:
        raise _too_large(path, str(error)) from error
    except UNREADABLE as error:
        raise _explained(error, path) from error


def check_sums(image: Image.Image) -> None:
    """Compare all checksums of a PNG before it is decoded: Pillow skips those of the pixels and of what is behind them.

    EXIF behind the pixels turns them, so no part is left out.

    Raises:
        OSError: One is wrong, or the file ends early; `opened` explains it.
    """
    for kind, length, file in _chunks(image):
        content = file.read(length + 4)
        if zlib.crc32(content[:-4], zlib.crc32(kind)) != int.from_bytes(content[-4:], "big"):
            raise OSError(f"the checksum of its {kind.decode(errors='replace')} part is wrong")


def orientation(image: Image.Image) -> int:
    """How EXIF says that the pixels are stored, 1 to 8. Ask before a TIFF is decoded: Pillow turns it then.

    Nothing is decoded for it, but a PNG that has EXIF or text behind its pixels.
    """
    maybe = image.format in {None, "TIFF"} or not EXIF_IN.isdisjoint(image.info) or _has_late_text(image)
    if not maybe:  # nearly all images: without the price of EXIF
        return 1
    stored: int = image.getexif().get(ORIENTATION, 1)
    return stored if stored in range(2, 9) else 1


def turned(stored: NDArray[Any], orientation: int) -> NDArray[Any]:
    """What makes pixels (H, W) or (H, W, 3) upright that are stored in an EXIF orientation."""
    upright = stored.swapaxes(0, 1) if orientation >= 5 else stored
    rows = slice(None, None, -1 if orientation in {3, 4, 7, 8} else 1)
    columns = slice(None, None, -1 if orientation in {2, 3, 6, 7} else 1)
    return np.ascontiguousarray(upright[rows, columns])


def raw_mode(image: Image.Image) -> str:
    """Pillow's name for the samples of a file that is not decoded yet, such as L;4; of any other image its mode."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else image.mode
    return arguments if isinstance(arguments, str) else str(arguments[0])


def tiff_tag(image: Image.Image, number: int, default: Any = None) -> Any:
    """A tag of a TIFF; the default if it lacks it, or is no TIFF."""
    return image.tag_v2.get(number, default) if isinstance(image, TiffImagePlugin.TiffImageFile) else default


def _chunks(image: Image.Image) -> Iterator[tuple[bytes, int, BinaryIO]]:
    """Kind and length of each part of a PNG that is not decoded yet, and the file, which stands at its content."""
    file: BinaryIO | None = getattr(image, "fp", None)
    if image.format != "PNG" or file is None or not getattr(image, "tile", None):
        return
    place, at, kind = file.tell(), 8, b""
    while kind != b"IEND":
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            raise OSError("the file ends early")
        length, kind = struct.unpack(">I4s", head)
        yield kind, length, file
        at += length + 12
    file.seek(place)


def _has_late_text(image: Image.Image) -> bool:
    """Whether a PNG has EXIF or text behind its pixels."""
    kinds = [kind for kind, _, _ in _chunks(image)]
    return not {b"eXIf", b"tEXt", b"zTXt", b"iTXt"}.isdisjoint(kinds[kinds.index(b"IDAT") :] if kinds else ())


def _unmapped(image: Image.Image) -> Image.Image:
    """Without its name, by which Pillow maps a TIFF into memory: it misreads one that its orientation turns."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        image.filename = ""
    return image


def _check_kind(image: Image.Image, path: Path) -> None:
    if image.width * image.height > PIXEL_LIMIT:
        raise _too_large(path, f"{image.width}x{image.height}")
    if (pages := _pages(image)) > 1:
        raise DataError("holds several pictures", "save each as a file of its own", path, f"{pages} pages")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bands, extra, bits = tiff_tag(image, 277, 1), tiff_tag(image, 338, ()), max(tiff_tag(image, 258, (1,)))
        if tiff_tag(image, 262, 0) in {0, 1} and (bands > 2 or (bands == 2 and 0 in extra)):
            remedy = "save the three that are red, green and blue, or one of them, as an image of their own"
            raise DataError("has bands that are not said to be colours", remedy, path, f"{bands} bands")
        if tiff_tag(image, 284) == 2 and bands > 1 and bits > 8:  # Pillow takes half of each sample for a pixel
            raise DataError(*UNKNOWN_TIFF, path, f"{bands} bands of {bits} bits, one after the other")
    if image.mode == "P" and image.palette is None:
        raise DataError("is a palette image that lacks its palette", "save it again", path)
    if image.format == "BMP" and _bmp_bits(image) != {"1": 1, "L": 8}.get(raw_mode(image), _bmp_bits(image)):
        # Pillow takes a grey palette for samples of another width.
        raise DataError("is a BMP with a short grey palette, which is misread", "save it as PNG", path)


def _bmp_bits(image: Image.Image) -> int:
    file: BinaryIO = image.fp  # type: ignore[attr-defined]
    place, _ = file.tell(), file.seek(14)
    head = file.read(16)
    file.seek(place)
    return int.from_bytes(head[10:12] if head[0] == 12 else head[14:16], "little")


def _pages(image: Image.Image) -> int:
    """Pictures in a file; the previews and smaller copies that cameras and map makers add are not counted."""
    try:
        number: int = getattr(image, "n_frames", 1)
        if number == 1 or image.format == "MPO":
            return 1
        if not isinstance(image, TiffImagePlugin.TiffImageFile):
            return number
        whole = 0
        for page in range(number):
            image.seek(page)
            whole += not image.tag_v2.get(254, 0) & REDUCED_OR_MASK
        image.seek(0)
    except TypeError as error:  # Pillow's of a page without a size
        raise OSError(str(error)) from error
    return whole


def _too_large(path: Path | None, detail: str) -> DataError:
    remedy = f"cut it into tiles of at most {PIXEL_LIMIT:,} pixels, or scale it down"
    return DataError("is a sound image, but beyond the limit of pixels", remedy, path, detail)


def _explained(error: Exception, path: Path | None) -> DataError:
    if isinstance(error, OSError) and error.errno is not None:
        return DataError("cannot be read", "make it readable, or leave it out", path, error.strerror or str(error))
    unknown = isinstance(error, UnidentifiedImageError) or "unknown raw mode" in str(error)
    if unknown and path is not None and (bands := _tiff_bands(path)):
        return DataError(*UNKNOWN_TIFF, path, bands)
    return DataError("has no readable image content", "replace or remove the file", path, str(error))


def _tiff_bands(path: Path) -> str | None:
    """Bands and their bits of a TIFF that Pillow does not know; None if it is no TIFF."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
            if head[:4] not in TIFF:
                return None
            tags = TiffImagePlugin.ImageFileDirectory_v2(head + file.read(8) * (head[2] == 43))
            file.seek(tags.next)
            tags.load(file)
            if not tags.keys() >= TIFF_NEEDS:  # it was cut off
                return None
            return f"{tags.get(277, 1)} bands of {max(tags.get(258, (1,)))} bits"
    except UNREADABLE:
        return None
