"""Terms that do nothing, seen in what a run logs: said while it goes on, at its end, and in the report."""

from collections.abc import Sequence
from typing import Any

LOOKED_AT = 100
"""Logged steps that must agree."""
FEWEST = 10
"""At the end of a run that has not logged so many."""
WON = 0.02
"""Cross-entropy (nats) of a discriminator that tells nearly every pixel: it is 98 % sure."""


def findings(rows: Sequence[dict[str, Any]], terms: Sequence[str], ended: bool = False) -> list[str]:
    """What the last hundred logged steps say.

    Args:
        rows: Lines of metrics.jsonl, in order.
        terms: Names of the loss terms of the last one, each with a weight above 0.
        ended: Whether the run is at its end: fewer lines are enough then.
    """
    logged = [row for row in rows if "images_per_second" in row][-LOOKED_AT:]
    if len(logged) < (FEWEST if ended else LOOKED_AT):
        return []

    def always(name: str, most: float, least: float = 0) -> bool:
        """Whether a figure was there each time, and within these limits."""
        values = [row.get(name) for row in logged]
        return all(isinstance(value, int | float) and least <= value <= most for value in values)

    span = f"in the last {len(logged)} logged steps"
    found = []
    if none := always("accepted", 0):
        found.append(f"no pseudo-label was accepted {span}: unlabelled images taught nothing; lower method.threshold")
    if distrust := always("trusted", 0):
        found.append(f"the discriminator trusted no pixel {span}: self-training did nothing; lower method.trust")
    explained = ("match", "match_1", "match_2", "match_f") * none + ("self",) * distrust
    zero = [name for name in terms if name not in explained and always(name, 0)]
    found += [f"the term {name} was exactly 0 {span}: it taught nothing" for name in zero]
    if always("effective_0.1", 1) or always("latent_classes", 1):
        found.append(f"one latent class held every class {span}: the latent branch told nothing")
    if always("real", WON) and always("fake", WON):
        found.append(f"the discriminator told each truth from each prediction {span}: it has won, and teaches little")
    return found
