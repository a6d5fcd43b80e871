"""What the verbs share: kinds of arguments, printing, a look at the folder of the data set."""

import sys
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


def show(table: RenderableType) -> None:
    """Print a table; where it goes to no terminal, nothing is cut to the width of one."""
    Console(soft_wrap=True, width=None if sys.stdout.isatty() else 1000).print(table)


def looked_at(config: Config) -> Config:
    """The same, if the folder of its data set is there: PyTorch, which takes seconds, is not needed to tell."""
    from latentseg.data.files import data_folder  # noqa: PLC0415

    if config.data.kind != "scenes":
        data_folder(config.data.root, config.data.kind)
    return config
