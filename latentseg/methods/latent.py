"""The latent-class method: Zatsarynna, Sawatzky, Gall, arXiv:1912.12936, section 3."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from latentseg.config import MethodConfig
from latentseg.data.batches import Batch
from latentseg.losses import (
    IGNORE_INDEX,
    conditional_entropy,
    consistency,
    cross_entropy,
    latent_given_class,
    latent_joint,
    probabilities,
    real_or_fake,
    semantic_to_latent,
)
from latentseg.methods.base import Losses, Method, Networks, Term


class Latent(Method):
    """Learns latent classes on labelled images; on unlabelled ones their map teaches the semantic branch.

    Each weight may be 0: its term is then left out, with every forward pass that only it needs.
    """

    cooccurrence: Tensor
    """M of Eq. 8, shape (C, L): a moving average of how often classes and latent classes meet."""

    def __init__(self, config: MethodConfig, num_classes: int, alpha: float, start: int) -> None:
        """Set the weights.

        Args:
            config: Weights of the terms and the number of latent classes L.
            num_classes: C.
            alpha: Rate of the moving average M, Eq. 8.
            start: First step (0-based) with the consistency term.
        """
        super().__init__()
        self.config, self.alpha, self.start = config, alpha, start
        self.uses_unlabeled = config.lambda_cons > 0 or config.lambda_ulbl_adv > 0
        self.register_buffer("cooccurrence", torch.zeros(num_classes, config.num_latent))

    def forward(self, nets: Networks, batch: Batch, step: int) -> Iterator[Losses]:
        """Yield the labelled part, the unlabelled part and the discriminator's part of a step."""
        adversarial = "discriminator" in nets
        if adversarial:
            nets["discriminator"].requires_grad_(False)  # it judges the segmenter and learns nothing from that
        semantic, latent = nets["segmenter"](batch.images)
        probs = probabilities(semantic) if adversarial else None
        yield self._labeled(nets, batch.targets, semantic, latent, probs)  # Eq. 6
        labeled_valid = batch.targets != IGNORE_INDEX
        fakes: list[tuple[Tensor, Tensor | None]] = [] if probs is None else [(probs.detach(), labeled_valid)]
        del semantic, latent, probs  # the labelled graph is gone before the unlabelled one is built

        consistent = self.config.lambda_cons > 0 and step >= self.start
        if batch.unlabeled is not None and (consistent or self.config.lambda_ulbl_adv > 0):
            semantic, latent = nets["segmenter"](batch.unlabeled)
            probs = probabilities(semantic)
            yield self._unlabeled(nets, batch.unlabeled_valid, probs, latent, consistent)  # Eq. 11
            fakes.append((probs.detach(), batch.unlabeled_valid))
            del semantic, latent, probs

        if adversarial:
            nets["discriminator"].requires_grad_(True)
            yield self._discriminator(nets, batch.targets, fakes)  # Eq. 12

    def _labeled(
        self, nets: Networks, targets: Tensor, semantic: Tensor, latent: Tensor, probs: Tensor | None
    ) -> Losses:
        config = self.config
        counts, pixels = latent_joint(probabilities(latent), targets, semantic.shape[1])
        with torch.no_grad():  # Eq. 8
            self.cooccurrence.lerp_(counts.detach().to(self.cooccurrence.dtype), self.alpha)
        terms = {"ce": Term(1.0, cross_entropy(semantic, targets))}
        if config.lambda_latent > 0:
            terms["latent"] = Term(config.lambda_latent, conditional_entropy(counts / pixels.clamp(min=1)))
        if probs is not None and config.lambda_lbl_adv > 0:
            verdict = nets["discriminator"](probs)
            loss = real_or_fake(verdict, real=True, valid=targets != IGNORE_INDEX)
            terms["adv"] = Term(config.lambda_lbl_adv, loss)
        return Losses("segmenter", terms)

    def _unlabeled(
        self, nets: Networks, valid: Tensor | None, probs: Tensor, latent: Tensor, consistent: bool
    ) -> Losses:
        config = self.config
        terms: dict[str, Term] = {}
        if config.lambda_ulbl_adv > 0:
            loss = real_or_fake(nets["discriminator"](probs), real=True, valid=valid)
            terms["adv_u"] = Term(config.lambda_ulbl_adv, loss)
        if consistent:
            mapped = semantic_to_latent(probs, latent_given_class(self.cooccurrence))
            loss = consistency(probabilities(latent.detach()), mapped, valid=valid)
            terms["cons"] = Term(config.lambda_cons, loss)
        return Losses("segmenter", terms)

    @staticmethod
    def _discriminator(nets: Networks, targets: Tensor, fakes: list[tuple[Tensor, Tensor | None]]) -> Losses:
        valid = targets != IGNORE_INDEX
        probs = fakes[0][0]
        truth = F.one_hot(targets.where(valid, 0), probs.shape[1]) * valid.unsqueeze(-1)
        real = nets["discriminator"](truth.permute(0, 3, 1, 2).to(probs.dtype))
        maps = torch.cat([fake for fake, _ in fakes])
        shown = torch.cat([torch.ones_like(valid) if mask is None else mask for _, mask in fakes])
        fake = nets["discriminator"](maps)
        return Losses(
            "discriminator",
            {
                "real": Term(0.5, real_or_fake(real, real=True, valid=valid)),
                "fake": Term(0.5, real_or_fake(fake, real=False, valid=shown)),
            },
        )

    def effective(self, threshold: float) -> int:
        """Number of effective latent classes: those with P(l|c) > threshold for some class c (Table 4)."""
        seen = latent_given_class(self.cooccurrence)[self.cooccurrence.sum(1) > 0]
        return int((seen > threshold).any(0).sum())

    def summary(self) -> dict[str, float]:
        """Effective latent classes at the paper's two thresholds."""
        return {"effective_0.1": self.effective(0.1), "effective_0.9": self.effective(0.9)}
