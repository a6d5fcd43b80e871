"""Locks: one owner at a time, whoever dies, sleeps or comes at the same moment."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from latentseg.errors import UserError
from latentseg.runs import locks
from latentseg.runs.locks import Owner, hold, live_owner, try_hold

HOLDER = "import sys, time; from pathlib import Path; from latentseg.runs.locks import hold\n"
HOLDER += "with hold(Path(sys.argv[1]), 'it'): print('held', flush=True); time.sleep(60)"


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def foreign(path: Path, age: float, **changes: str | int) -> None:
    """The lock of another machine, last refreshed `age` seconds ago."""
    path.parent.mkdir(exist_ok=True, parents=True)
    owner = {"host": "far", "pid": 7, "space": "far away", "born": "1", "token": "abc", "started": "2026"} | changes
    path.write_text(json.dumps(owner))
    os.utime(path, (time.time() - age,) * 2)


def test_a_lock_is_held_named_and_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "new" / "LOCK"
    assert live_owner(path) is None
    assert not path.parent.exists()
    with hold(path, "the run"):
        owner = json.loads(path.read_text())
        assert owner["pid"] == os.getpid()
        assert live_owner(path) == f"pid {os.getpid()} on {owner['host']}"
        with try_hold(path) as taken:
            assert not taken
        with pytest.raises(UserError, match=rf"the run is in use by pid {os.getpid()} on .*wait till it is done"):
            hold(path, "the run").__enter__()
        assert path.exists()
    assert list(path.parent.iterdir()) == []
    with try_hold(path) as taken:
        assert taken
    assert list(path.parent.iterdir()) == []


def test_an_error_and_ctrl_c_let_go(tmp_path: Path) -> None:
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), hold(tmp_path / "LOCK", "it"):
            raise error
        assert list(tmp_path.iterdir()) == []


def test_a_killed_owner_is_replaced_at_once_though_it_is_not_reaped(tmp_path: Path) -> None:
    path = tmp_path / "LOCK"
    with holder(path) as process:
        assert live_owner(path) is not None
        with try_hold(path) as taken:
            assert not taken
        process.send_signal(signal.SIGKILL)
        while live_owner(path):
            time.sleep(0.01)
        with hold(path, "it"):
            assert str(os.getpid()) in str(live_owner(path))
            with try_hold(path) as taken:
                assert not taken
        assert list(tmp_path.iterdir()) == []


def test_a_stopped_owner_on_this_machine_keeps_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "LOCK"
    with holder(path) as process:
        process.send_signal(signal.SIGSTOP)
        os.utime(path, (1, 1))
        assert live_owner(path) == f"pid {process.pid} on {Owner().host}"


def test_a_pid_that_was_given_to_another_process_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "LOCK"
    mine = Owner()
    foreign(path, 0, host=mine.host, pid=mine.pid, space=mine.space, born="1")
    assert live_owner(path) is None
    foreign(path, 1e6, host=mine.host, pid=mine.pid, space=mine.space, born=str(mine.born))
    assert live_owner(path) is not None


def test_another_machine_is_believed_for_two_minutes(tmp_path: Path) -> None:
    path = tmp_path / "LOCK"
    foreign(path, locks.STALE - 20)
    assert live_owner(path) == "pid 7 on far"
    with try_hold(path) as taken:
        assert not taken
    foreign(path, locks.STALE + 5)
    assert live_owner(path) is None
    with try_hold(path) as taken:
        assert taken
        assert (tmp_path / "LOCK.abc").exists()
    assert list(tmp_path.iterdir()) == []


def test_the_clock_of_the_disk_counts_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "LOCK"
    foreign(path, 0)
    monkeypatch.setattr(time, "time", lambda: 1e10)
    assert live_owner(path) == "pid 7 on far"


def test_an_unreadable_lock_counts_while_it_is_fresh(tmp_path: Path) -> None:
    path = tmp_path / "LOCK"
    path.write_text("{")
    assert live_owner(path) == "pid 0 on an unknown host"
    os.utime(path, (1, 1))
    with try_hold(path) as taken:
        assert taken
    assert list(tmp_path.iterdir()) == []


def test_the_beat_refreshes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT", 0.02)
    path = tmp_path / "LOCK"
    with hold(path, "it"):
        os.utime(path, (1, 1))
        time.sleep(0.3)
        assert time.time() - path.stat().st_mtime < 10


@pytest.mark.parametrize("event", ["taken over", "removed", "removed and taken"])
def test_who_loses_the_lock_is_stopped_and_removes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    monkeypatch.setattr(locks, "BEAT", 0.02)
    path = tmp_path / "LOCK"
    with pytest.raises(UserError, match="it: another process took over the lock"), hold(path, "it"):  # noqa: PT012
        token = json.loads(path.read_text())["token"]
        if event == "taken over":
            foreign(tmp_path / f"LOCK.{token}", 0)
        else:
            path.unlink()
        if event == "removed and taken":
            foreign(path, 0)
        for _ in range(500):
            time.sleep(0.01)
    assert (live_owner(path) == "pid 7 on far") == (event != "removed")


def test_letting_go_leaves_a_lock_that_another_one_took(tmp_path: Path) -> None:
    """Without a beat in between: the token is looked at once more."""
    path = tmp_path / "LOCK"
    with hold(path, "it"):
        path.unlink()
        foreign(path, 0)
    assert live_owner(path) == "pid 7 on far"


def test_who_looked_before_a_release_and_creates_after_it_steps_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dead root was seen; then its successor let go, and a third took the free lock."""
    path = tmp_path / "LOCK"
    foreign(path, 1e6)
    create = locks._create
    calls: list[Path] = []

    def late(place: Path, owner: Owner) -> bool:
        if not calls:
            calls.append(place)
            path.unlink()
            foreign(path, 0, token="third")
        return create(place, owner)

    monkeypatch.setattr(locks, "_create", late)
    with try_hold(path) as taken:
        assert not taken
    assert calls == [tmp_path / "LOCK.abc"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["LOCK"]


@pytest.mark.parametrize("links", [True, False])
def test_one_of_many_takes_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:

        def link(source: Path, target: Path) -> None:
            raise PermissionError(1, "no hard links here")

        monkeypatch.setattr(os, "link", link)
    path = tmp_path / "LOCK"
    inside, most, turns = 0, 0, 0

    def contend() -> None:
        nonlocal inside, most, turns
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            with try_hold(path) as taken:
                if taken:
                    inside += 1
                    most = max(most, inside)
                    turns += 1
                    time.sleep(0.001)
                    inside -= 1

    foreign(path, 1e6)
    threads = [threading.Thread(target=contend) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert turns > 5
    assert list(tmp_path.iterdir()) == []


def test_many_processes_never_hold_one_lock_together(tmp_path: Path) -> None:
    """Each kill leaves a stale lock; a counter that is read and written without a lock of its own loses no turn."""
    code = "import os, sys, time; from pathlib import Path; from latentseg.runs.locks import try_hold\n"
    code += "lock, count, turns = Path(sys.argv[1]) / 'LOCK', Path(sys.argv[1]) / 'count', 0\n"
    code += "while turns < 10:\n  with try_hold(lock) as taken:\n    if taken:\n"
    code += "      n = int(count.read_text()); time.sleep(0.002); count.write_text(str(n + 1)); turns += 1\n"
    code += "      if turns == 10: os._exit(0)\n"
    (tmp_path / "count").write_text("0")
    workers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(4)]
    assert [worker.wait(timeout=60) for worker in workers] == [0] * 4
    assert (tmp_path / "count").read_text() == "40"


def test_waiting_ends_when_the_owner_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(locks, "POLL", 0.02)
    path = tmp_path / "LOCK"
    with holder(path) as process:
        killer = threading.Timer(0.3, process.kill)
        killer.start()
        began = time.monotonic()
        with hold(path, "the cache", wait=True):
            assert time.monotonic() - began > 0.2
        killer.join()
    assert f"waiting for the cache: in use by pid {process.pid}" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the lock"), try_hold(tmp_path / "file" / "LOCK"):
        pass
