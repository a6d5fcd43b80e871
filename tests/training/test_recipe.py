"""The recipe: what is chosen for which images, labels and machines."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from latentseg.config import Config
from latentseg.data.datasets import Dataset, open_dataset
from latentseg.data.splits import Split, draw_split
from latentseg.errors import DataError
from latentseg.found.choices import Choice
from latentseg.presets import load_config
from latentseg.training import recipe
from latentseg.training.recipe import Kind, choose_recipe, image_sizes


def opened(root: Path, *options: str) -> tuple[Dataset, Split, Config]:
    config = load_config("folder", [f"data.root={root}", "device=cpu", *options])
    dataset = open_dataset(config.data)
    return dataset, draw_split(dataset, config.data, 0), config


def chosen(root: Path, *options: str, kind: Kind = "photos") -> dict[str, Any]:
    return {choice.key: choice.value for choice in choose_recipe(*opened(root, *options), kind)}


def test_photos_with_few_labels_on_a_cpu(folder_set: Callable[..., Path]) -> None:
    """As the preset of CamVid, measured on images of its size: half of it, and most of the image as crop."""
    found = chosen(folder_set(train=4, size=(360, 480)), "data.labeled=2")
    assert found == {
        "method.name": "latent_match",
        "method.grid": "heads",
        "method.threshold": 0.97,
        "method.consistency_start": 0.15,
        "method.neighbour_power": 3,
        "method.pool_power": 1.5,
        "model.encoder": "lite0",
        "model.frozen": True,
        "cache": "features",
        "augment.views": 4,
        "augment.labeled_views": "auto",
        "batch_size": 4,
        "optim.lr": 4e-3,
        "optim.head_factor": 10,
        "data.resize": 0.5,
        "augment.crop": [160, 192],
        "augment.scale": [0.75, 1.5],
        "steps": 3000,
        "validate_every": 600,
    }


def test_without_unlabelled_images_it_is_supervised(folder_set: Callable[..., Path]) -> None:
    found = chosen(folder_set(), "data.labeled=all")
    assert found["method.name"] == "supervised"
    assert [key for key in found if key.startswith("method.")] == ["method.name"]


@pytest.mark.parametrize(
    ("size", "factor", "crop"),
    [
        ((180, 256), 1.0, [160, 192]),
        ((3000, 4000), 0.06, [160, 192]),
        ((64, 48), 1.0, [96, 96]),
        ((2000, 200), 1.0, [256, 160]),
    ],
)
def test_scale_and_crop_follow_the_sizes(
    size: tuple[int, int], factor: float, crop: list[int], folder_set: Callable[..., Path]
) -> None:
    found = chosen(folder_set(train=2, val=1, size=size), "data.labeled=1")
    assert (found["data.resize"], found["augment.crop"]) == (factor, crop)


@pytest.mark.parametrize("kind", ["aerial", "microscopy"])
def test_images_without_an_upper_side_are_turned_and_keep_their_scale(
    kind: Kind, folder_set: Callable[..., Path]
) -> None:
    found = chosen(folder_set(train=2, val=1, size=(600, 700)), "data.labeled=1", kind=kind)
    assert (found["augment.rotate"], found["augment.flip"]) == (180, 0.5)
    assert (found["data.resize"], found["augment.crop"]) == (1.0, [256, 256])


def test_a_rare_class_is_drawn_more_often(folder_set: Callable[..., Path]) -> None:
    root = folder_set(train=11)
    for number in range(11):
        mask = np.zeros((12, 16), np.uint8)
        mask[0] = 2 if number == 4 else 1
        Image.fromarray(mask).save(root / f"masks/train/{number:02}.png")
    (rare,) = [choice for choice in choose_recipe(*opened(root, "data.labeled=all")) if choice.key == "data.balance"]
    assert (rare.value, rare.override) == (0.25, "data.balance=0.25")
    assert "show sky:" in rare.reason
    Image.fromarray(mask).save(root / "masks/train/05.png")
    mask[0] = 2
    Image.fromarray(mask).save(root / "masks/train/06.png")
    assert "data.balance" not in chosen(root, "data.labeled=all")


def on_gpu(monkeypatch: pytest.MonkeyPatch, gigabytes: int, here: str | None = None) -> None:
    monkeypatch.setattr(recipe, "choose_device", lambda _name: torch.device("cuda"))
    monkeypatch.setattr(recipe, "memory_bytes", lambda _device: gigabytes * 10**9)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda _repo, _file: here)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


@pytest.mark.parametrize(
    ("memory", "encoder", "batch"),
    [(8, "small", 4), (16, "small", 8), (24, "base", 8), (80, "base", 16)],
)
def test_a_gpu_takes_a_vision_transformer_of_its_size(
    memory: int, encoder: str, batch: int, monkeypatch: pytest.MonkeyPatch, folder_set: Callable[..., Path]
) -> None:
    on_gpu(monkeypatch, memory)
    choices = choose_recipe(*opened(folder_set(train=4, val=1, size=(1000, 1400)), "data.labeled=2"))
    found = {choice.key: choice for choice in choices}
    assert found["model.encoder"].value == f"vit_{encoder}_patch14_dinov2.lvd142m"
    assert "MB are downloaded once, from huggingface.co/timm/vit_" in found["model.encoder"].reason
    assert found["batch_size"].value == batch
    assert found["optim.name"].value == "adamw"
    assert found["augment.crop"].value == [308, 420]  # whole patches, three quarters of 400 x 560
    config = load_config("folder", ["device=cpu", *(choice.override for choice in choices)])
    assert (config.model.head_stride, config.model.frozen) == (14, False)
    assert (config.method.neighbour_power, config.method.pool_power) == (0, 3)
    assert (config.cache, config.augment.views) == ("none", None)


def test_weights_that_are_here_are_not_downloaded(
    monkeypatch: pytest.MonkeyPatch, folder_set: Callable[..., Path]
) -> None:
    on_gpu(monkeypatch, 16, "/cache/model.safetensors")
    root = folder_set(train=4)
    found = {choice.key: choice for choice in choose_recipe(*opened(root, "data.labeled=2"))}
    assert "its weights are here" in found["model.encoder"].reason
    on_gpu(monkeypatch, 16)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = {choice.key: choice for choice in choose_recipe(*opened(root, "data.labeled=2"))}
    assert found["model.encoder"].value == "lite0"
    assert "nothing may be downloaded" in found["model.encoder"].reason


def test_little_memory_halves_the_batch(monkeypatch: pytest.MonkeyPatch, folder_set: Callable[..., Path]) -> None:
    monkeypatch.setattr(recipe, "memory_bytes", lambda _device: 2**31)
    assert chosen(folder_set(), "data.labeled=2")["batch_size"] == 2


def test_every_choice_has_a_reason_and_the_configuration_takes_it(folder_set: Callable[..., Path]) -> None:
    dataset, split, config = opened(folder_set(), "data.labeled=2")
    choices = choose_recipe(dataset, split, config)
    assert all(choice.reason for choice in choices)
    made = load_config("folder", [f"data.root={dataset.root}", *(choice.override for choice in choices)])
    assert made.data.resize == 1.0
    assert made.method.name == "latent_match"
    given = ["steps", "augment.scale", "method.name"]
    plain = load_config("folder", [f"data.root={dataset.root}", "method.name=supervised"])
    left = {choice.key for choice in choose_recipe(dataset, split, plain, given=given)}
    assert not left & {*given, "method.threshold", "method.grid"}  # nor what the given method does not read
    assert "augment.crop" in left


def test_sizes_come_from_headers_and_bad_files_are_left_to_the_check(folder_set: Callable[..., Path]) -> None:
    root = folder_set(train=3, size=(20, 30))
    (root / "images/train/00.png").write_bytes(b"nothing")
    dataset, _, config = opened(root)
    items = dataset.items("train")
    assert image_sizes(items, config) == [(20, 30)] * 2
    with pytest.raises(DataError, match="no readable image"):
        image_sizes(items[:1], config)
    assert Choice("a.b", [1, 2], "because").override == "a.b=[1, 2]"
