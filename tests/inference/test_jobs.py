"""What is predicted of a folder that holds the data set of the run, too."""

from collections.abc import Callable
from pathlib import Path

import pytest

from latentseg.config import DataConfig
from latentseg.errors import UserError
from latentseg.inference.jobs import find_jobs, without_masks
from latentseg.presets import load_config


def data(root: Path) -> DataConfig:
    return load_config("folder", [f"data.root={root}"]).data


def test_masks_of_the_data_set_are_no_images(
    folder_set: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder_set(train=4, val=2, bare=1)
    jobs = find_jobs([root])
    assert len(jobs) == 6 + 5
    left = without_masks(jobs, data(root))
    assert {path.parts[0] for path in left} == {"images"}
    assert len(left) == 6
    assert "5 masks of the data set of the run are left out" in capsys.readouterr().err
    with pytest.raises(UserError, match="all 5 files are masks of the data set of the run"):
        without_masks(find_jobs([root / "masks"]), data(root))


def test_other_folders_and_sets_that_are_gone_change_nothing(folder_set: Callable[..., Path], tmp_path: Path) -> None:
    root = folder_set()
    jobs = find_jobs([root / "images"])
    assert without_masks(jobs, data(root)) == jobs
    assert without_masks(jobs, data(tmp_path / "elsewhere")) == jobs
    whole = find_jobs([root])
    (root / "classes.txt").unlink()
    assert without_masks(whole, data(root)) == whole
    assert without_masks(whole, load_config("scenes").data) == whole
