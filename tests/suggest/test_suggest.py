"""`latentseg suggest` on runs of one step: what is left out, what is written, what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from live import photo
from PIL import Image
from typer.testing import CliRunner

from latentseg.cli import app
from latentseg.errors import DataError, RunError, UserError
from latentseg.inference.model import Model
from latentseg.presets import load_config, only_read
from latentseg.runs.checkpoints import load_module
from latentseg.suggest import suggest
from latentseg.suggest.look import Looker
from latentseg.training.loop import train

OPTIONS = [
    *("data.labeled=2", "steps=1", "batch_size=2", "threads=1", "device=cpu", "model.weights_kind=none"),
    *("model.frozen=false", "model.head_channels=16", "augment.crop=[32,32]", "augment.views=null", "cache=none"),
    *("augment.labeled_views=null", "validate_every=0"),
]


def save(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo(32, 48, seed)).save(path)
    return path


def trained(root: Path, folder: Path, method: str) -> Path:
    options = [*OPTIONS, f"data.root={root}", f"method.name={method}", "method.num_latent=3"]
    return train(load_config("folder", only_read(options, method)), folder).folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight training images and one of each other split, with masks of three classes."""
    folder = tmp_path_factory.mktemp("data") / "set"
    for split, number in (("train", 8), ("val", 1), ("test", 1)):
        for i in range(number):
            save(folder / "images" / split / f"{i}.png", 10 * len(split) + i)
            (folder / "masks" / split).mkdir(parents=True, exist_ok=True)
            mask = np.random.default_rng(i).integers(0, 3, (32, 48), dtype=np.uint8)
            Image.fromarray(mask).save(folder / "masks" / split / f"{i}.png")
    (folder / "classes.txt").write_text("ground\nthing\nsky\n")
    return folder


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(root, tmp_path_factory.mktemp("runs") / "latent", "latent")


def labeled(run: Path) -> list[str]:
    return (run / "split" / "labeled.txt").read_text().split()


def test_what_is_labelled_scored_or_a_mask_is_left_out_and_counted(run: Path, root: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["suggest", str(run), str(root), "-n", "3", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    listed = (tmp_path / "out" / "suggest.txt").read_text().splitlines()
    assert len(listed) == 3
    able = {str(path) for path in (root / "images" / "train").iterdir() if path.stem not in labeled(run)}
    assert {*listed} < able
    figures = json.loads((tmp_path / "out" / "suggest.json").read_text())
    out = {
        "kept for scores (test)": 1,
        "kept for scores (val)": 1,
        "labelled in the run": 2,
        "masks of its data set": 10,
    }
    assert (figures["left_out"], figures["looked_at"]) == (out, 6)
    assert [image["image"] for image in figures["images"]] == listed
    assert [*figures["images"][0]["signals"]] == ["entropy", "branches"]
    assert sum(figures["images"][0]["expected"].values()) == pytest.approx(1, abs=1e-3)
    assert all(image["reasons"] for image in figures["images"])
    assert "2 labelled in the run" in done.output
    assert "ground" in done.output
    with Image.open(tmp_path / "out" / "suggest.png") as sheet:
        assert sheet.size[0] == 2 * (3 * 200 + 4 * 8)


def test_copies_of_an_image_and_of_a_labelled_one_wait_for_the_others(run: Path, root: Path, tmp_path: Path) -> None:
    for copy in range(4):
        save(tmp_path / "new" / f"same{copy}.png", 90)
        shutil.copy(root / "images" / "train" / f"{labeled(run)[0]}.png", tmp_path / "new" / f"labelled{copy}.png")
    for seed in (91, 92):
        save(tmp_path / "new" / f"other{seed}.png", seed)
    found = suggest(run, [tmp_path / "new"], 10, tmp_path / "out")
    names = [path.stem for path in found.images]
    assert sorted(name[:5] for name in names[:3]) == ["other", "other", "same0"]
    again = suggest(run, [tmp_path / "new"], 10, tmp_path / "again")
    for name in ("suggest.txt", "suggest.json", "suggest.png"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert again.picks == found.picks


def test_more_than_there_are_is_all_of_them_and_said(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "new" / "a.png", 1)
    (tmp_path / "new" / "b.png").write_bytes(b"no image")
    found = suggest(run, [tmp_path / "new"], 5)
    assert [path.name for path in found.images] == ["a.png"]
    assert found.left_out == {"that cannot be read": 1}
    said = capsys.readouterr().err
    assert "-n 5, but there are 1 images" in said
    assert "b.png" in said
    assert found.folder == run / "suggest"
    assert suggest(run, [tmp_path / "new" / "a.png"]).folder == run / "suggest-2"


def test_a_data_set_that_is_gone_costs_the_labelled_images_and_is_said(
    run: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [root / "images" / "train"]
    found = suggest(run, images, 2, tmp_path / "out", overrides=[f"data.root={tmp_path / 'gone'}"])
    assert len(found.pool.features) == 8
    assert not found.known.pixels.any()
    assert "--set data.root=FOLDER" in capsys.readouterr().err
    other = shutil.copytree(root, tmp_path / "moved")
    found = suggest(run, [other / "images" / "train"], 2, tmp_path / "2", overrides=[f"data.root={other}"])
    assert found.left_out == {"labelled in the run": 2}


def test_what_is_labelled_is_counted_in_images(run: Path, root: Path, tmp_path: Path) -> None:
    found = suggest(run, [root], 1, tmp_path / "out")
    masks = [np.array(Image.open(root / "masks" / "train" / f"{name}.png")) for name in labeled(run)]
    expected = sum(np.bincount(mask.ravel(), minlength=3) / mask.size for mask in masks)
    assert found.known.pixels == pytest.approx(expected, abs=1e-5)
    assert found.known.shown.tolist() == [2, 2, 2]
    assert len(found.known.features) == 2


def test_a_teacher_that_says_something_else_is_a_signal(root: Path, tmp_path: Path) -> None:
    folder = trained(root, tmp_path / "run", "mean_teacher")
    model = Model.open(folder)
    looker = Looker.open(model, "last")
    assert looker.signals == ("entropy", "teacher")
    assert looker.teacher is not None
    entry = model.run.checkpoints.last()
    assert entry is not None
    load_module("segmenter", looker.teacher.segmenter, model.run.checkpoints.read(entry))
    assert looker.figures(photo(32, 48))[0]["teacher"] == pytest.approx(0, abs=1e-6)  # one of the two is folded
    for parameter in looker.teacher.segmenter.semantic_head.parameters():
        parameter.data.mul_(-50)
    assert looker.figures(photo(32, 48))[0]["teacher"] > 0.01


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{new}", "--by", "none"], "choose one of all, entropy"),
        (["{new}", "--by", "teacher"], "needs a teacher, which a run of latent does not have"),
        (["{new}/missing"], "does not exist"),
        (["{empty}"], "holds no image"),
        (["{new}", "--checkpoint", "first"], "choose last or best"),
        (["{new}", "--out", "{full}"], "exists and is not overwritten"),
        (["{new}", "--out", "{new}/a.png"], "no folder that you may write to"),
        (["{new}", "--set", "steps=9"], "steps"),
        (["{labelled}"], "no image is left to choose from: 1 labelled in the run"),
    ],
)
def test_bad_usage_is_refused_before_an_image_is_read(
    run: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.setattr("latentseg.suggest.look.Looker.features", lambda *_: pytest.fail("an image was read"))
    new, full, empty = (tmp_path / name for name in ("new", "full", "empty"))
    save(new / "a.png", 1)
    full.mkdir()
    empty.mkdir()
    (full / "suggest.txt").write_text("mine")
    labelled = root / "images" / "train" / f"{labeled(run)[0]}.png"
    words = [word.format(new=new, full=full, empty=empty, labelled=labelled) for word in arguments]
    done = CliRunner().invoke(app, ["suggest", str(run), *words])
    assert isinstance(done.exception, UserError)
    assert said in str(done.exception)
    assert (full / "suggest.txt").read_text() == "mine"


def test_nothing_that_can_be_read_is_an_error(run: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="none of the 1 images can be read"):
        suggest(run, [tmp_path], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_without_its_list_is_damaged(run: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(run, tmp_path / "broken")
    (broken / "split" / "labeled.txt").unlink()
    save(tmp_path / "new" / "a.png", 1)
    with pytest.raises(RunError, match="is gone"):
        suggest(broken, [tmp_path / "new"])


def test_count_below_one_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least one"):
        suggest(run, [tmp_path], 0)
