"""Rare classes: weights and repetitions, from known counts."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentseg.config import Config
from latentseg.data.balance import balanced_weights, class_pixels, repetitions
from latentseg.data.batches import LABELED, UNLABELED, StepDataset, places, view_at
from latentseg.data.datasets import open_dataset
from latentseg.data.layouts import Item
from latentseg.data.splits import draw_split

PIXELS = np.array([[60, 40, 0, 0], [90, 0, 10, 0], [50, 50, 0, 0], [100, 0, 0, 0]])
ITEMS = [Item(f"{number}") for number in range(4)]


def test_weights_are_the_median_share_over_the_own_one() -> None:
    """Shares where a class is seen: 300 of 400, 90 of 200, 10 of 100; the fourth is nowhere."""
    assert balanced_weights(PIXELS) == pytest.approx([0.45 / 0.75, 1.0, 4.5, 1.0])
    assert balanced_weights(np.zeros((2, 3), np.int64)) == [1.0, 1.0, 1.0]


def test_images_of_a_rare_class_come_more_often() -> None:
    """The third class is in a quarter of the images, the second in half: sqrt(1 / 0.25) = 2, sqrt(2) rounds to 1."""
    assert repetitions(PIXELS, 1.0) == [1, 2, 1, 1]
    assert repetitions(PIXELS, 0.25) == [1, 1, 1, 1]
    assert repetitions(np.eye(16, dtype=np.int64), 1.0) == [4] * 16


def test_pixels_are_counted_and_an_unreadable_mask_is_empty(folder_set: Callable[..., Path]) -> None:
    root = folder_set(train=2)
    Image.fromarray(np.array([[0] * 16] * 11 + [[2] * 15 + [255]], np.uint8)).save(root / "masks/train/00.png")
    (root / "masks/train/01.png").write_bytes(b"nothing")
    config = Config.model_validate({"data": {"root": str(root), "labeled": "all"}})
    dataset = open_dataset(config.data)
    assert class_pixels(dataset, dataset.items("train")).tolist() == [[176, 0, 15], [0, 0, 0]]


def test_an_epoch_shows_an_image_again_as_another_view() -> None:
    config = Config.model_validate({"batch_size": 5, "seed": 3})
    epochs = [places(config, LABELED, ITEMS, step, times=[1, 2, 1, 1]) for step in range(3)]
    for number, epoch in enumerate(epochs):
        assert Counter(place.item.id for place in epoch) == {"0": 1, "1": 2, "2": 1, "3": 1}
        assert sorted(place.epoch for place in epoch if place.number == 1) == [2 * number, 2 * number + 1]
        assert {place.epoch for place in epoch if place.number != 1} == {number}
    views = [view_at(config, LABELED, place, 500, 500) for epoch in epochs for place in epoch if place.number == 1]
    assert len(set(views)) == 6
    assert places(config, LABELED, ITEMS, 1) == places(config, LABELED, ITEMS, 1, times=[1] * 4)


def test_the_labelled_stream_is_balanced_and_the_other_one_is_not(folder_set: Callable[..., Path]) -> None:
    root = folder_set(train=8)
    for number in range(8):
        rare = np.zeros((12, 16), np.uint8)
        rare[0, 0] = 2 if number == 3 else 1
        Image.fromarray(rare).save(root / f"masks/train/{number:02}.png")
    data = {"root": str(root), "labeled": 4, "every_class": True, "balance": 1.0}
    config = Config.model_validate({"data": data, "batch_size": 5, "steps": 40, "method": {"name": "supervised"}})
    dataset = open_dataset(config.data)
    split = draw_split(dataset, config.data, 0)
    steps = StepDataset(dataset, split, config, (0.5, 0.5, 0.5))
    shown = [steps[step].targets for step in range(4)]
    holding = sum(int((targets == 2).flatten(1).any(1).sum()) for targets in shown)
    off = config.model_copy(update={"data": config.data.model_copy(update={"balance": 0.0})})
    plain = StepDataset(dataset, split, off, (0.5, 0.5, 0.5))
    assert steps._times is not None
    assert sorted(steps._times) == [1, 1, 1, 2]
    assert plain._times is None
    assert torch.equal(steps[3].targets, shown[3])  # of seed and step alone
    assert holding > 0
    assert places(config, UNLABELED, ITEMS, 0) == places(config, UNLABELED, ITEMS, 0, times=None)
