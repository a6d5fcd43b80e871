"""A tiny sweep, and training and scoring that only leave files."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from latentseg.config import Config
from latentseg.presets import dump_config
from latentseg.runs.checkpoints import Checkpoints
from latentseg.sweeps import run, work
from latentseg.sweeps.cells import Sweep
from latentseg.sweeps.files import read_sweep

TINY = """# Two methods on tiny scenes
base: scenes
table: 3
options:
  {steps: 2, batch_size: 2, threads: 1, device: cpu, log_every: 1, checkpoint_every: 1, cache: none, data.labeled: 4,
   data.scenes.train: 8, data.scenes.val: 1, data.scenes.test: 1, data.scenes.height: 64, data.scenes.width: 64,
   augment.crop: [32, 32], model.weights_kind: none, model.frozen: false, model.head_channels: 16,
   discriminator.downscale: 1, discriminator.width: 8, method.lambda_latent: 1}
rows:
  supervised: {method.name: supervised}
  + latent classes: {method.num_latent: 5}
grid: {seed: [0, 1]}
splits: [val, test]
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., Sweep]:
    """The sweep above, with overrides; the file is tiny.yaml in the temporary folder."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return lambda *overrides: read_sweep(path, overrides)


@pytest.fixture
def sweep_of(tmp_path: Path) -> Callable[..., Sweep]:
    """The sweep of a text, with overrides; the file is my.yaml in the temporary folder."""

    def read(text: str, *overrides: str) -> Sweep:
        (tmp_path / "my.yaml").write_text(text)
        return read_sweep(tmp_path / "my.yaml", overrides)

    return read


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Training and scoring that only leave files; returns what was called, with the folder's name."""
    calls: list[tuple[str, str]] = []

    def train(config: Config, folder: Path, resume: bool) -> None:
        assert resume
        calls.append(("train", folder.name))
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.yaml").write_text(dump_config(config))
        Checkpoints(folder / "checkpoints").save(config.steps, {})
        rows = [{"step": 1, "ce": 3.0, "seconds": 1.5}, {"step": 2, "seconds": 2.0}, {"step": 2, "val_miou": 0.1}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def evaluate(folder: Path, split: str, overrides: list[str]) -> SimpleNamespace:
        calls.append((" ".join([split, *overrides]), folder.name))
        scores = {"miou": 0.5, "iou": [0.5, None] + [None] * 17, "pixel_accuracy": 0.75, "absent": 1}
        return SimpleNamespace(to_json=lambda: json.dumps({"step": 2, "scores": scores}))

    monkeypatch.setattr(work, "train", train)
    monkeypatch.setattr(work, "evaluate", evaluate)
    monkeypatch.setattr(work, "POLL", 0.02)
    monkeypatch.setattr(run, "POLL", 0.02)
    return calls
