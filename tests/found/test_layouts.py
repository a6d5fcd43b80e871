"""Each layout that people have is recognised, and its masks are read pixel by pixel."""

from collections.abc import Callable
from pathlib import Path

import layouts
import numpy as np
import pytest
from layouts import LAYOUTS, Truth

from latentseg.data.datasets import open_dataset
from latentseg.found.document import document
from latentseg.found.recognise import recognise
from latentseg.presets import load_config

UNNAMED = (layouts.parallel, layouts.colors_alone)  # made names, in an order of their own
HELD_OUT = {"train", "holdout"}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("make", LAYOUTS, ids=lambda make: make.__name__)
def test_masks_are_read_as_they_are(make: Callable[[Path], Truth], tmp_path: Path) -> None:
    root = tmp_path / "photos"
    truth = make(root)
    found = recognise(root)
    dataset = open_dataset(load_config("folder", found.overrides).data)
    seen, one_to_one = set[str](), set[tuple[int, int]]()
    for split in dataset.splits:
        for item in dataset.items(split):
            assert item.image is not None
            ids, known = dataset.read_targets(item, resized=False), truth[item.image.stem]
            if make in UNNAMED:
                one_to_one |= set(zip(ids.ravel().tolist(), known.ravel().tolist(), strict=True))
            else:
                assert np.array_equal(ids, known), item.id
            seen.add(item.image.stem)
    assert len({a for a, _ in one_to_one}) == len({b for _, b in one_to_one}) == len(one_to_one)
    assert seen == truth.keys()


@pytest.mark.parametrize("make", LAYOUTS, ids=lambda make: make.__name__)
def test_the_file_of_init_means_the_same(make: Callable[[Path], Truth], tmp_path: Path) -> None:
    root = tmp_path / "photos"
    make(root)
    found = recognise(root)
    (tmp_path / "photos.yaml").write_text(document(found, "folder", ["steps=7"]))
    assert load_config(tmp_path / "photos.yaml") == load_config("folder", [*found.overrides, "steps=7"])
