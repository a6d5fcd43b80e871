"""UniMatch: Yang et al., Revisiting Weak-to-Strong Consistency in ... Semantic Segmentation, arXiv:2208.09910."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from latentseg.data.batches import Batch
from latentseg.losses import on_grid, probabilities
from latentseg.methods.base import Losses, Method, Networks, Term
from latentseg.methods.supervised import supervised_losses
from latentseg.methods.weak_to_strong import (
    CutMix,
    PseudoLabels,
    drop_channels,
    generator,
    learn_strong_view,
    strong_views,
)

DROPPED = 0.5
"""Share of the encoder's channels that are dropped in the perturbed stream."""
SHARES = {"features": 0.5, "strong": 0.25}
"""Of the weight: the perturbed features, and each of the two strong views (its Eq. 6, lambda = mu = 0.5)."""


class UniMatch(Method):
    """The weak view's confident classes teach two strong views, and the weak view with features dropped."""

    def forward(self, nets: Networks, batch: Batch, step: int) -> Iterator[Losses]:  # noqa: ARG002 - the contract gives it
        """Yield the labelled part, the perturbed features' part and each strong view's part of a step."""
        config, segmenter = self.config, nets["segmenter"]
        yield supervised_losses(self, nets, batch)
        if batch.unlabeled is None:
            return
        random, upsample = generator(batch), config.grid == "pixels"

        def with_dropped(maps: Sequence[Tensor]) -> list[Tensor]:
            """The features as they are, and behind them the same with channels dropped: the encoder runs once."""
            return [torch.cat(both) for both in zip(maps, drop_channels(maps, DROPPED, random), strict=True)]

        weak, dropped = segmenter(batch.unlabeled, perturb=with_dropped, upsample=upsample).semantic.chunk(2)
        probs = probabilities(weak.detach())
        given = PseudoLabels.of(probs, config.threshold, on_grid(batch.unlabeled_valid, probs))
        yield Losses("segmenter", {"match_f": Term(config.lambda_match * SHARES["features"], given.loss(dropped))})
        del weak, dropped  # the graph of a part is gone before the next one is built
        for number, view in enumerate(strong_views(batch, self.strong, 2, random), start=1):
            cutmix = CutMix(len(probs), self.strong.cutmix, random)
            loss, self.pseudo_label_stats = learn_strong_view(segmenter, view, given, cutmix, upsample)
            term = Term(config.lambda_match * SHARES["strong"], loss)
            yield Losses("segmenter", {f"match_{number}": term})
