"""Latent classes that are found, not trained: classes that are confused pixel by pixel, but hardly ever share an image.

arXiv:1912.12936 asks a latent class to tell the semantic class of a pixel, H(C|L) in Eq. 1. Here it has to tell it once
the image is known, H(C|L, image): what the image as a whole settles (which animal it shows) no pixel needs to know.
Sizes: N images, C classes, h x w cells. All state is in buffers, the same in every process.
"""

import torch
from torch import Tensor, nn

from latentseg.distributed import all_reduce_sum
from latentseg.losses import IGNORE_INDEX, one_hot, semantic_to_latent

LIMIT = 0.2
"""Nats lost per nat of doubt removed up to which classes are merged."""
TOGETHER = 0.02
"""Weight of an imagined image that shows all classes: those seen in few images are not known to exclude each other."""
LABELED_RATE = 0.002
"""Least rate of the moving averages over labelled images."""
SHARES_RATE = 0.005
"""Least rate of the moving average of the shares."""
CONFUSION_RATE = 0.01
"""Rate of the moving average of the confusions."""
PRIOR = 0.03
"""Weight of the usual shares beside those of one image, in pooling."""
ROUNDS = 5
"""Rounds of expectation maximisation, in pooling."""


class LatentClasses(nn.Module):
    """Which classes share a latent class, found while a student imitates a teacher.

    Args:
        num_classes: C.
    """

    together: Tensor
    """Nats per labelled pixel lost, although the image is known, if two classes were one, shape (C, C)."""
    confusion: Tensor
    """Joint of the teacher's class on the weak view and the student's on the strong one, shape (C, C)."""
    labeled_shares: Tensor
    """Shares of the classes in the labelled images, each image counted alike, shape (C,)."""
    shares: Tensor
    """Shares of the classes in the teacher's maps of the unlabelled images, shape (C,)."""
    membership: Tensor
    """P(l|c), 0 or 1, shape (C, C): column l is latent class l; columns at the end may be empty."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        for name in ("together", "confusion"):
            self.register_buffer(name, torch.zeros(num_classes, num_classes))
        for name in ("labeled_shares", "shares"):
            self.register_buffer(name, torch.zeros(num_classes))
        self.register_buffer("membership", torch.eye(num_classes))

    @torch.no_grad()
    def see_labeled(self, targets: Tensor, step: int) -> None:
        """Learn which classes images show together.

        Args:
            targets: Class ids, shape (N, H, W), int64; 255 is ignored, and so is an image of nothing else.
            step: Number of the step, from 0.
        """
        images = (targets != IGNORE_INDEX).flatten(1).any(1).sum()
        areas = one_hot(targets, len(self.shares), self.shares.dtype).sum((2, 3))
        shares = areas / areas.sum(1, keepdim=True).clamp(min=1)
        rate = max(LABELED_RATE, 1 / (step + 1))
        _move(self.together, pair_entropy(shares[:, :, None], shares[:, None]).sum(0), images, rate)
        _move(self.labeled_shares, shares.sum(0), images, rate)

    @torch.no_grad()
    def see_shares(self, probs: Tensor, valid: Tensor, step: int) -> None:
        """Learn the usual shares of the classes.

        Args:
            probs: The teacher's class probabilities, shape (N, C, h, w).
            valid: Cells that show image, bool, shape (N, h, w).
            step: Number of the step, from 0.
        """
        total = probs.where(valid[:, None], 0).sum((0, 2, 3))
        _move(self.shares, total, valid.sum(), max(SHARES_RATE, 1 / (step + 1)))

    @torch.no_grad()
    def see_confusion(self, teacher: Tensor, student: Tensor, valid: Tensor) -> None:
        """Learn what is confused.

        Args:
            teacher: Class probabilities, shape (N, C, h, w).
            student: Its own of the same (mixed) images, of the same shape.
            valid: Cells that show image, bool, shape (N, h, w).
        """
        one, other = (maps.where(valid[:, None], 0).transpose(0, 1).flatten(1) for maps in (teacher, student))
        _move(self.confusion, one @ other.T, valid.sum(), CONFUSION_RATE)

    @torch.no_grad()
    def regroup(self) -> None:
        """Merge classes anew, the best pair of groups first, while it loses less than LIMIT of the doubt it removes.

        Doubt removed: entropy within a 2 x 2 table of confusions, teacher's class by student's. Lost: nats per pixel to
        tell the two apart in a labelled image that is known. Both add up over the pairs of two groups.
        """
        joint = self.confusion.cpu().double()
        joint = (joint + joint.T) / (2 * joint.sum()).clamp(min=1e-9)
        hits, shares = joint.diagonal(), self.labeled_shares.cpu().double()
        removed = pair_entropy(hits[:, None], joint) + pair_entropy(joint, hits[None])
        lost = self.together.cpu().double() + TOGETHER * pair_entropy(shares[:, None], shares[None])
        groups = torch.eye(len(hits), dtype=torch.float64)  # a row per group
        while len(groups) > 1:
            ratio = (groups @ lost @ groups.T) / (groups @ removed @ groups.T).clamp(min=1e-9)
            ratio.fill_diagonal_(float("inf"))
            one, other = sorted(divmod(int(ratio.argmin()), len(groups)))
            if ratio[one, other] > LIMIT:
                break
            groups[one] += groups[other]
            groups = torch.cat([groups[:other], groups[other + 1 :]])
        self.membership.zero_()
        self.membership[:, : len(groups)] = groups.T.to(self.membership)

    def balance(self, power: float) -> Tensor:
        """Weights of the classes, shape (C,): share of the latent class to the power of -`power`, 1 on average."""
        weights = (self._within() @ self.shares).clamp(min=1e-3) ** -power
        balanced: Tensor = weights / (weights * self.shares).sum().clamp(min=1e-9)
        return balanced

    @torch.no_grad()
    def pool(self, probs: Tensor, valid: Tensor, power: float, neighbours: Tensor | None = None) -> Tensor:
        """Let each image decide between the classes of a latent class; the map of the latent classes stays as it is.

        Expectation maximisation of an image's own class shares (Saerens et al., Adjusting the Outputs of a Classifier
        to New a Priori Probabilities, Neural Computation 2002), within each latent class: a class that holds much of
        its latent class in this image gains at every pixel of it.

        Args:
            probs: Class probabilities, shape (N, C, h, w).
            valid: Cells that show image and vote, bool, shape (N, h, w).
            power: Exponent of the ratio of the image's shares to the usual ones; 1 is Bayes' rule, 0 changes nothing.
            neighbours: A factor for each class of each image, of which the neighbours of the image are the source,
                shape (N, C); 1 if None.

        Returns:
            Class probabilities, shape (N, C, h, w).
        """
        within, usual = self._within(), self.shares.clamp(min=1e-4)
        usual = usual / usual.sum()
        expected = usual / (within @ usual)
        cells = valid.sum((1, 2)).clamp(min=1)[:, None]
        mass, pooled = semantic_to_latent(probs, within), probs
        near = torch.ones_like(expected) if neighbours is None else neighbours
        for _ in range(ROUNDS):
            here = pooled.where(valid[:, None], 0).sum((2, 3)) / cells + PRIOR * usual
            ratio = (here / (here @ within) / expected) ** power
            raised = probs * (ratio * near)[:, :, None, None]
            pooled = raised / semantic_to_latent(raised, within).clamp(min=1e-12) * mass
        return pooled

    def _within(self) -> Tensor:
        """Which classes share a latent class, 0 or 1, shape (C, C)."""
        within: Tensor = self.membership @ self.membership.T
        return within


def pair_entropy(one: Tensor, other: Tensor) -> Tensor:
    """Nats to tell two amounts apart: their sum times the entropy of their ratio; of any shapes that broadcast."""
    both = one + other
    entropy: Tensor = (
        torch.special.xlogy(both, both) - torch.special.xlogy(one, one) - torch.special.xlogy(other, other)
    )
    return entropy


def _move(average: Tensor, total: Tensor, count: Tensor, rate: float) -> None:
    """Move a moving average, in place, to a sum over a count, both over all processes; it stays if none counts."""
    summed = all_reduce_sum(torch.cat([total.flatten(), count.to(total).view(1)]))
    mean = summed[:-1].view_as(average) / summed[-1].clamp(min=1)
    average.lerp_(mean.to(average), rate * (summed[-1] > 0).to(average))
