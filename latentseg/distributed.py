"""Several processes that train as one. `engine` starts and connects them; here are the sums over them.

The arithmetic is that of one process with the whole batch: what is summed over pixels is summed over all processes,
and divided after that; gradients are averaged before each update. So a loss is a local sum divided by the process's
share of the pixels (`mean_divisor`), and P_b comes from counts of all processes (`all_reduce_sum`). Every process calls
the same sums in the same order, also one without any labelled pixel.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, overload

import torch
from lightning_fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor, distributed

from latentseg.errors import RunError, UserError

Thing = TypeVar("Thing")
LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL")
"""What PyTorch's errors say when another process is gone."""
LARGE = 2**15
"""Elements from which on a tensor is sent in a message of its own."""


def is_first() -> bool:
    """Whether this process is, or will be once all are connected, number 0."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)


def world() -> int:
    """Number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0. Process 0 writes the run folder."""
    return distributed.get_rank() if distributed.is_initialized() else 0


class _Sum(torch.autograd.Function):
    """Sum over the processes, forward and backward."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ARG004 - the signature of autograd
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        return total


def all_reduce_sum(values: Tensor) -> Tensor:
    """Sum over all processes, with a gradient.

    Its gradient is summed over the processes too: each of them holds the loss of the whole batch, and the average of
    the gradients then gives the gradient of one of these.
    """
    if world() == 1:
        return values
    total: Tensor = _Sum.apply(values)
    return total


@overload
def mean_divisor(valid: Tensor) -> Tensor: ...
@overload
def mean_divisor(valid: None) -> None: ...
def mean_divisor(valid: Tensor | None) -> Tensor | None:
    """What a local sum over pixels is divided by to become a mean over the pixels of all processes.

    It is their number divided by the number of processes; the average over the processes does the rest.

    Args:
        valid: Pixels that count, bool, or how much each counts; None, all pixels, gives None.
    """
    if valid is None:
        return None
    count = valid.sum()
    return count if world() == 1 else all_reduce_sum(count.double()) / world()


def average(tensors: Iterable[Tensor]) -> None:
    """Replace the values of tensors by their mean over all processes: large ones in place, the others in one message.

    All are on the way at once. A copy of all gradients costs more CPU time than their sending.
    """
    several = list(tensors)
    if world() == 1 or not several:
        return
    small = [tensor for tensor in several if tensor.numel() < LARGE]
    together = [torch.cat([tensor.flatten() for tensor in small])] if small else []
    sums = together + [tensor for tensor in several if tensor.numel() >= LARGE]
    for sent in [distributed.all_reduce(tensor, async_op=True) for tensor in sums]:
        sent.wait()
    torch._foreach_div_(sums, world())
    for flat in together:
        pieces = torch.split(flat, [tensor.numel() for tensor in small])
        torch._foreach_copy_(small, [piece.view_as(tensor) for piece, tensor in zip(pieces, small, strict=True)])


def largest(number: int, device: torch.device) -> int:
    """The largest of a number over all processes; in one process it costs nothing."""
    if world() == 1:
        return number
    told = torch.tensor(number, device=device)
    distributed.all_reduce(told, distributed.ReduceOp.MAX)
    return int(told)


@contextmanager
def peers_named() -> Iterator[None]:
    """Say it plainly when another process has ended: a peer, or one that loads data.

    Raises:
        RunError: Another process is gone.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" in str(error) and "Traceback" not in str(error):
            raise RunError(
                f"a process that loads data was killed, as a rule because memory is full ({error}). Take fewer "
                f"(workers=N) and go on with --resume: the run is as of its last checkpoint"
            ) from error
        if world() > 1 and any(sign in str(error) for sign in LOST):
            raise RunError(
                f"process {rank()} of {world()} ends because another one has; its message says why. Start all of them "
                f"again with --resume: the run goes on from its last checkpoint"
            ) from error
        raise


def from_first(function: Callable[[], Thing]) -> Thing:
    """What a function returns on process 0, on all processes.

    Raises:
        UserError: The function raised one. Process 0 says so; the others leave without a word.
    """
    if world() == 1:
        return function()
    found: list[Any] = [None, None]
    error = None
    if rank() == 0:
        try:
            found[0] = function()
        except UserError as problem:
            error, found[1] = problem, problem.status
    distributed.broadcast_object_list(found)
    if error is not None:
        raise error
    if found[1] is not None:
        raise SystemExit(found[1])
    result: Thing = found[0]
    return result
