"""The loop: bit for bit after a kill, what it leaves, and what it refuses."""

import json
import math
import os
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from tiny import (
    FIELDS,
    LESSON,
    SUPERVISED,
    TINY,
    StoppedError,
    assert_same_run,
    last_tensors,
    on_call,
    rows,
    state_of,
    stop,
    tiny,
)
from torch.optim import SGD

from latentseg.analysis import analyse
from latentseg.errors import UserError
from latentseg.losses import consistency
from latentseg.methods.table import METHODS
from latentseg.runs.folder import Run, open_run
from latentseg.runs.locks import hold
from latentseg.runs.place import LOCK
from latentseg.training import loop, trainer
from latentseg.training.finite import FiniteCheck
from latentseg.training.loop import train
from latentseg.training.trainer import training_step


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the latent-class method, adversarial terms on, that was never stopped."""
    return train(tiny(), tmp_path_factory.mktemp("runs") / "whole").folder


def test_a_run_leaves_everything(whole_run: Path) -> None:
    names = {"config.yaml", "classes.json", "environment.json", "split", "metrics.jsonl", "tensorboard", "checkpoints"}
    names.add("pictures")
    assert {path.name for path in whole_run.iterdir()} == names
    found = rows(whole_run)
    assert [row["step"] for row in found if "ce" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in found if "val_miou" in row] == [2, 4, 6]
    for row in found:
        if "ce" in row:  # the consistency starts after a quarter of 6 steps
            consistent = {"cons"} if row["step"] > 2 else set()
            assert row.keys() == FIELDS | consistent | {"step", "effective_0.1", "effective_0.9"}
    step, tensors = last_tensors(whole_run)
    assert step == 6
    parts = {".".join(name.split(".")[: 2 if name.startswith("optimizer") else 1]) for name in tensors}
    assert parts == {"segmenter", "discriminator", "method", "optimizer.segmenter", "optimizer.discriminator"}
    assert float(tensors["method.cooccurrence"].sum()) > 0
    run = open_run(whole_run)
    assert run.config == tiny()
    assert (whole_run / "split" / "labeled.txt").read_text().count("\n") == 4
    assert (whole_run / "split" / "unlabeled.txt").read_text().count("\n") == 8


def test_the_log_is_strict_json(whole_run: Path) -> None:
    """Absent classes are null there, not NaN."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    for line in (whole_run / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_the_best_checkpoint_has_the_best_score(whole_run: Path) -> None:
    best = open_run(whole_run).checkpoints.best()
    assert best is not None
    scores = {row["step"]: row["val_miou"] for row in rows(whole_run) if "val_miou" in row}
    assert best.miou == max(scores.values())
    assert scores[best.step] == best.miou


def test_the_latent_branch_is_judged_while_it_learns(whole_run: Path) -> None:
    """The figures in the log are those of `analyse`, which reads the checkpoint of that step."""
    logged = {row["step"]: row for row in rows(whole_run) if "val_miou" in row}
    found = analyse(whole_run, "val")
    assert found.step == 6
    for name in ("latent_miou", "mapped_miou", "latent_information", "class_entropy"):
        assert logged[6][f"val_{name}"] == pytest.approx(found.figures[name], abs=1e-6), name
    assert logged[6]["val_dominated"] == found.structure.dominated
    assert logged[2]["val_latent_information"] != logged[6]["val_latent_information"]


@pytest.mark.parametrize(("where", "call"), [("step", 4), ("validation", 3), ("first step", 1)])
def test_a_stopped_run_goes_on_bit_for_bit(
    whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, call: int
) -> None:
    with monkeypatch.context() as patch:
        owner, name = (loop, "score_items") if where == "validation" else (trainer, "training_step")
        patch.setattr(owner, name, on_call(call, getattr(owner, name), stop))
        with pytest.raises(StoppedError):
            train(tiny(), tmp_path / "run")
    before = open_run(tmp_path / "run").checkpoints.last()
    assert (before.step if before else 0) == {"step": 2, "validation": 4, "first step": 0}[where]
    torch.manual_seed(99)  # nothing may depend on where the global generator stands
    train(tiny(), tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", whole_run)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "terms"),
    [
        ("advsemiseg", {"ce", "adv", "adv_u", "self", "real", "fake", "trusted"}),
        ("given_classes", {"ce", "groups", "adv", "adv_u", "cons", "real", "fake", "effective_0.1", "effective_0.9"}),
        ("symmetric", {"ce", "ce_2", "adv", "adv_2", "adv_u", "adv_u_2", "kl", "real", "fake"}),
        ("mean_teacher", {"ce", "match"} | LESSON),
        ("fixmatch", {"ce", "match"} | LESSON),
        ("unimatch", {"ce", "match_f", "match_1", "match_2"} | LESSON),
        ("cps", {"ce", "ce_2", "match", "match_2"} | LESSON),
        ("latent_match", {"ce", "match", "latent_classes"} | LESSON),
    ],
)
def test_the_other_methods_go_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, terms: set[str]
) -> None:
    options = [f"method.name={method}", "method.groups=identity", "method.consistency_start=0.5", "method.trust=0.4"]
    options += ["method.threshold=0.05"]
    config = tiny(*options, "steps=4", "data.scenes.val=1", "validate_every=0", "discriminator.real_maps=loader")
    whole = train(config, tmp_path / "whole").folder
    assert rows(whole)[-2].keys() == terms | {"step"}
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "training_step", on_call(4, training_step, stop))
        with pytest.raises(StoppedError):
            train(config, tmp_path / "run")
    torch.manual_seed(99)
    train(config, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", whole)
    moved = last_tensors(whole)[1]
    start = state_of(config).segmenter.state_dict()
    heads = [name for name in start if name.startswith(("semantic_head", "latent_head")) and name.endswith("weight")]
    assert not any(torch.equal(start[name], moved[f"segmenter.{name}"]) for name in heads)
    for other in ("teacher", "peer"):  # kept in the checkpoint: none of them is what the segmenter is
        theirs = [name for name in moved if name.startswith(f"{other}.semantic_head") and name.endswith("weight")]
        assert bool(theirs) == (other in {*METHODS[method].follows, *METHODS[method].trains})
        assert not any(torch.equal(moved[name], moved[name.replace(other, "segmenter", 1)]) for name in theirs)


KILLED = """
import os, signal, sys
from pathlib import Path
from latentseg.cli import main

replace = Path.replace


def replace_or_die(self, target):
    if target.name == "step_00000004.safetensors":
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)

Path.replace = replace_or_die
main()
"""


@pytest.mark.slow
def test_a_killed_process_goes_on_bit_for_bit(whole_run: Path, tmp_path: Path) -> None:
    """`kill -9` while a checkpoint is being written: log, validation and best checkpoint of that step are there."""
    folder = tmp_path / "run"
    command = [sys.executable, "-c", KILLED, "train", "scenes", *TINY, "--run", str(folder)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert rows(folder)[-1]["step"] == 4
    assert (folder / "checkpoints" / ".step_00000004.safetensors.tmp").exists()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "ce": 1.')  # and a line that was cut off
    assert last_tensors(folder)[0] == 2
    train(tiny(), folder, resume=True)
    assert_same_run(folder, whole_run)


def test_a_term_that_is_not_finite_stops_the_run(
    whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("latentseg.methods.latent.consistency", on_call(3, consistency, lambda loss: loss / 0))
        with pytest.raises(UserError, match=r"step 5: the term 'cons' is inf; .* smaller weight of c"):
            train(tiny(), tmp_path / "run")
    assert [row["step"] for row in rows(tmp_path / "run") if "ce" in row] == [1, 2, 3, 4]
    train(tiny(), tmp_path / "run", resume=True)  # the last good checkpoint is whole
    assert_same_run(tmp_path / "run", whole_run)


def test_a_learning_rate_that_is_too_high_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"step [23]: the term 'ce' is (nan|inf); training stopped"):
        train(tiny(*SUPERVISED, "steps=4", "optim.lr=100", "optim.head_factor=10000"), tmp_path / "high")


@pytest.mark.parametrize("log_every", [1, 2])
def test_a_check_that_comes_late_comes_before_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_every: int
) -> None:
    monkeypatch.setattr(trainer, "FiniteCheck", lambda _device: FiniteCheck(torch.device("cuda")))
    high = tiny(*SUPERVISED, "steps=6", "optim.lr=100", "optim.head_factor=10000", f"log_every={log_every}")
    with pytest.raises(UserError, match=r"step [23]: the term 'ce' is (nan|inf); training stopped"):
        train(high, tmp_path / "high")
    assert all(row["ce"] is not None for row in rows(tmp_path / "high"))


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No later term would tell: the update is the last one."""

    def step(optimizer: SGD, _closure: object = None) -> None:
        optimizer.param_groups[0]["params"][0].data.fill_(math.inf)

    monkeypatch.setattr(SGD, "step", step)
    with pytest.raises(UserError, match=r"step 1: segmenter\..* holds values that are not finite"):
        train(tiny(*SUPERVISED, "steps=1"), tmp_path / "run")
    checkpoints = open_run(tmp_path / "run").checkpoints
    assert checkpoints.last() is None
    assert checkpoints.best() is None


def test_workers_change_nothing(whole_run: Path, tmp_path: Path) -> None:
    """A change of `workers` is allowed when a run goes on, too."""
    train(tiny("workers=2"), tmp_path / "run")
    assert_same_run(tmp_path / "run", whole_run)


@pytest.mark.slow
def test_double_precision_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny("precision=64-true", "steps=3", "checkpoint_every=1", "data.scenes.val=1")
    train(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "training_step", on_call(3, training_step, stop))
        with pytest.raises(StoppedError):
            train(config, tmp_path / "run")
    train(config, tmp_path / "run", resume=True)
    tensors = last_tensors(tmp_path / "run")[1]
    assert tensors["segmenter.semantic_head.classify.weight"].dtype == torch.float64
    assert tensors["optimizer.segmenter.0.momentum_buffer"].dtype == torch.float64
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_bfloat16_trains(tmp_path: Path) -> None:
    train(tiny("precision=bf16-mixed", "steps=2", "data.scenes.val=1"), tmp_path / "run")
    assert last_tensors(tmp_path / "run")[1]["segmenter.semantic_head.classify.weight"].dtype == torch.float32


def test_resume_starts_a_run_that_has_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny(*SUPERVISED)
    (tmp_path / "empty").mkdir()
    (tmp_path / "config").mkdir()
    first = train(config, tmp_path / "missing" / "folder", resume=True)
    (tmp_path / "config" / "config.yaml").write_text((first.folder / "config.yaml").read_text())
    for name in ("empty", "config"):
        train(config, tmp_path / name, resume=True)
        assert_same_run(tmp_path / name, first.folder)
    assert "steps 0 to 2" in capsys.readouterr().err


def test_a_finished_run_stays_as_it_is(whole_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [whole_run / "metrics.jsonl", *(whole_run / "checkpoints").iterdir()]
    before = {path: path.read_bytes() for path in paths}
    train(tiny("workers=1", "log_every=3", "checkpoint_every=5"), whole_run, resume=True)  # none changes the result
    assert {path: path.read_bytes() for path in before} == before
    assert "steps 6 to 6" in capsys.readouterr().err


def test_what_is_there_is_not_overwritten(whole_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not empty: --resume goes on"):
        train(tiny(), whole_run)
    with pytest.raises(UserError, match=r"another configuration \(optim\.lr: 0\.5 here, 0\.004 there\)"):
        train(tiny("optim.lr=0.5"), whole_run, resume=True)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(UserError, match="holds no run"):
        train(tiny(), tmp_path / "notes", resume=True)
    with pytest.raises(UserError, match="is not empty"):
        train(tiny(), tmp_path / "notes")
    with pytest.raises(UserError, match=r"a\.txt is a file; name a folder"):
        train(tiny(), tmp_path / "notes" / "a.txt")
    with pytest.raises(UserError, match=r"cannot create .*: .*a\.txt is not a folder that you may write to"):
        train(tiny(), tmp_path / "notes" / "a.txt" / "run")
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["a.txt"]


def test_one_process_at_a_time_trains_a_run(whole_run: Path, tmp_path: Path) -> None:
    with hold(tmp_path / "run" / LOCK, "the run"):
        with pytest.raises(UserError, match=f"run is in use by pid {os.getpid()}"):
            train(tiny(), tmp_path / "run")
        assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK]
    assert not (whole_run / LOCK).exists()  # let go at the end


def test_a_changed_data_set_is_noticed(tmp_path: Path) -> None:
    config = tiny(*SUPERVISED, "steps=1")
    run = train(config, tmp_path / "run")
    (run.folder / "split" / "labeled.txt").write_text("train/0\n")
    with pytest.raises(UserError, match="the data set has changed since"):
        train(config, run.folder, resume=True)
    assert (run.folder / "split" / "labeled.txt").read_text() == "train/0\n"
    assert not (run.folder / "split-now").exists()


def test_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="device=cuda"):
        train(tiny("device=cuda"), tmp_path / "run")
    with pytest.raises(UserError, match="nothing to resume: name the run folder"):
        train(tiny(), resume=True)
    with pytest.raises(UserError, match="13 labelled"):
        train(tiny("data.labeled=13"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_runs_get_free_names_and_notes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = tiny(*SUPERVISED, "steps=1", "data.labeled=1", "seed=3")
    assert [train(config).folder.name for _ in range(2)] == ["scenes-supervised-s3", "scenes-supervised-s3-2"]
    assert "note: 1 labelled images are fewer than a batch (2): they repeat within it" in capsys.readouterr().err
    mixing = [name for name, row in METHODS.items() if row.cutmix]
    assert mixing == ["mean_teacher", "fixmatch", "unimatch", "cps", "latent_match"]
    for name in ("latent", "fixmatch"):
        train(tiny(f"method.name={name}", "model.batchnorm=frozen", "steps=1", "batch_size=1"))
        assert ("note: CutMix changes nothing" in capsys.readouterr().err) == (name in mixing)


def test_all_labels_need_no_unlabelled_stream(tmp_path: Path) -> None:
    run = train(tiny("data.labeled=all", "steps=2", "data.scenes.val=1"), tmp_path / "run")
    first = rows(run.folder)[0]
    assert first.keys() == FIELDS - {"adv_u"} | {"step", "effective_0.1", "effective_0.9"}


def test_without_its_terms_the_method_is_the_baseline(tmp_path: Path) -> None:
    off = [f"method.lambda_{name}=0" for name in ("latent", "cons", "lbl_adv", "ulbl_adv")]
    latent = train(tiny(*off, "steps=4", "data.scenes.val=1"), tmp_path / "latent").folder
    supervised = train(tiny("method.name=supervised", "steps=4", "data.scenes.val=1"), tmp_path / "supervised").folder
    assert [row.get("ce") for row in rows(latent)] == [row.get("ce") for row in rows(supervised)]
    assert [row.get("val_iou") for row in rows(latent)] == [row.get("val_iou") for row in rows(supervised)]
    left, right = last_tensors(latent)[1], last_tensors(supervised)[1]
    assert "discriminator.layers.0.weight" not in left
    names = [name for name in right if name.startswith("segmenter.")]
    assert [name for name in names if not torch.equal(left[name], right[name])] == []


def test_a_frozen_encoder_does_not_change(tmp_path: Path) -> None:
    config = tiny("model.frozen=true", "steps=2", "data.scenes.val=1")
    before = state_of(config).segmenter.state_dict()
    train(config, tmp_path / "run")
    after = last_tensors(tmp_path / "run")[1]
    for name, value in before.items():
        same = torch.equal(value, after[f"segmenter.{name}"])
        assert same == name.startswith(("encoder.", "pixel_")), name


def test_the_environment_is_written_down(whole_run: Path) -> None:
    values = json.loads((whole_run / "environment.json").read_text())
    assert values["packages"]["torch"] == metadata.version("torch")
    assert values["cores"] == os.cpu_count()
    run = Run(whole_run, tiny(), (), open_run(whole_run).palette)
    assert run.checkpoints.folder == whole_run / "checkpoints"
