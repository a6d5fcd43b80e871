"""The example of docs/own_loop.md runs as it stands."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "own_loop.md"


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(code.splitlines()) <= 60
    found: dict[str, object] = {}
    exec(compile(code, str(PAGE), "exec"), found)
    printed = capsys.readouterr().out
    assert [f"{step} {{" in printed for step in range(3)] == [True] * 3
    assert all(name in printed for name in ("'ce'", "'latent'", "'cons'"))
