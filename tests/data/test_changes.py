import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from latentseg.config import DataConfig
from latentseg.data.changes import NAME, changed_files, remember_files
from latentseg.data.datasets import Item, open_dataset
from latentseg.data.splits import Split, draw_split
from latentseg.errors import DataError


def read(root: Path) -> tuple[Split, dict[str, list[Item]]]:
    config = DataConfig(root=str(root), labeled=2)
    dataset = open_dataset(config)
    return draw_split(dataset, config, 0), {"val": dataset.items("val")}


def test_content_that_changed_is_noticed(folder_set: Callable[..., Path], tmp_path: Path) -> None:
    root, run = folder_set(train=5), tmp_path / "run/split"
    run.mkdir(parents=True)
    assert changed_files(*read(root), run) == []  # an older run tells nothing
    remember_files(*read(root), run)
    assert changed_files(*read(root), run) == []
    split, scored = read(root)
    for item, role in ((split.labeled[1], "labeled"), (scored["val"][0], "val")):
        assert item.mask
        before = item.mask.read_bytes()
        times = item.mask.stat()
        item.mask.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        os.utime(item.mask, ns=(times.st_atime_ns, times.st_mtime_ns))
        (note,) = changed_files(*read(root), run)
        assert f"the content of 1 images or masks of {role} has changed ({item.id})" in note
        item.mask.write_bytes(before)
    assert changed_files(*read(root), run) == []
    image = split.unlabeled[0].image
    assert image
    os.utime(image, ns=(1, 1))
    (note,) = changed_files(*read(root), run)
    assert f"of unlabeled has changed ({split.unlabeled[0].id})" in note
    remember_files(*read(root), run)  # what the run began with stays
    assert len(changed_files(*read(root), run)) == 1


def test_a_copy_of_the_data_set_is_no_change(folder_set: Callable[..., Path], tmp_path: Path) -> None:
    root = folder_set(train=5)
    remember_files(*read(root), tmp_path)
    shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)
    assert changed_files(*read(tmp_path / "copy"), tmp_path) == []


def test_images_that_came_or_went_are_named(folder_set: Callable[..., Path], tmp_path: Path) -> None:
    root = folder_set(train=5)
    remember_files(*read(root), tmp_path)
    split, scored = read(root)
    new = Item("new", split.labeled[0].image)
    with pytest.raises(DataError, match=r"has changed since .* unlabeled images 1 more \(new\); restore it"):
        changed_files(Split(split.labeled, [*split.unlabeled, new]), scored, tmp_path)
    with pytest.raises(DataError, match=rf"labeled images 1 gone \({split.labeled[1].id}\)"):
        changed_files(Split(split.labeled[:1], split.unlabeled), scored, tmp_path)
    (note,) = changed_files(split, {"val": scored["val"][:1]}, tmp_path)
    assert note.endswith("images of val have changed: 1 gone (01)")
    (tmp_path / NAME).write_text("{broken")
    assert changed_files(split, scored, tmp_path) == []


@pytest.mark.parametrize("content", ["[" * 100_000, "[]", "null", '{"labeled": 3}', "\0", "empty marks"])
def test_damaged_marks_tell_nothing(folder_set: Callable[..., Path], tmp_path: Path, content: str) -> None:
    root = folder_set(train=5)
    remember_files(*read(root), tmp_path)
    if content == "empty marks":
        marks = json.loads((tmp_path / NAME).read_text())
        content = json.dumps(marks | {"unlabeled": {name: [] for name in marks["unlabeled"]}})
    (tmp_path / NAME).write_text(content)
    assert changed_files(*read(root), tmp_path) == []
