"""GeoTIFF: read as an image, its index map lies at the same place on the earth."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from live import Channels, files, live, photo
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import from_origin

from latentseg.errors import UserError
from latentseg.inference.geotiff import has_place
from latentseg.inference.model import Model
from latentseg.inference.predict import predict

PLACE: dict[str, Any] = {"crs": CRS.from_epsg(32633), "transform": from_origin(500000.5, 5200000.25, 0.5, 0.5)}


def model() -> Model:
    return live(Channels())


def orthophoto(path: Path, dtype: str = "uint8", bands: int = 3, **place: Any) -> Path:
    pixels = np.moveaxis(photo(), -1, 0)[:bands].astype(dtype) * (257 if dtype == "uint16" else 1)
    profile = {"driver": "GTiff", "height": 37, "width": 53, "count": bands, "dtype": dtype}
    colors = {"photometric": "RGB"} if bands == 3 else {}
    with rasterio.open(path, "w", **profile, **colors, interleave="pixel", **(place or PLACE)) as file:
        file.write(pixels)
    return path


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_the_index_map_keeps_the_place(tmp_path: Path, dtype: str) -> None:
    source = orthophoto(tmp_path / "field.tif", dtype)
    predict(model(), [source], tmp_path / "out")
    labels = model().predict(photo()).labels
    assert len(np.unique(labels)) == 3
    assert np.array_equal(np.array(Image.open(tmp_path / "out" / "index" / "field.png")), labels)
    with rasterio.open(tmp_path / "out" / "index" / "field.tif") as result:
        assert (result.crs, result.transform) == (PLACE["crs"], PLACE["transform"])
        assert (result.count, result.dtypes) == (1, ("uint8",))
        assert np.array_equal(result.read(1), labels)
        assert [result.colormap(1)[i][:3] for i in range(3)] == [tuple(c) for c in model().run.palette.tolist()]


def test_points_on_the_ground_are_kept(tmp_path: Path) -> None:
    points = [GroundControlPoint(r, c, 10.0 + c, 50.0 - r) for r, c in ((0, 0), (36, 0), (0, 52), (36, 52))]
    source = orthophoto(tmp_path / "a.tif", gcps=points, crs=CRS.from_epsg(4326))
    predict(model(), [source], tmp_path / "out")
    with rasterio.open(tmp_path / "out" / "index" / "a.tif") as result:
        found, crs = result.gcps
        assert crs == CRS.from_epsg(4326)
        assert [(p.row, p.col, p.x, p.y) for p in found] == [(p.row, p.col, p.x, p.y) for p in points]


def test_a_plain_tiff_gives_a_png_alone(tmp_path: Path) -> None:
    Image.fromarray(photo()).save(tmp_path / "plain.tif")
    assert not has_place(tmp_path / "plain.tif")
    predict(model(), [tmp_path / "plain.tif"], tmp_path / "out")
    assert files(tmp_path / "out") == {"index/plain.png", "overlay/plain.png"}


def test_without_rasterio_a_note_says_what_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = [orthophoto(tmp_path / name) for name in ("a.tif", "b.tif")]
    monkeypatch.setitem(sys.modules, "rasterio", None)
    predict(model(), sources, tmp_path / "out")
    assert files(tmp_path / "out") == {f"{kind}/{name}.png" for kind in ("index", "overlay") for name in "ab"}
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("without their georeference, which rasterio keeps: pip install 'latentseg[geo]'") == 1


def test_a_geotiff_is_not_overwritten(tmp_path: Path) -> None:
    source = orthophoto(tmp_path / "a.tif")
    (tmp_path / "out" / "index").mkdir(parents=True)
    (tmp_path / "out" / "index" / "a.tif").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"a\.tif exists and is not overwritten"):
        predict(model(), [source], tmp_path / "out")
    assert files(tmp_path / "out") == {"index/a.tif"}


@pytest.mark.parametrize(("turn", "placed"), [(1, True), (6, False)])
def test_a_turned_image_has_no_place(tmp_path: Path, turn: int, placed: bool) -> None:
    tags = {274: turn, 33550: (1.0, 1.0, 0.0), 33922: (0.0, 0.0, 0.0, 5.0, 6.0, 0.0)}
    Image.fromarray(photo()).save(tmp_path / "a.tif", tiffinfo=tags)
    assert has_place(tmp_path / "a.tif") == placed
