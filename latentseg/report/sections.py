"""A part of the page, and what sweeps and single runs both put into it."""

from dataclasses import dataclass, field
from pathlib import Path

from latentseg.errors import UserError
from latentseg.report.analyses import Finding, finding
from latentseg.report.collect import Record
from latentseg.report.curves import Chart, color_of, learning_charts
from latentseg.report.pictures import Grid, prediction_grid
from latentseg.report.tables import Table

CURVES = 10
"""Groups of runs that the learning curves show."""
PREDICTIONS = 5
"""Runs that a row of pictures shows."""


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


Drawn = dict[tuple[Path, ...], str]
"""Run folders whose analysis or pictures the page has already, and the section's title."""


def add_finding(
    section: Section, title: str, record: Record, split: str, baseline: Record | None, drawn: Drawn
) -> None:
    """Add the analysis of a run, made now if there is none; a run that the page has already is only named."""
    key = (record.folder.absolute(),)
    if key in drawn:
        section.findings.append(Finding(title, facts=[f"The same run as in {drawn[key]}."]))
        return
    section.findings.append(finding(title, record, split, baseline))
    drawn[key] = section.title


def add_curves(section: Section, groups: dict[str, list[Record]]) -> None:
    """Add learning curves, one per group of runs."""
    begun = {name: records for name, records in groups.items() if any(record.options for record in records)}
    some = dict(list(begun.items())[:CURVES])
    section.curves = learning_charts(some)
    section.legend = [(name, color_of(index)) for index, name in enumerate(some)] if section.curves else []


def add_grid(section: Section, title: str, folders: dict[str, Path], split: str, drawn: Drawn) -> None:
    """Add what runs predict on images of a split; what cannot be drawn is named, with the reason."""
    some = dict(list(folders.items())[:PREDICTIONS])
    key = (Path("grid"), Path(split), *(folder.absolute() for folder in some.values()))
    if not some:
        return
    if key in drawn:
        section.problems.append(f"The same runs as in {drawn[key]}.")
        return
    try:
        section.grids.append(prediction_grid(title, some, split))
        drawn[key] = section.title
    except (UserError, OSError) as error:
        section.problems.append(f"Pictures are missing: {error}")
