"""The choices that a user's machine decides: timed in turns, compared, the fastest exact one named."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from latentseg.presets import load_config
from latentseg.training.choices import Choice, Timing, choices, report, time_choices
from latentseg.training.loop import train

TINY = [
    "steps=2", "batch_size=2", "threads=1", "device=cpu", "model.weights_kind=none", "model.head_channels=16",
    "augment.crop=[32,32]", "data.scenes.train=12", "data.labeled=4", "data.scenes.val=1", "data.scenes.height=64",
    "data.scenes.width=64",
]  # fmt: skip


def test_the_choices_are_compared_with_float32() -> None:
    found = time_choices(load_config("scenes", TINY), choices(compiled=False), rounds=2)
    assert [timing.choice for timing in found] == [
        Choice("32-true", True),
        Choice("32-true", False),
        Choice("bf16-mixed", True),
        Choice("bf16-mixed", False),
    ]
    assert all(len(timing.seconds) == 2 and timing.median > 0 for timing in found)
    assert found[0].cosine == pytest.approx(1, abs=1e-12)
    assert found[1].cosine == pytest.approx(1, abs=1e-5)
    assert 0.9 < found[2].cosine < 1 - 1e-7  # bfloat16 was on
    assert len(choices(compiled=True)) == 8


def test_the_fastest_that_is_exact_enough_is_named() -> None:
    timings = [
        Timing(Choice("32-true", True), [2.0, 4.0, 2.0], 1.0),
        Timing(Choice("32-true", False), [1.0, 3.0, 2.0], 1.0),
        Timing(Choice("bf16-mixed", True), [0.5, 0.5, 0.5], 0.98),
    ]
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(report(load_config("scenes", TINY), timings))
    text = console.export_text()
    assert "fastest: precision=32-true model.channels_last=false compile=false" in text
    assert "0.9800 (too far)" in text
    assert "0.75" in text  # the middle of 1/2, 3/4 and 2/2


@pytest.mark.slow
def test_the_command_shows_what_it_does_and_no_chatter() -> None:
    """In a process of its own: Lightning's log knows the real stderr only."""
    words = ["latentseg", "benchmark", "scenes", *TINY, "--rounds", "1"]
    code = f"import sys; from latentseg import cli, console; console.LINE_SECONDS = 0; sys.argv = {words}; cli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "fastest: precision=" in done.stdout
    lines = [line for line in done.stderr.splitlines() if not line.startswith("looking for every class")]
    assert lines[0] == "4 choices, 2 + 1 steps of each, in turns"
    assert [line.split("  ")[0] for line in lines[1:5]] == [f"choices prepared {number}/4" for number in (1, 2, 3, 4)]
    assert [line.split("  ")[0] for line in lines[5:]] == [f"steps taken {number}/12" for number in range(1, 13)]


def test_encoders_are_compiled_if_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler itself is not run here: it takes a minute."""
    compiled: list[str] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(type(module).__name__))
    for options, number in ((["compile=true", "method.name=mean_teacher"], 2), (["compile=true"], 1), ([], 0)):
        compiled.clear()
        train(load_config("scenes", [*TINY, *options]), tmp_path / str(number))
        assert len(compiled) == number
        assert all("Encoder" in name for name in compiled)


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_memory_order_is_that_of_the_option(channels_last: bool) -> None:
    from latentseg.models.segmenter import build_segmenter  # noqa: PLC0415

    options = ["model.encoder=resnet18", f"model.channels_last={str(channels_last).lower()}"]
    segmenter = build_segmenter(load_config("scenes", [*TINY, *options]).model, 3, 0)
    order = torch.channels_last if channels_last else torch.contiguous_format
    [feature, *_] = segmenter.encode(torch.rand(2, 3, 64, 64))
    assert feature.is_contiguous(memory_format=order)
