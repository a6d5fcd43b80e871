"""Fabricated sweep roots and run folders."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

CLASSES = ["ground", "thing", "sky"]


def write_run(folder: Path, options: dict[str, Any], classes: list[str] | None = None) -> None:
    """A run folder that has begun: configuration, classes, environment and a log of three lines."""
    folder.mkdir(parents=True, exist_ok=True)
    tree = {"seed": 0, "steps": 30, "data": {"labeled": "1/8"}, "method": {"name": "supervised"}} | options
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    names = [{"name": name, "color": [i, i, i]} for i, name in enumerate(classes or CLASSES)]
    (folder / "classes.json").write_text(json.dumps(names))
    (folder / "environment.json").write_text(json.dumps({"python": "3.11", "packages": {"torch": "2.9"}}))
    rows = [{"step": step, "ce": 1.0 / step, "seconds": 2.5} for step in (10, 20, 30)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_done(folder: Path, miou: float, splits: list[str]) -> None:
    scores = {split: {"miou": miou, "iou": [miou, 0.25, 0.5], "pixel_accuracy": 0.9} for split in splits}
    (folder / "DONE").write_text(json.dumps({"steps": 30, "seconds": 60.0, "scores": scores}))


@pytest.fixture
def make_sweep(tmp_path: Path) -> Callable[..., Path]:
    """Write a sweep root. `scores[row][column][seed]` is an mIoU in 0..1, or the state of a cell that is not done."""

    def make(
        scores: dict[str, dict[Any, list[float | str]]],
        table: int | None = None,
        column_key: str | None = None,
        name: str = "sweep",
        splits: tuple[str, ...] = ("val",),
        classes: list[str] | None = None,
        methods: dict[str, str] | None = None,
    ) -> Path:
        root = tmp_path / "root"
        (root / "sweeps").mkdir(parents=True, exist_ok=True)
        columns = list(next(iter(scores.values())))
        cells: list[dict[str, Any]] = []
        for number, row in enumerate(scores):
            for column, seeds in scores[row].items():
                for seed, value in enumerate(seeds):
                    folder = f"{number}-{columns.index(column)}-{seed}"
                    cells.append(
                        {"row": row, "column": column, "grid": {"seed": seed}, "options": [], "folder": folder}
                    )
                    method = (methods or {}).get(row, "supervised")
                    options = {"seed": seed, "data": {"labeled": str(column)}, "method": {"name": method}}
                    if value == "open":
                        continue
                    write_run(root / folder, options, classes)
                    if value == "failed":
                        (root / folder / "FAILED").write_text("Traceback ...\nthe term 'cons' is nan\n\n")
                    elif value == "unreadable":
                        (root / folder / "DONE").write_text('{"scores": ')
                    elif isinstance(value, float):
                        write_done(root / folder, value, list(splits))
        grid = {"seed": sorted({cell["grid"]["seed"] for cell in cells})}
        tree: dict[str, Any] = {
            "name": name,
            "summary": "a sweep",
            "table": table,
            "splits": list(splits),
            "base": "camvid",
        }
        tree |= {"options": {"steps": 30}, "column_key": column_key, "columns": columns if column_key else None}
        tree |= {"rows": list(scores), "grid": grid, "cells": cells}
        (root / "sweeps" / f"{name}.json").write_text(json.dumps(tree))
        return root

    return make


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a run folder with one evaluation."""

    def make(name: str = "run", miou: float = 0.5, **options: Any) -> Path:
        folder = tmp_path / "runs" / name
        write_run(folder, options)
        scores = {"miou": miou, "iou": [miou, None, 0.5], "pixel_accuracy": 0.9, "absent": 1}
        tree = {"run": name, "split": "val", "checkpoint": "last", "step": 30, "scores": scores}
        (folder / "evaluation-val-last.json").write_text(json.dumps(tree))
        return folder

    return make
