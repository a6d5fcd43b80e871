"""Progress: lines with the time left without a terminal, one line that fits with one."""

import errno
import re
import sys
from io import StringIO

import pytest
from rich.console import Console

from latentseg import console


def test_lines_tell_what_is_done_and_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(console, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(console, "console", Console(stderr=True, soft_wrap=True, force_terminal=False))
    assert list(console.track(iter("abc"), "reading", 3)) == ["a", "b", "c"]
    with console.track_steps(4, 2) as show:
        show(3, {"ce": 0.5}, 7.0, 0.4321)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["reading 1/3", "reading 2/3", "reading 3/3", "step 3/4"]
    assert "mIoU 43.21  ce 0.5" in lines[-1]
    assert "7.0 images/s" in lines[-1]
    assert all("s left" in line for line in lines)


@pytest.mark.parametrize("width", [44, 90])
def test_on_a_narrow_terminal_count_time_and_score_stay(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    written = StringIO()
    terminal = Console(file=written, force_terminal=True, width=width, color_system=None, soft_wrap=True)
    monkeypatch.setattr(console, "console", terminal)
    with console.track_steps(3000, 40) as show:
        show(1500, dict.fromkeys(["cross_entropy", "match", "confidence", "accepted"], 0.123), 7.0, 0.4321)
    *_, last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.getvalue()).strip().splitlines()
    assert len(last) == width
    assert re.match(r"training (━|╸|╺|\s)*1500/3000 .* mIoU 43\.21  .*…$", last)


def test_short_work_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(console.track([1, 2], "reading")) == [1, 2]
    assert capsys.readouterr().err == ""


def test_a_mean_over_fewer_classes_says_so() -> None:
    iou = [0.5, 0.0, None]
    assert console.few_scored(iou, "occurring") == " (2 of 3 classes scored)"
    assert console.few_scored(iou, "hit") == " (1 of 3 classes scored)"
    assert (
        console.few_scored(iou, "all")
        == console.few_scored([0.5, 0.0], "occurring")
        == console.few_scored(None, "occurring")
        == ""
    )


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPIPE, errno.EIO])
def test_what_cannot_be_said_ends_nothing(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A full disk below a redirected log, a reader that ended, a terminal that was closed."""

    class Broken(StringIO):
        def write(self, _: str) -> int:
            raise OSError(number, "no")

        def flush(self) -> None:
            raise OSError(number, "no")

    monkeypatch.setattr(sys, "stderr", Broken())
    console.console.print("note: something")
    with console.track_steps(2, 0) as show:
        show(2, {"ce": 0.5}, 7.0, None)
