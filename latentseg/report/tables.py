"""Tables of the report: scores beside the paper's, line by line with every seed, and what surrounds them."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from latentseg.console import duration
from latentseg.report.collect import (
    ALL_LABELS,
    SUPERVISED,
    Line,
    Record,
    SweepRecord,
    Tree,
    is_full,
    number,
    read_json,
)
from latentseg.report.paper import PAPER, PaperTable
from latentseg.report.statistics import gap_share, paired, relative, summarize

DASH = "\N{EN DASH}"
"""Nothing to show."""
SHOWN = 40
"""Unfinished cells that are listed one by one."""
NAMED = 6
"""Cells not begun that are named; more are counted."""
VALUES = 6
"""Values of an option that are listed."""
THRESHOLDS = ("0.1", "0.9")
Effective = Mapping[str, Mapping[str, int]]
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


def plain_table(caption: str, text: list[list[str]]) -> Table | None:
    """A table of text, its header first; None if it is empty."""
    return Table(caption, text[0], [[Entry(value) for value in row] for row in text[1:]]) if text else None


def paper_form(sweep: SweepRecord, split: str, effective: Effective) -> list[Table]:
    """Rows by columns, as the paper prints it; the first split has the paper's own table beside it.

    A sweep without columns has none: there `line_table` has the paper's form.
    """
    if not sweep.column_key:
        return []
    full = sweep.full_column()
    rows = []
    for first in sweep.lines(sweep.columns[0]):
        across = [replace(first, column=column) for column in sweep.columns]
        rows.append([Entry(first.label), *(_mean(sweep, line, split) for line in across)])
        if full is not None:
            own = sweep.scores(replace(first, column=full), split)
            rows.append(_shares([relative(sweep.scores(line, split), own) for line in across]))
    first_split = split == sweep.splits[0]
    if sweep.column_key == "method.num_latent" and first_split:
        rows += [_effective(t, [effective.get(str(column), {}).get(t) for column in sweep.columns]) for t in THRESHOLDS]
    table = Table(f"Ours, {split}: mIoU in %", [sweep.column_key, *map(str, sweep.columns)], rows)
    return [table, paper_table(PAPER[sweep.table])] if sweep.table in PAPER and first_split else [table]


def paper_table(paper: PaperTable) -> Table:
    """The paper's own table."""
    rows = []
    for row, scores in paper.rows.items():
        rows.append([Entry(row), *(Entry(f"{score:.1f}") for score in scores)])
        if shares := paper.shares(row):
            rows.append(_shares(shares))
    rows += [_effective(t, counts) for t, counts in paper.effective.items()]
    header = [paper.column_key, *(paper.columns if paper.column_key else ["mIoU"])]
    return Table(f"The paper's Table {paper.number}: {paper.data}", header, rows)


def _shares(shares: Iterable[float | None]) -> list[Entry]:
    shown = (DASH if share is None else f"{100 * share:.1f} %" for share in shares)
    return [Entry("of own full-label result", kind="sub"), *(Entry(text, kind="sub") for text in shown)]


def _effective(threshold: str, counts: Iterable[int | None]) -> list[Entry]:
    shown = [Entry(DASH if count is None else str(count), kind="sub") for count in counts]
    return [Entry(f"effective, t = {threshold}", kind="sub"), *shown]


def line_table(sweep: SweepRecord, split: str) -> Table:
    """Every line with mean, spread, each seed, the paired difference to supervised and the share of the label gap."""
    paper = PAPER.get(sweep.table or 0) if not sweep.column_key and split == sweep.splits[0] else None
    compared = SUPERVISED in sweep.rows
    gap = compared and (ALL_LABELS in sweep.rows or any(map(is_full, sweep.columns)))
    header = ["row", *([sweep.column_key] if sweep.column_key else []), "mIoU in %"]
    header += ["paper"] * bool(paper) + ["to supervised, paired"] * compared + ["share of the label gap"] * gap
    rows = []
    for line in (line for column in sweep.columns for line in sweep.lines(column)):
        row = [Entry(line.label), *([Entry(str(line.column))] if sweep.column_key else []), _mean(sweep, line, split)]
        if paper:
            printed = paper.score(line.row, None)
            row.append(Entry(DASH if printed is None else f"{printed:.1f}"))
        row += [_difference(sweep, line, split)] * compared + [_gap(sweep, line, split)] * gap
        scores = [(cell, cell.miou(split)) for cell in sweep.cells_of(line)]
        texts = [(cell, cell.state if score is None else f"{score:.2f}") for cell, score in scores]
        each = (f"{cell.seed}: {' over '.join([text, *cell.few_classes(split)])}" for cell, text in texts)
        rows.append([*row, Entry("; ".join(each), kind="text")])
    return Table(f"Line by line, {split}", [*header, "seed: mIoU in %"], rows)


def _mean(sweep: SweepRecord, line: Line, split: str) -> Entry:
    """Mean and spread of a line, with what is missing."""
    cells = sweep.cells_of(line)
    summary = summarize(sweep.scores(line, split))
    if not cells:
        return Entry(DASH, kind="missing")
    if summary is None:
        states = sorted({cell.state for cell in cells})
        return Entry("missing", f"0 of {_seeds(len(cells))}" + f", {states[0]}" * (len(states) == 1), "missing")
    missing = [f"{summary.count} of {_seeds(len(cells))}"] * (summary.count < len(cells))
    few = sorted({text for cell in cells for text in cell.few_classes(split)})
    return Entry(summary.text(), ", ".join([*missing, *few]))


def _seeds(count: int) -> str:
    return f"{count} seed" + "s" * (count != 1)


def _difference(sweep: SweepRecord, line: Line, split: str) -> Entry:
    if line.row == SUPERVISED:
        return Entry("")
    differences = paired(sweep.scores(line, split), sweep.scores(replace(line, row=SUPERVISED), split))
    summary = summarize(differences)
    if summary is None:
        return Entry(DASH, kind="missing")
    each = ", ".join(f"{difference:+.2f}" for difference in differences.values())
    return Entry(summary.text(sign=True), each if len(differences) > 1 else "")


def _gap(sweep: SweepRecord, line: Line, split: str) -> Entry:
    if line.row in (SUPERVISED, ALL_LABELS) or (sweep.column_key == "data.labeled" and is_full(line.column)):
        return Entry("")
    base = sweep.scores(replace(line, row=SUPERVISED), split)
    share = gap_share(sweep.scores(line, split), base, sweep.full_scores(line, split))
    return Entry(DASH, kind="missing") if share is None else Entry(f"{100 * share[0]:.0f} %", f"{_seeds(share[1])}")


def class_table(groups: dict[str, list[Record]], classes: list[str], split: str, where: str = "") -> Table | None:
    """IoU per class, mean over the runs of each group; None without any."""
    shown: dict[str, list[list[Any]]] = {}
    for label, records in groups.items():
        found = [record.scores.get(split, {}).get("iou") for record in records]
        if fitting := [iou for iou in found if isinstance(iou, list) and len(iou) == len(classes)]:
            shown[label] = fitting
    if not shown or not classes:
        return None
    rows = []
    for index, name in enumerate(classes):
        of_class = [[iou[index] for iou in lists] for lists in shown.values()]
        values = [summarize({i: 100 * iou for i, iou in enumerate(ious) if number(iou)}) for ious in of_class]
        rows.append([Entry(name), *(Entry("absent" if v is None else v.text(1)) for v in values)])
    return Table(f"IoU per class in %, {split}{where}", ["class", *shown], rows)


def run_table(named: dict[str, Record], splits: list[str]) -> Table:
    """Scores and options of single runs, the best one first; a score of another step than the last one's says so.

    Scores stand beside the name, where a phone shows them.
    """
    keys = {"method.name": "method", "data.labeled": "labelled", "seed": "seed", "steps": "steps"}

    def rank(run: Record) -> list[float]:
        return [-math.inf if (score := run.miou(split)) is None else score for split in splits]

    rows = []
    for name, run in sorted(named.items(), key=lambda each: rank(each[1]), reverse=True):
        row = [Entry(name)]
        for split in splits:
            score, step = run.miou(split), run.scores.get(split, {}).get("step")
            notes = [f"step {step}"] * (step != run.step) + run.few_classes(split)
            row.append(Entry(DASH, kind="missing") if score is None else Entry(f"{score:.2f}", ", ".join(notes)))
        rows.append([*row, *(Entry(str(run.options.get(key, DASH))) for key in keys)])
    return Table("Scores", ["run", *(f"{split}: mIoU in %" for split in splits), *keys.values()], rows)


def difference_table(groups: dict[str, list[Record]]) -> Table | None:
    """Options in which runs differ, one column per group of runs; None if there is nothing to compare.

    Args:
        groups: Runs by the name of their row.
    """
    readable = {name: [r.options for r in records if r.options] for name, records in groups.items()}
    readable = {name: options for name, options in readable.items() if options}
    everything = [options for several in readable.values() for options in several]
    keys = sorted({key for options in everything for key in options})
    differing = [key for key in keys if len({_text(options, key) for options in everything}) > 1]
    if not differing:
        return None
    rows = [[Entry(key), *(Entry(_values(o, key), kind="text") for o in readable.values())] for key in differing]
    return Table("Options in which the runs differ", ["option", *readable], rows)


def _text(options: Tree, key: str) -> str:
    if key not in options:
        return DASH
    value = options[key]
    if isinstance(value, dict):
        return f"a map of {len(value)}: " + ", ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _values(several: list[Tree], key: str) -> str:
    found = list(dict.fromkeys(_text(options, key) for options in several))
    return ", ".join(found[:VALUES]) + f" and {len(found) - VALUES} more" * (len(found) > VALUES)


def environment_table(records: list[Record]) -> Table | None:
    """Versions and machines, and how many runs each value holds for; None if no run has any."""
    found: dict[str, Counter[str]] = {}
    for record in records:
        tree = read_json(record.folder / "environment.json")
        if "error" in tree:
            continue
        packages = tree.pop("packages", None)
        for key, value in (tree | (packages if isinstance(packages, dict) else {})).items():
            found.setdefault(str(key), Counter())[str(value)] += 1
    rows = []
    for key, counts in found.items():
        several = "; ".join(f"{value} ({count} runs)" for value, count in counts.items())
        rows.append([Entry(key), Entry(next(iter(counts)) if len(counts) == 1 else several, kind="text")])
    return Table("Environment", ["", ""], rows) if rows else None


def cost_table(groups: dict[str, list[Record]]) -> Table | None:
    """Seconds of training per group of runs; None if no run tells any."""
    rows, total = [], 0.0
    for name, records in groups.items():
        seconds = [record.seconds for record in records if record.seconds is not None]
        if not seconds:
            continue
        total += sum(seconds)
        steps = [(record.seconds, record.options.get("steps")) for record in records if record.state == "done"]
        per_step = [1000 * spent / count for spent, count in steps if spent and number(count) and count > 0]
        step = f"{sum(per_step) / len(per_step):.0f} ms" if per_step else DASH
        mean = f"{sum(seconds) / len(seconds):.0f} s"
        rows.append([Entry(name), *map(Entry, (str(len(seconds)), mean, step, duration(sum(seconds))))])
    if len(rows) > 1:
        rows.append([Entry("together"), Entry(""), Entry(""), Entry(""), Entry(duration(total))])
    return Table("Cost of training", ["", "runs", "per run", "per step", "together"], rows) if rows else None


def total_cost(records: list[Record]) -> str:
    """The training time of all runs together, in words; "" if no run tells any."""
    seconds = [record.seconds for record in records if record.seconds is not None]
    count = f"{len(seconds)} run" + "s" * (len(seconds) != 1)
    return f"{count}, {duration(sum(seconds))} of training, each run counted once." if seconds else ""


def unfinished(cells: list[Record]) -> list[str]:
    """A line for each cell that was begun and has no scores, and why; cells that were not begun are counted."""
    begun = [cell for cell in cells if cell.state not in ("done", "open")]
    shown = [f"{_name(cell)}: {cell.state}" + f" ({cell.note})" * bool(cell.note) for cell in begun[:SHOWN]]
    shown += [f"and {len(begun) - SHOWN} more"] * (len(begun) > SHOWN)
    waiting = [cell for cell in cells if cell.state == "open"]
    if len(waiting) <= NAMED:
        return shown + [f"{_name(cell)}: not begun" for cell in waiting]
    counts = Counter(cell.row for cell in waiting)
    return [*shown, "not begun: " + ", ".join(f"{count} of {row}" for row, count in counts.items())]


def _name(cell: Record) -> str:
    parts = [cell.row, *([] if cell.column is None else [cell.column])]
    return ", ".join(map(str, [*parts, *(f"{key} {value}" for key, value in cell.grid.items())]))
