"""What surrounds the scores: options in which runs differ, environment, cost, cells that are not done."""

import json
from collections import Counter
from typing import Any

from latentseg.progress import duration
from latentseg.report.collect import Record
from latentseg.report.files import Tree, number, read_json
from latentseg.report.statistics import summarize
from latentseg.report.tables import DASH, Entry, Table

SHOWN = 40
"""Unfinished cells that are listed one by one."""
NAMED = 6
"""Cells not begun that are named; more are counted."""
VALUES = 6
"""Values of an option that are listed."""


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
    found: dict[str, dict[str, int]] = {}
    for record in records:
        tree = read_json(record.folder / "environment.json")
        if "error" in tree:
            continue
        packages = tree.pop("packages", None)
        for key, value in (tree | (packages if isinstance(packages, dict) else {})).items():
            counts = found.setdefault(str(key), {})
            counts[str(value)] = counts.get(str(value), 0) + 1
    rows = [[Entry(key), Entry(_counted(counts), kind="text")] for key, counts in found.items()]
    return Table("Environment", ["", ""], rows) if rows else None


def _counted(counts: dict[str, int]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{value} ({count} runs)" for value, count in counts.items())


def cost_table(groups: dict[str, list[Record]]) -> Table | None:
    """Seconds of training per group of runs; None if no run tells any."""
    rows, total = [], 0.0
    for name, records in groups.items():
        seconds = {str(index): r.seconds for index, r in enumerate(records) if r.seconds is not None}
        summary = summarize(seconds)
        if summary is None:
            continue
        total += sum(seconds.values())
        per_step = [r.seconds / r.options["steps"] for r in records if r.state == "done" and r.seconds and _steps(r)]
        step = f"{1000 * sum(per_step) / len(per_step):.0f} ms" if per_step else DASH
        row = [str(summary.count), f"{summary.mean:.0f} s", step, duration(sum(seconds.values()))]
        rows.append([Entry(name), *map(Entry, row)])
    if not rows:
        return None
    if len(rows) > 1:
        rows.append([Entry("together"), Entry(""), Entry(""), Entry(""), Entry(duration(total))])
    return Table("Cost of training", ["", "runs", "per run", "per step", "together"], rows)


def total_cost(records: list[Record]) -> str:
    """The training time of all runs together, in words; "" if no run tells any."""
    seconds = [record.seconds for record in records if record.seconds is not None]
    count = f"{len(seconds)} run" + "s" * (len(seconds) != 1)
    return f"{count}, {duration(sum(seconds))} of training, each run counted once." if seconds else ""


def _steps(record: Record) -> bool:
    return number(record.options.get("steps")) and record.options["steps"] > 0


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
    parts: list[Any] = [cell.row, *([] if cell.column is None else [cell.column])]
    return ", ".join(map(str, [*parts, *(f"{key} {value}" for key, value in cell.grid.items())]))
