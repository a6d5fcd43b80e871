"""GeoTIFF: where on the earth an image lies, and its index map as GeoTIFF that lies there, too (rasterio, an extra)."""

from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentseg.data.opening import opened, orientation, tiff_tag
from latentseg.errors import DataError

TAGS = (33550, 33922, 34264)
"""ModelPixelScale, ModelTiepoint, ModelTransformation: one of them places an image on the earth."""
SUFFIXES = frozenset({".tif", ".tiff"})
NOTE = "GeoTIFF images are predicted without their georeference, which rasterio keeps: pip install 'latentseg[geo]'"


def has_place(source: Path) -> bool:
    """Whether an image is a GeoTIFF that says where it lies; a file that cannot be read is none."""
    if source.suffix.lower() not in SUFFIXES:
        return False
    try:
        with opened(source) as image:
            return any(tiff_tag(image, number) for number in TAGS) and orientation(image) == 1
    except DataError:
        return False


def has_rasterio() -> bool:
    """Whether the package is there."""
    try:
        import_module("rasterio")
    except ImportError:
        return False
    return True


def geotiff(ids: NDArray[np.uint8], palette: NDArray[np.uint8] | None, source: Path) -> bytes:
    """Ids (H, W) as GeoTIFF with the coordinate system and the transform of an image of the same size.

    Args:
        ids: Values of the pixels, uint8.
        palette: Their colours, shape (n, 3); None: grey.
        source: The image, a GeoTIFF.

    Raises:
        DataError: Its georeference cannot be read.
    """
    import rasterio  # noqa: PLC0415 - an extra
    from rasterio.errors import RasterioError  # noqa: PLC0415

    height, width = ids.shape
    try:
        with rasterio.open(source) as image:
            points, of_points = image.gcps
            place: dict[str, Any] = {"crs": image.crs, "transform": image.transform}
            place = {"crs": of_points, "gcps": points} if points else place
    except RasterioError as error:
        raise DataError("a georeference that cannot be read", "save the image again", source, str(error)) from error
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "compress": "deflate", "tiled": True}
    written = BytesIO()
    with rasterio.open(written, "w", height=height, width=width, **profile, **place) as result:
        result.write(ids, 1)
        if palette is not None:
            result.write_colormap(1, {i: tuple(color) for i, color in enumerate(palette.tolist())})
    return written.getvalue()
