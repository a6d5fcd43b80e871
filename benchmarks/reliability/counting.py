"""Tried, survived, lost; and what flips a bit."""

from collections.abc import Callable
from typing import Any

Count = dict[str, Any]
"""Tried, survived and lost, and what else a part has to tell."""


def counted(number: int, survives: Callable[[int], bool], **more: Any) -> Count:
    """Try so often; `more` is told beside the three figures. An error is a loss that ends it all: nothing hides it."""
    survived = sum(survives(each) for each in range(number))
    return {"tried": number, "survived": survived, "lost": number - survived} | more


def flipped(content: bytes, bit: int) -> bytes:
    """The same with one other bit."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
