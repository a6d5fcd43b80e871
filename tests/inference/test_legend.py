"""The legend: every colour is there, nothing leaves the picture."""

import numpy as np

from latentseg.data.colors import distinct_palette
from latentseg.inference.legend import LINE, legend


def test_each_class_has_its_colour_and_a_name() -> None:
    palette = np.array([[250, 0, 0], [0, 120, 0], [10, 20, 30]], np.uint8)
    picture = legend(["one", "two", "three"], palette, 300)
    assert picture.shape == (LINE + 12, 300, 3)
    for color in palette:
        assert int((picture == color).all(-1).sum()) == (LINE - 2) ** 2  # within its black border
    assert (picture[:, :20] != legend(["", "two", "three"], palette, 300)[:, :20]).sum() == 0
    assert (picture != legend(["oni", "two", "three"], palette, 300)).any()


def test_many_classes_take_more_lines_of_the_same_width() -> None:
    names = [f"class number {number}" for number in range(30)]
    narrow, wide = legend(names, distinct_palette(30), 160), legend(names, distinct_palette(30), 800)
    assert (narrow.shape[1], wide.shape[1]) == (160, 800)
    assert narrow.shape[0] > 4 * wide.shape[0]
    colors = {tuple(color) for color in narrow.reshape(-1, 3).tolist()}
    assert {tuple(color) for color in distinct_palette(30).tolist()} <= colors


def test_long_names_are_cut() -> None:
    palette = distinct_palette(2)
    assert legend(["x" * 500, "y"], palette, 400).shape[1] == 400
    assert (legend(["x" * 500, "y"], palette) == legend(["x" * 600, "y"], palette)).all()
