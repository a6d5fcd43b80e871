"""The measurement of suggested labels: what it chooses, what it repeats, what it says; no run is trained."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import suggest as study_of_labels
from suggest import Study, chosen, finish, score, table

from latentseg.data.datasets import Dataset, Item, open_dataset
from latentseg.errors import UserError
from latentseg.inference.model import Model
from latentseg.presets import load_config
from latentseg.suggest.look import Looker

IMAGES = 10


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study("camvid", "supervised", 20, (), tmp_path, tmp_path / "suggest.json")


@pytest.fixture
def dataset() -> Dataset:
    return open_dataset(load_config("scenes", [f"data.scenes.train={IMAGES}", "data.scenes.val=1"]).data)


@dataclass
class Ranked:
    images: list[Path]


@pytest.mark.parametrize("row", ["random", "covering"])
def test_a_draw_adds_what_is_missing_and_is_kept(study: Study, dataset: Dataset, row: str) -> None:
    able = dataset.items("train")
    known = chosen(study, dataset, able, row, (able[:2], Path()), 6, 3)
    assert known[:2] == able[:2]
    assert len({item.id for item in known}) == 6
    listed = study.path(row, 6, 3).with_suffix(".txt")
    assert listed.read_text().split() == [item.id for item in known]
    listed.write_text(f"{able[4].id}\n")
    assert chosen(study, dataset, able, row, (able[:2], Path()), 6, 3) == [able[4]]


def test_a_way_chooses_among_images_whose_labels_are_not_known(
    study: Study, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    able = [Item(f"a{number}", Path(f"/images/{number}.png"), Path("mask")) for number in range(5)]
    calls: list[object] = []

    def rank(looker: object, images: list[Path], _set: Dataset, known: list[Item], *rest: object) -> Ranked:
        calls.append((looker, images, known, rest))
        return Ranked(images[::-1][:2])

    monkeypatch.setattr(study_of_labels, "rank", rank)
    monkeypatch.setattr(Looker, "open", lambda model, _checkpoint: model)
    monkeypatch.setattr(Model, "open", lambda folder: f"model of {folder}")
    known = chosen(study, dataset, able, "entropy", (able[:1], Path("run")), 3, 0)
    assert [item.id for item in known] == ["a0", "a4", "a3"]
    assert calls == [("model of run", [item.image for item in able[1:]], able[:1], (2, "entropy", {}))]


def test_a_finished_run_is_not_repeated(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    key = study.key("all", 24, 0)
    study.out.write_text(json.dumps({key: {"val": 0.5}}))
    folder = study.path("all", 24, 0)
    folder.mkdir()
    (folder / "config.yaml").touch()

    def train(*_: object, **__: object) -> None:
        raise UserError("trained")

    monkeypatch.setattr(study_of_labels, "train", train)
    assert finish(study, "all", 24, 0, []) == folder
    with pytest.raises(UserError, match="trained"):
        finish(replace(study, steps=30), "all", 24, 0, [])


def test_the_last_validation_is_the_score(tmp_path: Path) -> None:
    rows = [{"step": 10, "val_miou": 0.1, "val_iou": [0.1]}, {"step": 20, "val_miou": 0.2, "val_iou": [0.2, None]}]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert score(tmp_path, "val", 20) == {"val": 0.2, "val_iou": [0.2, None]}


def test_the_table_has_paired_differences_and_a_verdict() -> None:
    scores = {
        "start | 12": (0.40, 0.42), "random | 24": (0.50, 0.52), "all | 24": (0.53, 0.54), "entropy | 24": (0.49, 0.54),
    }  # fmt: skip
    found = table(
        {
            f"animals | supervised | 1500 | {row} | {seed}": {"val": score}
            for row, both in scores.items()
            for seed, score in enumerate(both)
        }
    )
    assert "| 24 | all | 53.50 ± 0.71 | 53.0 54.0 | 2.50 ± 0.71 | +3.0 +2.0 |" in found
    assert "| 12 | start | 41.00 ± 1.41 | 40.0 42.0 | - |  |" in found
    assert "all beats random: +2.50 ± 0.71 points over 2 runs." in found
    assert "entropy does not beat random by more than the spread: +0.50 ± 2.12" in found
