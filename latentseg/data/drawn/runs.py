"""Regions as runs of pixels: counts from row to row, and Label Studio's bits."""

from itertools import cycle

import numpy as np
from numpy.typing import NDArray

LENGTHS = (3, 4, 8, 16)
"""Bits of Label Studio's numbers of repeats that are written, from which each run takes the shortest."""
CHANNELS = 4
"""Bytes of a pixel in Label Studio's brushes: red, green, blue, alpha, all alike."""


def counted(region: NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of a region, shape (h, w), row by row: pixels outside and inside of it in turn.

    The first number is of pixels outside; it may be 0.
    """
    flat = region.ravel()
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff([0, *ends.tolist(), flat.size]).tolist()
    return [0, *lengths] if flat[0] else lengths


def of_counts(counts: list[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The region, of height and width `size`, whose runs `counted` gives.

    Raises:
        ValueError: They are not as long as the region has pixels.
    """
    if min(counts, default=0) < 0 or sum(counts) != size[0] * size[1]:
        raise ValueError(f"runs of {sum(counts)} pixels, but the box has {size[0] * size[1]}")
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(size)


def of_text(text: str) -> list[int]:
    """Counts of COCO's runs, written as text: 5 bits a letter; from the fourth on, less the one two before.

    Raises:
        ValueError: It ends early.
    """
    counts: list[int] = []
    number, bits = 0, 0
    for letter in text.encode():
        part = letter - 48
        if not 0 <= part < 64:
            raise ValueError("runs in letters that mean nothing")
        number |= (part & 31) << bits
        bits += 5
        if part & 32:
            continue
        number -= (part & 16) // 16 << bits  # its sign
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        number, bits = 0, 0
    if bits:
        raise ValueError("the runs end early")
    return counts


def packed(region: NDArray[np.bool_]) -> list[int]:
    """A region, shape (H, W), as the bytes of a brush of Label Studio."""
    bits = [f"{CHANNELS * region.size:032b}", f"{7:05b}", *(f"{length - 1:04b}" for length in LENGTHS)]
    for value, count in zip(cycle(("0" * 8, "1" * 8)), counted(region), strict=False):
        left = CHANNELS * count
        while left:
            number = min(left, 1 << LENGTHS[-1])
            i = next(i for i, length in enumerate(LENGTHS) if number <= 1 << length)
            bits.append(f"1{i:02b}{number - 1:0{LENGTHS[i]}b}{value}")
            left -= number
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def unpacked(packed: list[int]) -> NDArray[np.uint8]:
    """The bytes of Label Studio's runs: words of some bits, each once or as often as the run is long.

    Raises:
        ValueError: They end early.
    """
    bits = _Bits(bytes(packed))
    size, word, lengths = bits.take(32), bits.take(5) + 1, [bits.take(4) + 1 for _ in range(4)]
    found, at = np.zeros(size, np.uint8), 0
    while at < size:
        same = bits.take(1)
        number = 1 + bits.take(lengths[bits.take(2)])
        if same:
            found[at : at + number] = bits.take(word)
        else:
            found[at : at + number] = [bits.take(word) for _ in range(min(number, size - at))]
        at += number
    return found


class _Bits:
    """Reads bits, the highest of a byte first."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def take(self, number: int) -> int:
        """The next bits as a number."""
        first, last = self._at // 8, -(-(self._at + number) // 8)
        if last > len(self._content):
            raise ValueError("the runs end early")
        chunk = int.from_bytes(self._content[first:last], "big")
        self._at += number
        return chunk >> (8 * last - self._at) & ((1 << number) - 1)
