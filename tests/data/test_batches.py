import gc
import pickle
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy import tensors

from latentseg.config import AugmentConfig, Config
from latentseg.data.batches import (
    LABELED,
    UNLABELED,
    Batch,
    StepDataset,
    step_seed,
    views_of,
)
from latentseg.data.datasets import Dataset, open_dataset
from latentseg.data.loading import batches
from latentseg.data.order import indices
from latentseg.data.splits import Split, draw_split
from latentseg.errors import DataError, UserError
from latentseg.training.notes import batch_notes

MEAN = (0.5, 0.5, 0.5)


def setup(
    root: Path, labeled: str | int = 3, crop: tuple[int, int] = (8, 10), **options: object
) -> tuple[Dataset, Split, Config]:
    """A data set, its split, and options with a crop that is smaller than a run may have."""
    augment = {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.1}
    plain = {"name": "supervised"}  # no discriminator, which would want a larger crop
    data = {"root": str(root), "labeled": labeled}
    config = Config.model_validate(
        {"data": data, "augment": augment, "method": plain, "batch_size": 2, "steps": 7} | options
    )
    config = config.model_copy(update={"augment": config.augment.model_copy(update={"crop": crop})})
    dataset = open_dataset(config.data)
    return dataset, draw_split(dataset, config.data, 0), config


def same(one: Batch, other: Batch) -> bool:
    names = ("images", "targets", "unlabeled", "unlabeled_valid")
    strong = len(one.strong) == len(other.strong) and all(map(torch.equal, one.strong, other.strong))
    return strong and one.seed == other.seed and all(torch.equal(getattr(one, n), getattr(other, n)) for n in names)


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
    (note,) = batch_notes(split, 2)
    assert note.startswith("1 labelled images are fewer than a batch (2)")
    _, batch = next(batches(dataset, split, config, MEAN))
    assert not torch.equal(tensors(batch.images)[0], tensors(batch.images)[1])  # the same image in another view


def test_cutmix_without_a_second_image_is_noted(folder_set: Callable[..., Path]) -> None:
    _, split, _ = setup(folder_set(train=12), labeled=6)
    assert batch_notes(split, 1, cutmix=False) == []
    (note,) = batch_notes(split, 1, cutmix=True)
    assert note.startswith("CutMix changes nothing with one unlabelled image")
    assert note.endswith("take batch_size=2 or more")
    (note,) = batch_notes(split, 4, cutmix=True, processes=4)
    assert note.endswith("take batch_size=8 or more")
    assert batch_notes(split, 4, cutmix=True, processes=2) == []
    assert batch_notes(split, 1, unlabeled=False, cutmix=True) == []
    assert batch_notes(Split(split.labeled, []), 1, cutmix=True) == []


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
    options: dict[str, Any] = {"crop": (189, 253), "augment": {"contrast": 0.5, "saturation": 0.5, "hue": 0.2}}
    options |= {"method": {"name": "unimatch"}}
    dataset, split, config = setup(root, **options)
    alone = list(batches(dataset, split, config, MEAN))
    dataset, split, config = setup(root, workers=2, **options)
    dataset = open_dataset(config.data, remember)
    for (_, one), (_, other) in zip(alone, batches(dataset, split, config, MEAN), strict=True):
        assert same(one, other)


def test_workers_that_are_no_forks_read_the_same(folder_set: Callable[..., Path]) -> None:
    """Where processes start anew (macOS, Python 3.14), the data set goes to them by pickle."""
    dataset, split, config = setup(folder_set(8, 2, 2))
    here = StepDataset(dataset, split, config, MEAN)
    assert same(pickle.loads(pickle.dumps(here))[1], here[1])


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
    options: dict[str, Any] = {"crop": (32, 32), "augment": {}, "method": {"name": "latent"}}
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


def test_strong_views_change_nothing_else(folder_set: Callable[..., Path]) -> None:
    root = folder_set()
    dataset, split, config = setup(root)
    plain = list(batches(dataset, split, config, MEAN))
    for name, number in (("fixmatch", 1), ("unimatch", 2)):
        dataset, split, config = setup(root, method={"name": name})
        for (_, one), (_, other) in zip(plain, batches(dataset, split, config, MEAN), strict=True):
            assert (len(one.strong), len(other.strong)) == (0, number)
            assert same(one, replace(other, strong=()))
            assert all(view.shape == (2, 3, 8, 10) and view.dtype == torch.float32 for view in other.strong)
        assert next(batches(dataset, split, config, MEAN, unlabeled=False))[1].strong == ()


def test_strong_views_show_the_pixels_of_the_weak_view(folder_set: Callable[..., Path]) -> None:
    off = {"jitter": 0.0, "grey": 0.0, "blur": 0.0}
    dataset, split, config = setup(folder_set(), method={"name": "unimatch"}, strong=off)
    for _, batch in batches(dataset, split, config, MEAN):
        assert all(torch.equal(view, tensors(batch.unlabeled)) for view in batch.strong)


@pytest.mark.parametrize("views", [None, 1])
def test_a_strong_view_depends_on_seed_epoch_index_and_number_alone(
    folder_set: Callable[..., Path], views: int | None
) -> None:
    root = folder_set(train=4)  # 3 unlabelled images: two epochs in 6 places
    shown: list[list[torch.Tensor]] = []
    for size, seed in ((2, 0), (3, 0), (2, 1)):
        options: dict[str, Any] = {"augment": {"scale": (1, 1), "views": views}}
        options |= {"method": {"name": "unimatch"}, "batch_size": size, "steps": 6 // size, "seed": seed}
        dataset, split, config = setup(root, labeled=1, **options)
        steps = [batch for _, batch in batches(dataset, split, config, MEAN)]
        shown.append([torch.cat([batch.strong[number] for batch in steps]) for number in range(2)])
        shown[-1].append(torch.cat([tensors(batch.unlabeled) for batch in steps]))
    assert all(map(torch.equal, shown[0], shown[1]))
    assert not torch.equal(shown[0][0], shown[2][0])
    every = {view.numpy().tobytes() for view in torch.cat(shown[0][:2])}
    assert len(every) == 12  # 3 images, 2 epochs, 2 numbers
    weak = {view.numpy().tobytes() for view in shown[0][2]}
    assert len(weak) == (6 if views is None else 3)  # fixed; the strong views are new ones


def test_the_seed_of_a_step_is_its_own(folder_set: Callable[..., Path]) -> None:
    seeds = {step_seed(seed, step) for seed in range(20) for step in range(20)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62
    dataset, split, config = setup(folder_set(), seed=3)
    assert [batch.seed for _, batch in batches(dataset, split, config, MEAN)] == [step_seed(3, k) for k in range(7)]
    assert next(batches(dataset, split, config, MEAN, start=5, unlabeled=False))[1].seed == step_seed(3, 5)


def test_strong_views_and_seed_move_with_the_batch(
    folder_set: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, split, config = setup(folder_set(), method={"name": "unimatch"})
    _, batch = next(batches(dataset, split, config, MEAN))
    moved = batch.to("meta")
    assert [view.device.type for view in moved.strong] == ["meta", "meta"]
    assert moved.seed == batch.seed
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)  # without a GPU there is none
    pinned = batch.pin_memory()
    assert pinned.seed == batch.seed
    assert all(torch.equal(one, other + 1) for one, other in zip(pinned.strong, batch.strong, strict=True))


def test_a_thread_reads_one_batch_ahead_and_no_more(
    folder_set: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, split, config = setup(folder_set())
    asked: list[int] = []
    really = StepDataset.__getitem__

    def noted(self: StepDataset, step: int) -> Batch:
        asked.append(step)
        return really(self, step)

    monkeypatch.setattr(StepDataset, "__getitem__", noted)
    stream = batches(dataset, split, config, MEAN, start=2)
    assert asked == []
    alone = StepDataset(dataset, split, config, MEAN)
    for expected in range(2, 7):
        step, batch = next(stream)
        assert step == expected
        assert same(batch, really(alone, step))
        assert set(asked) <= set(range(2, min(expected + 2, 7)))
    assert list(stream) == []
    assert asked == [2, 3, 4, 5, 6]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


@pytest.mark.parametrize("error", [UserError("this mask is broken"), KeyboardInterrupt("stop"), StopIteration()])
def test_errors_of_the_thread_come_out_with_their_batch(
    folder_set: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    dataset, split, config = setup(folder_set())
    really = StepDataset.__getitem__

    def broken(self: StepDataset, step: int) -> Batch:
        if step == 3:
            raise error
        return really(self, step)

    monkeypatch.setattr(StepDataset, "__getitem__", broken)
    stream = batches(dataset, split, config, MEAN)
    assert [next(stream)[0] for _ in range(3)] == [0, 1, 2]
    expected = RuntimeError if isinstance(error, StopIteration) else type(error)
    with pytest.raises(expected, match=str(error) or "StopIteration"):
        next(stream)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_a_stream_that_is_left_early_leaves_no_thread(folder_set: Callable[..., Path]) -> None:
    dataset, split, config = setup(folder_set())
    stream = batches(dataset, split, config, MEAN)
    next(stream)
    del stream
    gc.collect()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_the_images_in_memory_stay_as_they_are(folder_set: Callable[..., Path]) -> None:
    root = folder_set(size=(30, 40))
    kept, split, config = setup(root, method={"name": "unimatch"}, steps=12)
    kept = open_dataset(config.data, remember=True)
    fresh = open_dataset(config.data)
    for _, batch in batches(kept, split, config, MEAN):
        for part in (batch.images, batch.unlabeled, batch.targets, *batch.strong):
            tensors(part).fill_(0) if part is not None else None
    for item in [*split.labeled, *split.unlabeled]:
        np.testing.assert_array_equal(kept.read_image(item), fresh.read_image(item))
    for item in split.labeled:
        np.testing.assert_array_equal(kept.read_targets(item), fresh.read_targets(item))


@pytest.mark.parametrize(
    ("given", "images", "views"),
    [(None, 12, 4), (8, 12, 8), (2, 12, 2), ("auto", 12, 64), ("auto", 48, 64), ("auto", 96, 32), ("auto", 5000, 4)],
)
def test_labelled_images_have_views_of_their_own_number(given: int | str | None, images: int, views: int) -> None:
    augment = AugmentConfig.model_validate({"views": 4, "labeled_views": given})
    assert views_of(LABELED, augment, images) == views
    assert views_of(UNLABELED, augment, images) == 4
    assert views_of(LABELED, AugmentConfig(), images) is None


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_comes_out_as_it_is(folder_set: Callable[..., Path], workers: int) -> None:
    """A file that was lost since the check; also from a worker, which is a process of its own."""
    root = folder_set(train=2, val=1)
    dataset, split, config = setup(root, "all", workers=workers)
    (root / "images/train/00.png").unlink()
    with pytest.raises(DataError) as error:
        list(batches(dataset, split, config, MEAN, unlabeled=False))
    assert error.value.path == root / "images/train/00.png"
    assert error.value.remedy
