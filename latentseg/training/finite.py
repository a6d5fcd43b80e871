"""Whether the terms of a step are finite: at once on a CPU, a step later on a GPU, which then never stands still."""

import torch
from torch import Tensor

from latentseg.errors import UserError


def check_finite(values: dict[str, Tensor], step: int) -> None:
    """Look at all terms of a step at once, and wait for them.

    Args:
        values: A scalar by the name of each term.
        step: Number of the step, from 0.

    Raises:
        UserError: A term is not finite; it is named.
    """
    if bool(_all_finite(values)):
        return
    for name, value in values.items():
        if not bool(torch.isfinite(value)):
            raise UserError(
                f"step {step + 1}: the term {name!r} is {value.item()}; training stopped. The last checkpoint is from "
                f"before. Remedy: a lower optim.lr or a smaller weight of {name}"
            )


class FiniteCheck:
    """Looks at the terms of each step of a run.

    A look waits for all that the device has been told to do so far, and a GPU that has nothing to do next stands still
    until Python has told it. So a GPU copies its answer while it works, and the step after asks for it. What is
    logged, validated or saved is asked for before that, by `settle`.

    Args:
        device: Where the terms are; late on CUDA alone.
    """

    def __init__(self, device: torch.device) -> None:
        self._late = device.type == "cuda"
        self._asked: tuple[dict[str, Tensor], int, Tensor, torch.cuda.Event | None] | None = None

    def look(self, values: dict[str, Tensor], step: int) -> None:
        """Look at the terms of a step (from 0), or on a GPU at those of the step before.

        Raises:
            UserError: A term is not finite; it and its step are named.
        """
        if not self._late:
            check_finite(values, step)
            return
        self.settle()
        answer = _all_finite(values)
        told = answer.to("cpu", non_blocking=True)  # into page-locked memory; whole once the event has come
        event = torch.cuda.Event() if answer.is_cuda else None  # type: ignore[no-untyped-call]
        if event is not None:
            event.record(torch.cuda.current_stream(answer.device))
        self._asked = values, step, told, event

    def settle(self) -> None:
        """Wait for the answer of the last step, if nobody has yet.

        Raises:
            UserError: One of its terms is not finite; it is named.
        """
        if self._asked is None:
            return
        values, step, told, event = self._asked
        self._asked = None
        if event is not None:
            event.synchronize()
        if not bool(told):
            check_finite(values, step)


def _all_finite(values: dict[str, Tensor]) -> Tensor:
    """Whether all are, a scalar."""
    return torch.stack([torch.isfinite(value) for value in values.values()]).all()
