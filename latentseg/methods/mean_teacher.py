"""Mean teacher with CutMix: French et al., Semi-supervised semantic segmentation needs strong, varied perturbations."""

from collections.abc import Iterator

import torch
from torch import Tensor

from latentseg.config import MethodConfig, StrongConfig
from latentseg.data.batches import Batch
from latentseg.features import Features
from latentseg.losses import probabilities, squared_difference
from latentseg.methods.base import Losses, Method, Networks, Term
from latentseg.methods.pseudo import Lesson, PseudoLabels
from latentseg.methods.supervised import supervised_losses
from latentseg.methods.teacher import follow
from latentseg.methods.views import CutMix, generator, on_grid, strong_views
from latentseg.parallel import share

BOX_AREA = (0.5, 0.5)
"""A box covers half of each image (arXiv:1906.01916, section 3.4)."""
BOX_ASPECT = (0.5, 2.0)
"""Height over width of a box, which at most spans the image."""


class MeanTeacher(Method):
    """The student on mixed images learns the teacher's mixed probabilities (arXiv:1906.01916, section 3.3).

    The squared difference is weighed by the share of pixels on which the teacher is confident, as in its released code.
    """

    def __init__(self, config: MethodConfig, strong: StrongConfig) -> None:
        """Set weight, threshold and the teacher's decay."""
        super().__init__()
        self.config, self.strong = config, strong
        self.uses_unlabeled = config.lambda_match > 0

    def forward(self, nets: Networks, batch: Batch, step: int) -> Iterator[Losses]:
        """Yield the labelled and the unlabelled part of a step."""
        config, segmenter, teacher = self.config, nets["segmenter"], nets["teacher"]
        follow(teacher, segmenter, config.teacher_decay, step)
        yield supervised_losses(nets, batch)
        if batch.unlabeled is None:
            return
        random, upsample = generator(batch), config.grid == "pixels"
        with torch.no_grad():
            probs = probabilities(teacher(batch.unlabeled, upsample=upsample).semantic)
        given = PseudoLabels.of(probs, config.threshold, on_grid(batch.unlabeled_valid, probs))
        cutmix = half_boxes(len(probs), random)
        # The paper's only change is CutMix. Cached features are dropped from as well, as in every peer.
        view = batch.unlabeled
        if isinstance(view, Features):
            [view] = strong_views(batch, self.strong, 1, random)
        student = segmenter(cutmix.mix_view(view), upsample=upsample).semantic
        target = given.mixed(cutmix)
        self.lesson = Lesson(given, target, student.detach())
        loss = imitation(student, cutmix.mix(probs), target)
        yield Losses("segmenter", {"match": Term(config.lambda_match, loss)})


def half_boxes(images: int, random: torch.Generator) -> CutMix:
    """CutMix with a box of half the area in each of N images."""
    return CutMix(images, 1.0, random, BOX_AREA, BOX_ASPECT)


def imitation(student: Tensor, probs: Tensor, target: PseudoLabels) -> Tensor:
    """Squared difference to the teacher's probabilities, weighed by the share of pixels on which it is confident.

    Args:
        student: Logits on mixed images, shape (N, C, h, w).
        probs: The teacher's probabilities, mixed, of the same shape.
        target: The teacher's classes, mixed: which pixels are valid, and which confident.
    """
    accepted, valid = share(target.accepted), share(target.valid)
    sure = accepted.to(probs.dtype) / valid.where(valid > 0, 1)
    return sure * squared_difference(probabilities(student), probs, target.valid, valid)
