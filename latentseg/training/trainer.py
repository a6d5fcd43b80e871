"""What takes training steps: data, networks, optimisers, method and engine in one place. It knows no method."""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from latentseg.config import Config
from latentseg.data.balance import balanced_weights, class_pixels
from latentseg.data.batches import Batch, Part, Seen, Stores, global_seed
from latentseg.data.caching import cached_features
from latentseg.data.datasets import Dataset, open_dataset
from latentseg.data.hidden import HiddenTruth
from latentseg.data.loading import batches
from latentseg.data.neighbours import asks_neighbours, neighbour_shares
from latentseg.data.splits import Split, draw_split
from latentseg.distributed import average, rank, world
from latentseg.engine import make_fabric, use_threads
from latentseg.errors import UserError
from latentseg.methods.base import Losses, Method, Networks, build_method
from latentseg.methods.table import METHODS
from latentseg.methods.weak_to_strong import describe
from latentseg.models.discriminator import Discriminator
from latentseg.models.segmenter import Segmenter, build_segmenter
from latentseg.models.whole import WholeImage, classifier_layer
from latentseg.runs.checkpoints import load_module, load_optimizer, module_tensors, optimizer_tensors
from latentseg.training.finite import FiniteCheck, check_finite
from latentseg.training.optim import decay, discriminator_optimizer, segmenter_optimizer


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

    def load(self, tensors: dict[str, Tensor], begun: bool = True) -> None:
        """Put the tensors back; `begun`: those of a checkpoint, with the optimisers' state."""
        load_module("method", self.method, tensors)
        for name, module in self.networks.items():
            load_module(name, module, tensors)
        for name, optimizer in self.optimizers.items():
            load_optimizer(name, optimizer, tensors, begun)


class Trainer:
    """Takes the steps of a run. `open` it, `seek` a step, then `step` as often as wanted, and `close` it.

    The training loop, the dry run, `latentseg benchmark` and the scripts in `benchmarks/` take their steps here.

    Attributes:
        config: The run.
        dataset: Reads the images.
        split: Labelled and unlabelled training images.
        state: Networks, method and optimisers: what a checkpoint holds.
        fabric: The engine: device, precision, processes.
        done: Number of steps that are done.
        waited: Seconds that the last step waited for its batch.
    """

    def __init__(
        self, config: Config, fabric: Fabric, dataset: Dataset, split: Split, state: State, part: Part | None = None
    ) -> None:
        self.config, self.fabric, self.dataset, self.split, self.state = config, fabric, dataset, split, state
        self.done, self.waited = 0, 0.0
        self._part = part
        self._nets: Networks | None = None
        self._optimizers: dict[str, Optimizer] = {}
        self._stream: Iterator[tuple[int, Batch]] = iter(())
        self._hidden: HiddenTruth | None = None
        self._finite = FiniteCheck(fabric.device)

    @classmethod
    def open(
        cls, config: Config, dataset: Dataset | None = None, split: Split | None = None, part: Part | None = None
    ) -> "Trainer":
        """Open the data set, draw the split, and build networks, method and optimisers.

        Args:
            config: The run.
            dataset: Its data set, if it is open already.
            split: Other images than those that the configuration draws.
            part: What it takes of each batch; by default as one of the processes that are connected when it is placed.

        Raises:
            UserError: Something of it cannot be had.
        """
        fabric = make_fabric(config)
        use_threads(config.threads)
        dataset = dataset or open_dataset(config.data, remember=config.cache == "images")
        split = split or draw_split(dataset, config.data, config.seed)
        torch.manual_seed(config.seed)
        weights = class_weights(config, dataset, split)
        return cls(config, fabric, dataset, split, build_state(config, dataset.classes, split, weights), part)

    @property
    def part(self) -> Part:
        """What this process takes of each batch."""
        return self._part or Part(rank(), world())

    @property
    def method(self) -> Method:
        """What is learned."""
        return self.state.method

    def place(self) -> None:
        """Put networks, optimisers and method on the device and in their precision, in training mode.

        Several processes must be connected by now. What a checkpoint holds can be loaded from here on.
        """
        fabric, networks = self.fabric, self.state.networks
        if fabric.world_size > 1 and fabric.device.type == "cuda":
            for name, module in networks.items():
                networks[name] = convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        self._nets = Networks()
        for name, module in networks.items():
            if name in self.state.optimizers:
                optimizer = self.state.optimizers[name]
                self._nets[name], self._optimizers[name] = fabric.setup(module, optimizer)
            else:  # the teacher
                self._nets[name] = fabric.setup_module(module)
        self.method.to(fabric.device)
        self._nets.train()

    def seek(self, step: int) -> None:
        """Go to a step (from 0): the next batch is that step's. Features are computed now if they are cached."""
        if self._nets is None:
            self.place()
        self.close()
        self._fold()
        config, reads, stores = self.config, self.method.uses_unlabeled, self._stores()
        mean = self.state.segmenter.mean
        seen = Seen(stores, self._neighbours())
        self._stream = batches(self.dataset, self.split, config, mean, step, reads, seen, self.part)
        self._hidden = HiddenTruth(self.dataset, self.split, config, stores, self.part)
        self.done = step

    def _fold(self) -> None:
        """Run frozen encoders with BatchNorm folded; a teacher's alone if it is the segmenter's and stays so."""
        ours = self.state.segmenter.encoder.state_dict()
        for name, network in self.state.networks.items() if not self.config.compile else ():
            if isinstance(network, Segmenter) and network.frozen:
                theirs = network.encoder.state_dict()
                if name in self.state.optimizers or all(torch.equal(ours[key], theirs[key]) for key in ours):
                    network.fold()

    def _neighbours(self) -> Tensor | None:
        """What images show that look like each unlabelled one, to the power that the method takes it to."""
        config, segmenter = self.config, self.state.segmenter
        asked = asks_neighbours(config) and self.method.uses_unlabeled and self.split.unlabeled
        if not (asked and config.model.frozen):
            return None
        describe = WholeImage(segmenter, classifier_layer(config.model))
        return neighbour_shares(config, self.dataset, self.split, segmenter, describe) ** config.method.neighbour_power

    def _stores(self) -> Stores | None:
        if self.config.cache != "features":
            return None
        reads = self.method.uses_unlabeled
        return cached_features(self.config, self.state.segmenter, self.dataset, self.split, reads)

    def step(self) -> dict[str, Tensor]:
        """Take the next step.

        Returns:
            The value of each term, a scalar, by name, without its weight; its mean over the processes is that of the
            whole batch.

        Raises:
            UserError: A term is not finite; it is named. On a GPU this may be one of the step before (`settle`).
        """
        return self.learn(*self.read())

    def read(self) -> tuple[int, Batch]:
        """Number of the next step, and its batch, on the device."""
        began = time.perf_counter()
        step, batch = next(self._stream)
        self.waited = time.perf_counter() - began
        return step, batch.to(self.fabric.device)

    def learn(self, step: int, batch: Batch) -> dict[str, Tensor]:
        """Take a step on a batch: as `step`."""
        assert self._nets is not None
        torch.manual_seed(global_seed(self.config.seed, step, self.part.rank))  # dropout, stochastic depth
        decay(self._optimizers, step / self.config.steps, self.config.optim.power)
        check = self._finite.look
        values = training_step(self.fabric, self.method, self._nets, self._optimizers, batch, step, check)
        self.done = step + 1
        return values

    def settle(self) -> None:
        """Wait until the last step's terms are known to be finite; before they are logged, or the weights are used.

        Raises:
            UserError: A term is not finite; it is named.
        """
        self._finite.settle()

    def train_mode(self) -> None:
        """Go on training after the segmenter was scored."""
        assert self._nets is not None
        self._nets.train()

    def describe(self) -> dict[str, float]:
        """What the log says of the last step beside its terms: pseudo-labels, and the method's own figures."""
        figures = self.method.summary()
        if self.method.pseudo_label_stats is not None and self._hidden is not None:
            truth = self._hidden.targets(self.done - 1)
            figures = describe(self.method.pseudo_label_stats, truth) | figures
        return figures

    def close(self) -> None:
        """End the stream of batches and what reads ahead for it."""
        self._stream = iter(())


def class_weights(config: Config, dataset: Dataset, split: Split) -> tuple[float, ...] | None:
    """Weights of the classes in the labelled cross-entropy, as `optim.class_weights` says; None: all count the same.

    Raises:
        UserError: As many as there are classes were wanted.
    """
    given = config.optim.class_weights
    if given == "balanced":
        return tuple(balanced_weights(class_pixels(dataset, split.labeled)))
    if given is not None and len(given) != len(dataset.classes):
        raise UserError(
            f"optim.class_weights has {len(given)} weights, the data set {len(dataset.classes)} classes "
            f"({', '.join(dataset.classes)}): give one for each, in this order"
        )
    return None if given is None else tuple(given)


def build_state(
    config: Config, classes: Sequence[str], split: Split, weights: tuple[float, ...] | None = None
) -> State:
    """Build networks, method and optimisers. The segmenter's initial weights depend on the seed alone.

    Args:
        config: The run.
        classes: Names of the semantic classes.
        split: The images; their number sets alpha of Eq. 8.
        weights: Of the classes in the labelled cross-entropy.

    Raises:
        UserError: A part does not fit: weights, head, groups of classes, or the crop the encoder.
    """
    row, num_classes = METHODS[config.method.name], len(classes)
    segmenter = build_segmenter(config.model, num_classes, row.second_channels(config.method, num_classes))
    segmenter.encoder.check_size(*config.augment.crop)
    networks: dict[str, nn.Module] = {"segmenter": segmenter}
    optimizers = {"segmenter": segmenter_optimizer(segmenter, config.optim)}
    if "teacher" in row.follows:
        networks["teacher"] = copy.deepcopy(segmenter).requires_grad_(False)
    if "peer" in row.trains:  # the random numbers have gone on: its heads start elsewhere
        peer = build_segmenter(config.model, num_classes, 0)
        networks["peer"], optimizers["peer"] = peer, segmenter_optimizer(peer, config.optim)
    for network in networks.values() if config.compile else ():
        network.get_submodule("encoder").compile()  # it cannot look into the cached weights that upsample
    if row.has_discriminator(config.method):
        discriminator = Discriminator(
            num_classes, config.discriminator.width, config.discriminator.downscale, segmenter.align_corners
        )
        networks["discriminator"] = discriminator
        optimizers["discriminator"] = discriminator_optimizer(discriminator, config.optim)
    labeled, images = len(split.labeled), len(split.labeled) + len(split.unlabeled)
    method = build_method(config, classes, labeled, images, weights)
    return State(networks, method, optimizers)


def training_step(
    fabric: Fabric,
    method: Method,
    nets: Networks,
    optimizers: dict[str, Optimizer],
    batch: Batch,
    step: int,
    check: Callable[[dict[str, Tensor], int], None] = check_finite,
) -> dict[str, Tensor]:
    """One step: every part of the method goes backward as it comes, then each optimiser acts once.

    With several processes the gradients are averaged over them first. `check` sees the terms before that.

    Returns:
        The value of each term, a scalar, by name, without its weight.

    Raises:
        UserError: A term is not finite; it is named.
    """
    values: dict[str, Tensor] = {}
    for optimizer in optimizers.values():
        optimizer.zero_grad()
    for losses in method(nets, batch, step):
        fabric.backward(total(losses))
        values |= {name: term.value.detach() for name, term in losses.terms.items()}
        del losses  # and with it the graph, before the method goes on
    check(values, step)
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
    """The weighted sum of the terms, a scalar."""
    return torch.stack([term.weight * term.value for term in losses.terms.values()]).sum()
