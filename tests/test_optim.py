"""Optimisers: AdvSemiSeg's repeated updates of the encoder."""

import pytest
import torch
from torch import nn
from torch.optim import SGD

from latentseg.config import ModelConfig, OptimConfig
from latentseg.models.segmenter import build_segmenter
from latentseg.optim import RepeatedSGD, segmenter_optimizer


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


@pytest.mark.parametrize(("frozen", "updates", "kind"), [(False, 3, RepeatedSGD), (False, 1, SGD), (True, 3, SGD)])
def test_the_option_chooses_it(frozen: bool, updates: int, kind: type) -> None:
    model = ModelConfig(weights_kind="none", frozen=frozen, head_channels=8)
    segmenter = build_segmenter(model, 3, 0)
    optimizer = segmenter_optimizer(segmenter, OptimConfig(encoder_updates=updates))
    assert type(optimizer) is kind
    assert len(optimizer.param_groups) == (1 if frozen else 2)
