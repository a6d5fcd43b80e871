"""Our method: a mean teacher whose map is pooled within latent classes, image by image; explained in docs/methods.md.

The student imitates the teacher on mixed images (arXiv:1906.01916). The latent classes (arXiv:1912.12936) are found.
"""

from collections.abc import Iterator

import torch

from latentseg.data.batches import Batch
from latentseg.losses import on_grid, probabilities
from latentseg.methods.base import Losses, Method, Networks, Setup, Term
from latentseg.methods.latent_classes import LatentClasses
from latentseg.methods.supervised import supervised_losses
from latentseg.methods.weak_to_strong import (
    PseudoLabels,
    PseudoLabelStats,
    ema_update,
    generator,
    half_boxes,
    imitation,
    strong_views,
)

REGROUP_EVERY = 100
"""Steps between two looks at which classes share a latent class."""


class LatentMatch(Method):
    """The student imitates the teacher's map; which class of its latent class a pixel shows, the whole image decides.

    Attributes:
        latent: The latent classes.
    """

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.latent = LatentClasses(len(setup.classes))

    def forward(self, nets: Networks, batch: Batch, step: int) -> Iterator[Losses]:
        """Yield the labelled and the unlabelled part of a step."""
        ema_update(nets["teacher"], nets["segmenter"], self.config.teacher_decay, step)
        self.latent.see_labeled(batch.targets, step)
        yield supervised_losses(self, nets, batch)
        if batch.unlabeled is not None:
            yield self._unlabeled(nets, batch, step)

    def _unlabeled(self, nets: Networks, batch: Batch, step: int) -> Losses:
        config, latent, random = self.config, self.latent, generator(batch)
        upsample = config.grid == "pixels"
        with torch.no_grad():
            probs = probabilities(nets["teacher"](batch.unlabeled, upsample=upsample).semantic)
        valid = on_grid(batch.unlabeled_valid, probs)
        latent.see_shares(probs, valid, step)
        pooled = probs
        if step >= self.start:
            pooled = latent.pool(probs, valid, config.pool_power, batch.neighbours)
        given = PseudoLabels.of(pooled, config.threshold, valid)
        [view] = strong_views(batch, self.strong, 1, random)
        cutmix = half_boxes(len(probs), random)
        student = nets["segmenter"](cutmix.mix_view(view), upsample=upsample).semantic
        target = given.mixed(cutmix)
        self.pseudo_label_stats = PseudoLabelStats(given, target, student.detach())
        latent.see_confusion(cutmix.mix(probs), probabilities(student.detach()), target.valid)
        if (step + 1) % REGROUP_EVERY == 0:
            latent.regroup()
        loss = imitation(student, cutmix.mix(pooled), target, latent.balance(config.balance))
        return Losses("segmenter", {"match": Term(config.lambda_match, loss)})

    def summary(self) -> dict[str, float]:
        """Number of latent classes."""
        return {"latent_classes": float(self.latent.membership.any(0).sum())}
