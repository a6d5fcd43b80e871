"""Tried, survived, lost; and what flips a bit."""

from collections.abc import Callable
from typing import Any

Count = dict[str, Any]
"""Tried, survived and lost, and what else a part has to tell."""


def counted(number: int, survives: Callable[[int], bool | str], **more: Any) -> Count:
    """Try so often: True is a survivor, a text says why it is none. `more` is told beside the three figures."""
    results = [survives(each) for each in range(number)]
    why = [f"{each}: {result or 'no'}" for each, result in enumerate(results) if result is not True]
    told = {"first_lost": why[:3]} if why else {}
    return {"tried": number, "survived": number - len(why), "lost": len(why)} | told | more


def flipped(content: bytes, bit: int) -> bytes:
    """The same with one other bit."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
