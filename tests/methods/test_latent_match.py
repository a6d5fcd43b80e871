"""latent_match: latent classes found on hand-computed examples, pooling, balance, and every guard."""

import copy
from dataclasses import replace
from math import log

import pytest
import torch
from torch import Tensor
from toy import C, run
from twins import (
    LatentState,
    Twin,
    build,
    data_of,
    expected_teacher,
    nets_of,
    pooled_map,
    told_apart,
    twin_latent_match,
)

from latentseg.methods import latent_classes, latent_match
from latentseg.methods.latent_classes import LatentClasses
from latentseg.methods.latent_match import LatentMatch

SHARES = [0.4, 0.3, 0.2, 0.1]


def filled(membership: list[list[float]] | None = None, shares: list[float] = SHARES) -> LatentClasses:
    latent = LatentClasses(len(shares)).double()
    latent.shares.copy_(torch.tensor(shares, dtype=torch.float64))
    if membership is not None:
        latent.membership.copy_(torch.tensor(membership))
    return latent


PAIRED: list[list[float]] = [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]]
"""Classes 0 and 2 share a latent class."""


def maps(seed: int = 0, number: int = 2) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(number, C, 5, 6, generator=random, dtype=torch.float64).softmax(1)


def taught() -> tuple[LatentMatch, dict[str, Tensor]]:
    method = build("latent_match")
    assert isinstance(method, LatentMatch)
    return method, {name: buffer.clone() for name, buffer in method.latent.named_buffers()}


# which classes share a latent class


def found(confusion: list[list[float]], together: list[list[float]], labeled: list[float]) -> list[list[int]]:
    """Classes of each latent class."""
    latent = LatentClasses(len(labeled)).double()
    latent.confusion.copy_(torch.tensor(confusion))
    latent.together.copy_(torch.tensor(together))
    latent.labeled_shares.copy_(torch.tensor(labeled))
    latent.membership.fill_(0.5)  # what was there is written over
    latent.regroup()
    assert latent.membership.sum(1).tolist() == [1.0] * len(labeled)
    groups = [column.nonzero().flatten().tolist() for column in latent.membership.T]
    assert groups == sorted(groups, key=lambda group: not group)  # columns at the end may be empty
    return [group for group in groups if group]


@pytest.mark.parametrize(("lost", "groups"), [(0.067, [[0, 1], [2]]), (0.069, [[0], [1], [2]])])
def test_two_classes_merge_if_little_is_lost_for_the_doubt_removed(lost: float, groups: list[list[int]]) -> None:
    """Doubt of the pair: twice told_apart(0.2, 0.1) = 0.3819. Lost: together, and 0.02 x 0.6 log 2 = 0.0083."""
    assert 2 * told_apart(0.2, 0.1) == pytest.approx(0.3819, abs=1e-4)
    confusion = [[0.2, 0.15, 0.0], [0.05, 0.2, 0.0], [0.0, 0.0, 0.4]]  # both ways: 0.1 on average
    together: list[list[float]] = [[0, lost, 0], [lost, 0, 0], [0, 0, 0]]
    assert (lost + 0.02 * 0.6 * log(2)) / 0.3819 == pytest.approx(0.2, abs=0.008)
    assert found(confusion, together, [0.3, 0.3, 0.4]) == groups
    doubled = [[2 * value for value in row] for row in confusion]  # a joint is its shares
    assert found(doubled, together, [0.3, 0.3, 0.4]) == groups


@pytest.mark.parametrize(("lost", "groups"), [(0.018, [[0, 1, 2]]), (0.020, [[0, 1], [2]])])
def test_what_two_groups_lose_adds_up_over_their_pairs(lost: float, groups: list[list[int]]) -> None:
    """0 and 1 merge first, at 0; then 2 costs 0.01 + lost for 0.1454 nats, though 0 and 2 alone had 0.069."""
    assert told_apart(0.2, 0.02) + told_apart(0.02, 0.36) == pytest.approx(0.1454, abs=1e-4)
    confusion = [[0.2, 0.1, 0.02], [0.1, 0.2, 0.0], [0.02, 0.0, 0.36]]
    together: list[list[float]] = [[0, 0, 0.01], [0, 0, lost], [0.01, lost, 0]]
    assert found(confusion, together, [0.0, 0.0, 0.0]) == groups


def test_nothing_seen_merges_nothing() -> None:
    zeros = [[0.0] * 3 for _ in range(3)]
    assert found(zeros, [[0.1] * 3] * 3, [0.2, 0.3, 0.5]) == [[0], [1], [2]]


def test_the_classes_are_looked_at_every_hundred_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    step = 0
    monkeypatch.setattr(LatentClasses, "regroup", lambda _self: looks.append(step))
    for step in (0, 98, 99, 100, 198, 199):
        run(taught()[0], nets_of("latent_match"), step=step, data=data_of())
    assert looks == [99, 199]
    assert latent_match.REGROUP_EVERY == 100


def test_the_log_counts_latent_classes() -> None:
    method, _ = taught()
    assert method.summary() == {"latent_classes": 4}
    method.latent.membership.copy_(torch.tensor(PAIRED))
    assert method.summary() == {"latent_classes": 3}


# pooling and balance


@pytest.mark.parametrize("power", [1.0, 3.0])
def test_pooling_equals_plain_loops_and_keeps_the_latent_map(power: float) -> None:
    probs, valid = maps(), torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(1)) < 0.7
    pooled = filled(PAIRED).pool(probs, valid, power)
    expected = pooled_map(LatentState([0, 1, 0, 2], shares=SHARES), probs, valid, power)
    torch.testing.assert_close(pooled, expected, rtol=0, atol=1e-12)
    assert not torch.allclose(pooled[:, 0], probs[:, 0], atol=1e-2)
    torch.testing.assert_close(pooled[:, [1, 3]], probs[:, [1, 3]])  # alone in their latent classes
    torch.testing.assert_close(pooled[:, 0] + pooled[:, 2], probs[:, 0] + probs[:, 2])


@pytest.mark.parametrize("power", [0.0, 1.5])
def test_neighbours_decide_within_a_latent_class(power: float) -> None:
    probs, valid = maps(), torch.ones(2, 5, 6, dtype=torch.bool)
    near = torch.tensor([[3.0, 9.0, 0.5, 0.1], [1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    pooled = filled(PAIRED).pool(probs, valid, power, near)
    expected = pooled_map(LatentState([0, 1, 0, 2], shares=SHARES), probs, valid, power, near)
    torch.testing.assert_close(pooled, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(pooled[:, [1, 3]], probs[:, [1, 3]])  # alone in their latent classes
    torch.testing.assert_close(pooled[1], filled(PAIRED).pool(probs, valid, power)[1])  # nothing unusual near by
    if power == 0:
        torch.testing.assert_close(pooled[0, 0] / pooled[0, 2], 6 * probs[0, 0] / probs[0, 2])


def test_pooling_with_power_0_or_without_groups_changes_nothing() -> None:
    probs, valid = maps(), torch.ones(2, 5, 6, dtype=torch.bool)
    torch.testing.assert_close(filled(PAIRED).pool(probs, valid, 0.0), probs)
    torch.testing.assert_close(filled().pool(probs, valid, 3.0), probs)


def test_each_image_decides_for_itself_and_padding_has_no_vote() -> None:
    latent, probs, valid = filled(PAIRED), maps(), torch.ones(2, 5, 6, dtype=torch.bool)
    valid[:, :, 4:] = False
    pooled = latent.pool(probs, valid, 3.0)
    torch.testing.assert_close(latent.pool(probs[1:], valid[1:], 3.0), pooled[1:])
    other = probs.clone()
    other[:, :, :, 4:] = torch.nan
    torch.testing.assert_close(latent.pool(other, valid, 3.0)[..., :4], pooled[..., :4], rtol=0, atol=0)


def test_a_surer_image_wins_over_its_unsure_pixels() -> None:
    """Nine pixels say class 2 at 0.9, one is torn between 0 and 2: it goes with the image."""
    probs = torch.tensor([0.05, 0.03, 0.9, 0.02], dtype=torch.float64).view(1, 4, 1, 1).repeat(1, 1, 1, 10)
    probs[0, :, 0, 9] = torch.tensor([0.5, 0.05, 0.4, 0.05])
    pooled = filled(PAIRED).pool(probs, torch.ones(1, 1, 10, dtype=torch.bool), 1.0)
    assert pooled[0, :, 0, 9].argmax() == 2
    assert float(pooled[0, [0, 2], 0, 9].sum()) == pytest.approx(0.9)


@pytest.mark.parametrize(("power", "raw"), [(0.0, [1, 1, 1, 1]), (1.0, [1 / 0.6, 1 / 0.3, 1 / 0.6, 1 / 0.1])])
def test_balance_weighs_by_the_share_of_the_latent_class(power: float, raw: list[float]) -> None:
    """Classes 0 and 2 hold 0.4 + 0.2."""
    mean = sum(weight * share for weight, share in zip(raw, SHARES, strict=True))
    assert filled(PAIRED).balance(power).tolist() == pytest.approx([weight / mean for weight in raw])


def test_balance_has_a_floor() -> None:
    latent = filled(shares=[0.5, 0.5, 0.0, 0.0])
    assert float(latent.balance(1.0)[2] / latent.balance(1.0)[0]) == pytest.approx(0.5 / 1e-3)


# the state


def test_averages_of_labelled_images_by_hand() -> None:
    latent, targets = LatentClasses(3).double(), torch.full((4, 1, 4), 255)
    targets[0, 0] = torch.tensor([0, 0, 1, 255])
    targets[1, 0, 0] = 2  # and two images without labels
    mean = torch.tensor([1 / 3, 1 / 6, 1 / 2], dtype=torch.float64)
    for step in (0, 1, 5000):
        before = latent.labeled_shares.clone()
        latent.see_labeled(targets, step)
        rate = {0: 1.0, 1: 0.5, 5000: 0.002}[step]
        torch.testing.assert_close(latent.labeled_shares, (1 - rate) * before + rate * mean)
        if step == 0:
            assert float(latent.together[0, 1]) == pytest.approx(told_apart(2 / 3, 1 / 3) / 2)
            assert float(latent.together[0, 2]) == pytest.approx(0)
        targets, mean = torch.where(targets < 255, (targets + 1) % 3, 255), mean.roll(1)
    assert torch.equal(latent.together, latent.together.T)


def test_averages_of_confusions_by_hand() -> None:
    """A teacher sure of class 0 on three cells; a student that says 0, 1 and 1 there; a fourth cell shows no image."""
    latent = LatentClasses(2).double()
    teacher = torch.tensor([[1.0, 1, 1, 0], [0, 0, 0, 1]], dtype=torch.float64).view(1, 2, 1, 4)
    student = torch.tensor([[1.0, 0, 0, 0], [0, 1, 1, 1]], dtype=torch.float64).view(1, 2, 1, 4)
    valid = torch.tensor([True, True, True, False]).view(1, 1, 4)
    seen = torch.tensor([[1 / 3, 2 / 3], [0, 0]], dtype=torch.float64)
    latent.see_confusion(teacher, student, valid)
    torch.testing.assert_close(latent.confusion, 0.01 * seen)
    latent.see_confusion(teacher, student, valid)
    torch.testing.assert_close(latent.confusion, (1 - 0.99**2) * seen)


def test_what_does_not_count_moves_nothing() -> None:
    latent, probs = LatentClasses(C).double(), maps()
    latent.see_labeled(torch.zeros(1, 2, 2, dtype=torch.int64), 0)
    latent.see_shares(probs, torch.ones(2, 5, 6, dtype=torch.bool), 0)
    latent.see_confusion(probs, maps(1), torch.ones(2, 5, 6, dtype=torch.bool))
    before = {name: buffer.clone() for name, buffer in latent.named_buffers()}
    nothing = torch.zeros(2, 5, 6, dtype=torch.bool)
    latent.see_labeled(torch.full((1, 2, 2), 255), 1)
    latent.see_shares(probs * torch.nan, nothing, 1)
    latent.see_confusion(probs * torch.nan, probs * torch.nan, nothing)
    assert all(torch.equal(buffer, before[name]) for name, buffer in latent.named_buffers())


def test_without_unlabelled_images_only_what_labels_tell_moves() -> None:
    method, before = taught()
    run(method, nets_of("latent_match"), data=replace(data_of(), unlabeled=None, unlabeled_valid=None, strong=()))
    moved = {name for name, buffer in method.latent.named_buffers() if not torch.equal(buffer, before[name])}
    assert moved == {"together", "labeled_shares"}


def test_two_processes_hold_the_state_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sees a part of the images; what they send is recorded, and its sum handed to both."""
    random = torch.Generator().manual_seed(4)
    targets, valid = torch.randint(0, C, (3, 5, 6), generator=random), torch.rand(3, 5, 6, generator=random) < 0.6
    targets[0] = 255
    sent: list[list[Tensor]] = []
    received: list[Tensor] = []

    def see(part: slice) -> LatentClasses:
        latent = LatentClasses(C).double()
        latent.see_labeled(targets[part], 0)
        latent.see_shares(maps(0, 3)[part], valid[part], 0)
        latent.see_confusion(maps(0, 3)[part], maps(1, 3)[part], valid[part])
        return latent

    def record(values: Tensor) -> Tensor:
        sent[-1].append(values)
        return values

    whole, parts = see(slice(0, 3)), (slice(0, 1), slice(1, 3))  # the first process has no labelled pixel
    monkeypatch.setattr(latent_classes, "all_reduce_sum", record)
    for part in parts:
        sent.append([])
        see(part)
    for part in parts:
        received[:] = [one + other for one, other in zip(*sent, strict=True)]
        monkeypatch.setattr(latent_classes, "all_reduce_sum", lambda _values: received.pop(0))
        for name, buffer in see(part).named_buffers():
            torch.testing.assert_close(buffer, whole.get_buffer(name), rtol=0, atol=1e-12)


# guards of a step


@pytest.mark.parametrize("near", [None, [5.0, 1.0, 0.1, 2.0]])
@torch.no_grad()
def test_pooling_joins_at_its_start(near: list[float] | None) -> None:
    nets, results = nets_of("latent_match"), []
    data = replace(data_of(), neighbours=None if near is None else torch.tensor([near, near[::-1], near]).double())
    for start in (3, 4):
        method = build("latent_match", start=start)
        assert isinstance(method, LatentMatch)
        method.latent.membership.copy_(torch.tensor(PAIRED))
        twin = Twin(copy.deepcopy(nets), data, "pixels")
        expected_teacher(twin.nets, 0.4)
        state = LatentState([0, 1, 0, 2])
        expected = twin_latent_match(twin, state, {}, step=3, start=start)["match"]
        results.append(run(method, nets_of("latent_match"), step=3, data=data, backward=False)["match"])
        assert results[-1] == pytest.approx(expected, abs=1e-12)
    assert abs(results[0] - results[1]) > 1e-4


def test_no_gradient_reaches_the_state_or_the_pooled_map() -> None:
    method, _ = taught()
    method.latent.membership.copy_(torch.tensor(PAIRED))
    nets = nets_of("latent_match")
    run(method, nets, step=1, data=data_of())
    assert not any(buffer.requires_grad for buffer in method.latent.buffers())
    assert all(parameter.grad is None for parameter in nets["teacher"].parameters())
    probs = maps().requires_grad_()
    assert not method.latent.pool(probs, torch.ones(2, 5, 6, dtype=torch.bool), 3.0).requires_grad


def test_the_confusions_are_of_the_teachers_own_map_mixed() -> None:
    """Not of the pooled one: what pooling decides would hide the confusions that it rests on."""
    confusions = []
    for power in (0.0, 3.0):
        method = build("latent_match", {"pool_power": power})
        assert isinstance(method, LatentMatch)
        method.latent.membership.copy_(torch.tensor(PAIRED))
        run(method, nets_of("latent_match"), step=1, data=data_of(), backward=False)
        confusions.append(method.latent.confusion)
    assert torch.equal(*confusions)


def test_a_moving_average_of_a_single_pixel_is_that_pixel_and_none_moves_nothing() -> None:
    average = torch.zeros(2, 2)
    latent_classes._move(average, torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.tensor(1), 0.5)
    assert average.tolist() == [[0.0, 0.5], [0.0, 0.0]]
    latent_classes._move(average, torch.ones(2, 2), torch.tensor(0), 0.5)
    assert average.tolist() == [[0.0, 0.5], [0.0, 0.0]]
