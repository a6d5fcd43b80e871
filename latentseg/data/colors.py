"""Colours of classes: those of the known data sets, made ones, and maps from the colours of masks to classes."""

import colorsys
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentseg.config import DataConfig
from latentseg.data.files import read_text
from latentseg.data.images import IGNORE_INDEX
from latentseg.data.masks import RGB, MaskValues, Read, pack, read_colors, read_mask, unpack
from latentseg.errors import DataError

# fmt: off
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on
# Official table: name -> (labelId, colour), in the order of the train ids.
CITYSCAPES = {
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}
CITYSCAPES_LABEL_IDS = 34  # 0..33; those without a train id are ignored


def distinct_palette(number: int) -> NDArray[np.uint8]:
    """RGB colours that tell neighbouring ids apart, shape (number, 3); the golden ratio spreads the hues."""
    colors = np.zeros((number, 3), np.uint8)
    for i in range(number):
        rgb = colorsys.hsv_to_rgb(i * 0.618034 % 1, (0.9, 0.55)[i % 2], (0.95, 0.75, 0.55)[i % 3])
        colors[i] = [round(255 * part) for part in rgb]
    return colors


def voc_color(value: int) -> tuple[int, int, int]:
    """RGB colour of a VOC class: bits of its id, three at a time, fill each channel from the top."""
    r, g, b = (sum((value >> 3 * k + channel & 1) << 7 - k for k in range(8)) for channel in range(3))
    return r, g, b


def class_palette(number: int, values: dict[int, int], colors: dict[int, tuple[int, int, int]]) -> NDArray[np.uint8]:
    """Colour of each class: the layout's for its lowest mask value, or else one of `number` distinct colours."""
    palette = distinct_palette(number)
    for value in sorted(values, reverse=True):
        if value in colors and values[value] < number:
            palette[values[value]] = colors[value]
    return palette


def mask_meaning(
    config: DataConfig,
    classes: tuple[str, ...],
    values: dict[int, int] | None,
    colors: dict[int, RGB],
    root: Path | None,
) -> tuple[Read, MaskValues, NDArray[np.uint8]]:
    """How the masks of a data set are read, what their values stand for, and the colour of each class, shape (C, 3).

    Args:
        config: Its options.
        classes: Names of the classes, in the order of their ids.
        values: The layout's mask value -> class id; None: the value is the id.
        colors: The layout's colours of mask values.
        root: Folder of the data set.

    Raises:
        DataError: As `color_classes`.
    """
    values = config.class_map or values or {value: value for value in range(len(classes))}
    ignored = [] if config.class_map else config.ignored_values
    if config.color_map is None or config.color_map == "index":
        others = IGNORE_INDEX if config.class_map else -1
        return read_mask, MaskValues(values, ignored, others), class_palette(len(classes), values, colors)
    known = values | dict.fromkeys(ignored, IGNORE_INDEX)
    meant = color_classes(config.color_map, root, colors, classes, known)
    palette = class_palette(len(classes), meant, {packed: unpack(packed) for packed in meant})
    return read_colors, MaskValues(meant, [], others=-1, colors=_title(config.color_map)), palette


def _title(color_map: str | dict[str, str]) -> str:
    return color_map if isinstance(color_map, str) else "{...}"


def color_classes(
    name: str | dict[str, str], root: Path | None, own: dict[int, RGB], classes: tuple[str, ...], values: dict[int, int]
) -> dict[int, int]:
    """Which class each colour of a colour mask stands for: packed colour -> class id, 255 for no label.

    Args:
        name: palette, for the colours of the layout; a file, in the working folder or in `root`; or its content.
        root: Folder of the data set.
        own: The layout's colours of mask values; those of VOC where it has none.
        classes: Their names, in the order of their ids.
        values: Mask value -> class id, of all that are known; 255 for those without a label.

    Raises:
        DataError: The file cannot be read or understood, names a colour twice, or leaves a class without a colour.
    """
    if name == "palette":
        colors = own or {value: voc_color(value) for value in range(256)}
        return {pack(color): values[value] for value, color in colors.items() if value in values}
    path = Path("data.color_map" if isinstance(name, dict) else name).expanduser()
    path = root / path if root is not None and not isinstance(name, dict) and not path.exists() else path
    found: dict[int, int] = {}
    for color, meant in _understood(_of_json(name), path) if isinstance(name, dict) else color_entries(path):
        number = _class_id(meant, classes, values, path)
        if found.setdefault(pack(color), number) != number:
            raise DataError("a colour map that names a colour twice", "keep one line of each", path, f"{color}")
    if missing := [each for i, each in enumerate(classes) if i not in found.values()]:
        remedy = "add them, with the names that data.classes or classes.txt has"
        raise DataError("a colour map without a colour for some classes", remedy, path, ", ".join(missing))
    return found


def _class_id(meant: str, classes: tuple[str, ...], values: dict[int, int], path: Path) -> int:
    """The class that an entry names or numbers; a name that is no class means no label."""
    if meant in classes:
        return classes.index(meant)
    if not re.fullmatch(r"-?\d+", meant):
        return IGNORE_INDEX
    if int(meant) not in values:
        remedy = "write names of classes, mask values, or ignore for colours without a label"
        raise DataError("a colour map with a number that is no mask value", remedy, path, meant)
    return values[int(meant)]


def color_entries(path: Path) -> list[tuple[RGB, str]]:
    """Colours and what they mean, from JSON, or from lines such as `128 64 128 road`, `road,#804080`.

    Raises:
        DataError: The file cannot be read or understood.
    """
    text = read_text(path)
    try:
        found = _of_json(json.loads(text)) if path.suffix.lower() == ".json" else _of_lines(text)
    except (ValueError, RecursionError) as error:
        raise DataError("a colour map that is no JSON", _FORM, path, str(error)) from error
    return _understood(found, path)


def _understood(found: list[tuple[RGB | None, str]], path: Path) -> list[tuple[RGB, str]]:
    """The entries, all of which must have a colour."""
    if not found or any(color is None for color, _ in found):
        bad = next((meant for color, meant in found if color is None), "nothing in it")
        raise DataError("a colour map that cannot be understood", _FORM, path, bad)
    return [(color, meant) for color, meant in found if color is not None]


def _of_json(tree: Any) -> list[tuple[RGB | None, str]]:
    """Of an object of names and colours, or a list of objects that have both."""
    if isinstance(tree, dict):
        return [(_color(color), str(name)) for name, color in tree.items()]
    return [_of_object(row) for row in tree] if isinstance(tree, list) else []


def _of_object(row: Any) -> tuple[RGB | None, str]:
    if not isinstance(row, dict):
        return None, str(row)
    color = next((row[key] for key in ("color", "colour", "rgb", "hex") if key in row), None)
    return _color(color), str(next((row[key] for key in ("name", "label", "class", "id") if key in row), ""))


def _of_lines(text: str) -> list[tuple[RGB | None, str]]:
    """Of a table with or without heads; a line that begins with # or // and no colour is a comment."""
    comment = re.compile(r"\s*(#(?![0-9a-fA-F]{6}\b)|//|$)")
    lines = [line for line in text.splitlines() if not comment.match(line)]
    if not lines or re.search(r"\d", lines[0]):
        return [_of_line(line, False) for line in lines]
    heads = [head[:1] for head in re.split(r"[\s,;]+", lines[0].strip().lower())]
    return [_of_line(line, heads[1:4] == ["r", "g", "b"]) for line in lines[1:]]


_FORM = (
    'write a line per colour, `128 64 128 road` or `road,#804080`, or JSON, {"road": [128, 64, 128]}; after a '
    "number write the colour as #rrggbb"
)


def _of_line(line: str, number_first: bool) -> tuple[RGB | None, str]:
    if labelmap := re.fullmatch(r"(.+?):(\d+,\d+,\d+):[^:]*:[^:]*", line.strip()):  # name:r,g,b:parts:actions
        return _color(labelmap[2]), labelmap[1]
    parts = [part.strip("\"'") for part in re.split(r"[\s,;:]+", line.strip()) if part.strip("\"'")]
    for i in (0, len(parts) - 1):
        if parts[i].startswith("#") and len(parts) > 1:
            return _color(parts[i]), " ".join(parts[:i] + parts[i + 1 :])
    first, last = _color(parts[:3]), _color(parts[-3:])
    if len(parts) > 3 and (first is None or number_first):
        return last, " ".join(parts[:-3])
    return (first, " ".join(parts[3:])) if len(parts) > 3 and last is None else (None, line)


def _color(value: Any) -> RGB | None:
    """A colour written as #rrggbb, [r, g, b] or "r, g, b"; None if it is none."""
    if isinstance(value, str) and (found := re.fullmatch(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", value)):
        return int(found[1], 16), int(found[2], 16), int(found[3], 16)
    parts = re.split(r"[\s,]+", value.strip()) if isinstance(value, str) else value
    if not isinstance(parts, list) or len(parts) != 3:
        return None
    numbers = [int(part) for part in parts if re.fullmatch(r"\d{1,3}", str(part)) and int(part) < 256]
    return (numbers[0], numbers[1], numbers[2]) if len(numbers) == 3 else None
