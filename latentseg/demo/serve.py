"""Start the page: on a port of 127.0.0.1, with a folder of its own, which goes when it ends."""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import gradio as gr
from starlette.middleware import Middleware

from latentseg.console import console
from latentseg.data.files import image_files
from latentseg.demo.examples import write_examples
from latentseg.demo.gate import Gate
from latentseg.demo.page import CSS, Content, build
from latentseg.errors import UserError
from latentseg.inference.model import Model
from latentseg.signals import heeded

UPLOAD = 32 * 2**20
"""Bytes of an upload."""
FONTS = ("system-ui", "sans-serif")
MONO = ("ui-monospace", "monospace")


def open_models(
    run: Path, compare: Path | None, checkpoint: str = "last", overrides: list[str] | tuple[str, ...] = ()
) -> dict[str, Model]:
    """The models of one run, or of two that are shown beside each other, by name.

    Raises:
        UserError: A run cannot be opened, or the two have other classes.
    """
    folders = [folder for folder in (run, compare) if folder is not None]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    if len(set(names)) < len(names):
        raise UserError(f"--compare {compare} is the run itself: name another one")
    models = {name: Model.open(folder, checkpoint, overrides) for name, folder in zip(names, folders, strict=True)}
    first, *others = models.values()
    if others and others[0].classes != first.classes:
        raise UserError(
            f"--compare {compare} knows the classes {', '.join(others[0].classes)}, "
            f"and {run} {', '.join(first.classes)}: compare runs of the same classes"
        )
    return models


@contextmanager
def served(
    models: Mapping[str, Model], checkpoint: str = "last", images: Path | None = None, port: int | None = None
) -> Iterator[str]:
    """Serve the page while the context is open.

    Args:
        models: From `open_models`.
        checkpoint: Which one they have: last or best.
        images: A folder of images for the gallery.
        port: Of 127.0.0.1; a free one from 7860 on if None.

    Yields:
        Its address.

    Raises:
        UserError: The port is taken, or the folder holds no image.
    """
    found = [] if images is None else image_files(images)
    if images is not None and not found:
        raise UserError(f"--images {images} holds no image; name a folder of images")
    with TemporaryDirectory(prefix="latentseg-demo-") as own, _environment(own):
        folder = Path(own, "examples")
        folder.mkdir()
        examples = write_examples(next(iter(models.values())).run, folder)
        page = build(Content(models, checkpoint, examples, images, found))
        try:
            _, address, _ = page.launch(
                server_name="127.0.0.1", server_port=port, share=False, quiet=True, prevent_thread_lock=True,
                inbrowser=False, max_file_size=UPLOAD, allowed_paths=[], footer_links=[], run_history=False,
                enable_monitoring=False, ssr_mode=False, mcp_server=False, pwa=False, show_error=False,
                app_kwargs={"middleware": [Middleware(Gate)], "docs_url": None, "redoc_url": None},
                theme=gr.themes.Default(font=FONTS, font_mono=MONO), css=CSS,
            )  # fmt: skip
        except OSError as error:
            where = "7860 to 7959 are" if port is None else f"{port} is"
            raise UserError(f"the port {where} taken or not allowed; name a free one with --port") from error
        try:
            yield address
        finally:
            page.close(verbose=False)


def serve(models: Mapping[str, Model], checkpoint: str, images: Path | None, port: int | None) -> None:
    """Serve the page until Ctrl-C, or until it is told to end; arguments as for `served`."""
    with heeded(), served(models, checkpoint, images, port) as address:
        console.print(f"{address} (this machine only; Ctrl-C ends it)", markup=False, highlight=False)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            console.print("closed", markup=False, highlight=False)


@contextmanager
def _environment(folder: str) -> Iterator[None]:
    """Gradio's folder is this one, and its own question to the page goes through no proxy; as before at the end."""
    changed = {"GRADIO_TEMP_DIR": folder}
    for name in ("NO_PROXY", "no_proxy"):
        changed[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1"]))
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
