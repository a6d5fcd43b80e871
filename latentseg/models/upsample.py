"""Bilinear upsampling of logits, as two matrix products."""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional


def upsample(logits: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Logits (N, K, h, w) at a size (height, width), contiguous; at least float32.

    The weights are those of `interpolate`. Two small matrix products are several times faster than it on a CPU, above
    all backward, and what they leave, class by class in memory, is what PyTorch's softmax is fast on.

    Args:
        logits: Maps of a head.
        size: Height and width in pixels.
        align_corners: Whether corners of map and image fall onto each other, or their edges do.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = (logits if logits.dtype == torch.float64 else logits.float()).contiguous()
        if tuple(logits.shape[-2:]) == tuple(size):
            return logits
        rows = _weights(logits.shape[-2], size[0], align_corners, logits.dtype, logits.device)
        columns = _weights(logits.shape[-1], size[1], align_corners, logits.dtype, logits.device)
        return rows @ (logits @ columns.T)


@lru_cache(maxsize=32)
def _weights(few: int, many: int, align_corners: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What each of `few` values adds to each of `many`, shape (many, few)."""
    with torch.inference_mode(mode=False):  # a validation may be the first to ask, and training may need them after it
        unit = torch.eye(few, dtype=dtype, device=device)[None]
        return functional.interpolate(unit, many, mode="linear", align_corners=align_corners)[0].T.contiguous()
