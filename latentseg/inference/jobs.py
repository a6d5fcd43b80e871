"""What `predict` is asked for: images and videos, the names of their results, and what is left out. Without PyTorch."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from latentseg.config import DataConfig
from latentseg.console import console
from latentseg.data.datasets import open_dataset
from latentseg.data.files import IMAGE_SUFFIXES, home_path, image_files, skipped_note
from latentseg.data.lists import mask_files
from latentseg.errors import DataError, UserError

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv"})
NAME_BYTES = 251
"""Of a name without its ending: file systems take 255 bytes."""
SHOWN = 3
"""Files that a message names of those with the same trouble."""
Jobs = dict[Path, Path]
"""What to predict: the name of the results, a path without suffix, and the file."""


def find_jobs(paths: list[Path]) -> Jobs:
    """All images and videos that the paths name.

    Raises:
        UserError: A path is missing, a folder holds no image, or two files would share a result.
    """
    jobs: Jobs = {}
    for path in paths:
        if os.path.isdir(path):  # noqa: PTH112 - a name that is too long is no error there
            found = [(file.relative_to(path).with_suffix(""), file) for file in image_files(path)]
        elif os.path.isfile(path):  # noqa: PTH113
            found = [(Path(path.stem), path)]
        else:
            raise UserError(f"{path} does not exist: name images, folders of images, or videos")
        if not found:
            raise UserError(f"{path} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}); videos are named one by one")
        for name, source in ((_short(name), source) for name, source in found):
            if name in jobs:
                result = f"{name}.mp4" if is_video(source) else f"{name}.png"
                raise UserError(f"{source} and {jobs[name]} would both become {result}: predict them one by one")
            jobs[name] = source
    return jobs


def without_masks(jobs: Jobs, data: DataConfig) -> Jobs:
    """The jobs without the masks of the data set of a run, which may lie among its images; a note counts them.

    Raises:
        UserError: Nothing else is there.
    """
    root = Path(os.path.realpath(home_path(data.root))) if data.root else None
    if root is None or not any(root in source.resolve().parents for source in jobs.values()):
        return jobs
    try:
        masks = mask_files(open_dataset(data))
    except UserError:  # it is not as it was: nothing is known of it
        return jobs
    left = {name: source for name, source in jobs.items() if source.resolve() not in masks}
    if not left:
        raise UserError(f"all {len(jobs)} files are masks of the data set of the run: name its images")
    if len(left) < len(jobs):
        _note(f"{len(jobs) - len(left)} masks of the data set of the run are left out")
    return left


def _short(name: Path) -> Path:
    """The same name, or one that a file system takes with an ending, with a mark of the whole one."""
    letters = os.fsencode(name.name)
    if len(letters) <= NAME_BYTES:
        return name
    mark = hashlib.sha256(letters).hexdigest()[:12]
    return name.with_name(f"{os.fsdecode(letters[: NAME_BYTES - 16]).encode(errors='ignore').decode()}-{mark}")


def tell_skipped(paths: list[Path]) -> None:
    """Name the files in the folders that are left out, by ending."""
    for note in (note for path in paths if path.is_dir() for note in skipped_note(path)):
        _note(note)


def _note(text: str) -> None:
    console.print(f"note: {text}", style="yellow", markup=False, highlight=False)


def is_video(source: Path) -> bool:
    """Whether a file is a video, by its ending."""
    return source.suffix.lower() in VIDEO_SUFFIXES


def grouped(failures: Mapping[Path, UserError]) -> str:
    """One line for each cause, with its number of files, the first of them, and the remedy."""
    lines: list[str] = []
    causes: dict[tuple[str, str], list[str]] = {}
    for path, error in failures.items():
        if isinstance(error, DataError):
            named = f"{path} ({error.detail})" if error.detail else str(path)
            causes.setdefault((error.cause, error.remedy), []).append(named)
        else:
            lines.append(f"  - {error}")
    for (cause, remedy), names in causes.items():
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        lines.append(f"  - {len(names)}: {cause}: {', '.join(names[:SHOWN])}{more}; {remedy}")
    return "\n".join(lines)
