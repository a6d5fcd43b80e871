"""What `latentseg demo` refuses before it loads anything that takes long."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from latentseg.cli import app
from latentseg.errors import RunError, UserError
from latentseg.presets import dump_config, load_config
from latentseg.verbs import demo as verb


def refused(*words: object) -> Exception:
    result = CliRunner().invoke(app, ["demo", *map(str, words)])
    assert isinstance(result.exception, UserError), result.output
    return result.exception


def test_it_names_the_extra_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "find_spec", lambda _: None)
    assert str(refused(tmp_path)) == "latentseg demo needs Gradio: pip install 'latentseg[demo]'"


def test_it_names_a_run_and_a_folder_that_are_missing(tmp_path: Path) -> None:
    assert isinstance(refused(tmp_path / "no_run"), RunError)
    (tmp_path / "config.yaml").write_text(dump_config(load_config("scenes", [])))
    assert isinstance(refused(tmp_path, "--compare", tmp_path / "no_run"), RunError)
    assert str(refused(tmp_path, "--images", tmp_path / "none")).startswith(
        f"--images {tmp_path / 'none'} is no folder"
    )
