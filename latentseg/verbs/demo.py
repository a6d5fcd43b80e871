"""The verb demo: a page in the browser."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from latentseg.errors import UserError
from latentseg.presets import load_run
from latentseg.verbs.common import Checkpoint, RunFolder


def demo(
    run: RunFolder,
    compare: Annotated[Path | None, typer.Option(help="Another run, of the same classes, beside it.")] = None,
    images: Annotated[Path | None, typer.Option(help="A folder of images, shown as a gallery.")] = None,
    port: Annotated[int | None, typer.Option(help="Of 127.0.0.1; a free one if not given.", min=1, max=65535)] = None,
    checkpoint: Checkpoint = "last",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="An option as key=value, such as device=cpu or threads=4.")
    ] = None,
) -> None:
    """Try a run in the browser: photos, camera, examples; both maps, confidence, another run beside it.

    It needs Gradio (pip install 'latentseg[demo]') and serves this machine only.
    """
    if find_spec("gradio") is None:
        raise UserError("latentseg demo needs Gradio: pip install 'latentseg[demo]'")
    for folder in (run, *([compare] if compare else [])):
        load_run(folder, set_ or [])
    if images is not None and not images.is_dir():
        raise UserError(f"--images {images} is no folder; name a folder of images")
    from latentseg.demo.serve import open_models, serve  # noqa: PLC0415 - Gradio and PyTorch take seconds

    serve(open_models(run, compare, checkpoint, set_ or []), checkpoint, images, port)
