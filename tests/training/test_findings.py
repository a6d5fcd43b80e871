"""Terms that do nothing are said, and only those."""

from pathlib import Path
from typing import Any

import pytest
from tiny import rows, tiny

from latentseg.training.findings import FEWEST, LOOKED_AT, findings
from latentseg.training.loop import train


def logged(count: int, **figures: Any) -> list[dict[str, Any]]:
    return [{"step": step, "images_per_second": 1.0} | figures for step in range(count)]


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({"accepted": 0.0, "match": 0.0}, ["no pseudo-label was accepted"]),
        ({"accepted": 0.001, "match": 0.0}, ["the term match was exactly 0"]),
        ({"match": 0.0}, ["the term match was exactly 0"]),
        ({"ce": 0.0}, ["the term ce was exactly 0"]),
        ({"trusted": 0.0, "self": 0.0}, ["the discriminator trusted no pixel"]),
        ({"effective_0.1": 1, "effective_0.9": 1}, ["one latent class held every class"]),
        ({"latent_classes": 1.0}, ["one latent class held every class"]),
        ({"real": 0.019, "fake": 0.019}, ["the discriminator told each truth from each prediction"]),
        ({"real": 0.019, "fake": 0.021}, []),
        ({"ce": 1e-30, "match": 1e-30, "accepted": 1e-6, "trusted": 0.1, "effective_0.1": 2, "latent_classes": 2}, []),
        ({"ce": None, "accepted": None, "real": "0", "fake": None}, []),
    ],
)
def test_what_the_last_hundred_logged_steps_say(figures: dict[str, Any], expected: list[str]) -> None:
    terms = [name for name in ("ce", "match", "self", "real", "fake") if name in figures]
    found = findings(logged(LOOKED_AT, **figures), terms)
    assert len(found) == len(expected)
    assert all(text.startswith(start) for text, start in zip(found, expected, strict=True))
    assert all("in the last 100 logged steps" in text for text in found)


def test_one_step_among_them_is_enough_and_validations_do_not_count() -> None:
    idle = logged(LOOKED_AT, accepted=0.0)
    scored = [{"step": 1, "val_miou": 0.5}]
    assert findings([*logged(1, accepted=0.5), *idle, *scored], [])
    assert not findings([*idle[:50], *logged(1, accepted=0.5), *idle[:49]], [])
    assert not findings(idle[1:] + scored, [])
    [text] = findings(idle[:FEWEST], [], ended=True)
    assert text.startswith("no pseudo-label was accepted in the last 10 logged steps: unlabelled images taught nothing")
    assert not findings(idle[: FEWEST - 1], [], ended=True)


def test_a_run_says_it_logs_it_and_returns_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["method.name=fixmatch", "method.threshold=0.9999", "steps=10", "validate_every=0"]
    config = tiny(*options, "data.scenes.val=1")
    run = train(config, tmp_path / "run")
    [finding] = run.findings
    assert finding.startswith("no pseudo-label was accepted")
    assert {"step": 10, "finding": finding} in rows(run.folder)
    assert f"note: step 10: {finding}" in capsys.readouterr().err
    again = train(config, run.folder, resume=True)  # it is known already
    assert again.findings == run.findings
    assert capsys.readouterr().err.count(finding) == 0
