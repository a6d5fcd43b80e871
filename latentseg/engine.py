"""Where and how networks compute: device, precision, processes, and how the processor treats memory."""

import ctypes
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import DoublePrecision
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import distributed as processes
from torch import nn

from latentseg.config import Config
from latentseg.console import console
from latentseg.distributed import world
from latentseg.errors import UserError

Precision = Literal["32-true", "bf16-mixed", "64-true"]
STARTERS = ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "MASTER_ADDR")
"""Environment variables by which processes on several machines find each other."""
TRIM_THRESHOLD, MMAP_MAX = -1, -4  # options of glibc's mallopt(3)
DEFAULTS = {TRIM_THRESHOLD: 128 * 1024, MMAP_MAX: 65536}


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


def use_threads(threads: int | None) -> None:
    """Compute with so many threads, but one per core at the most: beyond, each step waits, up to a standstill.

    Args:
        threads: None leaves the number to PyTorch.
    """
    if threads is None:
        return
    cores = os.cpu_count() or threads
    if threads > cores:
        console.print(f"note: threads={threads}, but there are {cores} cores: {cores} threads are used", markup=False)
    torch.set_num_threads(min(threads, cores))


def memory_bytes(device: torch.device) -> int | None:
    """Memory of a GPU, or of this machine, or what its container may use of it; None where nothing tells."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    limit = Path("/sys/fs/cgroup/memory.max")
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        given = limit.read_text(encoding="ascii").strip() if limit.is_file() else "max"
    except (AttributeError, OSError, ValueError):
        return None
    return min(whole, int(given)) if given.isdigit() else whole


def choose_precision(config: Config, device: torch.device) -> Precision:
    """The precision of a run on a device; for `auto`, the faster one that is known to train as well.

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
    """The engine: device, precision and processes; started by `launch`, or by torchrun or SLURM.

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
            processes.barrier()
    finally:
        if processes.is_initialized():
            processes.destroy_process_group()


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
