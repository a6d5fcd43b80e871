"""Exports of a tiny run: what is in the files, what they say, and the example of the page."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from live import photo, train_with
from PIL import Image
from typer.testing import CliRunner

from latentseg import Model, __version__
from latentseg.cli import app
from latentseg.errors import UserError
from latentseg.export import run as export_module
from latentseg.export.files import open_onnx
from latentseg.export.int8 import to_int8
from latentseg.export.run import Export, export_run
from latentseg.runs.folder import open_run

pytestmark = pytest.mark.slow
PAGE = Path(__file__).parents[2] / "docs" / "export.md"
OPTIONS = ["model.encoder=test_resnet", "model.weights_kind=none", "model.head_channels=16", "augment.crop=[64,64]"]


def trained(folder: Path, *options: str) -> Path:
    """A run whose predictions vary, with logits of an ordinary size: float32 keeps 1e-4 of no others."""
    run = open_run(train_with(folder, *options))
    last = run.checkpoints.last()
    assert last is not None
    tensors = run.checkpoints.read(last)
    for name, value in tensors.items():
        if name.endswith("head.classify.weight"):
            value.mul_(0.03)
    run.checkpoints.save(3, tensors)
    return run.folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("run") / "run", *OPTIONS)


@pytest.fixture(scope="module")
def exported(run: Path) -> Export:
    return export_run(run, run.parent / "a.onnx", latent=True)


def test_onnx_says_what_the_model_says(run: Path, exported: Export) -> None:
    image = photo(48, 70)
    model = Model.open(run, overrides=["precision=32-true"])
    probs, latent = open_onnx(exported.file.read_bytes())(np.stack([image, image]))
    expected = model.probs(image)
    assert expected.latent is not None
    assert np.abs(probs - expected.semantic.numpy()).max() < 1e-4
    assert np.abs(latent - expected.latent.numpy()).max() < 1e-4
    assert len(set(exported.parity.sizes)) == 5


def test_its_metadata(run: Path, exported: Export) -> None:
    import onnx  # noqa: PLC0415

    content = exported.file.read_bytes()
    model = onnx.load_model_from_string(content)
    notes = {entry.key: entry.value for entry in model.metadata_props}
    opened = Model.open(run)
    assert json.loads(notes["classes"]) == list(opened.classes)
    assert json.loads(notes["palette"]) == opened.run.palette.tolist()
    assert (notes["latentseg"], notes["resize"], notes["size"]) == (__version__, "0.5", "any")
    assert notes["checkpoint"] == f"last, step {opened.step}"
    assert os.fsencode(str(Path(torch.__file__).parent)) not in content  # no name of a file of this machine
    assert [entry.name for entry in model.graph.output] == ["probabilities", "latent"]


def test_the_example_of_the_page(run: Path, exported: Export, tmp_path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]
    assert len(code.splitlines()) <= 22
    assert set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE)) == {
        "json",
        "sys",
        "numpy",
        "onnxruntime",
        "PIL",
    }
    (tmp_path / "example.py").write_text(code)
    Image.fromarray(photo(80, 120)).save(tmp_path / "photo.png")
    command = [sys.executable, "example.py", str(exported.file), "photo.png", "ids.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    ids = Image.open(tmp_path / "ids.png")
    expected = Model.open(run).predict(tmp_path / "photo.png").labels
    assert ids.mode == "P"
    assert ids.getpalette()[: 3 * len(exported.notes)] is not None  # type: ignore[index]
    assert (np.asarray(ids) == expected).mean() > 0.9  # ours scales probabilities, the example ids
    assert done.stdout.splitlines()[0].startswith(f"{json.loads(exported.notes['classes'])[0]}: ")


def test_int8_is_smaller_and_its_loss_is_told(run: Path, exported: Export) -> None:
    content = exported.file.read_bytes()
    small, loss = to_int8(Model.open(run), content)
    assert len(small) < 0.6 * len(content)
    assert loss.images == 1
    assert 0 <= loss.different < 0.5
    assert 0 <= loss.before <= 1
    assert f"{100 * loss.before:.2f} -> {100 * loss.after:.2f} %" in loss.text()


def test_pt2_of_the_command_line(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.pt2"
    done = CliRunner().invoke(app, ["export", str(run), "--out", str(out), "--format", "pt2"])
    assert done.exit_code == 0, done.output
    assert "of any size, scaled by 0.5 before" in done.output
    extra = {"latentseg.json": ""}
    program = torch.export.load(io.BytesIO(out.read_bytes()), extra_files=extra).module()
    image = photo(48, 70)
    with torch.no_grad():
        [probs] = program(torch.from_numpy(image[None]))
    assert np.abs(probs.numpy() - Model.open(run).probs(image).semantic.numpy()).max() < 1e-4
    assert json.loads(extra["latentseg.json"])["size"] == "any"


def test_what_says_something_else_is_not_written(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lies(content: bytes) -> object:
        assert content == b"a file"
        return lambda images: [np.zeros((len(images), 19, *images.shape[1:3]), np.float32)]

    monkeypatch.setattr(export_module, "traced", lambda *_: None)
    monkeypatch.setattr(export_module, "to_pt2", lambda *_: b"a file")
    monkeypatch.setattr(export_module, "open_pt2", lies)
    with pytest.raises(UserError, match="Nothing was written"):
        export_run(run, tmp_path / "a.pt2", "pt2")
    assert list(tmp_path.iterdir()) == []


def test_a_transformer_is_of_the_size_of_its_views(tmp_path: Path) -> None:
    options = ["model.encoder=test_vit", "model.weights_kind=none", "model.head_stride=16", "augment.crop=[32,48]"]
    run = trained(tmp_path / "run", *options, "method.name=supervised")
    with pytest.raises(UserError, match="--int8 is there for convolutional encoders, not for test_vit"):
        export_run(run, tmp_path / "a.onnx", int8=True)
    with pytest.raises(UserError, match="no latent branch: leave out --latent"):
        export_run(run, tmp_path / "a.pt2", "pt2", latent=True)
    done = export_run(run, tmp_path / "a.pt2", "pt2")
    assert done.notes["size"] == "32x48"
    assert "of 32x48" in done.text()
