"""What an analysis says: all figures of one run on one split, as plain values and in words."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from latentseg.analysis import stats
from latentseg.analysis.stats import Rows
from latentseg.runs import finite_or_none


@dataclass(frozen=True)
class Ease:
    """Whether the latent task is the easier one: IoU and accuracy over classes and over latent classes.

    For the latter the truth is mapped by the latent class that stands for each class: the argmax of M's P(l|c), the
    given group, or the class itself. A class that M never saw is left out there.
    """

    semantic_miou: float
    """Semantic branch, over the classes; as `inference.miou_over` says."""
    latent_miou: float
    """Latent branch, over the latent classes that occur in mapped truth or prediction."""
    mapped_miou: float
    """Semantic branch mapped by Eq. 7, over the latent classes."""
    semantic_pixel_accuracy: float
    latent_pixel_accuracy: float
    mapped_pixel_accuracy: float


@dataclass(frozen=True)
class Shares:
    """One share of pixels for each of three predictions."""

    baseline: float
    ours: float
    latent: float
    """Of the latent branch: the background's dominant latent class counts as background."""


@dataclass(frozen=True)
class Baseline:
    """Another run on the same images."""

    run: str
    step: int
    miou: float
    iou: list[float]
    ours: list[float]
    """IoU per class of the analysed run, to stand beside `iou`."""
    differences: list[str]
    """Options in which the two runs differ: a twin differs in `method.` alone."""
    foreground_called_background: Shares | None
    """Of the true foreground pixels; None without a class called background."""
    background_called_foreground: Shares | None
    """Of the true background pixels."""


@dataclass(frozen=True)
class Analysis:
    """All figures of one run on one split."""

    run: str
    split: str
    checkpoint: str
    step: int
    images: int
    classes: list[str]
    latent_names: list[str]
    mapping: list[int | None]
    """The latent class that stands for each class in training (see `Ease`); None if M never saw the class."""
    structure: stats.Structure
    latent_given_class_m: Rows | None
    """P(l|c) of M, Eq. 9; None if the method keeps no M."""
    effective_m: dict[str, int] | None
    information: stats.Information
    ease: Ease
    semantic_iou: list[float]
    """IoU per class of the semantic branch; NaN for a class in neither truth nor prediction."""
    baseline: Baseline | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, the parts flattened; NaN becomes None."""
        values = asdict(self)
        for part in ("structure", "information", "ease"):
            values |= values.pop(part)
        return dict(finite_or_none(values | {"spread": self.spread}))

    @property
    def spread(self) -> list[str]:
        """Classes no latent class holds half of: only the dominant one of theirs counts in `ease`."""
        rows = zip(self.classes, self.structure.latent_given_class, strict=True)
        return [name for name, row in rows if row is not None and max(row) < 0.5]

    def text(self) -> str:
        """The findings in words, for the console and summary.txt."""
        return "\n".join([*self._groups(), "", *self._latent_classes(), "", *self._ease(), *self._beside()])

    def _groups(self) -> list[str]:
        found = self.structure
        images = f"{self.images} image{'s' * (self.images != 1)}"
        absent = [self.classes[number] for number, row in enumerate(found.latent_given_class) if row is None]
        members = [f"  {group.text}" for group in found.groups if len(group.classes) > 1]
        single = [f"  {group.text}" for group in found.groups if len(group.classes) == 1]
        lines = [
            f"{self.run}: {self.split}, {images}, {self.checkpoint} checkpoint (step {self.step})",
            "",
            "super-categories: classes with the same dominant latent class, argmax P(l|c)",
            *(members or ["  none: no two classes share one"]),
        ]
        lines += ["classes with a latent class of their own", *single] if single else []
        return [*lines, f"not in {self.split}: {', '.join(absent)}"] if absent else lines

    def _latent_classes(self) -> list[str]:
        found, told = self.structure, self.information
        seen = sum(row is not None for row in found.latent_given_class)
        of_m = f" (from M: {_both(self.effective_m)})" if self.effective_m else ""
        nothing = "no pixel is ignored" if found.ignored is None else "none"
        nats = {"I(C;L)": told.mutual_information, "H(C)": told.class_entropy, "H(C|L)": told.conditional_entropy}
        whole = 0 if math.isnan(found.dominant_share) else round(found.dominant_share * seen)
        share = f"{whole} of {seen} classes ({_percent(found.dominant_share)})"
        return [
            f"one latent class dominates, P(l|c) > {stats.DOMINANT}: {share}",
            f"effective latent classes, of {len(self.latent_names)}: {_both(found.effective)}{of_m}",
            f"idle latent classes: {self._named(found.idle) or 'none'}",
            f"only on ignored pixels: {self._named(found.only_ignored) or nothing}",
            f"the latent class tells {_percent(told.told_share)} of the semantic class (nats):",
            f"  {', '.join(f'{name} {value:.3f}' for name, value in nats.items())}",
        ]

    def _ease(self) -> list[str]:
        ease = self.ease
        kinds = len({latent for latent in self.mapping if latent is not None})
        rows = [
            ("semantic branch, classes", ease.semantic_miou, ease.semantic_pixel_accuracy),
            (f"semantic branch mapped by Eq. 7, {kinds} groups", ease.mapped_miou, ease.mapped_pixel_accuracy),
            (f"latent branch, {kinds} groups", ease.latent_miou, ease.latent_pixel_accuracy),
        ]
        lines = [f"{'is the latent task the easier one?':44}{'mIoU':>9}{'pixels':>9}"]
        lines += [f"  {name:42}{_percent(miou):>9}{_percent(right):>9}" for name, miou, right in rows]
        if self.spread:
            lines.append(f"  over several latent classes, of which one counts here: {', '.join(self.spread)}")
        left_out = [name for name, latent in zip(self.classes, self.mapping, strict=True) if latent is None]
        return [*lines, f"  M never saw, left out: {', '.join(left_out)}"] if left_out else lines

    def _beside(self) -> list[str]:
        base = self.baseline
        if base is None:
            return []
        width = max(12, *map(len, self.classes)) + 2
        lines = ["", f"beside {base.run} (step {base.step})"]
        lines += [f"  also differs in {line}" for line in base.differences if not line.startswith("method.")]
        lines += [f"  {'IoU':{width}}{'baseline':>9}{'ours':>9}{'gain':>8}"]
        pairs = [
            *zip(self.classes, base.iou, base.ours, strict=True),
            ("mean", base.miou, self.ease.semantic_miou),
        ]
        for name, theirs, ours in pairs:
            lines.append(f"  {name:{width}}{_percent(theirs):>9}{_percent(ours):>9}{_points(ours - theirs):>8}")
        if base.foreground_called_background is None or base.background_called_foreground is None:
            return [*lines, "  no class is called background: nothing to say of foreground that is missed"]
        for what, shares in (
            ("foreground called background", base.foreground_called_background),
            ("background called foreground", base.background_called_foreground),
        ):
            three = (shares.baseline, shares.ours, shares.latent)
            names = ("baseline", "ours", "latent branch")
            lines.append(f"  {what}: {', '.join(f'{n} {_percent(s)}' for n, s in zip(names, three, strict=True))}")
        return lines

    def _named(self, latent: list[int]) -> str:
        return ", ".join(self.latent_names[number] for number in latent)


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f} %"


def _points(difference: float) -> str:
    return "-" if math.isnan(difference) else f"{100 * difference:+.1f}"


def _both(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} at t = {threshold}" for threshold, count in counts.items())
