"""What the values or colours of masks stand for, from the masks themselves and files of names beside them."""

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from latentseg.console import track
from latentseg.data.class_file import listed_classes
from latentseg.data.colors import color_entries
from latentseg.data.files import first_three
from latentseg.data.images import IGNORE_INDEX
from latentseg.data.masks import hex_color, read_colors, read_mask, unpack
from latentseg.data.opening import opened
from latentseg.errors import DataError, UserError
from latentseg.found.choices import Choice, Problem

MANY = 64
"""More values than these, without names, are no classes."""
NO_CLASS = frozenset({"void", "ignore", "ignored", "unlabeled", "unlabelled"})
"""Names in a colour map that mean no label."""
NAME_FILES = ("classes.txt", "class_names.txt", "labels.txt", "obj.names")
COLOR_FILE = re.compile(r"(label|class|colou?r|palette).*\.(txt|csv|json)", re.IGNORECASE)
BINARY = ["background", "foreground"]
GREY_MODES = frozenset({"1", "L", "P", "I", "I;16", "I;16B", "I;16L", "I;16N"})
Seen = tuple[str, frozenset[int]]


def meaning(
    root: Path, masks: list[Path], given: list[str] | None = None, ignored: Sequence[int] = (IGNORE_INDEX,)
) -> tuple[list[Choice], list[Problem]]:
    """Options that say what masks hold: names of classes, a map of values or of colours. Every mask is read.

    Args:
        root: Of the data set.
        masks: Their files.
        given: Names of the classes, if somebody has said them.
        ignored: Values that mean no label.

    Raises:
        DataError: The masks cannot be read, or what they hold has no sure meaning.
    """
    values, colors, broken = _look(masks)
    problems = [Problem(f"{len(found)} masks: {cause} ({names})", found[0].remedy) for cause, names, found in broken]
    if colors and values:
        cause = f"{len(colors[1])} masks show colours, {len(values[1])} hold numbers"
        remedy = "save them in one way; or name the colours of all by data.color_map, in a file"
        raise DataError(cause, remedy, root, f"{colors[1][0].name}, {values[1][0].name}")
    if colors:
        return _of_colors(root, colors[0]), problems
    if values:
        names, path, notes = (given, root / "data.classes", []) if given else listed_names(root)
        problems += [Problem(note, "") for note in notes if path != root / "classes.txt"]  # of which the layout tells
        return _of_values(root, values[0] - ({*ignored} - {IGNORE_INDEX}), names, path), problems
    found = broken[0][2] if broken else []
    raise found[0] if found else DataError("no mask can be read", "look at the files", root)


def _look(masks: list[Path]) -> tuple[Any, Any, list[tuple[str, str, list[DataError]]]]:
    """Values with the files that hold numbers, colours with those that hold colours, and errors by cause."""
    found: dict[str, tuple[set[int], list[Path]]] = {}
    broken: dict[str, list[DataError]] = {}
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for path, seen in zip(masks, track(pool.map(_seen, masks), "looking at masks", len(masks)), strict=True):
            if isinstance(seen, DataError):
                broken.setdefault(seen.cause, []).append(seen)
                continue
            held = found.setdefault(seen[0], (set(), []))
            held[0].update(seen[1])
            held[1].append(path)
    causes = [(cause, first_three(str(each.path) for each in errors), errors) for cause, errors in broken.items()]
    return found.get("values"), found.get("colors"), causes


def _seen(path: Path) -> Seen | DataError:
    try:
        grey = not shows_colors(path)
        read = read_mask if grey else read_colors
        return "values" if grey else "colors", frozenset(np.unique(read(path)).tolist())
    except DataError as error:
        return error


def _of_colors(root: Path, colors: set[int]) -> list[Choice]:
    for path in sorted(path for path in root.rglob("*") if COLOR_FILE.fullmatch(path.name)):
        try:
            entries = color_entries(path)
        except UserError:
            continue
        every = dict.fromkeys(name for _, name in entries)
        names = [name for name in every if name.lower() not in NO_CLASS]
        if len(names) < 2 or set(map(unpack, colors)) - {color for color, _ in entries}:
            continue
        void = [name for name in every if name not in names]
        inline = {name: hex_color(color) for color, name in entries}
        why = f"{path.relative_to(root)} names the colours" + (f"; {', '.join(void)}: no label" if void else "")
        return [
            Choice("data.classes", names, why, "other names, in this order; all that are not named mean no label"),
            Choice("data.color_map", inline if len(inline) == len(entries) else str(path.resolve()), why),
        ]
    if len(colors) > MANY:
        remedy = "save masks as PNG without smoothing; or name the colours in a file, data.color_map=FILE"
        raise DataError(f"masks hold more than {MANY} colours, and no file names them", remedy, root, f"{len(colors)}")
    listed = sorted(map(unpack, colors))
    named = {f"colour_{number}": color for number, color in enumerate(listed, start=1)}
    if listed == [(0, 0, 0), (255, 255, 255)]:
        named = dict(zip(BINARY, listed, strict=True))
    shown = {name: hex_color(color) for name, color in named.items()}
    otherwise = 'your names; a colour that means no label as `ignore`, or a file of lines such as "128 64 128 road"'
    return [
        Choice("data.classes", list(named), f"made names: the masks hold {len(colors)} colours", "your names"),
        Choice("data.color_map", shown, "the colours of the masks, with made names", otherwise),
    ]


def shows_colors(mask: Path) -> bool:
    """Whether a mask is a colour image, by its header.

    Raises:
        DataError: It cannot be read.
    """
    with opened(mask) as image:
        return image.mode not in GREY_MODES


def _of_values(root: Path, seen: set[int], names: list[str], path: Path | None) -> list[Choice]:
    values = sorted(seen - {IGNORE_INDEX})
    if path is None:
        return _unnamed(root, values, IGNORE_INDEX in seen)
    void = [name for name in names if name.lower() in NO_CLASS]
    kept = [name for name in names if name not in void]
    why = f"{path.relative_to(root)} names them" + (f"; {', '.join(void)}: no label" if void else "")
    chosen = [Choice("data.classes", kept, why, "other names, in this order")]
    if values == [0] and IGNORE_INDEX in seen and len(names) == 2:
        return [*chosen, _mapped({0: 0, IGNORE_INDEX: 1}, "masks hold 0 and 255 alone")]
    if not values or (values[0] >= 0 and values[-1] < len(names)):
        named = {number: kept.index(name) for number, name in enumerate(names) if name in kept}
        return [*chosen, _mapped(named, why)] if void else chosen
    shift = {number + 1: number for number in range(len(names))}
    if values[0] > 0 and values[-1] == len(names) and not void:
        return [*chosen, _mapped(shift, "the values start at 1")]
    remedy = f"add the missing names; or, if 0 means no label: 'data.class_map={shift}'"
    raise DataError(
        f"masks hold values that {len(names)} names do not cover", remedy, path, ", ".join(map(str, values[:20]))
    )


def _unnamed(root: Path, values: list[int], holds_255: bool) -> list[Choice]:
    if len(values) > MANY:
        remedy = "resize masks by the nearest pixel, save them as PNG; or name the classes in classes.txt"
        raise DataError(f"masks hold more than {MANY} values, and no file names them", remedy, root, str(len(values)))
    if holds_255 and len(values) == 1:
        why = f"masks hold {values[0]} and 255 alone"
        return [
            Choice("data.classes", BINARY, f"made names: {why}", "your two names"),
            _mapped({values[0]: 0, IGNORE_INDEX: 1}, why),
        ]
    if len(values) < 2:
        raise DataError("all masks hold one value", "at least two classes are needed: look at the masks", root)
    names = BINARY if len(values) == 2 and values[0] == 0 else [f"class_{value}" for value in values]
    void = "; 255 is taken as no label" if holds_255 else ""
    chosen = [Choice("data.classes", names, f"made names: no file names them{void}", "your names, or classes.txt")]
    if values == list(range(len(values))):
        return chosen
    return [*chosen, _mapped({value: number for number, value in enumerate(values)}, "the values that masks hold")]


def _mapped(mapping: dict[int, int], why: str) -> Choice:
    return Choice("data.class_map", mapping, why, "another class for a value; one that is not named has no label")


def listed_names(root: Path) -> tuple[list[str], Path | None, list[str]]:
    """Names of the classes by id, from a file in the root or a folder of it, the file, and notes."""
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    for path in (folder / name for folder in folders for name in NAME_FILES):
        if path.is_file():
            names, notes = listed_classes(path)
            return [*names], path, notes
    return [], None, []
