"""Cross pseudo supervision: Chen et al., arXiv:2106.01226, with CutMix (its section 4.3)."""

from collections.abc import Iterator

import torch

from latentseg.config import MethodConfig, StrongConfig
from latentseg.data.batches import Batch
from latentseg.features import Features
from latentseg.losses import probabilities
from latentseg.methods.base import Losses, Method, Networks, Term
from latentseg.methods.pseudo import Lesson, PseudoLabels
from latentseg.methods.supervised import supervised_losses
from latentseg.methods.views import CutMix, generator, on_grid, strong_views

BOX_AREA = (0.25, 0.5)
"""Share of an image that a box covers, as in its released code."""


class CrossPseudoSupervision(Method):
    """Two networks with other initial weights: each learns the other's classes on mixed images.

    Every pixel teaches, whatever its confidence. The first network is scored.
    """

    def __init__(self, config: MethodConfig, strong: StrongConfig) -> None:
        """Set the weight."""
        super().__init__()
        self.config, self.strong = config, strong
        self.uses_unlabeled = config.lambda_match > 0

    def forward(self, nets: Networks, batch: Batch, step: int) -> Iterator[Losses]:  # noqa: ARG002 - the contract gives it
        """Yield both networks' labelled parts, then what each learns from the other."""
        names = ("segmenter", "peer")
        for name, term in zip(names, ("ce", "ce_2"), strict=True):
            yield supervised_losses(nets, batch, name, term)
        if batch.unlabeled is None:
            return
        random, upsample = generator(batch), self.config.grid == "pixels"
        given = {name: self._given(nets, name, batch, upsample) for name in names}
        cutmix = CutMix(len(given["peer"].classes), 1.0, random, BOX_AREA)
        view = batch.unlabeled
        if isinstance(view, Features):  # as mean_teacher: dropped from, as in every peer
            [view] = strong_views(batch, self.strong, 1, random)
        mixed = cutmix.mix_view(view)
        for name, other in (("peer", "segmenter"), ("segmenter", "peer")):
            student, target = nets[name](mixed, upsample=upsample).semantic, given[other].mixed(cutmix)
            self.lesson = Lesson(given[other], target, student.detach())
            loss = target.loss(student)
            yield Losses(name, {"match" if name == "segmenter" else "match_2": Term(self.config.lambda_match, loss)})

    @torch.no_grad()
    def _given(self, nets: Networks, name: str, batch: Batch, upsample: bool) -> PseudoLabels:
        """What a network says of the images as they are; all of it counts."""
        probs = probabilities(nets[name](batch.unlabeled, upsample=upsample).semantic)
        return PseudoLabels.of(probs, 0.0, on_grid(batch.unlabeled_valid, probs))
