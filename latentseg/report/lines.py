"""Lines of a sweep's tables, and their scores by seed."""

import json
from dataclasses import dataclass, field
from typing import Any

from latentseg.report.collect import Record, SweepRecord

SUPERVISED, ALL_LABELS = "supervised", "all labels"
"""Rows that the others are compared with."""


@dataclass(frozen=True)
class Line:
    """The runs that differ in the seed alone."""

    row: str
    column: Any
    others: dict[str, Any] = field(default_factory=dict)
    """Values of the grid's further keys."""

    @property
    def label(self) -> str:
        """The row's name, with the grid's further keys."""
        return " · ".join([self.row, *(f"{key} {value}" for key, value in self.others.items())])


def is_full(column: Any) -> bool:
    """Whether a value of data.labeled means every label."""
    return str(column) in ("all", "1/1", "1.0")


def lines(sweep: SweepRecord, column: Any) -> list[Line]:
    """The table's lines in one column: rows times the grid without the seed, in the sweep's order."""
    found: dict[str, Line] = {}
    for row in sweep.rows:
        for cell in sweep.cells:
            if cell.row == row and cell.column == column:
                others = {key: value for key, value in cell.grid.items() if key != "seed"}
                found.setdefault(row + json.dumps(others, sort_keys=True, default=str), Line(row, column, others))
    return list(found.values())


def cells_of(sweep: SweepRecord, line: Line) -> list[Record]:
    """The cells of a line, one per seed."""
    chosen = (cell for cell in sweep.cells if (cell.row, cell.column) == (line.row, line.column))
    return [cell for cell in chosen if {key: v for key, v in cell.grid.items() if key != "seed"} == line.others]


def line_scores(sweep: SweepRecord, line: Line, split: str) -> dict[str, float]:
    """Score (mIoU in %) by seed, of the cells that have one."""
    scores = {str(cell.seed): cell.miou(split) for cell in cells_of(sweep, line)}
    return {seed: score for seed, score in scores.items() if score is not None}


def full_scores(sweep: SweepRecord, line: Line, split: str) -> dict[str, float]:
    """Scores with all labels that a line's share of the label gap refers to; empty if the sweep has none."""
    if ALL_LABELS in sweep.rows:
        return line_scores(sweep, Line(ALL_LABELS, line.column, line.others), split)
    full = [column for column in sweep.columns if sweep.column_key == "data.labeled" and is_full(column)]
    return line_scores(sweep, Line(SUPERVISED, full[0], line.others), split) if full else {}
