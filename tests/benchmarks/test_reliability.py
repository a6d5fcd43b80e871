"""The benchmark of reliability in short: nothing is lost, and its figures are written.

Kills of one of two processes and of a sweep's worker are in test_distributed.py and sweeps/test_run.py.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from reliability import flips, run
from reliability.counting import Count, counted, flipped

from latentseg.data import opening

FILES = [
    "bits of the index", "bits of PNG masks and images", "bits of a JPEG image", "bits of images, on resume",
    "damaged data sets",
]  # fmt: skip
RUNS = [
    "malicious files", "bits of a checkpoint", "damaged run folders", "signals", "kill -9 of a run with loaders",
    "full disk", "read-only disk", "a log that cannot be written",
]  # fmt: skip


@pytest.mark.parametrize("parts", [FILES, pytest.param(RUNS, marks=pytest.mark.slow)], ids=["files", "runs"])
def test_nothing_is_lost(tmp_path: Path, parts: list[str]) -> None:
    out = tmp_path / "results.json"
    out.write_text('{"another part": {"tried": 1, "survived": 1, "lost": 0}}')
    results = run.main(["--out", str(out), "--scale", "0.02", "--only", *parts])
    for part in parts:
        assert results[part]["lost"] == 0, results[part]
        assert results[part]["tried"] == results[part]["survived"] > 0
    assert json.loads(out.read_text()) == results
    assert set(results) == {*parts, "another part"}


def test_the_same_command_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def part(name: str) -> Callable[[object], Count]:
        def tried(_trial: object) -> Count:
            calls.append(name)
            return {"lost": 0}

        return tried

    monkeypatch.setattr(run, "PARTS", {name: part(name) for name in "ab"})
    monkeypatch.setattr(run, "_commit", lambda: "1234567")
    out = ["--out", str(tmp_path / "results.json")]
    run.main([*out, "--only", "a"])
    run.main(out)
    run.main(out)
    run.main([*out, "--scale", "0.5"])
    assert calls == ["a", "b", "a", "b"]


def test_a_flip_that_nobody_notices_counts_as_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without our look at the checksums Pillow takes some flips."""
    monkeypatch.setattr(opening, "_chunks", lambda _image: iter(()))
    assert flips.png_bits(tmp_path, 400)["lost"] > 0


def test_counting() -> None:
    count = counted(3, lambda number: number != 1 or "because", more=7)
    assert count == {"tried": 3, "survived": 2, "lost": 1, "more": 7, "first_lost": ["1: because"]}
    assert counted(2, lambda _: True) == {"tried": 2, "survived": 2, "lost": 0}
    assert flipped(b"\0\0", 9) == b"\0\2"
