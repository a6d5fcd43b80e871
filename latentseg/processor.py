"""How the processor treats memory and tiny numbers while a network trains."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # options of glibc's mallopt(3)
DEFAULTS = {TRIM_THRESHOLD: 128 * 1024, MMAP_MAX: 65536}


@contextmanager
def full_speed() -> Iterator[None]:
    """Keep freed memory for the next step, and take numbers below 1e-38 (float32) for 0; as before at the end.

    By default glibc returns each large block to the system at once and fetches the same one again, whose pages then
    come one by one: on maps of a few megabytes that takes several times as long as the arithmetic. The largest need of
    memory grows by a tenth (preset voc, float32: 10.7 to 11.9 GB). Arithmetic with denormal numbers, which the softmax
    of a sure network leaves, is many times slower than with others. Where there is no glibc, or no such processor,
    nothing changes.
    """
    torch.set_flush_denormal(True)
    try:
        with _kept_memory():
            yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def _kept_memory() -> Iterator[None]:
    if sys.platform != "linux" or not hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        yield
        return
    libc.mallopt(MMAP_MAX, 0)
    libc.mallopt(TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        for option, value in DEFAULTS.items():
            libc.mallopt(option, value)
        libc.malloc_trim(0)
