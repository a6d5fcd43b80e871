"""cache=features: the same training as without it on the same views, and nothing computed twice."""

import os
import shutil
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_pair
from numpy.typing import NDArray
from torch import Tensor

from latentseg.config import AugmentConfig, Config, marked
from latentseg.data import caching, transforms
from latentseg.data.ahead import in_threads
from latentseg.data.batches import Seen, Stores
from latentseg.data.caching import cache_root, cached_features
from latentseg.data.datasets import open_dataset
from latentseg.data.features import Features, FeatureStore
from latentseg.data.loading import batches
from latentseg.data.splits import draw_split
from latentseg.errors import UserError
from latentseg.models.segmenter import Segmenter, build_segmenter
from latentseg.presets import load_config
from latentseg.runs.folder import open_run
from latentseg.training.loop import train

TINY = [
    "data.scenes.train=6",
    "data.scenes.val=2",
    "data.scenes.height=48",
    "data.scenes.width=64",
    "data.labeled=2",
    "augment.crop=[32,48]",
    "augment.views=2",
    "model.head_channels=16",
    "batch_size=2",
    "steps=4",
    "method.consistency_start=0",
]


def config(tmp_path: Path, *options: str) -> Config:
    given = [*TINY, "cache=features", f"cache_folder={tmp_path / 'cache'}", *options]
    return load_config("scenes", given, keep_unread=True)


def fill(setting: Config, unlabeled: bool = True) -> tuple[FeatureStore, Segmenter]:
    stores, segmenter = fill_both(setting, unlabeled)
    assert stores.labeled is stores.unlabeled
    return stores.labeled, segmenter


def fill_both(setting: Config, unlabeled: bool = True) -> tuple[Stores, Segmenter]:
    dataset = open_dataset(setting.data)
    split = draw_split(dataset, setting.data, setting.seed)
    segmenter = build_segmenter(setting.model, len(dataset.classes), 3)
    return cached_features(setting, segmenter, dataset, split, unlabeled), segmenter


def last(run: Path) -> dict[str, Tensor]:
    checkpoints = open_run(run).checkpoints
    entry = checkpoints.last()
    assert entry is not None
    return checkpoints.read(entry)


@pytest.mark.parametrize("method", ["supervised", "latent", "advsemiseg", "symmetric", "given_classes"])
def test_every_method_trains_as_on_images(method: str, tmp_path: Path) -> None:
    options = [f"method.name={method}", "method.lambda_lbl_adv=0.01", "method.groups=identity", "discriminator.width=4"]
    options += ["discriminator.downscale=1", "data.scenes.val=1", f"steps={4 if method == 'latent' else 2}"]
    with_cache = train(config(tmp_path, *options), tmp_path / "cached").folder
    without = train(config(tmp_path, *options, "cache=none"), tmp_path / "plain").folder
    left, right = last(with_cache), last(without)
    start = build_segmenter(config(tmp_path).model, 19, 0).state_dict()
    assert left.keys() == right.keys()
    for name in (name for name in left if name.startswith("segmenter.semantic_head")):
        moved = (right[name] - start[name.removeprefix("segmenter.")]).abs().max() if method == "supervised" else None
        torch.testing.assert_close(left[name], right[name], rtol=0, atol=2e-3)
        assert moved is None or float(moved) > 5e-3 or "bias" in name or "1.weight" in name  # the run did something
    scores = [train_rows(folder) for folder in (with_cache, without)]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)


def train_rows(folder: Path) -> list[float]:
    from latentseg.runs.metrics import read_metrics  # noqa: PLC0415

    return [row["val_miou"] for row in read_metrics(folder) if "val_miou" in row]


@pytest.mark.parametrize(
    "options", [[], ["augment.labeled_views=5"], ["augment.rotate=30", "augment.flip=0.5", "data.balance=1"]]
)
def test_features_are_those_of_the_same_views(options: list[str], tmp_path: Path) -> None:
    setting = config(tmp_path, *options)
    stores, segmenter = fill_both(setting)
    dataset = open_dataset(setting.data)
    split = draw_split(dataset, setting.data, setting.seed)
    plain = batches(dataset, split, setting, segmenter.mean)
    stored = batches(dataset, split, setting, segmenter.mean, seen=Seen(stores))
    for (_, one), (_, other) in zip(plain, stored, strict=True):
        assert torch.equal(one.targets, other.targets)
        assert one.unlabeled_valid is not None
        assert other.unlabeled_valid is not None
        assert torch.equal(one.unlabeled_valid, other.unlabeled_valid)
        for images, features in ((one.images, other.images), (one.unlabeled, other.unlabeled)):
            assert isinstance(images, Tensor)
            assert isinstance(features, Features)
            assert features.size == (32, 48)
            with torch.no_grad():
                fresh = segmenter.eval().encode(images)
            for ours, theirs in zip(features.maps, fresh, strict=True):
                assert ours.dtype == torch.float16
                assert ours.is_contiguous(memory_format=torch.channels_last)
                torch.testing.assert_close(ours.float(), theirs, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(("option", "views"), [("augment.views=2", 2), ("augment.labeled_views=3", 3)])
def test_views_are_as_many_as_asked_for(option: str, views: int, tmp_path: Path) -> None:
    setting = config(tmp_path, "cache=none", "steps=12", option, "batch_size=2")
    dataset = open_dataset(setting.data)
    split = draw_split(dataset, setting.data, setting.seed)
    seen = {
        image.numpy().tobytes()
        for _, batch in batches(dataset, split, setting, (0.5, 0.5, 0.5), unlabeled=False)
        for image in batch.images
        if isinstance(image, Tensor)
    }
    assert len(seen) == 2 * views  # 2 labelled images, seen 24 times


def test_only_what_is_missing_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    real = caching._encode

    def count(segmenter: Segmenter, images: Tensor) -> list[Tensor]:
        encoded.append(len(images))
        return real(segmenter, images)

    monkeypatch.setattr(caching, "_encode", count)

    def filled(setting: Config, unlabeled: bool = True) -> int:
        before = len(encoded)
        fill(setting, unlabeled)
        return sum(encoded[before:]) - 1  # one image shows the shapes

    setting = config(tmp_path)
    assert filled(setting, unlabeled=False) == 2 * 2
    assert filled(setting) == 4 * 2
    assert filled(setting) == 0
    assert filled(config(tmp_path, "seed=5", "data.labeled=3", "method.name=supervised", "optim.lr=0.1")) == 0
    assert filled(config(tmp_path, "augment.crop=[32,64]")) == 6 * 2  # other views
    more = config(tmp_path, "augment.labeled_views=7")
    before = len(encoded)
    fill_both(more)
    assert sum(encoded[before:]) - 2 == 2 * 7  # the unlabelled ones are there
    assert filled(config(tmp_path, "data.scenes.seed=1")) == 6 * 2  # other images
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 4


def test_other_weights_and_changed_files_make_other_features(tmp_path: Path, folder_set) -> None:  # type: ignore[no-untyped-def]
    root = folder_set(size=(40, 56))
    files = ["data.kind=folder", f"data.root={root}", "data.classes=null"]
    setting = config(tmp_path, *files)
    stores = [fill(setting)[0].folder]
    image = next((root / "images" / "train").iterdir())
    shutil.copy(next((root / "images" / "val").iterdir()), image)
    stores.append(fill(setting)[0].folder)
    torch.manual_seed(0)
    stores.append(fill(config(tmp_path, *files, "model.weights_kind=none"))[0].folder)
    assert len(set(stores)) == 3


def test_later_options_make_other_features_where_they_act(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they do nothing, stores from before they came are found."""
    plain, turned = (fill(config(tmp_path, *options))[0].folder for options in ([], ["augment.rotate=30"]))
    assert turned != plain
    fields = AugmentConfig.model_fields
    monkeypatch.setattr(caching, "marked", lambda mark: [m for m in marked(mark) if m not in caching.LATER])
    assert {name.rpartition(".")[2] for name in caching.LATER} <= fields.keys()
    assert fill(config(tmp_path))[0].folder == plain


def test_images_of_one_name_size_and_time_are_told_apart(tmp_path: Path) -> None:
    stores = []
    for root, seed in ((tmp_path / "a", 0), (tmp_path / "b", 1)):  # as from two archives without times
        for split in ("train", "val"):
            write_pair(root / f"images/{split}/0.bmp", root / f"masks/{split}/0.png", seed, (40, 56), 3)
        (root / "classes.txt").write_text("x\ny\nz\n")
        os.utime(root / "images/train/0.bmp", (1e9, 1e9))
        setting = config(tmp_path, "data.kind=folder", f"data.root={root}", "data.classes=null", "data.labeled=all")
        stores.append(fill(setting, unlabeled=False)[0])
    a, b = (store.read([("0", 0)]).maps[0] for store in stores)
    assert not torch.equal(a, b)


def test_views_that_are_encoded_one_by_one_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together, _ = fill(config(tmp_path, "augment.views=3"))
    seen = list[int]()
    encode = Segmenter.encode

    def counted(segmenter: Segmenter, images: Tensor) -> list[Tensor]:
        seen.append(len(images))
        return encode(segmenter, images)

    monkeypatch.setattr(Segmenter, "encode", counted)
    monkeypatch.setattr(caching, "AT_ONCE", 2 * 32 * 48)
    apart, _ = fill(config(tmp_path, "augment.views=3", f"cache_folder={tmp_path / 'other'}"))
    assert max(seen) == 2
    for image in ("train/0", "train/5"):
        rows = [(image, view) for view in range(3)]
        for one, other in zip(together.read(rows).maps, apart.read(rows).maps, strict=True):
            torch.testing.assert_close(one, other, atol=2e-2, rtol=1e-2)


def test_an_interrupted_store_is_filled_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = config(tmp_path)
    whole, _ = fill(config(tmp_path, f"cache_folder={tmp_path / 'whole'}"))
    real, calls = FeatureStore.write, []

    def killed(self: FeatureStore, *arguments: object) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(FeatureStore, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        fill(setting)
    store, _ = fill(setting)
    assert len(calls) == 4 + 3  # three were there, the fourth is done again
    for image in whole._number:
        ours, theirs = (s.read([(image, 0), (image, 1)]).maps for s in (store, whole))
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_a_full_disk_is_told_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", ["total", "used", "free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 10))
    with pytest.raises(UserError, match=r"0\.00 GB left: set cache_folder to another disk, or fewer augment\.views"):
        fill(config(tmp_path))
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="set cache_folder=FOLDER"):
        fill(config(tmp_path, f"cache_folder={tmp_path / 'file' / 'x'}"))


def test_a_damaged_store_is_named(tmp_path: Path) -> None:
    store, _ = fill(config(tmp_path))
    (store.folder / "map_0.npy").write_bytes(b"no array")
    with pytest.raises(UserError, match=r"map_0\.npy is damaged .* delete the folder, it is made anew"):
        FeatureStore(store.folder).read([("train/0", 0)])
    (store.folder / "index.json").write_text("{}")
    with pytest.raises(UserError, match="is no store of features"):
        fill(config(tmp_path))


def test_the_options_must_fit(tmp_path: Path) -> None:
    for option in ("augment.views=null", "model.frozen=false"):
        with pytest.raises(UserError, match=r"cache=features needs model\.frozen=true .* augment\.views=4"):
            config(tmp_path, option)


def test_views_of_labelled_images_go_with_those_of_the_others(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"augment\.labeled_views goes with augment\.views"):
        config(tmp_path, "cache=none", "augment.views=null", "augment.labeled_views=3")


def test_the_folder_follows_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = load_config("scenes", [])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root(setting) == tmp_path / "latentseg" / "features"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root(setting) == Path.home() / ".cache" / "latentseg" / "features"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["supervised", "unimatch", "latent_match"])
def test_a_cached_run_goes_on_bit_for_bit(tmp_path: Path, method: str) -> None:
    options = [f"method.name={method}", "method.grid=heads", "checkpoint_every=2", "data.scenes.val=1"]
    whole = train(config(tmp_path, *options), tmp_path / "whole").folder

    class StopError(Exception):
        pass

    def stop(self: FeatureStore, rows: object) -> Features:
        calls.append(1)
        if len(calls) > (3 if method == "supervised" else 6):  # a step reads each stream
            raise StopError
        return real(self, rows)  # type: ignore[arg-type]

    calls: list[int] = []
    real = FeatureStore.read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureStore, "read", stop)
        with pytest.raises(StopError):
            train(config(tmp_path, *options), tmp_path / "stopped")
    resumed = train(config(tmp_path, *options, "workers=1"), tmp_path / "stopped", resume=True).folder
    left, right = last(resumed), last(whole)
    assert [name for name in right if not torch.equal(left[name], right[name])] == []


def test_threads_make_views_ahead_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many threads as for a GPU, whose parts of an image's views end in any order."""
    one = fill(config(tmp_path / "one", "augment.views=3"))[0]
    really = transforms.view_image

    def unevenly(image: NDArray[np.uint8], *rest: Any) -> Tensor:
        time.sleep(int(image[0, 0, 0]) % 3 / 100)
        return really(image, *rest)

    monkeypatch.setattr(caching, "in_threads", lambda function, parts, *_: in_threads(function, parts, 4, 4))
    monkeypatch.setattr(caching, "view_image", unevenly)
    monkeypatch.setattr(caching, "AT_ONCE", 1)
    other = fill(config(tmp_path / "other", "augment.views=3"))[0]
    for name in ("map_0", "sizes", "done"):
        assert np.array_equal(np.load(one.folder / f"{name}.npy"), np.load(other.folder / f"{name}.npy"))
