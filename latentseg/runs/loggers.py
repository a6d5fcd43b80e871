"""Loggers beside metrics.jsonl and TensorBoard: MLflow and Weights & Biases, imported only where they are asked for."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from latentseg.config import Config, LoggerName
from latentseg.console import console
from latentseg.presets import flat
from latentseg.reading import read_whole
from latentseg.runs.checkpoints import write_atomically
from latentseg.runs.metrics import finite_or_none

IDS = "loggers.json"
"""File in the run folder: by logger, the id of its run, so that a resumed run goes on in the same one."""
PROJECT = "latentseg"
"""MLflow's experiment and project of Weights & Biases, if MLFLOW_EXPERIMENT_NAME or WANDB_PROJECT name no other."""
_AT_ONCE = 100  # parameters in one request to MLflow


class Logger(Protocol):
    """Takes a run's figures somewhere. Whatever it raises ends it, and not the run."""

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Add figures after `step` steps."""

    def end(self, finished: bool) -> None:
        """Say that the run is finished, or was stopped before its last step."""


class Loggers:
    """Those that a run asks for. One that fails is left out from then on, which is said; the run goes on.

    Args:
        folder: The run folder.
        config: The run.
    """

    def __init__(self, folder: Path, config: Config) -> None:
        self._folder, self._open = folder, dict[str, Logger]()
        options = flat(config.model_dump(mode="json"))
        for name in config.loggers:
            with self._noted(name):
                self._open[name] = self._begun(name, options)

    def _begun(self, name: LoggerName, options: dict[str, Any]) -> Logger:
        """Begin a run of a logger, or go on with that of the same run folder."""
        known = _known(self._folder)
        kinds: dict[LoggerName, type[MLflow] | type[WeightsAndBiases]] = {"mlflow": MLflow, "wandb": WeightsAndBiases}
        logger = kinds[name](self._folder, options, known.get(name))
        if known.get(name) != logger.id:
            write_atomically(self._folder / IDS, json.dumps(known | {name: logger.id}).encode())
        return logger

    def write(self, step: int, figures: dict[str, Any]) -> None:
        """Add the finite numbers among figures after `step` steps."""
        known = finite_or_none(figures)
        numbers = {name: float(value) for name, value in known.items() if isinstance(value, int | float)}
        for name, logger in list(self._open.items()) if numbers else ():
            with self._noted(name):
                logger.write(step, numbers)

    def end(self, finished: bool) -> None:
        """Say that the run is finished, or was stopped before its last step."""
        for name, logger in list(self._open.items()):
            with self._noted(name):
                logger.end(finished)
        self._open.clear()

    @contextmanager
    def _noted(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - clients of the net raise what they like
            self._open.pop(name, None)
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            text = f"note: {name} takes no figures ({reason}): the run goes on without it"
            console.print(text, style="yellow", markup=False, highlight=False)


def _known(folder: Path) -> dict[str, str]:
    try:
        found = json.loads(read_whole(folder / IDS))
        return {str(name): str(value) for name, value in found.items()}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


class MLflow:
    """A run of MLflow, at MLFLOW_TRACKING_URI, else in files below the run folder.

    Args:
        folder: The run folder.
        options: The configuration, by dotted name.
        known: Id of the run to go on with.
    """

    def __init__(self, folder: Path, options: dict[str, Any], known: str | None) -> None:
        import mlflow  # noqa: PLC0415 - an extra
        from mlflow.entities import Metric, Param  # noqa: PLC0415

        place = os.environ.get("MLFLOW_TRACKING_URI")
        if not place:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # newer versions want to be told
            place = (folder / "mlflow").absolute().as_uri()
        self._client, self._metric = mlflow.MlflowClient(tracking_uri=place), Metric
        if known is not None:
            self.id = known
            self._client.update_run(known, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        self.id = str(self._client.create_run(number, run_name=folder.absolute().name).info.run_id)
        params = [Param(key, str(value)[:500]) for key, value in options.items()]
        for first in range(0, len(params), _AT_ONCE):
            self._client.log_batch(self.id, params=params[first : first + _AT_ONCE])

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Add figures after `step` steps."""
        now = int(1000 * time.time())
        self._client.log_batch(self.id, metrics=[self._metric(key, value, now, step) for key, value in figures.items()])

    def end(self, finished: bool) -> None:
        """Say that the run is finished, or was stopped before its last step."""
        self._client.set_terminated(self.id, "FINISHED" if finished else "KILLED")


class WeightsAndBiases:
    """A run of Weights & Biases, as WANDB_MODE and its other environment variables say; its files in the run folder.

    Args:
        folder: The run folder.
        options: The configuration, by dotted name.
        known: Id of the run to go on with.
    """

    def __init__(self, folder: Path, options: dict[str, Any], known: str | None) -> None:
        import wandb  # noqa: PLC0415 - an extra

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=folder.absolute().name,
            dir=str(folder),
            config=options,
            id=known,
            resume="allow" if known else None,
            settings=wandb.Settings(console="off"),  # the live line is ours
        )
        self.id = str(self._run.id)

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Add figures after `step` steps."""
        self._run.log(figures, step=step)

    def end(self, finished: bool) -> None:
        """Say that the run is finished, or was stopped before its last step."""
        self._run.finish(exit_code=0 if finished else 1)
