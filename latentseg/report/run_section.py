"""The part of the page about runs that are given by themselves."""

from pathlib import Path

from latentseg.report.analyses import has_latent_branch
from latentseg.report.collect import Record
from latentseg.report.facts import cost_table, difference_table, unfinished
from latentseg.report.files import class_names
from latentseg.report.lines import SUPERVISED
from latentseg.report.sections import Drawn, Section, add_curves, add_finding, add_grid
from latentseg.report.tables import DASH, Entry, Table, class_table


def runs_section(runs: list[Record], drawn: Drawn) -> Section:
    """Everything about runs that are given by themselves."""
    section = Section("Runs" if len(runs) > 1 else f"Run {runs[0].row}")
    named = _unique_names(runs)
    groups = {name: [run] for name, run in named.items()}
    splits = list(dict.fromkeys(split for run in runs for split in run.scores))
    plain = next((split for split in splits if "(" not in split), "val")
    section.facts = ["Each run is one seed: no spread can be given, and the order of runs is not settled."]
    section.tables.append([_run_table(named, splits)])
    classes = class_names(runs[0].folder)
    section.tables.append([table for split in splits if (table := class_table(groups, classes, split))])
    add_curves(section, groups)
    for name, run in named.items():
        if has_latent_branch(run):
            add_finding(section, name, run, plain, _supervised_twin(run, runs), drawn)
    for group in _on_one_data_set(named):
        add_grid(section, f"{len(group)} run" + "s" * (len(group) > 1), group, plain, drawn)
    section.more = [table for table in (difference_table(groups), cost_table(groups)) if table]
    section.unfinished = unfinished(runs)
    return section


def _unique_names(runs: list[Record]) -> dict[str, Record]:
    """Runs by the name of their folder, or by its path where two have the same name."""
    names = [run.row for run in runs]
    return {run.row if names.count(run.row) == 1 else str(run.folder): run for run in runs}


def _run_table(named: dict[str, Record], splits: list[str]) -> Table:
    keys = {"method.name": "method", "data.labeled": "labelled", "seed": "seed", "steps": "steps"}
    header = ["run", *keys.values(), *(f"{split}: mIoU in %" for split in splits)]
    rows = []
    for name, run in named.items():
        scores = [run.miou(split) for split in splits]
        shown = [Entry(DASH, kind="missing") if score is None else Entry(f"{score:.2f}") for score in scores]
        rows.append([Entry(name), *(Entry(str(run.options.get(key, DASH))) for key in keys), *shown])
    return Table("Scores", header, rows)


def _supervised_twin(run: Record, runs: list[Record]) -> Record | None:
    """A supervised run on the same data with the same seed, of those given."""
    for other in runs:
        if other.options.get("method.name") == SUPERVISED and _same(run, other, data_only=False):
            return other
    return None


def _same(run: Record, other: Record, data_only: bool) -> bool:
    drawn = ("data.labeled", "data.split_seed", "seed", "steps")
    keys = {key for record in (run, other) for key in record.options if key.startswith("data.")}
    keys = keys - set(drawn) if data_only else keys | set(drawn)
    return all(run.options.get(key) == other.options.get(key) for key in keys)


def _on_one_data_set(named: dict[str, Record]) -> list[dict[str, Path]]:
    """Run folders in groups that share a data set: one picture can show them side by side."""
    groups: list[dict[str, Record]] = []
    for name, run in named.items():
        group = next((g for g in groups if _same(run, next(iter(g.values())), data_only=True)), None)
        if group is None:
            groups.append(group := {})
        group[name] = run
    return [{name: run.folder for name, run in group.items()} for group in groups]
