from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import tensors

from latentseg.config import Config
from latentseg.data.batches import LABELED, UNLABELED, Batch, StepDataset, batch_notes, batches, indices
from latentseg.data.datasets import Dataset, open_dataset
from latentseg.data.splits import Split, draw_split

MEAN = (0.5, 0.5, 0.5)


def setup(root: Path, labeled: str | int = 3, **options: object) -> tuple[Dataset, Split, Config]:
    augment = {"crop": (8, 10), "brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.1}
    plain = {"name": "supervised"}  # no discriminator, which would want a larger crop
    data = {"root": str(root), "labeled": labeled}
    config = Config.model_validate(
        {"data": data, "augment": augment, "method": plain, "batch_size": 2, "steps": 7} | options
    )
    dataset = open_dataset(config.data)
    return dataset, draw_split(dataset, config.data, 0), config


def same(one: Batch, other: Batch) -> bool:
    names = ("images", "targets", "unlabeled", "unlabeled_valid")
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)


def test_epochs_are_permutations_one_after_the_other() -> None:
    drawn = [place for step in range(15) for place in indices(0, LABELED, 7, 3, step)]
    assert [epoch for epoch, _ in drawn] == [place // 7 for place in range(45)]
    epochs = [[index for epoch, index in drawn if epoch == number] for number in range(6)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert drawn != [place for step in range(15) for place in indices(1, LABELED, 7, 3, step)]
    assert drawn != [place for step in range(15) for place in indices(0, UNLABELED, 7, 3, step)]


def test_fewer_images_than_a_batch_repeat_and_are_noted(folder_set: Callable[..., Path]) -> None:
    assert [index for _, index in indices(0, LABELED, 1, 3, 5)] == [0, 0, 0]
    assert [epoch for epoch, _ in indices(0, LABELED, 1, 3, 5)] == [15, 16, 17]
    dataset, split, config = setup(folder_set(), labeled=1)
    assert batch_notes(split, 1) == []
    (note,) = StepDataset(dataset, split, config, MEAN).notes
    assert note.startswith("1 labelled images are fewer than a batch (2)")
    _, batch = next(batches(dataset, split, config, MEAN))
    assert not torch.equal(tensors(batch.images)[0], tensors(batch.images)[1])  # the same image in another view


def test_batches_have_the_promised_shapes(folder_set: Callable[..., Path]) -> None:
    dataset, split, config = setup(folder_set())
    steps = list(batches(dataset, split, config, MEAN))
    assert [step for step, _ in steps] == list(range(7))
    batch = steps[0][1]
    assert batch.unlabeled is not None
    assert batch.unlabeled_valid is not None
    assert tensors(batch.images).shape == tensors(batch.unlabeled).shape == (2, 3, 8, 10)
    assert batch.targets.shape == batch.unlabeled_valid.shape == (2, 8, 10)
    assert (tensors(batch.images).dtype, batch.targets.dtype) == (torch.float32, torch.int64)
    assert tensors(batch.to("meta").images).device.type == "meta"


def test_without_use_for_them_no_unlabelled_images_are_read(folder_set: Callable[..., Path]) -> None:
    root = folder_set()
    dataset, split, config = setup(root)
    alone = next(batches(dataset, split, config, MEAN, unlabeled=False))[1]
    both = next(batches(dataset, split, config, MEAN))[1]
    assert alone.unlabeled is None
    assert alone.unlabeled_valid is None
    assert alone.to("cpu").unlabeled is None
    assert torch.equal(tensors(alone.images), tensors(both.images))
    dataset, split, config = setup(root, labeled="all")
    assert next(batches(dataset, split, config, MEAN))[1].unlabeled is None


def test_a_later_start_gives_the_same_batches(folder_set: Callable[..., Path]) -> None:
    dataset, split, config = setup(folder_set())
    state = torch.get_rng_state()
    whole = dict(batches(dataset, split, config, MEAN))
    resumed = dict(batches(dataset, split, config, MEAN, start=4))
    assert sorted(resumed) == [4, 5, 6]
    assert all(same(batch, whole[step]) for step, batch in resumed.items())
    assert not same(whole[0], whole[1])
    assert torch.equal(torch.get_rng_state(), state)
    assert list(batches(dataset, split, config, MEAN, start=7)) == []


@pytest.mark.parametrize("remember", [False, True])
def test_workers_and_memory_change_nothing(folder_set: Callable[..., Path], remember: bool) -> None:
    root = folder_set(size=(200, 300))
    options: dict[str, Any] = {"augment": {"crop": (189, 253), "contrast": 0.5, "saturation": 0.5, "hue": 0.2}}
    dataset, split, config = setup(root, **options)
    alone = list(batches(dataset, split, config, MEAN))
    dataset, split, config = setup(root, workers=2, **options)
    dataset = open_dataset(config.data, remember)
    for (_, one), (_, other) in zip(alone, batches(dataset, split, config, MEAN), strict=True):
        assert same(one, other)


def test_a_view_depends_on_seed_epoch_and_index_alone(folder_set: Callable[..., Path]) -> None:
    root = folder_set()
    views = []
    for size in (2, 3):
        dataset, split, config = setup(root, batch_size=size, steps=6 // size)
        views.append(torch.cat([tensors(batch.images) for _, batch in batches(dataset, split, config, MEAN)]))
    assert torch.equal(views[0], views[1])
    dataset, split, config = setup(root, seed=1)
    other = tensors(next(batches(dataset, split, config, MEAN))[1].images)
    assert not torch.equal(other, views[0][:2])


def test_the_truth_for_the_discriminator_can_come_from_an_own_stream(folder_set: Callable[..., Path]) -> None:
    root = folder_set()
    options: dict[str, Any] = {"augment": {"crop": (32, 32)}, "method": {"name": "latent"}}
    dataset, split, config = setup(root, **options)
    assert next(batches(dataset, split, config, MEAN))[1].real is None
    dataset, split, config = setup(root, **options, discriminator={"real_maps": "loader"})
    steps = [batch for _, batch in batches(dataset, split, config, MEAN)]
    truths = [batch.real for batch in steps if batch.real is not None]
    assert len(truths) == 7
    assert all(truth.shape == (2, 32, 32) and truth.dtype == torch.int64 for truth in truths)
    assert any(not torch.equal(truth, batch.targets) for truth, batch in zip(truths, steps, strict=True))
    dataset, split, config = setup(root, discriminator={"real_maps": "loader"})  # supervised: nobody needs it
    assert next(batches(dataset, split, config, MEAN))[1].real is None
