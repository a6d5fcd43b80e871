"""What a run that goes on must keep, and what a new one takes from an old one."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import SUPERVISED, StoppedError, assert_same_run, last_tensors, on_call, rows, stop, tiny
from torch import nn
from torch.nn import functional as F

from latentseg.config import Config
from latentseg.errors import UserError
from latentseg.inference.evaluate import score_items
from latentseg.metrics import Scores
from latentseg.models.segmenter import Segmenter, build_segmenter
from latentseg.presets import load_config
from latentseg.runs.folder import open_run, recorded_precision
from latentseg.runs.metrics import read_metrics
from latentseg.training import loop, trainer
from latentseg.training.loop import train
from latentseg.training.trainer import Trainer, training_step

FOLDER = ["data.kind=folder", "data.labeled=2", "data.classes=[a,b,c]", "data.check=quick"]


def with_dropout(*args: Any, **kwargs: Any) -> Segmenter:
    """A segmenter whose heads draw from PyTorch's global random numbers, as stochastic depth does."""
    segmenter = build_segmenter(*args, **kwargs)

    def drop(module: nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
        return F.dropout(inputs[0], 0.5, module.training)

    segmenter.semantic_head.get_submodule("classify").register_forward_pre_hook(drop)
    return segmenter


def test_dropout_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "build_segmenter", with_dropout)
    config = tiny(*SUPERVISED, "steps=4", "checkpoint_every=1")
    train(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "training_step", on_call(3, training_step, stop))
        with pytest.raises(StoppedError):
            train(config, tmp_path / "run")
    torch.manual_seed(99)
    train(config, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    monkeypatch.setattr(trainer, "build_segmenter", build_segmenter)
    train(config, tmp_path / "without")
    assert rows(tmp_path / "without") != rows(tmp_path / "whole")  # dropout took part


def test_the_seconds_of_a_step_are_those_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(result: Scores) -> Scores:
        time.sleep(1.5)
        return result

    monkeypatch.setattr(loop, "score_items", on_call(1, score_items, slowly))
    train(tiny(*SUPERVISED, "steps=4", "validate_every=2", "log_every=1"), tmp_path / "run")
    seconds = [row["seconds"] for row in read_metrics(tmp_path / "run") if "seconds" in row]
    assert len(seconds) == 4
    assert seconds[2] < 1.5  # the step behind the validation


def test_a_run_keeps_its_precision_on_another_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(*SUPERVISED)
    assert config.precision == "auto"
    folder = train(config, tmp_path / "run").folder
    path = folder / "environment.json"
    environment = json.loads(path.read_text(encoding="utf-8"))
    assert environment["precision"] == "32-true"
    path.write_text(json.dumps(environment | {"precision": "bf16-mixed"}), encoding="utf-8")
    opened: list[Config] = []

    def note(config: Config) -> Trainer:
        opened.append(config)
        return Trainer.open(config)

    class Noting(Trainer):
        open = staticmethod(note)  # type: ignore[assignment]

    monkeypatch.setattr(loop, "Trainer", Noting)
    train(config, folder, resume=True)
    assert [config.precision for config in opened] == ["bf16-mixed"]
    assert recorded_precision(folder, tiny("precision=32-true")).precision == "32-true"
    assert recorded_precision(tmp_path, config) == config


def test_a_data_set_may_move(folder_set: Callable[..., Path], tmp_path: Path) -> None:
    root = folder_set()
    options = [*SUPERVISED, *FOLDER, "steps=2", "checkpoint_every=1"]
    run = train(tiny(*options, f"data.root={root}"), tmp_path / "run")
    moved = root.rename(tmp_path / "elsewhere")
    train(tiny(*options, f"data.root={moved}"), run.folder, resume=True)
    assert open_run(run.folder, [f"data.root={moved}"]).config.data.root == str(moved)


def test_a_run_is_not_lengthened_but_another_begins_with_its_weights(tmp_path: Path) -> None:
    first = train(tiny(*SUPERVISED), tmp_path / "first").folder
    remedy = r"cannot be made longer\. .*: latentseg train --from .*first steps=9 --run NEW_FOLDER"
    with pytest.raises(UserError, match=remedy):
        train(tiny(*SUPERVISED, "steps=9"), first, resume=True)
    longer = ["steps=1", f"model.weights={first}", "model.weights_kind=latentseg", "optim.lr=1e-12"]
    config = load_config(first / "config.yaml", longer)
    second = train(config, tmp_path / "second").folder
    ours, theirs = last_tensors(second)[1], last_tensors(first)[1]
    names = [name for name in ours if name.startswith("segmenter.") and name.endswith("weight")]
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in names)
    (tmp_path / "none" / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match="this run has no checkpoint yet"):
        train(load_config(first / "config.yaml", [*longer, f"model.weights={tmp_path / 'none'}"]), tmp_path / "third")


def test_options_of_earlier_versions(tmp_path: Path) -> None:
    """A new configuration says the new name; an old run folder opens."""
    with pytest.raises(UserError, match=r"model\.pieces is now called model\.micro_batches"):
        load_config("voc", ["model.pieces=5"])
    folder = train(tiny(*SUPERVISED), tmp_path / "run").folder
    text = (folder / "config.yaml").read_text(encoding="utf-8")
    (folder / "config.yaml").write_text(text.replace("micro_batches: 1", "pieces: 1"), encoding="utf-8")
    assert "pieces" in (folder / "config.yaml").read_text(encoding="utf-8")
    assert open_run(folder).config.model.micro_batches == 1
    train(tiny(*SUPERVISED), folder, resume=True)
    with pytest.raises(UserError, match=r"model\.pieces is now called model\.micro_batches"):
        load_config(folder / "config.yaml")
