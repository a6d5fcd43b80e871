"""Optuna's list of the cells of a sweep: which ones nobody has begun, and what the finished ones scored."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentseg.errors import UserError
from latentseg.locks import hold
from latentseg.sweeps.cells import Cell, Sweep, read_done

if TYPE_CHECKING:
    from optuna import Study


class Queue:
    """The study of one sweep. Every access is under one lock of the run root, so that no two workers get one cell."""

    def __init__(self, sweep: Sweep, run_root: Path, storage: str | None) -> None:
        """Check that Optuna is there.

        Args:
            sweep: The sweep.
            run_root: Folder of all run folders; it holds the lock, and the journal by default.
            storage: URL of an SQL data base; `optuna.journal` in the run root if None.

        Raises:
            UserError: Optuna is not installed.
        """
        try:
            import optuna  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise UserError("sweeps need Optuna: pip install 'latentseg[sweep]'") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._sweep, self._run_root, self._storage = sweep, run_root, storage
        self._cells = {cell.folder: cell for cell in sweep.cells}

    def fill(self) -> None:
        """Enter every cell that the study does not know, and those that failed before."""
        from optuna.trial import TrialState  # noqa: PLC0415

        with self._study() as study:
            known = {t.user_attrs.get("cell") for t in study.get_trials(deepcopy=False) if t.state != TrialState.FAIL}
            for cell in self._sweep.cells:
                if cell.folder not in known:
                    study.enqueue_trial(self._params(cell), user_attrs={"cell": cell.folder})

    def next(self) -> Cell | None:
        """A cell that nobody has asked for, or None. Cells that are done by now are told and passed over."""
        from optuna.distributions import CategoricalDistribution  # noqa: PLC0415
        from optuna.trial import TrialState  # noqa: PLC0415

        with self._study() as study:
            while study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                params = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))[0].system_attrs["fixed_params"]
                choices = {key: sorted({self._params(cell)[key] for cell in self._sweep.cells}) for key in params}
                trial = study.ask({key: CategoricalDistribution(values) for key, values in choices.items()})
                cell = self._cells[trial.user_attrs["cell"]]
                if self._value(cell) is None:
                    return cell
                study.tell(trial, self._value(cell))
        return None

    def tell(self) -> None:
        """Tell the study what has finished, as the folders say."""
        from optuna.trial import TrialState  # noqa: PLC0415

        with self._study() as study:
            for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                cell = self._cells.get(trial.user_attrs.get("cell", ""))
                if cell and (value := self._value(cell)) is not None:
                    study.tell(trial.number, value)
                elif cell and (self._run_root / cell.folder / "FAILED").is_file():
                    study.tell(trial.number, state=TrialState.FAIL)

    def _value(self, cell: Cell) -> float | None:
        done = read_done(self._run_root / cell.folder, self._sweep.splits)
        return None if done is None else float(done["scores"][self._sweep.splits[0]]["miou"] or 0.0)

    def _params(self, cell: Cell) -> dict[str, Any]:
        column = {self._sweep.column_key: cell.column} if self._sweep.column_key else {}
        return {"row": cell.row} | {key: str(value) for key, value in (column | cell.grid).items()}

    @contextmanager
    def _study(self) -> Iterator["Study"]:
        import optuna  # noqa: PLC0415

        with hold(self._run_root / "locks" / "optuna.lock", "the list of cells", wait=True):
            try:
                study = optuna.create_study(
                    storage=self._storage or self._journal(),
                    sampler=optuna.samplers.RandomSampler(),
                    study_name=f"{self._sweep.name}-{self._sweep.digest}",
                    direction="maximize",
                    load_if_exists=True,
                )
            except Exception as error:  # each data base has errors of its own
                remedy = "check --storage" if self._storage else "it may be removed: the folders are the truth"
                raise UserError(f"Optuna cannot use {self._storage or self._path}: {error}; {remedy}") from error
            yield study

    @property
    def _path(self) -> Path:
        return self._run_root / "optuna.journal"

    def _journal(self) -> Any:
        from optuna.storages import JournalStorage  # noqa: PLC0415
        from optuna.storages.journal import JournalFileBackend  # noqa: PLC0415

        no_lock: Any = _Held()
        if self._path.is_file():
            content = self._path.read_bytes()
            if not content.endswith(b"\n"):  # the last line of a worker killed while it wrote
                os.truncate(self._path, content.rfind(b"\n") + 1)
        return JournalStorage(JournalFileBackend(str(self._path), no_lock))


class _Held:
    """In place of Optuna's lock on its journal: ours is held already, and it dies with its owner."""

    def acquire(self) -> bool:
        """Nothing to do."""
        return True

    def release(self) -> None:
        """Nothing to do."""
