"""Weak-to-strong methods: each term against a twin in plain loops with CutMix, and every guard."""

import copy
from dataclasses import fields, replace
from math import ceil

import pytest
import torch
from torch import Tensor, nn
from toy import SIZE, C, L, networks, run, tensors
from twins import (
    CUTMIX,
    EMPTY,
    HEADS,
    OTHERS,
    POWERS,
    SEED,
    TAU,
    LatentState,
    N,
    Options,
    Twin,
    build,
    data_of,
    dropped,
    expected_teacher,
    labeled,
    nets_of,
    pasted,
    sharper,
    sorted_out,
    twin_cps,
    twin_fixmatch,
    twin_latent_match,
    twin_mean_teacher,
    twin_unimatch,
)

from latentseg.config import Config
from latentseg.data.batches import Batch
from latentseg.methods.base import Method, Networks, build_method
from latentseg.methods.cps import CrossPseudoSupervision
from latentseg.methods.fixmatch import FixMatch
from latentseg.methods.latent_match import LatentMatch
from latentseg.methods.mean_teacher import MeanTeacher
from latentseg.methods.table import METHODS
from latentseg.methods.unimatch import UniMatch
from latentseg.methods.weak_to_strong import CutMix, PseudoLabels, describe
from latentseg.models.segmenter import Output

GROUPS = [0, 1, 0, 2]
"""Latent classes of the toy's classes, in place of those found."""


def twin_of(
    name: str, nets: Networks, data: Batch, state: LatentState, options: Options, step: int
) -> dict[str, float]:
    """Every term of a step, given the teacher after it has moved; the state of latent_match moves too."""
    twin, values = Twin(nets, data, str(options.get("grid", "pixels"))), {"ce": labeled(nets, "segmenter", data)}
    if name == "latent_match":
        return values | twin_latent_match(twin, state, options, step)
    twins = {"fixmatch": twin_fixmatch, "unimatch": twin_unimatch, "cps": twin_cps}
    return values | (twins | {"mean_teacher": twin_mean_teacher})[name](twin)


def learn(nets: Networks) -> None:
    """The networks with an optimiser change between two steps."""
    random = torch.Generator().manual_seed(11)
    for name in ("segmenter", "peer"):
        if name in nets:
            for parameter in nets[name].parameters():
                parameter.data += 0.3 * torch.randn(parameter.shape, generator=random, dtype=torch.float64)


CASES: list[tuple[str, str, Options]] = [
    *[(name, "images", EMPTY) for name in OTHERS],
    *[(name, "features", EMPTY) for name in OTHERS],
    *[(name, "images", HEADS) for name in OTHERS],
    ("latent_match", "images", POWERS),
]


@pytest.mark.parametrize(("name", "kind", "options"), CASES)
@torch.no_grad()
def test_every_term_equals_its_plain_twin_over_two_steps(name: str, kind: str, options: Options) -> None:
    nets, data, method = nets_of(name), data_of(kind), build(name, options)
    state = LatentState(GROUPS)
    if isinstance(method, LatentMatch):
        method.latent.membership.copy_(nn.functional.one_hot(torch.tensor(GROUPS), C))
    for step, decay in enumerate((0.0, 0.4)):  # the first step copies the student, then the option holds
        copied = copy.deepcopy(nets)
        if "teacher" in nets:
            expected_teacher(copied, decay)
        expected = twin_of(name, copied, data, state, options, step)
        assert run(method, nets, step=step, backward=False, data=data) == pytest.approx(expected, abs=1e-12)
        if isinstance(method, LatentMatch):
            for buffer in ("together", "confusion", "labeled_shares", "shares"):
                wanted = torch.tensor(getattr(state, buffer), dtype=torch.float64)
                torch.testing.assert_close(getattr(method.latent, buffer), wanted, rtol=0, atol=1e-12)
        learn(nets)


@torch.no_grad()
def test_the_toy_has_what_the_twins_need() -> None:
    """Accepted and rejected pixels by every network, images with and without a box, padding that moves."""
    nets, data = sharper(networks(False, L, ["teacher", "peer"])), data_of()
    assert data.unlabeled_valid is not None
    for name in ("segmenter", "teacher", "peer"):
        probs = Twin(nets, data, "pixels").says(name, tensors(data.unlabeled)).semantic
        labels, rejected = sorted_out(probs, data.unlabeled_valid, TAU)
        assert len(labels) > 300, name
        assert len(rejected) > 300, name
        assert len(set(labels.values())) > 1, name
    boxes = CutMix(N, CUTMIX, torch.Generator().manual_seed(SEED)).boxes(SIZE, SIZE)
    assert set(boxes.any(2).any(1).tolist()) == {True, False}
    assert not torch.equal(pasted(data.unlabeled_valid, boxes), data.unlabeled_valid)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("mean_teacher", {"ce": 1.0, "match": 0.8}),
        ("fixmatch", {"ce": 1.0, "match": 0.8}),
        ("unimatch", {"ce": 1.0, "match_f": 0.4, "match_1": 0.2, "match_2": 0.2}),
        ("cps", {"ce": 1.0, "peer.ce_2": 1.0, "peer.match_2": 0.8, "match": 0.8}),
        ("latent_match", {"ce": 1.0, "match": 0.8}),
    ],
)
def test_weights_stand_beside_their_terms(name: str, weights: dict[str, float]) -> None:
    parts = build(name, {"lambda_match": 0.8})(nets_of(name), data_of(), 0)
    found = [(part.network, term, given.weight) for part in parts for term, given in part.terms.items()]
    expected = {key if "." in key else f"segmenter.{key}": value for key, value in weights.items()}
    assert {f"{network}.{term}": weight for network, term, weight in found} == pytest.approx(expected)
    assert len(found) == len(expected)


def watched(nets: Networks) -> dict[str, list[Output]]:
    """What each network says from now on, with the gradient that comes back to it."""
    said: dict[str, list[Output]] = {name: [] for name in nets}

    def watch(name: str) -> None:
        def note(_module: nn.Module, _inputs: object, output: Output) -> None:
            for maps in output:
                if maps is not None and maps.requires_grad:
                    maps.retain_grad()
            said[name].append(output)

        nets[name].register_forward_hook(note)

    for name in nets:
        watch(name)
    return said


def pulled(maps: Tensor | None) -> bool:
    return maps is not None and maps.grad is not None and bool(maps.grad.any())


@pytest.mark.parametrize(
    ("name", "teaching", "learning"),
    [
        ("mean_teacher", [("teacher", 0)], [("segmenter", 0), ("segmenter", 1)]),
        ("fixmatch", [("segmenter", 1)], [("segmenter", 0), ("segmenter", 2)]),
        ("unimatch", [], [("segmenter", 0), ("segmenter", 1), ("segmenter", 2), ("segmenter", 3)]),
        ("cps", [("segmenter", 1), ("peer", 1)], [("segmenter", 0), ("peer", 0), ("segmenter", 2), ("peer", 2)]),
        ("latent_match", [("teacher", 0)], [("segmenter", 0), ("segmenter", 1)]),
    ],
)
def test_what_teaches_has_no_graph_and_no_step_runs_a_network_in_vain(
    name: str, teaching: list[tuple[str, int]], learning: list[tuple[str, int]]
) -> None:
    """The forwards are the cost of a step: one labelled, one weak, one for each strong view."""
    nets = nets_of(name)
    said, method = watched(nets), build(name)
    run(method, nets, step=1, data=data_of())  # in step 0 the teacher is the student
    forwards = {(network, number) for network, outputs in said.items() for number in range(len(outputs))}
    assert forwards == {*teaching, *learning}
    for network, number in teaching:
        assert not said[network][number].semantic.requires_grad
    assert all(pulled(said[network][number].semantic) for network, number in learning)
    if "teacher" in nets:
        assert all(parameter.grad is None for parameter in nets["teacher"].parameters())
    assert method.pseudo_label_stats is not None
    stats = method.pseudo_label_stats
    parts = [stats.given, stats.strong]
    held = [getattr(part, field.name) for part in parts for field in fields(PseudoLabels)] + [
        method.pseudo_label_stats.student
    ]
    assert not any(tensor.requires_grad for tensor in held)


def test_unimatch_runs_the_encoder_once_for_the_weak_view_and_teaches_only_the_dropped_half() -> None:
    nets = nets_of("unimatch")
    images: list[int] = []
    nets["segmenter"].register_forward_pre_hook(lambda _module, inputs: images.append(len(inputs[0])))
    said = watched(nets)["segmenter"]
    run(build("unimatch"), nets, data=data_of())
    assert images == [2, N, N, N]
    both = said[1].semantic
    assert len(both) == 2 * N
    assert both.grad is not None
    assert not bool(both.grad[:N].any())
    assert bool(both.grad[N:].any())


def test_the_student_learns_the_labels_as_any_labels() -> None:
    nets, data = nets_of("fixmatch"), data_of()
    parts = build("fixmatch")(nets, data, 0)
    next(parts)
    value = next(parts).terms["match"].value
    weight = next(nets["segmenter"].parameters())
    [taught] = torch.autograd.grad(value, weight)
    twin = Twin(nets, data, "pixels")
    cutmix = CutMix(N, CUTMIX, twin.random)
    with torch.no_grad():
        _, says, valid = twin.lesson(cutmix, data.strong[0], ("segmenter", "segmenter"))
        labels = torch.full((N, SIZE, SIZE), 255)
        for place, label in sorted_out(says.semantic, valid, TAU)[0].items():
            labels[place] = label
    logits = nets["segmenter"](pasted(data.strong[0], cutmix.boxes(SIZE, SIZE))).semantic
    loss = nn.functional.cross_entropy(logits, labels, ignore_index=255, reduction="sum") / valid.sum()
    torch.testing.assert_close(taught, torch.autograd.grad(loss, weight)[0])


def test_each_of_two_networks_learns_from_its_own_parts() -> None:
    nets = nets_of("cps")
    networks_taught = []
    for part in build("cps")(nets, data_of(), 0):
        nets.zero_grad()
        torch.autograd.backward(torch.stack([term.value for term in part.terms.values()]).sum())
        for name, parameter in nets.named_parameters():
            if ".semantic." in name:
                assert (parameter.grad is not None) == name.startswith(part.network), (part.network, name)
        networks_taught.append((part.network, *part.terms))
    assert networks_taught == [("segmenter", "ce"), ("peer", "ce_2"), ("peer", "match_2"), ("segmenter", "match")]


@pytest.mark.parametrize("name", OTHERS)
def test_all_labels_leave_the_labelled_part_alone(name: str) -> None:
    bare = replace(data_of(), unlabeled=None, unlabeled_valid=None, strong=())
    nets, method = nets_of(name), build(name)
    values, whole = (run(m, nets, data=data) for m, data in ((method, bare), (build(name), data_of())))
    expected = {"ce", "ce_2"} & whole.keys()
    assert values.keys() == expected
    assert {key: values[key] for key in expected} == {key: whole[key] for key in expected}
    assert method.pseudo_label_stats is None


@pytest.mark.parametrize("grid", ["pixels", "heads"])
@pytest.mark.parametrize("name", OTHERS)
def test_pixels_that_do_not_count_change_nothing(name: str, grid: str) -> None:
    """With grid=heads the toy's cell takes its pixel at the left, and the padding starts at an even one."""
    data, nets = data_of(), nets_of(name)
    assert data.unlabeled_valid is not None
    shown = data.unlabeled_valid.unsqueeze(1)
    other = replace(
        data,
        images=tensors(data.images).where((data.targets != 255).unsqueeze(1), 7.0),
        unlabeled=tensors(data.unlabeled).where(shown, -3.0),
        strong=tuple(view.where(shown, 9.0) for view in data.strong),
    )
    here, there = (run(build(name, {"grid": grid}), copy.deepcopy(nets), step=1, data=each) for each in (data, other))
    assert here == pytest.approx(there, abs=1e-12)


@pytest.mark.parametrize("name", OTHERS)
def test_a_step_follows_from_its_batch(name: str) -> None:
    """The global random numbers take no part; another seed is another box."""
    results = []
    for number, seed in enumerate((SEED, SEED, SEED + 1)):
        nets = nets_of(name)
        torch.manual_seed(number)
        results.append(run(build(name), nets, step=1, data=replace(data_of(), seed=seed)))
    assert results[0] == results[1]
    changed = {key for key in results[0] if results[0][key] != results[2][key]}
    assert changed == {key for key in results[0] if key.startswith("match")}


@pytest.mark.parametrize("name", OTHERS)
@torch.no_grad()
def test_the_lesson_tells_what_was_taught(name: str) -> None:
    """The shares of the last strong view: accepted on images as they are, agreement on mixed ones."""
    nets, data, method = nets_of(name), data_of(), build(name)
    run(method, nets, step=1, backward=False, data=data)
    twin = Twin(nets, data, "pixels")
    half = (0.5, 0.5)
    area = {"mean_teacher": half, "latent_match": half, "cps": (0.25, 0.5)}.get(name, (0.02, 0.4))
    if name == "unimatch":
        dropped(twin.weak, 0.5, twin.random)
        CutMix(N, CUTMIX, twin.random)
    aspect = (0.5, 2.0) if area == half else (0.3, 1 / 0.3)
    always = name in ("mean_teacher", "latent_match", "cps")
    cutmix = CutMix(N, 1.0 if always else CUTMIX, twin.random, area, aspect)
    view = {"mean_teacher": twin.weak, "cps": twin.weak, "unimatch": data.strong[-1]}.get(name, data.strong[0])
    teacher = [*OTHERS[name], "segmenter"][0]
    learns, says, valid = twin.lesson(cutmix, view, ("segmenter", teacher))
    labels, rejected = sorted_out(twin.says(teacher, twin.weak).semantic, twin.valid, 0.0 if name == "cps" else TAU)
    places = valid.nonzero().tolist()
    agree = [int(learns[n, :, y, x].argmax()) == int(says.semantic[n, :, y, x].argmax()) for n, y, x in places]
    assert method.pseudo_label_stats is not None
    figures = describe(method.pseudo_label_stats, None)
    assert figures["accepted"] == pytest.approx(len(labels) / (len(labels) + len(rejected)))
    assert figures["agreement"] == pytest.approx(sum(agree) / len(agree))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mean_teacher", MeanTeacher),
        ("fixmatch", FixMatch),
        ("unimatch", UniMatch),
        ("cps", CrossPseudoSupervision),
        ("latent_match", LatentMatch),
    ],
)
def test_each_name_builds_its_method_without_a_second_branch(name: str, kind: type[Method]) -> None:
    options = {"method": {"name": name}, "strong": {"cutmix": 0.3}}
    config = Config.model_validate({"batch_size": 2, "steps": 30, **options})
    method = build_method(config, ["a", "b", "c"], 2, 8)
    assert type(method) is kind
    assert method.uses_unlabeled
    assert isinstance(method, MeanTeacher | FixMatch | UniMatch | CrossPseudoSupervision | LatentMatch)
    assert (method.config, method.strong) == (config.method, config.strong)
    assert METHODS[config.method.name].second_channels(config.method, 3) == 0
    if isinstance(method, LatentMatch):
        assert method.start == ceil(0.25 * 30)
        assert method.latent.membership.shape == (3, 3)
