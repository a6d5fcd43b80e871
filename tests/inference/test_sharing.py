"""Models that leave: what a saved folder holds and says, what opens it, what is sent to the hub."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from live import OPTIONS

from latentseg.config import Config, DataConfig, ModelConfig
from latentseg.errors import RunError, UserError
from latentseg.inference.evaluate import evaluate
from latentseg.inference.model import Model
from latentseg.inference.sharing import FILES, portable
from latentseg.models.weights import read_state
from latentseg.presets import load_config
from latentseg.runs.listing import list_runs
from latentseg.runs.place import check_run_folder
from latentseg.training.loop import train


def trained(folder: Path, *overrides: str) -> Path:
    return train(load_config("scenes", [*OPTIONS, "method.num_latent=4", *overrides]), folder).folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs of one step, of which the seed alone differs, and their scores."""
    root = tmp_path_factory.mktemp("runs")
    folders = [trained(root / str(seed), f"seed={seed}") for seed in (0, 1)]
    evaluate(folders[0])
    return folders


@pytest.fixture(scope="module")
def saved(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Model.open(runs[0]).save_pretrained(tmp_path_factory.mktemp("saved") / "streets", [runs[1]])


def test_a_saved_model_predicts_as_its_run(runs: list[Path], saved: Path) -> None:
    assert {path.name for path in saved.iterdir()} == set(FILES)
    image = np.random.default_rng(0).integers(0, 256, (40, 51, 3), dtype=np.uint8)
    ours, theirs = Model.from_pretrained(saved), Model.open(runs[0])
    assert (ours.step, ours.classes) == (1, theirs.classes)
    assert np.array_equal(ours.run.palette, theirs.run.palette)
    assert np.array_equal(ours.predict(image).probs, theirs.predict(image).probs)
    assert Model.from_pretrained(saved, ["inference.mirror=true"]).run.config.inference.mirror


def test_verbs_take_it_as_a_run(runs: list[Path], saved: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(saved, tmp_path / "copy")
    told = json.loads(next(runs[0].glob("evaluation-val-last*.json")).read_text())
    assert json.loads(evaluate(copy).to_json())["scores"] == told["scores"]
    config = Model.open(runs[0]).run.config
    begun = train(config, tmp_path / "next", origin=copy)
    assert "copy" in json.loads((begun.folder / "from.json").read_text())["run"]
    assert read_state(copy).keys() == {key for key in read_state(runs[0]) if key.startswith("segmenter.")}
    assert list_runs(copy.parent)[0] == list_runs(begun.folder)[0]  # a saved model is no run
    assert list_runs(copy.parent)[1] == {}
    for resume in (True, False):
        with pytest.raises(RunError, match=r"is a saved model, which no training goes on with: .*--from"):
            check_run_folder(copy, config, resume)


def test_the_card_tells_what_was_measured(runs: list[Path], saved: Path) -> None:
    text = (saved / "README.md").read_text()
    told = json.loads(next(runs[0].glob("evaluation-val-last*.json")).read_text())
    assert text.startswith("---\nlibrary_name: latentseg\n")
    assert "\n# license: left to" in text
    assert "| labelled training images | 2 |\n| unlabelled training images | 2 |\n" in text
    scored = sum(value is not None for value in told["scores"]["iou"])
    miou = f"{100 * told['scores']['miou']:.2f} ({scored} of 19 classes scored)"
    accuracy = f"{100 * told['scores']['pixel_accuracy']:.2f}"
    assert f"| val | 1 | {miou} | {accuracy} |" in text
    for name, value in zip(told["classes"], told["scores"]["iou"], strict=True):
        assert f"| {name} | {'absent' if value is None else f'{100 * value:.2f}'} |\n" in text
    assert "| steps | 1 of 1, batch 2" in text
    assert "arXiv:1912.12936" in text


def test_the_spread_is_that_of_the_runs_that_were_given(runs: list[Path], saved: Path, tmp_path: Path) -> None:
    rows = [json.loads((run / "metrics.jsonl").read_text().splitlines()[-1]) for run in runs]
    values = [100 * row["val_miou"] for row in rows]
    assert (
        f"2 runs, mIoU {np.mean(values):.2f} ± {np.std(values, ddof=1):.2f} (sample"
        in (saved / "README.md").read_text()
    )
    alone = Model.open(runs[1]).save_pretrained(tmp_path / "alone")
    text = (alone / "README.md").read_text()
    assert "val: one run with one seed." in text
    assert f"| val | not recorded | {values[1]:.2f}" in text  # of the validation: it was not evaluated


def test_scores_of_other_weights_are_not_told(runs: list[Path], tmp_path: Path) -> None:
    run = shutil.copytree(runs[0], tmp_path / "run")
    file = next(run.glob("evaluation-*.json"))
    told = json.loads(file.read_text())
    told["scores"]["miou"] = 0.4321
    for change in ({"step": 2}, {"overrides": ["inference.mirror=true"]}, {"classes": ["a", "b"]}):
        file.write_text(json.dumps(told | change))
        (run / "metrics.jsonl").write_text("")
        text = (Model.open(run).save_pretrained(tmp_path / next(iter(change))) / "README.md").read_text()
        assert "This model was not scored." in text
        assert "43.21" not in text
    file.write_text(json.dumps(told | {"checkpoint": "best", "notes": ["no pixel of pole was labelled"]}))
    text = (Model.open(run).save_pretrained(tmp_path / "best") / "README.md").read_text()
    assert "43.21" in text
    assert "- The step was chosen by the score on val: that score is optimistic.\n" in text
    assert "- No pixel of pole was labelled.\n" in text


def test_runs_that_differ_in_more_than_the_seed_have_no_spread(runs: list[Path], tmp_path: Path) -> None:
    other = trained(tmp_path / "other", "optim.lr=0.5")
    with pytest.raises(RunError, match=r"differs from .* in more than the seed"):
        Model.open(runs[0]).save_pretrained(tmp_path / "new", [other])
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten(runs: list[Path], saved: Path) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    with pytest.raises(RunError, match="is not empty"):
        Model.open(runs[0]).save_pretrained(saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_no_place_of_the_machine_is_told() -> None:
    config = Config(
        data=DataConfig(
            root="~/my/CamVid", labeled="/home/me/list.txt", unlabeled=["../more", "beside"], color_map="/a/colors.txt"
        ),
        model=ModelConfig(weights="/home/me/net.pth"),
        cache_folder="/home/me/cache",
    )
    data, model = (found := portable(config)).data, found.model
    assert (data.root, data.labeled, data.unlabeled, data.color_map) == (
        "CamVid",
        "list.txt",
        ["more", "beside"],
        "colors.txt",
    )
    assert (model.weights, found.cache_folder) == ("net.pth", None)
    kept = load_config("scenes", ["data.labeled=1/8", 'data.pairs=["images/{split}/{id}","masks/{split}/{id}_mask"]'])
    assert portable(kept).data == kept.data


def test_no_file_names_the_place_of_the_run(runs: list[Path], saved: Path) -> None:
    for path in saved.iterdir():
        assert str(runs[0].parent).encode() not in path.read_bytes()


def test_a_repository_is_fetched_and_opened(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def download(repo_id: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repo_id, revision, tuple(allow_patterns)))
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert Model.from_pretrained("me/streets", revision="v1").step == 1
    assert asked == [("me/streets", "v1", FILES)]


def test_a_repository_that_cannot_be_had_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        RunError, match=r"^me/streets is no folder here, and cannot be fetched from the hub: .*; offline"
    ):
        Model.from_pretrained("me/streets")
    with pytest.raises(RunError, match="neither a folder nor a repository"):
        Model.from_pretrained("runs/of/nobody")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'latentseg\[hub\]'"):
        Model.from_pretrained("me/streets")


class Hub:
    """Stands in for HfApi: notes what is sent."""

    def __init__(self, has_card: bool = False, broken: bool = False) -> None:
        self.has_card, self.broken, self.calls = has_card, broken, list[Any]()

    def create_repo(self, repo_id: str, private: bool, exist_ok: bool) -> str:
        self.calls.append(("create", repo_id, private, exist_ok))
        if self.broken:
            raise OSError("no network here")
        return f"https://hub/{repo_id}"

    def file_exists(self, repo_id: str, filename: str) -> bool:
        return self.has_card and filename == "README.md"

    def upload_folder(self, repo_id: str, folder_path: str, commit_message: str, ignore_patterns: list[str]) -> None:
        files = {path.name for path in Path(folder_path).iterdir()} - set(ignore_patterns)
        title = (Path(folder_path) / "README.md").read_text().split("\n# ")[2].splitlines()[0]
        self.calls.append(("upload", repo_id, files, title, commit_message))


@pytest.mark.parametrize("has_card", [False, True])
def test_what_is_sent_to_the_hub(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], has_card: bool
) -> None:
    hub = Hub(has_card)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    assert Model.open(runs[0]).push_to_hub("me/streets", private=True) == "https://hub/me/streets"
    files = set(FILES) - ({"README.md"} if has_card else set())
    assert hub.calls == [
        ("create", "me/streets", True, True),
        ("upload", "me/streets", files, "streets", "Upload a model"),
    ]
    assert ("model card of me/streets was left" in "".join(capsys.readouterr())) is has_card


def test_a_hub_that_fails_is_one_message(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: Hub(broken=True))
    with pytest.raises(RunError, match="me/streets cannot be sent to the hub: no network here"):
        Model.open(runs[0]).push_to_hub("me/streets")
    with pytest.raises(UserError, match="is no name of a repository"):
        Model.open(runs[0]).push_to_hub("a b/c/d")
