"""The check of a data set of the layout `folder`, as tests ask for it."""

from pathlib import Path

from latentseg.config import DataConfig
from latentseg.data.check import check_data
from latentseg.data.datasets import open_dataset
from latentseg.data.report import Report
from latentseg.data.splits import draw_split


def report_of(root: Path, mode: str = "full", **options: object) -> Report:
    config = DataConfig.model_validate({"root": str(root), "labeled": "all", "check": mode, **options})
    dataset = open_dataset(config)
    return check_data(dataset, draw_split(dataset, config, 0), {"val": dataset.items("val")}, config.check)


def notes_of(root: Path, **options: object) -> list[str]:
    return report_of(root, "full", **options).notes
