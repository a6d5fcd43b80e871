"""Optimisers: AdvSemiSeg's repeated updates of the encoder, AdamW, the decay of the rates."""

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from latentseg.config import ModelConfig, OptimConfig
from latentseg.models.segmenter import Segmenter, build_segmenter
from latentseg.runs.checkpoints import load_optimizer, optimizer_tensors
from latentseg.training.optim import RepeatedSGD, decay, segmenter_optimizer


def test_the_first_group_moves_several_times_with_one_gradient() -> None:
    torch.manual_seed(0)
    encoder, head = (nn.Parameter(torch.randn(3, dtype=torch.float64)) for _ in range(2))
    groups = [{"params": [encoder], "lr": 0.1}, {"params": [head], "lr": 0.5}]
    optimizer = RepeatedSGD(groups, repeats=3, lr=0.1, momentum=0.9, weight_decay=0.01)
    x, y = encoder.detach().clone(), head.detach().clone()
    momentum_x, momentum_y = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for step in range(3):
        encoder.grad, head.grad = torch.full_like(x, 1.0 + step), torch.full_like(y, 2.0)
        optimizer.step()
        for _ in range(3):
            momentum_x = 0.9 * momentum_x + (1.0 + step + 0.01 * x)
            x = x - 0.1 * momentum_x
        momentum_y = 0.9 * momentum_y + (2.0 + 0.01 * y)
        y = y - 0.5 * momentum_y
        torch.testing.assert_close(encoder.detach(), x, rtol=0, atol=1e-12)
        torch.testing.assert_close(head.detach(), y, rtol=0, atol=1e-12)
    assert len(optimizer.param_groups) == 2


def small_segmenter(frozen: bool = False) -> Segmenter:
    return build_segmenter(ModelConfig(weights_kind="none", frozen=frozen, head_channels=8), 3, 0)


@pytest.mark.parametrize(("frozen", "updates", "kind"), [(False, 3, RepeatedSGD), (False, 1, SGD), (True, 3, SGD)])
def test_the_option_chooses_it(frozen: bool, updates: int, kind: type) -> None:
    optimizer = segmenter_optimizer(small_segmenter(frozen), OptimConfig(encoder_updates=updates))
    assert type(optimizer) is kind
    assert len(optimizer.param_groups) == (1 if frozen else 2)


def test_adamw_as_its_paper_says() -> None:
    segmenter = small_segmenter()
    optim = OptimConfig(name="adamw", lr=0.01, head_factor=40, weight_decay=0.1)
    optimizer = segmenter_optimizer(segmenter, optim)
    assert type(optimizer) is AdamW
    rates = dict(zip(("encoder", "heads"), optimizer.param_groups, strict=True))
    assert {name: group["lr"] for name, group in rates.items()} == {"encoder": 0.01, "heads": 0.4}
    for name, group in rates.items():  # arXiv:1711.05101, Algorithm 2, two steps of a weight in each group
        weight = segmenter.parameter_groups()[name][0]
        assert weight is group["params"][0]
        x, mean, square = weight.detach().clone(), torch.zeros_like(weight), torch.zeros_like(weight)
        for step, slope in enumerate((2.0, -1.0), start=1):
            weight.grad = torch.full_like(weight, slope)
            optimizer.step()
            mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
            unbiased = mean / (1 - 0.9**step), square / (1 - 0.999**step)
            x = x - group["lr"] * (unbiased[0] / (unbiased[1].sqrt() + 1e-8) + 0.1 * x)
        torch.testing.assert_close(weight.detach(), x)
        weight.grad = None


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_all_rates_decay_from_their_own_start(name: str) -> None:
    optim = OptimConfig.model_validate({"name": name, "lr": 0.01, "head_factor": 40.0})
    optimizer = segmenter_optimizer(small_segmenter(), optim)
    for progress in (0.0, 0.75, 0.5):  # not from the rate of the step before
        decay({"segmenter": optimizer}, progress, power=0.5)
        wanted = [0.01 * (1 - progress) ** 0.5, 0.4 * (1 - progress) ** 0.5]
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(wanted, rel=1e-12)


def test_adamw_goes_on_from_a_checkpoint_bit_for_bit() -> None:
    def slope(segmenter: Segmenter, step: int) -> None:
        generator = torch.Generator().manual_seed(step)
        for weight in segmenter.parameters():
            weight.grad = torch.randn(weight.shape, generator=generator)

    optim, segmenter = OptimConfig(name="adamw", lr=0.01), small_segmenter()
    optimizer = segmenter_optimizer(segmenter, optim)
    slope(segmenter, 0)
    optimizer.step()
    again = small_segmenter()
    again.load_state_dict(segmenter.state_dict())
    resumed = segmenter_optimizer(again, optim)
    saved = {key: value.clone() for key, value in optimizer_tensors("segmenter", optimizer).items()}
    load_optimizer("segmenter", resumed, saved)
    for model, its in ((segmenter, optimizer), (again, resumed)):
        slope(model, 1)
        its.step()
    assert all(torch.equal(a, b) for a, b in zip(segmenter.parameters(), again.parameters(), strict=True))


def test_half_the_loss_is_half_the_rate_and_twice_the_decay() -> None:
    """What the presets *_match rest on: UniMatch's lr and weight decay act on half the sum of the losses."""
    torch.manual_seed(0)
    theirs = nn.Parameter(torch.randn(5, dtype=torch.float64))
    ours = nn.Parameter(theirs.detach().clone())
    on_half = SGD([theirs], lr=0.1, momentum=0.9, weight_decay=0.01)
    on_sum = SGD([ours], lr=0.05, momentum=0.9, weight_decay=0.02)
    for _ in range(5):
        for weight, optimizer, share in ((theirs, on_half, 0.5), (ours, on_sum, 1.0)):
            optimizer.zero_grad()
            (share * (weight.sin() + weight**4).sum()).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-12)
