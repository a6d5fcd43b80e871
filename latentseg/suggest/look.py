"""Goes over images with a model, a few in memory at a time, and keeps some hundred numbers of each."""

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from latentseg.analysis import cooccurrence_of
from latentseg.console import track
from latentseg.data.ahead import in_threads
from latentseg.data.images import IGNORE_INDEX
from latentseg.inference.model import Model
from latentseg.inference.stream import Pixels, Size
from latentseg.losses import latent_given_class, semantic_to_latent
from latentseg.methods.table import METHODS
from latentseg.models.whole import WholeImage
from latentseg.runs.checkpoints import load_module
from latentseg.suggest.ranking import SHOWN, Floats, Known, Pool
from latentseg.suggest.signals import Doubt, class_shares, difference_map, entropy_map, greatest_doubt

CELL = 4
"""Pixels in each direction, as the network sees the image, of a cell of the maps that the figures are taken from."""
Thing = TypeVar("Thing")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Looker:
    """A model with what its run has of a second opinion."""

    model: Model
    teacher: Model | None
    """The moving average of the segmenter, if the method has one."""
    latent_given_class: Tensor | None
    """P(l|c), shape (C, L), if the run has a latent branch."""

    @classmethod
    def open(cls, model: Model, checkpoint: str) -> "Looker":
        """Take the teacher and M from the checkpoint that a model was opened from.

        Raises:
            RunError: The checkpoint lacks them.
        """
        matrix = latent_given_class(cooccurrence_of(model, checkpoint)) if model.segmenter.num_latent else None
        return cls(model, _teacher(model, checkpoint), None if matrix is None else matrix.to(model.device))

    @property
    def signals(self) -> tuple[str, ...]:
        """Names of the signals that it gives."""
        more = ("branches",) * (self.latent_given_class is not None) + ("teacher",) * (self.teacher is not None)
        return "entropy", *more

    def probs(self, pixels: Pixels, size: Size) -> Tensor:
        """S_c of an image (h, w, 3), shape (C, H, W)."""
        return self.model.probs(pixels, size, latent=False).semantic[0]

    def figures(self, pixels: Pixels) -> tuple[dict[str, float], Tensor, Tensor, Doubt]:
        """Signals by name, expected and won shares of the classes, and the greatest doubt, of an image (h, w, 3)."""
        size = (-(-pixels.shape[0] // CELL), -(-pixels.shape[1] // CELL))
        maps = self.model.probs(pixels, size, latent=self.latent_given_class is not None)
        probs = maps.semantic[0]
        found = {"entropy": entropy_map(probs)}
        if maps.latent is not None and self.latent_given_class is not None:
            mapped = semantic_to_latent(maps.semantic, self.latent_given_class)[0]
            found["branches"] = difference_map(mapped, maps.latent[0])
        if self.teacher is not None:
            found["teacher"] = difference_map(probs, self.teacher.probs(pixels, size, latent=False).semantic[0])
        means = {name: float(values.mean()) for name, values in found.items()}
        return means, *class_shares(probs), greatest_doubt(probs)

    @torch.inference_mode()
    def features(self, pixels: Pixels) -> Floats:
        """The mean of the encoder's last map over an image (h, w, 3), shape (F,): what is in it, not where."""
        pooled: Floats = WholeImage(self.model.segmenter)(pixels).numpy()
        return pooled

    def pool(
        self, things: Sequence[Thing], read: Callable[[Thing], Pixels | None]
    ) -> tuple[Pool, list[Thing], list[Doubt]]:
        """Figures of images without labels.

        Args:
            things: What to look at.
            read: Called by threads: pixels as the network sees them; None leaves the image out.

        Returns:
            The figures, the things that they are of, and the greatest doubt in each.
        """
        kept, doubts, signals = list[Thing](), list[Doubt](), list[list[float]]()
        expected, won, features = list[Tensor](), list[Tensor](), list[Floats]()
        for thing, pixels in _read_ahead(things, read, "looking"):
            if pixels is None:
                continue
            of_maps, shares, most, doubt = self.figures(pixels)
            kept.append(thing)
            doubts.append(doubt)
            signals.append([of_maps[name] for name in self.signals])
            expected.append(shares.cpu())
            won.append(most.cpu())
            features.append(self.features(pixels))
        if not kept:
            nothing = np.zeros((0, 0), np.float32)
            return Pool({}, nothing, nothing, nothing), kept, doubts
        columns = np.array(signals, np.float32).T
        found = Pool(
            dict(zip(self.signals, columns, strict=True)),
            torch.stack(expected).float().numpy(),
            torch.stack(won).float().numpy(),
            np.stack(features),
        )
        return found, kept, doubts

    def known(self, things: Sequence[Thing], read: Callable[[Thing], tuple[Pixels, Pixels]]) -> Known:
        """Figures of images with labels; `read` gives pixels (h, w, 3) as the network sees them, and class ids."""
        num_classes = len(self.model.classes)
        pixels, shown = np.zeros(num_classes, np.float32), np.zeros(num_classes, np.float32)
        features = list[Floats]()
        for _, (image, targets) in _read_ahead(things, read, "labelled images"):
            counts = np.bincount(targets[targets != IGNORE_INDEX], minlength=num_classes)
            shares = counts / max(1, counts.sum())
            pixels, shown = pixels + shares.astype(np.float32), shown + (shares >= SHOWN)
            features.append(self.features(image))
        stacked = np.stack(features) if features else np.zeros((0, 1), np.float32)
        return Known(pixels, shown.astype(np.float32), stacked)


def _read_ahead(things: Sequence[Thing], read: Callable[[Thing], Result], what: str) -> Iterable[tuple[Thing, Result]]:
    with closing(in_threads(lambda thing: (thing, read(thing)), things)) as found:
        yield from track(found, what, len(things))


def _teacher(model: Model, checkpoint: str) -> Model | None:
    """The teacher of a run as a model of its own; None if the method, or the checkpoint, has none."""
    entry = model.run.checkpoints.best() if checkpoint == "best" else model.run.checkpoints.last()
    if entry is None or "teacher" not in METHODS[model.run.config.method.name].follows:
        return None
    tensors = model.run.checkpoints.read(entry)
    if not any(name.startswith("teacher.") for name in tensors):
        return None
    segmenter = copy.deepcopy(model.segmenter)
    load_module("teacher", segmenter, tensors)
    return replace(model, segmenter=segmenter.eval())
