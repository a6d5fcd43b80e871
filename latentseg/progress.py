"""Progress for people: a live bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Thing = TypeVar("Thing")
LINE_SECONDS = 15.0
"""Without a terminal: seconds between two lines."""

console = Console(stderr=True, soft_wrap=True)


@contextmanager
def track_steps(steps: int, start: int) -> Iterator[Callable[[int, dict[str, float], float], None]]:
    """Show training steps. Yields `show(done, losses by name, images per second)`."""
    began = time.monotonic()
    last_line = began

    def text(figures: dict[str, float], rate: float) -> str:
        return "  ".join(f"{name} {value:.4g}" for name, value in figures.items()) + f"  {rate:.1f} images/s"

    with _bar("training") as bar:
        task = bar.add_task("training", total=steps, completed=start, figures="")

        def show(done: int, figures: dict[str, float], rate: float) -> None:
            nonlocal last_line
            bar.update(task, completed=done, figures=text(figures, rate))
            now = time.monotonic()
            if not console.is_terminal and (now - last_line > LINE_SECONDS or done == steps):
                last_line = now
                left = (now - began) / max(1, done - start) * (steps - done)
                line = f"step {done}/{steps}  {text(figures, rate)}  {left:.0f} s left"
                console.print(line, highlight=False, markup=False)

        yield show


def track(things: Iterable[Thing], what: str) -> Iterator[Thing]:
    """Yield the things one by one, with progress and the time left."""
    count = len(things) if isinstance(things, Sized) else None
    with _bar(what) as bar:
        task = bar.add_task(what, total=count, figures="")
        for thing in things:
            yield thing
            bar.advance(task)


def _bar(what: str) -> Progress:
    return Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
