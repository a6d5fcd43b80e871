"""The table of methods says what they do, and a method is added by its file, its row and its options."""

import sys
import weakref
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from pydantic import BaseModel
from torch import Tensor, nn
from toy import C, L, batch, built, networks, run
from twins import data_of

from latentseg.config import Config, DiscriminatorConfig, MethodConfig, OptimConfig, StrongConfig
from latentseg.data.batches import Batch
from latentseg.errors import UserError
from latentseg.losses import cross_entropy
from latentseg.methods import table
from latentseg.methods.base import Losses, Method, Networks, Term
from latentseg.methods.table import METHODS, Row, readers
from latentseg.presets import describe_options, load_config, only_read, option_names

OPTIONS = [f"method.{name}" for name in MethodConfig.model_fields if name != "name"]
OPTIONS += [f"strong.{name}" for name in StrongConfig.model_fields]
OPTIONS += [f"discriminator.{name}" for name in DiscriminatorConfig.model_fields]


def nets_for(name: str) -> Networks:
    row = METHODS[name]
    second = row.second_channels(MethodConfig(name=name, num_latent=L, groups="identity"), C)
    others = [other for other in (*row.trains, *row.follows) if other in ("teacher", "peer")]
    return networks("discriminator" in row.trains, second or L, others)


def build(name: str) -> Method:
    return built({"name": name, "groups": "identity", "threshold": 0.3, "teacher_decay": 0.4})


class Spy:
    """Notes which options of a section are read."""

    def __init__(self, section: BaseModel, prefix: str, seen: set[str]) -> None:
        self._section, self._prefix, self._seen = section, prefix, seen

    def __getattr__(self, name: str) -> Any:
        self._seen.add(f"{self._prefix}.{name}")
        return getattr(self._section, name)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", ["images", "features"])
def test_a_method_reads_no_option_that_its_row_leaves_out(name: str, kind: str) -> None:
    method, seen = build(name), set[str]()
    method.config = Spy(method.config, "method", seen)  # type: ignore[assignment]
    method.strong = Spy(method.strong, "strong", seen)  # type: ignore[assignment]
    run(method, nets_for(name), step=1, data=data_of(kind))
    assert {option for option in seen if not METHODS[name].reads(option)} == set()


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_the_methods_has_a_reader_and_help_names_it(option: str) -> None:
    assert readers(option)
    [line] = [line for line in describe_options() if line.startswith(f"{option} = ")]
    assert line.endswith(f"[{', '.join(readers(option))}]")


def test_rows_name_options_that_exist() -> None:
    known = option_names()
    assert [option for row in METHODS.values() for option in row.options if option not in known] == []
    weights = {weight for row in METHODS.values() for weight in (*row.unlabeled, *row.adversarial)}
    assert weights <= MethodConfig.model_fields.keys()
    assert readers("optim.lr") == readers("steps") == []
    assert len(readers("optim.betas")) == len([row for row in METHODS.values() if "discriminator" in row.trains])
    assert "betas" in OptimConfig.model_fields


@pytest.mark.parametrize(
    ("override", "others"),
    [
        ("method.trust=0.9", "advsemiseg"),
        ("strong.blur=0", "fixmatch, unimatch, latent_match"),
        ("optim.betas=[0,0.9]", "latent, advsemiseg"),
    ],
)
def test_an_option_that_the_method_does_not_read_is_refused(override: str, others: str) -> None:
    with pytest.raises(UserError, match=rf"is not read by method.name=supervised, .*that reads it \({others}"):
        load_config("scenes", ["method.name=supervised", override])
    assert only_read(["method.name=supervised", override, "steps=3"], "supervised") == [
        "method.name=supervised",
        "steps=3",
    ]


def test_presets_may_hold_what_another_method_reads() -> None:
    """The option is the preset's, not the user's: the method can be exchanged."""
    assert load_config("camvid_match", ["method.name=supervised"]).method.threshold == 0.97


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", ["images", "features"])
def test_no_graph_outlives_its_part(name: str, kind: str) -> None:
    """When networks run for a part, what they put out for the parts before it is gone."""
    nets, alive, left = nets_for(name), [weakref.WeakSet[Tensor]()], list[int]()

    def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
        left.append(sum(map(len, alive[:-1])))
        for tensor in output if isinstance(output, tuple) else (output,):
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                alive[-1].add(tensor)

    for net in nets.values():
        net.register_forward_hook(note)
    parts = build(name)(nets, data_of(kind), 1)
    for losses in parts:
        torch.stack([term.weight * term.value for term in losses.terms.values()]).sum().backward()  # type: ignore[no-untyped-call]
        del losses
        alive.append(weakref.WeakSet())
    assert set(left) == {0}
    assert len(alive) > 1 + (name != "supervised")


class Smoothed(Method):
    """A toy: cross-entropy over a temperature."""

    def forward(self, nets: Networks, batch: Batch, step: int) -> Iterator[Losses]:
        logits = nets["segmenter"](batch.images).semantic / self.config.balance
        yield Losses("segmenter", {"ce": Term(1.0 + step, cross_entropy(logits, batch.targets))})


def test_a_method_is_its_file_its_row_and_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("latentseg.methods.smoothed")
    module.Smoothed = Smoothed  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(table.METHODS, "smoothed", Row("smoothed:Smoothed", ("method.balance",)))
    config: Config = load_config("scenes", ["method.name=smoothed", "method.balance=0.5"])
    assert config.method.name == "smoothed"
    with pytest.raises(UserError, match=r"is not read by method\.name=smoothed"):
        load_config("scenes", ["method.name=smoothed", "method.trust=0.5"])
    method = built({"name": "smoothed", "balance": 0.5})
    assert isinstance(method, Smoothed)
    assert not method.uses_unlabeled
    nets = networks(adversarial=False)
    plain = cross_entropy(nets["segmenter"](batch().images).semantic * 2, batch().targets)
    assert run(method, nets) == {"ce": pytest.approx(float(plain.detach()))}
