"""Which templates (`latentseg.data.templates`) tell the images of a folder from their masks."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from latentseg.data.pairing import SEPARATORS, has_few_values
from latentseg.data.templates import SPLIT_WORD, Template, is_split, split_of

MASK_WORD = re.compile(
    r"mask|(?<!un)label|annot|segm|truth|(?:^|[^a-z])(?:gt|seg|target)s?(?:[^a-z]|$)|gtfine", re.IGNORECASE
)
"""What folders of masks, and the words around names of masks, are called."""
WORDS = rf"(?<![a-z])({SPLIT_WORD})(?![a-z])"
"""Names of splits in those of folders."""
SAMPLE, TRIED = 200, 12
"""Masks whose partners are looked for, and templates that are tried on all files."""
PARTNERS = 50
"""Files of one name that are looked at."""


class _Form(NamedTuple):
    """A way to read the name of a file: what stands before and after that which it shares with another."""

    before: str
    name: str
    after: str


def guess_pairs(root: Path, files: list[Path]) -> tuple[str, str] | None:
    """The templates of images and masks that fit the most files; None if no two files belong together."""
    names = [path.relative_to(root).as_posix() for path in files]
    index: dict[str, list[tuple[str, _Form]]] = defaultdict(list)
    for name in names:
        for form in _forms(name):
            index[form.name].append((name, form))
    masks = [name for name in names if MASK_WORD.search(name.rpartition(".")[0])] or names
    counts: Counter[tuple[str, str]] = Counter()
    for mask in masks[:: max(1, len(masks) // SAMPLE)]:
        for form in _forms(mask):
            for image, other in index[form.name][:PARTNERS]:
                counts.update(set(_templates(root, (image, other), (mask, form))))
    tried = [pair for pair, _ in counts.most_common(TRIED)]
    best = max(tried, key=lambda pair: _merit(pair, names), default=None)
    return best if best and _fitting(best, names) else None


def _forms(path: str) -> Iterator[_Form]:
    """The whole name; without its last words; without its first ones: as long as these hold no digit."""
    stem = path.rpartition("/")[2].rpartition(".")[0]
    yield _Form("", stem, "")
    for i, mark in enumerate(stem):
        if mark in SEPARATORS and 0 < i < len(stem) - 1:
            if not re.search(r"\d", stem[i:]):
                yield _Form("", stem[:i], stem[i:])
            if not re.search(r"\d", stem[: i + 1]):
                yield _Form(stem[: i + 1], stem[i + 1 :], "")


def _templates(root: Path, image: tuple[str, _Form], mask: tuple[str, _Form]) -> Iterator[tuple[str, str]]:
    """The templates by which a file is the mask of another one; none if it is not."""
    (photo, of_photo), (drawn, of_drawn) = image, mask
    if photo == drawn:
        return
    folders, others = photo.split("/")[:-1], drawn.split("/")[:-1]
    ends = 0
    while ends < min(len(folders), len(others)) and folders[-1 - ends] == others[-1 - ends]:
        ends += 1
    begins = 0
    while begins < min(len(folders), len(others)) - ends and folders[begins] == others[begins]:
        begins += 1
    inner, outer = folders[begins : len(folders) - ends], others[begins : len(others) - ends]
    around = ["/".join((*middle, form.before, form.after)) for middle, form in ((inner, of_photo), (outer, of_drawn))]
    if not _is_mask_of(root, photo, drawn, around):
        return
    ours, theirs = ({split_of(word) for word in re.findall(WORDS, "/".join(each).lower())} for each in (inner, outer))
    if theirs - ours:  # the mask of another split: its image bears the same name
        return
    same_place = around[0] == around[1]  # told by their endings alone
    tail = ["{split}" if is_split(part) else "*" for part in folders[len(folders) - ends :]]
    while tail and tail[-1] == "*":
        tail.pop()
    middles = _with_split(inner, outer)
    for begin in _heads(folders[:begins]):
        yield tuple(  # type: ignore[misc]
            "/".join([*begin, *middle, *tail, f"{form.before}{{id}}{form.after}{Path(name).suffix * same_place}"])
            for middle, form, name in zip(middles, (of_photo, of_drawn), (photo, drawn), strict=True)
        )


def _is_mask_of(root: Path, photo: str, drawn: str, around: list[str]) -> bool:
    """By the words that the two names do not share, else by what the files hold."""
    words = [bool(MASK_WORD.search(text)) for text in around]
    if words[0] != words[1]:
        return words[1]
    return not words[0] and has_few_values(root / drawn) and not has_few_values(root / photo)


def _with_split(inner: list[str], outer: list[str]) -> tuple[list[str], list[str]]:
    """Folders in which the name of a split, where both have it, stands as such: train and trainannot."""
    for part in inner:
        found = re.search(rf"(?:^|(?<=[^a-z]))({SPLIT_WORD})", part.lower())
        word = part[slice(*found.span(1))] if found else ""
        if word and any(word in other for other in outer):
            return [each.replace(word, "{split}", 1) for each in inner], [
                each.replace(word, "{split}", 1) for each in outer
            ]
        if word and part == word:
            return [each.replace(word, "{split}", 1) for each in inner], outer
    return inner, outer


def _heads(folders: list[str]) -> Iterator[list[str]]:
    """The folders above, as they are and as any."""
    written = ["{split}" if is_split(part) else part for part in folders]
    yield written
    if any(part != "{split}" for part in written):
        yield [part if part == "{split}" else "*" for part in written]


def _merit(pair: tuple[str, str], names: list[str]) -> tuple[int, ...]:
    """By how many images fit; then a mask for each split goes before one for all, and short templates before long."""
    return _fitting(pair, names), "{split}" in pair[1], -pair[0].count("*"), -len("".join(pair))


def _fitting(pair: tuple[str, str], names: list[str]) -> int:
    """The number of images that have a mask by two templates."""
    of_image, of_mask = (Template(text) for text in pair)
    masks = {name: key for name in names if (key := of_mask.match(name))}
    keys, ids = set(masks.values()), {key[1] for key in masks.values()}
    images = [key for name in names if name not in masks and (key := of_image.match(name))]
    split = "{split}" in pair[1]
    return sum((key in keys) if split else (key[1] in ids) for key in images)
