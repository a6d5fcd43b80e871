"""What a method gives to the training loop.

A method computes forwards and losses. It calls no backward, owns no optimiser and logs nothing. Its state (such as
the matrix M) is kept in buffers, which the checkpoint holds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from math import ceil

import torch
from torch import Tensor, nn

from latentseg.config import Config, MethodConfig, StrongConfig
from latentseg.data.batches import Batch
from latentseg.methods.table import METHODS
from latentseg.methods.weak_to_strong import PseudoLabelStats


class Networks(nn.ModuleDict):
    """The networks by name.

    "segmenter" predicts; adversarial methods have a "discriminator", cps a "peer" of the segmenter; a "teacher" is a
    moving average of the segmenter and has no optimiser.
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


@dataclass(frozen=True)
class Setup:
    """What a method is built from."""

    config: MethodConfig
    strong: StrongConfig
    classes: tuple[str, ...]
    """Names of the C semantic classes."""
    alpha: float
    """Rate of the moving average M, Eq. 8."""
    start: int
    """First step (0-based) with what joins late: consistency, self-training or pooling."""
    weights: tuple[float, ...] | None = None
    """Of the classes in the labelled cross-entropy; None: all count the same."""


class Method(nn.Module):
    """The contract: called once per step; its buffers are in the checkpoint.

    Attributes:
        config: Weights and other options.
        strong: Strength of the strong views.
        alpha: Rate of the moving average M, Eq. 8.
        start: First step (0-based) with the term that joins late.
        uses_unlabeled: Whether batches need unlabelled images.
        pseudo_label_stats: What the last step's pseudo-labels were, for the log; None without any.
        weights: Of the classes in the labelled cross-entropy, shape (C,); None: all count the same.
    """

    weights: Tensor | None

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.config, self.strong = setup.config, setup.strong
        self.alpha, self.start = setup.alpha, setup.start
        self.uses_unlabeled = METHODS[setup.config.name].uses_unlabeled(setup.config)
        self.pseudo_label_stats: PseudoLabelStats | None = None
        weights = None if setup.weights is None else torch.tensor(setup.weights)
        self.register_buffer("weights", weights, persistent=False)  # they follow from the labels; no state

    def forward(self, nets: Networks, batch: Batch, step: int) -> Iterator[Losses]:
        """Yield the losses of step `step` (0-based), each with a fresh graph."""
        raise NotImplementedError

    def summary(self) -> dict[str, float]:
        """Figures about the method's state for the log."""
        return {}


def empty_cooccurrence(setup: Setup) -> Tensor:
    """M^0 of Eq. 8: zeros, shape (C, L)."""
    num_classes = len(setup.classes)
    return torch.zeros(num_classes, METHODS[setup.config.name].second_channels(setup.config, num_classes))


def build_method(
    config: Config,
    classes: Sequence[str],
    num_labeled: int,
    num_images: int,
    weights: tuple[float, ...] | None = None,
) -> Method:
    """Build the method that the configuration names.

    Args:
        config: The run.
        classes: Names of the semantic classes.
        num_labeled: Labelled training images.
        num_images: All training images, labelled and unlabelled.
        weights: Of the classes in the labelled cross-entropy.

    Raises:
        UserError: `method.groups` does not fit the classes.
    """
    method = config.method
    images = {"dataset": num_images, "labeled": num_labeled}
    given = method.ema_alpha
    alpha = min(1.0, config.batch_size / images[given]) if isinstance(given, str) else given
    start = ceil(method.consistency_start * config.steps)
    return build(Setup(method, config.strong, tuple(classes), alpha, start, weights))


def build(setup: Setup) -> Method:
    """Build a method from its parts.

    Raises:
        UserError: `method.groups` does not fit the classes.
    """
    module, _, name = METHODS[setup.config.name].where.partition(":")
    built = getattr(import_module(f"latentseg.methods.{module}"), name)(setup)
    assert isinstance(built, Method)
    return built
