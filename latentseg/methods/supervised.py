"""The baseline: cross-entropy on the labelled images, nothing else."""

from collections.abc import Iterator

from latentseg.data.batches import Batch
from latentseg.losses import cross_entropy
from latentseg.methods.base import Losses, Method, Networks, Term


class Supervised(Method):
    """First row of the paper's Table 3 (arXiv:1912.12936): Eq. 4 alone."""

    uses_unlabeled = False

    def forward(self, nets: Networks, batch: Batch, step: int) -> Iterator[Losses]:  # noqa: ARG002 - the contract gives it
        """Yield the one loss of a step."""
        logits = nets["segmenter"](batch.images).semantic
        yield Losses("segmenter", {"ce": Term(1.0, cross_entropy(logits, batch.targets))})
