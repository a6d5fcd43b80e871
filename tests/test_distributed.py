"""Several processes do what one does: weights, optimisers, M, scores; and all end when one does."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import processes
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, distributed
from torch.optim import Optimizer

from latentseg import distributed as sums
from latentseg.distributed import all_reduce_sum, average, from_first, mean_divisor
from latentseg.engine import choose_precision, make_fabric
from latentseg.errors import UserError
from latentseg.inference.evaluate import evaluate
from latentseg.losses import IGNORE_INDEX, cross_entropy
from latentseg.presets import load_config
from latentseg.runs.folder import open_run
from latentseg.runs.locks import hold
from latentseg.runs.metrics import finite_or_none, read_metrics
from latentseg.runs.place import LOCK
from latentseg.training import trainer
from latentseg.training.loop import train
from latentseg.training.optim import decay

WORKER = Path(processes.__file__)
FAULTS = ["local P_b", "detached P_b", "discriminator unfrozen"]
STEPS = 12
TINY = [
    *processes.OPTIONS, f"steps={STEPS}", "log_every=1", "checkpoint_every=2", "validate_every=6", "data.labeled=4",
    "method.ema_alpha=dataset", "data.scenes.train=12", "data.scenes.val=5", "data.scenes.height=64",
    "data.scenes.width=64",
]  # fmt: skip


def steps_alone(*options: str) -> dict[str, Tensor]:
    config = processes.config_of(1, 1, *options)
    return processes.steps(make_fabric(config), config, "right")


@pytest.fixture(scope="module")
def alone() -> dict[str, Tensor]:
    """What one process makes of the ten steps."""
    return steps_alone()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], dict[str, Tensor]]:
    """What two processes on this machine make of it, by variant and rank."""
    out = tmp_path_factory.mktemp("pair")
    finish(subprocess.Popen([sys.executable, str(WORKER), str(out), "right", *FAULTS], env=environment(DEVICES="2")))
    return lambda variant, number: load_file(out / f"{variant} {number}.safetensors")


def environment(**values: str) -> dict[str, str]:
    """That of a shell, without the marks of other processes."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("MASTER_", "LOCAL_", "WORLD_"))}
    return plain | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"} | values


def finish(*started: subprocess.Popen[bytes], code: int | None = 0) -> None:
    """Wait for processes; all must end with this status, or with any but 0 if None."""
    try:
        codes = [process.wait(timeout=240) for process in started]
    finally:
        for process in started:
            process.kill()
    assert all(found == code if code is not None else found != 0 for found in codes), codes


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one if one[name].numel())


@pytest.mark.slow
def test_two_processes_do_what_one_does(
    alone: dict[str, Tensor], pair: Callable[[str, int], dict[str, Tensor]]
) -> None:
    """Section 9 of the method: weights of both networks, both optimisers and M, adversarial terms on."""
    assert {"method.cooccurrence", "optimizer.segmenter.0.momentum_buffer", "optimizer.discriminator.0.exp_avg"} <= {
        *alone
    }
    assert largest_difference(alone, pair("right", 0)) < 1e-12
    assert largest_difference(pair("right", 0), pair("right", 1)) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_sum_is_seen(
    fault: str, alone: dict[str, Tensor], pair: Callable[[str, int], dict[str, Tensor]]
) -> None:
    assert largest_difference(alone, pair(fault, 0)) > 1e-9


@pytest.mark.parametrize("pieces", [2, 3])
def test_a_batch_in_pieces_does_what_the_whole_one_does(pieces: int, alone: dict[str, Tensor]) -> None:
    """Gradient accumulation for small GPUs: P_b and all means are still those of the whole batch."""
    assert largest_difference(alone, steps_alone(f"model.micro_batches={pieces}")) < 1e-12


@pytest.fixture
def two_machines() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a cable between them; names of the namespaces."""
    names = (f"ls{os.getpid()}a", f"ls{os.getpid()}b")

    def ip(*words: str) -> bool:
        return subprocess.run(["ip", *words], capture_output=True, check=False).returncode == 0

    try:
        made = all(ip("netns", "add", name) for name in names)
    except FileNotFoundError:
        made = False
    if not made or not ip("link", "add", names[0], "type", "veth", "peer", "name", names[1]):
        for name in names if made else ():
            ip("netns", "del", name)
        pytest.skip("network namespaces cannot be made here")
    try:
        for number, name in enumerate(names, start=1):
            assert ip("link", "set", name, "netns", name)
            inside = ("netns", "exec", name, "ip")
            assert ip(*inside, "addr", "add", f"10.77.0.{number}/24", "dev", name)
            assert ip(*inside, "link", "set", name, "up")
            assert ip(*inside, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            ip("netns", "del", name)


@pytest.mark.slow
def test_two_machines_do_what_one_does(two_machines: tuple[str, str], alone: dict[str, Tensor], tmp_path: Path) -> None:
    """Torchrun on each of two machines that share no network but the cable between them."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--master-addr=10.77.0.1",
        "--master-port=29577",
    ]  # fmt: skip
    started = [
        subprocess.Popen(
            ["ip", "netns", "exec", name, *command, f"--node-rank={node}", str(WORKER), str(tmp_path), "right"],
            env=environment(DEVICES="1", NODES="2", GLOO_SOCKET_IFNAME=name),
        )
        for node, name in enumerate(two_machines)
    ]
    finish(*started)
    for number in range(2):
        assert largest_difference(alone, load_file(tmp_path / f"right {number}.safetensors")) < 1e-12


def latentseg(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "latentseg", *words], env=environment())


def until(true: Callable[[], bool], seconds: float = 180) -> None:
    """Wait till something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def wait_for_step(folder: Path, step: int) -> None:
    """Till a checkpoint of the step is there."""
    index = folder / "checkpoints" / "index.json"
    until(lambda: index.exists() and any(e["step"] >= step for e in json.loads(index.read_text())["steps"]))


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def last(folder: Path) -> dict[str, Tensor]:
    checkpoints = open_run(folder).checkpoints
    entry = checkpoints.last()
    assert entry is not None
    return checkpoints.read(entry)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run by one process."""
    return train(load_config("scenes", TINY), tmp_path_factory.mktemp("runs") / "undisturbed").folder


def assert_same_run(folder: Path, other: Path) -> None:
    assert largest_difference(last(folder), last(other)) < 1e-12
    names = ("step", "ce", "latent", "adv", "adv_u", "cons", "real", "fake", "val_miou")
    one, two = ([[row.get(name) for name in names] for row in read_metrics(path)] for path in (folder, other))
    assert len(one) == STEPS + 2  # two validations
    for left, right in zip(one, two, strict=True):
        assert left == [value if value is None else pytest.approx(value, abs=1e-12) for value in right]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("victim", ["first", "second"])
def test_a_killed_process_ends_all_and_the_run_goes_on(victim: str, undisturbed: Path, tmp_path: Path) -> None:
    """After a kill of process 0 one process goes on, after that of process 1 two: as if nothing had happened."""
    folder = tmp_path / "run"
    started = latentseg("train", "scenes", *TINY, "devices=2", "--run", str(folder))
    wait_for_step(folder, 2)
    [second] = [pid for pid in children(started.pid) if b"devices=2" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(started.pid if victim == "first" else second, signal.SIGKILL)
    finish(started, code=None)
    until(lambda: not is_alive(second))
    entry = open_run(folder).checkpoints.last()
    assert entry is not None
    assert entry.step < STEPS
    if victim == "first":
        train(load_config("scenes", TINY), folder, resume=True)
    else:
        finish(latentseg("train", "scenes", *TINY, "devices=2", "--run", str(folder), "--resume"))
    assert_same_run(folder, undisturbed)


@pytest.mark.slow
def test_two_processes_go_on_with_the_run_of_one(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first process is stopped before its seventh step."""

    def decay_or_stop(optimizers: dict[str, Optimizer], progress: float, power: float) -> None:
        if progress >= 6 / STEPS:
            raise KeyboardInterrupt
        decay(optimizers, progress, power)

    config = load_config("scenes", TINY)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "decay", decay_or_stop)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "run")
    finish(latentseg("train", "scenes", *TINY, "devices=2", "--run", str(tmp_path / "run"), "--resume"))
    assert_same_run(tmp_path / "run", undisturbed)


@pytest.mark.slow
def test_two_processes_count_every_image_once(undisturbed: Path) -> None:
    alone = evaluate(undisturbed, "val")
    finish(latentseg("evaluate", str(undisturbed), "devices=2"))
    both = json.loads((undisturbed / "evaluation-val-last-2.json").read_text())
    assert both["images"] == alone.images == 5
    assert both["scores"] == finite_or_none(asdict(alone.scores))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_torchrun_starts_again_what_was_killed(undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    command += ["-m", "latentseg", "--", "train", "scenes", *TINY, "devices=2", "--run", str(folder), "--resume"]
    # Without this the processes of the second start may find the addresses of the first (pytorch/pytorch#135712).
    started = subprocess.Popen(command, env=environment(TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1"))
    wait_for_step(folder, 2)
    os.kill(children(started.pid)[-1], signal.SIGKILL)
    finish(started)
    assert_same_run(folder, undisturbed)


def test_a_mean_over_pixels_of_none_is_zero() -> None:
    logits = torch.zeros(1, 3, 2, 2, requires_grad=True)
    targets = torch.full((1, 2, 2), IGNORE_INDEX)
    loss = cross_entropy(logits, targets, mean_divisor(targets != IGNORE_INDEX))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_half_a_pixel_per_process_is_half_a_pixel() -> None:
    """One labelled pixel over two processes: the local sum is divided by a half."""
    logits, targets = torch.zeros(1, 4, 1, 1), torch.zeros(1, 1, 1, dtype=torch.int64)
    loss = cross_entropy(logits, targets, torch.tensor(0.5, dtype=torch.float64))
    torch.testing.assert_close(loss, 2 * torch.tensor(4.0).log())


def test_one_process_sums_nothing() -> None:
    values = torch.ones(3, requires_grad=True)
    assert all_reduce_sum(values) is values
    assert mean_divisor(None) is None
    assert int(mean_divisor(torch.tensor([True, False]))) == 1
    average([values.detach()])
    assert from_first(lambda: "said") == "said"


class Sending:
    """A message on its way: the other process's values, three times ours, are there once it was waited for."""

    def __init__(self, tensor: Tensor, asynchronous: bool) -> None:
        assert asynchronous
        self.tensor = tensor

    def wait(self) -> None:
        self.tensor.mul_(4)


def test_large_tensors_are_averaged_in_place_and_small_ones_in_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[Tensor] = []

    def all_reduce(tensor: Tensor, async_op: bool) -> Sending:
        messages.append(tensor)
        return Sending(tensor, async_op)

    monkeypatch.setattr(sums, "world", lambda: 2)
    monkeypatch.setattr(distributed, "all_reduce", all_reduce)
    large = torch.ones(4, 4, 3, 3).to(memory_format=torch.channels_last)
    small = [torch.tensor([[1.0, 2.0]]), torch.tensor(3.0)]
    monkeypatch.setattr(sums, "LARGE", 144)
    average([small[0], large, small[1]])
    assert sorted(message.numel() for message in messages) == [3, 144]
    assert any(message is large for message in messages)
    assert torch.equal(large, torch.full((4, 4, 3, 3), 2.0))
    assert [tensor.tolist() for tensor in small] == [[[2.0, 4.0]], 6.0]
    messages.clear()
    average([large])
    average([small[1]])
    assert [message.numel() for message in messages] == [144, 1]
    assert (float(large.mean()), float(small[1])) == (4.0, 12.0)


@pytest.mark.parametrize(
    ("options", "environ", "message"),
    [
        (["batch_size=4", "devices=3"], {}, "batch_size=4 cannot be divided among 3 processes"),
        (["devices=2"], {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4"}, "torchrun started 4 processes"),
        (["num_nodes=2"], {}, "num_nodes=2: nothing here says where the other machines are"),
        ([], {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2"}, "torchrun started 2 processes, the configuration has 1"),
    ],
)
def test_processes_that_do_not_fit_are_refused(
    options: list[str],
    environ: dict[str, str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        train(load_config("scenes", [*TINY, *options]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_error_of_the_first_process_ends_the_second_without_a_word(tmp_path: Path) -> None:
    """The folder is refused, once, with status 4 on both."""
    with hold(tmp_path / LOCK, "the run"):
        started = subprocess.Popen(
            [sys.executable, "-m", "latentseg", "train", "scenes", *TINY, "devices=2", "--run", str(tmp_path)],
            env=environment(),
            stderr=subprocess.PIPE,
        )
        _, said = started.communicate(timeout=240)
    assert started.returncode == 4
    assert said.count(b"error:") == 1


@pytest.mark.parametrize(
    ("encoder", "able", "expected"),
    [("resnet18", True, "bf16-mixed"), ("resnet18", False, "32-true"), ("lite0", True, "32-true")],
)
def test_the_number_format_follows_processor_and_encoder(
    encoder: str, able: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: able)
    options = [f"model.encoder={encoder}", "model.weights_kind=none"]
    config = load_config("scenes", [*options, "precision=auto"])
    assert choose_precision(config, torch.device("cpu")) == expected
    asked = load_config("scenes", [*options, "precision=64-true"])
    assert choose_precision(asked, torch.device("cpu")) == "64-true"
