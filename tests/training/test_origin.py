"""A run that begins with the weights of another one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import SUPERVISED, StoppedError, last_tensors, on_call, state_of, stop, tiny
from torch import Tensor
from typer.testing import CliRunner

from latentseg import cli
from latentseg.config import Config
from latentseg.errors import RunError, UserError
from latentseg.runs.folder import open_run
from latentseg.training import trainer
from latentseg.training.loop import train
from latentseg.training.origin import Origin
from latentseg.training.trainer import State, training_step

MATCH = ["method.name=latent_match", "steps=2", "validate_every=0", "data.scenes.val=1"]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the latent-class method, with a discriminator."""
    options = ["steps=2", "validate_every=0", "data.scenes.val=1", "optim.lr=0.05"]
    return train(tiny(*options), tmp_path_factory.mktemp("runs") / "first").folder


def given(first: Path, config: Config, classes: tuple[str, ...] | None = None) -> tuple[State, str]:
    state = state_of(config)
    return state, Origin.open(first).give(state, classes or open_run(first).classes, config.method.name)


def same(left: dict[str, Tensor], right: dict[str, Tensor], start: str) -> bool:
    names = [name for name in left if name.startswith(start)]
    assert names
    return all(torch.equal(left[name], right[name]) for name in names)


def test_everything_of_the_same_method_but_the_discriminator(first: Path) -> None:
    state, text = given(first, tiny("seed=5"))
    theirs, ours = last_tensors(first)[1], state.tensors(optimizers=False)
    assert same(ours, theirs, "segmenter.")
    assert same(ours, theirs, "method.cooccurrence")
    assert not same(ours, theirs, "discriminator.layers.0.weight")
    assert text == (
        f"begins with the weights of {first}, step 2: segmenter: encoder, semantic_head, latent_head; "
        f"state of the method; new: discriminator"
    )


def test_a_teacher_starts_as_the_student_and_another_methods_state_anew(first: Path) -> None:
    state, text = given(first, tiny(*MATCH, "seed=5"))
    theirs, ours = last_tensors(first)[1], state.tensors(optimizers=False)
    assert same(ours, theirs, "segmenter.")
    assert same(
        {name.replace("teacher", "segmenter", 1): v for name, v in ours.items() if "teacher" in name}, theirs, ""
    )
    assert text.endswith("segmenter: encoder, semantic_head; teacher: encoder, semantic_head; new: state of the method")


def test_other_classes_have_fresh_heads(first: Path) -> None:
    """As many of them, but other ones."""
    config = tiny("seed=5")
    fresh = state_of(config).tensors(optimizers=False)
    state, text = given(first, config, tuple(f"other {name}" for name in open_run(first).classes))
    theirs, ours = last_tensors(first)[1], state.tensors(optimizers=False)
    assert same(ours, theirs, "segmenter.encoder.")
    for part in ("segmenter.semantic_head.", "segmenter.latent_head.", "method."):
        assert same(ours, fresh, part)
    assert "segmenter: encoder; new (the classes differ): segmenter: semantic_head, latent_head; discriminator" in text


def test_another_number_of_latent_classes_has_a_fresh_latent_head(first: Path) -> None:
    text = given(first, tiny("method.num_latent=7"))[1]
    assert "segmenter: encoder, semantic_head; new: segmenter: latent_head; discriminator; state of the method" in text


def test_another_encoder_is_refused(first: Path) -> None:
    with pytest.raises(RunError, match="fit another encoder than this one"):
        given(first, tiny("model.encoder=mobilenetv3_small_050"))


def test_a_new_run_takes_them_and_says_so_also_when_it_is_stopped_before_its_first_checkpoint(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny(*SUPERVISED, "optim.lr=1e-12")
    folder = tmp_path / "new"
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "training_step", on_call(1, training_step, stop))
        with pytest.raises(StoppedError):
            train(config, folder, origin=first)
    note = json.loads((folder / "from.json").read_text())
    assert (note["run"], note["step"], note["file"]) == (str(first), 2, "step_00000002.safetensors")
    capsys.readouterr()
    train(config, folder, resume=True)
    assert f"{folder} begins with the weights of {first}, step 2: segmenter: encoder" in capsys.readouterr().err
    name = "segmenter.semantic_head.classify.weight"
    assert torch.allclose(last_tensors(folder)[1][name], last_tensors(first)[1][name], atol=1e-6)
    train(config, folder, resume=True)  # from its own checkpoint by now
    assert "begins with" not in capsys.readouterr().err


def test_what_the_note_says_must_still_be_there(first: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="take one of them"):
        train(tiny(*SUPERVISED), tmp_path / "new", resume=True, origin=first)
    with pytest.raises(RunError, match="is not a run folder"):
        train(tiny(*SUPERVISED), tmp_path / "new", origin=tmp_path / "nothing")
    assert Origin.noted(tmp_path) is None
    (tmp_path / "from.json").write_text("[" * 100_000)
    with pytest.raises(RunError, match=r"from\.json cannot be read"):
        Origin.noted(tmp_path)
    (tmp_path / "from.json").write_text(json.dumps(Origin.open(first).note() | {"step": 1}))
    with pytest.raises(RunError, match="is another one by now"):
        Origin.noted(tmp_path)


def test_the_command_takes_the_runs_options_if_no_others_are_named(first: Path, tmp_path: Path) -> None:
    command = ["train", "--from", str(first), "steps=1", "optim.lr=0.001", "--run", str(tmp_path / "new")]
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 0, done.output
    began, now = open_run(first).config, open_run(tmp_path / "new").config
    assert now == began.model_copy(update={"steps": 1, "optim": began.optim.model_copy(update={"lr": 0.001})})
    assert (tmp_path / "new" / "from.json").is_file()
    with pytest.raises(UserError, match="name a preset"):
        CliRunner().invoke(cli.app, ["train"], catch_exceptions=False)


def test_a_run_that_diverges_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge() -> dict[str, Tensor]:
        raise UserError("step 3: the term 'ce' is nan")

    def step(*args: Any) -> dict[str, Tensor]:
        return diverge() if args[5] == 2 else training_step(*args)

    monkeypatch.setattr(trainer, "training_step", step)
    remedy = r"'ce' is nan. From its last checkpoint, step_00000002\.safetensors, .*latentseg train --from .*/run "
    with pytest.raises(UserError, match=remedy + r"optim\.lr=0\.002 --run NEW_FOLDER"):
        train(tiny(*SUPERVISED, "steps=4"), tmp_path / "run")
