"""The one training loop. It knows no method."""

import copy
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric
from rich.console import Console
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from latentseg.caching import cached_features
from latentseg.checkpoints import (
    load_module,
    load_optimizer,
    module_tensors,
    optimizer_tensors,
)
from latentseg.config import Config
from latentseg.data.batches import Batch, Part, batch_notes, batches
from latentseg.data.check import check_data
from latentseg.data.datasets import Dataset, Item, open_dataset
from latentseg.data.hidden import HiddenTruth
from latentseg.data.splits import Split, draw_split
from latentseg.errors import UserError
from latentseg.inference.evaluate import score_items
from latentseg.inference.model import Model
from latentseg.locks import hold
from latentseg.methods import Losses, Method, Networks, build_method, describe, second_branch
from latentseg.models.discriminator import Discriminator
from latentseg.models.segmenter import Segmenter, build_segmenter
from latentseg.optim import decay, discriminator_optimizer, segmenter_optimizer
from latentseg.parallel import (
    average,
    connected,
    from_first,
    is_first,
    make_fabric,
    peers_named,
    rank,
    world,
)
from latentseg.processor import full_speed
from latentseg.progress import track_steps
from latentseg.runs import LOCK, Log, Run, check_run_folder, create_run, free_path, make_folder

console = Console(stderr=True, soft_wrap=True)


@dataclass
class State:
    """What a checkpoint holds."""

    networks: dict[str, nn.Module]
    method: Method
    optimizers: dict[str, Optimizer]

    @property
    def segmenter(self) -> Segmenter:
        """The network that predicts."""
        segmenter = self.networks["segmenter"]
        assert isinstance(segmenter, Segmenter)
        return segmenter

    def tensors(self, optimizers: bool = True) -> dict[str, Tensor]:
        """All tensors by flat name."""
        tensors = module_tensors("method", self.method)
        for name, module in self.networks.items():
            tensors |= module_tensors(name, module)
        for name, optimizer in self.optimizers.items() if optimizers else ():
            tensors |= optimizer_tensors(name, optimizer)
        return tensors

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Put the tensors back."""
        load_module("method", self.method, tensors)
        for name, module in self.networks.items():
            load_module(name, module, tensors)
        for name, optimizer in self.optimizers.items():
            load_optimizer(name, optimizer, tensors)


def train(config: Config, run: str | Path | None = None, resume: bool = False) -> Run:
    """Train as the configuration says and leave a run folder.

    Args:
        config: The run, from `load_config`.
        run: The run folder; `runs/DATA-METHOD-sSEED` with the first free number if None.
        resume: Go on from the last checkpoint in `run`, bit for bit; start if it has none.

    Raises:
        UserError: Bad input, found before training; or a loss that is not finite.
    """
    check_arguments(config, run, resume)
    processes = config.devices * config.num_nodes
    fabric = make_fabric(config)
    folder = Path(run) if run else free_path(Path("runs") / f"{config.data.kind}-{config.method.name}-s{config.seed}")
    if is_first():
        check_run_folder(folder, config, resume)
    if config.threads:
        torch.set_num_threads(config.threads)
    dataset = open_dataset(config.data, remember=config.cache == "images")
    split = draw_split(dataset, config.data, config.seed)
    held_out = dataset.items(config.validate_split) if dataset.has(config.validate_split) else []
    torch.manual_seed(config.seed)
    state = build_state(config, dataset.classes, split)
    if is_first():
        notes = check_data(dataset, split, held_out, config.data.check)
        for note in notes + batch_notes(split, config.batch_size, state.method.uses_unlabeled):
            console.print(f"note: {note}", style="yellow", markup=False)
    with ExitStack() as stack:
        stack.enter_context(connected(fabric))
        stack.enter_context(full_speed())

        def begin() -> tuple[Run, int]:
            make_folder(folder)
            stack.enter_context(hold(folder / LOCK, f"the run {folder}"))
            run_folder = create_run(folder, config, dataset, split)
            entry = run_folder.checkpoints.last() if resume else None
            start = entry.step if entry else 0
            several = f", {processes} processes" if processes > 1 else ""
            console.print(
                f"{folder}: {config.method.name}, {len(split.labeled)} labelled and {len(split.unlabeled)} unlabelled "
                f"images, {len(dataset.classes)} classes, steps {start} to {config.steps}{several}",
                markup=False,
                highlight=False,
            )
            return run_folder, start

        run_folder, start = from_first(begin)
        with peers_named():
            _fit(fabric, config, state, dataset, split, held_out, run_folder, start)
    return run_folder


def check_arguments(config: Config, run: str | Path | None, resume: bool) -> None:
    """Refuse what can be told to fail without a look at data or folders.

    Raises:
        UserError: There is no run to resume, or the batch cannot be shared equally.
    """
    if resume and not run:
        raise UserError("nothing to resume: name the run folder with --run")
    processes = config.devices * config.num_nodes
    if config.batch_size % processes:
        raise UserError(
            f"batch_size={config.batch_size} cannot be divided among {processes} processes (devices={config.devices}, "
            f"num_nodes={config.num_nodes}): take a multiple of {processes}"
        )


def build_state(config: Config, classes: Sequence[str], split: Split) -> State:
    """Build networks, method and optimisers. The segmenter's initial weights depend on the seed alone.

    Raises:
        UserError: A part does not fit: weights, head, groups of classes, or the crop the encoder.
    """
    num_classes = len(classes)
    segmenter = build_segmenter(config.model, num_classes, second_branch(config, num_classes))
    segmenter.encoder.check_size(*config.augment.crop)
    networks: dict[str, nn.Module] = {"segmenter": segmenter}
    optimizers = {"segmenter": segmenter_optimizer(segmenter, config.optim)}
    if config.method.has_teacher:
        networks["teacher"] = copy.deepcopy(segmenter).requires_grad_(False)
    if config.method.has_peer:  # the random numbers have gone on: its heads start elsewhere
        peer = build_segmenter(config.model, num_classes, 0)
        networks["peer"], optimizers["peer"] = peer, segmenter_optimizer(peer, config.optim)
    for network in networks.values() if config.compile else ():
        network.get_submodule("encoder").compile()  # it cannot look into the cached weights that upsample
    if config.method.adversarial:
        judge = Discriminator(
            num_classes, config.discriminator.width, config.discriminator.downscale, segmenter.align_corners
        )
        networks["discriminator"] = judge
        optimizers["discriminator"] = discriminator_optimizer(judge, config.optim)
    images = len(split.labeled) + len(split.unlabeled)
    method = build_method(config, classes, len(split.labeled), images)
    return State(networks, method, optimizers)


def _resume(state: State, run: Run) -> None:
    """Take up the last checkpoint, which process 0 reads for all; without one, all start from its weights."""

    def tensors() -> dict[str, Tensor] | None:
        entry = run.checkpoints.last()
        run.checkpoints.drop_later_best(entry.step if entry else 0)
        if entry:
            return run.checkpoints.read(entry)
        return {name: value.cpu() for name, value in state.tensors().items()} if world() > 1 else None

    found = from_first(tensors)
    if found is not None:
        state.load(found)


def set_up(fabric: Fabric, state: State) -> tuple[Networks, dict[str, Optimizer]]:
    """Put networks, optimisers and method on the device and in their number format, ready to train."""
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        for name, module in state.networks.items():
            state.networks[name] = convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    nets = Networks()
    optimizers: dict[str, Optimizer] = {}
    for name, module in state.networks.items():
        if name in state.optimizers:
            nets[name], optimizers[name] = fabric.setup(module, state.optimizers[name])
        else:  # the teacher
            nets[name] = fabric.setup_module(module)
    state.method.to(fabric.device)
    nets.train()
    return nets, optimizers


def training_step(
    fabric: Fabric,
    method: Method,
    nets: Networks,
    optimizers: dict[str, Optimizer],
    batch: Batch,
    step: int,
) -> dict[str, Tensor]:
    """One step: every part of the method goes backward as it comes, then each optimiser acts once.

    With several processes the gradients are averaged over them first.

    Returns:
        The value of each term, by name, without its weight; its mean over the processes is that of the whole batch.

    Raises:
        UserError: A term is not finite; it is named.
    """
    values: dict[str, Tensor] = {}
    for optimizer in optimizers.values():
        optimizer.zero_grad()
    for losses in method(nets, batch, step):
        fabric.backward(total(losses))
        values |= {name: term.value.detach() for name, term in losses.terms.items()}
    check_finite(values, step)
    for optimizer in optimizers.values():
        learned = (parameter for group in optimizer.param_groups for parameter in group["params"])
        average(parameter.grad for parameter in learned if parameter.grad is not None)
        optimizer.step()
    if world() > 1:
        average(_running_statistics(nets))
    return values


def _running_statistics(nets: Networks) -> list[Tensor]:
    """What BatchNorm has gathered of each process's own images; SyncBatchNorm has gathered it of all."""
    norms = [module for module in nets.modules() if isinstance(module, _BatchNorm) and module.training]
    return [buffer for norm in norms for buffer in norm.buffers() if buffer.is_floating_point()]


def total(losses: Losses) -> Tensor:
    """The weighted sum of the terms."""
    return torch.stack([term.weight * term.value for term in losses.terms.values()]).sum()


def check_finite(values: dict[str, Tensor], step: int) -> None:
    """Look at all terms of a step at once: on a GPU this waits for them, the one time in a step.

    Raises:
        UserError: A term is not finite; it is named.
    """
    if bool(torch.stack([torch.isfinite(value) for value in values.values()]).all()):
        return
    for name, value in values.items():
        if not bool(torch.isfinite(value)):
            raise UserError(
                f"step {step + 1}: the term {name!r} is {value.item()}; training stopped. The last checkpoint is from "
                f"before. Remedy: a lower optim.lr or a smaller weight of {name}"
            )


def _fit(
    fabric: Fabric,
    config: Config,
    state: State,
    dataset: Dataset,
    split: Split,
    held_out: list[Item],
    run: Run,
    start: int,
) -> None:
    """Run the steps from `start`; log, validate and save on the way."""
    nets, optimizers = set_up(fabric, state)
    method, part = state.method, Part(rank(), world())
    _resume(state, run)  # only now have the tensors their number format
    reads = method.uses_unlabeled
    cached = config.cache == "features"
    stores = cached_features(config, state.segmenter, dataset, split, reads) if cached else None
    stream = batches(dataset, split, config, state.segmenter.mean, start, reads, stores, part)
    hidden = HiddenTruth(dataset, split, config, stores, part)
    log = Log(run.folder, start) if part.rank == 0 else None
    clock, images = time.perf_counter(), 0
    with track_steps(config.steps, start, log is not None) as show:
        for step, batch in stream:
            decay(optimizers, step / config.steps, config.optim.power)
            terms = training_step(fabric, method, nets, optimizers, batch.to(fabric.device), step)
            images += len(batch) * part.world
            done, ends = step + 1, step + 1 == config.steps
            if done % config.log_every == 0 or ends:
                average(terms.values())
                figures = {name: float(value) for name, value in terms.items()}
                if method.lesson is not None:
                    figures |= describe(method.lesson, hidden.targets(step))
                seconds = time.perf_counter() - clock
                rate = images / seconds
                speed = {"seconds": round(seconds, 3), "images_per_second": round(rate, 2)}
                if log:
                    log.write(done, figures | method.summary() | speed)
                show(done, figures, rate)
                clock, images = time.perf_counter(), 0
            if held_out and (ends or (config.validate_every and done % config.validate_every == 0)):
                _validate(config, state, dataset, held_out, run, log, done)
                nets.train()
            if log and (done % config.checkpoint_every == 0 or ends):
                run.checkpoints.save(done, _finite(state.tensors(), done))
    if log:
        log.close()


def _validate(
    config: Config, state: State, dataset: Dataset, items: list[Item], run: Run, log: Log | None, step: int
) -> None:
    """Score the held-out images, a part of them on each process; keep the weights if they are the best so far."""
    result = score_items(Model.live(state.segmenter, config, dataset), dataset, items)
    if log is None:
        return
    names = ("miou", "iou", "pixel_accuracy")
    log.write(step, {f"{config.validate_split}_{name}": getattr(result, name) for name in names})
    console.print(f"step {step}: mIoU {100 * result.miou:.2f} on {config.validate_split}", highlight=False)
    best = run.checkpoints.best()
    if best is None or best.miou is None or result.miou > best.miou:
        run.checkpoints.save_best(step, _finite(state.tensors(optimizers=False), step), result.miou)


def _finite(tensors: dict[str, Tensor], step: int) -> dict[str, Tensor]:
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise UserError(
                f"step {step}: {name} holds values that are not finite; training stopped. The last checkpoint is "
                f"from before. Remedy: a lower optim.lr"
            )
    return tensors
