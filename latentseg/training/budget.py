"""Steps from a time budget: `latentseg train ... --time 20m`."""

import math
import re

from latentseg.config import Config
from latentseg.console import duration
from latentseg.data.datasets import open_dataset
from latentseg.data.splits import draw_split
from latentseg.errors import UserError
from latentseg.training.costs import Costs, measure_costs, views

FEWEST = 20
"""Steps below which nothing is learned."""
UNITS = {"s": 1, "m": 60, "h": 3600}


def seconds_of(text: str) -> float:
    """Seconds that a text such as 90s, 20m, 2h or 1h30m means.

    Raises:
        UserError: It is no time, or none between 10 seconds and 30 days.
    """
    form = re.fullmatch(r"(\d+(?:\.\d+)?[smh])+", text.strip().lower())
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", text.lower()) if form else []
    seconds = math.fsum(float(number) * UNITS[unit] for number, unit in parts)
    if not 10 <= seconds <= 30 * 86400:
        raise UserError(f"--time {text[:50]}: a time such as 90s, 20m, 2h or 1h30m, from 10s on, was expected")
    return seconds


def steps_within(config: Config, seconds: float) -> tuple[Config, str]:
    """The configuration with as many steps as fit into a time, by timed steps, and a line that tells of it.

    Args:
        config: The run.
        seconds: For features, steps and validations; reading and checking the data comes on top.

    Raises:
        UserError: Too few steps fit, or several processes would have to agree on them.
    """
    if config.devices * config.num_nodes > 1:
        raise UserError("--time measures one process: with several of them give the number, as steps=N")
    dataset = open_dataset(config.data, remember=config.cache == "images")
    split = draw_split(dataset, config.data, config.seed)
    scored = len(dataset.items(config.validate_split)) if dataset.has(config.validate_split) else 0
    costs = measure_costs(config, dataset)
    features = views(config, split, costs.uses_unlabeled) * costs.features
    steps, each = _fitting(config, costs, seconds - features, scored)
    parts = [f"{1000 * each:.0f} ms each"] + [f"features {duration(features)}"] * (features >= 1)
    if steps < FEWEST:
        raise UserError(
            f"--time: only {max(0, steps)} steps fit into {duration(seconds)} ({', '.join(parts)}): take more time, or "
            f"a smaller augment.crop, data.resize or augment.views"
        )
    return config.model_copy(
        update={"steps": steps}
    ), f"{duration(seconds)} are enough for steps={steps} ({', '.join(parts)})"


def _fitting(config: Config, costs: Costs, seconds: float, scored: int) -> tuple[int, float]:
    """How many steps fit, and the seconds of one, with its share of the validations but the last."""
    each = costs.training_seconds(config) / config.steps
    validation = scored * costs.scoring if scored else 0.0
    each += validation / config.validate_every if config.validate_every else 0.0
    return min(10**9, int((seconds - validation) / each)), each
