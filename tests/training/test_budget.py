"""Steps from a time budget."""

from dataclasses import replace
from pathlib import Path

import pytest
from tiny import TINY
from typer.testing import CliRunner

from latentseg.cli import app
from latentseg.errors import UserError
from latentseg.presets import load_config
from latentseg.training import budget, costs
from latentseg.training.budget import seconds_of, steps_within

MEASURED = costs.Costs(
    early=1.0, late=2.0, loading=0.0, scoring=3.0, features=0.0, feature_bytes=0, checkpoint_bytes=0, weights_bytes=0,
    uses_unlabeled=True, peak_bytes=0,
)  # fmt: skip
SET = [*TINY, "steps=40", "data.scenes.val=3", "validate_every=0"]


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("20m", 1200), ("1h30m", 5400), ("1.5H", 5400)])
def test_times_are_read(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["20", "m", "20 minutes", "1s", "-5m", "1000h", "5m later", "1e3h", ""])
def test_other_texts_are_no_times(text: str) -> None:
    with pytest.raises(UserError, match="such as 90s, 20m"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("options", "changes", "seconds", "steps"),
    [
        # a quarter of the steps takes 1 s, the others 2 s: 1.75 s each; the last validation 9 s
        ([], {}, 184, 100),
        # a validation of 9 s every 10 steps: 0.9 s more for each
        (["validate_every=10"], {}, 274, 100),
        # 4 labelled and 8 unlabelled images with 2 views, 0.5 s for each view
        (["model.frozen=true", "cache=features", "augment.views=2"], {"features": 0.5}, 196, 100),
        # nothing to score
        (["data.scenes.val=1"], {"scoring": 0.0}, 175.5, 100),
    ],
)
def test_the_steps_fill_the_time(
    options: list[str],
    changes: dict[str, float],
    seconds: float,
    steps: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = replace(MEASURED, **changes)  # type: ignore[arg-type]
    monkeypatch.setattr(budget, "measure_costs", lambda _config, _dataset: measured)
    config, text = steps_within(load_config("scenes", [*SET, *options]), seconds)
    assert config.steps == steps
    assert f"enough for steps={steps} (" in text


def test_too_little_time_is_refused_with_what_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "measure_costs", lambda _config, _dataset: replace(MEASURED, scoring=0.0))
    with pytest.raises(UserError, match=r"only 5 steps fit into 10 s \(1750 ms each\): take more time"):
        steps_within(load_config("scenes", SET), 10)
    with pytest.raises(UserError, match="with several of them give the number"):
        steps_within(load_config("scenes", [*SET, "devices=2"]), 100)


@pytest.mark.parametrize("arguments", [["--resume", "--run", "x"], ["steps=5"]])
def test_the_steps_are_named_once(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["train", "scenes", "--time", "20m", *arguments])
    assert "leave out --resume and steps=N" in str(result.exception)


@pytest.mark.slow
def test_a_run_takes_as_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured for real; the verb tells the steps and trains that many."""
    monkeypatch.setattr(costs, "STEPS", 1)
    monkeypatch.setattr(budget, "FEWEST", 1)
    monkeypatch.setattr(budget, "_fitting", lambda _config, costs, _seconds, _scored: (3, costs.late))
    options = [option for option in TINY if not option.startswith("steps")]
    result = CliRunner().invoke(app, ["train", "scenes", *options, "--time", "10s", "--run", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert "--time 10s: 10 s are enough for steps=3" in result.stderr
    assert "steps: 3\n" in (tmp_path / "run" / "config.yaml").read_text()
