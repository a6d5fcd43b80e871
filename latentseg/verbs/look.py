"""Verbs that look around and change nothing: runs, doctor, weights (which may download)."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from latentseg.verbs.common import console, show


def runs(
    folder: Annotated[Path, typer.Argument(help="The folder that holds them.", metavar="[FOLDER]")] = Path("runs"),
) -> None:
    """List the runs below a folder, the best first, by their last validation; damaged ones are named."""
    from latentseg.runs.listing import list_runs  # noqa: PLC0415

    found, damaged = list_runs(folder)
    table = Table(title=Text(f"{len(found)} runs in {folder}"))
    for name in ("folder", "mIoU %", "best", "method", "data", "labels", "steps", "when"):
        right = name in {"mIoU %", "best", "labels", "steps"}
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for run in found:
        table.add_row(*(Text(cell) for cell in run.row(folder)))
    if found:
        show(table)
    elif not damaged:
        console.print(f"no runs in {folder}", markup=False, highlight=False)
    for reason in damaged.values():
        console.print(f"damaged: {reason}", markup=False, highlight=False)


def doctor() -> None:
    """Tell what is installed and what this machine has; what is missing comes with the command that brings it."""
    from latentseg.verbs.machine import findings  # noqa: PLC0415

    table = Table(title="this machine", show_header=False)
    missing = []
    for finding in findings():
        table.add_row(Text(finding.what), Text(finding.found))
        missing += [f"{finding.what}: {finding.remedy}"] if finding.remedy else []
    show(table)
    for line in missing or ["nothing is missing"]:
        console.print(line, markup=False, highlight=False)


def weights(
    get: Annotated[str | None, typer.Option("--get", help="Download these, check them, say where they are.")] = None,
) -> None:
    """List pretrained weights: which presets need them, where they are to be had, whether they are here.

    For example: latentseg weights --get deeplabv3_resnet101_coco
    """
    from latentseg.presets.weights import fetch, rows  # noqa: PLC0415

    if get is not None:
        console.print(f"{get}: {fetch(get)}", markup=False, highlight=False)
        return
    table = Table(title="pretrained weights", show_lines=True)
    for name in ("name", "what", "here?", "from (SHA-256, MB)", "presets", "if it is gone"):
        table.add_column(name, overflow="fold")
    for name, known, state, users in rows():
        checked = f"{known.sha256}..., " if known.sha256 else ""
        place = f"{known.place} ({checked}{known.megabytes} MB)"
        cells = (name, known.what, state, place, ", ".join(users) or "-", known.instead)
        table.add_row(*(Text(cell) for cell in cells))
    show(table)
