"""classes.txt: names of the classes, one a line, in the order of their ids; and what in it shifts ids unseen."""

import json
import os
import re
from pathlib import Path

from latentseg.data.files import is_file, read_text, shorten
from latentseg.errors import DataError

NO_CLASS = "__ignore__"
"""First line of LabelMe's labels.txt: its id is -1, saved as 255, so that the next line has the id 0."""
HEADS = frozenset({"id", "index", "name", "names", "class", "classes", "class_name", "label", "labels", "category"})
"""Words that tables begin with."""
HIDDEN = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
"""Signs without width, which come along when text is copied."""


def listed_classes(path: Path) -> tuple[tuple[str, ...], list[str]]:
    """Names of the classes in a file, and notes; none if there is no file.

    Raises:
        DataError: The file cannot be read as text, holds comments, or `__ignore__` elsewhere than in front.
    """
    if not is_file(path):
        if os.path.lexists(path):
            raise DataError("is no file of names", "write the names of the classes into it, one a line", path)
        return (), []
    text = read_text(path)
    if _is_json(text):
        raise DataError("names of classes as JSON", "write them bare, one a line, in the order of their ids", path)
    lines = [line.strip().strip(HIDDEN).strip() for line in text.splitlines()]
    names = [line for line in lines if line]
    if comments := [name for name in names if name.startswith(("#", "//"))]:
        remedy = "remove it: each line is a class, and the next line would have its id"
        raise DataError("a comment among the names of classes", remedy, path, shorten(comments[0]))
    if NO_CLASS in names[1:]:
        remedy = "remove its line, or put it first"
        raise DataError(f"{NO_CLASS} is no class, and stands among the classes", remedy, path)
    if names[:1] == [NO_CLASS]:
        second = f", so {names[1]} is id 0" if len(names) > 1 else ""
        note = f"{path} begins with LabelMe's {NO_CLASS} (id -1, saved as 255): it is no class{second}"
        return tuple(names[1:]), [note]
    if names and re.split(r"\W+", names[0].lower())[0] in HEADS:
        head = f"{path} begins with {names[0]}, which is the class of id 0: if it is the head of a table, remove it"
        return tuple(names), [head]
    return tuple(names), _gap_note(lines, path) + _number_note(names, path)


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def _gap_note(lines: list[str], path: Path) -> list[str]:
    """A blank line that somebody may have meant as the place of an id."""
    until = next((i for i, line in reversed(list(enumerate(lines))) if line), 0)
    gap = next((i for i, line in enumerate(lines[:until]) if not line), None)
    if gap is None:
        return []
    after = next(line for line in lines[gap:] if line)
    return [f"{path} has a blank line before {after}, which counts for nothing: {after} is id {_ids(lines)[after]}"]


def _ids(lines: list[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(filter(None, lines))}


def _number_note(names: list[str], path: Path) -> list[str]:
    """Lines that all begin or end with a number which is not their id."""
    first = [re.match(r"(\d{1,9})\s*[\s:;,=.)-]\s*(.*\D.*)", name) for name in names]
    last = [re.search(r"\D\s*[:;,=\t]\s*(\d{1,9})$", name) for name in names]
    found = first if all(first) else last
    numbers = [int(match[1]) for match in found if match]
    if not names or len(numbers) < len(names) or numbers == list(range(len(names))):
        return []
    if all(re.match(r"\d+\D+\d+\D+\d+\D", name) for name in names):
        remedy = "if these are colours of masks, name the file by data.color_map, and the classes alone here"
    elif len(set(numbers)) == len(numbers):
        listed = "{" + ", ".join(f"{value}: {number}" for number, value in enumerate(numbers)) + "}"
        remedy = f"if the numbers are mask values, say so by 'data.class_map={listed}'"
    else:
        remedy = "write the names alone, in the order of their ids"
    where = "begin" if all(first) else "end"
    return [f"the lines of {path} {where} with numbers, but {names[0]} is id 0, as the first line: {remedy}"]
