"""What is refused before PyTorch is imported, one message each."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import tiny
from typer.testing import CliRunner

from latentseg.cli import app
from latentseg.errors import UserError
from latentseg.export import arguments
from latentseg.presets import dump_config


@pytest.mark.parametrize(
    ("name", "kind", "int8", "size", "words"),
    [
        ("a.onnx", "torchscript", False, None, "--format torchscript: choose onnx or pt2"),
        ("a.pt", "pt2", False, None, "ends with .pt2"),
        ("a.pt2", "onnx", False, None, "ends with .onnx"),
        ("a.pt2", "pt2", True, None, "--int8 is there for --format onnx"),
        ("a.onnx", "onnx", True, (64, 64), "leave out --size"),
        ("a.onnx", "onnx", False, (0, 64), "--size 0 64"),
        ("no/a.onnx", "onnx", False, None, "there is no folder"),
        ("there.onnx", "onnx", False, None, "there.onnx exists and is not overwritten"),
        ("dangling.onnx", "onnx", False, None, "exists and is not overwritten"),
        ("there.onnx/a.onnx", "onnx", False, None, "there is no folder"),
    ],
)
def test_what_cannot_be_is_refused(
    tmp_path: Path, name: str, kind: str, int8: bool, size: tuple[int, int] | None, words: str
) -> None:
    (tmp_path / "there.onnx").write_text("mine")
    (tmp_path / "dangling.onnx").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError) as refused:
        arguments.check_arguments(tmp_path / name, kind, int8, size)
    assert words in str(refused.value)
    assert (tmp_path / "there.onnx").read_text() == "mine"


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(UserError, match=r"needs onnxscript: pip install 'latentseg\[export\]'"):
        arguments.check_arguments(tmp_path / "a.onnx", "onnx", int8=False, size=None)
    arguments.check_arguments(tmp_path / "a.pt2", "pt2", int8=False, size=None)


def test_a_folder_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="nothing can be written"):
        arguments.check_arguments(tmp_path / "a.onnx", "onnx", int8=False, size=None)


def test_it_needs_no_torch() -> None:
    code = "import sys, latentseg.export.arguments; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_verb_refuses_before_it_opens_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(dump_config(tiny()))
    answers = [
        CliRunner().invoke(app, ["export", str(tmp_path), "--out", str(tmp_path / name)])
        for name in ("a.bin", "a.onnx")
    ]
    assert "ends with .onnx" in str(answers[0].exception)
    assert "classes.json" in str(answers[1].exception)
