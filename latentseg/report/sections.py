"""The parts of the page: one for each sweep, one for the runs that are given by themselves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from latentseg.analysis import analyse
from latentseg.analysis.files import PICTURE, analysis_folder, read_analysis
from latentseg.analysis.findings import Analysis
from latentseg.errors import UserError
from latentseg.methods.table import METHODS
from latentseg.report.collect import SUPERVISED, Record, SweepRecord, class_names, metrics
from latentseg.report.curves import Chart, color_of, fraction_chart, learning_charts
from latentseg.report.paper import PAPER
from latentseg.report.pictures import Grid, file_uri, prediction_grid
from latentseg.report.tables import (
    Table,
    class_table,
    cost_table,
    difference_table,
    line_table,
    paper_form,
    plain_table,
    run_table,
    unfinished,
)

CURVES = 10
"""Groups of runs that the learning curves show."""
PREDICTIONS = 5
"""Runs that a row of pictures shows."""
DRAWN = ("supervised", "AdvSemiSeg", "+ latent classes", "proposed", "unimatch", "latent_match")
"""Rows that pictures show side by side (Figure 8; ours beside UniMatch), where there are any of them."""
ANALYSED = ("proposed", "learned (20)")
"""Rows whose latent classes are shown, the first that there is."""
NUM_LATENT = "method.num_latent"
SHOWN_NUM_LATENT = (10, 20)
"""Figures 6 and 7."""
DRAWS = ("data.labeled", "data.split_seed", "seed", "steps")
"""Options in which runs on one data set may differ, but a run and its supervised twin do not."""
NO_SPREAD = "{} one seed: no spread can be given, and the order of {} is not settled."
Drawn = dict[tuple[Path, ...], str]
"""Run folders whose analysis or pictures the page has already, and the section's title."""


@dataclass(frozen=True)
class Finding:
    """The latent classes of one run, from its analysis (the paper's Figures 6 and 7)."""

    title: str
    facts: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    heat_map: str | None = None
    """Data URI."""
    tables: list[Table] = field(default_factory=list)
    missing: str = ""
    """Why there is none."""


@dataclass
class Section:
    """One part of the page."""

    title: str
    summary: str = ""
    facts: list[str] = field(default_factory=list)
    tables: list[list[Table]] = field(default_factory=list)
    """Those of an inner list stand side by side where there is room."""
    charts: list[Chart] = field(default_factory=list)
    legend: list[tuple[str, str]] = field(default_factory=list)
    """Names and colours of the learning curves."""
    curves: list[Chart] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    more: list[Table] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)


def runs_section(runs: list[Record], drawn: Drawn) -> Section:
    """Everything about runs that are given by themselves."""
    section = Section(
        "Runs" if len(runs) > 1 else f"Run {runs[0].row}", facts=[NO_SPREAD.format("Each run is", "runs")]
    )
    names = [run.row for run in runs]
    named = {run.row if names.count(run.row) == 1 else str(run.folder): run for run in runs}
    groups = {name: [run] for name, run in named.items()}
    splits = list(dict.fromkeys(split for run in runs for split in run.scores))
    plain = next((split for split in splits if "(" not in split), "val")
    classes = class_names(runs[0].folder)
    per_class = [table for split in splits if (table := class_table(groups, classes, split))]
    section.tables = [[run_table(named, splits)], per_class]
    for name, run in named.items():
        if has_latent_branch(run):
            twins = (r for r in runs if r.options.get("method.name") == SUPERVISED and _same_data(run, r, DRAWS))
            _add_finding(section, name, run, plain, next(twins, None), drawn)
    for group in _on_one_data_set(named):
        _add_grid(section, f"{len(group)} run" + "s" * (len(group) > 1), group, plain, drawn)
    _add_rest(section, groups, groups, runs)
    return section


def _same_data(run: Record, other: Record, more: tuple[str, ...] = ()) -> bool:
    keys = {key for record in (run, other) for key in record.options if key.startswith("data.")} - set(DRAWS)
    return all(run.options.get(key) == other.options.get(key) for key in keys.union(more))


def _on_one_data_set(named: dict[str, Record]) -> list[dict[str, Record]]:
    """Runs in groups that share a data set: one picture can show them side by side."""
    groups: list[dict[str, Record]] = []
    for name, run in named.items():
        group = next((g for g in groups if _same_data(run, next(iter(g.values())))), None)
        if group is None:
            groups.append(group := {})
        group[name] = run
    return groups


def sweep_section(sweep: SweepRecord, drawn: Drawn) -> Section:
    """Everything about a sweep."""
    paper, one_seed = PAPER.get(sweep.table or 0), len({str(cell.seed) for cell in sweep.cells}) < 2
    section = Section(sweep.name + (f" (Table {paper.number}: {paper.title})" if paper else ""), sweep.summary)
    section.facts = [f"{sum(cell.state == 'done' for cell in sweep.cells)} of {len(sweep.cells)} cells done."]
    if sweep.base:
        options = " ".join(f"{key}={value}" for key, value in sweep.options.items())
        section.facts.append(f"Preset {sweep.base}" + (f" with {options}." if options else "."))
    section.facts += [NO_SPREAD.format("All cells have", "rows")] * one_seed
    column = 20 if sweep.column_key == NUM_LATENT and 20 in sweep.columns else sweep.columns[0]
    effective = _latent_findings(section, sweep, column, drawn)
    for split in sweep.splits:
        forms = paper_form(sweep, split, effective)
        told = forms and SUPERVISED not in sweep.rows and one_seed  # the lines would tell nothing more
        section.tables += [forms] * bool(forms) + ([] if told else [[line_table(sweep, split)]])
        section.charts += [chart for chart in [fraction_chart(sweep, split)] if chart]
    of_column = {row: [c for c in sweep.cells if (c.row, c.column) == (row, column)] for row in sweep.rows}
    done = {row: [c for c in cells if c.state == "done"] for row, cells in of_column.items()}
    names = (class_names(cell.folder) for cells in done.values() for cell in cells)
    where = f", {sweep.column_key} {column}" if sweep.column_key else ""
    per_class = class_table(done, next(filter(None, names), []), sweep.splits[0], where)
    section.more = [per_class] if per_class else []
    _add_grid(section, *_pictured(done), sweep.splits[0], drawn)
    curves = of_column
    if len(sweep.rows) == 1 and sweep.column_key:
        named = [(f"{sweep.column_key} {each}", each) for each in sweep.columns]
        curves = {name: [cell for cell in sweep.cells if cell.column == each] for name, each in named}
    by_row = {row: [cell for cell in sweep.cells if cell.row == row] for row in sweep.rows}
    _add_rest(section, by_row, curves, sweep.cells)
    return section


def _pictured(done: dict[str, list[Record]]) -> tuple[str, dict[str, Record]]:
    """The finished runs to show side by side, by row: of the seed that most rows have."""
    rows = {row: cells for row, cells in done.items() if cells}
    rows = {row: rows[row] for row in DRAWN if row in rows} or rows
    seeds = [str(cell.seed) for cells in rows.values() for cell in cells]
    seed = max(seeds, key=seeds.count, default="")
    chosen = {row: next((cell for cell in cells if str(cell.seed) == seed), None) for row, cells in rows.items()}
    return f"seed {seed}", {row: cell for row, cell in chosen.items() if cell}


def _latent_findings(
    section: Section, sweep: SweepRecord, column: object, drawn: Drawn
) -> dict[str, Mapping[str, int]]:
    """Add the analyses of the sweep's representative cells, made now where they are missing.

    Returns:
        The effective latent classes by column, of a sweep over the number of latent classes.
    """
    over_latent = sweep.column_key == NUM_LATENT
    shown = [number for number in SHOWN_NUM_LATENT if over_latent and number in sweep.columns] or sweep.columns
    effective: dict[str, Mapping[str, int]] = {}
    for cell in _analysed(sweep, column):
        title = ", ".join([cell.row, *([f"{sweep.column_key} {cell.column}"] if sweep.column_key else [])])
        title += f", seed {cell.seed}" * (cell.seed is not None)
        twins = [c for c in sweep.cells if (c.row, c.column, c.grid) == (SUPERVISED, cell.column, cell.grid)]
        twin = next((twin for twin in twins if twin.state == "done"), None)
        found = _add_finding(section, title, cell, sweep.splits[0], twin, drawn, cell.column in shown)
        if found and over_latent:
            effective[str(cell.column)] = found.structure.effective
    return effective


def _analysed(sweep: SweepRecord, column: object) -> list[Record]:
    """Finished cells, one each, whose latent classes are shown.

    Of the main row in each column if they vary the number of latent classes, else in `column`; and of each further row
    that has an analysis already.
    """
    cells = [cell for cell in sweep.cells if cell.state == "done" and has_latent_branch(cell)]
    main = next((row for row in (*ANALYSED, *sweep.rows) if any(cell.row == row for cell in cells)), None)
    wanted = [(main, each) for each in (sweep.columns if sweep.column_key == NUM_LATENT else [column])]
    wanted += [(row, column) for row in sweep.rows if row != main]
    firsts = (next((cell for cell in cells if (cell.row, cell.column) == place), None) for place in wanted)
    there = analysis_folder(Path(), sweep.splits[0])
    return [cell for cell in firsts if cell and (cell.row == main or (cell.folder / there).is_dir())]


def has_latent_branch(record: Record) -> bool:
    """Whether the method of a run has a latent branch."""
    row = METHODS.get(str(record.options.get("method.name")))
    return row is not None and row.second != "nothing"


def _add_finding(
    section: Section,
    title: str,
    record: Record,
    split: str,
    baseline: Record | None,
    drawn: Drawn,
    show: bool = True,
) -> Analysis | None:
    """Add the analysis of a run, made now if there is none; a run that the page has already is only named.

    Args:
        section: Where to.
        title: Which run it is.
        record: The run.
        split: Split that is analysed.
        baseline: Its supervised twin, for a new analysis.
        drawn: What the page has already.
        show: Whether more than a failure is wanted on the page.

    Returns:
        The analysis; None if it cannot be had, or is of another step than the last checkpoint.
    """
    try:
        found = _analysis(record, split, baseline)
    except (UserError, OSError) as error:
        section.findings.append(Finding(title, missing=str(error)))
        return None
    key = (record.folder.absolute(),)
    if show and key in drawn:
        section.findings.append(Finding(title, facts=[f"The same run as in {drawn[key]}."]))
    elif show:
        picture = analysis_folder(record.folder, split) / PICTURE
        heat_map = file_uri(picture)
        beside = f"IoU per class beside {Path(found.baseline.run).name}" if found.baseline else ""
        tables = [
            plain_table("The latent branch beside the semantic one", found.comparison()),
            plain_table(beside, found.beside()),
        ]
        facts = [f"{found.subject}.", *found.facts(), *(found.baseline.facts() if found.baseline else [])]
        missing = "" if heat_map else f"no heat map: {picture} is not there"
        some = [table for table in tables if table]
        section.findings.append(Finding(title, facts, found.groups(), heat_map, some, missing))
        drawn[key] = section.title
    return found


def _analysis(record: Record, split: str, baseline: Record | None) -> Analysis:
    """The analysis of a run's last checkpoint, computed now if there is none.

    Raises:
        UserError: It cannot be computed (no checkpoint, the data set is gone, ...), or is of an earlier step.
    """
    found = read_analysis(analysis_folder(record.folder, split))
    if found is None:
        return analyse(record.folder, split, baseline=baseline.folder if baseline else None)
    if record.step not in (None, found.step):
        again = f"latentseg analyse {record.folder} --split {split}"
        again += f" --baseline {found.baseline.run}" if found.baseline else ""
        raise UserError(
            f"the analysis is of step {found.step}, the run's last checkpoint of step {record.step}; "
            f"make it anew: {again}"
        )
    return found


def _add_grid(section: Section, title: str, runs: dict[str, Record], split: str, drawn: Drawn) -> None:
    """Add what runs predict on images of a split; what cannot be drawn is named, with the reason."""
    folders = {name: run.folder for name, run in list(runs.items())[:PREDICTIONS]}
    key = (Path("grid"), Path(split), *(folder.absolute() for folder in folders.values()))
    if key in drawn:
        section.problems.append(f"The same runs as in {drawn[key]}.")
    elif folders:
        try:
            section.grids.append(prediction_grid(title, folders, split))
            drawn[key] = section.title
        except (UserError, OSError) as error:
            section.problems.append(f"Pictures are missing: {error}")


def _add_rest(
    section: Section, groups: dict[str, list[Record]], curves: dict[str, list[Record]], records: list[Record]
) -> None:
    """Add learning curves, one per group of `curves`; options and cost per group of `groups`; what did nothing."""
    for record in records:
        said = (row for row in metrics(record.folder) if isinstance(row.get("finding"), str))
        section.problems += [f"{record.folder.name}, step {row['step']}: {row['finding']}." for row in said]
    begun = [name for name, several in curves.items() if any(record.options for record in several)][:CURVES]
    section.curves = learning_charts({name: curves[name] for name in begun})
    section.legend = [(name, color_of(index)) for index, name in enumerate(begun)] if section.curves else []
    section.more += [table for table in (difference_table(groups), cost_table(groups)) if table]
    section.unfinished = unfinished(records)
