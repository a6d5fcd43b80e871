"""Batches: a pure function of seed and step, whatever the number of workers and wherever a run starts again."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from latentseg.config import AugmentConfig, Config
from latentseg.data.balance import class_pixels, repetitions
from latentseg.data.datasets import Dataset, Item
from latentseg.data.features import Features, FeatureStore
from latentseg.data.images import IGNORE_INDEX
from latentseg.data.order import indices
from latentseg.data.splits import Split
from latentseg.data.transforms import (
    View,
    draw_strong,
    draw_view,
    strong_image,
    view_image,
    view_targets,
    view_valid,
)
from latentseg.methods.table import METHODS

LABELED, UNLABELED, REAL = 0, 1, 2  # streams
VIEW, FIXED_VIEW = 1, 2  # what a seed is for (0: the order of an epoch): the view of one image;
STRONG, STEP, GLOBAL = 3, 4, 5  # a strong view of it, what a method draws in a step, what the networks draw in it


@dataclass(frozen=True)
class Batch:
    """What one step sees.

    Attributes:
        images: Labelled images, RGB in 0..1, float32, shape (N, 3, H, W); or what the frozen encoder made of them.
        targets: Their class ids, int64, shape (N, H, W); 255 is ignored.
        unlabeled: Unlabelled images, as `images`; None if the run uses none.
        unlabeled_valid: Where they show image and not padding, bool, shape (N, H, W).
        real: Class ids of other labelled images, as `targets`, for the discriminator; None: it takes `targets`.
        strong: Strong views of `unlabeled`, pixel for pixel, each as `images`; as many as the method wants, none
            where `unlabeled` is Features.
        seed: Of what is random within the step, a function of the run's seed and the step.
        neighbours: How much of each class the images show that look like each unlabelled one, relative to the average
            image, shape (N, C); None if nobody looked.
    """

    images: Tensor | Features
    targets: Tensor
    unlabeled: Tensor | Features | None = None
    unlabeled_valid: Tensor | None = None
    real: Tensor | None = None
    strong: tuple[Tensor, ...] = ()
    seed: int = 0
    neighbours: Tensor | None = None

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on a device."""
        return self._each(lambda part: part.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory (the data loader calls this)."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        def parts(images: Tensor | Features) -> Tensor | Features:
            if isinstance(images, Features):
                return Features([change(features) for features in images.maps], images.size)
            return change(images)

        return Batch(
            parts(self.images),
            change(self.targets),
            None if self.unlabeled is None else parts(self.unlabeled),
            None if self.unlabeled_valid is None else change(self.unlabeled_valid),
            None if self.real is None else change(self.real),
            tuple(change(images) for images in self.strong),
            self.seed,
            None if self.neighbours is None else change(self.neighbours),
        )

    def __len__(self) -> int:
        """Number of images, labelled and unlabelled."""
        return len(self.targets) + (0 if self.unlabeled_valid is None else len(self.unlabeled_valid))


class Place(NamedTuple):
    """One image of a batch: its item, and its number among the stream's items."""

    item: Item
    epoch: int
    """How often it was shown before: the epoch of its stream, unless an epoch shows it several times."""
    number: int
    views: int | None
    """How many different views it has; None: a new one each epoch."""


class Part(NamedTuple):
    """The part of each batch that one of several processes takes: an equal number of images in a row."""

    rank: int = 0
    """Number of the process."""
    world: int = 1
    """Number of processes."""


WHOLE = Part()
"""The one process that takes all of each batch."""


def places(
    config: Config, stream: int, items: list[Item], step: int, part: Part = WHOLE, times: list[int] | None = None
) -> list[Place]:
    """What a stream of these items shows one process at a step; `times`: how often an epoch shows each, once if None.

    An image that is shown again is another view, as in a later epoch.
    """
    times = times or [1] * len(items)
    shown = [(number, again) for number, often in enumerate(times) for again in range(often)]
    drawn = indices(config.seed, stream, len(shown), config.batch_size, step)
    own = config.batch_size // part.world
    views = views_of(stream, config.augment, len(items))
    here = [(epoch, *shown[index]) for epoch, index in drawn[part.rank * own : (part.rank + 1) * own]]
    return [Place(items[number], epoch * times[number] + again, number, views) for epoch, number, again in here]


def view_at(config: Config, stream: int, place: Place, height: int, width: int) -> View:
    """How a batch shows an image of this size at its place in the stream."""
    if place.views is not None:
        return fixed_view(place.item, place.epoch % place.views, height, width, config.augment)
    rng = np.random.default_rng([VIEW, config.seed, stream, place.epoch, place.number])
    return draw_view(height, width, config.augment, rng)


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """Seed of what is random within a step of the run with this seed, on one of its processes, 63 bits."""
    return int(np.random.default_rng([STEP, seed, step, *[rank] * (rank > 0)]).integers(2**63))


def global_seed(seed: int, step: int, rank: int = 0) -> int:
    """Seed of PyTorch's global random numbers in a step (dropout, stochastic depth), on one process, 63 bits."""
    return int(np.random.default_rng([GLOBAL, seed, step, rank]).integers(2**63))


def fixed_view(item: Item, number: int, height: int, width: int, augment: AugmentConfig) -> View:
    """View `number` of an image of this size under `augment.views`: it depends on nothing else than its id."""
    rng = np.random.default_rng([FIXED_VIEW, zlib.crc32(item.id.encode()), number])
    return draw_view(height, width, augment, rng)


def views_of(stream: int, augment: AugmentConfig, images: int) -> int | None:
    """How many different views each of the images of a stream has; None: a new one each epoch."""
    return augment.views if stream == UNLABELED else augment.views_of_labeled(images)


class Stores(NamedTuple):
    """Features of the labelled and of the unlabelled images; one store if both have as many views."""

    labeled: FeatureStore
    unlabeled: FeatureStore


class Seen(NamedTuple):
    """What a frozen encoder has seen before training."""

    stores: Stores | None = None
    """Features of the views; None: the encoder runs in training."""
    neighbours: Tensor | None = None
    """What `Batch.neighbours` has of each unlabelled image, shape (images, C)."""


NOTHING = Seen()
"""The encoder has not looked yet."""


class Shown(NamedTuple):
    """What a stream shows at a step; the fields as in `Batch`, or without the first axis for one image."""

    images: Tensor | Features
    targets: Tensor
    valid: Tensor
    strong: tuple[Tensor, ...] = ()


class StepDataset(TorchDataset[Batch]):
    """Batch of each step.

    The view of an image depends on seed, stream, epoch and index alone; with `augment.views` on its id and the
    number of the view, which is the epoch modulo the number of views. A strong view depends on seed, stream, epoch,
    index and its number, so it is a new one each epoch even then.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: Split,
        config: Config,
        mean: tuple[float, float, float],
        unlabeled: bool = True,
        seen: Seen = NOTHING,
        part: Part = WHOLE,
    ) -> None:
        self.dataset, self.split, self.config, self.mean = dataset, split, config, mean
        self.stores, self.neighbours = seen
        self.part, self.row = part, METHODS[config.method.name]
        self.uses_unlabeled = unlabeled and bool(split.unlabeled)
        self._targets: dict[tuple[str, int], Tensor] = {}  # of the views in the store
        balance = config.data.balance
        self._times = repetitions(class_pixels(dataset, split.labeled), balance) if balance else None

    def __len__(self) -> int:
        return self.config.steps

    def __getitem__(self, step: int) -> Batch:
        seed = step_seed(self.config.seed, step, self.part.rank)
        labeled = self._stream(LABELED, self.split.labeled, step)
        real = None
        adversarial = self.row.has_discriminator(self.config.method)
        if adversarial and self.config.discriminator.real_maps == "loader":
            drawn = places(self.config, REAL, self.split.labeled, step, self.part, self._times)
            real = torch.stack([self._truth(place) for place in drawn])
        if not self.uses_unlabeled:
            return Batch(labeled.images, labeled.targets, real=real, seed=seed)
        unlabeled = self._stream(UNLABELED, self.split.unlabeled, step)
        near = None
        if self.neighbours is not None:
            drawn = places(self.config, UNLABELED, self.split.unlabeled, step, self.part)
            near = self.neighbours[[place.number for place in drawn]]
        return Batch(
            labeled.images, labeled.targets, unlabeled.images, unlabeled.valid, real, unlabeled.strong, seed, near
        )

    def _stream(self, stream: int, items: list[Item], step: int) -> Shown:
        times = None if stream == UNLABELED else self._times
        drawn = places(self.config, stream, items, step, self.part, times)
        if self.stores is not None:
            return self._stored(self.stores, stream, drawn)
        images, labels, valid, strong = zip(*(self._shown(stream, place) for place in drawn), strict=True)
        others = tuple(torch.stack(views) for views in zip(*strong, strict=True))
        return Shown(torch.stack(images), torch.stack(labels), torch.stack(valid), others)

    def _shown(self, stream: int, place: Place) -> Shown:
        augment, read = self.config.augment, self.dataset
        pixels, ids = (read.read_image(place.item), None) if stream == UNLABELED else read.read_pair(place.item)
        view = view_at(self.config, stream, place, *pixels.shape[:2])
        image, valid = view_image(pixels, view, augment, self.mean), view_valid(view, augment)
        if ids is None:
            return Shown(image, torch.full(augment.crop, IGNORE_INDEX), valid, self._strong(image, view, place))
        return Shown(image, view_targets(ids, view, augment), valid)

    def _truth(self, place: Place) -> Tensor:
        """The labels alone of a view of the stream REAL: nothing else of its image is read."""
        if self.stores is None:
            ids = self.dataset.read_targets(place.item)
            return view_targets(ids, view_at(self.config, REAL, place, *ids.shape), self.config.augment)
        view = view_at(self.config, REAL, place, *self.stores.labeled.size(place.item.id))
        return self._stored_targets(place.item, place.epoch % self.stores.labeled.views, view)

    def _strong(self, image: Tensor, view: View, place: Place) -> tuple[Tensor, ...]:
        seeds = [
            [STRONG, self.config.seed, UNLABELED, place.epoch, place.number, number]
            for number in range(self.row.strong_views)
        ]
        draws = [draw_strong(np.random.default_rng(seed)) for seed in seeds]
        return tuple(strong_image(image, view, drawn, self.config.strong) for drawn in draws)

    def _stored(self, stores: Stores, stream: int, drawn: list[Place]) -> Shown:
        """The same from the stores: the encoder has seen the images, their masks are read now."""
        augment = self.config.augment
        store = stores.unlabeled if stream == UNLABELED else stores.labeled
        features = store.read([(place.item.id, place.epoch % store.views) for place in drawn])
        views = [view_at(self.config, stream, place, *store.size(place.item.id)) for place in drawn]
        if stream == UNLABELED:
            labels = [torch.full(augment.crop, IGNORE_INDEX) for _ in drawn]
        else:
            pairs = zip(drawn, views, strict=True)
            labels = [self._stored_targets(place.item, place.epoch % store.views, view) for place, view in pairs]
        return Shown(features, torch.stack(labels), torch.stack([view_valid(view, augment) for view in views]))

    def _stored_targets(self, item: Item, number: int, view: View) -> Tensor:
        if (item.id, number) not in self._targets:
            targets = view_targets(self.dataset.read_targets(item), view, self.config.augment)
            self._targets[item.id, number] = targets.byte()
        return self._targets[item.id, number].long()
