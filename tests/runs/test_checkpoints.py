"""Checkpoints: what survives a kill, a full disk, bit rot and malice."""

import errno
import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from latentseg.errors import RunError
from latentseg.runs.checkpoints import (
    Checkpoints,
    load_module,
    load_optimizer,
    module_tensors,
    optimizer_tensors,
    write_atomically,
)


def some_tensors(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "segmenter.weight": torch.randn(3, 4, generator=generator),
        "segmenter.strided": torch.randn(3, 4, generator=generator).t(),
        "method.cooccurrence": torch.rand(2, 3, generator=generator, dtype=torch.float64),
        "segmenter.num_batches_tracked": torch.tensor(seed),
        "optimizer.segmenter.0.step": torch.tensor(float(seed)),
    }


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for key, value in left.items():
        assert value.dtype == right[key].dtype
        assert torch.equal(value, right[key]), key


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux lists open files there")
def test_a_write_leaves_no_file_open(tmp_path: Path) -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = open_files()
    for content in (b"one", b"two"):
        write_atomically(tmp_path / "file", content, memoryview(b"!"))
    assert (tmp_path / "file").read_bytes() == b"two!"
    assert open_files() == before


def test_round_trip(checkpoints: Checkpoints) -> None:
    assert checkpoints.last() is None
    assert checkpoints.best() is None
    checkpoints.save(5, some_tensors(5))
    entry = Checkpoints(checkpoints.folder).last()
    assert entry is not None
    assert (entry.step, entry.file, entry.miou) == (5, "step_00000005.safetensors", None)
    assert_same(checkpoints.read(entry), some_tensors(5))
    assert_same(load_file(checkpoints.folder / entry.file), some_tensors(5))  # anyone can read it
    listed = [{"file": entry.file, "step": 5, "seal": entry.sha256}]
    assert json.loads((checkpoints.folder / "index.json").read_text()) == {"steps": listed, "best": None}


def test_the_last_two_and_the_best_are_kept(checkpoints: Checkpoints) -> None:
    for step in (2, 4, 6, 8):
        if step == 4:
            checkpoints.save_best(step, some_tensors(40), 0.5)
        checkpoints.save(step, some_tensors(step))
    best = checkpoints.best()
    assert best is not None
    assert (best.step, best.miou) == (4, 0.5)
    assert_same(checkpoints.read(best), some_tensors(40))
    names = {"step_00000006.safetensors", "step_00000008.safetensors", "best_00000004.safetensors", "index.json"}
    assert files(checkpoints.folder) == names
    checkpoints.save_best(8, some_tensors(80), 0.6)
    assert files(checkpoints.folder) == names - {"best_00000004.safetensors"} | {"best_00000008.safetensors"}


def test_going_back_drops_what_lies_ahead(checkpoints: Checkpoints) -> None:
    for step in (2, 4, 6):
        checkpoints.save(step, some_tensors(step))
    checkpoints.save(4, some_tensors(44))
    last = checkpoints.last()
    assert last is not None
    assert last.step == 4
    assert_same(checkpoints.read(last), some_tensors(44))


def test_a_best_checkpoint_from_the_future_is_forgotten(checkpoints: Checkpoints) -> None:
    checkpoints.take_up(0)
    assert not checkpoints.folder.exists()
    checkpoints.save_best(4, some_tensors(), 0.5)
    checkpoints.take_up(4)
    assert checkpoints.best() is not None
    checkpoints.take_up(3)
    assert checkpoints.best() is None
    assert files(checkpoints.folder) == {"index.json"}


def test_what_is_not_understood_is_never_deleted(checkpoints: Checkpoints) -> None:
    """Only what a killed process left half written goes."""
    checkpoints.save(2, some_tensors())
    kept = {"step_00000001.safetensors", "best_00000001.safetensors", "mine.safetensors", "notes.txt"}
    for name in kept | {".step_00000003.safetensors.tmp"}:
        (checkpoints.folder / name).write_bytes(b"no checkpoint")
    for step in (4, 6):
        checkpoints.save(step, some_tensors())
        checkpoints.save_best(step, some_tensors(), step / 10)
    checkpoints.take_up(6)
    of_it = {"step_00000004.safetensors", "step_00000006.safetensors", "best_00000006.safetensors", "index.json"}
    assert files(checkpoints.folder) == of_it | kept
    last = checkpoints.last()
    assert last is not None
    assert last.step == 6


def refuse(*_args: Any, **_options: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(("owner", "name"), [(os, "fsync"), (Path, "replace")])
def test_a_full_disk_leaves_the_old_state(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    checkpoints.save(2, some_tensors(2))
    before = {path.name: path.read_bytes() for path in checkpoints.folder.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, refuse)
        with pytest.raises(RunError, match=r"cannot write .*step_00000004.*No space left .*unharmed"):
            checkpoints.save(4, some_tensors(4))
        with pytest.raises(RunError, match="No space left"):
            write_atomically(checkpoints.folder / "index.json", b"new")
    assert {path.name: path.read_bytes() for path in checkpoints.folder.iterdir()} == before
    last = checkpoints.last()
    assert last is not None
    assert_same(checkpoints.read(last), some_tensors(2))


def test_a_full_disk_at_the_index_keeps_both(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints.save(2, some_tensors(2))
    replace = Path.replace

    def refuse_index(self: Path, target: Path) -> Path:
        if target.name == "index.json":
            refuse()
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse_index)
    with pytest.raises(RunError, match=r"cannot write .*index\.json"):
        checkpoints.save(4, some_tensors(4))
    last = checkpoints.last()
    assert last is not None
    assert_same(checkpoints.read(last), some_tensors(4))
    assert (checkpoints.folder / "step_00000002.safetensors").exists()


def test_a_failed_write_names_the_last_good_checkpoint(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that refuses to remove the temporary file, too, changes nothing of that."""
    monkeypatch.setattr(os, "fsync", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(RunError, match=r"No space left .*There is none before"):
        checkpoints.save(1, some_tensors())
    monkeypatch.undo()
    checkpoints.save(2, some_tensors())
    monkeypatch.setattr(os, "fsync", refuse)
    for saving in (checkpoints.save, lambda step, tensors: checkpoints.save_best(step, tensors, 0.5)):
        with pytest.raises(RunError, match=r"last good checkpoint is step_00000002\.safetensors: make room"):
            saving(4, some_tensors())


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot write .*file/checkpoints"):
        Checkpoints(tmp_path / "file" / "checkpoints").save(1, some_tensors())


def test_content_is_flushed_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(number: int) -> None:
        order.append(f"fsync of {os.fstat(number).st_size}" if (tmp_path / ".a.tmp").exists() else "fsync")
        fsync(number)

    def note_replace(self: Path, target: Path) -> Path:
        order.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    write_atomically(tmp_path / "a", b"content")
    assert order == ["fsync of 7", "rename", "fsync"]  # the file, its name, the folder
    assert (tmp_path / "a").read_bytes() == b"content"


def damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def damage_flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, damage_empty, Path.unlink])
def test_damage_is_refused(checkpoints: Checkpoints, damage: Any) -> None:
    checkpoints.save(2, some_tensors())
    entry = checkpoints.last()
    assert entry is not None
    damage(checkpoints.folder / entry.file)
    expected = "cannot be read: No such file" if damage is Path.unlink else "truncated or altered"
    with pytest.raises(RunError, match=rf"step_00000002\.safetensors .*{expected}.* start anew: there is none before"):
        checkpoints.read(entry)
    checkpoints.save(4, some_tensors())
    checkpoints.save(6, some_tensors())
    entry = checkpoints.last()
    assert entry is not None
    damage(checkpoints.folder / entry.file)
    with pytest.raises(RunError, match=r"Move it out of the folder to go on from step_00000004\.safetensors"):
        checkpoints.read(entry)


def test_every_bit_of_the_head_and_some_of_the_rest(checkpoints: Checkpoints) -> None:
    """No flipped bit passes."""
    checkpoints.save(2, {"w": torch.ones(8)})
    path = checkpoints.folder / "step_00000002.safetensors"
    content = path.read_bytes()
    body = 8 + int.from_bytes(content[:8], "little")
    for place in [*range(8 * body), *range(8 * body, 8 * len(content), 37)]:
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        entry = checkpoints.last()
        assert entry is not None
        with pytest.raises(RunError, match=r"truncated or altered|not a safetensors file"):
            checkpoints.read(entry)


def test_numbers_that_are_not_finite_are_refused(checkpoints: Checkpoints) -> None:
    """With the right checksum: somebody made it so."""
    checkpoints.save(2, {"segmenter.weight": torch.tensor([1.0, float("nan")])})
    entry = checkpoints.last()
    assert entry is not None
    with pytest.raises(RunError, match=r"segmenter\.weight holds values that are not finite"):
        checkpoints.read(entry)


class Payload:
    """What a malicious pickle does when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_a_pickle_is_never_executed(checkpoints: Checkpoints, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    content = pickle.dumps({"segmenter.weight": Payload(marker)})
    pickle.loads(content)
    assert marker.exists()  # the payload works
    marker.unlink()

    checkpoints.save(2, some_tensors())
    entry = checkpoints.last()
    assert entry is not None
    (checkpoints.folder / entry.file).write_bytes(content)
    with pytest.raises(RunError, match="truncated or altered"):
        checkpoints.read(entry)
    for name in ("step_00000002.safetensors", "other.safetensors"):  # even with the right checksum in the index
        (checkpoints.folder / name).write_bytes(content)
        note = {"file": name, "step": 3, "sha256": hashlib.sha256(content).hexdigest()}
        (checkpoints.folder / "index.json").write_text(json.dumps({"steps": [note], "best": None}))
        entry = checkpoints.last()
        assert entry is not None
        with pytest.raises(RunError, match="truncated or altered"):
            checkpoints.read(entry)
    assert not marker.exists()


NESTED = '{"steps": ' + "[" * 100_000
LIES = {"steps": [{"file": "step_00000004.safetensors", "step": 1, "sha256": "0"}], "best": {"step": 9, "miou": 9}}


@pytest.mark.parametrize(
    "text",
    [None, "", "[]", '{"steps": [', "3", '{"steps": null, "best": null}', '{"steps": [3], "best": 3}', "\xff", NESTED,
     json.dumps(LIES), json.dumps({"steps": [], "best": None}), "1" * 5000],
)  # fmt: skip
def test_the_index_is_made_from_the_files(checkpoints: Checkpoints, text: str | None) -> None:
    checkpoints.save(2, some_tensors(2))
    checkpoints.save_best(2, some_tensors(20), 0.5)
    checkpoints.save(4, some_tensors(4))
    index = checkpoints.folder / "index.json"
    before = {path.name: path.read_bytes() for path in checkpoints.folder.iterdir()}
    index.unlink()
    if text is not None:
        index.write_text(text, encoding="latin-1")
    last, best = checkpoints.last(), checkpoints.best()
    assert last is not None
    assert best is not None
    assert (last.step, best.step, best.miou) == (4, 2, 0.5)
    assert_same(checkpoints.read(last), some_tensors(4))
    assert_same(checkpoints.read(best), some_tensors(20))
    checkpoints.take_up(4)
    assert {path.name: path.read_bytes() for path in checkpoints.folder.iterdir()} == before


def earlier(checkpoints: Checkpoints) -> None:
    """What the version before wrote: no seal, and the index knows all."""
    checkpoints.folder.mkdir()
    entries = []
    for name, seed in (("step_00000002", 2), ("step_00000004", 4), ("best_00000002", 20)):
        content = save({name: value.contiguous() for name, value in some_tensors(seed).items()})
        (checkpoints.folder / f"{name}.safetensors").write_bytes(content)
        step, digest = int(name[-8:]), hashlib.sha256(content).hexdigest()
        entries.append({"file": f"{name}.safetensors", "step": step, "sha256": digest})
    index = {"steps": entries[:2], "best": entries[2] | {"miou": 0.5}}
    (checkpoints.folder / "index.json").write_text(json.dumps(index, indent=1))


@pytest.mark.parametrize("index", [True, False])
def test_checkpoints_of_earlier_versions_are_read(checkpoints: Checkpoints, index: bool) -> None:
    earlier(checkpoints)
    if not index:
        (checkpoints.folder / "index.json").write_text("")
    last, best = checkpoints.last(), checkpoints.best()
    assert last is not None
    assert best is not None
    assert (last.step, best.step, best.miou) == (4, 2, 0.5 if index else None)
    assert_same(checkpoints.read(last), some_tensors(4))
    assert_same(checkpoints.read(best), some_tensors(20))
    checkpoints.save(6, some_tensors(6))
    assert {"step_00000004.safetensors", "best_00000002.safetensors"} <= files(checkpoints.folder)
    assert "step_00000002.safetensors" not in files(checkpoints.folder)
    again = checkpoints.best()
    assert again == best  # what the index alone knew is still in it


def test_an_earlier_checkpoint_that_differs_from_its_index_is_refused(checkpoints: Checkpoints) -> None:
    earlier(checkpoints)
    damage_flip(checkpoints.folder / "step_00000004.safetensors")
    entry = checkpoints.last()
    assert entry is not None
    with pytest.raises(RunError, match="its SHA-256 differs"):
        checkpoints.read(entry)


def test_a_file_of_another_name_is_a_checkpoint_by_its_content_and_the_index(checkpoints: Checkpoints) -> None:
    earlier(checkpoints)
    other, index = checkpoints.folder / "mine.safetensors", checkpoints.folder / "index.json"
    (checkpoints.folder / "step_00000004.safetensors").rename(other)
    index.write_text(index.read_text().replace("step_00000004", "mine"))
    last = checkpoints.last()
    assert last is not None
    assert (last.file, last.step) == (other.name, 4)
    (checkpoints.folder / "best_00000002.safetensors").rename(checkpoints.folder / "top.safetensors")
    index.write_text(index.read_text().replace("best_00000002", "top"))
    best = checkpoints.best()
    assert best is not None
    assert (best.file, best.step, best.miou) == ("top.safetensors", 2, 0.5)
    other.write_bytes(b"broken")  # neither its name nor its content tells
    last = checkpoints.last()
    assert last is not None
    assert last.step == 2


@pytest.mark.parametrize("lie", [{"step": "2"}, {"step": True}, {"best": 0}, {"sha256": "f" * 63}])
def test_a_seal_of_another_form_is_not_believed(checkpoints: Checkpoints, lie: dict[str, Any]) -> None:
    seal = {"step": 2, "best": False, "miou": None, "sha256": "0" * 64} | lie
    content = save({"w": torch.ones(2)}, {"latentseg": json.dumps(seal)})
    checkpoints.folder.mkdir()
    (checkpoints.folder / "mine.safetensors").write_bytes(content)
    assert checkpoints.last() is None
    (checkpoints.folder / "mine.safetensors").rename(checkpoints.folder / "step_00000007.safetensors")
    entry = checkpoints.last()
    assert entry is not None
    assert (entry.step, entry.kind) == (7, "unread")
    with pytest.raises(RunError, match="truncated or altered"):
        checkpoints.read(entry)


def test_a_model_that_leaves_its_run_is_a_sealed_file_alone(checkpoints: Checkpoints) -> None:
    checkpoints.folder.mkdir()
    checkpoints.save_alone("model.safetensors", 3, some_tensors())
    assert files(checkpoints.folder) == {"model.safetensors"}
    entry = checkpoints.last()
    assert entry is not None
    assert (entry.step, entry.best, entry.kind) == (3, False, "sealed")
    assert_same(checkpoints.read(entry), some_tensors())


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1))


def optimizer_of(name: str, module: nn.Module) -> Optimizer:
    if name == "adam":
        return Adam([{"params": list(module.parameters()), "initial_lr": 0.01}], lr=0.01, betas=(0.9, 0.99))
    parameters = list(module.parameters())
    groups: list[dict[str, Any]] = [{"params": parameters[:1], "lr": 0.01}, {"params": parameters[1:]}]
    return SGD(groups, lr=0.1, momentum=0.9, weight_decay=1e-4)


def steps(module: nn.Module, optimizer: Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        optimizer.zero_grad()
        module(torch.randn(2, 2, 6, 6, generator=generator)).square().mean().backward()
        optimizer.step()


def test_the_state_of_an_optimizer_lies_in_memory_as_its_parameters(checkpoints: Checkpoints) -> None:
    """A file has no such order; where they differ, PyTorch updates tensor by tensor."""
    module = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    optimizer = SGD(module.parameters(), lr=0.1, momentum=0.9)
    torch.autograd.backward(module(torch.randn(1, 3, 5, 5)).sum())
    optimizer.step()
    checkpoints.save(1, optimizer_tensors("net", optimizer))
    entry = checkpoints.last()
    assert entry is not None
    resumed = SGD(module.parameters(), lr=0.1, momentum=0.9)
    load_optimizer("net", resumed, checkpoints.read(entry))
    for parameter in module.parameters():
        ours, theirs = (one.state[parameter]["momentum_buffer"] for one in (resumed, optimizer))
        assert torch.equal(ours, theirs)
        assert ours.stride() == parameter.stride()


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_an_optimizer_goes_on_bit_for_bit(checkpoints: Checkpoints, name: str) -> None:
    module = net()
    optimizer = optimizer_of(name, module)
    steps(module, optimizer, 0, 3)
    checkpoints.save(3, module_tensors("net", module) | optimizer_tensors("net", optimizer))
    steps(module, optimizer, 3, 6)

    again = net()
    resumed = optimizer_of(name, again)
    entry = checkpoints.last()
    assert entry is not None
    tensors = checkpoints.read(entry)
    load_module("net", again, tensors)
    load_optimizer("net", resumed, tensors)
    steps(again, resumed, 3, 6)
    assert_same(module_tensors("net", module), module_tensors("net", again))
    assert_same(optimizer_tensors("net", optimizer), optimizer_tensors("net", resumed))
    parts = {"sgd": {"momentum_buffer"}, "adam": {"exp_avg", "exp_avg_sq", "step"}}[name]
    assert {key.rpartition(".")[2] for key in optimizer_tensors("net", resumed)} == parts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "lacks the optimizer's state of the net"),
        ({"optimizer.net.0.exp_avg": torch.zeros(3, 2, 3, 3)}, "lacks the optimizer's state"),
        ({"optimizer.net.0.momentum_buffer": torch.zeros(9)}, r"does not fit the optimizer of the net: .*\(9,\)"),
        ({"optimizer.net.99.momentum_buffer": torch.zeros(1)}, "does not fit the optimizer of the net"),
        ({"optimizer.net.x.momentum_buffer": torch.zeros(1)}, "does not fit the optimizer of the net"),
    ],
)
def test_an_optimizer_state_of_others_is_refused(change: dict[str, Tensor], message: str) -> None:
    module = net()
    with pytest.raises(RunError, match=message):
        load_optimizer("net", optimizer_of("sgd", module), change, begun=True)
    load_optimizer("net", optimizer_of("sgd", module), {})  # before the first step there is none


def test_names_with_a_common_beginning_stay_apart() -> None:
    """`net` must not take the tensors of `net2`, nor an optimiser those of another."""
    tensors = module_tensors("net", net()) | module_tensors("net2", nn.Linear(1, 1))
    load_module("net", net(), tensors)
    module = nn.Linear(1, 1)
    load_optimizer("a", SGD(module.parameters(), lr=1), {"optimizer.ab.0.momentum_buffer": torch.ones(1, 1)})


def test_a_checkpoint_of_another_network_is_refused() -> None:
    tensors = module_tensors("net", net())
    with pytest.raises(RunError, match=r"does not fit the net of this configuration: .*size mismatch for 2\.weight"):
        load_module("net", nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 5, 1)), tensors)
    with pytest.raises(RunError, match="Missing key"):
        load_module("net", nn.Sequential(*net().children(), nn.Linear(1, 1)), tensors)
    with pytest.raises(RunError, match="Unexpected key"):
        load_module("net", nn.Sequential(nn.Conv2d(2, 3, 3)), tensors)
