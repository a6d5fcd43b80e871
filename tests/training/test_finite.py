"""A term that is not finite is named: at once on a CPU, a step later on a GPU, before anything is kept."""

import math

import pytest
import torch
from tiny import SUPERVISED, tiny

from latentseg.errors import UserError
from latentseg.training.finite import FiniteCheck, check_finite
from latentseg.training.trainer import Trainer

GPU = torch.device("cuda")
BAD = {"ce": torch.tensor(1.0), "match": torch.tensor(math.inf)}
FINE = {"ce": torch.tensor(1.0), "match": torch.tensor(2.0)}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_term_that_is_not_finite_is_named(value: float) -> None:
    values = {"real": torch.tensor(1.0), "fake": torch.tensor(value, dtype=torch.float64)}
    with pytest.raises(UserError, match=f"step 8: the term 'fake' is {value}"):
        check_finite(values, 7)
    check_finite({"real": torch.tensor(1.0)}, 7)


def test_a_cpu_looks_at_once() -> None:
    with pytest.raises(UserError, match="step 4: the term 'match' is inf"):
        FiniteCheck(torch.device("cpu")).look(BAD, 3)


def test_a_gpu_is_asked_one_step_later() -> None:
    check = FiniteCheck(GPU)
    check.look(BAD, 3)
    with pytest.raises(UserError, match="step 4: the term 'match' is inf"):
        check.look(FINE, 4)


def test_what_is_kept_is_asked_for_before() -> None:
    check = FiniteCheck(GPU)
    check.settle()
    check.look(FINE, 2)
    check.settle()
    check.look(BAD, 3)
    with pytest.raises(UserError, match="step 4: the term 'match' is inf"):
        check.settle()
    check.settle()  # it was said


def test_a_trainer_settles() -> None:
    trainer = Trainer.open(tiny(*SUPERVISED))
    trainer.seek(0)
    trainer._finite = FiniteCheck(GPU)
    step, batch = trainer.read()
    assert not isinstance(batch.images, tuple)
    batch.images[:] = math.nan
    trainer.learn(step, batch)
    with pytest.raises(UserError, match="step 1: the term 'ce' is nan"):
        trainer.settle()
