"""AdvSemiSeg: Hung et al., Adversarial Learning for Semi-Supervised Semantic Segmentation, arXiv:1802.07934."""

from collections.abc import Iterator

import torch
from torch import Tensor

from latentseg.config import MethodConfig
from latentseg.data.batches import Batch
from latentseg.losses import IGNORE_INDEX, cross_entropy, probabilities, real_or_fake
from latentseg.methods.adversarial import Adversary, alternate
from latentseg.methods.base import Losses, Method, Networks, Term
from latentseg.parallel import share


class AdvSemiSeg(Method):
    """Adversarial on labelled and unlabelled images; self-training where the discriminator trusts the map."""

    def __init__(self, config: MethodConfig, start: int) -> None:
        """Set the weights.

        Args:
            config: Weights of the terms, and the confidence `trust` above which a pixel teaches.
            start: First step (0-based) with self-training.
        """
        super().__init__()
        self.config, self.start = config, start
        self.uses_unlabeled = config.lambda_self > 0 or config.lambda_ulbl_adv > 0
        self._trusted: Tensor | None = None

    def forward(self, nets: Networks, batch: Batch, step: int) -> Iterator[Losses]:
        """Yield the labelled part, the unlabelled part and the discriminator's part of a step."""
        config, targets, shown = self.config, batch.targets, batch.unlabeled_valid
        teaches = config.lambda_self > 0 and step >= self.start

        def labeled(adversary: Adversary, semantic: Tensor, _latent: None) -> Losses:
            known = targets != IGNORE_INDEX
            terms = {"ce": Term(1.0, cross_entropy(semantic, targets, share(known)))}
            if adversary.on:
                probs = probabilities(semantic)
                terms |= adversary.judge("adv", config.lambda_lbl_adv, probs, known)
            return Losses("segmenter", terms)

        def unlabeled(adversary: Adversary, semantic: Tensor, _latent: None) -> Losses:
            probs = probabilities(semantic)
            verdict = adversary.verdict(probs, shown)  # one judgement for both terms
            terms: dict[str, Term] = {}
            if config.lambda_ulbl_adv > 0:
                terms["adv_u"] = Term(config.lambda_ulbl_adv, real_or_fake(verdict, True, shown, share(shown)))
            if teaches:
                labels = self._pseudo_labels(probs, verdict, shown)
                loss = cross_entropy(semantic, labels, share(labels != IGNORE_INDEX))
                terms["self"] = Term(config.lambda_self, loss)
            return Losses("segmenter", terms)

        needed = teaches or config.lambda_ulbl_adv > 0
        yield from alternate(nets, batch, labeled, unlabeled if needed else None)

    @torch.no_grad()
    def _pseudo_labels(self, probs: Tensor, verdict: Tensor, valid: Tensor | None) -> Tensor:
        """The map's own classes where the discriminator trusts them, 255 elsewhere (its Eq. 5)."""
        trusted = verdict.squeeze(1).sigmoid() > self.config.trust
        trusted = trusted if valid is None else trusted & valid
        self._trusted = trusted.sum() / (trusted.numel() if valid is None else valid.sum().clamp(min=1))
        return probs.argmax(1).where(trusted, IGNORE_INDEX)

    def summary(self) -> dict[str, float]:
        """Share of the unlabelled pixels that the discriminator trusts, once self-training has begun."""
        return {} if self._trusted is None else {"trusted": float(self._trusted)}
