"""The baseline: cross-entropy on the labelled images, nothing else."""

from collections.abc import Iterator

from torch import nn

from latentseg.data.batches import Batch
from latentseg.losses import cross_entropy
from latentseg.methods.base import Losses, Networks, Term


class Supervised(nn.Module):
    """First row of the paper's Table 3 (arXiv:1912.12936): Eq. 4 alone."""

    uses_unlabeled = False

    def forward(self, nets: Networks, batch: Batch, _step: int) -> Iterator[Losses]:
        """Yield the one loss of a step."""
        logits = nets["segmenter"](batch.images).semantic
        yield Losses("segmenter", {"ce": Term(1.0, cross_entropy(logits, batch.targets))})

    def summary(self) -> dict[str, float]:
        """Nothing to tell: the method has no state."""
        return {}
