"""Each loss against values by hand, a plain-loop twin, and what must not change it."""

import itertools
import math
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from latentseg.losses import (
    conditional_entropy,
    consistency,
    cross_entropy,
    latent_given_class,
    latent_joint,
    on_grid,
    one_hot,
    probabilities,
    real_or_fake,
    semantic_to_latent,
    squared_difference,
    symmetric_divergence,
)

N, C, L, H, W = 2, 4, 3, 5, 6


@pytest.fixture
def maps() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, C, (N, H, W), generator=generator)
    targets[0, :2] = 255
    return {
        "semantic": torch.randn(N, C, H, W, generator=generator, dtype=torch.float64),
        "latent": torch.randn(N, L, H, W, generator=generator, dtype=torch.float64),
        "targets": targets,
        "matrix": torch.rand(C, L, generator=generator, dtype=torch.float64),
    }


def pixels() -> list[tuple[int, int, int]]:
    return [(n, y, x) for n in range(N) for y in range(H) for x in range(W)]


def test_cross_entropy_equals_a_plain_loop(maps: dict[str, Tensor]) -> None:
    total, count = 0.0, 0
    for n, y, x in pixels():
        label = int(maps["targets"][n, y, x])
        if label != 255:
            logits = maps["semantic"][n, :, y, x]
            total += float(logits.exp().sum().log() - logits[label])
            count += 1
    assert float(cross_entropy(maps["semantic"], maps["targets"])) == pytest.approx(total / count, abs=1e-12)


def test_cross_entropy_is_summed_in_one_order(maps: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's own sum (reduction="sum" or "mean") adds pixels in any order on a GPU."""
    really, asked = F.cross_entropy, list[str]()

    def noted(*args: Any, **kwargs: Any) -> Tensor:
        asked.append(kwargs["reduction"])
        return really(*args, **kwargs)

    monkeypatch.setattr(F, "cross_entropy", noted)
    cross_entropy(maps["semantic"], maps["targets"])
    assert asked == ["none"]


@pytest.mark.parametrize("classes", [2, 15, 16, 40])
def test_short_and_long_rows_give_the_same_softmax(classes: int) -> None:
    logits = 30 * torch.randn(2, classes, 5, 6, dtype=torch.float64)
    targets = torch.randint(0, classes, (2, 5, 6))
    targets[0, 0] = 255
    for given in (logits, logits.contiguous(memory_format=torch.channels_last)):
        probs = probabilities(given)
        torch.testing.assert_close(probs, logits.softmax(1), rtol=0, atol=1e-12)
        expected = torch.nn.functional.cross_entropy(logits, targets, ignore_index=255)
        torch.testing.assert_close(cross_entropy(given, targets), expected, rtol=0, atol=1e-12)


def test_latent_joint_equals_a_plain_loop(maps: dict[str, Tensor]) -> None:
    probs = maps["latent"].softmax(1)
    expected = torch.zeros(C, L, dtype=torch.float64)
    for n, y, x in pixels():
        if maps["targets"][n, y, x] != 255:
            expected[maps["targets"][n, y, x]] += probs[n, :, y, x]
    counts, count = latent_joint(probs, maps["targets"], C)
    torch.testing.assert_close(counts, expected, rtol=0, atol=1e-12)
    assert int(count) == N * H * W - 2 * W
    assert float(counts.sum() / count) == pytest.approx(1, abs=1e-12)


def test_latent_joint_refuses_values_outside_the_classes(maps: dict[str, Tensor]) -> None:
    for value in (C, -1, 254):
        targets = maps["targets"].clone()
        targets[1, 0, 0] = value
        with pytest.raises(ValueError, match="outside"):
            latent_joint(maps["latent"].softmax(1), targets, C)


def test_conditional_entropy_known_values() -> None:
    one_to_one = torch.eye(3, dtype=torch.float64) / 3
    assert float(conditional_entropy(one_to_one)) == 0
    independent = torch.full((4, 7), 1 / 28, dtype=torch.float64)
    assert float(conditional_entropy(independent)) == pytest.approx(math.log(4), abs=1e-12)
    # l0 holds c0 (1/2) and c1 (1/4); l1 holds c1 (1/4): only l0 leaves a doubt.
    joint = torch.tensor([[0.5, 0.0], [0.25, 0.25]], dtype=torch.float64)
    by_hand = -(0.5 * math.log(0.5 / 0.75) + 0.25 * math.log(0.25 / 0.75))
    assert float(conditional_entropy(joint)) == pytest.approx(by_hand, abs=1e-12)


def test_conditional_entropy_is_not_symmetric() -> None:
    """H(C|L), not H(L|C): two latent classes of one semantic class leave no doubt about it."""
    split = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    assert float(conditional_entropy(split)) == 0
    assert float(conditional_entropy(split.t())) == pytest.approx(math.log(2), abs=1e-12)


def test_conditional_entropy_gradient_is_exact_and_finite_at_zero(maps: dict[str, Tensor]) -> None:
    joint = maps["matrix"] / maps["matrix"].sum()
    assert torch.autograd.gradcheck(conditional_entropy, joint.clone().requires_grad_())
    with_zeros = joint.clone()
    with_zeros[1] = 0  # a class that this batch lacks
    with_zeros[:, 2] = 0  # a latent class that nothing uses
    with_zeros.requires_grad_()
    torch.autograd.backward(conditional_entropy(with_zeros))
    assert with_zeros.grad is not None
    assert bool(torch.isfinite(with_zeros.grad).all())


def test_latent_term_trains_through_an_absent_class(maps: dict[str, Tensor]) -> None:
    logits = maps["latent"].clone().requires_grad_()
    targets = maps["targets"].where(maps["targets"] != 1, 255)
    counts, count = latent_joint(logits.softmax(1), targets, C)
    torch.autograd.backward(conditional_entropy(counts / count))
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())
    assert float(logits.grad.abs().sum()) > 0


def test_latent_given_class_rows_and_unseen_classes() -> None:
    matrix = torch.tensor([[3.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([[0.75, 0.25, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]], dtype=torch.float64)
    torch.testing.assert_close(latent_given_class(matrix), expected, rtol=0, atol=0)


def test_semantic_to_latent_equals_a_plain_loop(maps: dict[str, Tensor]) -> None:
    probs, given = maps["semantic"].softmax(1), latent_given_class(maps["matrix"])
    mapped = semantic_to_latent(probs, given)
    for n, y, x in pixels():
        expected = [sum(float(given[c, k] * probs[n, c, y, x]) for c in range(C)) for k in range(L)]
        assert mapped[n, :, y, x].tolist() == pytest.approx(expected, abs=1e-12)
    torch.testing.assert_close(mapped.sum(1), torch.ones(N, H, W, dtype=torch.float64))


def test_consistency_equals_a_plain_loop(maps: dict[str, Tensor]) -> None:
    latent = maps["latent"].softmax(1)
    mapped = semantic_to_latent(maps["semantic"].softmax(1), latent_given_class(maps["matrix"]))
    valid = maps["targets"] != 255
    total = 0.0
    for n, y, x in pixels():
        if valid[n, y, x]:
            total -= float((latent[n, :, y, x] * mapped[n, :, y, x].log()).sum())
    expected = total / int(valid.sum())
    assert float(consistency(latent, mapped, valid)) == pytest.approx(expected, abs=1e-12)


def test_consistency_teaches_the_semantic_branch_only(maps: dict[str, Tensor]) -> None:
    latent = maps["latent"].clone().requires_grad_()
    semantic = maps["semantic"].clone().requires_grad_()
    given = latent_given_class(maps["matrix"])
    torch.autograd.backward(consistency(latent.softmax(1), semantic_to_latent(semantic.softmax(1), given)))
    assert latent.grad is None
    assert semantic.grad is not None
    assert float(semantic.grad.abs().sum()) > 0


def test_consistency_has_a_gradient_where_the_branches_disagree_most() -> None:
    """A clamp at 1e-5 would leave none here; a hard zero still gives a finite loss."""
    target = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    mapped = torch.tensor([1e-9, 1.0]).view(1, 2, 1, 1).requires_grad_()
    torch.autograd.backward(consistency(target, mapped))
    assert mapped.grad is not None
    assert float(mapped.grad[0, 0]) == pytest.approx(-1e9, rel=1e-4)
    assert math.isfinite(float(consistency(target, torch.tensor([0.0, 1.0]).view(1, 2, 1, 1))))


@pytest.mark.parametrize("real", [True, False])
def test_real_or_fake_equals_a_plain_loop(maps: dict[str, Tensor], real: bool) -> None:
    logits, valid = maps["latent"][:, :1], maps["targets"] != 255
    total = 0.0
    for n, y, x in pixels():
        if valid[n, y, x]:
            prob = 1 / (1 + math.exp(-float(logits[n, 0, y, x])))
            total -= math.log(prob if real else 1 - prob)
    expected = total / int(valid.sum())
    assert float(real_or_fake(logits, real, valid)) == pytest.approx(expected, abs=1e-12)


def test_real_or_fake_stands_large_logits() -> None:
    assert float(real_or_fake(torch.full((1, 1, 1, 1), 1000.0), real=False)) == 1000


def test_ignored_pixels_change_nothing(maps: dict[str, Tensor]) -> None:
    ignored = (maps["targets"] == 255).unsqueeze(1)
    valid = ~ignored.squeeze(1)

    def all_losses(semantic: Tensor, latent: Tensor) -> list[float]:
        counts, count = latent_joint(latent.softmax(1), maps["targets"], C)
        mapped = semantic_to_latent(semantic.softmax(1), latent_given_class(maps["matrix"]))
        return [
            float(cross_entropy(semantic, maps["targets"])),
            float(conditional_entropy(counts / count)),
            float(consistency(latent.softmax(1), mapped, valid)),
            float(real_or_fake(latent[:, :1], True, valid)),
        ]

    before = all_losses(maps["semantic"], maps["latent"])
    noise = torch.randn_like(maps["semantic"][:, :1]) * 9
    after = all_losses(
        torch.where(ignored, maps["semantic"] + noise * torch.arange(C).view(1, C, 1, 1), maps["semantic"]),
        torch.where(ignored, maps["latent"] - noise * torch.arange(L).view(1, L, 1, 1), maps["latent"]),
    )
    assert before == pytest.approx(after, abs=1e-12)


def test_no_valid_pixel_gives_a_differentiable_zero(maps: dict[str, Tensor]) -> None:
    semantic, latent = maps["semantic"].clone().requires_grad_(), maps["latent"].clone().requires_grad_()
    nothing, none_valid = torch.full((N, H, W), 255), torch.zeros(N, H, W, dtype=torch.bool)
    counts, count = latent_joint(latent.softmax(1), nothing, C)
    mapped = semantic_to_latent(semantic.softmax(1), latent_given_class(maps["matrix"]))
    terms = [
        cross_entropy(semantic, nothing),
        conditional_entropy(counts / count.clamp(min=1)),
        consistency(latent.softmax(1), mapped, none_valid),
        real_or_fake(semantic[:, :1], True, none_valid),
    ]
    assert [term.item() for term in terms] == [0, 0, 0, 0]
    torch.autograd.backward(torch.stack(terms).sum())
    assert semantic.grad is not None
    assert latent.grad is not None
    assert float(semantic.grad.abs().sum() + latent.grad.abs().sum()) == 0


def test_not_a_number_at_an_invalid_pixel_does_not_reach_the_loss() -> None:
    logits = torch.tensor([1.0, float("nan")]).view(1, 1, 1, 2)
    valid = torch.tensor([True, False]).view(1, 1, 2)
    assert float(real_or_fake(logits, True, valid)) == pytest.approx(math.log1p(math.exp(-1)), abs=1e-6)


def test_count_replaces_the_number_of_pixels(maps: dict[str, Tensor]) -> None:
    count, targets = torch.tensor(40.0, dtype=torch.float64), maps["targets"]
    valid = targets != 255
    pixel_count = int(valid.sum())
    logits = maps["latent"][:, :1]
    for with_count, without in (
        (cross_entropy(maps["semantic"], targets, count), cross_entropy(maps["semantic"], targets)),
        (real_or_fake(logits, True, valid, count), real_or_fake(logits, True, valid)),
        (
            consistency(maps["latent"].softmax(1), maps["latent"].softmax(1), valid, count),
            consistency(maps["latent"].softmax(1), maps["latent"].softmax(1), valid),
        ),
    ):
        assert float(with_count) == pytest.approx(float(without) * pixel_count / 40, abs=1e-12)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ],
)
def test_number_formats(maps: dict[str, Tensor], given: torch.dtype, expected: torch.dtype) -> None:
    semantic, latent = maps["semantic"].to(given), maps["latent"].softmax(1).to(given)
    counts, count = latent_joint(latent, maps["targets"], C)
    mapped = semantic_to_latent(semantic.softmax(1), latent_given_class(maps["matrix"].to(given)))
    results = [
        cross_entropy(semantic, maps["targets"]),
        conditional_entropy(counts / count),
        mapped,
        consistency(latent, mapped),
        real_or_fake(semantic[:, :1], True),
    ]
    assert {result.dtype for result in [counts, count, *results]} == {expected}


def test_truth_as_a_map_is_one_hot_and_empty_where_ignored(maps: dict[str, Tensor]) -> None:
    truth = one_hot(maps["targets"], C, torch.float64)
    assert truth.shape == maps["semantic"].shape
    for n, y, x in itertools.product(*(range(size) for size in maps["targets"].shape)):
        label = int(maps["targets"][n, y, x])
        assert truth[n, :, y, x].tolist() == [float(c == label) for c in range(C)]


@pytest.mark.parametrize("gradient", ["semantic", "latent", "both"])
def test_the_gradient_of_the_consistency_is_that_of_its_formula(
    gradient: Literal["semantic", "latent", "both"],
) -> None:
    """Against finite differences of the plain formula, and zero where the logarithm ends."""
    torch.manual_seed(0)
    target, mapped = (torch.rand(2, 4, 3, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    valid = torch.rand(2, 3, 3) > 0.3

    def formula(target: Tensor, mapped: Tensor) -> Tensor:
        one = target.detach() if gradient == "semantic" else target
        other = mapped.detach() if gradient == "latent" else mapped
        return (-(one * other.clamp(min=1e-12).log()).sum(1) * valid).sum() / valid.sum()

    expected = torch.autograd.grad(formula(target, mapped), (target, mapped), allow_unused=True)
    found = torch.autograd.grad(consistency(target, mapped, valid, None, gradient), (target, mapped), allow_unused=True)
    for one, other in zip(expected, found, strict=True):
        assert (one is None) == (other is None)
        torch.testing.assert_close(other, one, rtol=0, atol=1e-13)
    nothing = torch.zeros(1, 2, 1, 1, requires_grad=True)
    [slope] = torch.autograd.grad(consistency(torch.ones(1, 2, 1, 1), nothing), nothing)
    assert slope.flatten().tolist() == [0.0, 0.0]


@pytest.mark.parametrize("gradient", ["semantic", "latent", "both"])
def test_the_consistency_is_the_same_number_whichever_branch_learns(
    maps: dict[str, Tensor], gradient: Literal["semantic", "latent", "both"]
) -> None:
    target, mapped = (maps["latent"].roll(shift, 0).softmax(1).requires_grad_() for shift in (0, 1))
    expected = -float((target.detach() * mapped.detach().log()).sum(1).mean())
    assert float(consistency(target, mapped, gradient=gradient).detach()) == pytest.approx(expected, abs=1e-12)


def test_symmetric_divergence_equals_a_plain_loop_and_teaches_both(maps: dict[str, Tensor]) -> None:
    one, other = (maps["latent"].roll(shift, 0).clone().requires_grad_() for shift in (0, 1))
    valid, total = maps["targets"] != 255, 0.0
    for n, y, x in valid.nonzero().tolist():
        p, q = one.detach()[n, :, y, x].softmax(0).tolist(), other.detach()[n, :, y, x].softmax(0).tolist()
        total += sum(a * math.log(a / b) + b * math.log(b / a) for a, b in zip(p, q, strict=True))
    loss = symmetric_divergence(one, other, valid)
    assert loss.item() == pytest.approx(total / int(valid.sum()), abs=1e-12)
    assert symmetric_divergence(one, one).item() == 0
    torch.autograd.backward(loss)
    for learns in (one, other):
        assert learns.grad is not None
        assert bool(learns.grad.any())


@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 3.0]])
def test_squared_difference_equals_a_plain_loop_and_gives_its_target_no_gradient(
    maps: dict[str, Tensor], weights: list[float] | None
) -> None:
    mine, theirs = (maps["latent"].roll(shift, 0).softmax(1).requires_grad_() for shift in (0, 1))
    valid, total = maps["targets"] != 255, 0.0
    for n, y, x in valid.nonzero().tolist():
        p, q = mine.detach()[n, :, y, x].tolist(), theirs.detach()[n, :, y, x].tolist()
        weight = sum(w * b for w, b in zip(weights, q, strict=True)) if weights else 1.0
        total += weight * sum((a - b) ** 2 for a, b in zip(p, q, strict=True))
    given = None if weights is None else torch.tensor(weights)
    loss = squared_difference(mine, theirs, valid, weights=given)
    assert loss.item() == pytest.approx(total / int(valid.sum()), abs=1e-12)
    nothing = squared_difference(mine, theirs, valid & False, weights=given)  # a differentiable 0
    torch.autograd.backward(loss + nothing)
    assert mine.grad is not None
    assert bool(mine.grad.any())
    assert theirs.grad is None


def test_a_count_below_one_divides_too() -> None:
    """The share of one of two processes where a single pixel is labelled is half a pixel."""
    logits, half = torch.zeros(1, 1, 1, 2), torch.tensor(0.5)
    valid = torch.tensor([True, False]).view(1, 1, 2)
    assert float(real_or_fake(logits, True, valid, half)) == pytest.approx(2 * math.log(2))
    assert float(real_or_fake(logits, True, None, half)) == pytest.approx(4 * math.log(2))


def test_one_class_and_ignored_pixels_are_within_the_classes() -> None:
    targets = torch.tensor([[[0, 255]]])
    assert one_hot(targets, 1).tolist() == [[[[1.0, 0.0]]]]


def test_valid_pixels_on_a_grid_are_those_at_the_centres_of_its_cells() -> None:
    valid = torch.rand(N, 13, 10, generator=torch.Generator().manual_seed(0)) < 0.5
    maps = torch.zeros(N, 2, 5, 4)
    expected = [
        [[bool(valid[n, int((i + 0.5) * 13 / 5), int((j + 0.5) * 10 / 4)]) for j in range(4)] for i in range(5)]
        for n in range(N)
    ]
    assert on_grid(valid, maps).tolist() == expected
    assert torch.equal(on_grid(valid, torch.zeros(N, 2, 13, 10)), valid)
    assert torch.equal(on_grid(None, maps), torch.ones(N, 5, 4, dtype=torch.bool))
