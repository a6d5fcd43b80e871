"""The report: one HTML file with tables, curves, heat maps and pictures of runs and sweeps, and no network."""

from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

from latentseg import __version__
from latentseg.errors import UserError
from latentseg.inference.pictures import check_writable
from latentseg.report.collect import Record, read_inputs
from latentseg.report.sections import Drawn, Section, runs_section, sweep_section
from latentseg.report.tables import environment_table, total_cost
from latentseg.runs.checkpoints import write_atomically

MARK = '<meta name="generator" content="latentseg report">'
"""A file with this line may be replaced by a new report."""


def write_report(paths: list[Path], out: Path) -> Path:
    """Write the report of runs and sweeps. Analyses that are not there yet are made and left in the run folders.

    Args:
        paths: Run folders, roots of sweeps (with a folder sweeps in them), or single sweeps/NAME.json files.
        out: HTML file to write. An older report is replaced, any other file is not.

    Returns:
        The file.

    Raises:
        UserError: A path is neither, nothing can be read, the file cannot be written, or Jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UserError("the report needs Jinja2: pip install 'latentseg[report]'") from error
    _check_out(out)
    sweeps, runs, problems = read_inputs(paths)
    drawn: Drawn = {}
    sections: list[Section] = [sweep_section(sweep, drawn) for sweep in sweeps]
    sections += [runs_section(runs, drawn)] if runs else []
    records = _distinct([cell for sweep in sweeps for cell in sweep.cells] + runs)
    template = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string((resources.files(__package__) / "page.html").read_text(encoding="utf-8"))
    page = template.render(
        paths=[str(path) for path in paths],
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
        problems=problems,
        sections=sections,
        environment=environment_table(records),
        cost=total_cost(records),
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create {out.parent}: {error.strerror}") from error
    write_atomically(out, page.encode())
    return out


def _check_out(out: Path) -> None:
    if out.is_dir():
        raise UserError(f"{out} is a folder: name the HTML file of the report with --out")
    if out.exists() and (not out.is_file() or MARK.encode() not in out.read_bytes()[:2000]):
        raise UserError(f"{out} exists, is no report and is not overwritten: name another file with --out")
    check_writable(out.parent)


def _distinct(records: Iterable[Record]) -> list[Record]:
    """Each run once: sweeps share cells."""
    return list({record.folder.absolute(): record for record in records}.values())
