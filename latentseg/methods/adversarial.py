"""The discriminator's side of a step, the same in every adversarial method."""

from typing import Any

import torch
from torch import Tensor

from latentseg.data.batches import Batch
from latentseg.distributed import mean_divisor
from latentseg.losses import IGNORE_INDEX, one_hot, real_or_fake
from latentseg.methods.base import Losses, Networks, Term


class Adversary:
    """Tells the segmenter's maps from truth during one step, then learns from them.

    While the segmenter learns from it the discriminator's parameters are frozen: it learns nothing from that, and the
    gradient of its own turn stays its own.
    """

    def __init__(self, nets: Networks) -> None:
        """Freeze the discriminator, if there is one."""
        self._discriminator: Any = None  # a Discriminator in the engine's wrapping
        self._fakes: list[tuple[Tensor, Tensor]] = []
        if "discriminator" in nets:
            self._discriminator = nets["discriminator"].requires_grad_(False)

    @property
    def on(self) -> bool:
        """Whether there is a discriminator."""
        return self._discriminator is not None

    def terms(self, name: str, weight: float, probs: Tensor, valid: Tensor | None) -> dict[str, Term]:
        """Remember a map as a fake; give the term by which the segmenter wants it called real (Eq. 5), if weighted.

        Args:
            name: Name of the term.
            weight: Its weight.
            probs: Of the segmenter, shape (N, C, H, W); the gradient goes through to it.
            valid: Pixels that count, shape (N, H, W), bool; all if None.

        Returns:
            The term by its name; nothing without a weight or without a discriminator.
        """
        if not self.on:
            return {}
        if weight == 0:
            self._see(probs, valid)
            return {}
        return {name: Term(weight, real_or_fake(self.discriminate(probs, valid), True, valid, mean_divisor(valid)))}

    def discriminate(self, probs: Tensor, valid: Tensor | None) -> Tensor:
        """Remember a map as a fake; give the discriminator's logits of it, real above 0, shape (N, 1, H, W).

        Args:
            probs: Of the segmenter, shape (N, C, H, W); the gradient goes through to it.
            valid: Pixels that count, shape (N, H, W), bool; all if None.
        """
        logits: Tensor = self._discriminator(self._see(probs, valid), probs.shape[2:])
        return logits

    def _see(self, probs: Tensor, valid: Tensor | None) -> Tensor:
        small: Tensor = self._discriminator.shrink(probs)
        shown = probs.new_ones(len(probs), *probs.shape[2:], dtype=torch.bool) if valid is None else valid
        self._fakes.append((small.detach(), shown))
        return small

    def learn(self, batch: Batch) -> Losses:
        """The discriminator's own turn: what it saw is fake, the truth is real.

        arXiv:1912.12936, Eq. 12. The truth is one-hot, and all zeros at ignored pixels, which carry no loss.
        """
        self._discriminator.requires_grad_(True)
        targets = batch.targets if batch.real is None else batch.real
        valid = targets != IGNORE_INDEX
        maps, shown = (torch.cat(parts) for parts in zip(*self._fakes, strict=True))
        truth = self._discriminator.shrink(one_hot(targets, maps.shape[1], maps.dtype))
        logits = self._discriminator(torch.cat([truth, maps]), targets.shape[1:])
        real, fake = logits.tensor_split([len(truth)])
        terms = {
            "real": Term(0.5, real_or_fake(real, True, valid, mean_divisor(valid))),
            "fake": Term(0.5, real_or_fake(fake, False, shown, mean_divisor(shown))),
        }
        return Losses("discriminator", terms)
