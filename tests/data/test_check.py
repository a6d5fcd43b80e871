from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentseg.config import DataConfig
from latentseg.data.check import check_data
from latentseg.data.datasets import open_dataset
from latentseg.data.splits import draw_split
from latentseg.errors import UserError


def check(root: Path, mode: str, labeled: str | int = "all") -> list[str]:
    config = DataConfig.model_validate({"root": str(root), "labeled": labeled, "check": mode})
    dataset = open_dataset(config)
    return check_data(dataset, draw_split(dataset, config, 0), dataset.items("val"), config.check)


@pytest.mark.parametrize("mode", ["full", "quick"])
def test_good_data_passes(folder_set: Callable[..., Path], mode: str) -> None:
    assert check(folder_set(), mode) == []


@pytest.mark.parametrize("mode", ["full", "quick"])
def test_all_problems_come_in_one_error(folder_set: Callable[..., Path], mode: str) -> None:
    root = folder_set(train=14, val=2)
    for i in range(11):
        Image.new("L", (3, 3)).save(root / f"masks/train/{i:02}.png")
    Image.new("L", (16, 12), 9).save(root / "masks/train/11.png")
    (root / "masks/val/01.png").unlink()
    with pytest.raises(UserError) as error:
        check(root, mode)
    lines = str(error.value).splitlines()
    assert lines[0] == "13 of 16 images cannot be used:"
    assert len(lines) == 12
    assert "00.png: an image and its mask differ in size (image 16x12" in lines[1]
    assert lines[-1] == "  and 3 more"


def test_every_role_is_checked(folder_set: Callable[..., Path]) -> None:
    root = folder_set(train=2, val=3)
    (root / "images/train/00.png").write_bytes((root / "images/train/00.png").read_bytes()[:300])
    (root / "masks/val/00.png").unlink()
    Image.new("L", (16, 12), 9).save(root / "masks/val/01.png")
    Image.new("L", (12, 16)).save(root / "masks/val/02.png")
    with pytest.raises(UserError) as full:
        check(root, "full")
    for part in ("train/00.png: has no readable", "val/00.png has no mask", "9 (192 pixels)", "image 16x12, mask"):
        assert part in str(full.value)
    with pytest.raises(UserError) as quick:
        check(root, "quick")
    assert "3 of 5" in str(quick.value)  # headers alone: no scored mask is decoded


def test_an_unlabelled_image_needs_content_but_no_good_mask(folder_set: Callable[..., Path]) -> None:
    root = folder_set(train=2)
    config = DataConfig(root=str(root), labeled=1)
    dataset = open_dataset(config)
    split = draw_split(dataset, config, 0)
    hidden = split.unlabeled[0].id
    (root / f"masks/train/{hidden}.png").write_text("broken")
    assert check_data(dataset, split, [], "full") == []
    (root / f"images/train/{hidden}.png").write_text("broken")
    for mode in ("full", "quick"):
        with pytest.raises(UserError, match="no readable image content"):
            check(root, mode, labeled=1)


def test_blank_labels_are_noted_or_refused(folder_set: Callable[..., Path]) -> None:
    root = folder_set(train=3)
    blank = Image.fromarray(np.full((12, 16), 255, np.uint8))
    blank.save(root / "masks/train/01.png")
    assert check(root, "quick") == ["all pixels of 1 of 3 labelled images are ignored: 01"]
    for name in ("00", "02"):
        blank.save(root / f"masks/train/{name}.png")
    with pytest.raises(UserError, match="all pixels of all 3 labelled images are ignored"):
        check(root, "full")


def test_scenes_need_no_check() -> None:
    config = DataConfig.model_validate({"kind": "scenes", "scenes": {"train": 300}})
    dataset = open_dataset(config)
    assert check_data(dataset, draw_split(dataset, config, 0), dataset.items("val")) == []
