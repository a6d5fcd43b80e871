"""A folder in place of a preset, and `latentseg init`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from latentseg.config import Config
from latentseg.errors import RunError, UserError
from latentseg.presets import load_config, preset_names
from latentseg.verbs.common import Overrides, console, show

if TYPE_CHECKING:
    from latentseg.found.choices import Found  # verbs answer before NumPy is there

Kind = Literal["photos", "aerial", "microscopy"]
BASE = "folder"
"""Preset of what a folder does not decide."""


def is_data_folder(source: str) -> bool:
    """Whether a source is a folder, no preset of that name, and no run folder."""
    from latentseg.data.files import is_folder  # noqa: PLC0415

    return source not in preset_names() and is_folder(Path(source)) and not (Path(source) / "config.yaml").is_file()


def check_begun(source: str | None, run: Path | None, resume: bool, origin: Path | None) -> None:
    """Refuse a folder that holds no run where a run goes on or begins with its weights.

    Raises:
        RunError: It holds none; it is not looked at as a data set.
    """
    meant = [origin] if origin else [Path(source)] if resume and not run and source and is_data_folder(source) else []
    for folder in meant:
        if not (folder / "config.yaml").is_file():
            raise RunError(f"{folder} is not a run folder (no config.yaml in it): name one that latentseg train made")


def in_place(source: str, overrides: list[str]) -> tuple[str, list[str]]:
    """A preset and `key=value` that stand for a folder, after a table of what was found in it.

    Raises:
        DataError: It cannot be read as a data set.
    """
    return BASE, [*_look(Path(source), overrides, "photos").overrides, *overrides]


def load_source(source: str, overrides: list[str]) -> Config:
    """The configuration of a folder, a preset or a YAML file.

    Raises:
        UserError: As `load_config`.
        DataError: As `in_place`.
    """
    if is_data_folder(source):
        source, overrides = BASE, [*_look(Path(source), overrides).overrides, *overrides]
    return load_config(source, overrides)


def init(
    folder: Annotated[Path, typer.Argument(help="A folder of images and labels.", metavar="PHOTOS")],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="The YAML file; PHOTOS.yaml if not given.")] = None,
    kind: Annotated[Kind, typer.Option(help="What the images are.")] = "photos",
) -> None:
    """Look at a folder, and write a YAML file of all that was decided, with the reasons and the alternatives.

    For example: latentseg init photos, then: latentseg train photos.yaml
    """
    from latentseg.found.document import document  # noqa: PLC0415

    path = out or Path(f"{Path(os.path.realpath(folder)).name}.yaml")
    if path.exists():
        raise UserError(f"{path} exists and is not overwritten: name another file with --out")
    found = _look(folder, overrides or [], kind)
    text = document(found, BASE, overrides or [])
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {path} cannot be written: {error.strerror}") from error
    load_config(path)
    console.print(f"{path}: look at it, then type: latentseg train {path}", markup=False, highlight=False)


def _look(folder: Path, overrides: list[str], kind: Kind | None = None) -> "Found":
    """What lies in a folder; with a kind of images, the recipe for it, too. It is printed."""
    from latentseg.data.datasets import open_dataset  # noqa: PLC0415
    from latentseg.data.splits import draw_split  # noqa: PLC0415
    from latentseg.found.recognise import recognise  # noqa: PLC0415

    found, first = recognise(folder, overrides), True
    if kind:
        from latentseg.distributed import is_first  # noqa: PLC0415
        from latentseg.training.recipe import choose_recipe  # noqa: PLC0415 - slow (PyTorch)

        config = load_config(BASE, [*found.overrides, *overrides], keep_unread=True)
        dataset = open_dataset(config.data)
        given = {override.partition("=")[0].strip() for override in overrides}
        split = draw_split(dataset, config.data, config.seed)
        found.choices += choose_recipe(dataset, split, config, kind, given | {choice.key for choice in found.choices})
        first = is_first()
    if first:  # of several processes one speaks
        show(found.table())
    return found
