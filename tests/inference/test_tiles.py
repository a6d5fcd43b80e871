"""Huge images in tiles: each pixel once, from what it would be seen in whole, in bounded memory."""

from itertools import pairwise

import pytest

from latentseg.config import InferenceConfig
from latentseg.inference.tiles import TILE, WHOLE_PIXELS, tell_tiles, tiles


@pytest.mark.parametrize("factor", [1, 2, 3.7, 20])
@pytest.mark.parametrize("shape", [(10_000, 10_000), (3000, 12_345), (2900, 2900), (1, 9_000_001)])
def test_each_pixel_of_the_map_comes_from_one_tile(shape: tuple[int, int], factor: float) -> None:
    network = (max(1, round(shape[0] / factor)), max(1, round(shape[1] / factor)))
    found = tiles(network, shape, InferenceConfig())
    for axis in (0, 1):
        spans = sorted({(tile.place[axis].start, tile.place[axis].stop) for tile in found})
        assert spans[0][0] == 0
        assert spans[-1][1] == shape[axis]
        assert all(left[1] == right[0] for left, right in pairwise(spans))
    for tile in found:
        for axis in (0, 1):
            seen, kept, place = tile.seen[axis], tile.kept[axis], tile.place[axis]
            assert kept.stop - kept.start == place.stop - place.start > 0
            assert kept.stop <= tile.size[axis]
            assert 0 <= seen.start < seen.stop <= network[axis]
            assert abs(seen.start * shape[axis] / network[axis] + kept.start - place.start) < 1  # it lies where it was
        assert factor == 20 or max(tile.size) <= 2 * TILE


def test_ordinary_images_are_one_piece() -> None:
    assert tiles((2160, 3840), (2160, 3840), InferenceConfig()) == []
    assert tiles((1024, 2048), (1024, 2048), InferenceConfig(mode="slide")) == []
    assert tiles((20_000, 20_000), (20_000, 20_000), InferenceConfig(mode="whole")) == []
    assert len(tiles((3000, 3000), (3000, 3000), InferenceConfig())) == 9
    assert len(tiles((2000, 2000), (2000, 2000), InferenceConfig(scales=[1, 1.5]))) == 9  # 9 million at the larger one
    assert len(tiles((3000, 3000), (3000, 3000), InferenceConfig(mode="slide", window=(2000, 4000)))) == 2


def test_what_is_in_tiles_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert not tell_tiles((2160, 3840), (2160, 3840), InferenceConfig())
    assert tell_tiles((3000, 4000), (3000, 4000), InferenceConfig())
    assert "such as one of 4000x3000, are predicted in tiles" in capsys.readouterr().err
    assert WHOLE_PIXELS == 8_388_608
