"""What a run writes while it trains: metrics.jsonl, and the same for TensorBoard and loggers. A full disk ends none."""

import json
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any, Self

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from latentseg.config import Config
from latentseg.console import console
from latentseg.errors import RunError
from latentseg.runs.checkpoints import write_atomically
from latentseg.runs.loggers import Loggers
from latentseg.runs.metrics import finite_or_none, read_metrics

RECENT = 300
"""Lines kept in memory."""


class Log:
    """metrics.jsonl and TensorBoard, in step."""

    def __init__(self, folder: Path, start: int, config: Config | None = None) -> None:
        """Open the log of a run that goes on after `start` steps; later lines of a killed process are dropped.

        With `config`, its loggers are opened, too: then leave the log by `with`, which tells them whether it ended.
        """
        self._folder = folder
        self._steps = config.steps if config else 0
        self._loggers = Loggers(folder, config) if config else None
        rows = [row for row in read_metrics(folder) if row["step"] <= start]
        self._begun = "".join(json.dumps(row) + "\n" for row in rows).encode()
        self.recent = deque(rows, maxlen=RECENT)
        """The last lines."""
        self.findings = [row["finding"] for row in rows if isinstance(row.get("finding"), str)]
        """What was said of terms that do nothing."""
        self.score = next((score for row in reversed(rows) for score in _scores(row)), None)
        """mIoU of the last validation."""
        self._draw: Callable[[int, bytes, int, int], None] | None = None
        self._writers: dict[str, Callable[[int, dict[str, Any]], None]] = {}
        for name, begin in (("metrics.jsonl", self._begin_lines), ("tensorboard", self._begin_board)):
            try:
                self._writers[name] = begin(start)
            except (OSError, RunError) as error:
                self._tell(name, error)

    def write(self, step: int, figures: dict[str, Any]) -> None:
        """Add one line: figures after `step` steps. A writer that fails is left out from then on, and that is said.

        Raises:
            RunError: The run folder is gone.
        """
        if not self._folder.is_dir():
            raise RunError(
                f"the run folder {self._folder} is gone: deleted or renamed while it was trained; stopped here"
            )
        self.recent.append({"step": step} | finite_or_none(figures))
        self.score = next(iter(_scores(figures)), self.score)
        for name, writer in list(self._writers.items()):
            try:
                writer(step, figures)
            except OSError as error:
                del self._writers[name]
                self._tell(name, error)
        if self._loggers:
            self._loggers.write(step, figures)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        done = self.recent[-1]["step"] if self.recent else 0
        if self._loggers:
            self._loggers.end(finished=kind is None and done >= self._steps)

    def picture(self, step: int, png: bytes, height: int, width: int) -> None:
        """Add a picture to TensorBoard, if that can be written."""
        if "tensorboard" not in self._writers or self._draw is None:
            return
        try:
            self._draw(step, png, height, width)
        except OSError as error:
            del self._writers["tensorboard"]
            self._tell("tensorboard", error)

    def _tell(self, name: str, error: Exception) -> None:
        reason = (error.strerror or error) if isinstance(error, OSError) else error
        text = f"note: {self._folder / name} cannot be written ({reason}): the run goes on without it"
        console.print(text, style="yellow", markup=False, highlight=False)

    def _begin_lines(self, _start: int) -> Callable[[int, dict[str, Any]], None]:
        path = self._folder / "metrics.jsonl"
        if not path.is_file() or path.read_bytes() != self._begun:
            write_atomically(path, self._begun)
        return self._line

    def _line(self, step: int, figures: dict[str, Any]) -> None:
        with (self._folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step} | finite_or_none(figures)) + "\n")

    def _begin_board(self, start: int) -> Callable[[int, dict[str, Any]], None]:
        """TensorBoard's format, written here: its own writer fails in a thread, with a traceback."""
        folder = self._folder / "tensorboard"
        folder.mkdir(exist_ok=True)
        now = f"{time.time():.6f}".replace(".", "_")
        records = RecordWriter(FileIO(folder / f"events.out.tfevents.{now}.{socket.gethostname()}.{os.getpid()}", "wb"))
        records.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        begun = SessionLog(status=SessionLog.START)
        records.write(Event(wall_time=time.time(), step=start + 1, session_log=begun).SerializeToString())

        def draw(step: int, png: bytes, height: int, width: int) -> None:
            image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
            drawn = Summary(value=[Summary.Value(tag="image, truth, prediction", image=image)])
            records.write(Event(wall_time=time.time(), step=step, summary=drawn).SerializeToString())

        def write(step: int, figures: dict[str, Any]) -> None:
            scalars = [
                Summary.Value(tag=name, simple_value=value)
                for name, value in figures.items()
                if isinstance(value, int | float)
            ]
            event = Event(wall_time=time.time(), step=step, summary=Summary(value=scalars))
            records.write(event.SerializeToString())

        self._draw = draw
        return write


def _scores(figures: dict[str, Any]) -> list[float]:
    """The mIoU among figures, if there is one."""
    return [value for name, value in figures.items() if name.endswith("_miou") and isinstance(value, float)]
