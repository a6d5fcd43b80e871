"""Cross-validation by the machinery of sweeps."""

from pathlib import Path

import pytest
from rich.console import Console

from latentseg.data.datasets import open_dataset
from latentseg.errors import UserError
from latentseg.presets import load_config
from latentseg.sweeps.folds import run_folds

OPTIONS = ["steps=2", "data.labeled=2", "data.scenes.train=7", "data.scenes.val=1", "data.scenes.test=1"]


def test_folds_hold_out_every_image_once() -> None:
    config = load_config("scenes", OPTIONS)
    parts = [open_dataset(config.data.model_copy(update={"fold": f"{fold}/3"})).items("holdout") for fold in (1, 2, 3)]
    assert [len(part) for part in parts] == [3, 2, 2]
    assert {item.id for part in parts for item in part} == {f"train/{i}" for i in range(7)}


@pytest.mark.parametrize("fold", ["0/3", "4/3", "1/1", "a/3", "1", "1/2/3"])
def test_a_fold_is_a_part(fold: str) -> None:
    with pytest.raises(UserError, match=r"data\.fold=.* must be the number of a part"):
        load_config("scenes", [f"data.fold='{fold}'"])


def test_a_fold_is_as_large_as_an_image_at_least_and_no_second_holdout() -> None:
    with pytest.raises(UserError, match=r"data\.fold=1/8, but only 7"):
        open_dataset(load_config("scenes", [*OPTIONS, "data.fold=1/8"]).data)
    with pytest.raises(UserError, match="take one of them"):
        load_config("scenes", ["data.fold=1/8", "data.holdout=2"])


def test_each_fold_is_trained_scored_and_averaged(tmp_path: Path, fake: list[tuple[str, str]]) -> None:
    config = load_config("scenes", [*OPTIONS, "data.holdout=2", "validate_split=holdout"])
    table = run_folds(config, 3, tmp_path / "runs")
    assert [what for what, _ in fake] == ["train", "holdout"] * 3
    assert len({folder for _, folder in fake}) == 3
    config = load_config(tmp_path / "runs" / fake[0][1] / "config.yaml", of_run=True)
    assert (config.data.fold, config.data.holdout, config.validate_split) == ("1/3", 0, "holdout")
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    assert "50.0 50.0 50.0" in capture.get()
    run_folds(load_config("scenes", OPTIONS), 3, tmp_path / "runs")
    assert len(fake) == 6  # nothing is done twice
