"""Threads that work ahead of whoever takes their results, in order and with a bounded number of them in memory."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Thing = TypeVar("Thing")
Result = TypeVar("Result")
THREADS = min(8, max(2, (os.cpu_count() or 2) // 2))
"""Threads that decode, and threads that encode: two take what the network leaves of two cores; a GPU is fast."""
AHEAD = 8
"""Images that wait before the network, and behind it."""


def in_threads(
    function: Callable[[Thing], Result], things: Iterable[Thing], threads: int = THREADS, ahead: int = AHEAD
) -> Generator[Result, None, None]:
    """Yield `function(thing)` in the order of the things, while threads compute the next ones.

    The things are drawn by the caller's thread. The first error in their order ends it; what waits then is dropped.

    Args:
        function: Called by threads.
        things: Any number of them.
        threads: How many; one calls in order.
        ahead: Things drawn beyond the one that is yielded.
    """
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for thing in things:
            waiting.append(pool.submit(function, thing))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        if isinstance(things, Generator):
            things.close()  # now, also where a traceback still holds it: its own threads end, its bar goes
