"""Tables of a sweep: in the paper's form beside the paper's figures, and line by line with every seed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from latentseg.report.collect import Record, SweepRecord
from latentseg.report.lines import ALL_LABELS, SUPERVISED, Line, cells_of, full_scores, is_full, line_scores, lines
from latentseg.report.paper import PAPER, PaperTable, column_name
from latentseg.report.statistics import gap_share, paired, relative, summarize

DASH = "\N{EN DASH}"
"""Nothing to show."""
Effective = Mapping[str, Mapping[str, Any]]
"""Effective latent classes by column and threshold."""


@dataclass(frozen=True)
class Entry:
    """One cell of a table on the page."""

    text: str
    note: str = ""
    kind: str = ""
    """Style: missing, sub (a lighter line), text (left aligned)."""


@dataclass(frozen=True)
class Table:
    """A table on the page; the first entry of a row is its head."""

    caption: str
    header: list[str]
    rows: list[list[Entry]]
    note: str = ""


def mean_entry(sweep: SweepRecord, line: Line, split: str) -> Entry:
    """Mean and spread of a line, with what is missing."""
    cells = cells_of(sweep, line)
    summary = summarize(line_scores(sweep, line, split))
    if not cells:
        return Entry(DASH, kind="missing")
    if summary is None:
        states = sorted({cell.state for cell in cells})
        return Entry("missing", f"0 of {_seeds(len(cells))}" + f", {states[0]}" * (len(states) == 1), "missing")
    note = "" if summary.count == len(cells) else f"{summary.count} of {_seeds(len(cells))}"
    return Entry(summary.text(), note)


def _seeds(count: int) -> str:
    return f"{count} seed" + "s" * (count != 1)


def paper_form(sweep: SweepRecord, split: str, effective: Effective) -> list[Table]:
    """Rows by columns, as the paper prints it; the first split has the paper's own table beside it.

    A sweep without columns has none: there `line_table` has the paper's form.
    """
    if not sweep.column_key:
        return []
    labeled = sweep.column_key == "data.labeled"
    full = next((column for column in sweep.columns if labeled and is_full(column)), None)
    rows = []
    for first in lines(sweep, sweep.columns[0]):
        across = [Line(first.row, column, first.others) for column in sweep.columns]
        rows.append([Entry(first.label), *(mean_entry(sweep, line, split) for line in across)])
        if full is not None:
            own = line_scores(sweep, Line(first.row, full, first.others), split)
            shares = [relative(line_scores(sweep, line, split), own) for line in across]
            rows.append([Entry("of own full-label result", kind="sub"), *map(_share, shares)])
    first_split = split == sweep.splits[0]
    if sweep.column_key == "method.num_latent" and first_split:
        rows += [_effective_row(t, [effective.get(column_name(c), {}).get(t) for c in sweep.columns]) for t in _T]
    table = Table(f"Ours, {split}: mIoU in %", [sweep.column_key, *map(str, sweep.columns)], rows)
    return [table, paper_table(PAPER[sweep.table])] if sweep.table in PAPER and first_split else [table]


_T = ("0.1", "0.9")


def _share(share: float | None) -> Entry:
    return Entry(DASH if share is None else f"{100 * share:.1f} %", kind="sub")


def _effective_row(threshold: str, counts: list[Any]) -> list[Entry]:
    shown = [Entry(DASH if count is None else str(count), kind="sub") for count in counts]
    return [Entry(f"effective, t = {threshold}", kind="sub"), *shown]


def paper_table(paper: PaperTable) -> Table:
    """The paper's own table."""
    rows = []
    for row, scores in paper.scores.items():
        rows.append([Entry(row), *(Entry(f"{score:.1f}") for score in scores.values())])
        if row in paper.shares:
            shares = [Entry(f"{share:.1f} %", kind="sub") for share in paper.shares[row].values()]
            rows.append([Entry("of own full-label result", kind="sub"), *shares])
    rows += [_effective_row(t, list(counts.values())) for t, counts in paper.effective.items()]
    header = [paper.column_key, *(paper.columns if paper.column_key else ["mIoU"])]
    return Table(f"The paper's Table {paper.number}: {paper.data}", header, rows)


def line_table(sweep: SweepRecord, split: str) -> Table:
    """Every line with mean, spread, each seed, the paired difference to supervised and the share of the label gap."""
    paper = PAPER.get(sweep.table or 0)
    with_paper = paper is not None and not sweep.column_key and split == sweep.splits[0]
    compared = SUPERVISED in sweep.rows
    gap = compared and (ALL_LABELS in sweep.rows or any(map(is_full, sweep.columns)))
    header = ["row", *([sweep.column_key] if sweep.column_key else []), "mIoU in %"]
    header += ["paper"] * with_paper + ["to supervised, paired"] * compared + ["share of the label gap"] * gap
    rows = []
    for line in (line for column in sweep.columns for line in lines(sweep, column)):
        row = [Entry(line.label), *([Entry(str(line.column))] if sweep.column_key else [])]
        row.append(mean_entry(sweep, line, split))
        if paper is not None and with_paper:
            printed = paper.score(line.row, None)
            row.append(Entry(DASH if printed is None else f"{printed:.1f}"))
        row += [_difference(sweep, line, split)] * compared + [_gap(sweep, line, split)] * gap
        row.append(Entry(_each_seed(sweep, line, split), kind="text"))
        rows.append(row)
    return Table(f"Line by line, {split}", [*header, "seed: mIoU in %"], rows)


def _difference(sweep: SweepRecord, line: Line, split: str) -> Entry:
    base = Line(SUPERVISED, line.column, line.others)
    if line == base:
        return Entry("")
    differences = paired(line_scores(sweep, line, split), line_scores(sweep, base, split))
    summary = summarize(differences)
    if summary is None:
        return Entry(DASH, kind="missing")
    each = ", ".join(f"{difference:+.2f}" for difference in differences.values())
    return Entry(summary.text(sign=True), each if len(differences) > 1 else "")


def _gap(sweep: SweepRecord, line: Line, split: str) -> Entry:
    if line.row in (SUPERVISED, ALL_LABELS) or (sweep.column_key == "data.labeled" and is_full(line.column)):
        return Entry("")
    base = line_scores(sweep, Line(SUPERVISED, line.column, line.others), split)
    share = gap_share(line_scores(sweep, line, split), base, full_scores(sweep, line, split))
    return Entry(DASH, kind="missing") if share is None else Entry(f"{100 * share[0]:.0f} %", f"{_seeds(share[1])}")


def _each_seed(sweep: SweepRecord, line: Line, split: str) -> str:
    shown = []
    for cell in cells_of(sweep, line):
        score = cell.miou(split)
        shown.append(f"{cell.seed}: {cell.state if score is None else f'{score:.2f}'}")
    return "; ".join(shown)


def class_table(columns: dict[str, list[Record]], classes: list[str], split: str) -> Table | None:
    """IoU per class, mean over the runs of each column; None without any."""
    shown: dict[str, list[list[Any]]] = {}
    for label, records in columns.items():
        found = [record.scores.get(split, {}).get("iou") for record in records]
        lists = [list(iou.values()) if isinstance(iou, dict) else iou for iou in found if isinstance(iou, dict | list)]
        if fitting := [iou for iou in lists if len(iou) == len(classes)]:
            shown[label] = fitting
    if not shown or not classes:
        return None
    rows = []
    for index, name in enumerate(classes):
        values = [
            summarize({i: 100 * iou[index] for i, iou in enumerate(lists) if iou[index] is not None})
            for lists in shown.values()
        ]
        rows.append([Entry(name), *(Entry("absent" if v is None else v.text(1)) for v in values)])
    return Table(f"IoU per class in %, {split}", ["class", *shown], rows)
