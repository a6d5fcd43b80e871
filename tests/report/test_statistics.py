import math

import pytest

from latentseg.report.statistics import gap_share, paired, relative, summarize


def test_mean_and_sample_deviation() -> None:
    summary = summarize({"0": 1.0, "1": 2.0, "2": 3.0, "3": 6.0})
    assert summary is not None
    assert (summary.count, summary.mean) == (4, 3.0)
    assert summary.spread == pytest.approx(math.sqrt(14 / 3))  # (4 + 1 + 0 + 9) / (4 - 1)
    assert summary.text() == "3.00 ± 2.16"
    assert summary.text(1, sign=True) == "+3.0 ± 2.2"


def test_one_value_has_no_spread_and_none_has_no_mean() -> None:
    one = summarize({"0": 4.0})
    assert one is not None
    assert one.spread is None
    assert one.text() == "4.00"
    assert summarize({}) is None
    assert summarize({"0": float("nan")}) is None
    kept = summarize({"0": float("nan"), "1": 2.0})
    assert kept is not None
    assert (kept.count, kept.mean) == (1, 2.0)


def test_differences_pair_the_seeds() -> None:
    assert paired({"0": 5.0, "2": 7.0, "3": 1.0}, {"2": 4.0, "0": 6.0}) == {"0": -1.0, "2": 3.0}


def test_gap_share_uses_the_seeds_that_all_three_have() -> None:
    # seeds 0 and 1: won (2 + 1) / 2 of a gap of (4 + 8) / 2; seed 2 lacks a baseline
    share = gap_share({"0": 12, "1": 11, "2": 99}, {"0": 10, "1": 10}, {"0": 14, "1": 18, "2": 20})
    assert share is not None
    assert share[0] == pytest.approx(0.25)
    assert share[1] == 2
    assert gap_share({"0": 12}, {"1": 10}, {"0": 14}) is None
    assert gap_share({"0": 12}, {"0": 10}, {"0": 10}) is None, "no gap"


def test_relative_performance_is_a_ratio_of_means() -> None:
    assert relative({"0": 60, "1": 70}, {"0": 100, "1": 30}) == pytest.approx(1.0)
    assert relative({}, {"0": 1.0}) is None
    assert relative({"0": 1.0}, {}) is None
