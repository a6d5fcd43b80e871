"""Optimisers and their schedule (arXiv:1912.12936, section 4; AdvSemiSeg, arXiv:1802.07934)."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from latentseg.config import OptimConfig
from latentseg.models.segmenter import Segmenter


class RepeatedSGD(SGD):
    """SGD that updates its first parameter group several times per step, with the same gradient.

    AdvSemiSeg's released code does so by naming the encoder's parameters three times in its list.

    Args:
        groups: Parameter groups.
        repeats: Updates of the first group per step.
        lr: Learning rate of groups that name none.
        momentum: Momentum.
        weight_decay: Weight decay.
    """

    def __init__(
        self, groups: list[dict[str, Any]], repeats: int, lr: float, momentum: float, weight_decay: float
    ) -> None:
        super().__init__(groups, lr=lr, momentum=momentum, weight_decay=weight_decay)
        self.repeats = repeats

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all groups once, then the first one again."""
        loss: float | None = super().step(closure)
        every = self.param_groups
        try:
            self.param_groups = every[:1]
            for _ in range(self.repeats - 1):
                super().step()
        finally:
            self.param_groups = every
        return loss


def segmenter_optimizer(segmenter: Segmenter, optim: OptimConfig) -> Optimizer:
    """SGD or AdamW, in which the heads learn faster than the encoder."""
    rates = {"encoder": optim.lr, "heads": optim.lr * optim.head_factor}
    groups: list[dict[str, Any]] = [
        {"params": params, "lr": rates[name], "initial_lr": rates[name]}
        for name, params in segmenter.parameter_groups().items()
        if params
    ]
    if optim.name == "adamw":
        return AdamW(groups, lr=optim.lr, weight_decay=optim.weight_decay)
    if optim.encoder_updates > 1 and not segmenter.frozen:
        return RepeatedSGD(groups, optim.encoder_updates, optim.lr, optim.momentum, optim.weight_decay)
    return SGD(groups, lr=optim.lr, momentum=optim.momentum, weight_decay=optim.weight_decay)


def discriminator_optimizer(discriminator: nn.Module, optim: OptimConfig) -> Optimizer:
    """Adam."""
    group = {"params": list(discriminator.parameters()), "initial_lr": optim.discriminator_lr}
    return Adam([group], lr=optim.discriminator_lr, betas=optim.betas)


def decay(optimizers: dict[str, Optimizer], progress: float, power: float) -> None:
    """Set all learning rates: polynomial decay from the initial rate to 0."""
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * (1 - progress) ** power
