"""The latent-class method with a given map in place of learned latent classes (arXiv:1912.12936, Table 5)."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from latentseg.config import Groups, MethodConfig
from latentseg.data.batches import Batch
from latentseg.errors import UserError
from latentseg.losses import IGNORE_INDEX, cross_entropy, latent_joint, probabilities
from latentseg.methods.adversarial import Adversary, alternate
from latentseg.methods.base import Losses, Method, Networks, Term
from latentseg.methods.latent import effective, unlabeled_losses
from latentseg.parallel import share, whole


class GivenClasses(Method):
    """The latent branch learns given groups of classes by cross-entropy; the rest is the latent-class method."""

    cooccurrence: Tensor
    """M of Eq. 8, shape (C, L)."""
    group_of: Tensor
    """Group of each target value, int64, shape (256,): of the classes, and 255 for 255."""

    def __init__(self, config: MethodConfig, groups: Sequence[int], alpha: float, start: int) -> None:
        """Set the weights and the map.

        Args:
            config: Weights of the terms; `lambda_latent` is that of the groups' cross-entropy.
            groups: Group of each class, from `group_ids`.
            alpha: Rate of the moving average M, Eq. 8.
            start: First step (0-based) with the consistency term.
        """
        super().__init__()
        self.config, self.alpha, self.start = config, alpha, start
        self.uses_unlabeled = config.lambda_cons > 0 or config.lambda_ulbl_adv > 0
        table = torch.full((256,), IGNORE_INDEX)
        table[: len(groups)] = torch.tensor(groups)
        self.register_buffer("group_of", table)
        self.register_buffer("cooccurrence", torch.zeros(len(groups), max(groups) + 1))

    def forward(self, nets: Networks, batch: Batch, step: int) -> Iterator[Losses]:
        """Yield the labelled part, the unlabelled part and the discriminator's part of a step."""
        config, targets = self.config, batch.targets
        consistent = config.lambda_cons > 0 and step >= self.start

        def labeled(adversary: Adversary, semantic: Tensor, latent: Tensor) -> Losses:
            with torch.no_grad():  # Eq. 8
                counts, _ = latent_joint(probabilities(latent), targets, semantic.shape[1])
                self.cooccurrence.lerp_(whole(counts).to(self.cooccurrence.dtype), self.alpha)
            known = targets != IGNORE_INDEX
            count = share(known)
            terms = {"ce": Term(1.0, cross_entropy(semantic, targets, count))}
            if config.lambda_latent > 0:
                terms["groups"] = Term(config.lambda_latent, cross_entropy(latent, self.group_of[targets], count))
            if adversary.on:
                probs = probabilities(semantic)
                terms |= adversary.judge("adv", config.lambda_lbl_adv, probs, known)
            return Losses("segmenter", terms)

        def unlabeled(adversary: Adversary, semantic: Tensor, latent: Tensor) -> Losses:
            matrix = self.cooccurrence if consistent else None
            return unlabeled_losses(config, adversary, semantic, latent, batch.unlabeled_valid, matrix)

        needed = consistent or config.lambda_ulbl_adv > 0
        yield from alternate(nets, batch, labeled, unlabeled if needed else None, config.grid == "pixels")

    def summary(self) -> dict[str, float]:
        """Effective groups at the paper's two thresholds."""
        return {f"effective_{t}": effective(self.cooccurrence, t) for t in (0.1, 0.9)}


def group_ids(groups: Groups | str, classes: Sequence[str]) -> list[int]:
    """Group of each class, in the order of the classes.

    Args:
        groups: Group -> its classes, or "identity": each class is its own group.
        classes: Names of the classes of the data set.

    Raises:
        UserError: A class is in no group or in two, or the map names a class that the data set lacks.
    """
    if isinstance(groups, str):
        return list(range(len(classes)))
    named = [name for members in groups.values() for name in members]
    problems = [
        f"{title} {', '.join(names)}"
        for title, names in (
            ("not in a group:", [name for name in classes if name not in named]),
            ("more than once:", sorted({name for name in named if named.count(name) > 1})),
            ("not a class:", [name for name in named if name not in classes]),
        )
        if names
    ]
    if problems:
        raise UserError(
            f"method.groups does not fit the classes of the data set ({', '.join(classes)}); {'; '.join(problems)}. "
            f"Each class belongs to exactly one group"
        )
    return [next(i for i, members in enumerate(groups.values()) if name in members) for name in classes]
