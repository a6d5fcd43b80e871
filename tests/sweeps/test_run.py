"""Workers that die at any time, commands for a scheduler, and progress."""

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from latentseg import cli
from latentseg.config import Config
from latentseg.errors import UserError
from latentseg.presets import load_config
from latentseg.runs.checkpoints import Checkpoints
from latentseg.runs.locks import hold, live_owner
from latentseg.runs.metrics import read_metrics
from latentseg.sweeps import run as sweeps
from latentseg.sweeps import work as sweep_work
from latentseg.sweeps.cells import Sweep, cell_lock, cell_state, read_done
from latentseg.sweeps.run import commands, run_sweep
from latentseg.sweeps.work import run_cell

Calls = list[tuple[str, str]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Worker processes that run `code` in place of a worker; they are ended in any case."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def replace_workers(
    monkeypatch: pytest.MonkeyPatch, started: "list[subprocess.Popen[bytes]]", codes: Callable[[int], str]
) -> None:
    def start(sweep: Sweep, root: Path, threads: int, number: int) -> "subprocess.Popen[bytes]":
        started.append(subprocess.Popen([sys.executable, "-S", "-c", codes(len(started))]))
        return started[-1]

    monkeypatch.setattr(sweeps, "_start_worker", start)


def test_a_dead_worker_is_replaced(
    tiny: Callable[..., Sweep],
    tmp_path: Path,
    fake: Calls,
    monkeypatch: pytest.MonkeyPatch,
    started: "list[subprocess.Popen[bytes]]",
    capsys: pytest.CaptureFixture[str],
) -> None:
    sweep = tiny()
    run_sweep(sweep, tmp_path)
    replace_workers(monkeypatch, started, lambda number: "import os; os._exit(9)" if number < 3 else "")
    run_sweep(sweep, tmp_path, workers=2)
    assert 4 <= len(started) <= 5
    assert "another one takes its place" in capsys.readouterr().err


def test_workers_that_die_together_are_replaced_too(
    tiny: Callable[..., Sweep],
    tmp_path: Path,
    fake: Calls,
    monkeypatch: pytest.MonkeyPatch,
    started: "list[subprocess.Popen[bytes]]",
) -> None:
    """Nobody is left alive when the loop looks: as if the last had died between two looks."""
    sweep = tiny()
    run_sweep(sweep, tmp_path)

    def start(*_: object) -> "subprocess.Popen[bytes]":
        code = "import os; os._exit(9)" if len(started) < 2 else ""
        started.append(subprocess.Popen([sys.executable, "-S", "-c", code]))
        started[-1].wait()
        return started[-1]

    monkeypatch.setattr(sweeps, "_start_worker", start)
    run_sweep(sweep, tmp_path, workers=2)
    assert len(started) == 4


def test_workers_that_keep_dying_end_the_sweep(
    tiny: Callable[..., Sweep],
    tmp_path: Path,
    fake: Calls,
    monkeypatch: pytest.MonkeyPatch,
    started: "list[subprocess.Popen[bytes]]",
) -> None:
    replace_workers(monkeypatch, started, lambda number: "import os; os._exit(9)")
    with pytest.raises(UserError, match=r"workers kept dying.*logs"):
        run_sweep(tiny(), tmp_path, workers=2)
    assert len(started) == 2 + 2 * sweeps.REPLACEMENTS


@pytest.mark.parametrize("error", [KeyboardInterrupt, signal.SIGTERM])
def test_ctrl_c_and_sigterm_end_the_workers(
    tiny: Callable[..., Sweep],
    tmp_path: Path,
    fake: Calls,
    monkeypatch: pytest.MonkeyPatch,
    started: "list[subprocess.Popen[bytes]]",
    error: Any,
) -> None:
    replace_workers(monkeypatch, started, lambda number: "import time; time.sleep(60)")
    monkeypatch.setattr(sweeps, "POLL", 5)
    number = signal.SIGTERM if error is signal.SIGTERM else signal.SIGINT
    threading.Timer(1.0, os.kill, (os.getpid(), number)).start()
    expected = SystemExit if error is signal.SIGTERM else KeyboardInterrupt
    with pytest.raises(expected):
        run_sweep(tiny(), tmp_path, workers=2)
    assert [process.poll() for process in started] == [-signal.SIGTERM] * 2
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_worker_process_gets_its_orders_and_its_share_of_the_cores(
    tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real command line and environment, with a stand-in for the interpreter; then the orders are carried out."""
    stand_in = tmp_path / "python"
    stand_in.write_text(f"#!/bin/sh\ncat > {tmp_path}/orders\necho $OMP_NUM_THREADS $@ > {tmp_path}/arguments\n")
    stand_in.chmod(0o700)
    sweep = tiny("rows=supervised", "threads=null")
    monkeypatch.setattr(sys, "executable", str(stand_in))
    assert sweeps._start_worker(sweep, tmp_path, 3, 0).wait() == 0
    assert (tmp_path / "arguments").read_text().split() == ["3", "-m", "latentseg.sweeps.run"]
    orders = json.loads((tmp_path / "orders").read_text())
    assert orders["parent"] == os.getpid()
    sweeps.worker_main(io.StringIO(json.dumps(orders | {"parent": os.getppid()})))
    assert [name for kind, name in fake if kind == "train"] == [cell.folder for cell in sweep.cells]
    assert {load_config(tmp_path / cell.folder / "config.yaml").threads for cell in sweep.cells} == {3}


def test_a_worker_ends_with_its_parent() -> None:
    read, write = os.pipe()
    middle = os.fork()
    if middle == 0:  # the parent of a worker
        if os.fork() == 0:
            os.write(write, b"x")
            sweeps._watch(os.getppid())  # never returns
        os.read(read, 1)
        os._exit(0)
    os.close(write)
    os.waitpid(middle, 0)
    assert os.read(read, 100) == b""  # the last one that held the pipe is gone


def test_progress_counts_cells_and_steps(tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls) -> None:
    sweep = tiny()
    progress = sweeps.Progress(sweep, tmp_path)
    assert progress.text() == "0 of 4 cells done, 0 running"
    run_cell(sweep, sweep.cells[0], tmp_path)
    (tmp_path / sweep.cells[1].folder).mkdir()
    (tmp_path / sweep.cells[1].folder / "FAILED").write_text("no\n")
    (tmp_path / sweep.cells[2].folder).mkdir()
    (tmp_path / sweep.cells[2].folder / "metrics.jsonl").write_text('{"step": 1}\n')
    with hold(cell_lock(sweep.cells[2], tmp_path), "it"):
        text = progress.text()
    assert text.startswith(f"1 of 4 cells done, 1 running ({sweep.cells[2].folder} 1/2), 1 failed; ")
    assert text.endswith(" left")


def test_time_left_is_that_of_the_steps_left(
    tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = tiny()
    run_cell(sweep, sweep.cells[0], tmp_path)
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = sweeps.Progress(sweep, tmp_path)
    run_cell(sweep, sweep.cells[1], tmp_path)
    now += 60
    assert progress.text() == "2 of 4 cells done, 0 running; 2 min left"


def test_time_left_counts_a_cell_by_what_its_kind_took(
    tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Latent classes take ten times as long per step: two cheap cells are done in 20 s, two dear ones are left."""
    sweep = tiny("grid.seed=[0,1,2]")
    cheap, dear = sweep.cells[:3], sweep.cells[3:]
    run_cell(sweep, dear[0], tmp_path)
    log = tmp_path / dear[0].folder / "DONE"
    log.write_text(json.dumps(json.loads(log.read_text()) | {"seconds": 35.0}))
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = sweeps.Progress(sweep, tmp_path)
    for cell in cheap[:2]:
        run_cell(sweep, cell, tmp_path)
    now += 20
    assert (
        progress.text() == "3 of 6 cells done, 0 running; 4 min left"
    )  # 10 s for a cheap one, 200 s for two dear ones


# commands for a scheduler


@pytest.mark.slow
def test_the_printed_commands_finish_the_sweep(tiny: Callable[..., Sweep], tmp_path: Path) -> None:
    """They leave the folders that the sweep makes itself, bit for bit, and nothing for it to do."""
    options = ["steps=1", "rows=[+ latent classes]", "splits=[val]"]
    sweep, root = tiny(*options), tmp_path / "my root"

    def invoke(*arguments: str) -> str:
        result = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
        assert result.exit_code == 0
        return result.stdout

    ask = ["sweep", str(tmp_path / "tiny.yaml"), *options, "--run-root", str(root), "--commands"]
    lines = invoke(*ask).splitlines()
    assert not root.exists()
    assert [shlex.split(line)[-2:] for line in lines] == [["--cell", cell.folder] for cell in sweep.cells]
    for line in reversed(lines):
        assert shlex.split(line)[0] == "latentseg"
        invoke(*shlex.split(line)[1:])
    assert invoke(*ask) == ""
    run_sweep(sweep, tmp_path / "same")

    def content(root: Path) -> dict[str, bytes]:
        files = [path for path in root.rglob("*") if path.is_file() and "tensorboard" not in path.parts]
        same = [path for path in files if path.name not in ("DONE", "index.json", "metrics.jsonl")]  # these have times
        return {str(path.relative_to(root)): path.read_bytes() for path in same}

    assert content(root) == content(tmp_path / "same")
    for cell in sweep.cells:
        done, twin = (read_done(place / cell.folder, ("val",)) for place in (root, tmp_path / "same"))
        assert done is not None
        assert twin is not None
        assert done["scores"] == twin["scores"]


def test_a_command_runs_its_cell_alone(tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls) -> None:
    sweep = tiny()
    run_sweep(sweep, tmp_path, cell=sweep.cells[2].folder)
    assert {name for _, name in fake} == {sweep.cells[2].folder}
    tree = json.loads((tmp_path / "sweeps" / "tiny.json").read_text())
    assert len(tree["cells"]) == 4  # the whole sweep is described
    assert [shlex.split(line)[-1] for line in commands(sweep, tmp_path)] == [
        cell.folder for cell in sweep.cells if cell is not sweep.cells[2]
    ]
    with pytest.raises(UserError, match=r"--cell=nothing: tiny with these options has no such cell"):
        run_sweep(sweep, tmp_path, cell="nothing")


def test_a_run_that_stands_in_two_columns_is_made_once(
    tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    """The supervised row does not read the columns' key."""
    sweep = tiny("grid.seed=0", "columns.method.lambda_cons=[0.1,0.2]")
    assert len(sweep.cells) == 4
    assert len(commands(sweep, tmp_path)) == 3
    run_sweep(sweep, tmp_path)
    assert len([name for kind, name in fake if kind == "train"]) == 3
    assert "all 3 cells done" in capsys.readouterr().err


def test_a_failed_command_says_so(
    tiny: Callable[..., Sweep], tmp_path: Path, fake: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scheduler sees a status other than 0; the cell is among the next commands, and is tried again."""
    sweep = tiny("rows=supervised", "grid.seed=0")
    (line,) = commands(sweep, tmp_path)
    train = vars(sweep_work)["train"]

    def fails(*_: object, **__: object) -> None:
        raise UserError("no such data")

    monkeypatch.setattr(sweep_work, "train", fails)
    result = CliRunner().invoke(cli.app, shlex.split(line)[1:])
    assert "no such data" in str(result.exception)
    assert commands(sweep, tmp_path) == [line]
    monkeypatch.setattr(sweep_work, "train", train)
    assert CliRunner().invoke(cli.app, shlex.split(line)[1:]).exit_code == 0
    assert commands(sweep, tmp_path) == []


# a killed worker


WORKER = """
import sys
from pathlib import Path
from latentseg.sweeps.files import read_sweep
from latentseg.sweeps.run import run_sweep
run_sweep(read_sweep(sys.argv[1], sys.argv[3:]), Path(sys.argv[2]))
"""


def stamps(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.slow
def test_a_killed_worker_loses_nothing_and_another_one_goes_on(
    tiny: Callable[..., Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL in the middle of the second cell; a new worker in this process finishes it from its last checkpoint."""
    overrides = ["steps=6", "rows=supervised", "splits=val"]
    sweep, root = tiny(*overrides), tmp_path / "root"
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path / "tiny.yaml"), str(root), *overrides])
    first, second = (root / cell.folder for cell in sweep.cells)
    try:
        deadline = time.monotonic() + 60
        while len(read_metrics(second)) < 2 and worker.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        assert cell_state(sweep.cells[1], root, sweep.splits).owner == live_owner(cell_lock(sweep.cells[1], root))
        assert cell_state(sweep.cells[1], root, sweep.splits).kind == "running"
    finally:
        worker.kill()
        worker.wait()
    assert worker.returncode == -signal.SIGKILL
    assert read_done(first, ("val",)) is not None
    assert read_done(second, ("val",)) is None
    assert cell_lock(sweep.cells[1], root).exists()
    state = cell_state(sweep.cells[1], root, sweep.splits)
    assert state.kind == "stopped"
    assert 2 <= state.step < 6
    finished, began = stamps(first), (second / "environment.json").stat().st_mtime_ns
    trained = []
    train = vars(sweep_work)["train"]

    def spy(config: Config, folder: Path, resume: bool) -> None:
        trained.append(folder)
        train(config, folder, resume)

    monkeypatch.setattr(sweep_work, "train", spy)
    capfd.readouterr()
    run_sweep(sweep, root)
    assert trained == [second]
    assert stamps(first) == finished
    assert (second / "environment.json").stat().st_mtime_ns == began
    start = int(capfd.readouterr().err.split("steps ")[1].split(" to 6")[0])
    assert state.step - 1 <= start <= state.step
    assert [row["step"] for row in read_metrics(second) if "ce" in row] == list(range(1, 7))
    run_sweep(sweep, root)
    assert trained == [second]


@pytest.mark.slow
def test_a_worker_that_is_asked_to_stop_saves_its_cell_and_the_same_command_goes_on(
    tiny: Callable[..., Sweep], tmp_path: Path
) -> None:
    """Its group and whoever started it both send it a signal: the second is no reason to leave at once."""
    overrides = ["steps=200", "checkpoint_every=1000", "rows=supervised", "grid.seed=0", "splits=val"]
    sweep, root = tiny(*overrides), tmp_path / "root"
    order = {
        "source": str(tmp_path / "tiny.yaml"),
        "overrides": overrides,
        "run_root": str(root),
        "parent": os.getpid(),
    }
    worker = subprocess.Popen([sys.executable, "-m", "latentseg.sweeps.run"], stdin=subprocess.PIPE)
    assert worker.stdin is not None
    with worker.stdin as pipe:
        pipe.write(json.dumps(order).encode())
    folder = root / sweep.cells[0].folder
    deadline = time.monotonic() + 90
    while len(read_metrics(folder)) < 2 and worker.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    for number in (signal.SIGUSR1, signal.SIGTERM):
        worker.send_signal(number)
    assert worker.wait(60) == 128 + signal.SIGUSR1
    last = Checkpoints(folder / "checkpoints").last()
    assert last is not None
    assert 2 <= last.step == read_metrics(folder)[-1]["step"] < 200
    assert cell_state(sweep.cells[0], root, sweep.splits).kind == "stopped"
    run_sweep(sweep, root)
    assert read_done(folder, ("val",)) is not None
