"""What latent classes tell of semantic ones: figures from counts of pixels, without a model or an image.

Counts have a row per true class and a last row for ignored pixels; columns are latent or semantic classes. A class
without a pixel has no P(l|c), which is None here. arXiv:1912.12936, section 4 and Figures 6, 7.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latentseg.losses import IGNORE_INDEX, conditional_entropy, latent_given_class, latent_joint, semantic_to_latent
from latentseg.metrics import Scores, scores

Rows = list[list[float] | None]
"""P(l|c), one row per class; None for a class that was not seen."""
DOMINANT = 0.9
"""A latent class dominates a semantic one above this P(l|c) (the paper's claim)."""
SLIGHT = 0.1
"""A latent class with no P(l|c) above this serves no class (the paper's lower threshold, Table 4)."""
NOWHERE = 1e-4
"""A latent class that wins a smaller share of the pixels wins nowhere: a few stray pixels are no use."""


class Counts:
    """Sums over the images of a split, in float64 or int64; each has C + 1 rows, the last one for ignored pixels."""

    def __init__(self, num_classes: int, num_latent: int, given: Tensor, baseline: bool = False) -> None:
        """Start from nothing.

        Args:
            num_classes: C.
            num_latent: L.
            given: P(l|c) for Eq. 7, shape (C, L).
            baseline: Whether another model is counted too.
        """
        rows = num_classes + 1
        self.given = given
        self.soft = torch.zeros(rows, num_latent, dtype=torch.float64)  # sums of S_l
        self.won = torch.zeros(rows, num_latent, dtype=torch.int64)  # pixels where l is the argmax of S_l
        self.mapped = torch.zeros(rows, num_latent, dtype=torch.int64)  # the same of S_c mapped by Eq. 7
        self.semantic = torch.zeros(rows, num_classes, dtype=torch.int64)  # argmax of S_c
        self.baseline = torch.zeros(rows, num_classes, dtype=torch.int64) if baseline else None
        self.images = 0

    def add(self, semantic: Tensor, latent: Tensor, targets: Tensor, baseline: Tensor | None = None) -> None:
        """Count one image.

        Args:
            semantic: S_c, shape (1, C, H, W).
            latent: S_l, shape (1, L, H, W).
            targets: Class ids, shape (H, W); 255 is ignored.
            baseline: S_c of the other model, shape (1, C, H, W).
        """
        classes = semantic.shape[1]
        targets = targets.to(semantic.device).long()
        ignored = targets == IGNORE_INDEX
        known, _ = latent_joint(latent, targets[None], classes)
        unknown, _ = latent_joint(latent, torch.where(ignored, 0, IGNORE_INDEX)[None], 1)
        self.soft += torch.cat([known, unknown]).cpu().double()
        rows = targets.where(~ignored, classes)
        self.won += _crosstab(rows, latent, self.won)
        self.mapped += _crosstab(rows, semantic_to_latent(semantic, self.given.to(semantic.device)), self.mapped)
        self.semantic += _crosstab(rows, semantic, self.semantic)
        if self.baseline is not None and baseline is not None:
            self.baseline += _crosstab(rows, baseline, self.baseline)
        self.images += 1


def _crosstab(rows: Tensor, probs: Tensor, like: Tensor) -> Tensor:
    """Pixels by row and by the argmax of `probs`, in the shape of `like`."""
    pairs = rows * like.shape[1] + probs.max(1).indices[0]  # faster than argmax
    return torch.bincount(pairs.flatten().cpu(), minlength=like.numel()).reshape(like.shape)


def given_rows(cooccurrence: Tensor) -> Rows:
    """P(l|c) by Eq. 9 from sums of S_l per class, shape (C, L); None for a class that was not seen."""
    seen = (cooccurrence.sum(1) > 0).tolist()
    rows = latent_given_class(cooccurrence.double()).tolist()
    return [row if known else None for row, known in zip(rows, seen, strict=True)]


def effective_counts(rows: Rows) -> dict[str, int]:
    """Effective latent classes, those with P(l|c) > t for some class seen, at the thresholds t of Table 4."""
    return {
        str(t): len({latent for row in rows if row for latent, value in enumerate(row) if value > t})
        for t in (SLIGHT, DOMINANT)
    }


def dominant(row: Sequence[float]) -> int:
    """The latent class with the largest P(l|c)."""
    return max(range(len(row)), key=row.__getitem__)


@dataclass(frozen=True)
class Group:
    """A super-category that was found: the classes of which one latent class takes the largest part."""

    latent: int
    classes: list[str]
    """Names, the surest first."""
    shares: list[float]
    """P(l|c) of each."""
    text: str
    """`l7: pole + traffic light + wall (0.43)`; a share is given below one half."""


def find_groups(rows: Rows, classes: Sequence[str], latent_names: Sequence[str]) -> list[Group]:
    """Group the classes by their dominant latent class; the largest group first."""
    members: dict[int, list[tuple[float, int]]] = {}
    for number, row in enumerate(rows):
        if row:
            members.setdefault(dominant(row), []).append((-row[dominant(row)], number))
    found = []
    for latent, unsorted in members.items():
        surest_first = sorted(unsorted)
        shares = [-share for share, _ in surest_first]
        names = [classes[number] for _, number in surest_first]
        words = [name if share >= 0.5 else f"{name} ({share:.2f})" for name, share in zip(names, shares, strict=True)]
        found.append(Group(latent, names, shares, f"{latent_names[latent]}: {' + '.join(words)}"))
    return sorted(found, key=lambda group: (-len(group.classes), -sum(group.shares), group.latent))


def block_order(rows: Rows, groups: Sequence[Group], num_latent: int) -> tuple[list[int], list[int]]:
    """Orders of rows and columns in which the groups of `find_groups` stand as blocks along the diagonal.

    Classes without a pixel come last, latent classes that are nobody's dominant one by their largest P(l|c).
    """
    columns = [group.latent for group in groups]
    largest = [max((row[latent] for row in rows if row), default=0.0) for latent in range(num_latent)]
    columns += sorted(set(range(len(largest))) - set(columns), key=lambda latent: (-round(largest[latent], 2), latent))
    seen = [number for number, row in enumerate(rows) if row]

    def place(number: int) -> tuple[int, float, int]:
        row = rows[number]
        assert row is not None
        return columns.index(dominant(row)), -max(row), number

    return [*sorted(seen, key=place), *(number for number, row in enumerate(rows) if not row)], columns


def idle_and_only_ignored(rows: Rows, won: Tensor) -> tuple[list[int], list[int]]:
    """Latent classes that serve no class: those that win no pixel, and those whose pixels are ignored ones.

    Args:
        rows: P(l|c) on the split.
        won: Pixels by true class and argmax of S_l, shape (C + 1, L), ignored ones in the last row.

    Returns:
        Idle ones: they win less than NOWHERE of all pixels. Only on ignored pixels: they win more, and over nine
        tenths of what they win is ignored. Neither has a P(l|c) above SLIGHT.
    """
    useless = [latent for latent in range(won.shape[1]) if all(row[latent] <= SLIGHT for row in rows if row)]
    shares = (won.sum(0) / won.sum().clamp(min=1)).tolist()
    on_ignored = (won[-1] / won.sum(0).clamp(min=1)).tolist()
    idle = [latent for latent in useless if shares[latent] < NOWHERE]
    return idle, [latent for latent in useless if latent not in idle and on_ignored[latent] > DOMINANT]


@dataclass(frozen=True)
class Structure:
    """P(l|c) of a split and what can be read from it. Classes and latent classes are numbers, but for the groups."""

    latent_given_class: Rows
    """Shape (C, L)."""
    ignored: list[float] | None
    """P(l|ignored), shape (L,); None if no pixel is ignored."""
    row_order: list[int]
    column_order: list[int]
    effective: dict[str, int]
    """Effective latent classes by threshold."""
    idle: list[int]
    only_ignored: list[int]
    groups: list[Group]
    dominant_share: float
    """Share of the classes seen that one latent class dominates; NaN if none is seen."""


def structure(soft: Tensor, won: Tensor, classes: Sequence[str], latent_names: Sequence[str]) -> Structure:
    """Read P(l|c) from sums of S_l and pixels won, both of shape (C + 1, L) with ignored pixels in the last row."""
    *rows, ignored = given_rows(soft)
    groups = find_groups(rows, classes, latent_names)
    row_order, column_order = block_order(rows, groups, soft.shape[1])
    idle, only_ignored = idle_and_only_ignored(rows, won)
    largest = [max(row) for row in rows if row]
    share = sum(value > DOMINANT for value in largest) / len(largest) if largest else float("nan")
    counts = effective_counts(rows)
    return Structure(rows, ignored, row_order, column_order, counts, idle, only_ignored, groups, share)


@dataclass(frozen=True)
class Information:
    """How much of the semantic class the latent one tells, in nats, over the labelled pixels."""

    class_entropy: float
    """H(C)."""
    conditional_entropy: float
    """H(C|L), Eq. 1 over the whole split."""
    mutual_information: float
    """I(C; L) = H(C) - H(C|L)."""
    told_share: float
    """I(C; L) / H(C); NaN if there is but one class."""


def information(soft: Tensor) -> Information:
    """Entropies from sums of S_l per class, shape (C, L); NaN if there is no labelled pixel."""
    joint = soft / soft.sum()
    if not soft.sum():
        return Information(*[float("nan")] * 4)
    before, after = float(torch.special.entr(joint.sum(1)).sum()), float(conditional_entropy(joint))
    return Information(before, after, before - after, (before - after) / before if before > 0 else float("nan"))


def mapped_scores(counts: Tensor, mapping: Sequence[int | None]) -> Scores:
    """Scores over latent classes, the truth being mapped class by class.

    Args:
        counts: Pixels by true class and predicted latent class, shape (C, L).
        mapping: The latent class that stands for each class; None leaves its pixels out.
    """
    matrix = counts.new_zeros(counts.shape[1], counts.shape[1])
    for row, latent in zip(counts, mapping, strict=True):
        if latent is not None:
            matrix[latent] += row
    return scores(matrix)


def confused_with_background(counts: Tensor, background: int, called: int) -> tuple[float, float]:
    """Shares of foreground that is called background, and of background that is not (NaN if there are no such pixels).

    Args:
        counts: Pixels by true class and prediction, shape (C, any).
        background: Row of the background.
        called: The prediction that means background.
    """
    foreground = torch.arange(len(counts)) != background
    missed = counts[foreground, called].sum() / counts[foreground].sum()
    return float(missed), float(1 - counts[background, called] / counts[background].sum())
