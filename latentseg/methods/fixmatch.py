"""FixMatch: Sohn et al., arXiv:2001.07685, in the form that UniMatch (arXiv:2208.09910, section 3.1) gives it."""

from collections.abc import Iterator

import torch

from latentseg.config import MethodConfig, StrongConfig
from latentseg.data.batches import Batch
from latentseg.losses import probabilities
from latentseg.methods.base import Losses, Method, Networks, Term
from latentseg.methods.pseudo import Lesson, PseudoLabels
from latentseg.methods.supervised import supervised_losses
from latentseg.methods.views import CutMix, generator, on_grid, strong_views


class FixMatch(Method):
    """Confident predictions on the weak view are the labels of the strong view; all other pixels are left out."""

    def __init__(self, config: MethodConfig, strong: StrongConfig) -> None:
        """Set weight and threshold."""
        super().__init__()
        self.config, self.strong = config, strong
        self.uses_unlabeled = config.lambda_match > 0

    def forward(self, nets: Networks, batch: Batch, step: int) -> Iterator[Losses]:  # noqa: ARG002 - the contract gives it
        """Yield the labelled and the unlabelled part of a step."""
        config, segmenter = self.config, nets["segmenter"]
        yield supervised_losses(nets, batch)
        if batch.unlabeled is None:
            return
        random, upsample = generator(batch), config.grid == "pixels"
        with torch.no_grad():
            probs = probabilities(segmenter(batch.unlabeled, upsample=upsample).semantic)
        given = PseudoLabels.of(probs, config.threshold, on_grid(batch.unlabeled_valid, probs))
        [view] = strong_views(batch, self.strong, 1, random)
        cutmix = CutMix(len(probs), self.strong.cutmix, random)
        target = given.mixed(cutmix)
        student = segmenter(cutmix.mix_view(view), upsample=upsample).semantic
        self.lesson = Lesson(given, target, student.detach())
        yield Losses("segmenter", {"match": Term(config.lambda_match, target.loss(student))})
