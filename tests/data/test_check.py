import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checking import notes_of, report_of
from conftest import write_pair
from PIL import Image
from typer.testing import CliRunner

from latentseg.cli import app
from latentseg.config import DataConfig
from latentseg.data.check import check_data, check_set, no_score_notes, readable
from latentseg.data.datasets import Dataset, Item, open_dataset
from latentseg.data.splits import draw_split
from latentseg.errors import DataError, RunError, UserError
from latentseg.presets import load_config


def check(root: Path, mode: str, labeled: str | int = "all") -> list[str]:
    report = report_of(root, mode, labeled=labeled)
    report.settle("stop")
    return report.notes


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
    assert error.value.status == 3
    first = str(error.value).splitlines()[0]
    assert first == "13 of 16 images cannot be used; mend them, or go on without them by data.on_bad=skip:"
    bad = report_of(root, mode).bad
    assert [each.item.id for each in bad if each.role == "labeled"] == [f"{i:02}" for i in range(12)]
    assert "3x3" in str(bad[0].error)
    assert "9 (192 pixels)" in str(bad[11].error)
    assert (bad[12].role, bad[12].cause) == ("val", "the image has no mask, so it can be neither labelled nor scored")
    assert bad[12].place == str(root / "images/val/01.png")


def test_problems_are_grouped_by_cause(folder_set: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """One line per cause, the commonest first, with the first three files; plain messages are their own causes."""
    root = folder_set(train=9, val=1)
    really = Dataset.read_pair

    def read(dataset: Dataset, item: Item) -> Any:
        if item.id in {"02", "03", "04", "05"}:
            raise DataError("it is blue", "paint it", item.image, f"shade {item.id}")
        if item.id == "01":
            raise UserError("01 is odd; look at it")
        return really(dataset, item)

    monkeypatch.setattr(Dataset, "read_pair", read)
    report = report_of(root)
    with pytest.raises(DataError) as error:
        report.settle("stop")
    place = root / "images/train"
    assert str(error.value).splitlines()[1:] == [
        "  4 x it is blue; paint it:",
        f"      {place}/02.png (shade 02), {place}/03.png (shade 03), {place}/04.png (shade 04), ...",
        "  1 x 01 is odd; look at it:",
        "      01",
    ]
    causes = report.figures()["bad"]
    assert [(cause["cause"], len(cause["files"])) for cause in causes] == [
        ("it is blue", 4),
        ("01 is odd; look at it", 1),
    ]
    monkeypatch.setattr("latentseg.data.report.GROUPS", 1)
    with pytest.raises(DataError, match=r"and 1 further causes$"):
        report.settle("stop")


def test_bad_images_can_be_left_out(folder_set: Callable[..., Path], tmp_path: Path) -> None:
    root = folder_set(train=6, val=2, bare=2)
    for path in ("images/train/00.png", "masks/train/03.png", "images/val/01.png"):
        (root / path).write_text("broken")
    report = report_of(root)
    (note,) = report.settle("skip")
    assert note.startswith("3 of 8 images cannot be used; they are left out (data.on_bad=skip):")
    assert [item.id for item in report.split.labeled] == ["02", "04", "05"]
    assert [item.id for item in report.split.unlabeled] == ["01"]
    assert [item.id for item in report.scored["val"]] == ["00"]
    report.write(tmp_path)
    rows = [line.split("\t")[:2] for line in (tmp_path / "skipped.txt").read_text().splitlines()]
    assert rows == [["labeled", "03"], ["unlabeled", "00"], ["val", "01"]]
    dataset = open_dataset(DataConfig(root=str(root)))
    assert [item.id for item in readable(dataset, dataset.items("val"))] == ["00"]
    (root / "images/val/00.png").write_text("broken")
    assert report_of(root).settle("skip")[1:] == ["no image of val is left: nothing is scored"]
    for name in ("02", "04", "05"):
        (root / f"masks/train/{name}.png").write_text("broken")
    with pytest.raises(DataError, match="no labelled image is left: mend some"):
        report_of(root).settle("skip")


def test_a_labelled_file_that_is_scored_is_refused(folder_set: Callable[..., Path]) -> None:
    root = folder_set(train=3, val=1)
    for part in ("images", "masks"):
        (root / part / "train/02.png").unlink()
        (root / part / "train/02.png").symlink_to(root / part / "val/00.png")
    with pytest.raises(DataError, match="1 x a labelled image is part of val, test or holdout too"):
        check(root, "quick")
    (root / "list.txt").write_text("00\n01\n")
    (note,) = notes_of(root, labeled=str(root / "list.txt"))  # as an unlabelled one it is noted
    assert "unlabelled images have the content of images of val" in note


@pytest.mark.parametrize("mode", ["full", "quick"])
def test_classes_without_pixels_are_noted(folder_set: Callable[..., Path], mode: str) -> None:
    root = folder_set(train=3, val=2)
    for i in range(3):
        Image.fromarray(np.full((12, 16), i % 2, np.uint8)).save(root / f"masks/train/{i:02}.png")
    report = report_of(root, mode)
    (note,) = report.score_notes
    where = "no labelled pixel of class sky in the 3 labelled images, but in val"
    assert note.startswith(where if mode == "full" else "class sky in no mask that was read (3 labelled)")
    assert report.notes == [note]
    labeled = report.figures()["classes"]["labeled"]
    assert labeled["ground"] == {"pixels": 2 * 12 * 16, "images": 2}
    assert ("val" in report.counts) == (mode == "full")


def test_refused_values_bring_the_map_that_helps(folder_set: Callable[..., Path]) -> None:
    """Ids that start at 1: value 3 has no name; masks of 0 and 255 that were resized smoothly have many values."""
    root = folder_set(train=2, val=1)
    for mask in (root / "masks").rglob("*.png"):
        Image.fromarray(np.resize(np.arange(4, dtype=np.uint8), (12, 16))).save(mask)
    report = report_of(root)
    assert len(report.bad) == 3
    assert any("'data.class_map={1: 0, 2: 1, 3: 2}'" in note for note in report.notes)
    for mask in (root / "masks").rglob("*.png"):
        square = np.zeros((48, 64), np.uint8)
        square[10:33, 15:50] = 255
        Image.fromarray(square).resize((16, 12), Image.Resampling.BILINEAR).save(mask)
    assert any("resized smoothly" in note for note in notes_of(root))
    (root / "masks/train/00.png").write_text("broken")  # the others tell it as well
    assert any("resized smoothly" in note for note in notes_of(root))


def test_the_verb_prints_notes_and_counts_and_writes_json(
    folder_set: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder_set(train=4, val=0)
    (root / "images/train/[red]x.heic").write_bytes(b"")
    config = load_config("folder", [f"data.root={root}", "data.labeled=all"])
    table, report = check_set(config, tmp_path / "report.json")
    assert [len(list(column.cells)) for column in table.columns] == [4, 4]
    assert (report.images, report.bad) == (4, [])
    err = capsys.readouterr().err
    assert "1 .heic ([red]x.heic)" in err
    assert "no split val" in err
    assert "data.holdout=1 validate_split=holdout" in err
    assert json.loads((tmp_path / "report.json").read_text())["images"] == 4
    (root / "images/train/01.png").write_text("broken")
    with pytest.raises(DataError, match="1 of 4 images cannot be used"):
        check_set(config, tmp_path / "report.json")
    assert len(json.loads((tmp_path / "report.json").read_text())["bad"]) == 1
    with pytest.raises(UserError, match="cannot be written"):
        check_set(config, tmp_path / "no/folder.json")


@pytest.mark.parametrize(("able", "set_aside"), [(1, 0), (2, 1), (4, 1), (10, 2)])
def test_a_fifth_of_the_training_images_is_offered_for_scores(
    folder_set: Callable[..., Path], able: int, set_aside: int
) -> None:
    (note,) = no_score_notes(open_dataset(DataConfig(root=str(folder_set(train=able, val=0)))), "val")
    remedy = f"; data.holdout={set_aside} validate_split=holdout sets training images aside"
    assert note.removeprefix(
        "the data set has no split val: nothing is scored while it trains, no best checkpoint kept"
    ) == (remedy if set_aside else "")


def test_scored_masks_are_counted_at_their_own_size(folder_set: Callable[..., Path]) -> None:
    """A score is of the pixels of the file; what is learned from is resized before."""
    report = report_of(folder_set(train=3, val=2, size=(12, 16)), resize=0.5)
    assert report.counts["labeled"].pixels.sum() == 3 * 6 * 8
    assert report.counts["val"].pixels.sum() == 2 * 12 * 16


def test_what_good_masks_hold_is_noted(folder_set: Callable[..., Path]) -> None:
    root = folder_set(train=3, val=1)
    (root / "classes.txt").write_text("ground\nroad\n")
    for mask in (root / "masks").rglob("*.png"):
        Image.fromarray(np.repeat(np.array([[0] * 16, [255] * 16], np.uint8), 6, axis=0)).save(mask)
    assert any("'data.class_map={0: 0, 255: 1}'" in note for note in notes_of(root))


def test_names_that_no_list_can_hold_are_bad(folder_set: Callable[..., Path]) -> None:
    root = folder_set(train=3, val=1)
    (root / "images/train/02.png").rename(root / "images/train/0\n2.png")
    (bad,) = report_of(root).bad
    assert (bad.role, bad.cause) == ("unlabeled", "the name of the file is not UTF-8, or holds the end of a line")


@pytest.mark.parametrize("mode", ["full", "quick"])
def test_masks_among_the_images_and_depth_are_noted(folder_set: Callable[..., Path], mode: str) -> None:
    """The depth of the samples alone needs pixels, so a quick check says nothing of it."""
    root = folder_set(train=3, val=1)
    Image.open(root / "masks/train/00.png").save(root / "images/train/00_mask.png")
    for image in root.glob("images/*/[0-9][0-9].png"):
        Image.fromarray(np.full((12, 16), 4000, np.uint16)).save(image)
    notes = report_of(root, mode).notes
    assert any("1 of 4 training images look like masks (00_mask.png" in note for note in notes)
    assert any("data.bits=12" in note for note in notes) == (mode == "full")


def test_the_check_needs_no_torch() -> None:
    code = "import sys, latentseg.data.check; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


def test_an_unlabelled_image_needs_content_but_no_good_mask(folder_set: Callable[..., Path]) -> None:
    root = folder_set(train=2)
    config = DataConfig(root=str(root), labeled=1)
    dataset = open_dataset(config)
    split = draw_split(dataset, config, 0)
    hidden = split.unlabeled[0].id
    (root / f"masks/train/{hidden}.png").write_text("broken")
    assert check_data(dataset, split, {}, "full").bad == []
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
    report = check_data(dataset, draw_split(dataset, config, 0), {"val": dataset.items("val")})
    assert (report.images, report.bad, report.notes) == (0, [], [])


def test_the_verb_takes_a_folder(folder_set: Callable[..., Path], tmp_path: Path) -> None:
    """All its masks are looked at; status 3 if one cannot be used, with the report written all the same."""
    root = folder_set(train=4, val=1)
    command = ["data", "check", str(root), "--json", str(tmp_path / "report.json")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "5 of 5 images can be used" in done.output
    assert json.loads((tmp_path / "report.json").read_text())["classes"]["labeled"]["ground"]["images"] == 4
    (root / "masks/train/01.png").write_text("broken")
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, DataError)
    assert done.exception.status == 3
    assert len(json.loads((tmp_path / "report.json").read_text())["bad"]) == 1


def test_test_images_without_masks_are_no_trouble(folder_set: Callable[..., Path]) -> None:
    root = folder_set()
    write_pair(root / "images/test/00.png", None, 7, (12, 16), 3)
    _, report = check_set(load_config("folder", [f"data.root={root}", "data.labeled=all"]))
    assert (report.images, report.bad) == (8, [])
    assert any(note.startswith("no image of test has a mask: ") for note in report.notes)
    write_pair(root / "images/test/01.png", root / "masks/test/01.png", 8, (12, 16), 3)
    with pytest.raises(DataError, match="1 of 10 images cannot be used"):  # some have masks: one is missing
        check_set(load_config("folder", [f"data.root={root}", "data.labeled=all"]))


@pytest.mark.parametrize("split", ["train", "val"])
def test_pixels_that_cannot_be_decoded_are_found_by_the_full_check_alone(
    folder_set: Callable[..., Path], split: str
) -> None:
    root = folder_set(train=3)
    (root / "masks/train/02.png").unlink()
    path = root / "images" / split / ("02.png" if split == "train" else "01.png")
    content = bytearray(path.read_bytes())
    content[-20] ^= 1  # of the pixels
    path.write_bytes(content)
    (found,) = report_of(root, "full").bad
    assert found.item.image == path
    assert report_of(root, "quick").bad == []


def test_palettes_of_labelled_masks_that_disagree_are_bad(folder_set: Callable[..., Path]) -> None:
    root = folder_set(train=2, val=1)
    for number, palette in enumerate(([0, 0, 0, 9, 9, 9, 5, 5, 5], [0, 0, 0, 5, 5, 5, 9, 9, 9])):
        path = root / f"masks/train/{number:02}.png"
        mask = Image.open(path)
        mask.putpalette(palette)
        mask.save(path)
    causes = [each.cause for each in report_of(root, "full").bad]
    assert causes == ["a palette that gives a value another colour than other masks do"]


def test_a_report_that_cannot_be_written_is_one_message(folder_set: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "check.json").mkdir()
    with pytest.raises(RunError, match=r"check\.json cannot be written: Is a directory"):
        report_of(folder_set()).write(tmp_path)
