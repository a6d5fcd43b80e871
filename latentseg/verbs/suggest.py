"""`latentseg suggest`: what to label next."""

from pathlib import Path
from typing import Annotated

import typer

from latentseg.presets import load_run
from latentseg.verbs.common import console, show


def suggest(
    run: Annotated[Path, typer.Argument(help="A run folder that `train` made.", metavar="RUN")],
    paths: Annotated[list[Path], typer.Argument(help="Folders of images, and images.", metavar="FOLDER...")],
    count: Annotated[int, typer.Option("-n", "--count", help="How many images to choose.", min=1)] = 20,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; a free suggest in the run folder if not given.")
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="last, or best on the validation images.")] = "last",
    by: Annotated[
        str,
        typer.Option(
            help="all; one signal alone: entropy, branches, teacher, rare, diverse; or a draw: stratified, random."
        ),
    ] = "all",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="An option as key=value, such as data.root=photos.")
    ] = None,
) -> None:
    """Choose the images whose labels would teach most: a list, the reasons, and a contact sheet.

    For example: latentseg suggest runs/photos photos -n 12 --out next
    """
    from latentseg.suggest.candidates import find_images  # noqa: PLC0415

    load_run(run, set_ or [])
    find_images(paths)
    from latentseg.suggest import suggest as run_suggestion  # noqa: PLC0415 - slow (PyTorch): bad paths come first

    found = run_suggestion(run, paths, count, out, checkpoint, by, set_ or [])
    show(found.table())
    for rank, (path, why) in enumerate(zip(found.images, found.reasons, strict=True), start=1):
        console.print(f"{rank:3}. {path}: {'; '.join(why)}", markup=False, highlight=False)
    console.print(found.told(), markup=False, highlight=False)
