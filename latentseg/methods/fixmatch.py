"""FixMatch: Sohn et al., arXiv:2001.07685, in the form that UniMatch (arXiv:2208.09910, section 3.1) gives it."""

from collections.abc import Iterator

import torch

from latentseg.data.batches import Batch
from latentseg.losses import on_grid, probabilities
from latentseg.methods.base import Losses, Method, Networks, Term
from latentseg.methods.supervised import supervised_losses
from latentseg.methods.weak_to_strong import CutMix, PseudoLabels, generator, learn_strong_view, strong_views


class FixMatch(Method):
    """Confident predictions on the weak view are the labels of the strong view; all other pixels are left out."""

    def forward(self, nets: Networks, batch: Batch, step: int) -> Iterator[Losses]:  # noqa: ARG002 - the contract gives it
        """Yield the labelled and the unlabelled part of a step."""
        config, segmenter = self.config, nets["segmenter"]
        yield supervised_losses(self, nets, batch)
        if batch.unlabeled is None:
            return
        random, upsample = generator(batch), config.grid == "pixels"
        with torch.no_grad():
            probs = probabilities(segmenter(batch.unlabeled, upsample=upsample).semantic)
        given = PseudoLabels.of(probs, config.threshold, on_grid(batch.unlabeled_valid, probs))
        [view] = strong_views(batch, self.strong, 1, random)
        cutmix = CutMix(len(probs), self.strong.cutmix, random)
        loss, self.pseudo_label_stats = learn_strong_view(segmenter, view, given, cutmix, upsample)
        yield Losses("segmenter", {"match": Term(config.lambda_match, loss)})
