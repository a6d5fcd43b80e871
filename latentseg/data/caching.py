"""The frozen encoder sees each view once: its features go to disk before training (`cache=features`)."""

import hashlib
import json
import math
import shutil
import zlib
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from latentseg.config import Config, Mark, marked
from latentseg.console import console, track
from latentseg.data.ahead import THREADS, in_threads
from latentseg.data.batches import LABELED, UNLABELED, Stores, fixed_view, views_of
from latentseg.data.datasets import Dataset, Item
from latentseg.data.features import FeatureStore, create_store
from latentseg.data.files import cache_home
from latentseg.data.splits import Split
from latentseg.data.transforms import view_image
from latentseg.errors import UserError
from latentseg.presets import flat
from latentseg.runs.locks import hold

if TYPE_CHECKING:
    from latentseg.models.segmenter import Segmenter  # data knows no model: it is handed one that encodes

LATER = {"augment.rotate": 0.0, "augment.flip": 0.0}
"""Options that came later, and the values without effect, by which the stores from before are found."""
VERSION = 1
"""Of what a store holds; another one makes all stores anew."""
FLUSH_EVERY = 100
"""Images between two flushes to disk."""
AT_ONCE = 2**23
"""Pixels of views that are encoded together, 81 views of 321 x 321: so memory does not grow with their number."""
SAMPLE = 4096
"""Bytes that are looked at in the beginning, the middle and the end of a file: uncompressed images share their size."""


def cached_features(config: Config, segmenter: "Segmenter", dataset: Dataset, split: Split, unlabeled: bool) -> Stores:
    """Features of all images that the run reads; what is missing is computed now.

    A store is found again by the encoder's weights, the images (names, sizes, times of change, samples of their
    bytes), how they are scaled, the views and their number. Runs that differ in anything else share it, also those
    with another labelled subset. A second process waits until the first has filled it.

    Args:
        config: The run, with `augment.views`.
        segmenter: Its encoder is frozen; on the device that computes.
        dataset: Reads the images.
        split: Labelled and unlabelled images.
        unlabeled: Whether the unlabelled ones are needed.

    Raises:
        UserError: The disk is too small, or the folder cannot be written.
    """
    needs = _needs(config, split, unlabeled)
    stores = [_filled(config, segmenter, dataset, split, views, items) for views, items in needs]
    return Stores(stores[0], stores[-1])


def stored_features(config: Config, segmenter: "Segmenter", split: Split, unlabeled: bool) -> Stores | None:
    """What `cached_features` would give if it had nothing to compute, else None. Nothing is written."""
    stores = []
    for views, items in _needs(config, split, unlabeled):
        folder = cache_root(config) / store_key(config, segmenter, images_of(split), views)
        store = FeatureStore(folder) if (folder / "index.json").exists() else None
        if store is None or not all(store.holds(item.id) for item in items):
            return None
        stores.append(store)
    return Stores(stores[0], stores[-1])


def _needs(config: Config, split: Split, unlabeled: bool) -> list[tuple[int, list[Item]]]:
    """Number of views and images of the store for both streams, or of one for each."""
    streams = ((LABELED, split.labeled), (UNLABELED, split.unlabeled))
    labeled_views, views = (views_of(stream, config.augment, len(items)) or 1 for stream, items in streams)
    needed = split.unlabeled if unlabeled else []
    if labeled_views == views:
        return [(views, split.labeled + needed)]
    return [(labeled_views, split.labeled), (views, needed)]


def images_of(split: Split) -> list[Item]:
    """All images of a split, by id."""
    return sorted({item.id: item for item in [*split.labeled, *split.unlabeled]}.values(), key=lambda item: item.id)


def _filled(
    config: Config, segmenter: "Segmenter", dataset: Dataset, split: Split, views: int, needed: list[Item]
) -> FeatureStore:
    """The store for a number of views of all images, with the needed ones in it."""
    images = images_of(split)
    shapes = _shapes(segmenter, config.augment.crop)
    root = make_root(config)
    folder = root / store_key(config, segmenter, images, views)
    with hold(root / f"{folder.name}.lock", f"features in {folder}", wait=True):
        if not (folder / "index.json").exists():
            create_store(folder, [item.id for item in images], views, config.augment.crop, shapes)
        store = FeatureStore(folder)
        missing = [item for item in needed if not store.holds(item.id)]
        if missing:
            bytes_each = 2 * views * sum(channels * height * width for channels, height, width in shapes)
            _announce(folder, len(missing), views, bytes_each * len(missing))
            _fill(store, missing, config, segmenter, dataset)
    return store


def cache_root(config: Config) -> Path:
    """Where features are kept: `cache_folder`, or the user's cache folder."""
    return Path(config.cache_folder).expanduser() if config.cache_folder else cache_home() / "features"


def make_root(config: Config) -> Path:
    """The same folder, made if it is missing.

    Raises:
        UserError: It cannot be made.
    """
    root = cache_root(config)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write features to {root}: {error.strerror}; set cache_folder=FOLDER") from error
    return root


def _announce(folder: Path, images: int, views: int, size: int) -> None:
    free = shutil.disk_usage(folder).free
    text = f"features of {images} images, {views} views each: {size / 1e9:.2f} GB in {folder}"
    if size > 0.95 * free:
        raise UserError(
            f"{text}, but the disk has {free / 1e9:.2f} GB left: "
            f"set cache_folder to another disk, or fewer augment.views"
        )
    console.print(text, markup=False, highlight=False)


def _fill(store: FeatureStore, items: list[Item], config: Config, segmenter: "Segmenter", dataset: Dataset) -> None:
    """Encode views, which threads make ahead: one on a CPU, which the encoder fills, several for a GPU."""
    training, together = segmenter.training, max(1, AT_ONCE // math.prod(config.augment.crop))
    starts, mean = range(0, store.views, together), segmenter.mean

    def shown(part: tuple[Item, int]) -> tuple[tuple[int, int], Tensor]:
        item, first = part
        image = dataset.read_image(item)
        size = (image.shape[0], image.shape[1])
        numbers = range(first, min(first + together, store.views))
        views = [fixed_view(item, number, *size, config.augment) for number in numbers]
        return size, torch.stack([view_image(image, view, config.augment, mean) for view in views])

    threads = THREADS if segmenter.pixel_mean.is_cuda else 1
    segmenter.eval()
    try:
        with closing(
            in_threads(shown, ((item, first) for item in items for first in starts), threads, threads)
        ) as made:
            for number, item in enumerate(track(items, "computing features"), start=1):
                own = [(size, _encode(segmenter, views)) for _, (size, views) in zip(starts, made, strict=False)]
                size, maps = own[0][0], [levels for _, levels in own]
                store.write(item.id, size, [torch.cat(levels) for levels in zip(*maps, strict=True)])
                if number % FLUSH_EVERY == 0:
                    store.flush()
    finally:
        store.flush()
        segmenter.train(training)


@torch.no_grad()
def _encode(segmenter: "Segmenter", images: Tensor) -> list[Tensor]:
    like = segmenter.pixel_mean
    return segmenter.encode(images.to(like.device, like.dtype))


def _shapes(segmenter: "Segmenter", crop: tuple[int, int]) -> list[tuple[int, int, int]]:
    training = segmenter.training
    maps = _encode(segmenter.eval(), torch.zeros(1, 3, *crop))
    segmenter.train(training)
    return [(features.shape[1], features.shape[2], features.shape[3]) for features in maps]


def store_key(config: Config, segmenter: "Segmenter", images: list[Item], views: int) -> str:
    """Name of the store: a hash over everything that its content depends on."""
    digest = hashlib.sha256()
    for name, value in segmenter.state_dict().items():
        if name.startswith(("encoder.", "pixel_")):
            digest.update(name.encode() + np.ascontiguousarray(value.detach().cpu().numpy()).tobytes())
    depends = tuple(marked(Mark.FEATURES))
    every = flat(config.model_dump(mode="json"))
    options = {key: value for key, value in every.items() if key in depends or key.startswith("data.scenes.")}
    options = {key: value for key, value in options.items() if key not in LATER or value != LATER[key]}
    content: dict[str, Any] = {
        "version": VERSION,
        "views": views,
        "options": options,
        "images": [_mark(item) for item in images],
    }
    digest.update(json.dumps(content).encode())
    return f"{config.model.encoder.replace('/', '_')}-{digest.hexdigest()[:16]}"


def _mark(item: Item) -> list[str | int]:
    """What tells an image from others and from its later self."""
    if item.image is None:
        return [item.id, item.scene or 0]
    state = item.image.stat()
    checksum = 0
    with item.image.open("rb") as file:
        for start in sorted({0, max(0, (state.st_size - SAMPLE) // 2), max(0, state.st_size - SAMPLE)}):
            file.seek(start)
            checksum = zlib.crc32(file.read(SAMPLE), checksum)
    return [item.id, state.st_size, state.st_mtime_ns, checksum]
