"""The paper's figures, once more by hand: /shared/method.md, section 7."""

import pytest

from latentseg.report.paper import PAPER

COLUMNS = {1: ["1/8", "1/4", "1/2", "all"], 2: ["1/8", "1/4", "1/2", "all"], 4: ["2", "4", "6", "10", "20", "50"]}


@pytest.mark.parametrize(
    ("table", "row", "scores"),
    [
        (1, "AdvSemiSeg", [69.5, 72.1, 73.8, 74.9]),
        (1, "proposed", [71.3, 72.4, 73.9, 75.0]),
        (2, "AdvSemiSeg", [58.8, 62.3, 65.7, 67.7]),
        (2, "proposed", [63.3, 65.4, 66.1, 66.3]),
        (4, "proposed", [69.7, 70.2, 70.3, 70.7, 71.3, 70.8]),
    ],
)
def test_tables_with_columns(table: int, row: str, scores: list[float]) -> None:
    assert list(PAPER[table].columns) == COLUMNS[table]
    assert [PAPER[table].score(row, column) for column in COLUMNS[table]] == scores


@pytest.mark.parametrize(
    ("table", "row", "column"), [(1, "proposed", "1/4"), (4, "proposed", 20), (3, "supervised", None)]
)
def test_a_score_is_found_by_the_value_of_the_column(table: int, row: str, column: object) -> None:
    assert PAPER[table].score(row, column) == {1: 72.4, 4: 71.3, 3: 64.1}[table]
    assert PAPER[table].score(row, "1/30") is None
    assert PAPER[table].score("another", column) is None


def test_tables_without_columns() -> None:
    assert {row: PAPER[3].score(row, None) for row in PAPER[3].rows} == {
        "supervised": 64.1,
        "+ latent classes": 67.3,
        "proposed": 71.3,
    }
    assert {row: PAPER[5].score(row, None) for row in PAPER[5].rows} == {
        "KL": 69.1,
        "manual": 69.0,
        "semantic classes": 68.5,
        "learned (10)": 70.7,
        "learned (20)": 71.3,
    }


def test_shares_and_effective_counts() -> None:
    printed = {
        1: {"AdvSemiSeg": [92.8, 96.3, 98.5, 100], "proposed": [95.1, 96.5, 98.5, 100]},
        2: {"AdvSemiSeg": [86.9, 92.0, 97.0, 100], "proposed": [95.5, 98.6, 99.7, 100]},
    }
    for table, rows in printed.items():
        for row, shares in rows.items():
            assert [round(100 * share, 1) for share in PAPER[table].shares(row)] == shares
    assert PAPER[4].shares("proposed") == PAPER[3].shares("proposed") == []
    assert list(PAPER[4].effective.values()) == [(2, 4, 6, 10, 16, 18), (2, 4, 6, 10, 14, 14)]
