"""The part of the page about a sweep."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from latentseg.report.analyses import finding, has_latent_branch, read_analysis
from latentseg.report.collect import Record, SweepRecord
from latentseg.report.curves import fraction_chart
from latentseg.report.facts import cost_table, difference_table, unfinished
from latentseg.report.files import class_names
from latentseg.report.lines import SUPERVISED
from latentseg.report.paper import PAPER, column_name
from latentseg.report.sections import Drawn, Section, add_curves, add_finding, add_grid
from latentseg.report.tables import Table, class_table, line_table, paper_form

DRAWN = ("supervised", "AdvSemiSeg", "+ latent classes", "proposed", "unimatch", "latent_match")
"""Rows that pictures show side by side (Figure 8; ours beside UniMatch), where there are any of them."""
NUM_LATENT = "method.num_latent"
ANALYSED = ("proposed", "learned (20)", "latent_match")
"""Rows whose latent classes are shown, the first that there is."""
SHOWN_NUM_LATENT = (10, 20)
"""Figures 6 and 7."""


def sweep_section(sweep: SweepRecord, drawn: Drawn) -> Section:
    """Everything about a sweep."""
    paper = PAPER.get(sweep.table or 0)
    section = Section(f"{sweep.name}" + (f" (Table {paper.number}: {paper.title})" if paper else ""), sweep.summary)
    section.facts = _sweep_facts(sweep)
    column = _main_column(sweep)
    split = sweep.splits[0]
    effective = _latent_findings(section, sweep, column, drawn)
    for each in sweep.splits:
        forms = paper_form(sweep, each, effective)
        told = forms and SUPERVISED not in sweep.rows and _one_seed(sweep)  # the lines would tell nothing more
        section.tables += [forms] * bool(forms) + ([] if told else [[line_table(sweep, each)]])
        section.charts += [chart for chart in [fraction_chart(sweep, each)] if chart]
    of_column = {row: [c for c in sweep.cells if (c.row, c.column) == (row, column)] for row in sweep.rows}
    done = {row: [c for c in cells if c.state == "done"] for row, cells in of_column.items()}
    per_class = class_table(done, _classes(c for cells in done.values() for c in cells), split)
    if per_class:
        where = f", {sweep.column_key} {column}" if sweep.column_key else ""
        section.more.append(Table(per_class.caption + where, per_class.header, per_class.rows))
    add_curves(section, _curve_groups(sweep, of_column))
    add_grid(section, *_pictured(done), split, drawn)
    by_row = {row: [c for c in sweep.cells if c.row == row] for row in sweep.rows}
    section.more += [table for table in (difference_table(by_row), cost_table(by_row)) if table]
    section.unfinished = unfinished(sweep.cells)
    return section


def _pictured(done: dict[str, list[Record]]) -> tuple[str, dict[str, Path]]:
    """The finished runs to show side by side, by row: of the seed that most rows have."""
    rows = {row: cells for row, cells in done.items() if cells}
    rows = {row: rows[row] for row in DRAWN if row in rows} or rows
    seeds = [str(cell.seed) for cells in rows.values() for cell in cells]
    seed = max(seeds, key=seeds.count, default="")
    chosen = {row: next((c for c in cells if str(c.seed) == seed), None) for row, cells in rows.items()}
    return f"seed {seed}", {row: cell.folder for row, cell in chosen.items() if cell}


def _sweep_facts(sweep: SweepRecord) -> list[str]:
    done = sum(cell.state == "done" for cell in sweep.cells)
    facts = [f"{done} of {len(sweep.cells)} cells done."]
    if sweep.base:
        options = " ".join(f"{key}={value}" for key, value in sweep.options.items())
        facts.append(f"Preset {sweep.base}" + (f" with {options}." if options else "."))
    if _one_seed(sweep):
        facts.append("One seed: no spread can be given, and the order of rows is not settled.")
    return facts


def _one_seed(sweep: SweepRecord) -> bool:
    return len({str(cell.seed) for cell in sweep.cells}) < 2


def _main_column(sweep: SweepRecord) -> object:
    """The column that pictures and curves are from: 20 latent classes, else the first."""
    return 20 if sweep.column_key == NUM_LATENT and 20 in sweep.columns else sweep.columns[0]


def _twin(sweep: SweepRecord, cell: Record) -> Record | None:
    twins = (c for c in sweep.cells if c.row == SUPERVISED and (c.column, c.grid) == (cell.column, cell.grid))
    return next((twin for twin in twins if twin.state == "done"), None)


def _latent_findings(section: Section, sweep: SweepRecord, column: object, drawn: Drawn) -> dict[str, dict[str, Any]]:
    """Add the analyses of the sweep's representative cells, made now where they are missing.

    Returns:
        The effective latent classes by column, of a sweep over the number of latent classes.
    """
    split = sweep.splits[0]
    shown = [number for number in SHOWN_NUM_LATENT if number in sweep.columns]
    effective: dict[str, dict[str, Any]] = {}
    for cell in _analysed(sweep, column):
        title = ", ".join([cell.row, *([f"{sweep.column_key} {cell.column}"] if sweep.column_key else [])])
        title += f", seed {cell.seed}" * (cell.seed is not None)
        if sweep.column_key != NUM_LATENT or not shown or cell.column in shown:
            add_finding(section, title, cell, split, _twin(sweep, cell), drawn)
        else:  # its counts alone are needed
            view = finding(title, cell, split, None)
            section.findings += [view] if view.missing else []
        found = read_analysis(cell.folder, split)
        counts = found[0].get("effective") if found else None
        effective[column_name(cell.column)] = counts if isinstance(counts, dict) else {}
    return effective if sweep.column_key == NUM_LATENT else {}


def _analysed(sweep: SweepRecord, column: object) -> list[Record]:
    """Finished cells, one each, whose latent classes are shown.

    Of the main row in each column if they vary the number of latent classes, else in `column`; and of each further row
    that has an analysis already.
    """
    cells = [cell for cell in sweep.cells if cell.state == "done" and has_latent_branch(cell)]
    row = next((row for row in (*ANALYSED, *sweep.rows) if any(cell.row == row for cell in cells)), None)
    wanted = sweep.columns if sweep.column_key == NUM_LATENT else [column]
    firsts = [next((c for c in cells if (c.row, c.column) == (row, each)), None) for each in wanted]
    others = (next((c for c in cells if (c.row, c.column) == (r, column)), None) for r in sweep.rows if r != row)
    firsts += [cell for cell in others if cell and read_analysis(cell.folder, sweep.splits[0])]
    return [cell for cell in firsts if cell]


def _curve_groups(sweep: SweepRecord, of_column: dict[str, list[Record]]) -> dict[str, list[Record]]:
    """Rows at the main column; the columns, for a sweep of one row."""
    if len(sweep.rows) > 1 or not sweep.column_key:
        return of_column
    return {
        f"{sweep.column_key} {column}": [cell for cell in sweep.cells if cell.column == column]
        for column in sweep.columns
    }


def _classes(records: Iterable[Record]) -> list[str]:
    """Names of the classes of the first run that knows them."""
    for record in records:
        if names := class_names(record.folder):
            return names
    return []
