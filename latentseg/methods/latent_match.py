"""Weak-to-strong consistency in which no pixel is thrown away: our method, explained in docs/methods.md.

The student imitates a mean teacher on mixed images (arXiv:1906.01916). Where the teacher is not confident, its latent
map supervises the student's semantic map too (arXiv:1912.12936, Eqs. 7 and 10), which says "one of these classes".
"""

from collections.abc import Iterator
from math import log

import torch
from torch import Tensor

from latentseg.config import MethodConfig, StrongConfig
from latentseg.data.batches import Batch
from latentseg.losses import consistency, latent_given_class, probabilities, semantic_to_latent
from latentseg.methods.adversarial import Adversary
from latentseg.methods.base import Losses, Method, Networks, Term
from latentseg.methods.latent import effective, labeled_losses
from latentseg.methods.mean_teacher import half_boxes, imitation
from latentseg.methods.pseudo import Lesson, PseudoLabels
from latentseg.methods.teacher import follow
from latentseg.methods.views import CutMix, generator, on_grid, strong_views
from latentseg.parallel import share


class LatentMatch(Method):
    """Two branches and a mean teacher of both."""

    cooccurrence: Tensor
    """M of Eq. 8, shape (C, L)."""

    def __init__(self, config: MethodConfig, strong: StrongConfig, num_classes: int, alpha: float, start: int) -> None:
        """Set the weights.

        Args:
            config: Weights of the terms, threshold, the teacher's decay, number of latent classes L.
            strong: The strong views.
            num_classes: C.
            alpha: Rate of the moving average M, Eq. 8.
            start: First step (0-based) in which the teacher's latent map supervises.
        """
        super().__init__()
        self.config, self.strong, self.alpha, self.start = config, strong, alpha, start
        self.uses_unlabeled = max(config.lambda_match, config.lambda_cons, config.lambda_ulbl_adv) > 0
        self.register_buffer("cooccurrence", torch.zeros(num_classes, config.num_latent))

    def forward(self, nets: Networks, batch: Batch, step: int) -> Iterator[Losses]:
        """Yield the labelled part, the unlabelled part and, if there is one, the discriminator's part of a step."""
        config, segmenter, teacher = self.config, nets["segmenter"], nets["teacher"]
        follow(teacher, segmenter, config.teacher_decay, step)
        adversary = Adversary(nets)
        semantic, latent = segmenter(batch.images)
        yield labeled_losses(config, adversary, semantic, latent, batch.targets, self.cooccurrence, self.alpha)
        if batch.unlabeled is not None:
            yield self._unlabeled(adversary, segmenter, teacher, batch, step)
        if adversary.on:
            yield adversary.learn(batch)

    def _unlabeled(
        self, adversary: Adversary, segmenter: torch.nn.Module, teacher: torch.nn.Module, batch: Batch, step: int
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
        self.lesson = Lesson(given, target, student.detach())
        loss = imitation(student, cutmix.mix(probs), target) if soft else target.loss(student)
        terms = {"match": Term(config.lambda_match, loss)}
        if config.lambda_cons > 0 and step >= self.start:
            teaching = cutmix.mix(self._map(said.latent if config.latent_target == "latent" else said.semantic))
            terms["cons"] = Term(config.lambda_cons, self._consistency(student, teaching, target))
        if adversary.on:
            terms |= adversary.judge("adv_u", config.lambda_ulbl_adv, probabilities(student), target.valid)
        return Losses("segmenter", terms)

    def _map(self, logits: Tensor) -> Tensor:
        """The teacher's map that supervises the student: probabilities, sharpened; weighed by their certainty."""
        probs = probabilities(logits / self.config.sharpen)
        if not self.config.weigh_entropy:
            return probs
        entropy = -torch.special.xlogy(probs, probs).sum(1, keepdim=True)
        weighed: Tensor = probs * (1 - entropy / log(probs.shape[1]))
        return weighed

    def _consistency(self, student: Tensor, teaching: Tensor, target: PseudoLabels) -> Tensor:
        """Eq. 10 on the strong view, over the number of valid pixels."""
        where = target.rejected if self.config.latent_on == "rejected" else target.valid
        probs = probabilities(student)
        if self.config.latent_target == "latent":
            probs = semantic_to_latent(probs, latent_given_class(self.cooccurrence))
        return consistency(teaching, probs, valid=where, count=share(target.valid))

    def summary(self) -> dict[str, float]:
        """Effective latent classes at the paper's two thresholds."""
        return {f"effective_{t}": effective(self.cooccurrence, t) for t in (0.1, 0.9)}
