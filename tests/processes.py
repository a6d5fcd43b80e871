"""Ten steps of the method in float64, on one process or several: what tests/test_distributed.py compares.

    python processes.py OUT VARIANT...      # starts as many processes as DEVICES says, or is started by torchrun

Each variant but "right" has a fault, put in on purpose, in the sums over processes.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from lightning_fabric import Fabric
from safetensors.torch import save_file
from torch import Tensor, distributed

from latentseg.config import Config
from latentseg.data.batches import Batch
from latentseg.data.datasets import open_dataset
from latentseg.data.splits import Split
from latentseg.distributed import all_reduce_sum, from_first, rank, world
from latentseg.engine import connected, make_fabric
from latentseg.methods import latent
from latentseg.methods.adversarial import Adversary
from latentseg.presets import load_config
from latentseg.training.trainer import Trainer, build_state

STEPS, CLASSES, SIZE, IMAGES = 10, 5, 32, 4
OPTIONS = [
    f"steps={STEPS}", f"batch_size={IMAGES}", "precision=64-true", "threads=1", "device=cpu", "model.weights_kind=none",
    "model.frozen=false", "model.batchnorm=frozen", "model.head_channels=16", "augment.crop=[32,32]",
    "discriminator.downscale=1", "discriminator.width=8", "method.num_latent=5", "method.ema_alpha=0.1",
    "method.lambda_lbl_adv=0.01", "method.lambda_ulbl_adv=0.001", "method.consistency_start=0.3",
]  # fmt: skip


def config_of(devices: int, num_nodes: int, *more: str) -> Config:
    return load_config("scenes", [*OPTIONS, f"devices={devices}", f"num_nodes={num_nodes}", *more])


def batch_at(step: int) -> Batch:
    """This process's part of a batch. Pixels without a label are many, and differ: the first half may have no other."""
    random = torch.Generator().manual_seed(step)
    images = torch.rand(2, IMAGES, 3, SIZE, SIZE, generator=random, dtype=torch.float64)
    targets = torch.randint(0, CLASSES, (IMAGES, SIZE, SIZE), generator=random)
    shares = torch.tensor([0.0 if step == 1 else 0.2, 0.0 if step == 1 else 0.9, 0.7, 0.4])
    known, shown = torch.rand(2, IMAGES, SIZE, SIZE, generator=random) < shares[None, :, None, None]
    own = slice(rank() * IMAGES // world(), (rank() + 1) * IMAGES // world())
    return Batch(images[0, own], targets.where(known, 255)[own], images[1, own], shown[own])


@contextmanager
def fault(variant: str) -> Iterator[None]:
    """Put the fault in."""
    with ExitStack() as stack:
        if variant == "local P_b":
            stack.enter_context(patch.object(latent, "all_reduce_sum", lambda values: values))
        if variant == "detached P_b":
            detached = lambda values: all_reduce_sum(values.detach()) + 0 * values  # noqa: E731
            stack.enter_context(patch.object(latent, "all_reduce_sum", detached))
        if variant == "discriminator unfrozen":
            stack.enter_context(patch.object(Adversary, "__init__", unfrozen))
        yield


frozen = Adversary.__init__


def unfrozen(adversary: Adversary, nets: torch.nn.ModuleDict) -> None:
    frozen(adversary, nets)  # type: ignore[arg-type]
    nets["discriminator"].requires_grad_(True)


def steps(fabric: Fabric, config: Config, variant: str) -> dict[str, Tensor]:
    """All tensors after the steps: networks, method and both optimisers."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    split = Split([], [])
    state = build_state(config, [str(number) for number in range(CLASSES)], split)
    trainer = Trainer(config, fabric, open_dataset(config.data), split, state)
    trainer.place()
    with fault(variant):
        for step in range(STEPS):
            trainer.learn(step, batch_at(step))
    return {name: value.detach().clone().contiguous() for name, value in state.tensors().items()}


def main(out: Path, variants: list[str]) -> None:
    config = config_of(int(os.environ["DEVICES"]), int(os.environ.get("NODES", "1")))
    fabric = make_fabric(config)
    with connected(fabric):
        for variant in variants:
            save_file(steps(fabric, config, variant), out / f"{variant} {rank()}.safetensors")
        assert from_first(rank) == 0
    assert not distributed.is_initialized()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
