"""The first look, in small: two runs, one table, one picture."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tiny import StoppedError, on_call, stop

from latentseg import quickstart
from latentseg.errors import UserError
from latentseg.inference.evaluate import evaluate
from latentseg.runs.folder import open_run

SMALL = [
    "steps=4",
    "batch_size=2",
    "threads=1",
    "augment.crop=[64,64]",
    "augment.views=1",
    "augment.labeled_views=2",
    "data.every_class=false",
    "data.scenes.train=16",
    "data.scenes.val=1",
    "data.scenes.test=4",
    "data.scenes.height=64",
    "data.scenes.width=96",
]


@pytest.mark.slow
def test_two_runs_on_the_same_labels_a_table_and_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quickstart, "console", Console(width=120))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = tmp_path / "first"
    monkeypatch.setattr(quickstart, "evaluate", on_call(2, evaluate, stop))
    with pytest.raises(StoppedError):
        quickstart.quickstart(out, SMALL)
    monkeypatch.setattr(quickstart, "evaluate", evaluate)
    began = [(out / name / "environment.json").stat().st_mtime_ns for name in quickstart.METHODS]
    quickstart.quickstart(out, SMALL)  # the same command goes on
    assert [(out / name / "environment.json").stat().st_mtime_ns for name in quickstart.METHODS] == began
    supervised, ours = open_run(out / "supervised"), open_run(out / "latent_match")
    assert (supervised.config.method.name, ours.config.method.name) == ("supervised", "latent_match")
    labels = [(run.folder / "split" / "labeled.txt").read_text() for run in (supervised, ours)]
    assert labels[0] == labels[1]
    assert len(labels[0].splitlines()) == 12
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("mIoU", "seconds", "traffic light", "comparison.png"))
    picture = np.asarray(Image.open(out / "comparison.png").convert("RGB"))
    height, width, _ = picture.shape
    assert width > height > 300
    columns = [picture[60:300, int(width * (i + 0.5) / 4)] for i in range(4)]
    assert all(len(np.unique(column, axis=0)) > 1 for column in columns)  # something is drawn in each column
    with pytest.raises(UserError, match="not overwritten"):
        quickstart.quickstart(out, SMALL)


def test_the_quickstart_is_for_one_process(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="for one process"):
        quickstart.quickstart(tmp_path / "out", [*SMALL, "devices=2"])
    assert not (tmp_path / "out").exists()
