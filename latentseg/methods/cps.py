"""Cross pseudo supervision: Chen et al., arXiv:2106.01226, with CutMix (its section 4.3)."""

from collections.abc import Iterator

import torch

from latentseg.data.batches import Batch
from latentseg.losses import on_grid, probabilities
from latentseg.methods.base import Losses, Method, Networks, Term
from latentseg.methods.supervised import supervised_losses
from latentseg.methods.weak_to_strong import CutMix, PseudoLabels, dropped_features, generator, learn_strong_view

BOX_AREA = (0.25, 0.5)
"""Share of an image that a box covers, as in its released code."""


class CrossPseudoSupervision(Method):
    """Two networks with other initial weights: each learns the other's classes on mixed images.

    Every pixel teaches, whatever its confidence. The first network is scored.
    """

    def forward(self, nets: Networks, batch: Batch, step: int) -> Iterator[Losses]:  # noqa: ARG002 - the contract gives it
        """Yield both networks' labelled parts, then what each learns from the other."""
        names = ("segmenter", "peer")
        for name, term in zip(names, ("ce", "ce_2"), strict=True):
            yield supervised_losses(self, nets, batch, name, term)
        if batch.unlabeled is None:
            return
        random, upsample = generator(batch), self.config.grid == "pixels"
        given = {name: self._given(nets, name, batch, upsample) for name in names}
        cutmix = CutMix(len(given["peer"].classes), 1.0, random, BOX_AREA)
        view = dropped_features(batch, self.strong, random)
        for name, other, term in (("peer", "segmenter", "match_2"), ("segmenter", "peer", "match")):
            loss, self.pseudo_label_stats = learn_strong_view(nets[name], view, given[other], cutmix, upsample)
            yield Losses(name, {term: Term(self.config.lambda_match, loss)})

    @torch.no_grad()
    def _given(self, nets: Networks, name: str, batch: Batch, upsample: bool) -> PseudoLabels:
        """What a network says of the images as they are; all of it counts."""
        probs = probabilities(nets[name](batch.unlabeled, upsample=upsample).semantic)
        return PseudoLabels.of(probs, 0.0, on_grid(batch.unlabeled_valid, probs))
