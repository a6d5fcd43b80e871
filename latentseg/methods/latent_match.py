"""Weak-to-strong consistency in which no pixel is thrown away: our method, explained in docs/methods.md.

The student imitates a mean teacher on mixed images (arXiv:1906.01916). Where the teacher is not confident, its latent
map supervises the student's semantic map too (arXiv:1912.12936, Eqs. 7 and 10), which says "one of these classes".
"""

from collections.abc import Iterator
from math import log

import torch
from torch import Tensor, nn

from latentseg.data.batches import Batch
from latentseg.distributed import mean_divisor
from latentseg.losses import (
    IGNORE_INDEX,
    consistency,
    cross_entropy,
    latent_given_class,
    probabilities,
    semantic_to_latent,
)
from latentseg.methods.adversarial import Adversary
from latentseg.methods.base import Losses, Method, Networks, Setup, Term, empty_cooccurrence
from latentseg.methods.latent import effective_classes, latent_terms
from latentseg.methods.weak_to_strong import (
    CutMix,
    PseudoLabels,
    PseudoLabelStats,
    ema_update,
    generator,
    half_boxes,
    imitation,
    on_grid,
    strong_views,
)


class LatentMatch(Method):
    """Two branches and a mean teacher of both."""

    cooccurrence: Tensor
    """M of Eq. 8, shape (C, L)."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.register_buffer("cooccurrence", empty_cooccurrence(setup))

    def forward(self, nets: Networks, batch: Batch, step: int) -> Iterator[Losses]:
        """Yield the labelled part, the unlabelled part and, if there is one, the discriminator's part of a step."""
        config, segmenter, teacher = self.config, nets["segmenter"], nets["teacher"]
        ema_update(teacher, segmenter, config.teacher_decay, step)
        adversary = Adversary(nets)

        semantic, latent = segmenter(batch.images)
        known = batch.targets != IGNORE_INDEX
        terms = {"ce": Term(1.0, cross_entropy(semantic, batch.targets, mean_divisor(known)))}
        terms |= latent_terms(config, latent, batch.targets, self.cooccurrence, self.alpha)
        terms |= adversary.terms("adv", config.lambda_lbl_adv, probabilities(semantic), known)
        yield Losses("segmenter", terms)
        del semantic, latent, terms  # the graph of a part is gone before the next one is built

        if batch.unlabeled is not None:
            yield self._unlabeled(adversary, segmenter, teacher, batch, step)
        if adversary.on:
            yield adversary.learn(batch)

    def _unlabeled(
        self, adversary: Adversary, segmenter: nn.Module, teacher: nn.Module, batch: Batch, step: int
    ) -> Losses:
        config, random, upsample = self.config, generator(batch), self.config.grid == "pixels"
        with torch.no_grad():
            said = teacher(batch.unlabeled, upsample=upsample)
            probs = probabilities(said.semantic)
        given = PseudoLabels.of(probs, config.threshold, on_grid(batch.unlabeled_valid, probs))
        [view] = strong_views(batch, self.strong, 1, random)
        soft = config.match_loss == "squared"
        cutmix = half_boxes(len(probs), random) if soft else CutMix(len(probs), self.strong.cutmix, random)
        target = given.mixed(cutmix)
        student = segmenter(cutmix.mix_view(view), upsample=upsample).semantic
        self.pseudo_label_stats = PseudoLabelStats(given, target, student.detach())
        loss = imitation(student, cutmix.mix(probs), target) if soft else target.loss(student)
        terms = {"match": Term(config.lambda_match, loss)}
        if config.lambda_cons > 0 and step >= self.start:
            teaching = cutmix.mix(self._map(said.latent if config.latent_target == "latent" else said.semantic))
            terms["cons"] = Term(config.lambda_cons, self._consistency(student, teaching, target))
        terms |= adversary.terms("adv_u", config.lambda_ulbl_adv, probabilities(student), target.valid)
        return Losses("segmenter", terms)

    def _map(self, logits: Tensor) -> Tensor:
        """The teacher's map that supervises the student, from its logits (N, K, h, w), in that shape.

        Probabilities, sharpened; weighed by their certainty if the option says so.
        """
        probs = probabilities(logits / self.config.sharpen)
        if not self.config.weigh_entropy:
            return probs
        entropy = -torch.special.xlogy(probs, probs).sum(1, keepdim=True)
        weighed: Tensor = probs * (1 - entropy / log(probs.shape[1]))
        return weighed

    def _consistency(self, student: Tensor, teaching: Tensor, target: PseudoLabels) -> Tensor:
        """Eq. 10 on the strong view, over the number of valid pixels.

        Args:
            student: Logits of the classes, shape (N, C, h, w).
            teaching: The teacher's map, mixed, shape (N, K, h, w).
            target: The teacher's classes, mixed: which pixels are valid, and which confident.
        """
        where = target.rejected if self.config.latent_on == "rejected" else target.valid
        probs = probabilities(student)
        if self.config.latent_target == "latent":
            probs = semantic_to_latent(probs, latent_given_class(self.cooccurrence))
        return consistency(teaching, probs, valid=where, count=mean_divisor(target.valid))

    def summary(self) -> dict[str, float]:
        """Effective latent classes at the paper's two thresholds."""
        return effective_classes(self.cooccurrence)
