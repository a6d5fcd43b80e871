"""Time to quality: when a run ends, how it goes on, what the table says of it."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import quality
from quality import Study, draw, first, go_on, run, table, until
from tiny import TINY

from latentseg.errors import UserError
from latentseg.inference.model import Model
from latentseg.presets import only_read
from latentseg.training.trainer import Trainer

CURVE: quality.Curve = {
    "step": [100, 200, 300],
    "cpu_minutes": [1.0, 2.0, 3.0],
    "wall_minutes": [2.0, 4.0, 6.5],
    "val": [0.40, 0.46, 0.44],
}


def study(folder: Path, data: str = "animals", minutes: float = 40) -> Study:
    """Three steps on tiny images, the encoder as the row has it."""
    tiny = [option for option in only_read(TINY, "fixmatch") if not option.startswith(("model.frozen", "steps"))]
    options = (*tiny, "steps=3", "augment.views=1", "augment.labeled_views=1", f"cache_folder={folder / 'features'}")
    return Study(data, options, minutes, folder / "runs", folder / "quality.json")


def test_a_score_is_reached_where_it_first_is() -> None:
    assert first(CURVE, "val", 0.46) == 2
    assert first(CURVE, "val", 0.47) is None
    assert until(CURVE, 250) == {name: values[:2] for name, values in CURVE.items()}


@pytest.mark.parametrize(
    ("minutes", "steps", "best", "ended"),
    [(40, 6000, 0.4, False), (3, 6000, 0.4, True), (40, 300, 0.4, True), (40, 6000, 0.5, True)],
)
def test_a_run_ends_when_all_is_reached_or_nothing_is_left(
    tmp_path: Path, minutes: float, steps: int, best: float, ended: bool
) -> None:
    curve = CURVE | {"val": [0.3, best, 0.3]}
    assert study(tmp_path, minutes=minutes).ended(curve, steps) == ended


def test_both_splits_of_camvid_must_be_reached(tmp_path: Path) -> None:
    camvid = study(tmp_path, "camvid")
    assert not camvid.ended(CURVE | {"test": [0.3, 0.3, 0.3]}, 6000)
    assert camvid.ended(CURVE | {"test": [0.3, 0.3, 0.43]}, 6000)


def test_rows_differ_from_the_preset_as_they_say(tmp_path: Path) -> None:
    plain = Study("camvid", (), 1, tmp_path, tmp_path)
    ours, cached, trained = (plain.config(row, 3) for row in quality.ROWS)
    assert (ours.method.name, ours.cache, ours.seed) == ("latent_match", "features", 3)
    assert (cached.method.name, cached.method.threshold, cached.cache) == ("fixmatch", 0.95, "features")
    assert (trained.model.frozen, trained.augment.views, trained.optim.lr) == (False, None, 1e-4)
    assert {config.augment.crop for config in (ours, cached, trained)} == {ours.augment.crop}
    assert {config.batch_size for config in (ours, cached, trained)} == {4}


@pytest.mark.parametrize("row", ["fixmatch", "fixmatch, trained"])
def test_a_run_goes_on_from_its_last_validation(tmp_path: Path, row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(quality.AIMS, "scenes", {"val": (0.999,)})
    monkeypatch.setattr(quality, "FIRST", 2)
    short, long = study(tmp_path, "scenes", 0), study(tmp_path, "scenes")
    run(short, row, 0)
    cell = quality.read_cells(short.out)[f"scenes | {row} | 0"]
    assert cell["curve"]["step"] == [2]
    assert ("cache_minutes" in cell) == (row == "fixmatch")
    run(long, row, 0)
    there = quality.read_cells(short.out)[f"scenes | {row} | 0"]["curve"]
    assert there["step"] == [2, 3]
    assert {name: values[:1] for name, values in there.items()} == cell["curve"]
    assert 0 < there["cpu_minutes"][0] < there["cpu_minutes"][1]

    def opened(*_: object) -> None:
        raise UserError("opened")

    monkeypatch.setattr(Trainer, "open", opened)
    run(long, row, 0)  # has ended: nothing is opened
    with pytest.raises(UserError, match="opened"):
        run(long, row, 1)


@pytest.mark.parametrize(("done", "last"), [(0, 25), (25, 50), (50, 100), (200, 300), (5950, 6000)])
def test_validations_come_early_first_and_then_regularly(done: int, last: int, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Counted(done)
    monkeypatch.setattr(quality, "score_items", lambda *_: SimpleNamespace(miou=0.5))
    monkeypatch.setattr(Model, "live", lambda *_: None)
    curve = quality.empty("animals")
    go_on(trainer, curve)  # type: ignore[arg-type]
    assert (curve["step"], curve["val"]) == ([last], [0.5])


class Counted:
    """A run whose steps do nothing."""

    config = SimpleNamespace(cache="images", steps=6000)
    dataset = SimpleNamespace(items=lambda split: [])
    state = SimpleNamespace(segmenter=None)

    def __init__(self, done: int) -> None:
        self.done = done

    def step(self) -> None:
        self.done += 1

    def train_mode(self) -> None:
        pass


def test_the_table_tells_what_was_reached_and_what_was_not(tmp_path: Path) -> None:
    cells: quality.Cells = {"animals | fixmatch | 0": {"curve": CURVE, "cache_minutes": 4.04}}
    found = table(cells)
    assert "| animals, val | fixmatch | 0 | 45 | 2.00 (4.00) | 200 | 46.0 | 4.04 |" in found
    assert "| animals, val | fixmatch | 0 | 50 | not within 3.00 (6.50) | 300 | 46.0 | 4.04 |" in found
    cells = {"animals | fixmatch, trained | 0": {"curve": CURVE}}
    assert "| 45 | 2.00 (4.00) | 200 | 46.0 | - |" in table(cells)


def test_the_plot_has_a_second_line_with_the_filling_of_the_cache() -> None:
    cells: quality.Cells = {
        "animals | fixmatch | 0": {"curve": CURVE, "cache_minutes": 4},
        "animals | fixmatch, trained | 0": {"curve": CURVE},
    }
    shown = draw(cells).axes[0]
    drawn = {line.get_label(): np.asarray(line.get_xydata()).tolist() for line in shown.lines}
    lines = {name: points for name, points in drawn.items() if len(points) == 3}
    assert lines["FixMatch, cached features"] == [[1, 40], [2, 46], [3, 44]]
    assert lines["the same, cache filled first"] == [[5, 40], [6, 46], [7, 44]]
    assert lines["FixMatch, encoder trained along"] == [[1, 40], [2, 46], [3, 44]]


def test_the_file_keeps_other_runs(tmp_path: Path) -> None:
    out = tmp_path / "quality.json"
    quality.write_cell(out, "b", {"steps": 1})
    quality.write_cell(out, "a", {"steps": 2})
    assert json.loads(out.read_text()) == {"a": {"steps": 2}, "b": {"steps": 1}}
