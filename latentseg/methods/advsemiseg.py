"""AdvSemiSeg: Hung et al., Adversarial Learning for Semi-Supervised Semantic Segmentation, arXiv:1802.07934."""

from collections.abc import Iterator

import torch
from torch import Tensor

from latentseg.data.batches import Batch
from latentseg.distributed import mean_divisor
from latentseg.losses import IGNORE_INDEX, cross_entropy, pixel_weights, probabilities, real_or_fake
from latentseg.methods.adversarial import Adversary
from latentseg.methods.base import Losses, Method, Networks, Setup, Term


class AdvSemiSeg(Method):
    """Adversarial on labelled and unlabelled images; self-training where the discriminator trusts the map."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._trusted: Tensor | None = None

    def forward(self, nets: Networks, batch: Batch, step: int) -> Iterator[Losses]:
        """Yield the labelled part, the unlabelled part and the discriminator's part of a step."""
        config, segmenter, adversary = self.config, nets["segmenter"], Adversary(nets)

        semantic = segmenter(batch.images).semantic
        known = batch.targets != IGNORE_INDEX
        count = mean_divisor(pixel_weights(batch.targets, self.weights))
        terms = {"ce": Term(1.0, cross_entropy(semantic, batch.targets, count, self.weights))}
        terms |= adversary.terms("adv", config.lambda_lbl_adv, probabilities(semantic), known)
        yield Losses("segmenter", terms)
        del semantic, terms  # the graph of a part is gone before the next one is built

        teaches = config.lambda_self > 0 and step >= self.start
        if batch.unlabeled is not None and (teaches or config.lambda_ulbl_adv > 0):
            shown, semantic = batch.unlabeled_valid, segmenter(batch.unlabeled).semantic
            probs = probabilities(semantic)
            realness = adversary.discriminate(probs, shown)  # once for both terms
            terms = {}
            if config.lambda_ulbl_adv > 0:
                terms["adv_u"] = Term(config.lambda_ulbl_adv, real_or_fake(realness, True, shown, mean_divisor(shown)))
            if teaches:
                labels = self._pseudo_labels(probs, realness, shown)
                terms["self"] = Term(
                    config.lambda_self, cross_entropy(semantic, labels, mean_divisor(labels != IGNORE_INDEX))
                )
            yield Losses("segmenter", terms)
            del semantic, probs, realness, terms

        if adversary.on:
            yield adversary.learn(batch)

    @torch.no_grad()
    def _pseudo_labels(self, probs: Tensor, realness: Tensor, valid: Tensor | None) -> Tensor:
        """The map's own classes where the discriminator trusts them, 255 elsewhere (its Eq. 5).

        Args:
            probs: S_c, shape (N, C, H, W).
            realness: Logits of the discriminator, shape (N, 1, H, W).
            valid: Pixels that show image, shape (N, H, W), bool; all if None.

        Returns:
            Class ids, int64, shape (N, H, W).
        """
        trusted = realness.squeeze(1).sigmoid() > self.config.trust
        trusted = trusted if valid is None else trusted & valid
        self._trusted = trusted.sum() / (trusted.numel() if valid is None else valid.sum().clamp(min=1))
        return probs.argmax(1).where(trusted, IGNORE_INDEX)

    def summary(self) -> dict[str, float]:
        """Share of the unlabelled pixels that the discriminator trusts, once self-training has begun."""
        return {} if self._trusted is None else {"trusted": float(self._trusted)}
