"""What the check of the data has found: what cannot be used, by cause; notes; pixels and images per class."""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from latentseg.data.classes import MaskCounts, class_figures
from latentseg.data.datasets import Dataset, Item
from latentseg.data.files import first_three
from latentseg.data.splits import Split
from latentseg.errors import DataError, RunError, UserError

CHECK = "check.json"
"""Name of the report in the folder of a run's split."""
GROUPS = 8
"""Causes that a message lists."""


@dataclass(frozen=True)
class Bad:
    """An image that cannot be used."""

    role: str
    item: Item
    error: UserError

    @property
    def cause(self) -> str:
        """What it has in common with others."""
        return self.error.cause if isinstance(self.error, DataError) else str(self.error)

    @property
    def remedy(self) -> str:
        """What can be done."""
        return self.error.remedy if isinstance(self.error, DataError) else ""

    @property
    def place(self) -> str:
        """Its file, and what is special about it."""
        if not isinstance(self.error, DataError):
            return self.item.id
        return f"{self.error.path or self.item.id}{f' ({self.error.detail})' if self.error.detail else ''}"


@dataclass(frozen=True)
class Report:
    """What the check has found."""

    dataset: Dataset
    split: Split
    """Without what cannot be used."""
    scored: dict[str, list[Item]]
    """By split, without what cannot be used."""
    images: int
    """Number of images that were looked at."""
    bad: list[Bad]
    notes: list[str]
    score_notes: list[str]
    """Those that belong beside a score, too."""
    counts: dict[str, MaskCounts]
    """By role: class ids of the masks that were decoded."""

    def settle(self, on_bad: Literal["stop", "skip"]) -> list[str]:
        """Stop if something cannot be used; or a note on what is left out.

        Raises:
            DataError: Something cannot be used, and is not to be left out, or nothing labelled is left.
        """
        if not self.bad:
            return []
        if on_bad == "stop":
            raise self._problem("mend them, or go on without them by data.on_bad=skip")
        if not self.split.labeled:
            raise self._problem("no labelled image is left: mend some")
        empty = [f"no image of {name} is left: nothing is scored" for name, items in self.scored.items() if not items]
        return [str(self._problem("they are left out (data.on_bad=skip)")), *empty]

    def write(self, folder: Path) -> None:
        """Write check.json, and skipped.txt if something is left out: role, id and cause, a line each.

        Raises:
            RunError: One of them cannot be written.
        """
        text = json.dumps(self.figures() | {"score_notes": self.score_notes}, indent=1)
        try:
            (folder / CHECK).write_text(text, encoding="utf-8")
            if self.bad:
                lines = (f"{bad.role}\t{bad.item.id}\t{bad.cause}\n" for bad in self.bad)
                (folder / "skipped.txt").write_text("".join(lines), encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise RunError(f"{error.filename or folder} cannot be written: {error.strerror}") from error

    def _problem(self, remedy: str) -> DataError:
        """All that cannot be used in one message, by cause."""
        groups = self.groups()
        lines = [
            f"  {len(found)} x {cause}{f'; {found[0].remedy}' if found[0].remedy else ''}:\n"
            f"      {first_three(bad.place for bad in found)}"
            for cause, found in list(groups.items())[:GROUPS]
        ]
        more = [f"  and {len(groups) - GROUPS} further causes"] if len(groups) > GROUPS else []
        cause = f"{len(self.bad)} of {self.images} images cannot be used"
        return DataError(cause, "\n".join([f"{remedy}:", *lines, *more]))

    def groups(self) -> dict[str, list[Bad]]:
        """What cannot be used by cause, the commonest first."""
        groups: dict[str, list[Bad]] = defaultdict(list)
        for bad in self.bad:
            groups[bad.cause].append(bad)
        return dict(sorted(groups.items(), key=lambda group: -len(group[1])))

    def figures(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "images": self.images,
            "bad": [
                {"cause": cause, "remedy": found[0].remedy, "files": [bad.place for bad in found]}
                for cause, found in self.groups().items()
            ],
            "notes": self.notes,
            "classes": class_figures(self.dataset.classes, self.counts),
        }
