"""The verbs of the command `latentseg`: parse, load the configuration, call one function."""

import os
import sys
import traceback
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from latentseg import __version__
from latentseg.config import Config
from latentseg.console import console as messages
from latentseg.errors import UserError
from latentseg.messages import screen, told
from latentseg.presets import describe_options, group_maps, load_config, load_run, preset_summaries, preset_text
from latentseg.verbs.annotate import prelabel
from latentseg.verbs.common import Checkpoint, Overrides, RunFolder, Source, can_begin, console, looked_at, show
from latentseg.verbs.data import data_app
from latentseg.verbs.demo import demo
from latentseg.verbs.export import export
from latentseg.verbs.folders import check_begun, in_place, init, is_data_folder
from latentseg.verbs.look import doctor, runs, weights
from latentseg.verbs.suggest import suggest

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")
app.command()(init)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.print(f"latentseg {__version__}", markup=False, highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where in the program an error arose.")] = False,
) -> None:
    """Train a semantic segmenter from a few labelled images and a pile of unlabelled ones."""


@app.command()
def train(
    source: Annotated[
        str | None,
        typer.Argument(
            help="A preset, a YAML file, a run folder, or a folder of images and labels.", metavar="PHOTOS_OR_PRESET"
        ),
    ] = None,
    overrides: Overrides = None,
    run: Annotated[Path | None, typer.Option(help="Folder of the run; a free name below runs/ if not given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the run folder.")] = False,
    origin: Annotated[
        Path | None, typer.Option("--from", help="A run whose weights a new run begins with, and its options if alone.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option(help="Train so many runs, each holding out another part of the labels.", min=2)
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Time for it, such as 20m or 1h30m, instead of steps: a few are timed for that.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Take a few steps, tell time, memory and disk of it all, leave nothing.")
    ] = False,
) -> None:
    """Train a segmenter.

    For example: latentseg train photos
    With a preset: latentseg train camvid data.root=CamVid data.labeled=1/30 --run runs/first
    With its weights: latentseg train --from runs/first steps=40000 --run runs/second
    """
    overrides = overrides or []
    check_begun(source, run, resume, origin)
    if origin and (source is None or "=" in source):
        overrides, source = [*([source] if source else []), *overrides], str(origin)
    if source is None:
        raise UserError("name a preset (see `latentseg presets`), a YAML file, or a run folder")
    of_run = (Path(source) / "config.yaml").is_file()  # a folder may bear the name of a preset
    if of_run:
        run, source = run or (None if origin else Path(source)), str(Path(source) / "config.yaml")
    decided = overrides
    if not of_run and is_data_folder(source):
        source, overrides = in_place(source, overrides)
    config = can_begin(looked_at(load_config(source, overrides, of_run)), run, resume)
    if time:
        config = _within(config, time, resume, decided)
    if dry_run:
        from latentseg.training.costs import dry_run as expected  # noqa: PLC0415

        show(expected(config, run, resume))
        return
    if folds:
        if origin or resume:
            raise UserError("--folds goes on by itself when it is typed again, and takes neither --resume nor --from")
        from latentseg.sweeps.folds import run_folds  # noqa: PLC0415

        show(run_folds(config, folds, run or Path("runs/folds")))
        return
    from latentseg.distributed import is_first  # noqa: PLC0415
    from latentseg.training.loop import train as run_training  # noqa: PLC0415 - slow (PyTorch): help and errors come first

    result = run_training(config, run, resume, origin)
    if is_first():
        from latentseg.training.summary import summary  # noqa: PLC0415

        messages.print(summary(result))
        console.print(f"run folder: {result.folder}", markup=False, highlight=False)


def _within(config: Config, time: str, resume: bool, overrides: list[str]) -> Config:
    """The configuration with the steps that fit into a time, which is told."""
    if resume or any(override.partition("=")[0].strip() == "steps" for override in overrides):
        raise UserError("--time chooses the steps of a new run: leave out --resume and steps=N, or --time")
    from latentseg.training.budget import seconds_of, steps_within  # noqa: PLC0415

    config, text = steps_within(config, seconds_of(time))
    messages.print(f"--time {time}: {text}", markup=False, highlight=False)
    return config


@app.command()
def benchmark(
    source: Source,
    overrides: Overrides = None,
    rounds: Annotated[int, typer.Option(help="Timed steps of each choice.", min=1)] = 5,
    compiled: Annotated[bool, typer.Option("--compile", help="Try torch.compile too (minutes).")] = False,
) -> None:
    """Find the precision and the memory format that are fastest on this machine for the steps of a run.

    For example: latentseg benchmark camvid data.root=CamVid
    """
    config = looked_at(load_config(source, overrides or []))
    from latentseg.training.choices import choices, report, time_choices  # noqa: PLC0415

    show(report(config, time_choices(config, choices(compiled), rounds)))


@app.command()
def evaluate(
    run: RunFolder,
    overrides: Overrides = None,
    split: Annotated[str, typer.Option(help="val, test, holdout or train.")] = "val",
    checkpoint: Checkpoint = "last",
) -> None:
    """Score a run: mIoU over the data set, IoU per class, pixel accuracy; a table, and JSON in the run folder."""
    looked_at(load_run(run, overrides or []))
    from latentseg.distributed import is_first  # noqa: PLC0415
    from latentseg.inference.evaluate import evaluate as run_evaluation  # noqa: PLC0415

    evaluation = run_evaluation(run, split, checkpoint, overrides or [])
    if is_first():
        show(evaluation.table())


@app.command()
def predict(
    run: RunFolder,
    paths: Annotated[list[Path], typer.Argument(help="Images, folders of images, videos.", metavar="PATHS...")],
    out: Annotated[Path, typer.Option(help="Folder of the results: index/, overlay/ and latent/.")],
    checkpoint: Checkpoint = "last",
    benchmark: Annotated[
        str | None, typer.Option("--as", help="voc or cityscapes: index PNGs with the ids that the benchmark takes.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="An option as key=value, such as inference.mirror=true.")
    ] = None,
) -> None:
    """Predict images: index PNGs with the palette of the data set, colour overlays, latent maps.

    A GeoTIFF (pip install 'latentseg[geo]') gives index/NAME.tif at the same place on the earth.
    A video (pip install 'latentseg[video]') gives overlay/NAME.mp4 and PNGs index/NAME/000000.png and so on.
    """
    from latentseg.inference.benchmarks import check_name  # noqa: PLC0415
    from latentseg.inference.jobs import find_jobs  # noqa: PLC0415

    load_run(run, set_ or [])
    check_name(benchmark)
    find_jobs(paths)
    from latentseg.inference.model import Model  # noqa: PLC0415
    from latentseg.inference.predict import predict as run_prediction  # noqa: PLC0415

    count = run_prediction(Model.open(run, checkpoint, set_ or []), paths, out, benchmark)
    console.print(f"{count} images in {out}", markup=False, highlight=False)


@app.command()
def sweep(
    source: Annotated[str, typer.Argument(help="A shipped sweep (see `latentseg presets --sweeps`), or a YAML file.")],
    overrides: Overrides = None,
    run_root: Annotated[Path, typer.Option(help="Folder of the cells' run folders; sweeps may share it.")] = Path(
        "runs/sweep"
    ),
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    cell: Annotated[str | None, typer.Option(help="Run this cell alone, by the name of its folder.")] = None,
    commands: Annotated[
        bool, typer.Option("--commands", help="Print a command for each cell that is not done, for any scheduler.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the cells and the expected cost.")] = False,
) -> None:
    """Train and score every cell of a grid; stopped or killed, the same command goes on.

    For example: latentseg sweep table3_camvid data.root=CamVid --run-root runs/tables --workers 2
    By GNU parallel: latentseg sweep table3_camvid data.root=CamVid threads=1 --commands | parallel -j4
    """
    from latentseg.sweeps.files import read_sweep  # noqa: PLC0415

    grid = read_sweep(source, overrides or [])
    if dry_run:
        from latentseg.sweeps.cost import dry_run as show_cost  # noqa: PLC0415

        show(show_cost(grid, run_root, workers))
        return
    from latentseg.sweeps.run import commands as cell_commands  # noqa: PLC0415
    from latentseg.sweeps.run import run_sweep  # noqa: PLC0415

    if commands:
        for line in cell_commands(grid, run_root):
            console.print(line, markup=False, highlight=False)
    else:
        run_sweep(grid, run_root, workers, cell)


@app.command()
def analyse(
    run: RunFolder,
    overrides: Overrides = None,
    split: Annotated[str, typer.Option(help="val, test, holdout or train.")] = "val",
    checkpoint: Checkpoint = "last",
    baseline: Annotated[Path | None, typer.Option(help="Run folder of the supervised twin.")] = None,
) -> None:
    """Look into the latent classes: P(l|c), groups in words, what they tell, and whether they are easier."""
    for folder in (run, *([baseline] if baseline else [])):
        looked_at(load_run(folder, overrides or []))
    from latentseg.analysis import analyse as run_analysis  # noqa: PLC0415

    console.print(run_analysis(run, split, checkpoint, baseline, overrides or []).text(), markup=False, highlight=False)


@app.command()
def report(
    paths: Annotated[list[Path], typer.Argument(help="Run folders and sweeps (their run roots).", metavar="PATHS...")],
    out: Annotated[Path, typer.Option(help="The HTML file.")] = Path("report.html"),
) -> None:
    """Write one self-contained HTML page: tables beside the paper's, curves, heat maps, pictures, cost."""
    from latentseg.report.inputs import find_inputs  # noqa: PLC0415

    find_inputs(paths)
    from latentseg.report.page import write_report  # noqa: PLC0415

    console.print(f"report: {write_report(paths, out)}", markup=False, highlight=False)


@app.command()
def presets(
    name: Annotated[str | None, typer.Argument(help="Print this preset.")] = None,
    options: Annotated[bool, typer.Option("--options", help="Explain every option: type, default, meaning.")] = False,
    groups: Annotated[bool, typer.Option("--groups", help="Print the maps for method.groups.")] = False,
    sweeps: Annotated[bool, typer.Option("--sweeps", help="List the sweeps: the paper's tables.")] = False,
) -> None:
    """List the presets, print one, explain every option, print the maps of classes to groups, or list the sweeps."""
    if sweeps:
        from latentseg.sweeps.files import sweep_summaries  # noqa: PLC0415

        for title, summary in sweep_summaries().items():
            console.print(f"{title:20}{summary}", markup=False, highlight=False)
    elif groups:
        for title, members in group_maps().items():
            console.print(title, markup=False, highlight=False)
            for group, names in members.items():
                console.print(f"  {group}: {', '.join(names)}", markup=False, highlight=False)
    elif options:
        for line in describe_options():
            console.print(line, markup=False, highlight=False)
    elif name:
        console.print(preset_text(name), markup=False, highlight=False, end="")
    else:
        for preset, summary in preset_summaries().items():
            console.print(f"{preset:25}{summary}", markup=False, highlight=False)


@app.command()
def quickstart(
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="New folder for the two runs and the picture.")] = Path("quickstart"),
) -> None:
    """Train the baseline and the latent-class method on drawn street scenes, and compare them.

    Other images and lengths: latentseg quickstart data.scenes.seed=1 steps=300 --out again
    """
    from latentseg.quickstart import quickstart as run_quickstart  # noqa: PLC0415

    run_quickstart(out, overrides or [])


for _verb in (demo, export, prelabel, runs, weights, doctor, suggest):
    app.command()(_verb)


def main() -> None:
    """Run the command; an error becomes one message and its status, and a traceback with --debug."""
    debug = "--debug" in sys.argv
    sys.argv = [word for word in sys.argv if word != "--debug"]
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started this
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a name that the terminal cannot show ends no run
    try:
        app()
    except SystemExit as end:
        if end.code == 130:  # what typer makes of Ctrl-C
            messages.print("stopped")
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, people get one message
        if debug:
            traceback.print_exc()
        text, status = told(error)
        messages.print(text if debug else screen(text), style="red", markup=False, highlight=False)
        sys.exit(status)
