"""What a method gives to the training loop.

A method computes forwards and losses. It calls no backward, owns no optimiser and logs nothing. Its state (such as
the matrix M) is kept in buffers, which the checkpoint holds.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from latentseg.data.batches import Batch
from latentseg.methods.pseudo import Lesson


class Networks(nn.ModuleDict):
    """The networks by name.

    "segmenter" predicts; adversarial methods have a "discriminator", cps a "peer" of the segmenter; a "teacher" follows
    the segmenter and has no optimiser.
    """


@dataclass(frozen=True)
class Term:
    """One loss term: its weight in the sum, and its value, a scalar with a gradient."""

    weight: float
    value: Tensor


@dataclass(frozen=True)
class Losses:
    """One part of a step. The loop sends it backward as soon as it is yielded, so its graph is gone at once.

    The gradients of all parts of one step add up before the optimisers act.
    """

    network: str
    """Name of the network that learns from this part."""
    terms: dict[str, Term]
    """Terms by name; the same name is used in the log."""


class Method(nn.Module):
    """The contract: called once per step; its buffers are in the checkpoint."""

    uses_unlabeled: bool
    """Whether batches need unlabelled images."""
    lesson: Lesson | None = None
    """What the last step taught by pseudo-labels, for the log."""

    def forward(self, nets: Networks, batch: Batch, step: int) -> Iterator[Losses]:
        """Yield the losses of step `step` (0-based), each with a fresh graph."""
        raise NotImplementedError

    def summary(self) -> dict[str, float]:
        """Figures about the method's state for the log."""
        return {}
