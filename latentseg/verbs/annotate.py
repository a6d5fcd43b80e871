"""Verbs that help to label: proposals for annotation tools."""

from pathlib import Path
from typing import Annotated

import typer

from latentseg.presets import load_run
from latentseg.verbs.common import console


def prelabel(
    run: Annotated[Path, typer.Argument(help="A run folder that `train` made.", metavar="RUN")],
    folder: Annotated[
        Path, typer.Argument(help="The folder of the images, or a list of them.", metavar="FOLDER_OR_LIST")
    ],
    format_: Annotated[str, typer.Option("--format", help="masks, coco, labelstudio, cvat or labelme.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the results; FOLDER-FORMAT if not given.")] = None,
    threshold: Annotated[float, typer.Option(help="Pixels of a lower probability are left open.")] = 0.5,
    checkpoint: Annotated[str, typer.Option(help="last, or best on the validation images.")] = "last",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="An option as key=value, such as inference.mirror=true.")
    ] = None,
) -> None:
    """Predict images as proposals that an annotation tool imports, to be corrected there.

    For example: latentseg prelabel runs/photos new_photos --format cvat
    """
    from latentseg.annotate.formats import FORMATS  # noqa: PLC0415
    from latentseg.annotate.plan import plan  # noqa: PLC0415

    load_run(run, set_ or [])
    chosen = plan(folder, format_, out, threshold)
    from latentseg.annotate.prelabel import prelabel as run_prelabel  # noqa: PLC0415 - slow (PyTorch)
    from latentseg.inference.model import Model  # noqa: PLC0415

    count = run_prelabel(Model.open(run, checkpoint, set_ or []), chosen)
    console.print(f"{count} images in {chosen.out}", markup=False, highlight=False)
    console.print(f"next: {FORMATS[chosen.name].advice}", markup=False, highlight=False)
