"""One step: its gradients, rates and terms, and what a step is built from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import SUPERVISED, state_of, tiny
from torch import Tensor, nn
from torch.optim import SGD

from latentseg.config import MethodConfig, StrongConfig
from latentseg.data.balance import balanced_weights, class_pixels
from latentseg.data.batches import Batch
from latentseg.data.datasets import open_dataset
from latentseg.data.loading import batches
from latentseg.data.splits import draw_split
from latentseg.engine import make_fabric
from latentseg.errors import UserError
from latentseg.methods.base import Losses, Method, Networks, Setup, Term
from latentseg.methods.latent import Latent
from latentseg.training import trainer
from latentseg.training.loop import train
from latentseg.training.optim import decay
from latentseg.training.trainer import Trainer, class_weights, total, training_step


def test_methods_start_from_equal_weights_and_see_equal_labels() -> None:
    configs = [tiny(), tiny("method.name=supervised")]
    latent, supervised = (state_of(config).segmenter.state_dict() for config in configs)
    assert {key for key in latent if key not in supervised} == {key for key in latent if "latent_head" in key}
    assert [key for key in supervised if not torch.equal(latent[key], supervised[key])] == []
    other = state_of(tiny("seed=1")).segmenter.state_dict()
    assert not torch.equal(other["semantic_head.classify.weight"], latent["semantic_head.classify.weight"])

    streams: list[list[Batch]] = []
    for config, unlabeled in zip(configs, (True, False), strict=True):
        dataset = open_dataset(config.data)
        split = draw_split(dataset, config.data, config.seed)
        mean = (0.5, 0.5, 0.5)
        streams.append([batch for _, batch in batches(dataset, split, config, mean, unlabeled=unlabeled)])
    for with_unlabeled, without in zip(*streams, strict=True):
        assert torch.equal(with_unlabeled.images, without.images)
        assert torch.equal(with_unlabeled.targets, without.targets)
        assert with_unlabeled.unlabeled is not None
        assert without.unlabeled is None


@pytest.mark.parametrize(("step", "factor"), [(0, 1.0), (1, 0.9**0.9), (5, 0.5**0.9), (9, 0.1**0.9)])
def test_rates_decay_polynomially(step: int, factor: float) -> None:
    config = tiny("optim.lr=0.01", "optim.discriminator_lr=0.002", "optim.power=0.9")
    optimizers = state_of(config).optimizers
    for _ in range(2):  # from the initial rates, not from the last ones
        decay(optimizers, step / 10, config.optim.power)
    rates = [group["lr"] for name in ("segmenter", "discriminator") for group in optimizers[name].param_groups]
    assert rates == pytest.approx([0.01 * factor, 0.1 * factor, 0.002 * factor], rel=1e-12)


def test_the_loop_applies_the_rate_of_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def note(*args: Any) -> dict[str, Tensor]:
        seen.append(args[3]["segmenter"].param_groups[0]["lr"])
        return training_step(*args)

    monkeypatch.setattr(trainer, "training_step", note)
    train(tiny(*SUPERVISED, "steps=3", "optim.lr=0.001", "optim.power=0.5"), tmp_path / "run")
    assert seen == pytest.approx([0.001, 0.001 * (2 / 3) ** 0.5, 0.001 * (1 / 3) ** 0.5], rel=1e-12)


def test_heads_learn_ten_times_faster() -> None:
    state = state_of(tiny())
    encoder, heads = state.optimizers["segmenter"].param_groups
    assert heads["lr"] == pytest.approx(10 * encoder["lr"])
    assert (encoder["momentum"], encoder["weight_decay"], heads["weight_decay"]) == (0.9, 1e-4, 1e-4)
    adam = state.optimizers["discriminator"].param_groups[0]
    assert (adam["lr"], adam["betas"]) == (1e-4, (0.9, 0.99))
    ids = [id(parameter) for group in (encoder, heads) for parameter in group["params"]]
    trained = [id(parameter) for parameter in state.segmenter.parameters() if parameter.requires_grad]
    assert sorted(ids) == sorted(trained)
    named = {id(parameter): name for name, parameter in state.segmenter.named_parameters()}
    assert all(named[id(parameter)].startswith("encoder.") for parameter in encoder["params"])
    assert not any(named[id(parameter)].startswith("encoder.") for parameter in heads["params"])


class Parts(Method):
    """Two parts for one network and one for another."""

    def __init__(self) -> None:
        super().__init__(Setup(MethodConfig(name="supervised"), StrongConfig(), (), 1.0, 0))

    def terms(self, nets: nn.ModuleDict, batch: Batch) -> list[Losses]:
        first, second = (nets["segmenter"](batch.images * scale).square() for scale in (1, 3))
        other = nets["discriminator"](batch.images).exp().mean()
        return [
            Losses("segmenter", {"a": Term(2.0, first.mean()), "b": Term(0.5, first.sum())}),
            Losses("segmenter", {"c": Term(0.1, second.mean())}),
            Losses("discriminator", {"d": Term(1.0, other)}),
        ]

    def forward(self, nets: Networks, batch: Batch, _step: int) -> Iterator[Losses]:
        yield from self.terms(nets, batch)


def test_one_step_is_one_step_along_the_gradient_of_the_sum() -> None:
    torch.manual_seed(0)
    nets = Networks({name: nn.Linear(3, 2).double() for name in ("segmenter", "discriminator")})
    optimizers: dict[str, Any] = {name: SGD(net.parameters(), lr=0.01) for name, net in nets.items()}
    fabric = make_fabric(tiny("precision=64-true"))
    for step in range(2):  # a second one shows that gradients start from 0
        batch = Batch(torch.randn(4, 3, dtype=torch.float64), torch.zeros(4, dtype=torch.int64))
        summed = torch.stack([t.weight * t.value for part in Parts().terms(nets, batch) for t in part.terms.values()])
        gradients = torch.autograd.grad(summed.sum(), list(nets.parameters()))
        expected = [p.detach() - 0.01 * g for p, g in zip(nets.parameters(), gradients, strict=True)]
        values = training_step(fabric, Parts(), nets, optimizers, batch, step)
        for parameter, wanted in zip(nets.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.detach(), wanted, rtol=0, atol=1e-12)
        assert list(values) == ["a", "b", "c", "d"]
        assert not any(value.requires_grad for value in values.values())


def test_the_methods_parts_add_up_to_the_gradient_of_the_sum() -> None:
    """Eqs. 6, 11 and 12 of the real method, whose discriminator is switched on and off between the parts."""
    config = tiny("method.consistency_start=0", "model.batchnorm=frozen")
    dataset = open_dataset(config.data)
    split = draw_split(dataset, config.data, config.seed)
    _, batch = next(batches(dataset, split, config, (0.5, 0.5, 0.5)))
    gradients: list[list[Tensor | None]] = []
    for at_once in (True, False):
        state = state_of(config)
        nets = Networks(state.networks)
        assert isinstance(state.method, Latent)
        parts = list(state.method(nets, batch, 0)) if at_once else []
        if at_once:
            torch.autograd.backward(torch.stack([total(part) for part in parts]).sum())
        else:
            optimizers: dict[str, Any] = {name: SGD(net.parameters(), lr=0.0) for name, net in nets.items()}
            training_step(make_fabric(config), state.method, nets, optimizers, batch, 0)
        gradients.append([parameter.grad for parameter in nets.parameters()])
    compared = 0
    for left, right in zip(*gradients, strict=True):
        assert (left is None) == (right is None)
        if left is not None and right is not None:
            torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)
            compared += bool(left.abs().sum() > 0)
    assert compared > 50


def test_the_terms_are_weighed_and_summed() -> None:
    losses = Losses("segmenter", {"a": Term(2.0, torch.tensor(3.0)), "b": Term(0.5, torch.tensor(1.0))})
    assert float(total(losses)) == 6.5


def test_the_classes_weigh_as_configured() -> None:
    dataset = open_dataset(tiny().data)
    split = draw_split(dataset, tiny().data, 0)
    assert class_weights(tiny(), dataset, split) is None
    balanced = class_weights(tiny("optim.class_weights=balanced"), dataset, split)
    assert balanced == tuple(balanced_weights(class_pixels(dataset, split.labeled)))
    assert len(set(balanced)) > 3
    given = ",".join(["2"] * 19)
    assert class_weights(tiny(f"optim.class_weights=[{given}]"), dataset, split) == (2.0,) * 19
    state = Trainer.open(tiny("optim.class_weights=balanced")).state
    assert state.method.weights is not None
    assert state.method.weights.tolist() == pytest.approx(balanced)
    with pytest.raises(UserError, match="has 2 weights, the data set 19 classes"):
        class_weights(tiny("optim.class_weights=[1,2]"), dataset, split)


@pytest.mark.parametrize(
    ("options", "teacher", "folded"),
    [
        (["model.frozen=true"], "the same", [True, True]),
        (["model.frozen=true"], "another", [True, False]),  # its BatchNorm still moves towards the segmenter's
        (["model.frozen=true", "compile=true"], "the same", [False, False]),
        (["model.frozen=false"], "the same", [False, False]),
    ],
)
def test_frozen_encoders_run_folded(
    monkeypatch: pytest.MonkeyPatch, options: list[str], teacher: str, folded: list[bool]
) -> None:
    monkeypatch.setattr(nn.Module, "compile", lambda *_: None)
    one = Trainer.open(tiny("method.name=mean_teacher", *options))
    if teacher == "another":
        one.state.networks["teacher"].get_submodule("encoder.net.bn1").running_mean.add_(1)  # type: ignore[operator]
    one.seek(0)
    one.close()
    ran = dict.fromkeys(("segmenter", "teacher"), False)
    for name in ran:
        network = one.state.networks[name].eval()
        network.get_submodule("encoder").register_forward_pre_hook(lambda *_, name=name: ran.update({name: True}))
        with torch.no_grad():
            network(torch.rand(1, 3, 32, 32))
    assert [not used for used in ran.values()] == folded
