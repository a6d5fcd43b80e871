"""What the verbs share: kinds of arguments, printing, a look at the folder of the data set."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, RenderableType

from latentseg.config import Config

console = Console(soft_wrap=True)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="Options as key=value, such as data.root=photos data.labeled=1/30 steps=500 seed=1.",
        metavar="[KEY=VALUE]...",
    ),
]
Source = Annotated[
    str,
    typer.Argument(help="A preset (see `latentseg presets`), a YAML file, or a run folder.", metavar="PRESET_OR_YAML"),
]
RunFolder = Annotated[Path, typer.Argument(help="A run folder that `train` made.", metavar="RUN")]
Checkpoint = Annotated[str, typer.Option(help="last, or best on the validation images.")]


def show(table: RenderableType) -> None:
    """Print a table; where it goes to no terminal, nothing is cut to the width of one."""
    Console(soft_wrap=True, width=None if sys.stdout.isatty() else 1000).print(table)


def looked_at(config: Config) -> Config:
    """The same, if the folder of its data set is there: PyTorch, which takes seconds, is not needed to tell."""
    from latentseg.data.files import data_folder  # noqa: PLC0415

    if config.data.kind != "scenes":
        data_folder(config.data.root, config.data.kind)
    return config


def can_begin(config: Config, run: Path | None, resume: bool) -> Config:
    """The same, if a run can begin or go on in its folder, as far as that shows without PyTorch.

    Raises:
        UserError: It cannot; of several processes that were started from outside, each sees later.
    """
    from latentseg.runs.place import check_arguments, check_run_folder  # noqa: PLC0415

    check_arguments(config, run, resume)
    if run and not {"RANK", "LOCAL_RANK", "SLURM_PROCID"} & os.environ.keys():  # else another may have just made it
        check_run_folder(run, config, resume)
    return config
