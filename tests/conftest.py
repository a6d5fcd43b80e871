"""Tiny data sets, made for each test; and how tests share the cores."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

NAMES = ["ground", "thing", "sky"]
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when PyTorch is imported, here and in processes that tests start


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: at the end none is left that one process would still be at alone."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests and the processes that they start keep stays out of the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> Iterator[None]:
    """A shell makes what it puts in the background deaf to Ctrl-C, nohup to SIGHUP; some tests send them."""
    hearing: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in hearing.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def write_pair(image: Path, mask: Path | None, seed: int, size: tuple[int, int], classes: int) -> None:
    """A random photograph, and a mask with `classes` values, the last ones rarer."""
    rng = np.random.default_rng(seed)
    image.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(image)
    if mask is not None:
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, classes, size, dtype=np.uint8)).save(mask)


@pytest.fixture
def folder_set(tmp_path: Path) -> Callable[..., Path]:
    """Make a data set of the layout `folder` with three classes and return its root."""

    def make(train: int = 6, val: int = 2, bare: int = 0, size: tuple[int, int] = (12, 16)) -> Path:
        root = tmp_path / "set"
        for split, number in (("train", train), ("val", val)):
            for i in range(number):
                mask = None if split == "train" and i < bare else root / "masks" / split / f"{i:02}.png"
                write_pair(root / "images" / split / f"{i:02}.png", mask, 100 * len(split) + i, size, len(NAMES))
        (root / "masks").mkdir(exist_ok=True)
        (root / "classes.txt").write_text("\n".join(NAMES) + "\n")
        return root

    return make


@pytest.fixture
def voc_set(tmp_path: Path) -> Callable[..., Path]:
    """Make a data set of the layout `voc` and return the folder above VOCdevkit."""

    def make(train: int = 4, val: int = 2, masks: str = "SegmentationClassAug") -> Path:
        root = tmp_path / "voc" / "VOCdevkit" / "VOC2012"
        lists = root / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True)
        ids = {
            "train": [f"2007_{i:06}" for i in range(train)],
            "val": [f"2008_{i:06}" for i in range(val)],
        }
        for split, names in ids.items():
            (lists / f"{split}.txt").write_text("\n".join(names) + "\n")
            for seed, name in enumerate(names):
                write_pair(root / "JPEGImages" / f"{name}.jpg", root / masks / f"{name}.png", seed, (10, 14), 21)
        return tmp_path / "voc"

    return make


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets beside the repository; the test is skipped without it."""
    folder = Path(__file__).parents[1] / "../shared/data"
    if not folder.is_dir():
        pytest.skip("no real data beside the repository")
    return folder.resolve()
