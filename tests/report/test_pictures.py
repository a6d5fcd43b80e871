import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentseg.data.datasets import distinct_palette
from latentseg.errors import UserError
from latentseg.inference.pictures import spread
from latentseg.presets import load_config
from latentseg.report import pictures
from latentseg.training.loop import train


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


@pytest.mark.parametrize(("count", "found"), [(0, []), (2, [0, 1]), (4, [0, 1, 2, 3]), (100, [0, 33, 66, 99])])
def test_images_are_spread_over_the_split(count: int, found: list[int]) -> None:
    assert spread(count, 4) == found


def test_a_map_keeps_its_colours_and_ignored_pixels_are_black() -> None:
    ids = np.full((600, 960), 1, np.uint8)
    ids[:, 480:] = 255
    picture = opened(pictures.map_uri(ids, np.array([[9, 9, 9], [10, 200, 30]], np.uint8)))
    pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape == (300, 480, 3)
    assert pixels[0, 0].tolist() == [10, 200, 30]
    assert pixels[0, -1].tolist() == [0, 0, 0]
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) == 2, "no colours are mixed"


def test_only_png_files_are_embedded(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("<svg/>")
    assert pictures.file_uri(tmp_path / "a.png") is None
    assert pictures.file_uri(tmp_path / "none.png") is None


def test_a_grid_of_real_runs(folder_set: Callable[..., Path], tmp_path: Path) -> None:
    options = [f"data.root={folder_set(val=5)}", "steps=1", "batch_size=2", "data.labeled=1/2", "cache=none"]
    options += ["augment.crop=[32,32]", "threads=1", "data.resize=0.5"]
    for name in ("supervised", "latent"):
        train(load_config("folder", [*options, f"method.name={name}"]), tmp_path / name)
    folders = {"base": tmp_path / "supervised", "ours": tmp_path / "latent"}
    grid = pictures.prediction_grid("seed 0", folders, "val")
    assert grid.title == "seed 0, val: 4 images"
    assert [name for name, _ in grid.rows] == ["00", "01", "03", "04"]
    titles = [picture.title for picture in grid.rows[0][1]]
    assert titles == ["image", "truth", "base", "ours", "latent map of ours"]
    assert opened(grid.rows[0][1][3].uri).size == (16, 12), "at the original size"
    allowed = {tuple(color) for color in distinct_palette(20).tolist()}
    latent = np.asarray(opened(grid.rows[0][1][4].uri).convert("RGB")).reshape(-1, 3)
    assert {tuple(color) for color in latent.tolist()} <= allowed
    assert [name for name, _ in grid.legend] == ["ground", "thing", "sky"]
    assert grid.missing == []
    partly = pictures.prediction_grid("", {"none": tmp_path / "none", "ours": tmp_path / "latent"}, "val")
    assert partly.missing == [f"none: {tmp_path / 'none'} is not a run folder (no config.yaml in it)"]
    assert len(partly.rows[0][1]) == 4
    with pytest.raises(UserError, match=r"none: .* is not a run folder"):
        pictures.prediction_grid("", {"none": tmp_path / "none"}, "val")
    (tmp_path / "set" / "images").rename(tmp_path / "set" / "gone")
    with pytest.raises(UserError):
        pictures.prediction_grid("seed 0", folders, "val")
