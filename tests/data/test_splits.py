from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latentseg.config import DataConfig
from latentseg.data.datasets import Dataset, Item, open_dataset
from latentseg.data.splits import Split, draw_split, write_split
from latentseg.errors import UserError


def draw(root: Path, labeled: str | float, seed: int = 0, **options: object) -> Split:
    config = DataConfig.model_validate({"root": str(root), "labeled": labeled, **options})
    return draw_split(open_dataset(config), config, seed)


def ids(items: list[Item]) -> list[str]:
    return [item.id for item in items]


class Counted(Dataset):
    """A stand-in that only lists 10,582 training items."""

    def __init__(self) -> None:
        self.root = None
        self._splits = {"train": [Item(f"{i:05}", Path(f"{i}.jpg"), Path(f"{i}.png")) for i in range(10582)]}


@pytest.mark.parametrize(("labeled", "number"), [("1/8", 1322), (0.5, 5291), ("1 / 30", 352)])
def test_fractions_are_floored_as_published(labeled: str | float, number: int) -> None:
    split = draw_split(Counted(), DataConfig(labeled=labeled), 0)
    assert len(split.labeled) == number
    assert len(split.unlabeled) == 10582 - number


def test_draws_are_seeded_nested_and_disjoint(folder_set: Callable[..., Path]) -> None:
    root = folder_set(train=20)
    small, large = draw(root, "1/4", seed=3), draw(root, 10, seed=3)
    assert len(small.labeled) == 5
    assert ids(small.labeled) == ids(large.labeled)[:5]
    assert ids(draw(root, "1/4", seed=4).labeled) != ids(small.labeled)
    assert ids(draw(root, "1/4", seed=4, split_seed=3).labeled) == ids(small.labeled)
    assert sorted(ids(small.labeled) + ids(small.unlabeled)) == [f"{i:02}" for i in range(20)]
    assert all(item.mask is None for item in small.unlabeled)


def test_fractions_count_all_images_and_draw_those_with_masks(folder_set: Callable[..., Path]) -> None:
    root = folder_set(train=12, bare=8)
    split = draw(root, "1/4")
    assert len(split.labeled) == 3
    assert all(item.has_labels for item in split.labeled)
    assert len(split.unlabeled) == 9
    with pytest.raises(UserError, match="asks for 6 labelled images, but 4 of the 12"):
        draw(root, "1/2")


def test_all_takes_every_image_with_a_mask(folder_set: Callable[..., Path]) -> None:
    root = folder_set(train=12, bare=8)
    split = draw(root, "all")
    assert len(split.labeled) == 4
    assert all(item.has_labels for item in split.labeled)
    assert len(split.unlabeled) == 8
    for mask in (root / "masks" / "train").iterdir():
        mask.unlink()
    with pytest.raises(UserError, match="none of the 12 training images has a mask"):
        draw(root, "all")


def test_all_leaves_nothing_unlabelled_and_too_little_is_refused(folder_set: Callable[..., Path]) -> None:
    root = folder_set(train=6)
    split = draw(root, "all")
    assert ids(split.labeled) == [f"{i:02}" for i in range(6)]
    assert split.unlabeled == []
    with pytest.raises(UserError, match=r"labeled=1/30 of 6 training images is less than one image"):
        draw(root, "1/30")
    with pytest.raises(UserError, match="no list file of that name"):
        draw(root, "lists/absent.txt")


def test_every_class_occurs(folder_set: Callable[..., Path]) -> None:
    root = folder_set(train=20)
    for i in range(20):  # class 1 in two images, class 2 in one, everywhere class 0
        raw = np.zeros((12, 16), np.uint8)
        raw[0, 0] = {4: 1, 9: 1, 17: 2}.get(i, 0)
        Image.fromarray(raw).save(root / f"masks/train/{i:02}.png")
    for seed in range(5):
        chosen = ids(draw(root, 3, seed=seed, every_class=True).labeled)
        assert "17" in chosen
        assert {"04", "09"} & set(chosen)
        assert chosen == ids(draw(root, 5, seed=seed, every_class=True).labeled)[:3]
    assert any("17" not in ids(draw(root, 3, seed=seed).labeled) for seed in range(5))
    with pytest.raises(UserError, match=r"1 labelled images are too few.*not covered: thing"):
        draw(root, 1, every_class=True)


def test_lists_hold_ids_or_pairs(folder_set: Callable[..., Path], tmp_path: Path) -> None:
    root = folder_set(train=6, bare=1)
    other = tmp_path / "more data"
    other.mkdir()
    Image.new("RGB", (4, 4)).save(other / "a b.png")
    Image.new("L", (4, 4)).save(other / "a b mask.png")
    path = tmp_path / "list.txt"
    path.write_text(
        "03\n\nimages/train/01.png masks/train/01.png\n/images/train/00.png /masks/train/02.png\n"
        "more data/a b.png\tmore data/a b mask.png\n"
    )
    split = draw(root, str(path))
    assert ids(split.labeled)[:2] == ["03", "01"]
    assert split.labeled[2].mask == (root / "masks/train/02.png").resolve()
    assert split.labeled[3].image == (other / "a b.png").resolve()
    assert ids(split.unlabeled) == ["02", "04", "05"]


def test_unimatchs_lists_of_voc(voc_set: Callable[..., Path], tmp_path: Path) -> None:
    """`JPEGImages/ID.jpg SegmentationClass/ID.png`: the masks that the list names, wherever the others lie."""
    root = voc_set()
    voc = root / "VOCdevkit/VOC2012"
    (voc / "SegmentationClass").mkdir()
    for number in (1, 3):  # the masks of VOC; the others are of SBD
        mask = f"2007_{number:06}.png"
        other = np.full((10, 14), 20 - number, np.uint8)
        Image.fromarray(other).save(voc / "SegmentationClass" / mask)
    path = tmp_path / "labeled.txt"
    path.write_text("".join(f"JPEGImages/{i}.jpg SegmentationClass/{i}.png\n" for i in ("2007_000003", "2007_000001")))
    split = draw(root, str(path), kind="voc")
    assert [item.mask for item in split.labeled] == [voc / f"SegmentationClass/2007_00000{i}.png" for i in (3, 1)]
    dataset = open_dataset(DataConfig(kind="voc", root=str(root)))
    assert [int(dataset.read_targets(item)[0, 0]) for item in split.labeled] == [17, 19]
    assert ids(split.unlabeled) == ["2007_000000", "2007_000002"]
    path.write_text("JPEGImages/2007_000002.jpg SegmentationClass/2007_000002.png\n")
    with pytest.raises(UserError, match="neither a training image nor a pair"):
        draw(root, str(path), kind="voc")


@pytest.mark.parametrize(
    "line",
    [
        "{city}/{city}_{n}",
        "leftImg8bit/{p}_leftImg8bit.png gtFine/{p}_gtFine_labelIds.png",
        "leftImg8bit/{p}_leftImg8bit.png gtFine/{p}_gtFine_labelTrainIds.png",  # UniMatch's
    ],
)
def test_lists_of_cityscapes(line: str, tmp_path: Path) -> None:
    names = [("aachen", "000001_000019"), ("ulm", "000002_000019"), ("ulm", "000003_000019")]
    paths = [f"train/{city}/{city}_{n}" for city, n in names]
    for p in paths:
        image, mask = tmp_path / f"leftImg8bit/{p}_leftImg8bit.png", tmp_path / f"gtFine/{p}_gtFine_labelIds.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 8)).save(image)
        Image.new("L", (16, 8), 7).save(mask)
        Image.new("L", (16, 8), 0).save(mask.with_name(mask.name.replace("labelIds", "labelTrainIds")))
    lines = [line.format(city=city, n=n, p=p) for (city, n), p in zip(names, paths, strict=True)]
    (tmp_path / "labeled.txt").write_text(f"{lines[2]}\n{lines[0]}\n")
    split = draw(tmp_path, str(tmp_path / "labeled.txt"), kind="cityscapes")
    assert ids(split.labeled) == ["ulm/ulm_000003_000019", "aachen/aachen_000001_000019"]
    dataset = open_dataset(DataConfig(kind="cityscapes", root=str(tmp_path)))
    assert [int(dataset.read_targets(item).max()) for item in split.labeled] == [0, 0]  # road, not ignored
    assert ids(split.unlabeled) == ["ulm/ulm_000002_000019"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no image"),
        ("frame1\n", r"line 1: frame1 is neither .*near: frame01"),
        ("frame01\nframe01\n", "line 2: image frame01 is listed twice"),
        ("frame01\nimages/train/frame01.png masks/train/frame01.png", "listed twice"),
        ("plain\n", "image plain has no mask"),
        ("judge\n", "judge is part of split val"),
        ("images/val/judge.png masks/val/judge.png\n", "part of split val"),
        ("frame01 masks/none.png\n", "neither a training image nor a pair"),
    ],
)
def test_bad_lists_are_explained(folder_set: Callable[..., Path], tmp_path: Path, text: str, message: str) -> None:
    root = folder_set(train=2, val=1, bare=1)
    (root / "images/train/01.png").rename(root / "images/train/frame01.png")
    (root / "masks/train/01.png").rename(root / "masks/train/frame01.png")
    (root / "images/train/00.png").rename(root / "images/train/plain.png")
    for folder in ("images", "masks"):
        (root / folder / "val/00.png").rename(root / folder / "val/judge.png")
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        draw(root, str(tmp_path / "list.txt"))


def test_further_folders_add_unlabelled_images(folder_set: Callable[..., Path], tmp_path: Path) -> None:
    root = folder_set(train=4)
    deep = tmp_path / "pile/deep"
    deep.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(deep / "x.JPG", format="JPEG")
    (deep / "notes.txt").write_text("x")
    split = draw(root, 1, unlabeled=[str(tmp_path / "pile"), str(deep)])
    assert len(split.unlabeled) == 3 + 1
    assert split.unlabeled[-1] == Item(str(deep / "x.JPG"), deep / "x.JPG")
    assert len(draw(root, "all", unlabeled=[str(deep)]).unlabeled) == 1
    (tmp_path / "empty").mkdir()
    for folder, message in (("nowhere", "is not a folder"), ("empty", "holds no image")):
        with pytest.raises(UserError, match=message):
            draw(root, 1, unlabeled=[str(tmp_path / folder)])


def test_overlap_is_refused(folder_set: Callable[..., Path], tmp_path: Path) -> None:
    root = folder_set(train=4)
    (tmp_path / "pile").mkdir()
    for image in (root / "images/train").iterdir():
        (tmp_path / "pile" / image.name).symlink_to(image)
    with pytest.raises(UserError, match="is labelled, and in the folder"):
        draw(root, 1, unlabeled=[str(tmp_path / "pile")])


def test_written_lists_give_the_same_split(folder_set: Callable[..., Path], tmp_path: Path) -> None:
    root = folder_set(train=9)
    (tmp_path / "pile").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "pile/x.png")
    split = draw(root, 3, unlabeled=[str(tmp_path / "pile")])
    write_split(split, tmp_path / "run/split")
    again = draw(root, str(tmp_path / "run/split/labeled.txt"), unlabeled=[str(tmp_path / "pile")])
    assert again == split
    assert (tmp_path / "run/split/unlabeled.txt").read_text().splitlines() == ids(split.unlabeled)
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("images/train/00.png masks/train/02.png\n")
    write_split(draw(root, str(pairs)), tmp_path / "pairs")
    assert draw(root, str(tmp_path / "pairs/labeled.txt")) == draw(root, str(pairs))
    with pytest.raises(UserError, match="cannot be written"):
        write_split(split, pairs / "below")


def test_scenes_can_be_drawn_and_listed(tmp_path: Path) -> None:
    options: dict[str, Any] = {"kind": "scenes", "scenes": {"train": 8, "val": 2, "test": 1}}
    split = draw(tmp_path, "1/4", **options)
    assert len(split.labeled) == 2
    assert len(split.unlabeled) == 6
    write_split(split, tmp_path)
    assert draw(tmp_path, str(tmp_path / "labeled.txt"), **options) == split


def test_real_voc_fractions(real_data: Path) -> None:
    root = real_data / "voc2012_animals_s256"
    split = draw(root, "1/16", kind="voc")
    assert (len(split.labeled), len(split.unlabeled)) == (195, 2936)
    published = root / "VOCdevkit/VOC2012/ImageSets/Segmentation/s4gan_1_16_labeled.txt"
    assert ids(draw(root, str(published), kind="voc").labeled) == published.read_text().split()
