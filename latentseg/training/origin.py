"""A new run that begins with the weights of another one: `latentseg train --from RUN`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from latentseg.errors import RunError
from latentseg.reading import read_whole
from latentseg.runs.checkpoints import Entry
from latentseg.runs.folder import Run, open_run
from latentseg.training.trainer import State

HEADS = ("semantic_head", "latent_head")


@dataclass(frozen=True)
class Origin:
    """The run, and its last checkpoint."""

    run: Run
    entry: Entry

    @classmethod
    def open(cls, folder: str | Path) -> "Origin":
        """Look at a run.

        Raises:
            RunError: There is none, or it has no checkpoint.
        """
        run = open_run(folder)
        entry = run.checkpoints.last()
        if entry is None:
            raise RunError(f"{run.folder} has no checkpoint to begin from")
        return cls(run, entry)

    @classmethod
    def noted(cls, folder: Path) -> "Origin | None":
        """That of a run folder which has no checkpoint of its own yet; None if it began by itself.

        Raises:
            RunError: The note is damaged, or its run has gone or gone on.
        """
        path = folder / "from.json"
        if not path.is_file():
            return None
        try:
            note = json.loads(read_whole(path))
            origin = cls.open(str(note["run"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise RunError(f"{path} cannot be read ({error}): start a new run") from error
        if note != origin.note():
            raise RunError(f"{path}: the last checkpoint of {origin.run.folder} is another one by now: start a new run")
        return origin

    def note(self) -> dict[str, Any]:
        """Where the weights come from, for `from.json`."""
        entry = self.entry
        return {"run": str(self.run.folder.absolute()), "file": entry.file, "step": entry.step, "seal": entry.sha256}

    def give(self, state: State, classes: Sequence[str], method: str) -> str:
        """Put the weights into networks and method: encoder, heads of the same classes, teacher, latent state.

        Args:
            state: Of the new run, changed in place. Its optimisers and its discriminator stay new.
            classes: Its classes.
            method: The name of its method.

        Returns:
            What was taken and what is new, for people.

        Raises:
            RunError: The checkpoint is damaged, or of another encoder.
        """
        tensors = self.run.checkpoints.read(self.entry)
        same = tuple(classes) == self.run.classes
        taken, new = [], []
        for name, module in state.networks.items():
            source = "segmenter" if name == "teacher" and not _part(tensors, "teacher.") else name
            theirs = _part(tensors, f"{source}.") if name != "discriminator" else {}
            parts = self._put(module, theirs, same) if theirs else []
            taken += [f"{name}: {', '.join(parts)}"] * bool(parts)
            heads = [head for head in HEADS if _part(module.state_dict(), f"{head}.")]
            left = [head for head in heads if head not in parts]
            new += [f"{name}: {', '.join(left)}" if parts else name] * bool(left or not parts)
        theirs = _part(tensors, "method.")
        if state.method.state_dict():
            fits = same and method == self.run.config.method.name and _fit(theirs, state.method.state_dict())
            (taken if fits else new).append("state of the method")
            if fits:
                state.method.load_state_dict(theirs)
        why = "" if same else " (the classes differ)"
        fresh = f"; new{why}: {'; '.join(new)}" if new else ""
        return f"begins with the weights of {self.run.folder}, step {self.entry.step}: {'; '.join(taken)}{fresh}"

    def _put(self, module: nn.Module, theirs: dict[str, Tensor], same: bool) -> list[str]:
        """Fill a network with what fits; what was taken, the encoder first."""
        own = module.state_dict()
        chosen = {key: value for key, value in theirs.items() if not key.startswith(HEADS)}
        if not _fit(chosen, {key: value for key, value in own.items() if not key.startswith(HEADS)}):
            encoder = self.run.config.model.encoder
            raise RunError(
                f"the weights of {self.run.folder} (model.encoder={encoder}) fit another encoder than this one"
            )
        parts = ["encoder"]
        for head in HEADS if same else ():
            part = {key: value for key, value in theirs.items() if key.startswith(f"{head}.")}
            if part and _fit(part, {key: value for key, value in own.items() if key.startswith(f"{head}.")}):
                chosen |= part
                parts.append(head)
        module.load_state_dict(own | chosen)
        return parts


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _fit(theirs: dict[str, Tensor], own: dict[str, Tensor]) -> bool:
    """Whether names and shapes are the same."""
    return {key: value.shape for key, value in theirs.items()} == {key: value.shape for key, value in own.items()}
