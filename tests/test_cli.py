"""The verbs, as a user types them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from latentseg import cli
from latentseg.errors import DataError, RunError, UserError
from latentseg.presets import option_names, preset_names, preset_text

VERBS = ["train", "evaluate", "predict", "presets", "data", "data split", "data scenes", "quickstart"]
SCENES = ["data.scenes.train=6", "data.scenes.val=2", "data.scenes.test=1"]
SMALL = ["data.scenes.height=32", "data.scenes.width=48"]
SHORT = ["steps=2", "batch_size=2", "data.labeled=2", "augment.crop=[32,32]", "threads=1", "device=cpu"]


def run(*arguments: str) -> str:
    """Run a verb in this process and return what it prints."""
    result = CliRunner().invoke(cli.app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own."""
    command = [sys.executable, "-m", "latentseg", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def main_with(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit status of `main`."""
    monkeypatch.setattr(sys, "argv", ["latentseg", *arguments])
    with pytest.raises(SystemExit) as error:
        cli.main()
    assert isinstance(error.value.code, int)
    return error.value.code


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb(verb: str) -> None:
    output = run(*verb.split(), "--help")
    assert re.search(rf"Usage: \S+ {verb} ", output)
    assert len(output.splitlines()) > 6


def test_help_lists_the_verbs() -> None:
    output = run("--help")
    assert all(f"  {verb} " in output for verb in VERBS if " " not in verb)
    assert "PHOTOS_OR_PRESET" in run("train", "--help")
    assert "key=value" in run("train", "--help")


def test_version() -> None:
    assert run("--version") == f"latentseg {metadata.version('latentseg')}\n"


def test_presets() -> None:
    lines = run("presets").splitlines()
    assert [line.split()[0] for line in lines] == preset_names()
    assert run("presets", "voc") == preset_text("voc")
    options = run("presets", "--options")
    assert "data.labeled = 1/8 " in options
    assert "optim.lr = 0.00025 " in options
    leaves = [name for name in option_names() if "." in name]
    assert all(f"\n{name} = " in options for name in leaves if not any(n.startswith(f"{name}.") for n in leaves))


def test_data_split(tmp_path: Path) -> None:
    output = run("data", "split", "scenes", *SCENES, "data.labeled=1/3", "--out", str(tmp_path / "lists"))
    assert "2 labelled and 4 unlabelled images in" in output
    lists = {name: (tmp_path / "lists" / f"{name}.txt").read_text().split() for name in ("labeled", "unlabeled")}
    assert sorted(lists["labeled"] + lists["unlabeled"]) == [f"train/{i}" for i in range(6)]
    again = run(
        "data", "split", "scenes", *SCENES, f"data.labeled={tmp_path}/lists/labeled.txt", "--out", str(tmp_path / "2")
    )
    assert "2 labelled and 4 unlabelled" in again
    assert (tmp_path / "2" / "labeled.txt").read_text().split() == lists["labeled"]
    refused = CliRunner().invoke(cli.app, ["data", "split", "scenes", *SCENES, "--out", str(tmp_path / "lists")])
    assert "not overwritten" in str(refused.exception)


def test_data_scenes_then_the_preset_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`data scenes --out scenes` must not hide the preset `scenes`."""
    monkeypatch.chdir(tmp_path)
    assert "9 scenes in scenes" in run("data", "scenes", "--out", "scenes", *SCENES, *SMALL)
    with Image.open("scenes/images/train/0.png") as image:
        assert (image.mode, image.size) == ("RGB", (48, 32))
    with Image.open("scenes/labels/val/1.png") as mask:
        assert (mask.mode, mask.size) == ("P", (48, 32))
    assert len(Path("scenes/classes.txt").read_text().splitlines()) == 19
    assert "run folder: run" in run("train", "scenes", *SHORT, *SCENES, *SMALL, "steps=1", "--run", "run")


@pytest.mark.slow
def test_round_trip_by_process(tmp_path: Path) -> None:
    """A data set of files, trained, taken up again, scored and predicted."""
    run("data", "scenes", "--out", str(tmp_path / "set"), *SCENES, *SMALL)
    folder, out = tmp_path / "run", tmp_path / "out"
    data = ["data.kind=folder", f"data.root={tmp_path / 'set'}"]
    done = start("train", "scenes", *data, *SHORT, "--run", str(folder))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"run folder: {folder}\n"
    assert "2 labelled and 4 unlabelled images, 19 classes, steps 0 to 2" in done.stderr
    assert "images/s" in done.stderr
    assert "steps 2 to 2" in CliRunner().invoke(cli.app, ["train", str(folder), "--resume"]).stderr

    done = start("evaluate", str(folder), "inference.mirror=true", "--split", "test", "--checkpoint", "best")
    assert done.returncode == 0, done.stderr
    scores = json.loads((folder / "evaluation-test-best-inference.mirror=true.json").read_text())["scores"]
    assert f"{100 * scores['miou']:.2f}" in done.stdout
    assert "traffic light" in done.stdout

    images = tmp_path / "set" / "images"
    done = start("predict", str(folder), str(images), "--out", str(out), "--set", "inference.scales=[0.5,1]")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"9 images in {out}\n"
    assert len(list(out.rglob("*.png"))) == 27 + 2  # the legends
    with Image.open(out / "index" / "val" / "1.png") as index:
        assert index.size == (48, 32)
        assert int(np.array(index).max()) < 19


def test_a_user_error_is_one_message_and_status_2() -> None:
    done = start("train", "scenes", "data.labled=1/8")
    assert done.returncode == 2
    assert done.stderr == "error: unknown option data.labled; did you mean data.labeled?\n"
    assert done.stdout == ""


def test_messages_are_shown_as_they_are(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Brackets are no markup, and long lines are not wrapped."""
    name = "[red]" + "x" * 200
    assert main_with(monkeypatch, "evaluate", name) == 4
    captured = capsys.readouterr()
    assert captured.err == f"error: {name} is not a run folder (no config.yaml in it)\n"
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["train", "nothing"], (2,), "nothing is neither a preset"),
        (["train", "scenes", "steps=0", "--run", "x"], (2,), "steps: Input should be greater than 0"),
        (["train", "scenes", "--resume"], (2, 4), "nothing to resume: name the run folder with --run"),
        (["train", "voc"], (2, 3), "data.kind=voc needs data.root"),
        (["presets", "nothing"], (2,), "no preset nothing"),
        (["predict", "none", "a.png", "--out", "b"], (4,), "none is not a run folder"),
        (["report", "none"], (4,), "none does not exist"),
        (["analyse", "none"], (4,), "none is not a run folder"),
        (["data", "split", "scenes", "data.labeled=none.txt", "--out", "x"], (2, 3), "no list file of that name"),
    ],
)
def test_errors_of_the_verbs(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    status: tuple[int, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main_with(monkeypatch, *arguments) in status
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_wrong_usage_has_status_2_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert main_with(monkeypatch, "trian") == 2
    assert main_with(monkeypatch, "predict", "run", "a.png") == 2  # --out is missing


@pytest.mark.slow
def test_control_c_says_how_to_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "latentseg", "train", "scenes", *SCENES, *SMALL, *SHORT]
    command += ["steps=100000", "log_every=1", "--run", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 90
        log = folder / "metrics.jsonl"
        while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert f"Go on with: latentseg train {folder} --resume" in error
    assert error.endswith("stopped\n")
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (UserError("no"), 2, "error: no\n"),
        (DataError("torn", "mend it", "a.png", "in two"), 3, "error: a.png: torn (in two); mend it\n"),
        (OSError(36, "File name too long", "x" * 300), 2, f"error: {'x' * 200}: File name too long; name another"),
        (OSError(30, "Read-only file system", "out"), 2, "error: out: Read-only file system; name another file or"),
        (OSError(28, "No space left on device"), 2, "error: what is written or printed has no room: No space left on"),
        (OSError(5, "Input/output error", "out"), 1, "internal error: OSError: [Errno 5] Input/output error: 'out'"),
        (RunError("gone"), 4, "error: gone\n"),
        (ValueError("odd"), 1, "internal error: ValueError: odd; run it again with --debug, and report what that"),
        (MemoryError(), 2, "error: out of memory: this takes more than the machine has. To train, take a smaller"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "error: out of memory"),
        (UserError("\n".join(map(str, range(99)))), 2, "23\n... and more (293 letters in all; --debug shows them)\n"),
        (UserError("x" * 9999), 2, "... and more (10006 letters in all"),
        (UserError("a\x1b[31mb\x07"), 2, "error: a\\x1b[31mb\\x07\n"),
    ],
)
def test_every_error_is_one_message_and_its_status(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    status: int,
    message: str,
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "preset_summaries", fail)
    assert main_with(monkeypatch, "presets") == status
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told
    assert len(told.splitlines()) <= 25
    assert main_with(monkeypatch, "presets", "--debug") == status
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert "in fail" in told


def test_trivial_errors_come_before_pytorch(tmp_path: Path) -> None:
    """Each in a process that cannot import it."""
    code = "import sys; sys.modules['torch'] = None; from latentseg.cli import main; main()"
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (run_folder / "config.yaml").write_text("data: {kind: scenes}\n")
    for arguments, status, message in [
        (["train", "folder", "data.root=none"], (2, 3), "data.root=none does not exist below /"),
        (["train", "scenes", "--resume"], (2,), "nothing to resume: name the run folder with --run"),
        (["train", "scenes", "--run", str(run_folder)], (4,), f"{run_folder} is not empty: --resume goes on with its"),
        (["train", "scenes", "--run", str(run_folder), "--resume", "steps=7"], (4,), "another configuration"),
        (["train", "scenes", "devices=3"], (2,), "batch_size=4 cannot be divided among 3 processes"),
        (["train", "none", "--resume"], (2,), "none is neither a preset"),
        (["evaluate", "none"], (4,), "none is not a run folder"),
        (["train", "--from", "none", "steps=1"], (4,), "none is not a run folder"),
        (["train", "--from", str(tmp_path)], (4,), f"{tmp_path} is not a run folder"),
        (
            ["train", str(tmp_path), "--resume"],
            (4,),
            f"{tmp_path} is not a run folder",
        ),
        (["init", "loop"], (2,), "data.root=loop does not exist"),
        (["evaluate", str(run_folder), "data.kind=voc"], (2,), "data.kind cannot be changed after training"),
        (["predict", str(run_folder), "none.png", "--out", "out"], (2,), "none.png does not exist"),
        (["predict", str(run_folder), "a.png", "--out", "out", "--as", "ade"], (2,), "--as ade: choose voc or city"),
        (["prelabel", str(run_folder), "none", "--format", "cvat"], (2,), "none is no folder: name the folder of"),
        (["analyse", str(run_folder), "--baseline", "none"], (4,), "none is not a run folder"),
        (["report", "none"], (4,), "none does not exist"),
        (["sweep", "none"], (2,), "none is neither a YAML file nor a sweep"),
    ]:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode in status, done.stderr
        assert done.stderr.startswith("error: ")
        assert message in done.stderr


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_closed_stream_is_no_fault(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(sys, name, None)
    assert main_with(monkeypatch, "runs", ".") == 0
    assert main_with(monkeypatch, "evaluate", "none") == 4
