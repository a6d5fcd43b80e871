"""Progress for people: a live bar on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import IO, Any, TypeVar, cast

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

Thing = TypeVar("Thing")
LINE_SECONDS = 15.0
"""Without a terminal: seconds between two lines."""
WIDE = 80
"""Columns from which on there is room for the bar itself, and for the time that has passed."""


class _Stderr:
    """Standard error as it is at the moment; where it cannot be written, what people would read is lost, and no run."""

    @property
    def _stream(self) -> Any:
        return getattr(sys.stderr, "rich_proxied_file", sys.stderr)  # while a live line is shown, it comes back here

    def __getattr__(self, name: str) -> Any:
        if name == "rich_proxied_file":
            raise AttributeError(name)
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):  # a full disk, a reader that ended, a terminal that was closed
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


console = Console(file=cast("IO[str]", _Stderr()), soft_wrap=True)
"""For all that is said beside the results."""


class _Lines:
    """Without a terminal: a line now and then, with the time left."""

    def __init__(self, start: int) -> None:
        self.began = self.last = time.monotonic()
        self.start = start

    def show(self, what: str, done: int, total: int | None, figures: str = "") -> None:
        now = time.monotonic()
        if console.is_terminal or (now - self.last < LINE_SECONDS and done != total):
            return
        if done == total and now - self.began < LINE_SECONDS and not figures:
            return  # too short to speak of
        self.last = now
        speed = (now - self.began) / max(1, done - self.start)
        left = f"  {duration(speed * (total - done))} left" if total is not None else ""
        console.print(f"{what} {done}/{total or '?'}  {figures}{left}", highlight=False, markup=False)


Show = Callable[[int, dict[str, float], float, float | None], None]


@contextmanager
def track_steps(steps: int, start: int, shown: bool = True) -> Iterator[Show]:
    """Show training steps in one line. Yields `show(done, losses by name, images per second, mIoU so far or None)`.

    Args:
        steps: Of the run.
        start: Steps done before.
        shown: False shows nothing: one of several processes speaks for all.
    """
    if not shown:
        yield lambda _done, _figures, _rate, _score: None
        return
    lines = _Lines(start)
    with _bar("training") as bar:
        task = bar.add_task("training", total=steps, completed=start, figures="")

        def show(done: int, figures: dict[str, float], rate: float, score: float | None) -> None:
            told = "" if score is None else f"mIoU {100 * score:.2f}  "
            text = told + "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
            text += f"  {rate:.1f} images/s"
            bar.update(task, completed=done, figures=text)
            lines.show("step", done, steps, text)

        yield show


def few_scored(iou: object, over: str) -> str:
    """` (13 of 19 classes scored)` where the mean leaves classes out; else nothing.

    Args:
        iou: IoU of each class as the log has it, None for an absent one.
        over: `inference.miou_over`.
    """
    known = [value is not None and (over != "hit" or value > 0) for value in iou] if isinstance(iou, list) else []
    return "" if over == "all" or all(known) else f" ({sum(known)} of {len(known)} classes scored)"


def track(things: Iterable[Thing], what: str, count: int | None = None) -> Iterator[Thing]:
    """Yield the things one by one, with progress and the time left.

    Args:
        things: What to go through.
        what: A word for it.
        count: How many there are; asked of the things if None.
    """
    total = len(things) if count is None and isinstance(things, Sized) else count
    lines = _Lines(0)
    with _bar(what) as bar:
        task = bar.add_task(what, total=total, figures="")
        for done, thing in enumerate(things, start=1):
            yield thing
            bar.advance(task)
            lines.show(what, done, total)


class _Figures(ProgressColumn):
    """What else is told of a task; of all columns it is the one that is cut where a terminal is narrow."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["figures"], no_wrap=True, overflow="ellipsis")


def _bar(what: str) -> Progress:
    wide = console.width >= WIDE
    return Progress(
        TextColumn(what, markup=False),
        *([BarColumn(20)] if wide else []),
        MofNCompleteColumn(),
        *([TimeElapsedColumn()] if wide else []),
        TimeRemainingColumn(),
        _Figures(Column(no_wrap=False)),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, as people say them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
