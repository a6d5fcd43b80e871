"""Whole images in, probabilities or classes at image size out: the one way every verb predicts."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from latentseg.checkpoints import load_module
from latentseg.config import InferenceConfig
from latentseg.errors import UserError
from latentseg.methods.table import METHODS
from latentseg.models.segmenter import Output, Segmenter, build_segmenter
from latentseg.parallel import Precision, choose_device
from latentseg.runs import Run


class Probabilities(NamedTuple):
    """Maps of one batch of images of equal size."""

    semantic: Tensor
    """S_c, shape (N, C, H, W)."""
    latent: Tensor | None
    """S_l, shape (N, L, H, W), or None without a latent branch, or if it was not asked for."""


class Labels(NamedTuple):
    """The most probable classes of one batch of images of equal size."""

    semantic: Tensor
    """Class id per pixel, uint8, shape (N, H, W)."""
    latent: Tensor | None
    """Latent class per pixel, likewise; None without a latent branch, or if it was not asked for."""


Forward = Callable[..., Output]
"""Images (N, 3, H, W), and the size to pad them to or None, to logits at their size."""


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
    branch = METHODS[run.config.method.name].second_channels(run.config.method, num_classes)
    segmenter = build_segmenter(run.config.model, num_classes, branch, pretrained=False)
    load_module("segmenter", segmenter, run.checkpoints.read(entry))
    return segmenter.to(choose_device(run.config.device)).eval(), entry.step


def to_tensor(image: NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """RGB images (N, H, W, 3), or one (H, W, 3), as a batch of shape (N, 3, H, W), float32 in 0..1."""
    images = torch.from_numpy(image if image.ndim == 4 else image[None])
    return images.to(device).permute(0, 3, 1, 2).float().div_(255)


@torch.inference_mode()
def predict_probs(
    segmenter: Segmenter,
    images: Tensor,
    config: InferenceConfig,
    size: tuple[int, int] | None = None,
    precision: Precision = "32-true",
    latent: bool = True,
) -> Probabilities:
    """Predict images: whole or by sliding window, averaged over scales and mirror.

    Args:
        segmenter: In eval mode.
        images: Shape (N, 3, H, W), float, RGB in 0..1.
        config: Mode, window, scales and mirror.
        size: Height and width of the result; those of the images if None.
        precision: From `choose_precision`.
        latent: Whether the latent classes are wanted.
    """
    height, width = images.shape[-2:]
    size = size or (height, width)
    forward = partial(_forward, segmenter, precision, latent)
    views: list[Probabilities] = []
    for scale in config.scales:
        scaled_size = (max(1, round(height * scale)), max(1, round(width * scale)))
        scaled = images if scale == 1 else F.interpolate(images, scaled_size, mode="bilinear", antialias=True)
        for mirrored in (False, True) if config.mirror else (False,):
            view = _one_view(forward, scaled.flip(-1) if mirrored else scaled, config)
            upright = _map(view, lambda probs: probs.flip(-1)) if mirrored else view
            views.append(_map(upright, lambda probs: _resize(probs, size)))
    if len(views) == 1:
        return views[0]
    semantic = torch.stack([view.semantic for view in views]).mean(0)
    groups = [view.latent for view in views if view.latent is not None]
    return Probabilities(semantic, torch.stack(groups).mean(0) if groups else None)


@torch.inference_mode()
def predict_labels(
    segmenter: Segmenter,
    images: Tensor,
    config: InferenceConfig,
    size: tuple[int, int] | None = None,
    precision: Precision = "32-true",
    latent: bool = True,
) -> Labels:
    """The most probable class of each pixel; arguments as for `predict_probs`.

    Where nothing is averaged or resized, the largest logit decides: it has the largest probability.
    """
    one_view = config.scales == [1.0] and not config.mirror and size in (None, tuple(images.shape[-2:]))
    if one_view and _is_whole(images, config):
        logits = _forward(segmenter, precision, latent, images, config.pad_to)
        return Labels(largest(logits.semantic), None if logits.latent is None else largest(logits.latent))
    probs = predict_probs(segmenter, images, config, size, precision, latent)
    return Labels(largest(probs.semantic), None if probs.latent is None else largest(probs.latent))


def largest(maps: Tensor) -> Tensor:
    """Number of the largest map at each pixel, (N, C, H, W) to (N, H, W), uint8; the first of equal ones.

    On a CPU `max` is several times faster than `argmax` over a dimension that is not the last.
    """
    return maps.max(1).indices.byte()


def _is_whole(images: Tensor, config: InferenceConfig) -> bool:
    height, width = images.shape[-2:]
    return config.mode == "whole" or (height <= config.window[0] and width <= config.window[1])


def _one_view(forward: Forward, images: Tensor, config: InferenceConfig) -> Probabilities:
    if _is_whole(images, config):
        return _softmax(forward(images, config.pad_to))
    height, width = images.shape[-2:]
    window_height, window_width = min(config.window[0], height), min(config.window[1], width)
    total: Probabilities | None = None
    visits = images.new_zeros(1, 1, height, width)
    for top in _starts(height, window_height, config.overlap):
        for left in _starts(width, window_width, config.overlap):
            area = (..., slice(top, top + window_height), slice(left, left + window_width))
            window = _softmax(forward(images[area]))
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


def _forward(
    segmenter: Segmenter, precision: Precision, latent: bool, images: Tensor, pad_to: tuple[int, int] | None = None
) -> Output:
    """Pad at the right and the bottom to a size that the encoder takes, with the mean colour; predict; crop back."""
    height, width = images.shape[-2:]
    least = pad_to or (0, 0)
    full_height, full_width = segmenter.valid_size(max(height, least[0]), max(width, least[1]))
    mean = images.new_tensor(segmenter.mean).view(1, 3, 1, 1)
    padded = mean.expand(len(images), 3, full_height, full_width).clone()
    padded[..., :height, :width] = images
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
        logits = segmenter(padded, latent=latent)
    crop = (..., slice(0, height), slice(0, width))
    return Output(logits.semantic[crop], None if logits.latent is None else logits.latent[crop])


def _softmax(logits: Output) -> Probabilities:
    latent = None if logits.latent is None else logits.latent.float().softmax(1)
    return Probabilities(logits.semantic.float().softmax(1), latent)


def _map(probs: Probabilities, function: Callable[[Tensor], Tensor]) -> Probabilities:
    return Probabilities(function(probs.semantic), None if probs.latent is None else function(probs.latent))


def _resize(probs: Tensor, size: tuple[int, int]) -> Tensor:
    return probs if probs.shape[-2:] == size else F.interpolate(probs, size, mode="bilinear")
