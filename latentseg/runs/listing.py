"""The runs below a folder, by score: what `latentseg runs` lists. No PyTorch."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from latentseg.config import Config
from latentseg.console import few_scored
from latentseg.errors import RunError, UserError
from latentseg.presets import load_run
from latentseg.reading import read_whole
from latentseg.runs.metrics import read_metrics
from latentseg.runs.place import SAVED

DEPTH = 4
"""Folders within folders that are looked into; a run is not, and a saved model is none."""
SIGNS = ("config.yaml", "metrics.jsonl")
"""What makes a folder a run, or what is left of one."""


@dataclass(frozen=True)
class Listed:
    """What a run folder tells of itself."""

    folder: Path
    config: Config
    labels: int
    """Labelled images."""
    step: int
    """Steps that are logged."""
    miou: float | None
    """Of the last validation, in 0..1."""
    best: float | None
    """The highest one."""
    few: str
    """Said of both where they are means over fewer classes than there are."""
    changed: float
    """When it was last written to, in seconds since 1970."""

    def row(self, root: Path) -> list[str]:
        """Its line of the table, as text."""
        data = self.config.data
        name = data.kind if data.root is None else f"{data.kind} {Path(data.root).name}"
        scores = ("-" if score is None else f"{100 * score:.2f}{self.few}" for score in (self.miou, self.best))
        at = f"{self.step} of {self.config.steps}" if self.step < self.config.steps else str(self.step)
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.changed))
        shown = str(self.folder.relative_to(root)) if self.folder != root else str(root)
        return [shown, *scores, self.config.method.name, name, str(self.labels), at, when]


def list_runs(root: Path) -> tuple[list[Listed], dict[Path, str]]:
    """The runs in a folder and below it, the best first, and the damaged ones with what is wrong.

    Raises:
        RunError: There is no such folder.
    """
    if not root.is_dir():
        raise RunError(f"{root} is no folder: name the one that holds the runs, as latentseg runs FOLDER")
    found, damaged = list[Listed](), dict[Path, str]()
    for folder in _run_folders(root, DEPTH):
        try:
            found.append(_listed(folder))
        except UserError as error:
            damaged[folder] = str(error)
        except OSError as error:
            damaged[folder] = f"{error.filename or folder} cannot be read: {error.strerror}"
    found.sort(key=lambda run: (run.miou is None, -(run.miou or 0.0), str(run.folder)))
    return found, damaged


def _run_folders(folder: Path, depth: int) -> Iterator[Path]:
    if (folder / SAVED).is_file():
        return
    if any((folder / sign).exists() for sign in SIGNS):
        yield folder
        return
    try:
        inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()) if depth else []
    except OSError:
        return
    for path in inner:
        yield from _run_folders(path, depth - 1)


def _listed(folder: Path) -> Listed:
    config = load_run(folder)
    labels = read_whole(folder / "split" / "labeled.txt")
    rows = read_metrics(folder)
    name = f"{config.validate_split}_miou"
    scores = [float(row[name]) for row in rows if isinstance(row.get(name), int | float)]
    paths = (path for path in (folder / "metrics.jsonl", folder / "config.yaml") if path.exists())
    changed = max(path.stat().st_mtime for path in paths)
    step = max((row["step"] for row in rows), default=0)
    last, best = (scores[-1], max(scores)) if scores else (None, None)
    classes = next((row.get(f"{config.validate_split}_iou") for row in reversed(rows) if name in row), None)
    few = few_scored(classes, config.inference.miou_over)
    return Listed(folder, config, len(labels.splitlines()), step, last, best, few, changed)
