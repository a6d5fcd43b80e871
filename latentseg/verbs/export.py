"""The verb `export`: a run as one file that runs without this package."""

from pathlib import Path
from typing import Annotated

import typer

from latentseg.presets import load_run
from latentseg.verbs.common import Overrides, console


def export(
    run: Annotated[Path, typer.Argument(help="A run folder that `train` made.", metavar="RUN")],
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="The file: NAME.onnx or NAME.pt2.")] = Path("model.onnx"),
    kind: Annotated[
        str, typer.Option("--format", help="onnx (pip install 'latentseg[export]'), or pt2 (torch.export).")
    ] = "onnx",
    checkpoint: Annotated[str, typer.Option(help="last, or best on the validation images.")] = "last",
    int8: Annotated[
        bool, typer.Option("--int8", help="Integers of 8 bits, by images of the data set; the loss is measured.")
    ] = False,
    size: Annotated[
        tuple[int, int] | None, typer.Option(help="Height and width of every image, in pixels; any if not given.")
    ] = None,
    latent: Annotated[bool, typer.Option("--latent", help="Put out the latent classes, too.")] = False,
) -> None:
    """Write a run as one file: images in, probabilities out, proved against the model; docs/export.md has an example.

    For example: latentseg export runs/photos --out photos.onnx
    """
    from latentseg.export.arguments import check_arguments  # noqa: PLC0415

    load_run(run, overrides or [])
    check_arguments(out, kind, int8, size)
    from latentseg.export.run import export_run  # noqa: PLC0415

    done = export_run(run, out, kind, checkpoint, int8, size, latent, overrides or [])
    console.print(done.text(), markup=False, highlight=False)
