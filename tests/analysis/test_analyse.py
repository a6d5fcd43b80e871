"""Small trained runs from end to end."""

import csv
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from latentseg.analysis import analyse, heatmap
from latentseg.analysis.files import analysis_folder, read_analysis
from latentseg.analysis.findings import Analysis
from latentseg.analysis.heatmap import heat_maps
from latentseg.analysis.stats import Counts
from latentseg.data.datasets import open_dataset
from latentseg.errors import UserError
from latentseg.inference.evaluate import evaluate
from latentseg.inference.model import Model
from latentseg.presets import load_config
from latentseg.runs.folder import open_run
from latentseg.scenes.draw import CLASSES as SCENES
from latentseg.training.loop import train

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
        "latent": [f"method.num_latent={L}"],
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
    monkeypatch.setattr(heatmap, "draw", lambda _: Figure((1, 1)))


def test_a_run_is_counted_at_its_original_size(
    runs: dict[str, Path], analysis: Analysis, written: dict[str, Any]
) -> None:
    """Image by image with `Counts`, which `test_stats` holds against plain loops."""
    model, baseline = Model.open(runs["latent"]), Model.open(runs["supervised"])
    ours, other = model.run, baseline.run
    last = ours.checkpoints.last()
    assert last is not None
    matrix = ours.checkpoints.read(last)["method.cooccurrence"]
    dataset, smaller = open_dataset(ours.config.data), open_dataset(other.config.data)
    expected = Counts(matrix)
    for item in dataset.items("val"):
        probs = model.probs(dataset.read_image(item))
        half = baseline.probs(smaller.read_image(item), (40, 56))
        assert smaller.read_image(item).shape == (20, 28, 3)
        assert probs.latent is not None
        targets = torch.from_numpy(dataset.read_targets(item, resized=False))[None]
        expected.add(probs.semantic, probs.latent, targets, half.semantic)

    sums, pixels = expected.sums["latent"], expected.pixels
    seen = sums.sum(1) > 0
    assert 3 < seen[:-1].sum() < len(CLASSES)  # some classes are absent
    for name, table in pixels.items():
        assert name == "mapped_class" or (table.sum(0) > 20).sum() > 2, name  # the predictions vary
    assert len(written["structure"]["latent_given_class"]) == len(CLASSES)
    for number, row in enumerate([*written["structure"]["latent_given_class"], written["structure"]["ignored"]]):
        assert (row is not None) == seen[number]
        if row is not None:
            assert row == pytest.approx((sums[number] / sums[number].sum()).tolist(), abs=1e-5)
    mapping = [None if c == 3 else int(row.argmax()) for c, row in enumerate(matrix)]
    assert written["mapping"] == mapping
    for name, figure in expected.figures(mapping).items():
        assert written["figures"][name] == pytest.approx(figure, abs=1e-3), name

    here, beside = CLASSES.index("background"), written["baseline"]
    front = [c for c in range(len(CLASSES)) if c != here]
    called = {"baseline": here, "semantic": here, "latent": int(sums[here].argmax())}
    missed = [float(pixels[name][front, k].sum() / pixels[name][front].sum()) for name, k in called.items()]
    invented = [float(1 - pixels[name][here, k] / pixels[name][here].sum()) for name, k in called.items()]
    for key, shares in (("foreground_called_background", missed), ("background_called_foreground", invented)):
        assert [beside[key][name] for name in ("baseline", "ours", "latent")] == pytest.approx(shares, abs=1e-3)
    assert any("method.name: latent here, supervised there" in line for line in beside["differences"])
    assert analysis.to_dict() == written


def test_an_analysis_is_read_back(runs: dict[str, Path], analysis: Analysis, tmp_path: Path) -> None:
    found = read_analysis(analysis_folder(runs["latent"], "val"))
    assert found is not None
    assert found.to_dict() == analysis.to_dict()
    assert found.text() == analysis.text()
    assert any(map(math.isnan, found.semantic_iou)), "null is not a number again"
    assert read_analysis(tmp_path) is None
    for content in ("{", "[]", "3", '{"split": "val"}', json.dumps(analysis.to_dict() | {"step": "x"})):
        (tmp_path / "analysis.json").write_text(content)
        with pytest.raises(UserError, match=r"analysis\.json is damaged or of another version .* latentseg analyse "):
            read_analysis(tmp_path)


def test_scores_are_those_of_evaluate(runs: dict[str, Path], written: dict[str, Any]) -> None:
    ours, theirs = evaluate(runs["latent"]).scores, evaluate(runs["supervised"]).scores
    assert written["figures"]["semantic_miou"] == pytest.approx(ours.miou, abs=1e-12)
    assert written["figures"]["semantic_pixel_accuracy"] == pytest.approx(ours.pixel_accuracy, abs=1e-12)
    assert written["semantic_iou"] == [None if math.isnan(x) else x for x in ours.iou]
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
    found = written | written["structure"]
    columns = found["column_order"]
    for name, key, last in (("", "latent_given_class", [found["ignored"]]), ("_M", "latent_given_class_m", [])):
        head, *lines = csv.reader((folder / f"latent_given_class{name}.csv").read_text().splitlines())
        assert head == ["class", *(f"l{column}" for column in columns)]
        names = [CLASSES[number] for number in found["row_order"]]
        assert [line[0] for line in lines] == [*names, *["(ignored)"] * len(last)]
        matrix = [*(found[key][number] for number in found["row_order"]), *last]
        for line, row in zip(lines, matrix, strict=True):
            values = [""] * L if row is None else [f"{row[column]:.6f}" for column in columns]
            assert line[1:] == values
    assert sorted(columns) == list(range(L))
    assert sorted(found["row_order"]) == list(range(len(CLASSES)))
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
    assert bool(analysis.spread) == ("Over several latent classes, of which one counts in the groups" in text)
    assert "M never saw, left out of the groups: wall." in text
    assert "Foreground that is called background: baseline " in text
    assert "The baseline differs in data.resize: 1.0 here, 0.5 there." in text
    assert "method.name" not in text
    absent = [name for name, row in zip(CLASSES, analysis.structure.latent_given_class, strict=True) if row is None]
    assert f"Not in val: {', '.join(absent)}." in text
    assert not re.search(r"\bnan\b", text)


def test_the_verdict_has_three_measures(analysis: Analysis) -> None:
    told = {"latent_miou": 0.5, "mapped_miou": 0.75, "latent_class_miou": 0.375, "mapped_class_miou": 0.25}
    told |= {"latent_information": 1.5, "mapped_information": math.nan}
    changed = replace(analysis, figures=analysis.figures | told)
    assert (
        "The latent branch against the semantic branch mapped by Eq. 7: not ahead in groups (50.0 to 75.0 % mIoU), "
        "ahead in classes told from the map (37.5 to 25.0 % mIoU), not comparable in I(C;L) (1.500 to - nats)."
    ) in changed.facts()
    shown = {row[0]: row[1:] for row in changed.comparison()}
    assert shown["classes told from the map: mIoU in %"][1:] == ["25.0", "37.5"]
    assert shown["I(C;L) in nats"] == ["-", "-", "1.500"]


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
    assert result.figures["semantic_miou"] == pytest.approx(
        evaluate(runs["given_classes"]).scores.miou
    )  # original size
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
    assert result.figures["mapped_miou"] == pytest.approx(result.figures["semantic_miou"], abs=1e-12)
    assert result.figures["mapped_class_miou"] == pytest.approx(result.figures["semantic_miou"], abs=1e-12)
    assert result.figures["latent_miou"] == result.figures["latent_class_miou"] != result.figures["semantic_miou"]
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
            text = text.replace("background", "sky").replace("uncovered: sky", "uncovered: background")
            (folder / file).write_text(text)
        copies.append(folder)
    result = analyse(copies[0], baseline=copies[1])
    assert result.baseline is not None
    assert result.baseline.foreground_called_background is None
    assert "No class is called background" in result.text()


@pytest.mark.usefixtures("no_picture")
def test_the_mean_is_over_the_classes_that_the_run_names(runs: dict[str, Path]) -> None:
    result = analyse(runs["symmetric"], split="train", overrides=["inference.miou_over=hit"])
    hit = [iou for iou in result.semantic_iou if iou > 0]
    assert result.figures["semantic_miou"] == pytest.approx(sum(hit) / len(hit))
    assert 0.0 in result.semantic_iou


def test_heat_maps_take_any_name_and_shape(tmp_path: Path) -> None:
    values = np.array([[0.97, 0.03], [math.nan] * 2, [0.2, 0.8]])
    names = [r"a $\frac$ {", "n" * 60, "two\nlines"]
    figure = heat_maps({"%$^": values, "$": values}, names, [r"$\frac$", "l1"], {0: (0, 0)}, faint=[1])
    figure.savefig(tmp_path / "a.png", dpi=40)
    left, right, _ = figure.axes  # the third is the scale
    shown = [text.get_text() for text in left.get_yticklabels()]
    assert shown == [r"a $\frac$ {", "n" * 23 + "…", "two lines"]
    assert sorted(text.get_text() for text in left.texts) == [".20", ".80", ".97"]
    assert left.get_position().y0 == pytest.approx(right.get_position().y0)  # side by side
    many = np.eye(50)[:3]
    wide = heat_maps({"": many, "M": many}, names, [f"l{i}" for i in range(50)], {})
    wide.savefig(tmp_path / "b.png", dpi=40)
    top, bottom, _ = wide.axes
    assert top.get_position().y0 > bottom.get_position().y1  # one below the other
    assert not top.texts  # too many for figures
