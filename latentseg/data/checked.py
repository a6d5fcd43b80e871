"""What the check found in files that have not changed since: a second run of the same data opens none of them twice."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
from numpy.typing import NDArray

from latentseg import __version__
from latentseg.config import DataConfig
from latentseg.data.classes import MaskCounts
from latentseg.data.files import cache_home
from latentseg.data.layouts import Item
from latentseg.data.pixels import PixelFacts
from latentseg.reading import read_whole

FORM = 2
"""Raised where files are checked in another way, or what is kept has another form."""
NOT_READ = {"labeled", "unlabeled", "every_class", "holdout", "balance", "on_bad", "train_list"}
"""Options that choose images, and say nothing of how one is read."""


class Found(NamedTuple):
    """What the files of one item hold."""

    counts: MaskCounts | None
    """Of the mask, if it was decoded."""
    about: PixelFacts


class Checked:
    """Remembers what was found in good files; bad ones are opened each time.

    A file is the same while its size, the time of its last change, the time that the system itself notes of any write
    (which nothing can set back) and its inode are.

    Args:
        config: How images and masks are read.
        classes: Names of the classes.
    """

    def __init__(self, config: DataConfig, classes: Sequence[str]) -> None:
        read = config.model_dump(mode="json", exclude=NOT_READ)
        maps = [_state(Path(text)) for text in (config.color_map,) if isinstance(text, str)]
        key = json.dumps([FORM, __version__, PIL.__version__, read, maps, list(classes)], sort_keys=True)
        self.path = cache_home() / "checked" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
        self._known = _read(self.path)
        self._new: dict[str, Any] = {}

    def found(self, role: str, item: Item, look: Callable[[], Found]) -> Found:
        """What the files of an item in a role hold: remembered, or looked at now.

        Raises:
            UserError: They cannot be used, says the look; that is not remembered.
        """
        key, states = f"{role} {item.id}", [_state(item.image), _state(item.mask)]  # before the look, which takes time
        kept = self._known.get(key)
        found = _unpacked(kept[1]) if isinstance(kept, list) and kept[:1] == [states] and len(kept) == 2 else None
        if found is None:
            found = look()
            self._new[key] = [states, _packed(found)]
        return found

    def write(self) -> None:
        """Keep it for other runs; where that is not possible, they check again."""
        if not self._new:
            return
        part = self.path.with_suffix(f".{os.getpid()}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(_read(self.path) | self._new), encoding="utf-8")
            part.replace(self.path)
        except OSError:
            with suppress(OSError):
                part.unlink(missing_ok=True)


def _state(path: Path | None) -> list[Any] | None:
    """What tells that a file has changed."""
    try:
        found = None if path is None else path.stat()
    except OSError:
        found = None
    return found and [str(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_whole(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _packed(found: Found) -> list[Any]:
    bits, colors, turning, mark = found.about
    about = [bits, [[value, list(color)] for value, color in colors.items()], turning, mark]
    if found.counts is None:
        return [None, about]
    counts = found.counts
    values = [int(value) for value in np.flatnonzero(counts.pixels + counts.between)]
    return [[values, counts.pixels[values].tolist(), counts.between[values].tolist()], about]


def _unpacked(kept: Any) -> Found | None:
    """What was packed; None where it is damaged."""
    try:
        counts, (bits, colors, turning, mark) = kept
        shown = {int(value): (int(r), int(g), int(b)) for value, (r, g, b) in colors}
        about = PixelFacts(bits, shown, turning, int(mark))
        return Found(counts and _counts(*counts), about)
    except (IndexError, TypeError, ValueError):
        return None


def _counts(values: list[int], pixels: list[int], between: list[int]) -> MaskCounts:
    of_pixels, on_slopes = _spread(values, pixels), _spread(values, between)
    return MaskCounts(1, of_pixels, (of_pixels > 0).astype(np.int64), on_slopes)


def _spread(values: list[int], numbers: list[int]) -> NDArray[np.int64]:
    whole = np.zeros(256, np.int64)
    whole[values] = numbers
    return whole
