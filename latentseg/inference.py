"""Whole images in, probabilities at image size out: the one way every verb predicts."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from latentseg.checkpoints import load_module
from latentseg.config import InferenceConfig
from latentseg.errors import UserError
from latentseg.methods import second_branch
from latentseg.models.segmenter import Segmenter, build_segmenter
from latentseg.parallel import choose_device
from latentseg.runs import Run


class Probabilities(NamedTuple):
    """Maps of one batch of images of equal size."""

    semantic: Tensor
    """S_c, shape (N, C, H, W)."""
    latent: Tensor | None
    """S_l, shape (N, L, H, W), or None without a latent branch."""


def load_segmenter(run: Run, checkpoint: str = "last") -> tuple[Segmenter, int]:
    """Load a trained segmenter, in eval mode on the configured device, and the step that it is from.

    Args:
        run: An open run.
        checkpoint: last, or best.

    Raises:
        UserError: There is no such checkpoint, it is damaged, or it does not fit the configuration.
    """
    if checkpoint not in ("last", "best"):
        raise UserError(f"checkpoint {checkpoint!r}: choose last or best")
    if run.config.threads:
        torch.set_num_threads(run.config.threads)
    entry = run.checkpoints.best() if checkpoint == "best" else run.checkpoints.last()
    if entry is None:
        raise UserError(f"{run.folder} has no {checkpoint} checkpoint yet: train it with --resume")
    num_classes = len(run.classes)
    branch = second_branch(run.config, num_classes)
    segmenter = build_segmenter(run.config.model, num_classes, branch, pretrained=False)
    load_module("segmenter", segmenter, run.checkpoints.read(entry))
    return segmenter.to(choose_device(run.config.device)).eval(), entry.step


def to_tensor(image: NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """An RGB image (H, W, 3) as a batch of one, shape (1, 3, H, W), float32 in 0..1."""
    return torch.from_numpy(image).to(device).permute(2, 0, 1).unsqueeze(0).float() / 255


@torch.inference_mode()
def predict_probs(
    segmenter: Segmenter, images: Tensor, config: InferenceConfig, size: tuple[int, int] | None = None
) -> Probabilities:
    """Predict images: whole or by sliding window, averaged over scales and mirror.

    Args:
        segmenter: In eval mode.
        images: Shape (N, 3, H, W), float, RGB in 0..1.
        config: Mode, window, scales and mirror.
        size: Height and width of the result; those of the images if None.
    """
    height, width = images.shape[-2:]
    size = size or (height, width)
    views: list[Probabilities] = []
    for scale in config.scales:
        scaled_size = (max(1, round(height * scale)), max(1, round(width * scale)))
        scaled = images if scale == 1 else F.interpolate(images, scaled_size, mode="bilinear", antialias=True)
        for mirrored in (False, True) if config.mirror else (False,):
            view = _one_view(segmenter, scaled.flip(-1) if mirrored else scaled, config)
            upright = _map(view, lambda probs: probs.flip(-1)) if mirrored else view
            views.append(_map(upright, lambda probs: _resize(probs, size)))
    semantic = torch.stack([view.semantic for view in views]).mean(0)
    latent = [view.latent for view in views if view.latent is not None]
    return Probabilities(semantic, torch.stack(latent).mean(0) if latent else None)


def _one_view(segmenter: Segmenter, images: Tensor, config: InferenceConfig) -> Probabilities:
    height, width = images.shape[-2:]
    window_height, window_width = min(config.window[0], height), min(config.window[1], width)
    if config.mode == "whole" or (window_height, window_width) == (height, width):
        return _forward(segmenter, images, config.pad_to)
    total: Probabilities | None = None
    visits = images.new_zeros(1, 1, height, width)
    for top in _starts(height, window_height, config.overlap):
        for left in _starts(width, window_width, config.overlap):
            area = (..., slice(top, top + window_height), slice(left, left + window_width))
            window = _forward(segmenter, images[area])
            if total is None:
                total = _map(window, lambda probs: probs.new_zeros(*probs.shape[:2], height, width))
            total.semantic[area] += window.semantic
            if total.latent is not None and window.latent is not None:
                total.latent[area] += window.latent
            visits[area] += 1
    assert total is not None
    return _map(total, lambda probs: probs / visits)


def _starts(length: int, window: int, overlap: float) -> list[int]:
    """Evenly spread starts of windows that cover `length` and overlap by at least the given share."""
    stride = max(1, int(window * (1 - overlap)))
    count = -(-(length - window) // stride) + 1
    return [round(i * (length - window) / max(1, count - 1)) for i in range(count)]


def _forward(segmenter: Segmenter, images: Tensor, pad_to: tuple[int, int] | None = None) -> Probabilities:
    """Pad at the right and the bottom to a size that the encoder takes, with the mean colour; predict; crop back."""
    height, width = images.shape[-2:]
    least = pad_to or (0, 0)
    full_height, full_width = segmenter.valid_size(max(height, least[0]), max(width, least[1]))
    mean = images.new_tensor(segmenter.mean).view(1, 3, 1, 1)
    padded = mean.expand(len(images), 3, full_height, full_width).clone()
    padded[..., :height, :width] = images
    semantic, latent = segmenter(padded)
    crop = (..., slice(0, height), slice(0, width))
    return Probabilities(semantic[crop].float().softmax(1), None if latent is None else latent[crop].float().softmax(1))


def _map(probs: Probabilities, function: Callable[[Tensor], Tensor]) -> Probabilities:
    return Probabilities(function(probs.semantic), None if probs.latent is None else function(probs.latent))


def _resize(probs: Tensor, size: tuple[int, int]) -> Tensor:
    return probs if probs.shape[-2:] == size else F.interpolate(probs, size, mode="bilinear")
