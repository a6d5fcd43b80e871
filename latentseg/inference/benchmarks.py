"""Predictions in the form in which benchmarks take them: the ids and colours of VOC, the label ids of Cityscapes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentseg.data.colors import CITYSCAPES, VOC_CLASSES, voc_color
from latentseg.errors import UserError

BENCHMARKS = ("voc", "cityscapes")


class Form(NamedTuple):
    """How the ids of a run are written."""

    values: NDArray[np.uint8] | None
    """What stands for each class id, shape (C,); None: the id."""
    palette: NDArray[np.uint8] | None
    """Colours of the values, shape (n, 3); None: a grey image of the values."""

    def ids(self, ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The values of a map of class ids (H, W)."""
        return ids if self.values is None else self.values.take(ids)


def check_name(benchmark: str | None) -> None:
    """Refuse what is no benchmark.

    Raises:
        UserError: There is none of this name.
    """
    if benchmark is not None and benchmark not in BENCHMARKS:
        raise UserError(f"--as {benchmark}: choose {' or '.join(BENCHMARKS)}")


def form_of(benchmark: str, classes: Sequence[str]) -> Form:
    """The form of a benchmark, for classes that bear its names, in any order.

    VOC: ids 0..20 in VOC's order, as PNG in VOC's palette. Cityscapes: label ids (road is 7), as grey PNG.

    Args:
        benchmark: voc or cityscapes.
        classes: Names of the classes of the run, by id; not all of the benchmark's need be there.

    Raises:
        UserError: There is no such benchmark, or a class is none of its own.
    """
    check_name(benchmark)
    voc = benchmark == "voc"
    known = {name: i for i, name in enumerate(VOC_CLASSES)} if voc else {name: i for name, (i, _) in CITYSCAPES.items()}
    other = [name for name in classes if name not in known]
    if other:
        raise UserError(
            f"--as {benchmark}, but the run has classes that {benchmark} does not know: {', '.join(other)}; its "
            f"classes are {', '.join(known)}. Leave out --as, or name the classes so when you train (data.classes)"
        )
    values = np.array([known[name] for name in classes], np.uint8)
    return Form(values, np.array([voc_color(i) for i in range(256)], np.uint8) if voc else None)
