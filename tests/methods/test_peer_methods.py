"""AdvSemiSeg, given classes and symmetric KL: each term against a twin in plain loops, and every guard."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from toy import PIXELS, C, L, batch, built, networks, run, segmenter_of, tensors

from latentseg.config import Config
from latentseg.errors import UserError
from latentseg.methods.base import Method, Networks, build_method
from latentseg.methods.given_classes import GivenClasses, group_ids
from latentseg.methods.table import METHODS

GROUPS = [0, 1, 1, 0]
TRUST = 0.593  # most of the toy's unlabelled pixels are above, some below


def advsemiseg(start: int = 0, **options: float) -> Method:
    return built({"name": "advsemiseg", "trust": TRUST, **options}, start=start)


def given(start: int = 0, **options: float) -> Method:
    groups = {"x": ["a", "d"], "y": ["b", "c"]}
    return built({"name": "given_classes", "groups": groups, **options}, start=start)


def latent(start: int = 0, **options: float) -> Method:
    return built({"name": "latent", **options}, start=start)


def symmetric(start: int = 0, **options: float) -> Method:
    return built({"name": "symmetric", **options}, start=start)


BUILD: dict[str, tuple[Callable[..., Method], int]] = {
    "advsemiseg": (advsemiseg, 3),
    "given_classes": (given, 2),
    "symmetric": (symmetric, C),
}


def cross_entropy(probs: Tensor, targets: dict[tuple[int, int, int], int]) -> float:
    """Mean over the labelled pixels, in plain loops."""
    parts = [-float(probs[n, label, y, x].log()) for (n, y, x), label in targets.items() if label != 255]
    return sum(parts) / len(parts)


def verdicts(nets: Networks, maps: list[tuple[Tensor, Tensor]], truth: Tensor) -> dict[str, float]:
    """Eq. 5 for each map with its valid pixels, and both halves of Eq. 12, in plain loops."""
    judge = nets["discriminator"]
    fools, fakes, real = [], [], []
    for probs, valid in maps:
        real_chance = judge(probs).sigmoid()[:, 0]
        places = [place for place in PIXELS if valid[place]]
        fools.append(sum(-float(real_chance[place].log()) for place in places) / len(places))
        fakes += [-float((1 - real_chance[place]).log()) for place in places]
    one_hot = torch.zeros_like(maps[0][0])
    for n, y, x in PIXELS:
        if truth[n, y, x] != 255:
            one_hot[n, truth[n, y, x], y, x] = 1
    chance = judge(one_hot).sigmoid()[:, 0]
    real = [-float(chance[place].log()) for place in PIXELS if truth[place] != 255]
    named = {f"fools_{i}": value for i, value in enumerate(fools)}
    return named | {"fake": sum(fakes) / len(fakes), "real": sum(real) / len(real)}


@torch.no_grad()
def maps(nets: Networks) -> tuple[Tensor, ...]:
    data = batch()
    labeled, unlabeled = nets["segmenter"](data.images), nets["segmenter"](data.unlabeled)
    return tuple(m.softmax(1) for m in (labeled.semantic, labeled.latent, unlabeled.semantic, unlabeled.latent))


@torch.no_grad()
def test_advsemiseg_equals_its_plain_twin() -> None:
    nets, data = networks(), batch()
    assert data.unlabeled_valid is not None
    s_c, _, u_c, _ = maps(nets)
    judged = verdicts(nets, [(s_c, data.targets != 255), (u_c, data.unlabeled_valid)], data.targets)
    trust = nets["discriminator"](u_c).sigmoid()[:, 0]
    labels = {place: int(data.targets[place]) for place in PIXELS}
    shown = [place for place in PIXELS if data.unlabeled_valid[place]]
    pseudo = {(n, y, x): int(u_c[n, :, y, x].argmax()) for n, y, x in shown if trust[n, y, x] > TRUST}
    method = advsemiseg()
    values = run(method, nets, backward=False)
    assert 0 < len(pseudo) < len(shown)
    expected = {"ce": cross_entropy(s_c, labels), "self": cross_entropy(u_c, pseudo), "adv": judged["fools_0"]}
    expected |= {"adv_u": judged["fools_1"], "real": judged["real"], "fake": judged["fake"]}
    assert values == pytest.approx(expected, abs=1e-12)
    assert method.summary() == {"trusted": pytest.approx(len(pseudo) / len(shown))}


@torch.no_grad()
def test_given_classes_equal_their_plain_twin() -> None:
    nets, data = networks(num_latent=2), batch()
    assert data.unlabeled_valid is not None
    s_c, s_l, u_c, u_l = maps(nets)
    judged = verdicts(nets, [(s_c, data.targets != 255), (u_c, data.unlabeled_valid)], data.targets)
    labels = {place: int(data.targets[place]) for place in PIXELS}
    groups = {place: 255 if label == 255 else GROUPS[label] for place, label in labels.items()}
    matrix = torch.zeros(C, 2, dtype=torch.float64)
    for (n, y, x), label in labels.items():
        if label != 255:
            matrix[label] += 0.25 * s_l[n, :, y, x]
    chance = matrix / matrix.sum(1, keepdim=True)
    shown = [place for place in PIXELS if data.unlabeled_valid[place]]
    cons = 0.0
    for n, y, x in shown:
        mapped = [sum(float(chance[c, k] * u_c[n, c, y, x]) for c in range(C)) for k in range(2)]
        cons -= sum(float(u_l[n, k, y, x]) * float(torch.tensor(mapped[k], dtype=torch.float64).log()) for k in (0, 1))
    expected = {"ce": cross_entropy(s_c, labels), "groups": cross_entropy(s_l, groups), "cons": cons / len(shown)}
    expected |= {"adv": judged["fools_0"], "adv_u": judged["fools_1"], "real": judged["real"], "fake": judged["fake"]}
    method = given()
    assert run(method, nets, backward=False) == pytest.approx(expected, abs=1e-12)
    assert isinstance(method, GivenClasses)
    torch.testing.assert_close(method.cooccurrence, matrix, rtol=0, atol=1e-10)


@torch.no_grad()
def test_symmetric_equals_its_plain_twin() -> None:
    nets, data = networks(num_latent=C), batch()
    assert data.unlabeled_valid is not None
    s_1, s_2, u_1, u_2 = maps(nets)
    labeled, shown = data.targets != 255, data.unlabeled_valid
    judged = verdicts(nets, [(s_1, labeled), (s_2, labeled), (u_1, shown), (u_2, shown)], data.targets)
    labels = {place: int(data.targets[place]) for place in PIXELS}
    places = [place for place in PIXELS if shown[place]]
    divergence = 0.0
    for n, y, x in places:
        for p, q in ((u_1[n, :, y, x], u_2[n, :, y, x]), (u_2[n, :, y, x], u_1[n, :, y, x])):
            divergence += sum(float(p[c] * (p[c].log() - q[c].log())) for c in range(C))
    expected = {"ce": cross_entropy(s_1, labels), "ce_2": cross_entropy(s_2, labels), "kl": divergence / len(places)}
    expected |= {"adv": judged["fools_0"], "adv_2": judged["fools_1"], "real": judged["real"], "fake": judged["fake"]}
    expected |= {"adv_u": judged["fools_2"], "adv_u_2": judged["fools_3"]}
    assert run(symmetric(), nets, backward=False) == pytest.approx(expected, abs=1e-12)


def test_the_divergence_pulls_at_both_branches() -> None:
    nets = networks(adversarial=False, num_latent=C)
    run(symmetric(lambda_lbl_adv=0.0, lambda_ulbl_adv=0.0, lambda_cons=0.0), nets)
    before = [parameter.grad.clone() for parameter in nets.parameters() if parameter.grad is not None]
    run(symmetric(lambda_lbl_adv=0.0, lambda_ulbl_adv=0.0), nets)
    after = [parameter.grad for parameter in nets.parameters() if parameter.grad is not None]
    assert len(after) == 4
    for old, new in zip(before, after, strict=True):
        assert not torch.allclose(2 * old, new)  # the cross-entropy twice, and something else


def test_pseudo_labels_hand_on_no_gradient() -> None:
    """The segmenter learns from its own classes as from any labels; where they are trusted is no lever."""
    nets, data = networks(), batch()
    assert data.unlabeled_valid is not None
    with torch.no_grad():
        u_c = maps(nets)[2]
        trusted = (nets["discriminator"](u_c).sigmoid()[:, 0] > TRUST) & data.unlabeled_valid
        pseudo = u_c.argmax(1).where(trusted, 255)
    method = advsemiseg(lambda_ulbl_adv=0.0, lambda_lbl_adv=0.0)
    parts = method(nets, data, 0)
    next(parts)
    taught = torch.autograd.grad(next(parts).terms["self"].value, segmenter_of(nets).semantic.weight)[0]
    logits = segmenter_of(nets)(tensors(data.unlabeled)).semantic
    loss = torch.nn.functional.cross_entropy(logits, pseudo, ignore_index=255)
    expected = torch.autograd.grad(loss, segmenter_of(nets).semantic.weight)[0]
    torch.testing.assert_close(taught, expected)


@pytest.mark.parametrize("name", BUILD)
def test_the_segmenters_turn_leaves_the_discriminator_alone_and_the_reverse(name: str) -> None:
    build, num_latent = BUILD[name]
    nets = networks(num_latent=num_latent)
    segmenter, judge = nets["segmenter"], nets["discriminator"]
    parts = build()(nets, batch(), 0)
    for _ in range(2):
        torch.autograd.backward(torch.stack([term.weight * term.value for term in next(parts).terms.values()]).sum())
    assert all(parameter.grad is None for parameter in judge.parameters())
    before = [None if parameter.grad is None else parameter.grad.clone() for parameter in segmenter.parameters()]
    torch.autograd.backward(torch.stack([term.weight * term.value for term in next(parts).terms.values()]).sum())
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in judge.parameters())
    for old, parameter in zip(before, segmenter.parameters(), strict=True):
        assert (old is None) == (parameter.grad is None)
        assert old is None or (parameter.grad is not None and torch.equal(old, parameter.grad))


@pytest.mark.parametrize("name", BUILD)
def test_terms_join_at_their_start_and_off_terms_cost_no_forward(name: str) -> None:
    build, num_latent = BUILD[name]
    late = {"advsemiseg": "self", "given_classes": "cons", "symmetric": "kl"}[name]
    nets = networks(adversarial=name == "advsemiseg", num_latent=num_latent)
    method = build(start=3, lambda_lbl_adv=0.0, lambda_ulbl_adv=0.0)
    assert late not in run(method, nets, step=2)
    assert segmenter_of(nets).forwards == 1
    assert late in run(method, nets, step=3)
    assert segmenter_of(nets).forwards == 3
    off = build(lambda_cons=0.0, lambda_self=0.0, lambda_lbl_adv=0.0, lambda_ulbl_adv=0.0)
    assert not off.uses_unlabeled
    run(off, networks(adversarial=False, num_latent=num_latent))


@pytest.mark.parametrize("name", BUILD)
def test_all_labels_need_no_unlabelled_images(name: str) -> None:
    build, num_latent = BUILD[name]
    data = replace(batch(), unlabeled=None, unlabeled_valid=None)
    values = run(build(), networks(num_latent=num_latent), data=data)
    assert {"ce", "adv", "real", "fake"} <= values.keys()
    assert values.keys().isdisjoint({"adv_u", "self", "cons", "kl"})


@pytest.mark.parametrize("name", BUILD)
def test_pixels_that_do_not_count_change_nothing_of_the_segmenters_terms(name: str) -> None:
    build, num_latent = BUILD[name]
    nets, data = networks(adversarial=False, num_latent=num_latent), batch()
    assert data.unlabeled_valid is not None
    other = replace(
        data,
        images=tensors(data.images).where((data.targets != 255).unsqueeze(1), 7.0),
        unlabeled=tensors(data.unlabeled).where(data.unlabeled_valid.unsqueeze(1), -3.0),
    )
    options = {"lambda_lbl_adv": 0.0, "lambda_ulbl_adv": 0.0, "lambda_self": 0.0}
    assert run(build(**options), nets, data=data) == pytest.approx(run(build(**options), nets, data=other), abs=1e-12)


def test_the_discriminator_takes_its_truth_from_another_batch_if_there_is_one() -> None:
    nets, data = networks(), batch()
    other = replace(data, real=data.targets.where(data.targets == 255, (data.targets + 1) % C))
    here, there = run(advsemiseg(), nets, backward=False), run(advsemiseg(), nets, backward=False, data=other)
    assert here["real"] != pytest.approx(there["real"], abs=1e-6)
    assert {name: here[name] for name in here if name != "real"} == {
        name: there[name] for name in there if name != "real"
    }


@pytest.mark.parametrize(
    ("gradient", "semantic", "latent"), [("semantic", True, False), ("latent", False, True), ("both", True, True)]
)
def test_consistency_teaches_the_branch_that_the_option_names(gradient: str, semantic: bool, latent: bool) -> None:
    options = {"lambda_latent": 0.0, "lambda_lbl_adv": 0.0, "lambda_ulbl_adv": 0.0, "consistency_gradient": gradient}
    method, nets = built(options), networks(adversarial=False)
    parts = method(nets, batch(), 0)
    next(parts)
    next(parts).terms["cons"].value.backward()
    segmenter = segmenter_of(nets)
    for conv, learns in ((segmenter.semantic, semantic), (segmenter.latent, latent)):
        assert (conv.weight.grad is not None and bool(conv.weight.grad.abs().sum() > 0)) == learns


def test_groups_of_classes() -> None:
    assert group_ids({"low": ["ground", "water"], "high": ["sky"]}, ["ground", "sky", "water"]) == [0, 1, 0]
    assert group_ids("identity", ["a", "b"]) == [0, 1]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"low": ["ground"]}, "not in a group: sky"),
        ({"low": ["ground"], "high": ["sky", "ground"]}, "more than once: ground"),
        ({"low": ["ground"], "high": ["sky", "moon"]}, "not a class: moon"),
    ],
)
def test_groups_that_do_not_fit_are_refused(groups: dict[str, list[str]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        group_ids(groups, ["ground", "sky"])


@pytest.mark.parametrize(
    ("method", "kind", "channels"),
    [
        ({"name": "supervised"}, "Supervised", 0),
        ({"name": "latent", "num_latent": 7}, "Latent", 7),
        ({"name": "advsemiseg"}, "AdvSemiSeg", 0),
        ({"name": "given_classes", "groups": "identity"}, "GivenClasses", 3),
        ({"name": "given_classes", "groups": {"x": ["a", "b"], "y": ["c"]}}, "GivenClasses", 2),
        ({"name": "symmetric"}, "Symmetric", 3),
    ],
)
def test_each_name_builds_its_method_and_its_second_branch(method: dict[str, object], kind: str, channels: int) -> None:
    config = Config.model_validate({"method": method})
    assert type(build_method(config, ["a", "b", "c"], 2, 4)).__name__ == kind
    assert METHODS[config.method.name].second_channels(config.method, 3) == channels


@pytest.mark.parametrize("name", ["latent", "given_classes", "symmetric"])
def test_a_discriminator_judges_every_pixel_whatever_the_grid(name: str) -> None:
    """Its maps are of the crop's size; without it the heads' own grid is taken."""
    build, channels = BUILD[name] if name != "latent" else (latent, L)
    options: list[dict[str, Any]] = [{"grid": "pixels"}, {"grid": "heads"}]
    pixels, heads = (run(build(**grid), networks(num_latent=channels), step=1) for grid in options)
    assert pixels == heads
    off = {"lambda_lbl_adv": 0, "lambda_ulbl_adv": 0}
    pixels, heads = (run(build(**grid, **off), networks(False, channels), step=1) for grid in options)
    assert pixels["ce"] == heads["ce"]
    assert pixels != heads
