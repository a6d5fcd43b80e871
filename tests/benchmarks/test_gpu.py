"""The parts of the GPU's benchmark: each on its own, resumed, rehearsed on the CPU."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import gpu
import gpu_scores
import pytest
from gpu_setting import Row, Setting, union

SCRIPT = Path(gpu.__file__)
SETTING = Setting("cpu", None, 20.0, 100.0)


def good(_setting: Setting) -> Iterator[Row]:
    yield "first", {"ok": True}
    yield "second", {"figure": 2}


def crashing(_setting: Setting) -> Iterator[Row]:
    yield "first", {"ok": True}
    time.sleep(0.3)  # the row is on its way
    os.kill(os.getpid(), signal.SIGKILL)


def hanging(_setting: Setting) -> Iterator[Row]:
    yield "first", {"ok": True}
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield "child", {"pid": child.pid}
    time.sleep(60)


def hungry(_setting: Setting) -> Iterator[Row]:
    yield "first", {"ok": True}
    raise RuntimeError("CUDA out of memory. Tried to allocate 9 GiB")


def wrong(_setting: Setting) -> Iterator[Row]:
    yield "first", {"ok": False}
    raise ValueError("no such thing")


PARTS = {part.__name__: gpu.Part(part, 5) for part in (good, crashing, hungry, wrong)}


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "PARTS", PARTS | {"hanging": gpu.Part(hanging, 1)})


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("good", "done"),
        ("crashing", "ended by signal 9"),
        ("hungry", "out of memory"),
        ("wrong", "failed"),
    ],
)
def test_the_end_of_a_part_is_recorded_with_the_rows_that_it_had(name: str, status: str) -> None:
    found = gpu.run_part(name, SETTING)
    assert found["status"] == status
    assert "first" in found["rows"]
    assert ("error" in found) == (name in ("hungry", "wrong"))
    assert gpu.held(found) == (name == "good")


@pytest.mark.usefixtures("parts")
def test_a_part_that_hangs_is_ended_with_all_that_it_started() -> None:
    found = gpu.run_part("hanging", Setting("cpu", None, 1.0, 100.0))
    assert found["status"] == "took too long"
    assert 1 <= found["seconds"] < 10
    state = Path(f"/proc/{found['rows']['child']['pid']}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.usefixtures("parts")
def test_what_is_in_the_result_is_not_run_again(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    options = argparse.Namespace(out=out, minutes=1.0, data=None, retry=False, parts=["good", "wrong", "hungry"])
    kept = {"status": "failed", "seconds": 1.0, "rows": {}}
    results: gpu.Results = {"device": "cpu", "machine": {}, "parts": {"wrong": dict(kept)}}
    gpu.measure(options, results)
    assert results == json.loads(out.read_text())
    assert {name: part["status"] for name, part in json.loads(out.read_text())["parts"].items()} == {
        "wrong": "failed",
        "good": "done",
        "hungry": "out of memory",
    }
    assert results["parts"]["wrong"] == kept
    options.retry, options.parts = True, ["good", "wrong"]
    before = results["parts"]["good"]
    gpu.measure(options, results)
    assert results["parts"]["good"] is before
    assert results["parts"]["wrong"]["rows"] == {"first": {"ok": False}}


@pytest.mark.usefixtures("parts")
def test_without_time_no_part_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = argparse.Namespace(out=tmp_path / "gpu.json", minutes=0.1, data=None, retry=False, parts=["good"])
    results: gpu.Results = {"device": "cpu", "machine": {}, "parts": {}}
    gpu.measure(options, results)
    assert results["parts"] == {}
    assert "good: no time left" in capsys.readouterr().out


def test_rows_that_train_share_the_time_that_is_left() -> None:
    first, *_, last = gpu.SCORES
    none: gpu.Results = {"parts": {}}
    rows = len(gpu.SCORES)
    share = (400 - gpu_scores.RESERVED) / rows - gpu_scores.AROUND
    assert gpu.limit_of(first, none, 400) == pytest.approx(share + 2 * gpu_scores.AROUND)
    done: gpu.Results = {"parts": {name: {} for name in gpu.SCORES if name != last}}
    assert gpu.limit_of(last, done, 200) == pytest.approx(200 - gpu_scores.RESERVED + gpu_scores.AROUND)
    assert gpu.limit_of(last, done, 13) == 13
    assert gpu.limit_of("1 bfloat16", none, 400) == gpu.PARTS["1 bfloat16"].limit


def test_times_in_which_the_device_is_busy_are_counted_once() -> None:
    assert union([]) == 0
    assert union([(0, 10), (2, 4), (8, 12), (20, 21)]) == 13


def test_without_a_gpu_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "has_gpu", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path / "gpu.json")])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "PyTorch finds no NVIDIA GPU here: take a machine with one, or --rehearse\n"
    assert not (tmp_path / "gpu.json").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--out", "no/gpu.json"], "its folder does not exist"),
        (["--out", "other.json"], "is no result of this script"),
        (["--out", "gpu.json", "--data", "."], "it is not CamVid"),
        (["--out", "cuda.json"], "is of a run on cuda"),
        (["--out", "gpu.json", "--show"], "is not there yet"),
    ],
)
def test_what_cannot_end_well_does_not_begin(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.json").write_text('{"some": "thing"}')
    Path("cuda.json").write_text('{"device": "cuda", "machine": {}, "parts": {}}')
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--rehearse", *options])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"other.json", "cuda.json"}


def test_the_script_names_the_wheels_that_are_lacking(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # sees no package at all
    python.chmod(0o755)
    command = ["sh", str(SCRIPT.with_suffix(".sh")), str(tmp_path), "camvid", str(tmp_path / "gpu.json")]
    environment = os.environ | {"PYTHON": str(python), "PYTHONPATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "carry wheels of: torch>=2.9 (not there)" in done.stderr


@pytest.mark.slow
def test_the_rehearsal_goes_through_every_part(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(SCRIPT), "--rehearse", "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    results = json.loads(out.read_text())
    assert {name: part["status"] for name, part in results["parts"].items()} == dict.fromkeys(gpu.PARTS, "done")
    assert done.returncode == 0, done.stdout
    assert all(name in done.stdout for name in gpu.PARTS)
    [held] = results["parts"]["1 ten steps beside the CPU"]["rows"].values()
    assert held["apart"] == 0
    assert set(results["parts"]["3 AdvSemiSeg as published"]["rows"]) == {"ours, float32", "ours, bf16", "theirs"}
    assert {*gpu.SCORES} <= {*results["parts"]}
