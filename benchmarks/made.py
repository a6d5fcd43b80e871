"""Made data in the layouts of real sets: photographs as hard to compress as real ones, masks of large regions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import interpolate

from latentseg.data.colors import CITYSCAPES_LABEL_IDS, VOC_CLASSES, voc_color

Bytes = NDArray[np.uint8]
SIZE = (375, 500)
"""Height and width of most photographs in VOC."""


def photo(seed: int, size: tuple[int, int] = SIZE) -> Bytes:
    """Clouds of colour at all scales with noise, (H, W, 3): 78 kB as JPEG of quality 90, as photographs of VOC."""
    rng = np.random.default_rng(seed)
    pixels = 128 + np.repeat(rng.normal(0, 8, (*size, 1)), 3, axis=2).astype(np.float32)
    for octave in range(2, 8):
        coarse = torch.from_numpy(rng.normal(0, 72 / 2 ** (octave / 2), (1, 3, 2**octave, 2**octave)))
        pixels += interpolate(coarse, size, mode="bicubic")[0].permute(1, 2, 0).numpy()
    return pixels.clip(0, 255).astype(np.uint8)


def regions(seed: int, values: Sequence[int], size: tuple[int, int] = SIZE) -> Bytes:
    """Mask values of 6 x 8 blocks, (H, W)."""
    rows, columns = (np.arange(length) * count // length for length, count in zip(size, (6, 8), strict=True))
    return np.random.default_rng(seed).choice(np.array(values, np.uint8), (6, 8))[rows][:, columns]


def write_folder(root: Path, number: int, classes: int = 21, size: tuple[int, int] = SIZE, different: int = 8) -> Path:
    """A set of the layout `folder`, as many images for training as for validation; most are links to the first few."""
    for part in ("images/train", "images/val", "masks/train", "masks/val"):
        (root / part).mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(f"class {index}" for index in range(classes)))
    for index in range(number):
        source = index % different
        for kind, ending in (("images", "jpg"), ("masks", "png")):
            first = root / kind / "train" / f"{source:05}.{ending}"
            if index == source and kind == "images":
                Image.fromarray(photo(index, size)).save(first, quality=90)
            elif index == source:
                _palette_image(regions(index, range(classes), size)).save(first)
            else:
                first.with_stem(f"{index:05}").hardlink_to(first)
            (root / kind / "val" / f"{index:05}.{ending}").hardlink_to(first)
    return root


def write_voc(root: Path, train: int, val: int) -> Path:
    """VOC2012 with palette masks (0 to 20, outlines 255) and the lists train_aug and val."""
    lists = root / "ImageSets" / "Segmentation"
    for part in (root / "JPEGImages", root / "SegmentationClassAug", lists):
        part.mkdir(parents=True)
    ids = [f"2007_{number:06d}" for number in range(train + val)]
    for number, name in enumerate(ids):
        size = (SIZE, (333, 500), (500, 375))[number % 3]
        mask = regions(number, range(len(VOC_CLASSES)), size)
        mask[:: size[0] // 6] = mask[:, :: size[1] // 8] = 255
        Image.fromarray(photo(number, size)).save(root / "JPEGImages" / f"{name}.jpg")
        _palette_image(mask).save(root / "SegmentationClassAug" / f"{name}.png")
    (lists / "train_aug.txt").write_text("\n".join(ids[:train]) + "\n")
    (lists / "val.txt").write_text("\n".join(ids[train:]) + "\n")
    return root


def write_cityscapes(root: Path, train: int, val: int) -> Path:
    """leftImg8bit and gtFine with folders of cities and labelIds (0 to 33), 2048 x 1024."""
    for number in range(train + val):
        split, city = ("val", "frankfurt") if number >= train else ("train", ("aachen", "ulm")[number % 2])
        ids = regions(number, range(CITYSCAPES_LABEL_IDS), (1024, 2048))
        files = {"leftImg8bit": ("leftImg8bit", photo(number, (1024, 2048))), "gtFine": ("gtFine_labelIds", ids)}
        for part, (ending, pixels) in files.items():
            path = root / part / split / city / f"{city}_{number:06d}_000019_{ending}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return root


def _palette_image(ids: Bytes) -> Image.Image:
    image = Image.fromarray(ids)
    image.putpalette([part for value in range(256) for part in voc_color(value)])
    return image
