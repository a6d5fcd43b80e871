"""Parts of `gpu.py` that check: what the GPU computes is what the CPU computes."""

import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from gpu_setting import TINY, Row, Setting, tried
from lightning_fabric import Fabric
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, distributed
from torch.nn import BatchNorm2d
from torch.nn import functional as F
from torch.nn.modules._functions import SyncBatchNorm

from latentseg import losses
from latentseg.config import Config
from latentseg.distributed import all_reduce_sum, average, largest, mean_divisor
from latentseg.engine import Replicas, connected
from latentseg.methods.table import METHODS
from latentseg.models.upsample import upsample
from latentseg.presets import load_config, only_read
from latentseg.runs.checkpoints import Checkpoints
from latentseg.training.trainer import Trainer

CLOSE = 1e-4
"""Largest relative difference of a term on the GPU to that on the CPU."""
ALIKE = ["method.lambda_lbl_adv=0.01", "method.lambda_ulbl_adv=0.001", "method.consistency_start=0"]
ALIKE += ["method.threshold=0.5", "model.frozen=false", "log_every=1"]
RESUMED = ("latent", "latent_match", "unimatch")


def without_tf32() -> None:
    """Let a GPU multiply float32 as float32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def run_of(setting: Setting, method: str, steps: int, *more: str) -> Config:
    """A tiny run of a method on drawn scenes, its encoder trained along, all terms on from the first step."""
    groups = ["method.groups=identity"] if method == "given_classes" else []
    chosen = [*TINY, *setting.options, *ALIKE, *groups, f"method.name={method}", f"steps={steps}", *more]
    return load_config("scenes", only_read(chosen, method))


def placed(config: Config) -> Trainer:
    """A trainer at its first step."""
    trainer = Trainer.open(config)
    trainer.seek(0)
    return trainer


def figures(values: dict[str, Tensor]) -> dict[str, float]:
    """The terms of a step as numbers."""
    return {name: float(value) for name, value in values.items()}


def apart(ours: dict[str, float], theirs: dict[str, float]) -> float:
    """Largest relative difference of the terms."""
    return max(abs(ours[name] - theirs[name]) / max(abs(theirs[name]), 1e-6) for name in theirs)


def ten_steps(setting: Setting) -> Iterator[Row]:
    """Ten steps of every method on the device and on the CPU, float32 without TF32.

    `apart`: the CPU takes each step from the device's weights. `drift`: it went its own way from the first step on.
    """
    without_tf32()
    names, steps = methods(setting)
    return tried({name: partial(_beside_the_cpu, setting, name, steps) for name in names})


def half(setting: Setting) -> Iterator[Row]:
    """Ten steps of every method on the device in bfloat16: all terms are finite."""
    names, steps = methods(setting)
    return tried({name: partial(_half, setting, name, steps) for name in names})


def methods(setting: Setting) -> tuple[list[str], int]:
    """Names of the methods, and steps of each."""
    return (["latent"], 2) if setting.small else ([*METHODS], 10)


def _beside_the_cpu(setting: Setting, method: str, steps: int) -> dict[str, Any]:
    trainer = placed(run_of(setting, method, steps, "precision=32-true"))
    beside, alone = (placed(run_of(setting, method, steps, "precision=32-true", "device=cpu")) for _ in range(2))
    differences, drifts = [], []
    for _ in range(steps):
        state = {name: value.detach().cpu().clone() for name, value in trainer.state.tensors().items()}
        beside.state.load(state, begun=trainer.done > 0)
        found = figures(trainer.step())
        differences.append(apart(found, figures(beside.step())))
        drifts.append(apart(found, figures(alone.step())))
    trainer.settle()
    worst = max(differences)
    return {"ok": worst <= CLOSE, "apart": worst, "drift": max(drifts), "terms": sorted(found)}


def _half(setting: Setting, method: str, steps: int) -> dict[str, Any]:
    trainer = placed(run_of(setting, method, steps, "precision=bf16-mixed"))
    found = [figures(trainer.step()) for _ in range(steps)]
    trainer.settle()
    return {"ok": all(math.isfinite(value) for row in found for value in row.values()), "last": found[-1]}


def closed_forms(setting: Setting) -> Iterator[Row]:
    """Gradients in float64: the closed form by finite differences, all losses against those on the CPU."""
    random = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, size, 9, 11, generator=random, dtype=torch.float64) for size in (4, 3, 4)]
    targets = torch.randint(0, 4, (2, 9, 11), generator=random)
    targets[0, :2] = losses.IGNORE_INDEX

    def consistency(target: Tensor, prediction: Tensor) -> Tensor:
        return losses.consistency(target.softmax(1), prediction.softmax(1), gradient="both")

    small = [part[:, :3, :2, :3].to(setting.device).requires_grad_() for part in (maps[1], maps[0])]
    yield from tried({"closed form": lambda: {"ok": torch.autograd.gradcheck(consistency, small)}})
    functions: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
        "cross_entropy": lambda one, _, __, ids: losses.cross_entropy(one, ids),
        "latent": lambda _, two, __, ids: losses.conditional_entropy(
            losses.latent_joint(two.softmax(1), ids, 4)[0] / ids.numel()
        ),
        "consistency": lambda one, two, _, __: consistency(two, one[:, :3]),
        "symmetric": lambda one, _, three, __: losses.symmetric_divergence(one, three),
        "squared": lambda one, _, three, __: losses.squared_difference(one.softmax(1), three.softmax(1)),
        "adversarial": lambda one, _, __, ids: losses.real_or_fake(one[:, :1], True, ids != losses.IGNORE_INDEX),
        "upsample": lambda one, _, __, ___: upsample(one, (33, 41), True).square().sum(),
    }
    for name, function in functions.items():
        ours, theirs = (_gradients(function, maps, targets, device) for device in (setting.device, "cpu"))
        worst = max(float((one - other).abs().max()) for one, other in zip(ours, theirs, strict=True))
        yield name, {"ok": worst < 1e-9, "apart": worst}


def _gradients(function: Callable[..., Tensor], maps: list[Tensor], targets: Tensor, device: str) -> list[Tensor]:
    """A loss and its gradients, on the CPU."""
    leaves = [part.to(device).requires_grad_() for part in maps]
    value = function(*leaves, targets.to(device))
    gradients = torch.autograd.grad(value, leaves, allow_unused=True)
    return [value.detach().cpu(), *(one.cpu() for one in gradients if one is not None)]


def resumed(setting: Setting) -> Iterator[Row]:
    """A run that was stopped in its middle and went on, and one that ran twice, against one that was never stopped.

    Deterministic algorithms are on; PyTorch names those that have no such form (`unsure`).
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    names = RESUMED[:1] if setting.small else RESUMED
    return tried({name: partial(_stopped, setting, name) for name in names})


def _stopped(setting: Setting, method: str) -> dict[str, Any]:
    half = 1 if setting.small else 4
    config = run_of(setting, method, 2 * half, "precision=32-true")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        whole, again = (placed(config) for _ in range(1 if setting.small else 2)), Checkpoints(Path(folder))
        ends = []
        for number, trainer in enumerate(whole):
            for _ in range(2 * half):
                trainer.step()
                if number == 0 and trainer.done == half:
                    again.save(half, trainer.state.tensors())
            ends.append(_tensors(trainer))
        entry = again.last()
        assert entry is not None
        trainer = Trainer.open(config)
        trainer.place()
        trainer.state.load(again.read(entry))
        trainer.seek(half)
        for _ in range(half):
            trainer.step()
        differing = [name for name, value in _tensors(trainer).items() if not torch.equal(value, ends[0][name])]
    texts = [str(warning.message) for warning in told]
    unsure = sorted({text.split()[0] for text in texts if "deterministic" in text})
    same = all(torch.equal(value, ends[-1][name]) for name, value in ends[0].items())
    return {"ok": not differing, "differing": differing[:5], "twice_the_same": same, "unsure": unsure}


def _tensors(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in trainer.state.tensors().items()}


def one_process(setting: Setting) -> Iterator[Row]:
    """The sums over processes through NCCL (gloo on a CPU) with one process, and SyncBatchNorm's kernels."""
    fabric = Fabric(accelerator=setting.device, devices=1, strategy=Replicas())
    with connected(fabric):
        yield from tried({"sums": lambda: _sums(fabric.device), "SyncBatchNorm": lambda: _synchronised(setting)})


@patch("latentseg.distributed.world", return_value=2)  # one process, counted as two
def _sums(device: torch.device, _world: object = None) -> dict[str, Any]:
    counts = torch.rand(5, 7, device=device, requires_grad=True)
    total = all_reduce_sum(counts)
    [slope] = torch.autograd.grad(total.square().sum(), [counts])
    mean = torch.full((3,), 4.0, device=device)
    average([mean])
    held = {
        "sum": torch.equal(total, counts),
        "gradient": torch.allclose(slope, 2 * counts),
        "mean": mean.tolist() == [2.0] * 3,
        "divisor": float(mean_divisor(counts > -1)) == 17.5,
        "largest": largest(7, device) == 7,
    }
    return {"ok": all(held.values()), "backend": distributed.get_backend(), **held}


def _synchronised(setting: Setting) -> dict[str, Any]:
    """Its conversion keeps the weights; its forward and backward, as several processes run them, are BatchNorm's."""
    norm = BatchNorm2d(8).to(setting.device)
    converted = convert_sync_batchnorm(norm)  # type: ignore[no-untyped-call]
    kept = [*converted.state_dict()] == [*norm.state_dict()]
    if setting.small:
        return {"ok": kept, "forward": "on a GPU alone"}
    images = torch.randn(4, 8, 15, 17, device=setting.device)
    pairs = []
    for synchronised in (True, False):
        leaf = images.clone().requires_grad_()
        weight, bias = norm.weight.detach().clone().requires_grad_(), norm.bias.detach().clone()
        mean, variance = torch.zeros(8, device=setting.device), torch.ones(8, device=setting.device)
        if synchronised:
            out = SyncBatchNorm.apply(leaf, weight, bias, mean, variance, 1e-5, 0.1, distributed.group.WORLD, 1)
        else:
            out = F.batch_norm(leaf, mean, variance, weight, bias, True, 0.1, 1e-5)
        pairs.append([out.detach(), *torch.autograd.grad(out.square().mul(out).sum(), [leaf, weight]), mean, variance])
    worst = max(float((one - other).abs().max()) for one, other in zip(*pairs, strict=True))
    return {"ok": kept and worst < 1e-3, "apart": worst}
