import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from latentseg.config import DataConfig
from latentseg.data.cover import cover_classes
from latentseg.data.datasets import Dataset, Item, open_dataset
from latentseg.data.splits import NUMBER_LENGTH, Split, draw_split, write_split
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
    with pytest.raises(UserError, match=r"none of the 12 training images has a mask.*a mask is a file of"):
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


@pytest.fixture
def rare(folder_set: Callable[..., Path]) -> Path:
    """Class 1 in two of 20 images, class 2 in one, everywhere class 0."""
    root = folder_set(train=20)
    for i in range(20):
        raw = np.zeros((12, 16), np.uint8)
        raw[0, 0] = {4: 1, 9: 1, 17: 2}.get(i, 0)
        Image.fromarray(raw).save(root / f"masks/train/{i:02}.png")
    return root


@pytest.mark.parametrize("every_class", [None, True])
def test_images_of_missing_classes_replace_the_last_of_a_draw(rare: Path, every_class: bool | None) -> None:
    changed = 0
    for seed in range(5):
        plain = ids(draw(rare, 4, seed=seed, every_class=False).labeled)
        split = draw(rare, 4, seed=seed, every_class=every_class)
        chosen = ids(split.labeled)
        assert "17" in chosen
        assert {"04", "09"} & set(chosen)
        kept = [name for name in plain if name in chosen]
        came = [name for name in chosen if name not in plain]
        assert chosen == kept + came  # in the order of the draw, the new ones at its end
        useless = [name for name in plain if name not in {"04", "09", "17"}]
        assert kept == [name for name in plain if name not in useless[len(useless) - len(came) :]]
        assert len(split.notes) == bool(came)
        for name in came:
            assert name in split.notes[0]
        changed += len(came)
    assert changed
    order = ids(draw(rare, 20, every_class=False).labeled)
    first = next(name for name in order if name in {"04", "09"})
    assert first in ids(draw(rare, 2, every_class=None).labeled)  # the first one of the permutation


def test_a_draw_that_holds_every_class_stays_as_it_is(rare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = ids(draw(rare, 20, every_class=False).labeled)
    enough = max(order.index("17"), min(order.index("04"), order.index("09"))) + 1
    read: list[str] = []
    really = Dataset.read_targets

    def noted(dataset: Dataset, item: Item) -> Any:
        read.append(item.id)
        return really(dataset, item)

    monkeypatch.setattr(Dataset, "read_targets", noted)
    for every_class in (None, True):
        split = draw(rare, enough, every_class=every_class)
        assert ids(split.labeled) == order[:enough]
        assert split.notes == []
        assert sorted(read) == sorted(order[:enough])  # no other mask is read
        read.clear()
    draw(rare, 1, every_class=False)
    monkeypatch.setattr("latentseg.data.splits.SMALL_DRAW", 1)
    assert ids(draw(rare, 1).labeled) == order[:1]  # large draws are left alone
    assert read == []


def test_too_few_images_hold_as_many_classes_as_they_can(rare: Path) -> None:
    with pytest.raises(UserError, match=r"1 labelled images are too few; not covered: (thing|sky)\."):
        draw(rare, 1, every_class=True)
    split = draw(rare, 1)
    assert len(split.labeled) == 1
    assert "1 labelled images are too few to hold every class; not covered: " in split.notes[-1]


class Held(Dataset):
    """A stand-in: the classes that each mask holds."""

    def __init__(self, *holds: set[int]) -> None:
        self.holds = holds
        self.classes = tuple("abcdefghi"[: 1 + max(max(held) for held in holds)])

    def read_targets(self, item: Item, resized: bool = True) -> NDArray[np.uint8]:
        return np.array([[*self.holds[int(item.id)], 255]], np.uint8)

    def covered(self, number: int, strict: bool = False) -> tuple[list[int], list[str]]:
        """Numbers of the images that are chosen, and the notes."""
        chosen, notes = cover_classes(self, [Item(f"{i}", None) for i in range(len(self.holds))], number, strict)
        return [int(item.id) for item in chosen], notes


def test_one_image_leaves_for_one_that_holds_what_is_missing() -> None:
    by = "(data.every_class=false keeps the draw)"
    chosen, notes = Held({0}, {0}, {1}).covered(2)
    assert chosen == [0, 2]
    assert notes == [f"the draw of 2 labelled images lacked b: 1 of the images replaced by 2 {by}"]
    chosen, notes = Held({0, 1}, {1, 2}, {2, 0}, {3, 0}).covered(2, strict=True)
    assert chosen == [1, 3]
    chosen, notes = Held({0}, {1}, {0}, {2}, {3}).covered(3)
    assert chosen == [0, 1, 3]
    assert notes[1] == "3 labelled images are too few to hold every class; not covered: d"


def test_the_fewest_images_are_found_where_replacing_one_by_one_fails() -> None:
    """Each image of the draw holds a class that no other does, also after one more has come."""
    by = "(data.every_class=false keeps the draw)"
    few = Held({0, 2}, {1, 3}, {4, 0, 1}, {5, 2, 3})
    assert few.covered(2) == (
        [2, 3],
        [f"the draw of 2 labelled images lacked e, f: 2 of the images replaced by 2, 3 {by}"],
    )
    more = Held({0, 2}, {1, 3}, {6, 7}, {4, 0, 1, 6}, {5, 2, 3, 7})
    chosen, notes = more.covered(3, strict=True)
    assert chosen == [3, 4, 0]  # filled up in the order of the draw
    assert notes == [f"the draw of 3 labelled images lacked e, f: 2 of the images replaced by 3, 4 {by}"]


def test_a_broken_mask_does_not_end_the_draw(rare: Path) -> None:
    """The data check tells of it, with all others."""
    (rare / "masks/train/17.png").write_text("no image")
    assert len(draw(rare, 4).labeled) == 4


def test_a_fraction_says_of_what(folder_set: Callable[..., Path]) -> None:
    root = folder_set(train=12, bare=8)
    assert draw(root, "1/4").share == "1/4 of the 12 training images, of which 8 have no mask"
    assert draw(root, 3).share == ""
    assert draw(root, "all").share == ""


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


@pytest.mark.parametrize("labeled", ["a\0b", "9" * 5000])
def test_odd_names_of_lists_are_no_crash(folder_set: Callable[..., Path], labeled: str) -> None:
    with pytest.raises(UserError, match="no list file of that name exists") as error:
        draw(folder_set(train=2), labeled)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("labeled", ["1e-999999999", "1e999999999", "0", "0/5", "3.5", "1.0", "1.5"])
def test_odd_numbers_are_refused_at_once(folder_set: Callable[..., Path], labeled: str) -> None:
    dataset = open_dataset(DataConfig(root=str(folder_set(train=2))))
    with pytest.raises(UserError, match="less than one image, or no share"):
        draw_split(dataset, DataConfig.model_construct(labeled=labeled), 0)


def test_what_is_a_number(folder_set: Callable[..., Path]) -> None:
    root = folder_set(train=4)
    for labeled in (" 3 ", "0" * (NUMBER_LENGTH - 1) + "3"):
        split = draw(root, labeled)
        assert len(split.labeled) == 3
        assert split.share == ""
    with pytest.raises(UserError, match="no list file of that name"):
        draw(root, "0" * NUMBER_LENGTH + "3")


def test_draws_below_200_images_are_looked_at_for_their_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    def noted(_dataset: Dataset, order: list[Item], number: int, strict: bool) -> tuple[list[Item], list[str]]:
        looked.append(number)
        return order[:number], []

    monkeypatch.setattr("latentseg.data.splits.cover_classes", noted)
    for number in (199, 200, 201):
        assert len(draw_split(Counted(), DataConfig(labeled=str(number)), 0).labeled) == number
    assert looked == [199]


def test_lists_of_windows_are_read(folder_set: Callable[..., Path], tmp_path: Path) -> None:
    root = folder_set(train=3)
    lines = "".join(f"images\\train\\{name}.png masks\\train\\{name}.png\r\n" for name in ("02", "00"))
    for encoding in ("utf-8-sig", "utf-16", "utf-16-be"):
        mark = "\ufeff" * (encoding == "utf-16-be")
        (tmp_path / "list.txt").write_bytes((mark + lines).encode(encoding))
        assert ids(draw(root, str(tmp_path / "list.txt")).labeled) == ["02", "00"]
    (tmp_path / "list.txt").write_bytes("größe\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"list\.txt: cannot be read as text in UTF-8.*iconv"):
        draw(root, str(tmp_path / "list.txt"))


@pytest.mark.parametrize("name", [b"caf\xe9", b"\x80", b"\xff", b"two\nlines"])
def test_names_that_no_list_can_hold_are_refused(folder_set: Callable[..., Path], tmp_path: Path, name: bytes) -> None:
    root = folder_set(train=2)
    (root / "images/train/00.png").rename(root / f"images/train/{os.fsdecode(name)}.png")
    with pytest.raises(UserError, match="is not UTF-8, or holds the end of a line"):
        write_split(draw(root, 1), tmp_path / "split")
    assert not (tmp_path / "split").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the list holds no image"),
        ("frame1\n", r"line 1: frame1 is neither .*near: frame01"),
        ("frame01\nframe01\n", "line 2: image frame01 is listed twice"),
        ("frame01\nimages/train/frame01.png masks/train/frame01.png", "listed twice"),
        ("plain\n", "image plain has no mask"),
        ("judge\n", "judge is part of split val"),
        ("images/val/judge.png masks/val/judge.png\n", "part of split val"),
        ("frame01 masks/none.png\n", "neither a training image nor a pair"),
        ("a.png,b.png\n", r"a space or a tab between them \(no comma\)"),
        ("x" * 300 + " y\n", rf"line 1: {'x' * 57}\.\.\. is neither"),
        ("a secret of another file " * 40, "line 1: a secret of another file a secret of another file a secre... is"),
        ("a\0b\n", "zero bytes"),
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
    with pytest.raises(UserError, match="is labelled, and in a folder"):
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
