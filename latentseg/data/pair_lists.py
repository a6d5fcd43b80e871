"""CSV files that name images and their masks: `data.pairs=pairs.csv`."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from latentseg.data.files import IMAGE_SUFFIXES, is_file, read_text, shorten
from latentseg.data.templates import SPLITS, Row, split_of
from latentseg.errors import DataError

FORM = "a line names an image and its mask, and may name train, val or test: image,mask,split"
NO_PAIRS = "a CSV file without pairs of image files"
SPLIT_NAMES = frozenset(word for words in SPLITS.values() for word in words)


def read_pair_list(path: Path, root: Path) -> list[Row]:
    """Images and masks by the lines of a CSV file, whose paths are relative to it or to the root of the data set.

    The first two columns that hold names of image files are the image and the mask, and one that mostly holds names
    of splits is the split; the others are left out. A first line that names no files holds the heads. An image
    without mask is unlabelled.

    Raises:
        DataError: The file cannot be read, holds no such lines, names a file that is missing, or an image twice.
    """
    table = _table(path)
    names = [_columns(line) for line in table]
    body = table[1:] if names and not names[0] else table
    most = Counter(columns[:2] for columns in map(_columns, body) if len(columns) > 1).most_common(1)
    if not most:
        raise DataError(NO_PAIRS, FORM, path)
    image, mask = most[0][0]
    split = next((i for i in range(len(body[0])) if sum(_is_split(line, i) for line in body) > len(body) / 2), None)
    rows: dict[Path, Row] = {}
    for number, line in enumerate(body, start=1 + len(table) - len(body)):
        files = [_existing(line, column, path, root, number) for column in (image, mask)]
        if files[0] is None or files[0] in rows:
            raise DataError(f"line {number} names no image, or one that is named before", FORM, path)
        if split is not None and not _is_split(line, split):
            raise DataError(f"line {number} names no split, as most lines do", FORM, path, ",".join(line)[:100])
        where = "train" if split is None else split_of(line[split].strip())
        name = Path(line[image].strip().replace("\\", "/")).with_suffix("").as_posix()
        rows[files[0]] = Row(where, name, files[0], files[1])
    twice = {name for name, count in Counter((row.split, row.id) for row in rows.values()).items() if count > 1}
    return [row._replace(id=row.id + row.image.suffix) if row[:2] in twice else row for row in rows.values()]


def _table(path: Path) -> list[list[str]]:
    text = read_text(path)
    marks = {mark: text.partition("\n")[0].count(mark) for mark in ",;\t"}
    try:
        lines = list(csv.reader(text.splitlines(), delimiter=max(marks, key=lambda mark: marks[mark])))
    except csv.Error as error:
        raise DataError("cannot be read as CSV", FORM, path, str(error)) from error
    return [line for line in lines if any(cell.strip() for cell in line)]


def _columns(line: Sequence[str]) -> tuple[int, ...]:
    """Columns that name image files."""
    return tuple(i for i, cell in enumerate(line) if Path(cell.strip()).suffix.lower() in IMAGE_SUFFIXES)


def _is_split(line: Sequence[str], column: int) -> bool:
    return len(line) > column and line[column].strip().lower() in SPLIT_NAMES


def _existing(line: Sequence[str], column: int, path: Path, root: Path, number: int) -> Path | None:
    name = line[column].strip().replace("\\", "/") if len(line) > column else ""
    if not name:
        return None
    for base in (path.parent, root):
        if is_file(base / name):
            return base / name
    raise DataError(f"line {number} names a file that is not there", "correct the line", path, shorten(name))
