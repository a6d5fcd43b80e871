"""MLflow and Weights & Biases: what they are told, a run that goes on, a logger that fails or is missing."""

import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tiny import SUPERVISED, StoppedError, on_call, stop, tiny

from latentseg.errors import UserError
from latentseg.runs.log import Log
from latentseg.runs.loggers import IDS
from latentseg.runs.metrics import read_metrics
from latentseg.runs.place import check_arguments
from latentseg.training.loop import train
from latentseg.training.trainer import Trainer

SHORT = [*SUPERVISED, "steps=3", "checkpoint_every=2"]


def figures(folder: Path) -> set[tuple[str, int, float]]:
    """Name, step and value of each number of metrics.jsonl."""
    return {
        (name, row["step"], value)
        for row in read_metrics(folder)
        for name, value in row.items()
        if name != "step" and isinstance(value, int | float)
    }


def stopped(folder: Path, *options: str) -> None:
    """A run that ends after its second step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "read", on_call(3, Trainer.read, stop))
        with pytest.raises(StoppedError):
            train(tiny(*SHORT, *options), folder)


def test_mlflow_has_what_metrics_has_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow  # noqa: PLC0415 - slow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    folder = tmp_path / "run"
    stopped(folder, "loggers=[mlflow]")
    client = mlflow.MlflowClient(tracking_uri=(folder / "mlflow").as_uri())
    known = json.loads((folder / IDS).read_text())["mlflow"]
    assert client.get_run(known).info.status == "KILLED"
    train(tiny(*SHORT, "loggers=[mlflow]"), folder, resume=True)
    experiment = client.get_experiment_by_name("latentseg")
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id])
    assert (run.info.run_id, run.info.run_name, run.info.status) == (known, "run", "FINISHED")
    assert (run.data.params["method.name"], run.data.params["augment.crop"]) == ("supervised", "[32, 32]")
    told = {(name, one.step, one.value) for name in run.data.metrics for one in client.get_metric_history(known, name)}
    assert told == figures(folder)
    assert {step for name, step, _ in told if name == "ce"} == {1, 2, 3}


class Wandb(ModuleType):
    """Stands in for wandb: its own import would slow every start of timm."""

    def __init__(self, broken: str = "") -> None:
        super().__init__("wandb")
        self.__spec__ = ModuleSpec("wandb", None)
        self.Settings, self.broken = dict, broken
        self.begun, self.logged, self.ended = list[dict[str, Any]](), list[tuple[str, int, float]](), list[int]()

    def init(self, **options: Any) -> SimpleNamespace:
        self.begun.append(options)
        return SimpleNamespace(id=options["id"] or "fresh", log=self._log, finish=self._finish)

    def _log(self, figures: dict[str, float], step: int) -> None:
        if self.broken == "log":
            raise ConnectionError("no route\nto there")
        self.logged += [(name, step, value) for name, value in figures.items()]

    def _finish(self, exit_code: int) -> None:
        self.ended.append(exit_code)


def test_wandb_has_what_metrics_has_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    folder = tmp_path / "run"
    stopped(folder, "loggers=[wandb]")
    train(tiny(*SHORT, "loggers=[wandb]"), folder, resume=True)
    assert [(one["id"], one["resume"]) for one in module.begun] == [(None, None), ("fresh", "allow")]
    assert (module.begun[0]["project"], module.begun[0]["name"], module.begun[0]["dir"]) == (
        "latentseg",
        "run",
        str(folder),
    )
    assert module.begun[0]["config"]["method.name"] == "supervised"
    assert set(module.logged) == figures(folder)
    assert module.ended == [1, 0]


def test_a_logger_that_fails_ends_nothing_and_is_noted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", Wandb(broken="log"))
    with Log(tmp_path, 0, tiny("loggers=[wandb]", "steps=2")) as log:
        for step in (1, 2):
            log.write(step, {"ce": 0.5})
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2]
    assert "".join(capsys.readouterr()).count("note: wandb takes no figures (no route): the run goes on") == 1


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_logger_that_is_missing_is_refused_before_any_work(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        UserError, match=rf"^loggers=\[{name}\] needs the package {name}: pip install 'latentseg\[{name}\]'$"
    ):
        check_arguments(tiny(f"loggers=[{name}]"), None, resume=False)
    check_arguments(tiny(), None, resume=False)
