"""The latent-class method with a given map in place of learned latent classes (arXiv:1912.12936, Table 5)."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from latentseg.config import Groups
from latentseg.data.batches import Batch
from latentseg.distributed import all_reduce_sum, mean_divisor
from latentseg.errors import UserError
from latentseg.losses import IGNORE_INDEX, cross_entropy, latent_joint, pixel_weights, probabilities
from latentseg.methods.adversarial import Adversary
from latentseg.methods.base import Losses, Method, Networks, Setup, Term, empty_cooccurrence
from latentseg.methods.latent import consistency_terms, effective_classes, update_cooccurrence


class GivenClasses(Method):
    """The latent branch learns given groups of classes by cross-entropy; the rest is the latent-class method."""

    cooccurrence: Tensor
    """M of Eq. 8, shape (C, L)."""
    group_of: Tensor
    """Group of each target value, int64, shape (256,): of the classes, and 255 for 255."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        groups = group_ids(setup.config.groups or "identity", setup.classes)
        table = torch.full((256,), IGNORE_INDEX)
        table[: len(groups)] = torch.tensor(groups)
        self.register_buffer("group_of", table)
        self.register_buffer("cooccurrence", empty_cooccurrence(setup))

    def forward(self, nets: Networks, batch: Batch, step: int) -> Iterator[Losses]:
        """Yield the labelled part, the unlabelled part and the discriminator's part of a step."""
        config, segmenter, adversary = self.config, nets["segmenter"], Adversary(nets)

        semantic, latent = segmenter(batch.images)
        counts, _ = latent_joint(probabilities(latent.detach()), batch.targets, semantic.shape[1])
        update_cooccurrence(self.cooccurrence, all_reduce_sum(counts), self.alpha)
        known = batch.targets != IGNORE_INDEX
        count = mean_divisor(pixel_weights(batch.targets, self.weights))
        terms = {"ce": Term(1.0, cross_entropy(semantic, batch.targets, count, self.weights))}
        if config.lambda_latent > 0:
            groups = self.group_of[batch.targets]
            terms["groups"] = Term(config.lambda_latent, cross_entropy(latent, groups, mean_divisor(known)))
        terms |= adversary.terms("adv", config.lambda_lbl_adv, probabilities(semantic), known)
        yield Losses("segmenter", terms)
        del semantic, latent, terms  # the graph of a part is gone before the next one is built

        consistent = config.lambda_cons > 0 and step >= self.start
        if batch.unlabeled is not None and (consistent or config.lambda_ulbl_adv > 0):
            semantic, latent = segmenter(batch.unlabeled, upsample=config.grid == "pixels" or adversary.on)
            probs = probabilities(semantic)
            terms = adversary.terms("adv_u", config.lambda_ulbl_adv, probs, batch.unlabeled_valid)
            if consistent:
                terms |= consistency_terms(config, probs, latent, batch.unlabeled_valid, self.cooccurrence)
            yield Losses("segmenter", terms)
            del semantic, latent, probs, terms

        if adversary.on:
            yield adversary.learn(batch)

    def summary(self) -> dict[str, float]:
        """Effective groups at the paper's two thresholds."""
        return effective_classes(self.cooccurrence)


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
