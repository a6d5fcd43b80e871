"""The mean teacher: a network whose weights are a moving average of the student's."""

import torch
from torch import nn


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, decay: float, step: int) -> None:
    """Move the teacher towards the student: teacher = d teacher + (1 - d) student.

    Tarvainen and Valpola, arXiv:1703.01780, Eq. 2. In step k (from 0) d is at most 1 - 1 / (k + 1), so that the first
    steps' weights are soon forgotten. BatchNorm's statistics are averaged too; what never learns is left alone. The
    teacher predicts in eval mode.

    Args:
        teacher: Changed in place; of the same structure as the student.
        student: The network that learns.
        decay: d, in [0, 1).
        step: Number of the step, from 0.
    """
    rate = 1 - min(decay, step / (step + 1))
    learned = [pair for pair in zip(teacher.parameters(), student.parameters(), strict=True) if pair[1].requires_grad]
    for mine, theirs in [*learned, *zip(teacher.buffers(), student.buffers(), strict=True)]:
        if mine.is_floating_point():
            mine.lerp_(theirs, rate)
        else:
            mine.copy_(theirs)
    if teacher.training:
        teacher.eval()
