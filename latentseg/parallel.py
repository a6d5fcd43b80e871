"""Several processes that train as one. Lightning Fabric starts and connects them; here are the sums over them.

The arithmetic is that of one process with the whole batch: what is summed over pixels is summed over all processes,
and divided after that; gradients are averaged before each update. So a loss is a local sum divided by the process's
share of the pixels (`share`), and P_b comes from counts of all processes (`whole`). Every process calls the same sums
in the same order, also one without any labelled pixel.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar, overload

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import DoublePrecision
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor, distributed, nn

from latentseg.config import Config
from latentseg.errors import UserError

Thing = TypeVar("Thing")
Precision = Literal["32-true", "bf16-mixed", "64-true"]
STARTERS = ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "MASTER_ADDR")
"""Environment variables by which processes on several machines find each other."""
LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL")
"""What PyTorch's errors say when another process is gone."""


class Double(DoublePrecision):
    """float64 throughout; Fabric's own hands float32 to the losses."""

    def convert_output(self, data: Any) -> Any:
        """Leave what a network says as it is."""
        return data


class Replicas(DDPStrategy):
    """Fabric's processes without `DistributedDataParallel` around the networks.

    A step has several parts with a backward each, in some of which a branch or the discriminator stands still. DDP
    would send gradients in each part and wait for those that do not come. Here they are averaged once, after the last
    part.
    """

    def setup_module(self, module: nn.Module) -> Any:
        """Leave the module as it is."""
        return module


def choose_device(name: str) -> torch.device:
    """The named device; `auto` takes the best one here.

    Raises:
        UserError: This machine has no such device, or PyTorch cannot use it.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name != "auto":
        if not present[name]:
            raise UserError(f"device={name}: PyTorch finds none on this machine; take device=auto or device=cpu")
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_precision(config: Config, device: torch.device) -> Precision:
    """The number format of a run on a device; for `auto`, the faster one that is known to train as well.

    bfloat16 on GPUs that compute in it, and for ResNets on CPUs that multiply tiles of it (AMX: about twice as fast);
    float32 elsewhere: on CPUs that only know bfloat16 vectors it takes longer, and mobile encoders gain on none.
    `latentseg benchmark` measures it.

    Args:
        config: Precision and encoder.
        device: From `choose_device`.
    """
    if config.precision != "auto":
        return config.precision
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    able = device.type == "cpu" and torch.cpu._is_amx_tile_supported()  # noqa: SLF001
    return "bf16-mixed" if able and "resnet" in config.model.encoder else "32-true"


def make_fabric(config: Config) -> Fabric:
    """The engine: device, number format and processes; started by `launch`, or by torchrun or SLURM.

    Args:
        config: Device, processes and precision.

    Raises:
        UserError: There is no such device, the processes that torchrun started are not those of the configuration, or
            nothing has started any on the other machines.
    """
    processes = config.devices * config.num_nodes
    device = choose_device(config.device)
    precision = choose_precision(config, device)
    started = int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else processes
    if started != processes:
        raise UserError(
            f"torchrun started {started} processes, the configuration has {processes} (devices={config.devices}, "
            f"num_nodes={config.num_nodes}): let devices be torchrun's --nproc-per-node, num_nodes its --nnodes"
        )
    if config.num_nodes > 1 and not os.environ.keys() & set(STARTERS):
        raise UserError(
            f"num_nodes={config.num_nodes}: nothing here says where the other machines are, and this one would wait "
            f"forever; start it on each by torchrun or srun (docs/scaling.md), or take num_nodes=1"
        )
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it tells of each precision and process otherwise
    try:
        return Fabric(
            accelerator=device.type,
            devices=config.devices,
            num_nodes=config.num_nodes,
            strategy=Replicas() if processes > 1 else "auto",
            precision=None if precision == "64-true" else precision,
            plugins=Double() if precision == "64-true" else None,
        )
    except (RuntimeError, ValueError) as error:  # fewer devices than asked for; SLURM's tasks are others
        raise UserError(f"devices={config.devices}, num_nodes={config.num_nodes}: {error}") from error


@contextmanager
def connected(fabric: Fabric) -> Iterator[None]:
    """Start the processes and connect them; take leave of the others at the end.

    None goes before all are done: the others might still read from its connections. And each closes its own, as their
    threads would otherwise still run when the interpreter ends, which can abort the process.
    """
    fabric.launch()
    try:
        yield
        if world() > 1:
            distributed.barrier()
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


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


def whole(values: Tensor) -> Tensor:
    """Sum over all processes, with a gradient.

    Its gradient is summed over the processes too: each of them holds the loss of the whole batch, and the average of
    the gradients then gives the gradient of one of these.
    """
    if world() == 1:
        return values
    total: Tensor = _Sum.apply(values)
    return total


@overload
def share(valid: Tensor) -> Tensor: ...
@overload
def share(valid: None) -> None: ...
def share(valid: Tensor | None) -> Tensor | None:
    """What a local sum over pixels is divided by to become a mean over the pixels of all processes.

    It is their number divided by the number of processes; the average over the processes does the rest.

    Args:
        valid: Pixels that count, bool; None, all pixels, gives None.
    """
    if valid is None:
        return None
    count = valid.sum()
    return count if world() == 1 else whole(count.double()) / world()


def average(tensors: Iterable[Tensor]) -> None:
    """Replace the values of tensors by their mean over all processes, in one message."""
    several = list(tensors)
    if world() == 1 or not several:
        return
    flat = torch.cat([tensor.flatten() for tensor in several])
    distributed.all_reduce(flat)
    flat /= world()
    pieces = torch.split(flat, [tensor.numel() for tensor in several])
    torch._foreach_copy_(several, [piece.view_as(tensor) for piece, tensor in zip(pieces, several, strict=True)])


@contextmanager
def peers_named() -> Iterator[None]:
    """Say it plainly when a connection is lost because another process has ended.

    Raises:
        UserError: Another process is gone.
    """
    try:
        yield
    except RuntimeError as error:
        if world() > 1 and any(sign in str(error) for sign in LOST):
            raise UserError(
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
            error, found[1] = problem, str(problem)
    distributed.broadcast_object_list(found)
    if error is not None:
        raise error
    if found[1] is not None:
        raise SystemExit(2)
    result: Thing = found[0]
    return result
