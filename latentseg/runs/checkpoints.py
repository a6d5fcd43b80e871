"""Checkpoints that survive a kill, a full disk and a curious reader.

A checkpoint is one safetensors file (tensors and strings, no pickle). It is written to a temporary file in the same
folder, flushed to disk and renamed. Its head holds a seal: the step, the score, and the SHA-256 of the whole file with
64 zeros in the place of the SHA-256. So a file says for itself what it is, and `index.json` is a list for people and
other programs: whatever happens to it, the files count. Files of earlier versions have no seal; their names give the
step, and the index of that time their SHA-256 and score.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from latentseg.errors import RunError
from latentseg.reading import check_file, read_whole

KEEP = 2
SEAL = "latentseg"
"""Key of the seal among a file's strings."""
UNSEALED = "0" * 64
NAME = re.compile(r"(step|best)_(\d{8,})\.safetensors")
LARGEST_HEAD = 100_000_000
"""Bytes; as safetensors has it."""
Kind = Literal["sealed", "earlier", "unread"]


@dataclass(frozen=True)
class Entry:
    """One checkpoint, as its file tells."""

    file: str
    step: int
    best: bool = False
    miou: float | None = None
    """Validation score, of a best one."""
    sha256: str | None = None
    """Of the seal; of an earlier version's file as the index had it, if that can be read."""
    kind: Kind = "sealed"
    """earlier: a file without a seal. unread: its head is damaged, its name alone speaks; it is never deleted."""

    def listed(self) -> dict[str, Any]:
        """What `index.json` says of it."""
        known = {} if self.sha256 is None else {"seal" if self.kind == "sealed" else "sha256": self.sha256}
        return {"file": self.file, "step": self.step} | known | ({"miou": self.miou} if self.best else {})


def write_atomically(path: Path, *parts: bytes | memoryview) -> None:
    """Replace a file so that at any moment it holds either the old content or the new one, on disk.

    Raises:
        RunError: The file cannot be written (full disk, no permission). The old content is still there.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):  # where nothing can be written, nothing can be removed either
            temporary.unlink(missing_ok=True)
        raise RunError(f"cannot write {path}: {error.strerror}. What was there before is unharmed") from error


class Checkpoints:
    """The checkpoints of one run: the last two with all training state, and the best one for inference."""

    def __init__(self, folder: Path) -> None:
        """Look at the folder `checkpoints` of a run; it need not exist yet."""
        self.folder = folder

    def save(self, step: int, tensors: dict[str, Tensor]) -> None:
        """Write the state after `step` steps and drop all but the last two.

        Raises:
            RunError: It cannot be written; the message names the last one that could.
        """
        steps = self._found(best=False)
        new = self._write(step, False, None, tensors)
        known = [entry for entry in steps if entry.kind != "unread" and entry.file != new.file]
        kept = [entry for entry in known if entry.step < step][-(KEEP - 1) :]
        self._tidy([entry for entry in known if entry not in kept])

    def save_best(self, step: int, tensors: dict[str, Tensor], miou: float) -> None:
        """Write the weights with the best validation score so far.

        Raises:
            RunError: As `save`.
        """
        known = self._found(best=True)
        new = self._write(step, True, miou, tensors)
        self._tidy([entry for entry in known if entry.kind != "unread" and entry.file != new.file])

    def save_alone(self, file: str, step: int, tensors: dict[str, Tensor]) -> None:
        """Write weights under a name of their own, without an index: a model that leaves its run.

        Raises:
            RunError: They cannot be written.
        """
        write_atomically(self.folder / file, *_sealed(Entry(file, step), tensors))

    def last(self) -> Entry | None:
        """The newest checkpoint, or None."""
        return next(reversed(self._found(best=False)), None)

    def best(self) -> Entry | None:
        """The checkpoint with the best validation score, or None."""
        return next(reversed(self._found(best=True)), None)

    def take_up(self, step: int) -> None:
        """Forget a best checkpoint from after `step`, which a resumed run has yet to reach again; renew the index."""
        later = [entry for entry in self._found(best=True) if entry.step > step and entry.kind != "unread"]
        if self.folder.is_dir():
            self._tidy(later)

    def read(self, entry: Entry) -> dict[str, Tensor]:
        """Load a checkpoint and verify it.

        Raises:
            RunError: The file is gone, truncated or altered, or holds numbers that are not finite.
        """
        path = self.folder / entry.file
        before = [one for one in self._found(entry.best) if one.step < entry.step]
        way_on = f"go on from {before[-1].file}, the one before" if before else "start anew: there is none before"
        remedy = f"Move it out of the folder to {way_on}"
        try:
            content = read_whole(path)
        except OSError as error:
            raise RunError(f"checkpoint {path} cannot be read: {error.strerror}. {remedy}") from error
        if not _is_whole(content, entry):
            raise RunError(f"checkpoint {path} is truncated or altered: its SHA-256 differs. {remedy}")
        try:
            tensors = load(content)
        except (SafetensorError, ValueError, KeyError) as error:
            raise RunError(f"checkpoint {path} is not a safetensors file: {error}. {remedy}") from error
        for name, value in tensors.items():
            if not bool(torch.isfinite(value).all()):
                raise RunError(f"checkpoint {path}: {name} holds values that are not finite. {remedy}")
        return tensors

    def _write(self, step: int, best: bool, miou: float | None, tensors: dict[str, Tensor]) -> Entry:
        entry = Entry(f"{'best' if best else 'step'}_{step:08d}.safetensors", step, best, miou)
        try:
            try:
                self.folder.mkdir(exist_ok=True)
            except OSError as error:
                raise RunError(f"cannot write {self.folder}: {error.strerror}") from error
            write_atomically(self.folder / entry.file, *_sealed(entry, tensors))
        except RunError as error:
            last = self.last()
            good = f"The last good checkpoint is {last.file}: make room and go on with --resume" if last else ""
            raise RunError(f"{error}. {good or 'There is none before'}") from error
        return entry

    def _found(self, best: bool) -> list[Entry]:
        """Checkpoints of one kind, the oldest first."""
        noted = self._noted()
        entries = (_entry(path, noted) for path in sorted(self.folder.glob("*.safetensors")))
        return sorted((one for one in entries if one and one.best == best), key=lambda one: one.step)

    def _noted(self) -> dict[str, dict[str, Any]]:
        """What the index says of files, by name; nothing where it cannot be read. For files without a seal."""
        try:
            index = json.loads(read_whole(self.folder / "index.json"))
            best = [index["best"] | {"best": True}] if index["best"] else []
            return {str(one["file"]): dict(one) for one in [*index["steps"], *best]}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return {}

    def _tidy(self, dropped: Iterable[Entry]) -> None:
        """Write the index without these, then remove them, and what a killed process left half written."""
        names = {entry.file for entry in dropped}
        steps, bests = ([one for one in self._found(best) if one.file not in names] for best in (False, True))
        index = {"steps": [one.listed() for one in steps], "best": bests[-1].listed() if bests else None}
        content, path = json.dumps(index, indent=1).encode(), self.folder / "index.json"
        if not path.is_file() or path.read_bytes() != content:
            write_atomically(path, content)
        for old in [*(self.folder / name for name in names), *self.folder.glob(".*.safetensors.tmp")]:
            with contextlib.suppress(OSError):
                old.unlink()


def _sealed(entry: Entry, tensors: dict[str, Tensor]) -> tuple[bytes, memoryview]:
    """Head and body of a checkpoint's file."""
    seal = {"step": entry.step, "best": entry.best, "miou": entry.miou, "sha256": UNSEALED}
    values = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    content = save(values, {SEAL: json.dumps(seal)})
    body = 8 + int.from_bytes(content[:8], "little")
    digest = hashlib.sha256(content).hexdigest()
    return content[:body].replace(UNSEALED.encode(), digest.encode(), 1), memoryview(content)[body:]


def _is_whole(content: bytes, entry: Entry) -> bool:
    """Whether a file is what was written; of one without seal and index only its form can tell."""
    if entry.kind == "earlier":
        return entry.sha256 in (None, hashlib.sha256(content).hexdigest())
    if entry.kind == "unread" or entry.sha256 is None:
        return False
    body = 8 + int.from_bytes(content[:8], "little")
    digest = hashlib.sha256(content[:body].replace(entry.sha256.encode(), UNSEALED.encode(), 1))
    digest.update(memoryview(content)[body:])
    return digest.hexdigest() == entry.sha256


def _of_seal(name: str, seal: dict[str, Any]) -> Entry:
    """What a seal says; it may raise whatever a text of others makes of that."""
    step, best, miou, sha256 = (seal[key] for key in ("step", "best", "miou", "sha256"))
    if type(step) is not int or type(best) is not bool or not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ValueError(seal)
    return Entry(name, step, best, miou if isinstance(miou, float) else None, sha256)


def _entry(path: Path, noted: dict[str, dict[str, Any]]) -> Entry | None:
    """What a file says of itself; None if it is gone, or no checkpoint by head, name and index."""
    try:
        check_file(path)
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            head = json.loads(file.read(length) if length <= LARGEST_HEAD else b"")
        strings = head.get("__metadata__")
        if strings is not None:
            return _of_seal(path.name, json.loads(strings[SEAL]))
        kind: Kind = "earlier"
    except FileNotFoundError:
        return None  # just dropped by the process that trains
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        kind = "unread"
    name, note = NAME.fullmatch(path.name), noted.get(path.name, {})
    if name:
        step, best = int(name[2]), name[1] == "best"
    elif kind == "earlier" and type(note.get("step")) is int:
        step, best = note["step"], bool(note.get("best"))
    else:
        return None
    miou, sha256 = note.get("miou"), note.get("sha256")
    score = miou if isinstance(miou, float) else None
    return Entry(path.name, step, best, score, sha256 if isinstance(sha256, str) else None, kind)


def optimizer_tensors(name: str, optimizer: Optimizer) -> dict[str, Tensor]:
    """The tensors of an optimiser's state, with flat names."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{name}.{index}.{key}": value
        for index, values in state.items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    }


def load_optimizer(name: str, optimizer: Optimizer, tensors: dict[str, Tensor], begun: bool = False) -> None:
    """Put back what `optimizer_tensors` took.

    Args:
        name: The optimiser.
        optimizer: Changed in place.
        tensors: All tensors of a checkpoint.
        begun: Whether it has taken steps, so that there must be a state.

    Raises:
        RunError: The state is missing, or of other parameters.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(f"optimizer.{name}."):
            index, _, part = key.removeprefix(f"optimizer.{name}.").partition(".")
            number = int(index) if index.isdecimal() else len(parameters)
            if number >= len(parameters) or value.shape not in (torch.Size(), parameters[number].shape):
                raise RunError(f"the checkpoint does not fit the optimizer of the {name}: {key} {tuple(value.shape)}")
            state.setdefault(number, {})[part] = _laid_out(value, parameters[number])
    parts = _state_parts(optimizer)
    if any(set(values) != parts for values in state.values()) or (begun and parts and not state):
        raise RunError(
            f"the checkpoint lacks the optimizer's state of the {name}, so a run cannot go on from it as it would "
            f"have; a new run can begin with its weights: latentseg train --from RUN"
        )
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _laid_out(value: Tensor, parameter: Tensor) -> Tensor:
    """The same values, in memory as the parameter's are: files have none of it, and mixed ones update slowly."""
    if value.shape != parameter.shape or value.stride() == parameter.stride():
        return value
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)


def _state_parts(optimizer: Optimizer) -> set[str]:
    """What an optimiser of ours keeps of each parameter."""
    if isinstance(optimizer, SGD):
        return {"momentum_buffer"} if any(group["momentum"] for group in optimizer.param_groups) else set()
    assert isinstance(optimizer, Adam)
    return {"step", "exp_avg", "exp_avg_sq"}


def module_tensors(name: str, module: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a module, with `name.` before each key."""
    return {f"{name}.{key}": value for key, value in module.state_dict().items()}


def load_module(name: str, module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put back what `module_tensors` took.

    Raises:
        RunError: Names or shapes do not fit the module.
    """
    state = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:400]
        raise RunError(f"the checkpoint does not fit the {name} of this configuration: {reason}") from error
