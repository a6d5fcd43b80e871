"""The latent-class method: Zatsarynna, Sawatzky, Gall, arXiv:1912.12936, section 3."""

from collections.abc import Iterator

import torch
from torch import Tensor

from latentseg.config import MethodConfig
from latentseg.data.batches import Batch
from latentseg.distributed import all_reduce_sum, mean_divisor
from latentseg.losses import (
    IGNORE_INDEX,
    conditional_entropy,
    consistency,
    cross_entropy,
    latent_given_class,
    latent_joint,
    on_grid,
    pixel_weights,
    probabilities,
    semantic_to_latent,
)
from latentseg.methods.adversarial import Adversary
from latentseg.methods.base import Losses, Method, Networks, Setup, Term, empty_cooccurrence


class Latent(Method):
    """Learns latent classes on labelled images; on unlabelled ones their map teaches the semantic branch.

    Each weight may be 0: its term is then left out, with every forward pass that only it needs.
    """

    cooccurrence: Tensor
    """M of Eq. 8, shape (C, L): a moving average of how often classes and latent classes meet."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.register_buffer("cooccurrence", empty_cooccurrence(setup))

    def forward(self, nets: Networks, batch: Batch, step: int) -> Iterator[Losses]:
        """Yield the labelled part, the unlabelled part and the discriminator's part of a step."""
        config, segmenter, adversary = self.config, nets["segmenter"], Adversary(nets)

        semantic, latent = segmenter(batch.images)
        known = batch.targets != IGNORE_INDEX
        count = mean_divisor(pixel_weights(batch.targets, self.weights))
        terms = {"ce": Term(1.0, cross_entropy(semantic, batch.targets, count, self.weights))}  # Eq. 4
        terms |= latent_terms(config, latent, batch.targets, self.cooccurrence, self.alpha)  # Eqs. 1 and 8
        terms |= adversary.terms("adv", config.lambda_lbl_adv, probabilities(semantic), known)  # Eq. 5
        yield Losses("segmenter", terms)  # Eq. 6
        del semantic, latent, terms  # the graph of a part is gone before the next one is built

        consistent = config.lambda_cons > 0 and step >= self.start
        if batch.unlabeled is not None and (consistent or config.lambda_ulbl_adv > 0):
            semantic, latent = segmenter(batch.unlabeled, upsample=config.grid == "pixels" or adversary.on)
            probs = probabilities(semantic)
            terms = adversary.terms("adv_u", config.lambda_ulbl_adv, probs, batch.unlabeled_valid)  # Eq. 5
            if consistent:  # Eqs. 7, 9 and 10
                terms |= consistency_terms(config, probs, latent, batch.unlabeled_valid, self.cooccurrence)
            yield Losses("segmenter", terms)  # Eq. 11
            del semantic, latent, probs, terms

        if adversary.on:
            yield adversary.learn(batch)  # Eq. 12

    def summary(self) -> dict[str, float]:
        """Effective latent classes at the paper's two thresholds."""
        return effective_classes(self.cooccurrence)


def latent_terms(
    config: MethodConfig, latent: Tensor, targets: Tensor, cooccurrence: Tensor, alpha: float
) -> dict[str, Term]:
    """What labelled images teach the latent branch, Eq. 1; M follows, Eq. 8.

    Args:
        config: Weight of the term.
        latent: Logits, shape (N, L, H, W).
        targets: Class ids, shape (N, H, W); 255 is ignored.
        cooccurrence: M, shape (C, L); changed in place.
        alpha: Rate of the moving average.
    """
    counts, pixels = (all_reduce_sum(sums) for sums in latent_joint(probabilities(latent), targets, len(cooccurrence)))
    update_cooccurrence(cooccurrence, counts, alpha)
    if config.lambda_latent == 0:
        return {}
    return {"latent": Term(config.lambda_latent, conditional_entropy(counts / pixels.clamp(min=1)))}


@torch.no_grad()
def update_cooccurrence(cooccurrence: Tensor, counts: Tensor, alpha: float) -> None:
    """Move M, shape (C, L), towards the counts of a batch, shape (C, L), in place: Eq. 8."""
    cooccurrence.lerp_(counts.detach().to(cooccurrence.dtype), alpha)


def consistency_terms(
    config: MethodConfig, probs: Tensor, latent: Tensor, valid: Tensor | None, cooccurrence: Tensor
) -> dict[str, Term]:
    """What the latent map of unlabelled images teaches the semantic branch, Eq. 10.

    Args:
        config: Weight of the term, and which branch learns from it.
        probs: S_c, shape (N, C, h, w).
        latent: Logits of the latent branch, shape (N, L, h, w).
        valid: Pixels that show image and not padding, shape (N, H, W), bool; all if None.
        cooccurrence: M, shape (C, L).
    """
    mapped = semantic_to_latent(probs, latent_given_class(cooccurrence))  # Eqs. 7 and 9
    gradient = config.consistency_gradient
    latent_probs = probabilities(latent.detach() if gradient == "semantic" else latent)
    shown = on_grid(valid, probs)
    return {"cons": Term(config.lambda_cons, consistency(latent_probs, mapped, shown, mean_divisor(shown), gradient))}


def effective_classes(cooccurrence: Tensor) -> dict[str, float]:
    """Effective latent classes of M, shape (C, L), at the paper's two thresholds, for the log."""
    return {f"effective_{t}": effective(cooccurrence, t) for t in (0.1, 0.9)}


def effective(cooccurrence: Tensor, threshold: float) -> int:
    """Number of effective latent classes: those with P(l|c) > threshold for some class c (Table 4).

    Args:
        cooccurrence: M, shape (C, L).
        threshold: t of the paper.
    """
    seen = latent_given_class(cooccurrence)[cooccurrence.sum(1) > 0]
    return int((seen > threshold).any(0).sum())
