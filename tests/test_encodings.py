"""Text is UTF-8 whatever the locale: files are read as they were written, and names are printed as far as can be."""

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from latentseg.data.datasets import open_dataset
from latentseg.errors import UserError
from latentseg.presets import load_config

PACKAGE = Path(__file__).parents[1] / "latentseg"
NAMES = ["straße", "дерево", "空"]
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""A locale in which Python neither reads nor prints more than ASCII unless told to."""
TRAIN = """
import locale, sys
assert locale.getpreferredencoding(False) == "ANSI_X3.4-1968"
from latentseg.cli import main
for words in (
    ["train", "folder", "data.root=set", "steps=1", "batch_size=2", "augment.crop=[32,32]", "model.weights_kind=none",
     "model.head_channels=8", "threads=1", "device=cpu", "data.labeled=3", "--run", "run"],
    ["evaluate", "run"],
):
    sys.argv = ["latentseg", *words]
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code
"""


def names_encoding(call: ast.Call) -> bool:
    """False for a call that reads or writes text in the encoding of the locale."""
    if not isinstance(call.func, ast.Attribute) or any(word.arg == "encoding" for word in call.keywords):
        return True
    mode = call.args[0] if call.args else ast.Constant("r")
    is_text = call.func.attr == "open" and isinstance(mode, ast.Constant) and "b" not in str(mode.value)
    return not (is_text or call.func.attr in ("read_text", "write_text"))


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("p.read_text()", False),
        ("p.write_text(x, encoding='utf-8')", True),
        ("p.open('a')", False),
        ("p.open()", False),
        ("p.open('rb')", True),
        ("Image.open(p)", True),
        ("av.open(str(p), 'w')", True),
    ],
)
def test_the_guard_sees_text_without_an_encoding(code: str, named: bool) -> None:
    call = ast.parse(code, mode="eval").body
    assert isinstance(call, ast.Call)
    assert names_encoding(call) == named


def test_every_text_file_has_an_encoding() -> None:
    """Ruff's PLW1514 sees a path only where it is made: it found 4 of 17 here."""
    calls = [
        (f"{path.relative_to(PACKAGE)}:{node.lineno}", node)
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]
    assert len(calls) > 1000
    assert [place for place, call in calls if not names_encoding(call)] == []


@pytest.mark.slow
def test_class_names_of_any_script_in_an_ascii_locale(folder_set: Callable[..., Path]) -> None:
    root = folder_set(train=4, val=1, size=(40, 40))
    (root / "classes.txt").write_text("\n".join(NAMES), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", TRAIN],
        env=os.environ | ASCII,
        cwd=root.parent,
        capture_output=True,
        encoding="ascii",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert r"stra\xdfe" in done.stdout  # printed as such a terminal can
    assert list(open_dataset(load_config("folder", [f"data.root={root}"]).data).classes) == NAMES
    for name in ("classes.json", "evaluation-val-last.json"):
        assert r"stra\u00dfe" in (root.parent / "run" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("content", [b"stra\xdfe\n\xe4\n\xf6\n", "straße\na\nb".encode("utf-16-le")])
def test_class_names_that_are_not_utf_8_are_refused(content: bytes, folder_set: Callable[..., Path]) -> None:
    root = folder_set()
    (root / "classes.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"classes\.txt: cannot be read as text in UTF-8, .*; save it as UTF-8"):
        open_dataset(load_config("folder", [f"data.root={root}"]).data)


def test_the_mark_of_windows_editors_is_no_part_of_a_name(folder_set: Callable[..., Path]) -> None:
    root = folder_set()
    (root / "classes.txt").write_text("\n".join(NAMES), encoding="utf-8-sig")
    assert open_dataset(load_config("folder", [f"data.root={root}"]).data).classes == tuple(NAMES)
