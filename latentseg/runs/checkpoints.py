"""Checkpoints that survive a kill, a full disk and a curious reader.

A checkpoint is one safetensors file (tensors and strings, no pickle). It is written to a temporary file in the same
folder, flushed to disk and renamed; then `index.json` names it with its step and SHA-256, written the same way. A file
that the index does not name does not count.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim import Optimizer

from latentseg.errors import UserError

KEEP = 2


@dataclass(frozen=True)
class Entry:
    """One checkpoint in the index."""

    file: str
    step: int
    sha256: str
    miou: float | None = None

    def __post_init__(self) -> None:
        if not (type(self.step) is int and isinstance(self.file, str) and isinstance(self.sha256, str)):
            raise TypeError("an entry needs a file, a step and a sha256")
        if Path(self.file).name != self.file:
            raise ValueError(f"{self.file} lies outside the folder")


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file so that at any moment it holds either the old content or the new one, on disk.

    Raises:
        UserError: The file cannot be written (full disk, no permission). The old content is still there.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}. What was there before is unharmed") from error


class Checkpoints:
    """The checkpoints of one run: the last two with all training state, and the best one for inference."""

    def __init__(self, folder: Path) -> None:
        """Look at the folder `checkpoints` of a run; it need not exist yet."""
        self.folder = folder

    def save(self, step: int, tensors: dict[str, Tensor]) -> None:
        """Write the state after `step` steps and drop all but the last two."""
        index = self._index()
        kept = [entry for entry in index["steps"] if entry["step"] < step][-(KEEP - 1) :]
        index["steps"] = [*kept, self._write(f"step_{step:08d}.safetensors", step, tensors)]
        self._write_index(index)

    def save_best(self, step: int, tensors: dict[str, Tensor], miou: float) -> None:
        """Write the weights with the best validation score so far."""
        index = self._index()
        index["best"] = self._write(f"best_{step:08d}.safetensors", step, tensors) | {"miou": miou}
        self._write_index(index)

    def last(self) -> Entry | None:
        """The newest checkpoint, or None."""
        steps = self._index()["steps"]
        return Entry(**steps[-1]) if steps else None

    def best(self) -> Entry | None:
        """The checkpoint with the best validation score, or None."""
        best = self._index()["best"]
        return Entry(**best) if best else None

    def drop_later_best(self, step: int) -> None:
        """Forget a best checkpoint from after `step`: a resumed run has yet to reach it again."""
        index = self._index()
        if index["best"] and index["best"]["step"] > step:
            self._write_index(index | {"best": None})

    def read(self, entry: Entry) -> dict[str, Tensor]:
        """Load a checkpoint and verify it.

        Raises:
            UserError: The file is gone, truncated or altered.
        """
        path = self.folder / entry.file
        remedy = "Take it out of index.json beside it to go on from the checkpoint before"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"checkpoint {path} cannot be read: {error.strerror}. {remedy}") from error
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise UserError(f"checkpoint {path} is truncated or altered: its SHA-256 differs. {remedy}")
        try:
            return load(content)
        except SafetensorError as error:
            raise UserError(f"checkpoint {path} is not a safetensors file: {error}. {remedy}") from error

    def _write(self, name: str, step: int, tensors: dict[str, Tensor]) -> dict[str, Any]:
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {self.folder}: {error.strerror}") from error
        content = save({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
        write_atomically(self.folder / name, content)
        return {"file": name, "step": step, "sha256": hashlib.sha256(content).hexdigest()}

    def _index(self) -> dict[str, Any]:
        path = self.folder / "index.json"
        if not path.exists():
            return {"steps": [], "best": None}
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
            named = [*index["steps"], *([index["best"]] if index["best"] else [])]
            for entry in named:
                Entry(**entry)
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise UserError(f"{path} is damaged ({error}); restore it or start a new run folder") from error
        return dict(index)

    def _write_index(self, index: dict[str, Any]) -> None:
        write_atomically(self.folder / "index.json", json.dumps(index, indent=1).encode())
        named = {entry["file"] for entry in [*index["steps"], *([index["best"]] if index["best"] else [])]}
        for path in self.folder.glob("*.safetensors"):
            if path.name not in named:
                path.unlink()


def optimizer_tensors(name: str, optimizer: Optimizer) -> dict[str, Tensor]:
    """The tensors of an optimiser's state, with flat names."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{name}.{index}.{key}": value
        for index, values in state.items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    }


def load_optimizer(name: str, optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` took."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(f"optimizer.{name}."):
            index, part = key.removeprefix(f"optimizer.{name}.").split(".", 1)
            state.setdefault(int(index), {})[part] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def module_tensors(name: str, module: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a module, with `name.` before each key."""
    return {f"{name}.{key}": value for key, value in module.state_dict().items()}


def load_module(name: str, module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put back what `module_tensors` took.

    Raises:
        UserError: Names or shapes do not fit the module.
    """
    state = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:400]
        raise UserError(f"the checkpoint does not fit the {name} of this configuration: {reason}") from error
