"""A second check of the same files opens none of them, and one that changed is opened again."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import NAMES
from PIL import Image

from latentseg.data import check
from latentseg.data.check import check_data
from latentseg.data.datasets import Item, open_dataset
from latentseg.data.files import cache_home
from latentseg.data.report import Report
from latentseg.data.splits import draw_split
from latentseg.presets import load_config


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The roles and ids of what is opened, as it goes on."""
    seen: list[str] = []
    real = check._check

    def look(dataset: object, role: str, item: Item, full: bool) -> object:
        seen.append(f"{role} {item.id}")
        return real(dataset, role, item, full)  # type: ignore[arg-type]

    monkeypatch.setattr(check, "_check", look)
    return seen


def checked(root: Path, *options: str) -> Report:
    config = load_config("folder", [f"data.root={root}", *options])
    dataset = open_dataset(config.data)
    split = draw_split(dataset, config.data, config.seed)
    return check_data(dataset, split, {"val": dataset.items("val")}, config.data.check)


def test_a_second_check_opens_nothing_and_says_the_same(folder_set: Callable[..., Path], opened: list[str]) -> None:
    root = folder_set(train=5, bare=2)
    first = checked(root)
    assert sorted(opened) == [
        *(f"labeled 0{i}" for i in (2, 3, 4)), *(f"unlabeled 0{i}" for i in (0, 1)), "val 00", "val 01",
    ]  # fmt: skip
    opened.clear()
    second = checked(root)
    assert opened == []
    assert first.notes == second.notes
    assert first.figures() == second.figures()
    for role, counts in first.counts.items():
        for name in ("pixels", "images", "between"):
            np.testing.assert_array_equal(getattr(counts, name), getattr(second.counts[role], name))
        assert counts.masks == second.counts[role].masks > 0


def test_a_file_that_changed_is_opened_even_with_its_old_size_and_time(
    folder_set: Callable[..., Path], opened: list[str]
) -> None:
    root = folder_set(train=3)
    checked(root)
    opened.clear()
    mask = root / "masks/train/01.png"
    before, content = mask.stat(), bytearray(mask.read_bytes())
    content[len(content) // 2] ^= 1  # the checksum of the PNG no longer fits
    mask.write_bytes(content)
    os.utime(mask, ns=(before.st_atime_ns, before.st_mtime_ns))
    report = checked(root)
    assert opened == ["labeled 01"]
    assert [each.item.id for each in report.bad] == ["01"]
    opened.clear()
    assert [each.item.id for each in checked(root).bad] == ["01"]  # what is bad is not remembered
    assert opened == ["labeled 01"]


@pytest.mark.parametrize(
    "option", ["data.check=quick", "data.class_map={0: 0, 1: 1}", "data.resize=0.5", "data.bits=12"]
)
def test_files_read_in_another_way_are_opened(option: str, folder_set: Callable[..., Path], opened: list[str]) -> None:
    root = folder_set(train=3)
    checked(root)
    opened.clear()
    report = checked(root, option)
    assert len(opened) == 5
    if option.startswith("data.class_map"):
        assert report.counts["labeled"].values == {0, 1, 255}


def test_a_map_of_colours_in_a_file_is_part_of_it(folder_set: Callable[..., Path], opened: list[str]) -> None:
    root = folder_set(train=3)
    for mask in (root / "masks").rglob("*.png"):
        Image.new("RGB", (16, 12), (1, 2, 3)).save(mask)
    colors = root / "colors.txt"
    for shown in range(2):
        others = [f"9 9 {i} {name}" for i, name in enumerate(NAMES) if i != shown]
        colors.write_text("\n".join([f"1 2 3 {NAMES[shown]}", *others]))
        opened.clear()
        report = checked(root, f"data.color_map={colors}")
        assert len(opened) == 5
        assert report.counts["labeled"].values == {shown}


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b'{"full labeled 00": [1]}', b'{"full labeled 00": 3}'])
def test_a_damaged_memory_is_none(content: bytes, folder_set: Callable[..., Path], opened: list[str]) -> None:
    root = folder_set(train=3)
    checked(root)
    (kept,) = (cache_home() / "checked").iterdir()
    kept.write_bytes(content)
    opened.clear()
    assert not checked(root).bad
    assert len(opened) == 5


def test_without_a_folder_for_it_nothing_is_remembered(
    folder_set: Callable[..., Path], opened: list[str], tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file in its place")
    root = folder_set(train=3)
    assert not checked(root).bad
    opened.clear()
    assert not checked(root).bad
    assert len(opened) == 5
