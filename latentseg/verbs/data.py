"""The verbs `latentseg data ...`."""

from pathlib import Path
from typing import Annotated

import typer

from latentseg.errors import UserError
from latentseg.presets import load_config
from latentseg.verbs.common import Overrides, Source, console, show
from latentseg.verbs.folders import load_source

data_app = typer.Typer(help="Look at data sets and draw splits.", no_args_is_help=True, rich_markup_mode=None)


@data_app.command("split")
def data_split(
    source: Source,
    out: Annotated[Path, typer.Option(help="Folder for labeled.txt and unlabeled.txt.")],
    overrides: Overrides = None,
) -> None:
    """Draw which training images keep their labels, and write the two lists.

    Train with them by data.labeled=OUT/labeled.txt.
    """
    from latentseg.data.check import print_notes  # noqa: PLC0415
    from latentseg.data.datasets import open_dataset  # noqa: PLC0415
    from latentseg.data.splits import draw_split, write_split  # noqa: PLC0415

    config = load_config(source, overrides or [])
    if (out / "labeled.txt").exists():
        raise UserError(f"{out} holds a split, which is not overwritten: name another folder with --out")
    split = draw_split(open_dataset(config.data), config.data, config.seed)
    write_split(split, out)
    print_notes(split.notes)
    console.print(
        f"{len(split.labeled)} labelled and {len(split.unlabeled)} unlabelled images in {out}",
        markup=False,
        highlight=False,
    )


@data_app.command("check")
def data_check(
    source: Annotated[
        str, typer.Argument(help="A folder of images and labels, a preset, or a YAML file.", metavar="PHOTOS_OR_PRESET")
    ],
    overrides: Overrides = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report to this file, too.")] = None,
) -> None:
    """Open every file that a run would read, and say all that is wrong, by cause; then pixels per class.

    For example: latentseg data check photos, or: latentseg data check voc data.root=VOCdevkit data.check=quick
    """
    from latentseg.data.check import check_set  # noqa: PLC0415

    table, report = check_set(load_source(source, overrides or []), json_file)
    show(table)
    console.print(f"{report.images - len(report.bad)} of {report.images} images can be used", highlight=False)


@data_app.command("scenes")
def data_scenes(
    out: Annotated[Path, typer.Option(help="New folder for images/, labels/ and classes.txt.")],
    overrides: Overrides = None,
) -> None:
    """Write the embedded street scenes as a data set of files (layout `folder`).

    For example: latentseg data scenes --out scenes data.scenes.train=200 data.scenes.height=256 data.scenes.width=512
    """
    from latentseg.data.plain import write_scenes  # noqa: PLC0415

    count = write_scenes(load_config("scenes", overrides or []).data, out)
    console.print(f"{count} scenes in {out}", markup=False, highlight=False)


@data_app.command("convert")
def data_convert(
    source: Annotated[
        str, typer.Argument(help="A folder of images and labels, a preset, or a YAML file.", metavar="PHOTOS_OR_PRESET")
    ],
    out: Annotated[Path, typer.Argument(help="New folder for images/, masks/ and classes.txt.")],
    overrides: Overrides = None,
) -> None:
    """Write a data set of any layout in the plain one: images as they are, masks as PNG of class ids.

    For example: latentseg data convert coco photos
    """
    from latentseg.data.plain import convert  # noqa: PLC0415

    images, masks = convert(load_source(source, overrides or []).data, out)
    console.print(f"{images} images and {masks} masks in {out}", markup=False, highlight=False)


@data_app.command("show")
def data_show(
    source: Annotated[
        str, typer.Argument(help="A folder of images and labels, a preset, or a YAML file.", metavar="PHOTOS_OR_PRESET")
    ],
    overrides: Overrides = None,
) -> None:
    """Print sizes of images, pixels per class, and which classes a draw of labels covers.

    For example: latentseg data show photos, or: latentseg data show camvid data.root=CamVid seed=1
    """
    from latentseg.data.show import show_set  # noqa: PLC0415

    for table in show_set(load_source(source, overrides or [])):
        show(table)
