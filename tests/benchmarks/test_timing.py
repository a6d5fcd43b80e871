"""The timer's clocks and made data, and one real step by part."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import clocks
import diagnose
import fingerprint
import full_size
import numpy as np
import pytest
import timing
from made import write_folder, write_voc
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from latentseg.data.datasets import open_dataset
from latentseg.presets import load_config, preset_names


def test_ratio_is_that_of_each_round() -> None:
    assert clocks.ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == {"ratio": 2.0, "quartiles": [1.0, 2.0, 3.0]}
    assert clocks.ratio([3.0], [2.0]) == {"ratio": 1.5, "quartiles": [1.5]}


def test_functions_take_turns_and_the_first_turn_does_not_count() -> None:
    called: list[str] = []
    now = iter(range(100))
    found = clocks.in_turns({name: lambda name=name: called.append(name) for name in "ab"}, 2, lambda: next(now))  # type: ignore[misc]
    assert "".join(called) == "ababab"
    assert found == {"a": [1, 1], "b": [1, 1]}


def test_time_within_another_part_is_taken_out_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "process_time", lambda: now[0])
    clock = clocks.Clock("rest")

    def wait(seconds: float) -> None:
        now[0] += seconds

    inner = clock.timed(wait, lambda: "inner")

    def outer() -> None:
        wait(2)
        inner(5)
        wait(1)

    wait(4)
    clock.timed(outer, lambda: "outer")()
    wait(8)
    clock.tick()
    assert clock.seconds == {"rest": 12.0, "outer": 3.0, "inner": 5.0}


def test_made_sets_are_read_as_real_ones(tmp_path: Path) -> None:
    folder = open_dataset(
        load_config("folder", [f"data.root={write_folder(tmp_path / 'set', 3, 5, (40, 50), 2)}"]).data
    )
    assert len(folder.classes) == 5
    assert [len(folder.items(split)) for split in ("train", "val")] == [3, 3]
    first, _, third = folder.items("train")
    assert np.array_equal(folder.read_image(first), folder.read_image(third))
    voc = open_dataset(load_config("voc", [f"data.root={write_voc(tmp_path / 'voc', 2, 1)}"]).data)
    assert [len(voc.items(split)) for split in ("train", "val")] == [2, 1]
    assert set(np.unique(voc.read_targets(voc.items("val")[0]))) <= {*range(21), 255}


TINY = [
    *("data.scenes.train=8", "data.scenes.val=2", "data.labeled=4", "data.scenes.height=64", "data.scenes.width=64"),
    *("device=cpu", "augment.crop=[32,32]", "batch_size=2", "threads=1", "discriminator.downscale=1"),
]


def test_a_step_is_measured_by_part() -> None:
    options = argparse.Namespace(camvid=None, animals=None, set=TINY)
    with timing.opened("scenes", options, " with discriminator") as trainer:
        found = timing.time_step(trainer, 2)
    parts = found["parts"]
    assert set(parts) == {"loading", "forward", "losses", "discriminator", "backward", "optimizer"}
    assert min(parts.values()) > 0
    assert 0.3 < sum(parts.values()) / found["ratio"] < 3


def test_one_of_two_runs_is_folded_in_every_part(monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[str] = []
    ran: dict[str, list[int]] = {"folded": [], "plain": []}

    def counted(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
        for name, function in functions.items():
            norms.clear()
            function()
            ran[name].append(len(norms))
        return {"folded": [1.0] * rounds, "plain": [2.0] * rounds}

    monkeypatch.setattr(timing, "in_turns", counted)
    monkeypatch.setattr(timing, "SCORED", 1)
    options = argparse.Namespace(camvid=None, animals=None, set=TINY, presets=["scenes", "voc"], rounds=2)
    note = register_module_forward_hook(
        lambda module, *_: norms.append("norm") if isinstance(module, nn.BatchNorm2d) else None
    )
    try:
        found = timing.measure_folding(options)
    finally:
        note.remove()
    assert ran["folded"] == [0, 0, 0]
    assert min(ran["plain"]) > 40
    assert found["scenes, step"] == {"ratio": 0.5, "quartiles": [0.5, 0.5, 0.5], "images_per_second": 4.0}
    assert [row["images_per_second"] for row in found.values()] == [8.0, 4.0, 1.0]


def test_fingerprints_differ_where_numbers_do() -> None:
    before = {"a": [1.0, {"ce": 2.0}], "weights": "x"}
    after = {"a": [1.0 + 1e-7, {"ce": 2.0 - 4e-6}], "weights": "x"}
    assert fingerprint.differences(before, before) == []
    assert len(fingerprint.differences(before, after)) == 2
    assert fingerprint.differences(before, after, 1e-6) == ["/a/1/ce: 2.0 before, 1.999996 now"]
    assert fingerprint.differences(before, after | {"weights": "y"}, 1e-5) == ["/weights: x before, y now"]


def test_scripts_name_what_exists() -> None:
    presets = {name.partition(",")[0] for name in full_size.CELLS} | {*timing.PRESETS}
    assert presets <= {*preset_names()}
    assert callable(diagnose.main)
