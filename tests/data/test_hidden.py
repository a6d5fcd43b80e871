"""The images are painted with their own class ids, so that a batch itself says what its truth is."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from latentseg.config import Config
from latentseg.data.batches import Seen, StepDataset, Stores, fixed_view
from latentseg.data.datasets import Dataset, Item, open_dataset
from latentseg.data.features import Features, FeatureStore, create_store
from latentseg.data.hidden import HiddenTruth
from latentseg.data.opening import ORIENTATION
from latentseg.data.splits import Split, draw_split
from latentseg.data.transforms import view_image

MEAN = (0.5, 0.5, 0.5)
CROP = (32, 48)
STEPS = 6


def setup(augment: dict[str, Any], data: dict[str, Any] | None = None) -> tuple[Dataset, Split, Config]:
    scenes = {"kind": "scenes", "scenes": {"train": 6, "val": 1, "test": 1, "height": 40, "width": 44}}
    options = {"data": {"labeled": 2} | (data or scenes), "augment": {"crop": CROP} | augment}
    config = Config.model_validate(options | {"batch_size": 3, "steps": STEPS, "method": {"name": "cps"}})
    dataset = open_dataset(config.data)
    return dataset, draw_split(dataset, config.data, config.seed), config


def paint(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = {item.id: item for item in dataset.items("train")}

    def painted(item: Item) -> NDArray[np.uint8]:
        return np.stack([dataset.read_targets(truth[item.id])] * 3, axis=-1)

    monkeypatch.setattr(dataset, "read_image", painted)


def stores_of(dataset: Dataset, split: Split, config: Config, folder: Path) -> Stores:
    """Features that are the pixels."""
    views, items = config.augment.views or 0, [*split.labeled, *split.unlabeled]
    create_store(folder, [item.id for item in items], views, CROP, [(3, *CROP)])
    store = FeatureStore(folder)
    for item in items:
        image = dataset.read_image(item)
        height, width = image.shape[:2]
        seen = [fixed_view(item, number, height, width, config.augment) for number in range(views)]
        images = [view_image(image, view, config.augment, MEAN) for view in seen]
        store.write(item.id, (height, width), [torch.stack(images)])
    return Stores(store, store)


def painted_ids(images: Tensor | Features | None) -> Tensor:
    pixels = images.maps[0] if isinstance(images, Features) else images
    assert pixels is not None
    return (pixels[:, 0].float() * 255).round().long()


def inside(painted: Tensor) -> Tensor:
    """Where all neighbours are alike: along borders, scaling paints what lies between two ids."""
    around = torch.nn.functional.unfold(painted[:, None].double(), 3, padding=1)
    return (around == around[:, 4:5]).all(dim=1).view(painted.shape)


@pytest.mark.parametrize("mode", ["images", "views", "stores"])
@pytest.mark.parametrize(("scale", "share"), [((1, 1), 1.0), ((0.6, 1.4), 0.98)])
def test_the_truth_is_of_the_view_that_the_batch_shows(
    mode: str, scale: tuple[float, float], share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, split, config = setup({"scale": scale, "views": None if mode == "images" else 2})
    paint(dataset, monkeypatch)
    stores = stores_of(dataset, split, config, tmp_path / "store") if mode == "stores" else None
    steps = StepDataset(dataset, split, config, MEAN, seen=Seen(stores))
    truth = HiddenTruth(dataset, split, config, stores)
    seen, right = set(), []
    for step in range(STEPS):
        batch, targets = steps[step], truth.targets(step)
        assert targets is not None
        assert batch.unlabeled_valid is not None
        assert (targets.shape, targets.dtype) == ((3, *CROP), torch.int64)
        assert (targets[~batch.unlabeled_valid] == 255).all()
        painted = painted_ids(batch.unlabeled)
        meant = batch.unlabeled_valid & (torch.tensor(scale == (1, 1)) | inside(painted))
        right.append((painted == targets)[meant])
        seen |= {ids.numpy().tobytes() for ids in targets}
    assert torch.cat(right).float().mean() >= share
    assert len(torch.cat(right)) > STEPS * 1000
    assert (len(seen) > 4 * 2) == (mode == "images")  # views are new ones, or 2 of each of 4 images


def test_masks_that_the_split_dropped_are_found_again(folder_set: Callable[..., Path]) -> None:
    data = {"root": str(folder_set(train=5, size=CROP))}
    dataset, split, config = setup({"scale": (1, 1), "mirror": 0.0}, data)
    assert not any(item.has_labels for item in split.unlabeled)
    targets = HiddenTruth(dataset, split, config).targets(0)
    assert targets is not None
    masks = {item.id: dataset.read_targets(item) for item in dataset.items("train")}
    wanted = {masks[item.id].tobytes() for item in split.unlabeled}
    assert {ids.byte().numpy().tobytes() for ids in targets} == wanted  # 3 images, a batch of 3


@pytest.mark.parametrize("damage", ["missing", "text", "colour", "size", "value", "lossy"])
def test_a_mask_that_cannot_be_read_is_unknown(damage: str, folder_set: Callable[..., Path]) -> None:
    root = folder_set(train=5, size=CROP)
    dataset, split, config = setup({"scale": (1, 1)}, {"root": str(root)})
    truth = HiddenTruth(dataset, split, config)
    one, *others = (root / "masks" / "train" / f"{item.id}.png" for item in split.unlabeled)
    spoil(one, damage)
    targets = truth.targets(0)
    assert targets is not None
    assert sorted((ids == 255).all().item() for ids in targets) == [False, False, True]
    for path in others:
        spoil(path, damage)
    assert truth.targets(0) is None
    assert StepDataset(dataset, split, config, MEAN)[0].unlabeled is not None


def spoil(mask: Path, damage: str) -> None:
    if damage == "missing":
        mask.unlink()
    elif damage == "text":
        mask.write_text("no image")
    elif damage == "lossy":
        Image.open(mask).resize((CROP[1] // 2, CROP[0])).save(mask, "JPEG")
    else:
        size, mode = ((8, 8) if damage == "size" else CROP[::-1]), ("RGB" if damage == "colour" else "L")
        Image.new(mode, size, 77 if damage == "value" else 0).save(mask)


def test_images_without_masks_have_no_truth(folder_set: Callable[..., Path], tmp_path: Path) -> None:
    root = folder_set(train=2, size=CROP)
    further = tmp_path / "more"
    (root / "images" / "val").rename(further)
    dataset, split, config = setup({}, {"root": str(root), "unlabeled": [str(further)]})
    assert [item.id for item in split.unlabeled] == [str(further.resolve() / f"0{i}.png") for i in range(2)]
    assert HiddenTruth(dataset, split, config).targets(0) is None
    assert HiddenTruth(dataset, replace(split, unlabeled=[]), config).targets(0) is None


@pytest.mark.parametrize("as_stored", [True, False])
def test_an_image_that_exif_turns_has_the_truth_of_its_turned_mask(
    as_stored: bool, folder_set: Callable[..., Path]
) -> None:
    root = folder_set(train=3, size=CROP)
    dataset, split, config = setup({"scale": (1, 1), "crop": (48, 48)}, {"root": str(root)})
    (item,) = split.unlabeled
    assert item.image is not None
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.open(item.image).save(item.image, exif=exif)
    if not as_stored:
        mask = root / "masks" / "train" / f"{item.id}.png"
        Image.open(mask).rotate(-90, expand=True).save(mask)
    targets = HiddenTruth(dataset, split, config).targets(0)
    assert targets is not None
    batch = StepDataset(dataset, split, config, MEAN)[0]
    assert batch.unlabeled_valid is not None
    assert torch.equal(targets != 255, batch.unlabeled_valid)
