"""The weights of the classes, in the labelled cross-entropy of every method."""

import pytest
import torch
from torch import Tensor
from toy import CLASSES, SIZE, C, L, batch, networks, run, segmenter_of, tensors

from latentseg.config import MethodConfig, StrongConfig
from latentseg.distributed import mean_divisor
from latentseg.errors import UserError
from latentseg.losses import cross_entropy, pixel_weights
from latentseg.methods.base import Method, Networks, Setup, build
from latentseg.methods.table import METHODS
from latentseg.presets import load_config

WEIGHTS = (0.5, 2.0, 1.0, 0.0)
GROUPS = {"x": ["a", "d"], "y": ["b", "c"]}


def method_of(name: str, weights: tuple[float, ...] | None) -> Method:
    config = MethodConfig.model_validate({"name": name, "num_latent": L, "groups": GROUPS})
    return build(Setup(config, StrongConfig(), CLASSES, 0.25, 0, weights)).double()


def nets_of(name: str) -> Networks:
    row = METHODS[name]
    others = [other for other in (*row.follows, *row.trains) if other in ("teacher", "peer")]
    return networks(True, {"nothing": L, "latent classes": L, "groups": 2, "classes": C}[row.second], others)


def terms(name: str, weights: tuple[float, ...] | None) -> dict[str, float]:
    return run(method_of(name, weights), nets_of(name))


def weighed_mean(logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    return cross_entropy(logits, targets, mean_divisor(pixel_weights(targets, weights)), weights)


def test_the_loss_equals_a_plain_loop() -> None:
    """Each pixel counts as its class; so does the divisor. That is PyTorch's definition, too."""
    data, logits = batch(), torch.randn(2, C, SIZE, SIZE, dtype=torch.float64)
    total, count = 0.0, 0.0
    for n, y, x in (data.targets != 255).nonzero().tolist():
        label = int(data.targets[n, y, x])
        total += WEIGHTS[label] * float(logits[n, :, y, x].logsumexp(0) - logits[n, label, y, x])
        count += WEIGHTS[label]
    weights = torch.tensor(WEIGHTS, dtype=torch.float64)
    assert float(weighed_mean(logits, data.targets, weights)) == pytest.approx(total / count, rel=1e-12)
    blank = torch.full_like(data.targets, 255)
    assert float(weighed_mean(logits, blank, weights)) == 0
    assert float(weighed_mean(logits, blank.fill_(3), weights)) == 0  # of weight 0 alone


@pytest.mark.parametrize("name", METHODS)
def test_every_method_weighs_its_labelled_cross_entropy(name: str) -> None:
    plain, weighed = terms(name, None), terms(name, WEIGHTS)
    assert plain == pytest.approx(terms(name, (1.0,) * C), rel=1e-12)
    data, logits = batch(), segmenter_of(nets_of(name)).semantic(tensors(batch().images))
    weights = torch.tensor(WEIGHTS, dtype=torch.float64)
    expected = torch.nn.functional.cross_entropy(logits, data.targets, weights, ignore_index=255)
    assert weighed["ce"] == pytest.approx(float(expected.detach()), rel=1e-12)
    changed = {term for term in plain if plain[term] != pytest.approx(weighed[term], rel=1e-12)}
    assert changed == {term for term in plain if term in ("ce", "ce_2")}


def test_weights_are_no_state() -> None:
    method = method_of("latent", WEIGHTS)
    assert method.weights is not None
    assert "weights" not in method.state_dict()


def test_without_weights_nothing_changes() -> None:
    data, logits = batch(), torch.randn(2, C, SIZE, SIZE)
    plain = cross_entropy(logits, data.targets)
    assert torch.equal(weighed_mean(logits, data.targets, None), plain)


@pytest.mark.parametrize("weights", ["[1]", "[0,0]", "[1,-1]", "often", "[1,2000]"])
def test_other_weights_are_refused(weights: str) -> None:
    with pytest.raises(UserError, match=r"optim\.class_weights"):
        load_config("scenes", [f"optim.class_weights={weights}"])
