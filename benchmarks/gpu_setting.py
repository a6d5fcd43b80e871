"""What the parts of `gpu.py` share: where and how large they run, and how a device is timed."""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

Row = tuple[str, dict[str, Any]]
"""A name and its figures; `ok` says of a check whether it held."""
DEVICE = torch._C._autograd.DeviceType.CUDA  # noqa: SLF001 - torch.autograd has it, without saying so
TINY = ["data.scenes.train=12", "data.scenes.val=2", "data.scenes.test=2", "data.scenes.height=64"]
TINY += ["data.scenes.width=64", "data.labeled=4", "batch_size=2", "augment.crop=[64,64]", "discriminator.width=8"]
"""Scenes that a CPU takes a step on at once."""


@dataclass(frozen=True)
class Setting:
    """Where and how large a part runs."""

    device: str
    """cuda, or cpu in a rehearsal."""
    camvid: str | None
    """Folder of CamVid; None: drawn scenes."""
    seconds: float
    """What the part may take."""
    left: float
    """Seconds until all parts should be done."""
    results: dict[str, Any] = field(default_factory=dict)
    """Rows of the parts before, by part and name."""

    @property
    def small(self) -> bool:
        """Whether this is a rehearsal."""
        return self.device == "cpu"

    @property
    def options(self) -> list[str]:
        """As for the command line."""
        return [f"device={self.device}", *(["threads=1"] if self.small else [])]

    @property
    def data(self) -> list[str]:
        """CamVid, or scenes."""
        return [f"data.root={self.camvid}"] if self.camvid else (TINY if self.small else [])

    def timing(self, *more: str) -> argparse.Namespace:
        """Options of `timing.opened`."""
        return argparse.Namespace(camvid=self.camvid, animals=None, set=[*self.options, *more])

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def done(self, function: Callable[[], object]) -> Callable[[], None]:
        """The same function, which ends when the device has done all of it."""

        def whole() -> None:
            function()
            self.synchronize()

        return whole


def busy_seconds(setting: Setting, function: Callable[[], object]) -> float:
    """Seconds in which the device computed or copied during a function."""
    kinds = [ProfilerActivity.CUDA] if setting.device == "cuda" else [ProfilerActivity.CPU]
    with profile(activities=kinds) as seen:
        setting.done(function)()
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in seen.events()
        if event.device_type == DEVICE and not _is_annotation(event)
    )
    return union(spans) / 1e6


def _is_annotation(event: Any) -> bool:
    """A range with a name, such as Optimizer.step, which the device's track shows beside its kernels."""
    return bool(getattr(event, "is_user_annotation", False)) or event.name.startswith(("Optimizer.", "ProfilerStep"))


def union(spans: list[tuple[float, float]]) -> float:
    """Length of what sorted spans cover."""
    covered, last = 0.0, float("-inf")
    for start, end in spans:
        covered += max(0.0, end - max(start, last))
        last = max(last, end)
    return covered


def rate(setting: Setting, function: Callable[[], object], rounds: int) -> float:
    """Seconds of a function, the median of rounds after one that does not count."""
    whole, seconds = setting.done(function), []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        whole()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def tried(rows: dict[str, Callable[[], dict[str, Any]]]) -> Iterator[Row]:
    """Rows one by one; one that fails says why and the others go on."""
    for name, measure in rows.items():
        try:
            yield name, measure()
        except Exception as error:  # noqa: BLE001 - out of memory, what this device lacks, a term that is not finite
            yield name, {"ok": False, "error": " ".join(str(error).split())[:300]}
            torch.cuda.empty_cache()  # nothing where none is in use
