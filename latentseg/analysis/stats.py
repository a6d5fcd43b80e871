"""What latent classes tell of semantic ones: figures from counts of pixels, without a model or an image.

Counts have a row per true class and a last row for ignored pixels; columns are latent or semantic classes. A class
without a pixel has no P(l|c), which is None here. arXiv:1912.12936, section 4 and Figures 6, 7.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import BeforeValidator
from torch import Tensor

from latentseg.losses import IGNORE_INDEX, conditional_entropy, latent_given_class, semantic_to_latent
from latentseg.metrics import Scores, scores

Rows = list[list[float] | None]
"""P(l|c), one row per class; None for a class that was not seen."""
MiouOver = Literal["occurring", "hit", "all"]
Real = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A number that may be NaN; JSON knows no NaN and has null there."""
DOMINANT = 0.9
"""A latent class dominates a semantic one above this P(l|c) (the paper's claim)."""
SLIGHT = 0.1
"""A latent class with no P(l|c) above this serves no class (the paper's lower threshold, Table 4)."""
NOWHERE = 1e-4
"""A latent class that wins a smaller share of the pixels wins nowhere: a few stray pixels are no use."""


class Counts:
    """Sums over images from which the figures follow. Each table has C + 1 rows, the last one for ignored pixels.

    `sums`: sums of S_l ("latent") and of S_c mapped by Eq. 7 ("mapped"), float64, shape (C + 1, L). `pixels`: pixels by
    prediction, int64: classes of the semantic branch ("semantic"), of another model ("baseline"), and told from both
    maps ("latent_class", "mapped_class"), shape (C + 1, C); latent classes ("latent", "mapped"), shape (C + 1, L).
    """

    def __init__(self, cooccurrence: Tensor) -> None:
        """Start from nothing.

        Args:
            cooccurrence: M, shape (C, L); the identity where the second branch predicts the classes.
        """
        self.num_classes, self.num_latent = cooccurrence.shape
        self.cooccurrence = cooccurrence
        self.latent_given_class = latent_given_class(cooccurrence)  # for Eq. 7, shape (C, L)
        self.class_given_latent = latent_given_class(cooccurrence.T)  # shape (L, C)
        rows, columns = self.num_classes + 1, {"latent": self.num_latent, "mapped": self.num_latent}
        self.sums = {name: torch.zeros(rows, width, dtype=torch.float64) for name, width in columns.items()}
        columns |= dict.fromkeys(("semantic", "latent_class", "mapped_class", "baseline"), self.num_classes)
        self.pixels = {name: torch.zeros(rows, width, dtype=torch.int64) for name, width in columns.items()}
        self.images = 0

    def add(self, semantic: Tensor, latent: Tensor, targets: Tensor, baseline: Tensor | None = None) -> None:
        """Count a batch of images.

        Args:
            semantic: S_c, shape (N, C, H, W).
            latent: S_l, shape (N, L, H, W).
            targets: Class ids, shape (N, H, W); 255 is ignored.
            baseline: S_c of another model, shape (N, C, H, W).
        """
        targets = targets.to(semantic.device).long()
        rows = targets.where(targets != IGNORE_INDEX, self.num_classes).flatten(1)
        truth = torch.zeros(len(rows), self.num_classes + 1, rows.shape[1], device=rows.device)
        truth.scatter_(1, rows[:, None], 1)
        to_latent = self.latent_given_class.to(semantic.device)
        to_class = self.class_given_latent.to(semantic.device)
        self._count("semantic", semantic, rows)
        if baseline is not None:
            self._count("baseline", baseline, rows)
        for name, probs in (("latent", latent), ("mapped", semantic_to_latent(semantic, to_latent))):
            self.sums[name] += (probs.flatten(2).float() @ truth.mT).sum(0).T.cpu().double()
            self._count(name, probs, rows)
            self._count(f"{name}_class", semantic_to_latent(probs, to_class), rows)
        self.images += len(targets)

    def _count(self, name: str, probs: Tensor, rows: Tensor) -> None:
        """Add the pixels by true class (N, H * W) and by the argmax of `probs` (N, K, H, W)."""
        table = self.pixels[name]
        pairs = rows * table.shape[1] + probs.flatten(2).max(1).indices  # faster than argmax
        table += torch.bincount(pairs.flatten().cpu(), minlength=table.numel()).reshape(table.shape)

    def all_reduce(self, total: Callable[[Tensor], Tensor]) -> None:
        """Add up over processes: `total` gives the sum of a tensor (on the CPU) over all of them."""
        for tables in (self.sums, self.pixels):
            tables.update({name: total(table) for name, table in tables.items()})
        self.images = int(total(torch.tensor(self.images)))

    def figures(self, mapping: Sequence[int | None] | None = None, over: MiouOver = "occurring") -> dict[str, float]:
        """Compare the latent map ("latent_") and the semantic one mapped by Eq. 7 ("mapped_") with the truth.

        Three measures, since no single one is fair to both: the groups (of a class that lies over several latent
        classes, one counts); the classes told from the map, argmax over c of sum over l of P(c|l) S(l) with P(c|l) from
        M (every latent class counts); and the information in the map (of its probabilities, so less from an unsure
        branch, and of its argmax).

        Args:
            mapping: The latent class that stands for each class; None leaves its pixels out of the groups. By default
                the dominant one by M, for each class that M has seen.
            over: Classes in the mean IoU over classes, as for `metrics.scores`.

        Returns:
            In 0..1: *_miou and *_pixel_accuracy over the groups, *_class_miou and *_class_pixel_accuracy over the
            classes, semantic_miou and semantic_pixel_accuracy; in nats: class_entropy H(C), *_information I(C;L),
            *_argmax_information and *_conditional_entropy H(C|L); *_information_share, I(C;L) / H(C). NaN without a
            pixel.
        """
        mapping = dominant_of(self.cooccurrence) if mapping is None else mapping
        told = {name: scores(self.pixels[name][:-1], over) for name in ("semantic", "latent_class", "mapped_class")}
        found = {}
        for name in ("latent", "mapped"):
            told[name] = mapped_scores(self.pixels[name][:-1], mapping)
            before, after = entropies(self.sums[name][:-1])
            found["class_entropy"] = before
            found[f"{name}_information"] = before - after
            found[f"{name}_information_share"] = (before - after) / before if before > 0 else math.nan
            found[f"{name}_conditional_entropy"] = after
            found[f"{name}_argmax_information"] = before - entropies(self.pixels[name][:-1].double())[1]
        found |= {f"{name}_miou": result.miou for name, result in told.items()}
        return found | {f"{name}_pixel_accuracy": result.pixel_accuracy for name, result in told.items()}

    def log(self) -> dict[str, float]:
        """The figures, with `dominated`, `effective_0.1` and `effective_0.9`: a line of a log."""
        rows = given_rows(self.sums["latent"][:-1])
        effective = {f"effective_{t}": count for t, count in effective_counts(rows).items()}
        return self.figures() | {"dominated": dominated(rows)} | effective


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


def dominant_of(cooccurrence: Tensor) -> list[int | None]:
    """The dominant latent class of each class by M, shape (C, L); None for a class that M never saw."""
    return [None if row is None else dominant(row) for row in given_rows(cooccurrence)]


def dominated(rows: Rows) -> int:
    """Number of classes with one P(l|c) above DOMINANT."""
    return sum(max(row) > DOMINANT for row in rows if row)


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
    dominated: int
    """Classes that one latent class dominates."""


def structure(sums: Tensor, won: Tensor, classes: Sequence[str], latent_names: Sequence[str]) -> Structure:
    """Read P(l|c) from sums of S_l and pixels won, both of shape (C + 1, L) with ignored pixels in the last row."""
    *rows, ignored = given_rows(sums)
    groups = find_groups(rows, classes, latent_names)
    row_order, column_order = block_order(rows, groups, sums.shape[1])
    idle, only_ignored = idle_and_only_ignored(rows, won)
    counts = effective_counts(rows)
    return Structure(rows, ignored, row_order, column_order, counts, idle, only_ignored, groups, dominated(rows))


def entropies(sums: Tensor) -> tuple[float, float]:
    """H(C) and H(C|L) in nats from sums of a latent map per class, shape (C, L); NaN without a labelled pixel."""
    if not sums.sum():
        return math.nan, math.nan
    joint = sums / sums.sum()
    return float(torch.special.entr(joint.sum(1)).sum()), float(conditional_entropy(joint))


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
