"""Files of run folders, read without ever failing: what is damaged reads as empty."""

import json
import math
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from latentseg.runs import read_metrics

Tree = dict[str, Any]
WHOLE = ("data.class_map", "method.groups")
"""Options whose value is a mapping: one option, not one per key."""


def number(value: Any) -> TypeGuard[float]:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_text(path: Path) -> str:
    """A text file, with what is not UTF-8 replaced; "" if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def read_json(path: Path) -> Tree:
    """A JSON object, or {"error": why not}."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return {"error": str(error)}
    return tree if isinstance(tree, dict) else {"error": f"holds a {type(tree).__name__}, not an object"}


def class_names(folder: Path) -> list[str]:
    """Names of a run's classes; none if they cannot be read."""
    try:
        return [str(entry["name"]) for entry in json.loads((folder / "classes.json").read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def metrics(folder: Path) -> list[Tree]:
    """Rows of metrics.jsonl; none if it cannot be read."""
    try:
        return [row for row in read_metrics(folder) if isinstance(row, dict)]
    except (OSError, UnicodeDecodeError):
        return []


def read_options(folder: Path) -> Tree:
    """The resolved configuration of a run by dotted key; empty if it cannot be read.

    Read as plain YAML, since the options of another version of the package may differ.
    """
    try:
        tree = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return flat(tree) if isinstance(tree, dict) else {}


def flat(tree: Tree, prefix: str = "") -> Tree:
    """Nested values by dotted key."""
    found: Tree = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, dict) and name not in WHOLE else {name: value}
    return found
