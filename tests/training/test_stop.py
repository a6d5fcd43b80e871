"""Signals: a run ends its step, saves, says so and goes on bit for bit; anything else stops at once."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import TINY, assert_same_run, on_call, tiny
from torch import Tensor

from latentseg.data import caching
from latentseg.inference.evaluate import score_items
from latentseg.runs.folder import open_run
from latentseg.runs.locks import hold
from latentseg.runs.place import LOCK
from latentseg.signals import NUMBERS, heeded
from latentseg.training import loop, trainer
from latentseg.training.loop import train
from latentseg.training.trainer import training_step

STATUS = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129, signal.SIGUSR1: 138}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    return train(tiny(), tmp_path_factory.mktemp("runs") / "whole").folder


def sends(number: int) -> Callable[[Any], Any]:
    """What sends this process a signal, and gives back what it is given."""

    def send(result: Any) -> Any:
        os.kill(os.getpid(), number)
        return result

    return send


def stopped(number: signal.Signals) -> Any:
    """The exception that a signal leads to."""
    status = f"{STATUS[number]}"
    return pytest.raises(KeyboardInterrupt) if number == signal.SIGINT else pytest.raises(SystemExit, match=status)


def last_step(folder: Path) -> int:
    entry = open_run(folder).checkpoints.last()
    return entry.step if entry else 0


@pytest.mark.parametrize("number", STATUS)
def test_a_signal_ends_the_step_and_saves(
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    handlers = [signal.getsignal(each) for each in NUMBERS]
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "training_step", on_call(3, training_step, sends(number)))
        with stopped(number):
            train(tiny(), tmp_path / "run")
    assert last_step(tmp_path / "run") == 3  # no multiple of checkpoint_every
    said = capsys.readouterr().err
    assert f"stopped by {signal.Signals(number).name} after step 3: saved step_00000003.safetensors" in said
    assert f"latentseg train {tmp_path}/run --resume" in said
    assert [signal.getsignal(each) for each in NUMBERS] == handlers
    assert not (tmp_path / "run" / LOCK).exists()
    train(tiny(), tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", whole)


@pytest.mark.parametrize("call", [2, 3])
def test_a_stopped_validation_is_made_up_for(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """It stops at once and nothing is lost; the last one, too, after which there is no step."""
    done: list[int] = []

    def stop_in_the_middle(*args: Any) -> Any:
        done.append(0)
        if len(done) == call:
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("not at once")
        return score_items(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "score_items", stop_in_the_middle)
        with stopped(signal.SIGTERM):
            train(tiny(), tmp_path / "run")
    assert last_step(tmp_path / "run") == 2 * call
    train(tiny(), tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", whole)


def test_a_step_before_a_validation_stops_before_it(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "training_step", on_call(4, training_step, sends(signal.SIGTERM)))
        patch.setattr(loop, "score_items", on_call(2, score_items, pytest.fail))
        with stopped(signal.SIGTERM):
            train(tiny(), tmp_path / "run")
    for _ in range(2):  # and what stops the validation that is made up for stops at once
        with monkeypatch.context() as patch:
            patch.setattr(loop, "score_items", on_call(1, score_items, sends(signal.SIGTERM)))
            with stopped(signal.SIGTERM):
                train(tiny(), tmp_path / "run", resume=True)
        assert last_step(tmp_path / "run") == 4
    train(tiny(), tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", whole)


def test_filling_the_cache_stops_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny("model.frozen=true", "cache=features", "augment.views=1", f"cache_folder={tmp_path}/cache", "steps=2")
    encode = vars(caching)["_encode"]
    with monkeypatch.context() as patch:
        patch.setattr(caching, "_encode", on_call(4, encode, sends(signal.SIGTERM)))
        with stopped(signal.SIGTERM):
            train(config, tmp_path / "run")
    assert last_step(tmp_path / "run") == 0
    assert not list((tmp_path / "cache").glob("*.lock"))
    seen: list[Tensor] = []

    def note(segmenter: Any, images: Tensor) -> Any:
        seen.append(images)
        return encode(segmenter, images)

    monkeypatch.setattr(caching, "_encode", note)
    train(config, tmp_path / "run", resume=True)
    assert len(seen) == 1 + 12 - 2  # the shapes; two images were done


def test_signals_are_for_the_main_thread(whole: Path, tmp_path: Path) -> None:
    handlers = [signal.getsignal(each) for each in NUMBERS]
    inside: list[Any] = []

    def run() -> None:
        with heeded() as stop:
            inside.extend([stop.number, [signal.getsignal(each) for each in NUMBERS] == handlers])

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert inside == [0, True]


def test_a_patient_process_hears_one_signal_and_an_ignored_one_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with heeded(patient=True) as outer, heeded() as stop:
            assert stop is outer
            with stop.deferred():
                for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1):
                    os.kill(os.getpid(), number)
                assert stop.number == signal.SIGTERM
                with stopped(signal.SIGTERM), stop.at_once():
                    pytest.fail("not reached")
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_lost_lock_is_no_wish_to_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is another process's by then: its checkpoints are not touched."""
    monkeypatch.setattr("latentseg.runs.locks.BEAT", 0.05)

    def lose(result: Any) -> Any:
        (tmp_path / "run" / LOCK).unlink()
        time.sleep(0.3)
        return result

    monkeypatch.setattr(trainer, "training_step", on_call(3, training_step, lose))
    with pytest.raises(Exception, match="another process took over the lock"):
        train(tiny(), tmp_path / "run")
    assert last_step(tmp_path / "run") == 2
    with hold(tmp_path / "other", "it") as lost:
        assert not lost.is_set()


SLOW = """
import os, time
from latentseg.cli import main
from latentseg.training import trainer

step, seconds = trainer.training_step, float(os.environ["SECONDS_A_STEP"])


def slowly(*args):
    result = step(*args)
    print("stepped", flush=True)
    time.sleep(seconds)
    return result


trainer.training_step = slowly
main()
"""


def begin(folder: Path, seconds: float, *options: str) -> "subprocess.Popen[str]":
    """A run in a group of processes of its own, whose steps take so long; it has taken one."""
    script = folder.with_suffix(".py")  # of several processes the first starts it again
    script.write_text(SLOW)
    command = [sys.executable, str(script), "train", "scenes", *TINY, *options, "--run", str(folder)]
    environment = os.environ | {"SECONDS_A_STEP": str(seconds)}
    pipe = subprocess.PIPE
    run = subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    assert run.stdout is not None
    assert any(line.startswith("stepped") for line in run.stdout)  # the first; Gloo may have spoken before
    return run


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_loaders_wait_while_a_signal_reaches_their_whole_group(
    whole: Path, tmp_path: Path, number: signal.Signals
) -> None:
    run = begin(tmp_path / "run", 0.5, "workers=2")
    os.killpg(run.pid, number)
    _, said = run.communicate(timeout=60)
    assert run.returncode == STATUS[number], said
    assert "saved step_0000000" in said
    assert "Traceback" not in said
    assert last_step(tmp_path / "run") > 0
    train(tiny(), tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(tmp_path: Path, number: signal.Signals) -> None:
    run = begin(tmp_path / "run", 60)
    for _ in range(2):
        run.send_signal(number)
        time.sleep(0.5)
    _, said = run.communicate(timeout=20)
    assert run.returncode in (-number, 128 + number), said
    assert last_step(tmp_path / "run") == 0
    train(tiny(), tmp_path / "run", resume=True)  # the lock of the dead one is no obstacle


@pytest.mark.slow
@pytest.mark.parametrize("who", [0, 1])
def test_a_signal_to_one_of_two_processes_stops_both(tmp_path: Path, who: int) -> None:
    options = ["devices=2", "batch_size=4", "steps=40", "validate_every=0"]
    run = begin(tmp_path / "run", 0.2, *options)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    assert len(children) == 1
    os.kill([run.pid, int(children[0])][who], signal.SIGTERM)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 143, said
    step = last_step(tmp_path / "run")
    assert f"stopped by SIGTERM after step {step}: saved" in said
    assert 0 < step < 40


@pytest.mark.slow
def test_a_killed_loader_is_one_message(tmp_path: Path) -> None:
    run = begin(tmp_path / "run", 0.5, "workers=1", "steps=40")
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    for child in children:
        if "forkserver" not in Path(f"/proc/{child}/cmdline").read_text():
            os.kill(int(child), signal.SIGKILL)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 4, said
    assert "a process that loads data was killed" in said
    assert "Traceback" not in said
