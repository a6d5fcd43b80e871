"""What a run remembers of its files, and what has changed in them since."""

import json
import zlib
from pathlib import Path
from typing import Any

from latentseg.data.datasets import Item
from latentseg.data.files import first_three
from latentseg.data.splits import Split
from latentseg.errors import DataError
from latentseg.reading import read_whole

NAME = "files.json"
Marks = dict[str, dict[str, list[int | None]]]
"""By role and id: size and content (CRC-32; of unlabelled images the time of the last change) of image and mask."""


def remember_files(split: Split, scored: dict[str, list[Item]], folder: Path) -> None:
    """Write down what the files of a run are like, unless that was done before."""
    if not (folder / NAME).exists():
        text = json.dumps(_marks(split, scored), separators=(",", ":"))
        (folder / NAME).write_text(text, encoding="utf-8")


def changed_files(split: Split, scored: dict[str, list[Item]], folder: Path) -> list[str]:
    """Notes on files whose content is another than when the run began; none if that was not written down.

    Args:
        split: As it is now.
        scored: Images to be scored, by split, as they are now.
        folder: Of the run's split.

    Raises:
        DataError: Other images are labelled or unlabelled than when the run began.
    """
    try:
        before: Marks = json.loads(read_whole(folder / NAME))
        return _compare(before, _marks(split, scored), folder.parent)
    except (OSError, ValueError, AttributeError, TypeError, LookupError, RecursionError):  # older, or damaged
        return []


def _compare(before: Marks, now: Marks, run: Path) -> list[str]:
    notes = []
    for role, marks in now.items():
        then = before.get(role, {})
        more, gone = ([name for name in ours if name not in theirs] for ours, theirs in ((marks, then), (then, marks)))
        found = [
            f"{len(names)} {what} ({first_three(iter(names))})"
            for names, what in ((more, "more"), (gone, "gone"))
            if names
        ]
        if found and role in {"labeled", "unlabeled"}:
            cause = f"the data set has changed since {run} was started: {role} images {', '.join(found)}"
            raise DataError(cause, "restore it, or start a new run")
        notes += [f"since {run} was started, images of {role} have changed: {', '.join(found)}"] if found else []
        other = [name for name, mark in marks.items() if name in then and mark != then[name]]
        if role == "unlabeled" and len(other) == len(marks) and all(marks[k][0] == then[k][0] for k in other):
            continue  # a copy of the data set: all the times are others, all the sizes the same
        if other:
            notes.append(
                f"since {run} was started, the content of {len(other)} images or masks of {role} has changed "
                f"({first_three(iter(other))}): the run goes on with what is there now"
            )
    return notes


def _marks(split: Split, scored: dict[str, list[Item]]) -> Marks:
    roles: dict[str, tuple[list[Item], Any]] = {"labeled": (split.labeled, _content)}
    roles["unlabeled"] = (split.unlabeled, _time)
    roles |= {name: (items, _content) for name, items in scored.items()}
    return {
        role: {item.id: [*look(item.image), *(look(item.mask) if item.mask else [])] for item in items if item.image}
        for role, (items, look) in roles.items()
    }


def _content(path: Path) -> list[int | None]:
    try:
        content = path.read_bytes()
    except OSError:  # the check of files tells
        return [None]
    return [len(content), zlib.crc32(content)]


def _time(path: Path) -> list[int | None]:
    try:
        found = path.stat()
    except OSError:
        return [None]
    return [found.st_size, found.st_mtime_ns]
