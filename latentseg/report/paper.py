"""What the paper printed: Tables 1 to 5 of arXiv:1912.12936 (mIoU in %), for the report to stand beside.

Rows are named as in the shipped sweeps; a column is the labelled fraction (Tables 1, 2), the number of latent classes
(Table 4), or "" where a table has none (Tables 3, 5).
"""

from dataclasses import dataclass, field
from typing import Any

FULL = "all"
"""Name of the column with every label."""


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper."""

    number: int
    title: str
    data: str
    """Data set and setting."""
    column_key: str
    """The option that the columns vary; "" without columns."""
    scores: dict[str, dict[str, float]]
    """mIoU in % by row and column."""
    shares: dict[str, dict[str, float]] = field(default_factory=dict)
    """Tables 1, 2: the score as a share of the row's own result with all labels, in %."""
    effective: dict[str, dict[str, int]] = field(default_factory=dict)
    """Table 4: effective latent classes by threshold and column."""

    @property
    def columns(self) -> list[str]:
        """The columns, in the paper's order."""
        return list(next(iter(self.scores.values())))

    def score(self, row: str, column: Any) -> float | None:
        """The paper's mIoU in %, or None where it has no such cell."""
        return self.scores.get(row, {}).get(column_name(column))


def column_name(column: Any) -> str:
    """A column's value as the paper's tables name it."""
    return "" if column is None else str(column)


def _row(columns: tuple[str, ...], *figures: float) -> dict[str, float]:
    return dict(zip(columns, figures, strict=True))


def _count(columns: tuple[str, ...], *figures: int) -> dict[str, int]:
    return dict(zip(columns, figures, strict=True))


_LABELED = ("1/8", "1/4", "1/2", FULL)
_NUM_LATENT = ("2", "4", "6", "10", "20", "50")

PAPER = {
    1: PaperTable(
        1,
        "Comparison with AdvSemiSeg",
        "PASCAL VOC 2012 + SBD, ResNet-101",
        "data.labeled",
        {"AdvSemiSeg": _row(_LABELED, 69.5, 72.1, 73.8, 74.9), "proposed": _row(_LABELED, 71.3, 72.4, 73.9, 75.0)},
        {"AdvSemiSeg": _row(_LABELED, 92.8, 96.3, 98.5, 100), "proposed": _row(_LABELED, 95.1, 96.5, 98.5, 100)},
    ),
    2: PaperTable(
        2,
        "Comparison with AdvSemiSeg",
        "Cityscapes, ResNet-101",
        "data.labeled",
        {"AdvSemiSeg": _row(_LABELED, 58.8, 62.3, 65.7, 67.7), "proposed": _row(_LABELED, 63.3, 65.4, 66.1, 66.3)},
        {"AdvSemiSeg": _row(_LABELED, 86.9, 92.0, 97.0, 100), "proposed": _row(_LABELED, 95.5, 98.6, 99.7, 100)},
    ),
    3: PaperTable(
        3,
        "Impact of the loss terms",
        "PASCAL VOC 2012 + SBD, 1/8 of the labels",
        "",
        {"supervised": {"": 64.1}, "+ latent classes": {"": 67.3}, "proposed": {"": 71.3}},
    ),
    4: PaperTable(
        4,
        "Impact of the number of latent classes",
        "PASCAL VOC 2012 + SBD, 1/8 of the labels",
        "method.num_latent",
        {"proposed": _row(_NUM_LATENT, 69.7, 70.2, 70.3, 70.7, 71.3, 70.8)},
        effective={"0.1": _count(_NUM_LATENT, 2, 4, 6, 10, 16, 18), "0.9": _count(_NUM_LATENT, 2, 4, 6, 10, 14, 14)},
    ),
    5: PaperTable(
        5,
        "Comparison with other latent branches",
        "PASCAL VOC 2012 + SBD, 1/8 of the labels",
        "",
        {
            "KL": {"": 69.1},
            "manual": {"": 69.0},
            "semantic classes": {"": 68.5},
            "learned (10)": {"": 70.7},
            "learned (20)": {"": 71.3},
        },
    ),
}
"""The tables by number."""
