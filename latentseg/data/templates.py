"""Names of images and masks as templates: `images/{split}/{id}` and `masks/{split}/{id}_mask`.

`{id}` is what an image and its mask have in common, folders below included; what stands around it in the last part
stands around the name of the file. `{split}` is train, val or test under any of their usual names, and `*` is one
folder, the same for both. An ending is written where it matters: `{id}.png`.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from latentseg.data.files import IMAGE_SUFFIXES, files_by_stem, image_files
from latentseg.data.pairing import maskless_notes, orphan_notes
from latentseg.errors import DataError, UserError

SPLITS = {
    "train": ("training", "train"),
    "val": ("validation", "valid", "val", "dev"),
    "test": ("testing", "test"),
}
"""Names of folders and files, longer ones first; a year may follow (train2017)."""
SPLIT_WORD = f"(?:{'|'.join(word for words in SPLITS.values() for word in words)})(?:20[0-9][0-9])?"
ENDING = f"(?i:{'|'.join(re.escape(suffix) for suffix in sorted(IMAGE_SUFFIXES))})"


class Row(NamedTuple):
    """An image that was found, and its mask."""

    split: str
    id: str
    image: Path
    mask: Path | None


class Template:
    """One template, as a pattern of paths relative to the root.

    Raises:
        UserError: It has no `{id}`, or several.
    """

    def __init__(self, text: str) -> None:
        head, mark, tail = text.partition("{id}")
        if not mark or "{id}" in tail or "/" in tail:
            raise UserError(f"data.pairs: {text} needs {{id}} once, in its last part, such as images/{{id}}")
        folder, slash, prefix = head.rpartition("/")
        named = any(tail.lower().endswith(suffix) for suffix in IMAGE_SUFFIXES)
        pattern = re.escape(folder + slash).replace(r"\{split\}", f"(?P<split>(?i:{SPLIT_WORD}))", 1)
        pattern = pattern.replace(r"\{split\}", "(?P=split)").replace(r"\*", "([^/]+)")
        name = f"(?P<below>(?:[^/]+/)*){re.escape(prefix)}(?P<name>[^/]+?){re.escape(tail)}"
        self.folder = folder
        self._pattern = re.compile(pattern + name + ("" if named else ENDING))

    def match(self, path: str) -> tuple[str, str] | None:
        """Split and id of a path; None if it is no such path. Without `{split}` everything is for training."""
        found = self._pattern.fullmatch(path)
        if not found:
            return None
        known = found.groupdict()
        named = {found.span(name) for name in known}
        stars = [text for i, text in enumerate(found.groups(), 1) if text and found.span(i) not in named]
        return split_of(known.get("split") or "train"), "/".join([*stars, known["below"] + known["name"]])


def split_of(word: str) -> str:
    """train, val or test of a name of it."""
    return next(split for split, words in SPLITS.items() if word.lower().startswith(words))


def is_split(name: str) -> bool:
    """Whether a folder is called as a split is."""
    return re.fullmatch(SPLIT_WORD, name.lower()) is not None


def split_in(names: Iterable[str]) -> str:
    """The split that the first of the names says as a word of its own (instances_val2017); train if none does."""
    for name in names:
        if found := re.search(rf"(?:^|[^a-z])({SPLIT_WORD})(?:[^a-z]|$)", name.lower()):
            return split_of(found[1])
    return "train"


def match_pairs(root: Path, images: str, masks: str) -> tuple[list[Row], list[str]]:
    """The images that a template names, each with the mask of the same split and id, and notes on names.

    A file that both templates name is a mask. Masks without `{split}` are told by their ids alone.

    Raises:
        DataError: No file is named by the first template, or two files have one id.
        UserError: A template is none.
    """
    of_image, of_mask = Template(images), Template(masks)
    found: dict[tuple[str, str], Path] = {}
    drawn: dict[tuple[str, str], Path] = {}
    for path in image_files(root):
        name = path.relative_to(root).as_posix()
        if key := of_mask.match(name):
            _add(drawn, key, path)
        elif key := of_image.match(name):
            _add(found, key, path)
    if not found:
        raise DataError(
            f"no image is named {images}",
            "correct data.pairs, or let `latentseg init` look what lies there", root,
        )  # fmt: skip
    if "{split}" not in masks:
        drawn = {key: drawn["train", key[1]] for key in found if ("train", key[1]) in drawn} | drawn
    rows = [Row(*key, path, drawn.get(key)) for key, path in found.items()]
    notes = []
    for split in SPLITS:
        bare = [row.id for row in rows if row.split == split and row.mask is None]
        alone = sorted(name for where, name in drawn.keys() - found.keys() if where == split)
        notes += orphan_notes(split, root / of_mask.folder.partition("{")[0], alone, bare)
    return rows, notes


def plain_pairs(images: Path, masks: Path, split: str) -> tuple[list[Row], list[str]]:
    """The images of a split in the plain layout, each with the mask of the same path below its folder, and notes."""
    of_stem = files_by_stem(masks / split)
    rows = [Row(split, name, path, of_stem.get(name)) for name, path in files_by_stem(images / split).items()]
    bare = [row.id for row in rows if row.mask is None]
    notes = orphan_notes(split, masks / split, sorted(of_stem.keys() - {row.id for row in rows}), bare)
    return rows, notes if of_stem else [*notes, *maskless_notes(masks, split)]


def _add(known: dict[tuple[str, str], Path], key: tuple[str, str], path: Path) -> None:
    if known.setdefault(key, path) != path:
        raise DataError("two files have the same stem", "rename or remove one of them", path, f"as {known[key]}")
