"""The latent-class method: Zatsarynna, Sawatzky, Gall, arXiv:1912.12936, section 3."""

from collections.abc import Iterator

import torch
from torch import Tensor

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
    semantic_to_latent,
)
from latentseg.methods.adversarial import Adversary, alternate
from latentseg.methods.base import Losses, Method, Networks, Term
from latentseg.methods.views import on_grid
from latentseg.parallel import share, whole


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
        """Yield the labelled part, the unlabelled part and the discriminator's part (Eq. 12) of a step."""
        config, targets = self.config, batch.targets
        consistent = config.lambda_cons > 0 and step >= self.start

        def labeled(adversary: Adversary, semantic: Tensor, latent: Tensor) -> Losses:
            return labeled_losses(config, adversary, semantic, latent, targets, self.cooccurrence, self.alpha)

        def unlabeled(adversary: Adversary, semantic: Tensor, latent: Tensor) -> Losses:  # Eq. 11
            matrix = self.cooccurrence if consistent else None
            return unlabeled_losses(config, adversary, semantic, latent, batch.unlabeled_valid, matrix)

        needed = consistent or config.lambda_ulbl_adv > 0
        yield from alternate(nets, batch, labeled, unlabeled if needed else None, config.grid == "pixels")

    def summary(self) -> dict[str, float]:
        """Effective latent classes at the paper's two thresholds."""
        return {f"effective_{t}": effective(self.cooccurrence, t) for t in (0.1, 0.9)}


def labeled_losses(
    config: MethodConfig,
    adversary: Adversary,
    semantic: Tensor,
    latent: Tensor,
    targets: Tensor,
    cooccurrence: Tensor,
    alpha: float,
) -> Losses:
    """What labelled images teach, Eq. 6; M follows, Eq. 8.

    Args:
        config: Weights of the terms.
        adversary: The discriminator's side of the step.
        semantic: Logits, shape (N, C, H, W).
        latent: Logits, shape (N, L, H, W).
        targets: Class ids, shape (N, H, W); 255 is ignored.
        cooccurrence: M, shape (C, L); changed in place.
        alpha: Rate of the moving average.
    """
    counts, pixels = (whole(sums) for sums in latent_joint(probabilities(latent), targets, semantic.shape[1]))
    labeled = targets != IGNORE_INDEX
    with torch.no_grad():
        cooccurrence.lerp_(counts.detach().to(cooccurrence.dtype), alpha)
    terms = {"ce": Term(1.0, cross_entropy(semantic, targets, share(labeled)))}
    if config.lambda_latent > 0:
        terms["latent"] = Term(config.lambda_latent, conditional_entropy(counts / pixels.clamp(min=1)))
    if adversary.on:
        probs = probabilities(semantic)
        terms |= adversary.judge("adv", config.lambda_lbl_adv, probs, labeled)
    return Losses("segmenter", terms)


def unlabeled_losses(
    config: MethodConfig,
    adversary: Adversary,
    semantic: Tensor,
    latent: Tensor,
    valid: Tensor | None,
    cooccurrence: Tensor | None,
) -> Losses:
    """What unlabelled images teach, Eq. 11.

    Args:
        config: Weights of the terms, and which branch learns from the consistency.
        adversary: The discriminator's side of the step.
        semantic: Logits, shape (N, C, H, W).
        latent: Logits, shape (N, L, H, W).
        valid: Pixels that show image and not padding, shape (N, H, W), bool; all if None.
        cooccurrence: M, shape (C, L); None as long as the consistency has not joined.
    """
    terms: dict[str, Term] = {}
    probs = probabilities(semantic)
    if adversary.on:
        terms |= adversary.judge("adv_u", config.lambda_ulbl_adv, probs, valid)
    if cooccurrence is not None:
        mapped = semantic_to_latent(probs, latent_given_class(cooccurrence))
        gradient = config.consistency_gradient
        latent_probs = probabilities(latent.detach() if gradient == "semantic" else latent)
        shown = on_grid(valid, semantic)
        loss = consistency(latent_probs, mapped, shown, share(shown), gradient)
        terms["cons"] = Term(config.lambda_cons, loss)
    return Losses("segmenter", terms)


def effective(cooccurrence: Tensor, threshold: float) -> int:
    """Number of effective latent classes: those with P(l|c) > threshold for some class c (Table 4)."""
    seen = latent_given_class(cooccurrence)[cooccurrence.sum(1) > 0]
    return int((seen > threshold).any(0).sum())
