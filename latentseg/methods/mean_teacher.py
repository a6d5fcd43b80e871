"""Mean teacher with CutMix: French et al., Semi-supervised semantic segmentation needs strong, varied perturbations."""

from collections.abc import Iterator

import torch

from latentseg.data.batches import Batch
from latentseg.losses import on_grid, probabilities
from latentseg.methods.base import Losses, Method, Networks, Term
from latentseg.methods.supervised import supervised_losses
from latentseg.methods.weak_to_strong import (
    PseudoLabels,
    PseudoLabelStats,
    dropped_features,
    ema_update,
    generator,
    half_boxes,
    imitation,
)


class MeanTeacher(Method):
    """The student on mixed images learns the teacher's mixed probabilities (arXiv:1906.01916, section 3.3).

    The squared difference is weighed by the share of pixels on which the teacher is confident, as in its released code.
    """

    def forward(self, nets: Networks, batch: Batch, step: int) -> Iterator[Losses]:
        """Yield the labelled and the unlabelled part of a step."""
        config, segmenter, teacher = self.config, nets["segmenter"], nets["teacher"]
        ema_update(teacher, segmenter, config.teacher_decay, step)
        yield supervised_losses(self, nets, batch)
        if batch.unlabeled is None:
            return
        random, upsample = generator(batch), config.grid == "pixels"
        with torch.no_grad():
            probs = probabilities(teacher(batch.unlabeled, upsample=upsample).semantic)
        given = PseudoLabels.of(probs, config.threshold, on_grid(batch.unlabeled_valid, probs))
        cutmix = half_boxes(len(probs), random)
        view = dropped_features(batch, self.strong, random)
        student = segmenter(cutmix.mix_view(view), upsample=upsample).semantic
        target = given.mixed(cutmix)
        self.pseudo_label_stats = PseudoLabelStats(given, target, student.detach())
        loss = imitation(student, cutmix.mix(probs), target)
        yield Losses("segmenter", {"match": Term(config.lambda_match, loss)})
