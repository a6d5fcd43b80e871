"""What an analysis says: all figures of one run on one split, as plain values, in words and as tables.

The words and tables of the console, of summary.txt and of the report are made here, and nowhere else.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter

from latentseg.analysis import stats
from latentseg.analysis.stats import Real, Rows
from latentseg.runs.metrics import finite_or_none

IGNORED = "(ignored)"
"""Name of the row for ignored pixels."""
TextTable = list[list[str]]
"""A table as text, the header first; the first entry of a row is its name."""


@dataclass(frozen=True)
class Shares:
    """One share of pixels for each of three predictions."""

    baseline: Real
    ours: Real
    latent: Real
    """Of the latent branch: the background's dominant latent class counts as background."""

    def text(self) -> str:
        """The three in words."""
        named = {"baseline": self.baseline, "semantic branch": self.ours, "latent branch": self.latent}
        return ", ".join(f"{name} {_percent(share)} %" for name, share in named.items())


@dataclass(frozen=True)
class Baseline:
    """Another run on the same images."""

    run: str
    step: int
    miou: Real
    iou: list[Real]
    differences: list[str]
    """Options in which the two runs differ: a twin differs in `method.` alone."""
    foreground_called_background: Shares | None
    """Of the true foreground pixels; None without a class called background."""
    background_called_foreground: Shares | None
    """Of the true background pixels."""

    def facts(self) -> list[str]:
        """What the comparison says, beside the IoU."""
        facts = [f"The baseline differs in {line}." for line in self.differences if not line.startswith("method.")]
        if self.foreground_called_background is None or self.background_called_foreground is None:
            return [*facts, "No class is called background: nothing can be said of foreground that is missed."]
        return [
            *facts,
            f"Foreground that is called background: {self.foreground_called_background.text()}.",
            f"Background that is called foreground: {self.background_called_foreground.text()}.",
        ]


@dataclass(frozen=True)
class Analysis:
    """All figures of one run on one split."""

    run: str
    split: str
    checkpoint: str
    step: int
    """Steps of training that the checkpoint has."""
    images: int
    classes: list[str]
    latent_names: list[str]
    mapping: list[int | None]
    """The latent class that stands for each class: the argmax of M's P(l|c), the given group, or the class itself;
    None if M never saw the class."""
    structure: stats.Structure
    latent_given_class_m: Rows | None
    """P(l|c) of M, Eq. 9; None if the method keeps no M."""
    effective_m: dict[str, int] | None
    figures: dict[str, Real]
    """The latent branch beside the semantic one, by the names of `Counts.figures`."""
    semantic_iou: list[Real]
    """IoU per class of the semantic branch; NaN for a class in neither truth nor prediction."""
    baseline: Baseline | None

    def __repr__(self) -> str:
        return f"Analysis({self.run!r}, {self.checkpoint} checkpoint, step {self.step}, {self.split}: see text())"

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "Analysis":
        """What `to_dict` gave.

        Raises:
            ValueError: A value is missing or of another type.
        """
        return TypeAdapter(Analysis).validate_python(values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN becomes None."""
        return dict(finite_or_none(asdict(self)))

    @property
    def spread(self) -> list[str]:
        """Classes no latent class holds half of: only the dominant one of theirs counts in the groups."""
        rows = zip(self.classes, self.structure.latent_given_class, strict=True)
        return [name for name, row in rows if row is not None and max(row) < 0.5]

    @property
    def subject(self) -> str:
        """What was looked at: split, images, checkpoint and step."""
        images = f"{self.images} image{'s' * (self.images != 1)}"
        return f"{self.split}, {images}, {self.checkpoint} checkpoint (step {self.step})"

    def text(self) -> str:
        """The findings for the console and summary.txt."""
        lines = [f"{self.run}: {self.subject}", "", *self.facts(), "", "Super-categories:"]
        lines += [*(f"  {group}" for group in self.groups()), "", *_aligned(self.comparison())]
        if self.baseline:
            lines += ["", f"Beside {self.baseline.run} (step {self.baseline.step})", *self.baseline.facts()]
            lines += ["", *_aligned(self.beside())]
        return "\n".join(lines)

    def groups(self) -> list[str]:
        """Super-categories, classes with the same dominant latent class (argmax P(l|c)), and the other classes."""
        found = self.structure.groups
        several = [group.text for group in found if len(group.classes) > 1]
        single = [group.text for group in found if len(group.classes) == 1]
        alone = [f"with a latent class of their own: {', '.join(single)}"] if single else []
        return [*(several or ["none: no two classes share a latent class"]), *alone]

    def facts(self) -> list[str]:
        """What P(l|c) and the comparison of both branches say, a sentence each."""
        found = self.structure
        seen = sum(row is not None for row in found.latent_given_class)
        of_m = f" (from M: {_both(self.effective_m)})" if self.effective_m else ""
        nothing = "no pixel is ignored" if found.ignored is None else "none"
        share = f" ({100 * found.dominated / seen:.1f} %)" if seen else ""
        facts = [
            f"One latent class dominates, P(l|c) > {stats.DOMINANT}: {found.dominated} of {seen} classes{share}.",
            f"Effective latent classes, of {len(self.latent_names)}: {_both(found.effective)}{of_m}.",
            f"Idle latent classes: {self._named(found.idle) or 'none'}.",
            f"Used on ignored pixels only: {self._named(found.only_ignored) or nothing}.",
            f"The latent branch against the semantic branch mapped by Eq. 7: {self._verdict()}.",
        ]
        for names, words in (
            (self.spread, "Over several latent classes, of which one counts in the groups"),
            (self._without(self.mapping), "M never saw, left out of the groups"),
            (self._without(found.latent_given_class), f"Not in {self.split}"),
        ):
            facts += [f"{words}: {', '.join(names)}."] if names else []
        return facts

    def _verdict(self) -> str:
        """Whether the latent task is the easier one, by each of the three measures."""
        parts = []
        for name, figure, shown, unit in (
            ("groups", "miou", _percent, "% mIoU"),
            ("classes told from the map", "class_miou", _percent, "% mIoU"),
            ("I(C;L)", "information", _real, "nats"),
        ):
            latent, mapped = (self.figures[f"{branch}_{figure}"] for branch in ("latent", "mapped"))
            word = "not comparable" if math.isnan(latent - mapped) else "ahead" if latent > mapped else "not ahead"
            parts.append(f"{word} in {name} ({shown(latent)} to {shown(mapped)} {unit})")
        return ", ".join(parts)

    def comparison(self) -> TextTable:
        """Both branches by groups, by the classes told from their maps, and by the information in them."""
        told, kinds = self.figures, len({latent for latent in self.mapping if latent is not None})
        measures = {
            "miou": (f"{kinds} groups: mIoU in %", _percent),
            "pixel_accuracy": (f"{kinds} groups: pixels in %", _percent),
            "class_miou": ("classes told from the map: mIoU in %", _percent),
            "class_pixel_accuracy": ("classes told from the map: pixels in %", _percent),
            "information": ("I(C;L) in nats", _real),
            "information_share": (f"I(C;L) in % of H(C) = {_real(told['class_entropy'])} nats", _percent),
            "conditional_entropy": ("H(C|L) in nats", _real),
            "argmax_information": ("I(C;L) of the argmax in nats", _real),
        }
        semantic = {f"class_{figure}": told[f"semantic_{figure}"] for figure in ("miou", "pixel_accuracy")}
        rows = []
        for figure, (name, shown) in measures.items():
            both = (told[f"{branch}_{figure}"] for branch in ("mapped", "latent"))
            rows.append([name, *map(shown, (semantic.get(figure, math.nan), *both))])
        return [["both branches on the same pixels", "semantic", "semantic by Eq. 7", "latent"], *rows]

    def beside(self) -> TextTable:
        """IoU per class beside the baseline's; empty without one."""
        base = self.baseline
        if base is None:
            return []
        pairs = [
            *zip(self.classes, base.iou, self.semantic_iou, strict=True),
            ("mean", base.miou, self.figures["semantic_miou"]),
        ]
        rows = [
            [name, *(("absent" if math.isnan(iou) else _percent(iou)) for iou in (theirs, ours)), _gain(ours - theirs)]
            for name, theirs, ours in pairs
        ]
        return [["IoU in %", "baseline", "ours", "gain"], *rows]

    def _named(self, latent: list[int]) -> str:
        return ", ".join(self.latent_names[number] for number in latent)

    def _without(self, values: list[Any]) -> list[str]:
        """Names of the classes whose value is None."""
        return [name for name, value in zip(self.classes, values, strict=True) if value is None]


def _real(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f}"


def _gain(difference: float) -> str:
    return "-" if math.isnan(difference) else f"{100 * difference:+.1f}"


def _both(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} at t = {threshold}" for threshold, count in counts.items())


def _aligned(table: TextTable) -> list[str]:
    """A table in columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for name, *values in table:
        cells = (f"{value:>{width}}" for value, width in zip(values, widths[1:], strict=True))
        lines.append("  ".join([f"  {name:{widths[0]}}", *cells]))
    return lines
