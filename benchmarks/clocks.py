"""Functions in turns, ratios of their times, and time by part."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def in_turns(
    functions: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[str, list[float]]:
    """Seconds of each function in each round, after one that does not count: a busy moment meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(rounds + 1):
        for name, function in functions.items():
            began = clock()
            function()
            if turn:
                seconds[name].append(clock() - began)
    return seconds


def ratio(ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """Ours over theirs, round by round: median and quartiles."""
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios
    return {"ratio": round(statistics.median(ratios), 3), "quartiles": [round(value, 3) for value in quartiles]}


class Clock:
    """CPU time by part. What runs within another part is taken out of that one."""

    def __init__(self, first: str) -> None:
        self.seconds: dict[str, float] = {}
        self._inside, self._last = [first], time.process_time()

    def tick(self) -> None:
        """Book the time since the last tick."""
        now, part = time.process_time(), self._inside[-1]
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._last
        self._last = now

    def timed(self, function: Callable[..., Any], name: Callable[[], str]) -> Callable[..., Any]:
        """The same function, with its time on the clock under the name that it has when it is called."""

        def call(*arguments: Any, **options: Any) -> Any:
            self.tick()
            self._inside.append(name())
            try:
                return function(*arguments, **options)
            finally:
                self.tick()
                self._inside.pop()

        return call
