"""Figures of probability maps, by hand."""

import math

import pytest
import torch

from latentseg.suggest.signals import Doubt, class_shares, difference_map, entropy_map, greatest_doubt

# Three classes, a row of four pixels.
PROBS = torch.tensor([[1.0, 1 / 3, 0.5, 0.6], [0.0, 1 / 3, 0.0, 0.3], [0.0, 1 / 3, 0.5, 0.1]])[:, None]


def test_entropy_is_zero_where_sure_and_one_where_nothing_is_known() -> None:
    assert entropy_map(PROBS)[0, :3].tolist() == pytest.approx([0, 1, math.log(2) / math.log(3)], abs=1e-6)


def test_difference_is_the_probability_that_is_put_elsewhere() -> None:
    other = torch.tensor([[0.0, 1 / 3, 0.25, 0.6], [1.0, 1 / 3, 0.25, 0.3], [0.0, 1 / 3, 0.5, 0.1]])[:, None]
    assert difference_map(PROBS, other)[0].tolist() == pytest.approx([1, 0, 0.25, 0], abs=1e-6)


def test_greatest_doubt_counts_pixels_of_a_pair_whichever_is_ahead() -> None:
    probs = torch.tensor([[0.4, 0.5, 0.5, 0.9], [0.1, 0.1, 0.45, 0.05], [0.5, 0.4, 0.05, 0.05]])[:, None]
    assert greatest_doubt(probs) == Doubt(0, 2, 0.5)


def test_no_doubt_where_all_pixels_are_sure() -> None:
    assert greatest_doubt(PROBS[..., :1]).share == 0


def test_shares_of_the_classes() -> None:
    expected, won = class_shares(PROBS)
    assert expected.tolist() == pytest.approx([(1 + 1 / 3 + 0.5 + 0.6) / 4, (1 / 3 + 0.3) / 4, (1 / 3 + 0.6) / 4])
    assert won.tolist() == [1, 0, 0]
