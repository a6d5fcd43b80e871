import builtins
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from latentseg.errors import UserError
from latentseg.report.collect import read_run
from latentseg.report.page import MARK, write_report
from latentseg.runs.checkpoints import Checkpoints

Make = Callable[..., Path]
ONE_PIXEL = b"\x89PNG\r\n\x1a\n"
HOSTILE = '<script>alert("x")</script>'


class Parsed(HTMLParser):
    """Tags of a page, what they refer to, and the words outside of them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]

    def handle_data(self, data: str) -> None:
        self.words += data


def report(paths: list[Path], tmp_path: Path) -> str:
    return write_report(paths, tmp_path / "out" / "report.html").read_text()


def write_analysis(folder: Path, classes: list[str] | None = None, **structure: Any) -> None:
    figures = dict.fromkeys(("semantic_miou", "semantic_pixel_accuracy", "class_entropy"), 0.5)
    for branch, figure in (("latent", 0.7), ("mapped", 0.6)):
        for name in ("miou", "pixel_accuracy", "class_miou", "class_pixel_accuracy"):
            figures[f"{branch}_{name}"] = figure
        for name in ("information", "information_share", "conditional_entropy", "argmax_information"):
            figures[f"{branch}_{name}"] = figure / 2
    found = {
        "latent_given_class": [[0.95, 0.05], [0.55, 0.45], [0.99, 0.01]],
        "ignored": None,
        "row_order": [0, 2, 1],
        "column_order": [0, 1],
        "effective": {"0.1": 2, "0.9": 1},
        "idle": [1],
        "only_ignored": [],
        "dominated": 2,
        "groups": [
            {"latent": 0, "classes": ["ground", "sky"], "shares": [1, 1], "text": "l0: ground + sky"},
            {"latent": 1, "classes": ["thing"], "shares": [1], "text": "l1: thing"},
        ],
    }
    tree = {
        "run": "runs/ours",
        "split": "val",
        "checkpoint": "last",
        "step": 30,
        "images": 2,
        "classes": classes or ["ground", "thing", "sky"],
        "latent_names": ["l0", "l1"],
        "mapping": [0, 1, 0],
        "structure": found | structure,
        "latent_given_class_m": None,
        "effective_m": None,
        "figures": figures,
        "semantic_iou": [0.625, None, 0.3],
        "baseline": {
            "run": "runs/base",
            "step": 30,
            "miou": 0.45,
            "iou": [0.5, None, 0.4],
            "differences": [],
            "foreground_called_background": {"baseline": 0.3, "ours": 0.2, "latent": 0.1},
            "background_called_foreground": {"baseline": 0.3, "ours": 0.2, "latent": 0.1},
        },
    }
    (folder / "analysis").mkdir()
    (folder / "analysis" / "analysis.json").write_text(json.dumps(tree))
    (folder / "analysis" / "latent_given_class.png").write_bytes(ONE_PIXEL)


def test_a_sweep_of_table_3(make_sweep: Make, tmp_path: Path) -> None:
    scores = {"supervised": {None: [0.40, 0.42]}, "proposed": {None: [0.44, "open"]}}
    root = make_sweep(scores, table=3, name="table3_here", methods={"proposed": "latent"})
    write_analysis(root / "1-0-0")
    page = report([root], tmp_path)
    words = Parsed(page).words
    assert "table3_here (Table 3: Impact of the loss terms)" in words
    assert "41.00 ± 1.41" in words
    assert "1 of 2 seeds" in words
    assert "71.3" in words
    assert "3 of 4 cells done." in words
    assert "proposed, seed 1: not begun" in words
    assert "one seed" not in words
    assert "l0: ground + sky" in words
    assert "with a latent class of their own: l1: thing" in words
    assert "Idle latent classes: l1." in words
    assert "ahead in groups (70.0 to 60.0 % mIoU)" in words
    assert "I(C;L) in nats - 0.300 0.350" in re.sub(r"\s+", " ", words)
    assert "baseline 30.0 %, semantic branch 20.0 %, latent branch 10.0 %" in words
    assert "+12.5" in words
    assert "Pictures are missing" in words, "there is no checkpoint"
    assert "data:image/png;base64," in page
    assert 'alt="ce over the steps"' in page


def test_the_same_run_is_analysed_once_on_the_page(make_sweep: Make, tmp_path: Path) -> None:
    scores = {"proposed": {None: [0.44]}}
    make_sweep(scores, name="a", methods={"proposed": "latent"})
    root = make_sweep(scores, name="b", methods={"proposed": "latent"})
    write_analysis(root / "0-0-0")
    page = report([root], tmp_path)
    assert page.count("data:image/png;base64,") == 1
    assert "The same run as in a." in page


def test_an_analysis_of_an_earlier_step_is_left_out(make_run: Make, make_sweep: Make, tmp_path: Path) -> None:
    run = make_run("ours", method={"name": "latent"})
    write_analysis(run, effective={"0.1": 7777, "0.9": 8888})
    assert "7777" in report([run], tmp_path)
    root = make_sweep({"proposed": {20: [0.44]}}, column_key="method.num_latent", methods={"proposed": "latent"})
    write_analysis(root / "0-0-0", effective={"0.1": 7777, "0.9": 8888})
    for folder in (run, root / "0-0-0"):  # trained further since
        Checkpoints(folder / "checkpoints").save(60, {})
        words = Parsed(report([run if folder == run else root], tmp_path)).words
        assert "7777" not in words
        assert "the analysis is of step 30, the run's last checkpoint of step 60" in words
        assert f"latentseg analyse {folder} --split val --baseline runs/base" in words


def test_terms_that_did_nothing_are_named(make_run: Make, make_sweep: Make, tmp_path: Path) -> None:
    run, root = make_run("ours", 0.5), make_sweep({"supervised": {None: [0.4]}})
    for folder in (run, root / "0-0-0"):
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": 30, "finding": f"nothing {HOSTILE}"}) + "\n")
        page = report([run if folder == run else root], tmp_path)
        assert f"{folder.name}, step 30: nothing {HOSTILE}." in Parsed(page).words
        assert HOSTILE not in page


def test_a_score_of_an_earlier_step_says_so(make_run: Make, tmp_path: Path) -> None:
    run = make_run("ours", 0.5)
    assert "step 30" not in Parsed(report([run], tmp_path)).words
    Checkpoints(run / "checkpoints").save(60, {})
    (run / "checkpoints" / "index.json").write_text('{"steps": [{"step": 90}], "best": null}')  # is not asked
    assert "50.00step 30" in Parsed(report([run], tmp_path)).words


@pytest.mark.parametrize("content", ["{", "[]", '{"split": "val", "step": 30}'])
def test_an_analysis_that_cannot_be_read_is_named(make_run: Make, tmp_path: Path, content: str) -> None:
    run = make_run("ours", method={"name": "latent"})
    write_analysis(run)
    (run / "analysis" / "analysis.json").write_text(content)
    words = Parsed(report([run], tmp_path)).words
    assert "analysis.json is damaged or of another version" in words
    assert f"make it anew: latentseg analyse {run}" in words


def test_table_4_counts_effective_latent_classes(make_sweep: Make, tmp_path: Path) -> None:
    scores = {"proposed": {2: [0.4], 20: [0.5]}}
    root = make_sweep(scores, table=4, column_key="method.num_latent", methods={"proposed": "latent"})
    write_analysis(root / "0-0-0", effective={"0.1": 7777, "0.9": 8888})
    words = Parsed(report([root], tmp_path)).words
    assert "7777" in words
    assert "8888" in words
    assert "proposed, method.num_latent 20, seed 0\nMissing: " in words, "its analysis cannot be made"
    assert "All cells have one seed: no spread can be given" in words
    assert "±" not in words


def test_figures_4_and_5(make_sweep: Make, tmp_path: Path) -> None:
    scores = {"proposed": {"1/8": [0.4, 0.5], "all": [0.5, 0.6]}, "$\\bad{$": {"1/8": [0.4], "all": ["open"]}}
    page = report([make_sweep(scores, table=1, column_key="data.labeled")], tmp_path)
    assert "mIoU over the labelled fraction, val" in page
    assert 'alt="curves of the table above"' in page


def test_runs_by_themselves(make_run: Make, tmp_path: Path) -> None:
    runs = [make_run("base", 0.5), make_run("ours", 0.625, method={"name": "latent"})]
    best = json.loads((runs[1] / "evaluation-val-last.json").read_text())
    best |= {"checkpoint": "best"}
    best["scores"]["miou"] = 0.6875
    (runs[1] / "evaluation-val-best.json").write_text(json.dumps(best))
    (runs[1] / "evaluation-test-last.json").write_text("{")
    words = Parsed(report(runs, tmp_path)).words
    assert "62.50" in words
    assert "68.75" in words
    assert "val (best checkpoint): mIoU in %" in words
    assert "no spread can be given" in words
    assert "method.name" in words
    assert "2 runs, 15 s of training" in words
    assert "Missing:" in words, "no analysis can be made without a checkpoint"


def test_a_newer_evaluation_replaces_an_older_one(make_run: Make, tmp_path: Path) -> None:
    run = make_run("run", 0.5)
    later = json.loads((run / "evaluation-val-last.json").read_text()) | {"step": 60}
    later["scores"]["miou"] = 0.875
    (run / "evaluation-val-last-2.json").write_text(json.dumps(later))
    page = report([run], tmp_path)
    assert "87.50" in page
    assert "50.00" not in page


def test_the_page_refers_to_nothing_outside(make_sweep: Make, tmp_path: Path) -> None:
    scores = {"supervised": {"1/8": [0.40], "all": [0.5]}, "proposed": {"1/8": [0.44], "all": [0.5]}}
    root = make_sweep(scores, table=1, column_key="data.labeled", methods={"proposed": "latent"})
    write_analysis(root / "1-0-0")
    page = report([root], tmp_path)
    parsed = Parsed(page)
    assert parsed.references
    assert all(reference.startswith(("data:", "#")) for reference in parsed.references)
    assert {"script", "link", "iframe", "object"} & set(parsed.tags) == set()
    assert re.search(r"url\(|@import|https?:", page) is None
    targets = {reference[1:] for reference in parsed.references if reference.startswith("#")}
    assert targets == {name for name in re.findall(r'id="([^"]+)"', page) if name in targets}


def test_names_are_escaped(make_sweep: Make, tmp_path: Path) -> None:
    scores = {HOSTILE: {None: [0.4, "failed", 0.5]}, "supervised": {None: [0.3, 0.3, 0.3]}}
    root = make_sweep(scores, table=5, classes=[HOSTILE, "b", "c"], methods={HOSTILE: "latent"})
    (root / "0-0-1" / "FAILED").write_text(HOSTILE)
    tree = json.loads((root / "sweeps" / "sweep.json").read_text())
    tree |= {"name": HOSTILE, "summary": HOSTILE, "base": HOSTILE, "options": {HOSTILE: HOSTILE}}
    (root / "sweeps" / "sweep.json").write_text(json.dumps(tree))
    (root / "0-0-0" / "environment.json").write_text(json.dumps({HOSTILE: HOSTILE}))
    group = {"latent": 0, "classes": [HOSTILE, "b"], "shares": [1, 1], "text": HOSTILE}
    write_analysis(root / "0-0-0", groups=[group], classes=[HOSTILE, "b", "c"])
    (root / "0-0-0" / "metrics.jsonl").write_text("".join(json.dumps({"step": s, HOSTILE: 1.0}) + "\n" for s in (1, 2)))
    hostile = tmp_path / '"><script>.d'
    hostile.mkdir()
    root = root.rename(hostile / "root")
    page = report([root], tmp_path)
    assert "script" not in Parsed(page).tags
    assert "<script" not in page.lower()
    assert page.count("&lt;script&gt;") > 8


def test_what_cannot_be_read_is_shown(make_sweep: Make, tmp_path: Path) -> None:
    root = make_sweep({"a": {None: [0.4, "unreadable", "running"]}})
    (root / "sweeps" / "broken.json").write_text("{}")
    (root / "0-0-2" / "metrics.jsonl").write_bytes(b"\xff\xfe")
    (root / "0-0-2" / "config.yaml").write_text("steps: [")
    words = Parsed(report([root], tmp_path)).words
    assert "broken.json is not the description of a sweep (KeyError: 'rows')" in words
    assert "a, seed 1: unreadable (DONE cannot be read" in words
    assert "1 of 3 seeds" in words


@pytest.mark.parametrize("content", ["[]", "3", '{"scores": 3}', '{"scores": {"val": 3}}', "\\", ""])
def test_a_damaged_done_file_counts_as_missing(make_sweep: Make, tmp_path: Path, content: str) -> None:
    root = make_sweep({"a": {None: [0.4, 0.5]}})
    (root / "0-0-1" / "DONE").write_text(content)
    assert "a, seed 1: unreadable" in report([root], tmp_path)


def test_a_score_that_is_no_number_is_missing(make_sweep: Make, tmp_path: Path) -> None:
    root = make_sweep({"a": {None: [0.4, 0.5]}})
    (root / "0-0-1" / "DONE").write_text('{"scores": {"val": {"miou": null, "iou": "no"}}, "seconds": "no"}')
    assert "1 of 2 seeds" in report([root], tmp_path)


def test_a_root_that_was_moved(make_sweep: Make, tmp_path: Path) -> None:
    root = make_sweep({"a": {None: [0.4]}})
    tree = json.loads((root / "sweeps" / "sweep.json").read_text())
    tree["cells"][0]["folder"] = "/elsewhere/0-0-0"
    (root / "sweeps" / "sweep.json").write_text(json.dumps(tree))
    assert "40.00" in report([root / "sweeps" / "sweep.json"], tmp_path)


def test_paths_that_are_neither(make_run: Make, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty is neither a run folder \(no config.yaml\) nor a sweep's root"):
        report([tmp_path / "empty"], tmp_path)
    with pytest.raises(UserError, match="nowhere does not exist"):
        report([tmp_path / "nowhere"], tmp_path)
    run = make_run()
    with pytest.raises(UserError, match=f"name the runs in it: {re.escape(str(run))}"):
        report([run.parent], tmp_path)
    (tmp_path / "x.json").write_text("[")
    with pytest.raises(UserError, match=r"x\.json is not the description of a sweep"):
        report([tmp_path / "x.json"], tmp_path)
    with pytest.raises(UserError, match="nothing to report"):
        report([], tmp_path)


def test_only_an_older_report_is_replaced(make_run: Make, tmp_path: Path) -> None:
    run = make_run()
    out = tmp_path / "mine.html"
    out.write_text("my thesis")
    with pytest.raises(UserError, match="is no report and is not overwritten"):
        write_report([run], out)
    assert out.read_text() == "my thesis"
    with pytest.raises(UserError, match="is a folder"):
        write_report([run], tmp_path)
    with pytest.raises(UserError, match=r"cannot write .*mine\.html is no folder that you may write to"):
        write_report([run / "none"], out / "x.html")  # before anything is read
    out.unlink()
    first = write_report([run], out).read_text()
    assert MARK in first
    out.write_text(first + "old")
    assert not write_report([run], out).read_text().endswith("old")


def test_without_jinja2_the_extra_is_named(make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ordinary = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name == "jinja2":
            raise ImportError(name)
        return ordinary(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=re.escape("pip install 'latentseg[report]'")):
        write_report([make_run()], tmp_path / "report.html")


def test_a_run_that_was_never_evaluated_shows_its_last_validation(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("steps: 4\nseed: 0\n")
    rows = [{"step": 2, "val_miou": 0.25, "val_iou": [0.25]}, {"step": 4, "val_miou": 0.5, "val_iou": [0.5]}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    record = read_run(run)
    assert record.state == "done"
    assert record.scores["val"]["miou"] == 0.5
    (run / "evaluation-val-last.json").write_text(json.dumps({"split": "val", "step": 4, "scores": {"miou": 0.75}}))
    assert read_run(run).scores["val"]["miou"] == 0.75
