"""Figures by hand, counts against plain loops, and small trained runs from end to end."""

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from latentseg.analysis import analyse, stats
from latentseg.analysis.findings import Analysis
from latentseg.analysis.stats import Counts
from latentseg.data.datasets import open_dataset
from latentseg.data.scenes import CLASSES as SCENES
from latentseg.errors import UserError
from latentseg.inference.evaluate import evaluate
from latentseg.inference.model import Model
from latentseg.presets import load_config
from latentseg.report import latent
from latentseg.report.heatmap import Block, Panel, heat_maps
from latentseg.runs import open_run
from latentseg.training import train

L = 4
CLASSES = ["background" if name == "sky" else name for name in SCENES]
GROUPS = {"flat": CLASSES[:4], "things": CLASSES[4:16], "wheels": CLASSES[16:]}
SMALL = [
    "steps=1",
    "batch_size=2",
    "threads=1",
    "device=cpu",
    "augment.crop=[32,32]",
    "data.scenes.train=4",
    "data.scenes.val=2",
    "data.scenes.test=1",
    "data.scenes.height=40",
    "data.scenes.width=56",
    "data.labeled=2",
    f"data.classes=[{','.join(CLASSES)}]",
    f"method.num_latent={L}",
]


def vary(folder: Path, seed: int) -> None:
    """Give a run of one step a checkpoint whose predictions vary, and an M with a class that it never saw."""
    run = open_run(folder)
    last = run.checkpoints.last()
    assert last is not None
    tensors = run.checkpoints.read(last)
    noise = torch.Generator().manual_seed(seed)
    for branch in ("semantic", "latent"):
        name = f"segmenter.{branch}_head.classify.weight"
        if name in tensors:
            tensors[name] = 4 * torch.randn(tensors[name].shape, generator=noise)
    tensors["segmenter.semantic_head.classify.bias"][CLASSES.index("background")] += 5
    if "method.cooccurrence" in tensors:
        tensors["method.cooccurrence"] = torch.rand(tensors["method.cooccurrence"].shape, generator=noise)
        tensors["method.cooccurrence"][3] = 0
    run.checkpoints.save(2, tensors)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One run per kind of latent branch."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "three.yaml").write_text(json.dumps(GROUPS))
    options = {
        "latent": [],
        "supervised": ["data.resize=0.5"],
        "given_classes": ["data.resize=0.5", f"method.groups={folder / 'three.yaml'}"],
        "symmetric": [],
    }
    for seed, (name, more) in enumerate(options.items()):
        train(load_config("scenes", [*SMALL, f"method.name={name}", *more]), folder / name)
        vary(folder / name, seed)
    return {name: folder / name for name in options}


@pytest.fixture(scope="module")
def analysis(runs: dict[str, Path]) -> Analysis:
    return analyse(runs["latent"], baseline=runs["supervised"])


@pytest.fixture(scope="module")
def written(runs: dict[str, Path], analysis: Analysis) -> dict[str, Any]:
    assert analysis.images
    return dict(json.loads((runs["latent"] / "analysis" / "analysis.json").read_text()))


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than the rest of a small analysis."""
    monkeypatch.setattr(latent, "draw", lambda _: Figure((1, 1)))


# figures from matrices

ROWS: stats.Rows = [[0.1, 0.9, 0.0], [0.95, 0.05, 0.0], None, [0.4, 0.3, 0.3], [0.02, 0.98, 0.0]]
NAMES = ["pole", "road", "ghost", "wall", "sign"]


def test_effective_counts_by_hand() -> None:
    assert stats.effective_counts(ROWS) == {"0.1": 3, "0.9": 2}
    assert stats.effective_counts([[0.9, 0.1], [0.9, 0.1]]) == {"0.1": 1, "0.9": 0}  # more than t, not t itself
    assert stats.effective_counts([None]) == {"0.1": 0, "0.9": 0}


def test_given_rows_leave_out_what_was_not_seen() -> None:
    assert stats.given_rows(torch.tensor([[1.0, 3.0], [0.0, 0.0]])) == [[0.25, 0.75], None]


def test_groups_in_words_surest_first_and_largest_first() -> None:
    groups = stats.find_groups(ROWS, NAMES, ["l0", "l1", "l2"])
    assert [group.text for group in groups] == ["l1: sign + pole", "l0: road + wall (0.40)"]
    assert [(group.latent, group.classes) for group in groups] == [(1, ["sign", "pole"]), (0, ["road", "wall"])]
    assert groups[1].shares == [0.95, 0.4]
    assert stats.find_groups([None], ["ghost"], ["l0"]) == []


def test_blocks_stand_along_the_diagonal() -> None:
    groups = stats.find_groups(ROWS, NAMES, ["l0", "l1", "l2"])
    assert stats.block_order(ROWS, groups, 3) == ([4, 0, 1, 3, 2], [1, 0, 2])
    assert stats.block_order([None, None], [], 3) == ([0, 1], [0, 1, 2])


def test_idle_and_only_ignored_by_hand() -> None:
    rows: stats.Rows = [[0.84, 0.05, 0.05, 0.04, 0.02], [0.2, 0.02, 0.02, 0.02, 0.74]]
    won = torch.tensor([[90_000, 0, 3, 500, 0], [9_000, 0, 0, 500, 0], [0, 2, 0, 19_000, 5_000]])
    # 1 and 2 win stray pixels, 4 serves the second class
    assert stats.idle_and_only_ignored(rows, won) == ([1, 2], [3])
    won[0, 3] = 5_000  # no more than nine tenths of what it wins is ignored: it is neither
    assert stats.idle_and_only_ignored(rows, won) == ([1, 2], [])
    rows[0] = [0.84, 0.11, 0.0, 0.03, 0.02]  # wins nowhere, but takes part
    assert stats.idle_and_only_ignored(rows, won)[0] == [2]


def test_information_by_hand() -> None:
    told = stats.information(torch.tensor([[3.0, 1.0], [0.0, 4.0]], dtype=torch.float64))
    before = math.log(2)
    after = 5 / 8 * (math.log(5) - 0.2 * math.log(1) - 0.8 * math.log(4))  # l1 holds 1 and 4, l0 one class
    assert told.class_entropy == pytest.approx(before, abs=1e-12)
    assert told.conditional_entropy == pytest.approx(after, abs=1e-12)
    assert told.mutual_information == pytest.approx(before - after, abs=1e-12)
    assert told.told_share == pytest.approx(1 - after / before, abs=1e-12)
    assert stats.information(torch.eye(3).double()).told_share == pytest.approx(1)
    assert stats.information(torch.ones(3, 3).double()).told_share == pytest.approx(0, abs=1e-12)
    assert math.isnan(stats.information(torch.ones(1, 3).double()).told_share)
    assert math.isnan(stats.information(torch.zeros(2, 3).double()).class_entropy)


def test_structure_by_hand() -> None:
    soft = torch.tensor([[95.0, 5.0], [1.0, 1.5], [0.0, 0.0], [1.0, 3.0]], dtype=torch.float64)
    won = torch.tensor([[100, 0], [1, 2], [0, 0], [0, 4]])
    found = stats.structure(soft, won, ["a", "b", "c"], ["x", "y"])
    assert found.latent_given_class == [[0.95, 0.05], [0.4, 0.6], None]
    assert found.ignored == [0.25, 0.75]
    assert found.dominant_share == 0.5
    assert (found.row_order, found.column_order) == ([0, 1, 2], [0, 1])
    soft[-1] = 0
    assert stats.structure(soft, won, ["a", "b", "c"], ["x", "y"]).ignored is None
    nothing = stats.structure(soft * 0, won * 0, ["a", "b", "c"], ["x", "y"])
    assert (math.isnan(nothing.dominant_share), nothing.idle, nothing.groups) == (True, [0, 1], [])


def test_mapped_scores_by_hand() -> None:
    counts = torch.tensor([[6, 2, 0], [1, 1, 0], [5, 0, 7]])
    result = stats.mapped_scores(counts, [0, 0, None])  # truth 0: ten pixels, seven of them right
    assert result.iou[:2] == [0.7, 0.0]
    assert math.isnan(result.iou[2])
    assert (result.miou, result.pixel_accuracy) == (0.35, 0.7)
    assert math.isnan(stats.mapped_scores(counts, [None] * 3).miou)


def test_background_by_hand() -> None:
    counts = torch.tensor([[3, 1, 0], [6, 2, 2], [0, 5, 5]])
    assert stats.confused_with_background(counts, 1, 0) == pytest.approx((3 / 14, 0.4))
    assert stats.confused_with_background(counts, 0, 0) == pytest.approx((6 / 20, 0.25))
    missed, invented = stats.confused_with_background(torch.tensor([[4, 0], [0, 0]]), 0, 0)
    assert (math.isnan(missed), invented) == (True, 0.0)


# counts of pixels


def probabilities(channels: int, seed: int, height: int = 5, width: int = 7) -> Tensor:
    noise = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(1, channels, height, width, generator=noise)).softmax(1)


def largest(values: list[float]) -> int:
    return values.index(max(values))


def loop(
    counts: dict[str, np.ndarray[Any, Any]], targets: list[list[int]], given: Tensor, maps: dict[str, Tensor]
) -> None:
    """The counts of one image, pixel by pixel."""
    classes, latents = given.shape
    for y, line in enumerate(targets):
        for x, target in enumerate(line):
            row = classes if target == 255 else target
            latent = maps["latent"][0, :, y, x].double().tolist()
            semantic = maps["semantic"][0, :, y, x].double().tolist()
            mapped = [sum(semantic[c] * float(given[c, k]) for c in range(classes)) for k in range(latents)]
            counts["soft"][row] += latent
            counts["won"][row, largest(latent)] += 1
            counts["mapped"][row, largest(mapped)] += 1
            counts["semantic"][row, largest(semantic)] += 1
            counts["baseline"][row, largest(maps["baseline"][0, :, y, x].tolist())] += 1


def empty(classes: int, latents: int) -> dict[str, np.ndarray[Any, Any]]:
    widths = {"soft": latents, "won": latents, "mapped": latents, "semantic": classes, "baseline": classes}
    return {name: np.zeros((classes + 1, width)) for name, width in widths.items()}


@pytest.mark.parametrize(("classes", "latents"), [(3, 2), (3, 5), (255, 4)])
def test_counts_equal_plain_loops(classes: int, latents: int) -> None:
    given = torch.rand(classes, latents, generator=torch.Generator().manual_seed(1))
    given /= given.sum(1, keepdim=True)
    counts, expected = Counts(classes, latents, given, baseline=True), empty(classes, latents)
    for seed in range(3):
        maps = {"semantic": probabilities(classes, seed), "latent": probabilities(latents, seed + 10)}
        maps["baseline"] = probabilities(classes, seed + 20)
        targets = torch.randint(0, classes, (5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
        targets[seed] = 255
        counts.add(maps["semantic"], maps["latent"], targets, maps["baseline"])
        loop(expected, targets.tolist(), given, maps)
    assert counts.images == 3
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(counts, name).numpy(), value, rtol=1e-6, atol=1e-6, err_msg=name)
        assert value[-1].sum() == pytest.approx(21)


def test_ignored_pixels_change_the_last_row_alone() -> None:
    targets = torch.zeros(5, 7, dtype=torch.uint8)
    targets[2:] = 255
    semantic, latent = probabilities(3, 0), probabilities(4, 1)
    results = []
    for change in (False, True):
        if change:
            semantic[..., 2:, :], latent[..., 2:, :] = probabilities(3, 7)[..., 2:, :], probabilities(4, 8)[..., 2:, :]
        counts = Counts(3, 4, torch.full((3, 4), 0.25), baseline=True)
        counts.add(semantic, latent, targets, semantic)
        results.append(counts)
    for name in ("soft", "won", "semantic", "baseline"):
        before, after = (getattr(counts, name) for counts in results)
        assert torch.equal(before[:-1], after[:-1]), name
        assert not torch.equal(before[-1], after[-1]), name


# runs


def test_a_run_equals_plain_loops(runs: dict[str, Path], analysis: Analysis, written: dict[str, Any]) -> None:
    model, baseline = Model.open(runs["latent"]), Model.open(runs["supervised"])
    ours, other = model.run, baseline.run
    last = ours.checkpoints.last()
    assert last is not None
    matrix = ours.checkpoints.read(last)["method.cooccurrence"].double()
    given = torch.where(matrix.sum(1, keepdim=True) > 0, matrix / matrix.sum(1, keepdim=True), 1 / L)
    dataset, smaller = open_dataset(ours.config.data), open_dataset(other.config.data)
    expected = empty(len(CLASSES), L)
    for item in dataset.items("val"):
        size = (40, 56)
        probs, half = model.probs(dataset.read_image(item)), baseline.probs(smaller.read_image(item), size)
        assert smaller.read_image(item).shape == (20, 28, 3)
        assert probs.latent is not None
        maps = {"semantic": probs.semantic, "latent": probs.latent, "baseline": half.semantic}
        loop(expected, dataset.read_targets(item, resized=False).tolist(), given, maps)

    soft, won = expected["soft"], expected["won"]
    seen = soft.sum(1) > 0
    assert 3 < seen[:-1].sum() < len(CLASSES)  # some classes are absent
    for name in ("won", "mapped", "semantic", "baseline"):
        assert (expected[name].sum(0) > 20).sum() > 2, name  # the predictions vary
    assert len(written["latent_given_class"]) == len(CLASSES)
    for number, row in enumerate([*written["latent_given_class"], written["ignored"]]):
        assert (row is not None) == seen[number]
        if row is not None:
            assert row == pytest.approx((soft[number] / soft[number].sum()).tolist(), abs=1e-5)
    joint = soft[:-1] / soft[:-1].sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        told = np.nansum(joint * np.log(joint / joint.sum(0) / joint.sum(1, keepdims=True)))
    assert written["mutual_information"] == pytest.approx(told, abs=1e-5)

    stands_for = [int(row.argmax()) for row in given]
    assert written["mapping"] == [None if c == 3 else k for c, k in enumerate(stands_for)]
    for name, table in (("latent", won), ("mapped", expected["mapped"])):
        known = [c for c in range(len(CLASSES)) if c != 3]
        right = sum(table[c, stands_for[c]] for c in known)
        assert written[f"{name}_pixel_accuracy"] == pytest.approx(right / table[known].sum(), abs=1e-3), name
        ious = []
        for k in range(L):
            mine = [c for c in known if stands_for[c] == k]
            union = table[mine].sum() + table[known][:, k].sum() - table[mine, k].sum()
            ious += [table[mine, k].sum() / union] if union else []
        assert written[f"{name}_miou"] == pytest.approx(np.mean(ious), abs=1e-3), name

    here, beside = CLASSES.index("background"), written["baseline"]
    front = [c for c in range(len(CLASSES)) if c != here]
    called = {"baseline": here, "semantic": here, "won": int(soft[here].argmax())}
    missed = [expected[name][front, k].sum() / expected[name][front].sum() for name, k in called.items()]
    invented = [1 - expected[name][here, k] / expected[name][here].sum() for name, k in called.items()]
    for key, shares in (("foreground_called_background", missed), ("background_called_foreground", invented)):
        assert [beside[key][name] for name in ("baseline", "ours", "latent")] == pytest.approx(shares, abs=1e-3)
    assert any("method.name: latent here, supervised there" in line for line in beside["differences"])
    assert analysis.to_dict() == written


def test_scores_are_those_of_evaluate(runs: dict[str, Path], written: dict[str, Any]) -> None:
    ours, theirs = evaluate(runs["latent"]).scores, evaluate(runs["supervised"]).scores
    assert written["semantic_miou"] == pytest.approx(ours.miou, abs=1e-12)
    assert written["semantic_pixel_accuracy"] == pytest.approx(ours.pixel_accuracy, abs=1e-12)
    assert written["semantic_iou"] == written["baseline"]["ours"] == [None if math.isnan(x) else x for x in ours.iou]
    assert written["baseline"]["iou"] == [None if math.isnan(x) else x for x in theirs.iou]
    assert written["baseline"]["miou"] == pytest.approx(theirs.miou, abs=1e-12)
    assert ours.miou != theirs.miou


def test_the_files(runs: dict[str, Path], analysis: Analysis, written: dict[str, Any]) -> None:
    folder = runs["latent"] / "analysis"
    assert {path.name for path in folder.iterdir()} == {
        "analysis.json",
        "latent_given_class.csv",
        "latent_given_class.png",
        "latent_given_class_M.csv",
        "summary.txt",
    }
    assert (folder / "summary.txt").read_text() == analysis.text() + "\n"
    columns = written["column_order"]
    for name, key, last in (("", "latent_given_class", [written["ignored"]]), ("_M", "latent_given_class_m", [])):
        head, *lines = csv.reader((folder / f"latent_given_class{name}.csv").read_text().splitlines())
        assert head == ["class", *(f"l{column}" for column in columns)]
        names = [CLASSES[number] for number in written["row_order"]]
        assert [line[0] for line in lines] == [*names, *["(ignored)"] * len(last)]
        matrix = [*(written[key][number] for number in written["row_order"]), *last]
        for line, row in zip(lines, matrix, strict=True):
            values = [""] * L if row is None else [f"{row[column]:.6f}" for column in columns]
            assert line[1:] == values
    assert sorted(columns) == list(range(L))
    assert sorted(written["row_order"]) == list(range(len(CLASSES)))
    with Image.open(folder / "latent_given_class.png") as picture:
        assert picture.width > 600
        assert picture.height > 600


def test_the_words(analysis: Analysis) -> None:
    text = analysis.text()
    for group in analysis.structure.groups:
        assert group.text in text
    assert "(from M: " in text
    held = dict(zip(analysis.classes, analysis.structure.latent_given_class, strict=True))
    assert analysis.spread == [name for name in analysis.classes if (row := held[name]) and max(row) < 0.5]
    assert bool(analysis.spread) == ("over several latent classes, of which one counts here" in text)
    assert "M never saw, left out: wall" in text
    assert "foreground called background: baseline " in text
    assert "also differs in data.resize: 1.0 here, 0.5 there" in text
    assert "method.name" not in text
    absent = [name for name, row in zip(CLASSES, analysis.structure.latent_given_class, strict=True) if row is None]
    assert f"not in val: {', '.join(absent)}" in text
    assert " nan" not in text


@pytest.mark.usefixtures("no_picture")
def test_other_splits_and_checkpoints_have_their_own_folder(runs: dict[str, Path], tmp_path: Path) -> None:
    run = shutil.copytree(runs["latent"], tmp_path / "run")
    before = (run / "analysis" / "analysis.json").read_bytes() if (run / "analysis").exists() else None
    test = analyse(run, split="test", checkpoint="best", overrides=["inference.mirror=true"])
    assert (test.images, test.step, test.baseline) == (1, 1, None)
    values = json.loads((run / "analysis-test-best" / "analysis.json").read_text())
    assert (values["split"], values["checkpoint"], values["baseline"]) == ("test", "best", None)
    if before is not None:
        assert (run / "analysis" / "analysis.json").read_bytes() == before


@pytest.mark.usefixtures("no_picture")
def test_given_groups_have_their_names(runs: dict[str, Path]) -> None:
    result = analyse(runs["given_classes"])
    assert result.latent_names == list(GROUPS)
    assert result.ease.semantic_miou == pytest.approx(evaluate(runs["given_classes"]).scores.miou)  # original size
    assert result.mapping == [0] * 4 + [1] * 12 + [2] * 3
    assert result.latent_given_class_m is not None
    assert result.latent_given_class_m[3] is None
    assert all(group.text.startswith(tuple(GROUPS)) for group in result.structure.groups)


@pytest.mark.usefixtures("no_picture")
def test_symmetric_branches_stand_for_the_classes(runs: dict[str, Path]) -> None:
    result = analyse(runs["symmetric"])
    assert result.latent_names == CLASSES
    assert result.mapping == list(range(len(CLASSES)))
    assert (result.latent_given_class_m, result.effective_m) == (None, None)
    assert result.ease.mapped_miou == pytest.approx(result.ease.semantic_miou, abs=1e-12)
    assert result.ease.latent_miou != result.ease.semantic_miou
    assert not (runs["symmetric"] / "analysis" / "latent_given_class_M.csv").exists()
    assert "from M" not in result.text()


def test_what_analyse_refuses(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no latent branch \(method\.name=supervised\).* --baseline"):
        analyse(runs["supervised"])
    with pytest.raises(UserError, match="has no split holdout; it has train, val, test"):
        analyse(runs["latent"], split="holdout")
    with pytest.raises(UserError, match="'first': choose last or best"):
        analyse(runs["latent"], checkpoint="first")
    with pytest.raises(UserError, match="is not a run folder"):
        analyse(runs["latent"], baseline=tmp_path)
    other = shutil.copytree(runs["supervised"], tmp_path / "other")
    names = json.loads((other / "classes.json").read_text())
    names[0]["name"] = "ocean"
    (other / "classes.json").write_text(json.dumps(names))
    with pytest.raises(UserError, match=r"other knows the classes ocean, .* but the data set scenes has road"):
        analyse(runs["latent"], baseline=other)
    renamed = shutil.copytree(runs["latent"], tmp_path / "renamed")
    shutil.copy(other / "classes.json", renamed)
    with pytest.raises(UserError, match=r"knows the classes ocean, .* but the data set scenes has road"):
        analyse(renamed)
    blocked = shutil.copytree(runs["latent"], tmp_path / "blocked", ignore=shutil.ignore_patterns("analysis*"))
    (blocked / "analysis").write_text("mine")
    with pytest.raises(UserError, match=r"cannot create .*analysis: File exists"):
        analyse(blocked)
    without = shutil.copytree(runs["latent"], tmp_path / "without")
    run = open_run(without)
    last = run.checkpoints.last()
    assert last is not None
    tensors = run.checkpoints.read(last)
    del tensors["method.cooccurrence"]
    run.checkpoints.save(9, tensors)
    with pytest.raises(UserError, match="holds no M"):
        analyse(without)


@pytest.mark.usefixtures("no_picture")
def test_without_a_background_it_says_so(runs: dict[str, Path], tmp_path: Path) -> None:
    copies = []
    for name in ("latent", "supervised"):
        folder = shutil.copytree(runs[name], tmp_path / name)
        for file in ("config.yaml", "classes.json"):
            text = (folder / file).read_text()
            assert "background" in text
            (folder / file).write_text(text.replace("background", "sky"))
        copies.append(folder)
    result = analyse(copies[0], baseline=copies[1])
    assert result.baseline is not None
    assert result.baseline.foreground_called_background is None
    assert "no class is called background" in result.text()


@pytest.mark.usefixtures("no_picture")
def test_the_mean_is_over_the_classes_that_the_run_names(runs: dict[str, Path]) -> None:
    result = analyse(runs["symmetric"], split="train", overrides=["inference.miou_over=hit"])
    hit = [iou for iou in result.semantic_iou if iou > 0]
    assert result.ease.semantic_miou == pytest.approx(sum(hit) / len(hit))
    assert 0.0 in result.semantic_iou


# pictures


def test_heat_maps_take_any_name_and_shape(tmp_path: Path) -> None:
    values = np.array([[0.97, 0.03], [math.nan] * 2, [0.2, 0.8]])
    names = [r"a $\frac$ {", "n" * 60, "two\nlines"]
    figure = heat_maps("$", [Panel("%$^", values)] * 2, names, [r"$\frac$", "l1"], [Block(0, 0, 0)], rule=2, faint=[1])
    figure.savefig(tmp_path / "a.png", dpi=40)
    left, right, _ = figure.axes  # the third is the scale
    shown = [text.get_text() for text in left.get_yticklabels()]
    assert shown == [r"a $\frac$ {", "n" * 23 + "…", "two lines"]
    assert sorted(text.get_text() for text in left.texts) == [".20", ".80", ".97"]
    assert left.get_position().y0 == pytest.approx(right.get_position().y0)  # side by side
    wide = heat_maps("", [Panel("", np.eye(50)[:3])] * 2, names, [f"l{i}" for i in range(50)])
    wide.savefig(tmp_path / "b.png", dpi=40)
    top, bottom, _ = wide.axes
    assert top.get_position().y0 > bottom.get_position().y1  # one below the other
    assert not top.texts  # too many for figures
