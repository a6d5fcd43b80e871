"""Scores against a confusion matrix counted by hand from the public predictions."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from latentseg.data.datasets import open_dataset
from latentseg.errors import DataError, UserError
from latentseg.inference.evaluate import Evaluation, evaluate, score_items
from latentseg.inference.model import Model, open_data
from latentseg.metrics import Scores
from latentseg.models.segmenter import LightHead
from latentseg.presets import load_config
from latentseg.report.collect import read_run
from latentseg.runs.folder import open_run
from latentseg.training.loop import train

NAMES = ["ground", "thing", "sky", "never"]
SIZES = [(33, 47), (40, 24), (31, 32)]


def write_set(root: Path) -> Path:
    """Images of several sizes; masks of three of the four classes, with unlabelled pixels."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for i, size in enumerate(SIZES):
            for kind, shape, values in (("images", (*size, 3), 256), ("masks", size, 3)):
                pixels = rng.integers(0, values, shape, dtype=np.uint8)
                if kind == "masks":
                    pixels[:3] = 255
                (root / kind / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / kind / split / f"{i}.png")
    (root / "classes.txt").write_text("\n".join(NAMES))
    return root


def train_on(root: Path, folder: Path, resize: float) -> Path:
    """A run of one step, whose model never says "never"."""
    options = [
        f"data.root={root}",
        "data.classes=null",
        "data.ignored_values=[255]",
        "data.labeled=2",
        f"data.resize={resize}",
        "augment.crop=[32,32]",
        "method.num_latent=3",
        "steps=1",
        "batch_size=2",
        "threads=1",
        "device=cpu",
    ]
    run = train(load_config("camvid", options), folder)
    last = run.checkpoints.last()
    assert last is not None
    tensors = run.checkpoints.read(last)
    weight = tensors["segmenter.semantic_head.classify.weight"]  # large, so that predictions vary
    weight.copy_(100 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    tensors["segmenter.semantic_head.classify.bias"] = torch.tensor([0.0, 0.0, 0.0, -1e6])
    run.checkpoints.save(2, tensors)
    return run.folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[float, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {resize: train_on(data, folder / f"run{resize}", resize) for resize in (1.0, 0.5)}


def count_by_hand(run: Path, data: Path) -> NDArray[np.int64]:
    """Rows true, columns predicted, pixel by pixel at the original size."""
    model = Model.open(run)
    matrix = np.zeros((4, 4), np.int64)
    for i in range(len(SIZES)):
        mask = np.array(Image.open(data / "masks" / "val" / f"{i}.png"))
        labels = model.predict(data / "images" / "val" / f"{i}.png").labels
        assert labels.shape == mask.shape == SIZES[i]
        for true, said in zip(mask.ravel().tolist(), labels.ravel().tolist(), strict=True):
            if true != 255:
                matrix[true, said] += 1
    return matrix


@pytest.mark.parametrize("resize", [1.0, 0.5])
def test_scores_equal_those_by_hand(data: Path, runs: dict[float, Path], resize: float) -> None:
    result = evaluate(runs[resize])
    matrix = count_by_hand(runs[resize], data)
    assert matrix.sum() == sum((height - 3) * width for height, width in SIZES)
    assert (matrix.sum(0) > 100).sum() > 1  # the model says more than one thing
    hits = [int(matrix[c, c]) for c in range(4)]
    unions = [int(matrix[c].sum() + matrix[:, c].sum()) - hits[c] for c in range(4)]
    assert unions[3] == 0
    expected = [hits[c] / unions[c] for c in range(3)]
    assert result.scores.iou[:3] == pytest.approx(expected, abs=1e-12)
    assert math.isnan(result.scores.iou[3])
    assert result.scores.miou == pytest.approx(sum(expected) / 3, abs=1e-12)
    assert result.scores.pixel_accuracy == pytest.approx(sum(hits) / matrix.sum(), abs=1e-12)
    assert result.scores.absent == 1
    assert (result.images, result.step, result.split, result.checkpoint) == (3, 2, "val", "last")


@pytest.mark.parametrize("resize", [1.0, 0.5])
def test_scores_do_not_depend_on_the_batch(runs: dict[float, Path], resize: float) -> None:
    alone = evaluate(runs[resize], overrides=["inference.batch_size=1"])
    for size in ("2", "100", "null"):
        together = evaluate(runs[resize], overrides=[f"inference.batch_size={size}"])
        assert together.scores.iou[:3] == pytest.approx(alone.scores.iou[:3], abs=2e-3)  # ties within float error


def test_scoring_leaves_the_latent_branch_out(runs: dict[float, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[Any] = []
    monkeypatch.setattr(LightHead, "forward", _count_heads(LightHead.forward, heads))
    evaluate(runs[1.0], overrides=["inference.batch_size=1"])
    assert len(heads) == len(SIZES)


def _count_heads(forward: Any, heads: list[Any]) -> Any:
    def counted(head: LightHead, maps: Any) -> Any:
        heads.append(head)
        return forward(head, maps)

    return counted


def test_a_broken_mask_is_named(data: Path, tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    folder = train_on(root, tmp_path / "run", 1.0)
    (root / "masks" / "val" / "1.png").write_text("no image")
    with pytest.raises(UserError, match=r"masks/val/1\.png: has no readable image content"):
        evaluate(folder)


def test_resizing_makes_a_difference(runs: dict[float, Path]) -> None:
    """Otherwise the test above would prove nothing about it."""
    whole, half = (open_run(runs[resize]) for resize in (1.0, 0.5))
    assert (whole.config.data.resize, half.config.data.resize) == (1.0, 0.5)
    dataset = open_dataset(half.config.data)
    assert dataset.read_image(dataset.items("val")[1]).shape == (20, 12, 3)


def test_json_holds_the_figures_and_is_not_overwritten(runs: dict[float, Path], data: Path, tmp_path: Path) -> None:
    run = train_on(data, tmp_path / "run", 1.0)
    first = evaluate(run)
    path = run / "evaluation-val-last.json"
    text = path.read_text()
    values = json.loads(text)
    assert "NaN" not in text
    assert values["classes"] == NAMES
    assert values["scores"]["iou"] == [*first.scores.iou[:3], None]
    assert values["scores"]["miou"] == first.scores.miou
    assert values["scores"]["absent"] == 1
    evaluate(run, overrides=["threads=1", "device=cpu"])  # the same scores, as they were
    assert path.read_text() == text
    again = json.loads((run / "evaluation-val-last-2.json").read_text())
    assert (again["scores"], again["overrides"]) == (values["scores"], [])
    evaluate(run, split="train", checkpoint="best")
    assert json.loads((run / "evaluation-train-best.json").read_text())["step"] == 1


def test_an_evaluation_tells_its_overrides(runs: dict[float, Path], data: Path, tmp_path: Path) -> None:
    run = train_on(data, tmp_path / "run", 1.0)
    overrides = ["threads=1", "inference.window=[16, 24]", "inference.mode=slide"]
    slid = evaluate(run, overrides=overrides)
    assert slid.overrides == ["inference.mode=slide", "inference.window=[16, 24]"]
    path = run / "evaluation-val-last-inference.mode=slide-inference.window=_16_24_.json"
    assert json.loads(path.read_text())["overrides"] == slid.overrides
    assert not (run / "evaluation-val-last.json").exists(), "nothing that was changed passes for the run's own score"
    moved = data.rename(tmp_path / "moved")  # where the data set lies changes no score
    evaluate(run, overrides=[f"data.root={moved}"])
    moved.rename(data)
    tree = json.loads((run / "evaluation-val-last.json").read_text())
    assert (tree["overrides"], tree["root"]) == ([], str(moved))


def test_a_report_takes_the_runs_own_score(data: Path, tmp_path: Path) -> None:
    """A score with other options does not replace it, but stands beside it."""
    run = train_on(data, tmp_path / "run", 1.0)
    plain, slid = evaluate(run), evaluate(run, overrides=["inference.mode=slide", "inference.window=[8,8]"])
    assert plain.scores.miou != slid.scores.miou
    scores = read_run(run).scores
    assert scores["val"]["miou"] == plain.scores.miou
    assert scores["val (inference.mode=slide, inference.window=[8,8])"]["miou"] == slid.scores.miou


def test_a_split_of_which_nothing_can_be_scored_is_refused(runs: dict[float, Path], data: Path, tmp_path: Path) -> None:
    """A score of no image would be none."""
    shutil.copytree(data, tmp_path / "data")
    shutil.copytree(runs[1.0], tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("on_bad: stop", "on_bad: skip"))
    for path in (tmp_path / "data/images/val").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(
        DataError, match=rf"no image of val can be scored \(none of the {len(SIZES)} can be used\); mend"
    ):
        evaluate(tmp_path / "run", overrides=[f"data.root={tmp_path / 'data'}"])


def test_the_table_shows_names_as_they_are() -> None:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(
            Evaluation("runs/[a]", "val", "last", 7, 3, 0.1, ["[b]", "[/c]"], Scores([1, 1], 1, 1, 0)).table()
        )
    assert all(text in capture.get() for text in ("runs/[a]: val", "[b]", "[/c]"))


def test_the_table_shows_percent_and_absent_classes(runs: dict[float, Path]) -> None:
    scores = Scores([0.5, 0.25, 0.125, math.nan], 0.29166, 0.75, 1)
    console = Console(width=100)
    with console.capture() as capture:
        console.print(Evaluation("here", "val", "last", 7, 3, 0.1, NAMES, scores).table())
    lines = [line.replace("│", " ").split() for line in capture.get().splitlines()]
    assert ["ground", "50.00"] in lines
    assert ["never", "absent"] in lines
    assert ["mIoU", "29.17", "(3", "of", "4", "classes", "scored)"] in lines
    assert ["pixel", "accuracy", "75.00"] in lines


def test_nothing_labelled_is_null_in_json() -> None:
    scores = Scores([math.nan] * 4, math.nan, math.nan, 4)
    values = json.loads(Evaluation("here", "val", "last", 7, 3, 0.1, NAMES, scores).to_json())
    assert values["scores"] == {"iou": [None] * 4, "miou": None, "pixel_accuracy": None, "absent": 4}


def test_scoring_uses_eval_mode(runs: dict[float, Path]) -> None:
    model = Model.open(runs[1.0])
    dataset, segmenter = open_data(model.run), model.segmenter
    segmenter.train()
    before = {key: value.clone() for key, value in segmenter.state_dict().items()}
    score_items(model, dataset, dataset.items("val"))
    assert not segmenter.training
    assert all(torch.equal(value, before[key]) for key, value in segmenter.state_dict().items())


def test_a_model_needs_no_run_folder(runs: dict[float, Path]) -> None:
    """It is scored while it is trained, or before a run."""
    model = Model.open(runs[0.5])
    dataset = open_data(model.run)
    live = Model.live(model.segmenter, model.run.config, dataset)
    assert repr(score_items(live, dataset, dataset.items("val"))) == repr(evaluate(runs[0.5]).scores)


def test_what_evaluate_refuses(runs: dict[float, Path], data: Path, tmp_path: Path) -> None:
    run = runs[1.0]
    before = {path.name for path in run.iterdir()}
    with pytest.raises(UserError, match="has no split test; it has train, val"):
        evaluate(run, split="test")
    with pytest.raises(UserError, match="'first': choose last or best"):
        evaluate(run, checkpoint="first")
    with pytest.raises(UserError, match=r"is not a run folder \(no config\.yaml in it\)"):
        evaluate(data)
    with pytest.raises(UserError, match=r"data\.resize cannot be changed after training; .* inference\.\*"):
        evaluate(run, overrides=["data.resize=0.5"])
    with pytest.raises(UserError, match="does not exist"):
        evaluate(run, overrides=[f"data.root={tmp_path / 'none'}"])
    other = write_set(tmp_path / "other")
    (other / "classes.txt").write_text("ground\nthing\nsky\nelse\nmore\n")
    with pytest.raises(UserError, match=r"knows the classes ground, .*never, but the data set .*other has ground"):
        evaluate(run, overrides=[f"data.root={other}"])
    assert {path.name for path in run.iterdir()} == before


def test_train_is_scored_where_it_has_masks(folder_set: Callable[..., Path], tmp_path: Path) -> None:
    root = folder_set(train=6, bare=4, size=(40, 48))
    options = [f"data.root={root}", "data.labeled=1", "steps=1", "augment.crop=[32,32]", "cache=none", "batch_size=1"]
    train(load_config("folder", [*options, "threads=1", "device=cpu"]), tmp_path / "run")
    assert evaluate(tmp_path / "run", "train").images == 2
    for content in ("[" * 100_000, "[]", '{"score_notes": 3}'):  # notes that somebody damaged
        (tmp_path / "run/split/check.json").write_text(content)
        assert evaluate(tmp_path / "run", "train").notes == []
