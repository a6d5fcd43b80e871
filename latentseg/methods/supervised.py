"""The baseline: cross-entropy on the labelled images, nothing else."""

from collections.abc import Iterator

from latentseg.data.batches import Batch
from latentseg.distributed import mean_divisor
from latentseg.losses import cross_entropy, pixel_weights
from latentseg.methods.base import Losses, Method, Networks, Term


class Supervised(Method):
    """First row of the paper's Table 3 (arXiv:1912.12936): Eq. 4 alone."""

    def forward(self, nets: Networks, batch: Batch, step: int) -> Iterator[Losses]:  # noqa: ARG002 - the contract gives it
        """Yield the one loss of a step."""
        yield supervised_losses(self, nets, batch)


def supervised_losses(
    method: Method, nets: Networks, batch: Batch, network: str = "segmenter", term: str = "ce"
) -> Losses:
    """The labelled part of a step in every method without a second branch: Eq. 4 for one network.

    Args:
        method: Has the weights of the classes.
        nets: The networks.
        batch: Its labelled images.
        network: Name of the one that learns.
        term: Name of the term.
    """
    logits = nets[network](batch.images).semantic
    count = mean_divisor(pixel_weights(batch.targets, method.weights))
    return Losses(network, {term: Term(1.0, cross_entropy(logits, batch.targets, count, method.weights))})
