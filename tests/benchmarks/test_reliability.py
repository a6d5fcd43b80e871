"""The benchmark of reliability in short: nothing is lost, and its figures are written."""

import json
from pathlib import Path

import pytest
from reliability import run


@pytest.mark.parametrize(
    "part",
    [pytest.param(part, marks=[] if part == "bits of the index" else pytest.mark.slow) for part in run.PARTS],
)
def test_nothing_is_lost(tmp_path: Path, part: str) -> None:
    out = tmp_path / "results.json"
    out.write_text('{"another part": {"tried": 1, "survived": 1, "lost": 0}}')
    results = run.main(["--out", str(out), "--scale", "0.02", "--only", part])
    assert results[part]["tried"] == results[part]["survived"] > 0
    assert results[part]["lost"] == 0
    assert json.loads(out.read_text()) == results
    assert set(results) == {part, "another part"}
