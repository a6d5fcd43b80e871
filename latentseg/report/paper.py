"""What the paper printed: Tables 1 to 5 of arXiv:1912.12936 (mIoU in %), for the report to stand beside.

Rows are named as in the shipped sweeps; a column is the labelled fraction (Tables 1, 2), the number of latent classes
(Table 4), or "" where a table has none (Tables 3, 5).
"""

from dataclasses import dataclass, field
from typing import Any

LABELED = ("1/8", "1/4", "1/2", "all")
NUM_LATENT = ("2", "4", "6", "10", "20", "50")
VOC = "PASCAL VOC 2012 + SBD"


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper."""

    number: int
    title: str
    data: str
    """Data set and setting."""
    column_key: str
    """The option that the columns vary; "" without columns."""
    columns: tuple[str, ...]
    rows: dict[str, tuple[float, ...]]
    """mIoU in % by row, one per column."""
    effective: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Table 4: effective latent classes by threshold, one per column."""

    def score(self, row: str, column: Any) -> float | None:
        """The paper's mIoU in %, or None where it has no such cell."""
        found = dict(zip(self.columns, self.rows.get(row, ()), strict=False))
        return found.get("" if column is None else str(column))

    def shares(self, row: str) -> list[float]:
        """Tables 1, 2: the scores as shares of the row's own result with all labels, as printed; else empty."""
        scores = self.rows[row]
        return [score / scores[-1] for score in scores] if self.columns == LABELED else []


_FEW = f"{VOC}, 1/8 of the labels"
_TABLES = (
    PaperTable(1, "Comparison with AdvSemiSeg", f"{VOC}, ResNet-101", "data.labeled", LABELED, {
        "AdvSemiSeg": (69.5, 72.1, 73.8, 74.9), "proposed": (71.3, 72.4, 73.9, 75.0),
    }),
    PaperTable(2, "Comparison with AdvSemiSeg", "Cityscapes, ResNet-101", "data.labeled", LABELED, {
        "AdvSemiSeg": (58.8, 62.3, 65.7, 67.7), "proposed": (63.3, 65.4, 66.1, 66.3),
    }),
    PaperTable(3, "Impact of the loss terms", _FEW, "", ("",), {
        "supervised": (64.1,), "+ latent classes": (67.3,), "proposed": (71.3,),
    }),
    PaperTable(4, "Impact of the number of latent classes", _FEW, "method.num_latent", NUM_LATENT, {
        "proposed": (69.7, 70.2, 70.3, 70.7, 71.3, 70.8),
    }, {"0.1": (2, 4, 6, 10, 16, 18), "0.9": (2, 4, 6, 10, 14, 14)}),
    PaperTable(5, "Comparison with other latent branches", _FEW, "", ("",), {
        "KL": (69.1,), "manual": (69.0,), "semantic classes": (68.5,), "learned (10)": (70.7,), "learned (20)": (71.3,),
    }),
)  # fmt: skip
PAPER = {table.number: table for table in _TABLES}
"""The tables by number."""
