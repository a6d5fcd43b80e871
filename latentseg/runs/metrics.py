"""The lines of metrics.jsonl, and numbers that JSON does not know. No PyTorch."""

import json
import math
from pathlib import Path
from typing import Any

from latentseg.console import console


def finite_or_none(value: Any) -> Any:
    """The same value with None for each number that JSON does not know (NaN, infinity)."""
    if isinstance(value, dict):
        return {key: finite_or_none(part) for key, part in value.items()}
    if isinstance(value, list):
        return [finite_or_none(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


_told: set[Path] = set()
"""Logs of whose damaged lines was told."""


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, each with a whole `step`.

    A damaged line is left out, which is said once; the last one may just be unfinished.
    """
    path = folder / "metrics.jsonl"
    try:
        lines = path.read_bytes().rstrip().split(b"\n") if path.is_file() else []  # a device might have no end
    except OSError as error:
        lines = []
        _note(path, f"{path} cannot be read: {error.strerror}")
    rows: list[dict[str, Any]] = []
    damaged = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict) and type(row.get("step")) is int:
            rows.append(row)
        elif line.strip() and not (row is None and number == len(lines)):
            damaged.append(number)
    if damaged:
        many = f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""
        _note(path, f"{path}: {len(damaged)} damaged lines are left out ({', '.join(map(str, damaged[:3]))}{many})")
    return rows


def _note(path: Path, text: str) -> None:
    if path not in _told:
        _told.add(path)
        console.print(f"note: {text}", style="yellow", markup=False, highlight=False)
