"""Statistics over seeds: mean and spread, differences between paired runs, shares."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

Key = TypeVar("Key")


@dataclass(frozen=True)
class Summary:
    """Mean and spread of some values."""

    count: int
    mean: float
    spread: float | None
    """Sample standard deviation (n - 1); None for a single value."""

    def text(self, digits: int = 2, sign: bool = False) -> str:
        """`mean ± spread`, or the mean alone if there is no spread."""
        mean = f"{self.mean:+.{digits}f}" if sign else f"{self.mean:.{digits}f}"
        return mean if self.spread is None else f"{mean} ± {self.spread:.{digits}f}"


def summarize(values: Mapping[Key, float]) -> Summary | None:
    """Mean and sample standard deviation of the finite values; None if there is none."""
    finite = [value for value in values.values() if math.isfinite(value)]
    if not finite:
        return None
    return Summary(len(finite), statistics.fmean(finite), statistics.stdev(finite) if len(finite) > 1 else None)


def paired(values: Mapping[Key, float], base: Mapping[Key, float]) -> dict[Key, float]:
    """`values - base` for each key (seed) that both have."""
    return {key: value - base[key] for key, value in values.items() if key in base}


def gap_share(
    values: Mapping[Key, float], base: Mapping[Key, float], full: Mapping[Key, float]
) -> tuple[float, int] | None:
    """Share of the gap between few and all labels that a method closes: mean(values - base) / mean(full - base).

    Args:
        values: Scores of the method by seed.
        base: Scores of the supervised twin.
        full: Scores with all labels.

    Returns:
        The share (1 = the whole gap) and the number of seeds that all three have; None if there is no such seed, or
        all labels are no better than few.
    """
    keys = [key for key in values if key in base and key in full]
    if not keys:
        return None
    gap = statistics.fmean(full[key] - base[key] for key in keys)
    won = statistics.fmean(values[key] - base[key] for key in keys)
    return (won / gap, len(keys)) if gap > 0 else None


def relative(values: Mapping[Key, float], full: Mapping[Key, float]) -> float | None:
    """Mean score as a share of the mean with all labels, as the paper's Tables 1 and 2 print it."""
    ours, theirs = summarize(values), summarize(full)
    return ours.mean / theirs.mean if ours and theirs and theirs.mean > 0 else None
