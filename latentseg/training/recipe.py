"""The recipe chooses itself: options that fit the images, the labels and the machine, each with its reason."""

import os
from collections.abc import Collection, Iterator, Sequence
from statistics import median
from typing import Literal

import numpy as np
import torch

from latentseg.config import Config
from latentseg.data.balance import class_pixels
from latentseg.data.datasets import Dataset, Item
from latentseg.data.pairs import header
from latentseg.data.splits import Split
from latentseg.engine import choose_device, memory_bytes
from latentseg.errors import UserError
from latentseg.found.choices import Choice
from latentseg.presets import only_read

Kind = Literal["photos", "aerial", "microscopy"]
"""What the images are: whether they have an upper side, and whether their scale means something."""

SAMPLED = 50
"""Images whose headers tell the sizes."""
COUNTED = 200
"""Labelled masks that tell of rare classes."""
RARE, FEWEST = 0.1, 10
"""A class in a smaller share of the labelled images is rare, where there are this many."""
BALANCE = 0.25
"""What `data.balance` is then: a class in a tenth of the images comes twice as often, in a fiftieth five times."""
SHORT_SIDE = {"cpu": 192, "cuda": 448}
"""Pixels of the images' shorter side that training sees: CamVid was measured at 180, animals at 170 to 256."""
STEPS = {"cpu": 3000, "cuda": 10_000}
LITTLE = 4 << 30
"""Bytes of memory below which a batch is halved."""
VITS = {
    "vit_small_patch14_dinov2.lvd142m": (0, 88, {12: 4, 24: 8}),
    "vit_base_patch14_dinov2.lvd142m": (24, 346, {48: 8}),
}
"""Encoders for a GPU: from how many GB on, MB to download, and the batch below so many GB (16 above)."""
PATCH = 14


def choose_recipe(
    dataset: Dataset, split: Split, config: Config, kind: Kind = "photos", given: Collection[str] = ()
) -> list[Choice]:
    """Choose the options that depend on the images, the labels and the machine.

    What measured best in docs/results.md is the choice; what was not measured says so in its reason.

    Args:
        dataset: Opened at any scale: `data.resize` is one of the choices.
        split: Its labelled and unlabelled images.
        config: Device, seed and `validate_split` are read, and the method if it is given.
        kind: What the images are.
        given: Dotted names of options that somebody has set: they are not chosen.

    Raises:
        UserError: No image can be read, or there is no such device.
    """
    device = choose_device(config.device)
    sizes = image_sizes([*split.labeled, *split.unlabeled], config)
    encoder = _encoder(device)
    trained = encoder[0].value != "lite0"
    made = [
        *_method(split, trained),
        *encoder,
        *_views(sizes, kind, trained),
        *_length(device, dataset, config, trained),
        *_rare(dataset, split),
    ]
    method = config.method.name if "method.name" in given else str(made[0].value)
    read = set(only_read([choice.override for choice in made], method))
    return [choice for choice in made if choice.override in read and choice.key not in given]


def image_sizes(items: Sequence[Item], config: Config) -> list[tuple[int, int]]:
    """Height and width, in pixels, of a sample spread evenly over images, from their headers.

    Raises:
        UserError: None of them can be read.
    """
    if any(item.scene is not None for item in items):
        return [(config.data.scenes.height, config.data.scenes.width)]
    sample = items[:: max(1, len(items) // SAMPLED)]
    found: list[tuple[int, int]] = []
    problem: UserError | None = None
    for item in sample:
        try:
            if item.image is not None:
                (height, width), _ = header(item.image)
                found.append((height, width))
        except UserError as error:  # the data check will name all of them
            problem = error
    if not found:
        raise problem or UserError("there is no image to choose options for")
    return found


def _method(split: Split, trained: bool) -> Iterator[Choice]:
    labeled, unlabeled = len(split.labeled), len(split.unlabeled)
    if not unlabeled:
        yield Choice(
            "method.name", "supervised", f"all {labeled} images are labelled: there is nothing else to learn from",
            "latent_match with data.unlabeled=[FOLDER] of further images",
        )  # fmt: skip
        return
    yield Choice(
        "method.name", "latent_match", f"{labeled} labelled and {unlabeled} unlabelled images; it measured best",
        "supervised, the baseline; docs/methods.md has the others",
    )  # fmt: skip
    yield Choice("method.grid", "heads", "as measured: a quarter of the time that pixels take", "pixels")
    threshold = 0.95 if trained else 0.97
    yield Choice("method.threshold", threshold, "as in the presets", "lower if few pseudo-labels are accepted")
    yield Choice("method.consistency_start", 0.15, "as in the presets: pooling joins after this share of the steps")
    alike = "an encoder that learns is not asked which images look alike" if trained else "images that look alike help"
    yield Choice("method.neighbour_power", 0 if trained else 3, alike, "0: each image decides for itself")
    yield Choice("method.pool_power", 3 if trained else 1.5, "as measured: more where the image decides alone")
    if trained:
        yield Choice("method.teacher_decay", 0.996, "as UniMatch V2, for a trained encoder")


def _encoder(device: torch.device) -> list[Choice]:
    if device.type != "cuda":
        return list(_frozen_lite0("no GPU: a small encoder, whose features are computed once"))
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - timm brings it; only GPUs need it

    memory = (memory_bytes(device) or 0) / 1e9
    name = [name for name, (least, _, _) in VITS.items() if memory >= least][-1]
    _, megabytes, batches = VITS[name]
    here = isinstance(try_to_load_from_cache(f"timm/{name}", "model.safetensors"), str)
    if not here and os.environ.get("HF_HUB_OFFLINE", "0").upper() in {"1", "ON", "YES", "TRUE"}:
        reason = f"HF_HUB_OFFLINE is set, and the weights of {name} are not here: nothing may be downloaded"
        return list(_frozen_lite0(reason))
    load = "its weights are here" if here else f"{megabytes} MB are downloaded once, from huggingface.co/timm/{name}"
    batch = next((size for limit, size in sorted(batches.items()) if memory < limit), 16)
    return [
        Choice("model.encoder", name, f"a GPU of {memory:.0f} GB; {load}", "lite0, which needs no download"),
        Choice("model.weights_kind", "timm", "the kind of these weights"),
        Choice("model.frozen", False, "a GPU trains it along", "true, with cache=features and augment.views=4"),
        Choice("cache", "none", "features that change are not kept"),
        Choice("augment.views", None, "a new view each epoch"),
        Choice("augment.labeled_views", None, "a new view each epoch"),
        Choice("model.head_stride", PATCH, "its patch"),
        Choice("batch_size", batch, f"for {memory:.0f} GB, by rule of thumb", "smaller if memory runs out; --dry-run"),
        Choice("optim.name", "adamw", "suits vision transformers", "sgd"),
        Choice("optim.lr", 5e-6, "as in voc_match_dinov2; not measured here"),
        Choice("optim.head_factor", 40, "as in voc_match_dinov2"),
        Choice("optim.weight_decay", 0.01, "as in voc_match_dinov2"),
        Choice("workers", min(8, max(1, (os.cpu_count() or 2) - 1)), "a GPU waits for images otherwise"),
    ]


def _frozen_lite0(reason: str) -> Iterator[Choice]:
    memory = memory_bytes(torch.device("cpu"))
    yield Choice(
        "model.encoder", "lite0", f"{reason}; its weights come with the package",
        "any timm model, such as convnext_tiny with model.weights_kind=timm",
    )  # fmt: skip
    yield Choice("model.frozen", True, "as measured; the features of each view are computed once", "false: AdamW then")
    yield Choice("cache", "features", "a step takes a fraction of the time", "none")
    yield Choice("augment.views", 4, "as measured: views of each unlabelled image in the cache", "more: larger cache")
    yield Choice("augment.labeled_views", "auto", "64 views of each image up to 48 labelled ones, fewer of more", "64")
    little = memory is not None and memory < LITTLE
    told = f"{memory / 1e9:.1f} GB of memory" if memory else "as measured"
    yield Choice("batch_size", 2 if little else 4, told, "larger where there is memory; --dry-run tells")
    yield Choice("optim.lr", 4e-3, "as measured with frozen features")
    yield Choice("optim.head_factor", 10, "as measured with frozen features")


def _views(sizes: list[tuple[int, int]], kind: Kind, trained: bool) -> Iterator[Choice]:
    height, width = (median(size[axis] for size in sizes) for axis in (0, 1))
    short = median(min(size) for size in sizes)
    multiple, most = (PATCH, 518) if trained else (32, 256)
    target = SHORT_SIDE["cuda" if trained else "cpu"]
    factor = _factor(target / short) if kind == "photos" else 1.0
    median_size = f"{width:.0f}x{height:.0f} pixels (median of {len(sizes)})"
    if kind == "photos":
        why = f"images of {median_size}: training sees them with a shorter side of about {factor * short:.0f}"
    else:
        why = f"{kind}: the scale of things means something, so images keep it"
    yield Choice("data.resize", factor, why, "larger for small things, at more time")
    share = 0.75 if kind == "photos" else 1.0
    crop = [_crop(share * factor * side, multiple, most) for side in (height, width)]
    yield Choice("augment.crop", crop, f"most of an image, in multiples of {multiple}", "larger, at more time")
    scale = [0.75, 1.5] if kind == "photos" else [0.8, 1.25]
    yield Choice("augment.scale", scale, "as measured" if kind == "photos" else f"{kind}: scales vary little")
    if kind != "photos":
        why = f"{kind}: no direction is up; not measured"
        yield Choice("augment.rotate", 180, why, "0 if all images have the same upper side")
        yield Choice("augment.flip", 0.5, why, "0")


def _factor(wanted: float) -> float:
    """A scale with few digits, at most the wanted one; 1 where there is little to gain."""
    if wanted >= 0.75:
        return 1.0
    step = 0.05 if wanted >= 0.3 else 0.01
    return max(0.05, round(int(wanted / step + 1e-9) * step, 2))


def _crop(side: float, multiple: int, most: int) -> int:
    """A side of the crop: the next multiple, between three of 32 pixels and the most."""
    fits = -(-int(side) // multiple) * multiple
    return int(np.clip(fits, -(-96 // multiple) * multiple, most // multiple * multiple))


def _length(device: torch.device, dataset: Dataset, config: Config, trained: bool) -> Iterator[Choice]:
    steps = STEPS["cuda" if trained else "cpu"]
    why = "as measured on CamVid and animals" if not trained else f"not measured on this {device.type}"
    yield Choice("steps", steps, why, "--time 20m chooses them by the clock; more help where scores still rise")
    if dataset.has(config.validate_split):
        scored = len(dataset.items(config.validate_split))
        why = f"five looks at the {scored} images of {config.validate_split}, each with a picture"
        yield Choice("validate_every", steps // 5, why, "0: only at the end")


def _rare(dataset: Dataset, split: Split) -> Iterator[Choice]:
    labeled = split.labeled[:: max(1, len(split.labeled) // COUNTED)]
    if len(labeled) < FEWEST:
        return
    shown = (class_pixels(dataset, labeled) > 0).mean(0)
    rare = [name for name, share in zip(dataset.classes, shown, strict=True) if 0 < share < RARE]
    if rare:
        named = ", ".join(rare[:5]) + ", ..." * (len(rare) > 5)
        why = f"less than a tenth of the labelled images show {named}: they come more often (animals: +0.6 points)"
        yield Choice(
            "data.balance", BALANCE, why, "0: all come once an epoch; optim.class_weights=balanced weighs pixels"
        )
