"""How an image becomes RGB pixels: as viewers show it, from a file, a Pillow image or an array alike."""

from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from latentseg.data.opening import Source, check_sums, opened, orientation, raw_mode, tiff_tag, turned
from latentseg.errors import DataError, UserError

IGNORE_INDEX = 255  # as in losses.py, which imports nothing of ours and is imported by no reader of data
BITS = 16  # of a deep grey sample, unless data.bits or the file says less
PARTIAL = 0.5  # where more of the pixels are half transparent, the band is a measurement and no transparency


def read_rgb(image: Source | NDArray[Any], bits: int = BITS) -> NDArray[np.uint8]:
    """An image as RGB, uint8, shape (H, W, 3): the same pixels from a file, a Pillow image or an array.

    It is read as viewers show it: turned upright as EXIF says, transparent pixels on white, the colours of an
    embedded profile as sRGB. Deep grey is scaled to 8 bits (65535 becomes 255).

    Args:
        image: A file; a Pillow image; or an array, upright: uint8 of shape (H, W, 3), RGB, of shape (H, W, 4) or
            (H, W, 2), with alpha, or grey of shape (H, W), which may also be bool, uint16 or int32 (0..65535).
        bits: How many bits of a deep grey sample hold its value: 12 where 4095 is white.

    Raises:
        DataError: A file is missing, no image, damaged or too large, or holds what has no sure meaning as RGB:
            floating-point numbers, several pictures, bands that are no colours.
        UserError: An array of another kind.
    """
    return read_upright(_from_array(image) if isinstance(image, np.ndarray) else image, bits)[0]


def read_upright(source: Source, bits: int = BITS) -> tuple[NDArray[np.uint8], int]:
    """What `read_rgb` gives, and the EXIF orientation of the stored pixels (1: they are upright).

    Raises:
        DataError: As `read_rgb`.
    """
    path = None if isinstance(source, Image.Image) else Path(source)
    with opened(source) as image:
        check_sums(image)
        tiff = image.format == "TIFF"  # which Pillow turns as it decodes it
        stored = orientation(image) if tiff else 1
        pixels = _from_deep(image, path, bits) if _is_deep(image) else _from_bytes(image, path, bits)
        if tiff or (stored := orientation(image)) == 1:
            return np.array(pixels), stored
        return turned(np.array(pixels), stored), stored


def used_bits(path: Path) -> int | None:
    """Bits of the largest sample of an image of 16 bits, for `data.bits`; None for other images.

    Raises:
        DataError: As `read_rgb`.
    """
    with opened(path) as image:
        if ";16" not in raw_mode(image) and image.mode != "I":
            return None
        if _is_deep(image):
            return int(np.array(image).max()).bit_length()
        return int(np.array(image.convert("RGB")).max()).bit_length() + 8  # Pillow keeps the upper half


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


def _is_deep(image: Image.Image) -> bool:
    return image.mode == "I" or image.mode.startswith("I;16")


def _from_deep(image: Image.Image, path: Path | None, bits: int) -> Image.Image:
    """Grey of 16 or 32 bits."""
    bits = 12 if raw_mode(image) == "I;12" else bits
    clear, white_is_zero = image.info.get("transparency"), tiff_tag(image, 262) == 0
    grey = np.array(image, dtype=np.int32)
    level = _to_byte(grey, bits, path)
    level = 255 - level if white_is_zero else level
    return Image.fromarray(level if clear is None else np.where(grey == clear, np.uint8(255), level)).convert("RGB")


def _to_byte(values: NDArray[np.int32], bits: int, path: Path | None) -> NDArray[np.uint8]:
    """Samples scaled so that the largest value of `bits` bits becomes 255."""
    top = 2**bits - 1
    if values.min() < 0 or values.max() > top:
        remedy = "save it with 8 bits" if bits == BITS else "set data.bits to the bits that the values use"
        raise DataError(f"samples outside 0..{top}", remedy, path, f"{values.min()}..{values.max()}")
    level: NDArray[np.uint8] = ((values * 255 + top // 2) // top).astype(np.uint8)
    return level


def _from_bytes(image: Image.Image, path: Path | None, bits: int) -> Image.Image:
    raw = raw_mode(image)
    if image.mode == "F":
        raise DataError("floating-point values of unknown range", "save it with 8 or 16 bits", path)
    if tiff_tag(image, 339, (1,))[0] == 2:
        raise DataError("signed samples, of which nothing says what is black", "save it with 8 or 16 bits", path)
    if 0 < max(tiff_tag(image, 320, (0,))) < 256:
        raise DataError("a palette of 8 bits in a TIFF, whose colours have 16: all black", "save it as RGB", path)
    if ";16" in raw and bits < BITS:
        return _deep_colors(image, raw, path, bits)
    unsaid = image.mode == "RGBA" and image.format == "TIFF" and not tiff_tag(image, 338)
    _mend_transparency(image, raw)
    colors = _as_srgb(image.convert("LA") if image.mode == "La" else image)
    if colors.has_transparency_data and not unsaid:
        return _on_white(colors.convert("RGBA"), path, len(image.getbands()))
    return colors if colors.mode == "RGB" else colors.convert("RGB")


def _deep_colors(image: Image.Image, raw: str, path: Path | None, bits: int) -> Image.Image:
    """RGB of 16 bits per colour: Pillow keeps the upper byte; the lower one comes if their order is swapped."""
    kind, order = raw.split(";16")
    if path is None or kind not in {"RGB", "RGBX"}:
        raise DataError("16 bits per colour, of which data.bits can take no part", "save it with 8 bits", path)
    swapped = f"{kind};16{'L' if order == 'B' else 'B'}"
    with Image.open(path) as again:
        tiles: list[Any] = again.tile
        again.tile = [
            tile._replace(args=swapped if isinstance(tile.args, str) else (swapped, *tile.args[1:])) for tile in tiles
        ]
        lower = np.array(again, dtype=np.int32)
    return Image.fromarray(_to_byte(np.array(image, dtype=np.int32) * 256 + lower, bits, path))


def _mend_transparency(image: Image.Image, raw: str) -> None:
    """The transparent colour of a PNG, in the 8 bits of the pixels: Pillow leaves it in those of the file."""
    clear = image.info.get("transparency")
    if raw in {"L;2", "L;4"} and isinstance(clear, int):
        image.info["transparency"] = clear * {"L;2": 85, "L;4": 17}[raw]
    if raw == "RGB;16B" and isinstance(clear, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in clear)


def _on_white(image: Image.Image, path: Path | None, bands: int) -> Image.Image:
    counts = image.getchannel("A").histogram()
    partial = sum(counts[1:255]) / sum(counts)
    if partial > PARTIAL:
        raise DataError(
            "has a band that is called transparency, but looks like a measurement (near infrared, depth)",
            "save the image without it", path, f"{bands} bands, {100 * partial:.0f} % of the last half transparent",
        )  # fmt: skip
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _as_srgb(image: Image.Image) -> Image.Image:
    """The image with the colours that its profile means, as sRGB; as it is where it has none that can be used."""
    profile = image.info.get("icc_profile")
    if not profile:
        return image
    if image.mode in {"P", "PA"}:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    transform = _transform(profile, image.mode)
    return image if transform is None else transform.apply(image)


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """What takes the colours of a profile to sRGB; None if they are sRGB, the profile is damaged or of another mode."""
    space = {"RGB": "RGB ", "RGBA": "RGB ", "CMYK": "CMYK", "LAB": "Lab "}.get(mode)
    try:
        found = ImageCms.ImageCmsProfile(BytesIO(profile))
        if found.profile.xcolor_space != space or "srgb" in ImageCms.getProfileDescription(found).lower():
            return None
        to = "RGBA" if mode == "RGBA" else "RGB"
        return ImageCms.buildTransform(found, ImageCms.createProfile("sRGB"), mode, to)
    except (ImageCms.PyCMSError, OSError):
        return None
