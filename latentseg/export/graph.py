"""A segmenter as one graph: images as they come out of a file, to probabilities at their size."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn import functional

from latentseg.errors import UserError
from latentseg.models.encoders import Encoder
from latentseg.models.folding import folded
from latentseg.models.segmenter import Segmenter

IMAGES, OUTPUTS = "images", ("probabilities", "latent")
"""Names of the input and of the outputs."""
EXAMPLE = (2, 100, 141)
"""Number, height and width of the images that are traced where any size goes: no two maps share a size by chance."""
LEAST = 33
"""Pixels of the least side that a graph for any size takes: below it a map of stride 32 has a single row."""


class Graph(nn.Module):
    """Normalisation, padding, encoder, heads, upsampling and softmax; nothing of it depends on Python.

    Args:
        segmenter: A trained one; its parts are shared or copied, not changed.
        latent: Whether the latent classes are put out, too.
        pad_to: Least height and width that images are padded to (`inference.pad_to`).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, segmenter: Segmenter, latent: bool, pad_to: tuple[int, int] | None) -> None:
        super().__init__()
        self.encoder = _plain(folded(segmenter.encoder))
        heads = [segmenter.semantic_head, segmenter.latent_head if latent else None]
        self.heads = nn.ModuleList(head for head in heads if head is not None)
        self.align_corners = segmenter.align_corners
        self.least = pad_to or (1, 1)
        self.register_buffer("mean", 255 * segmenter.pixel_mean)
        self.register_buffer("std", 255 * segmenter.pixel_std)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """RGB, uint8, shape (N, H, W, 3), to probabilities of the classes and latent ones, each (N, C, H, W)."""
        height, width = images.shape[1], images.shape[2]
        least: list[Any] = [torch.sym_max(size, at) for size, at in zip((height, width), self.least, strict=True)]
        full_height, full_width = self.encoder.valid_size(*least)
        x = (images.permute(0, 3, 1, 2).float() - self.mean) / self.std
        x = functional.pad(x, (0, full_width - width, 0, full_height - height))  # with the mean colour
        maps = self.encoder(x)
        found = []
        for head in self.heads:
            logits = head(maps).contiguous()
            rows = _weights(logits.shape[-2], height, full_height, self.align_corners)
            columns = _weights(logits.shape[-1], width, full_width, self.align_corners)
            found.append(_softmax(rows @ (logits @ columns.T)))
        return tuple(found)


def _softmax(logits: Tensor) -> Tensor:
    """Over the classes of (N, C, H, W), in parts: the one of onnxruntime, which wants them last, takes far longer."""
    powers = (logits - logits.amax(1, keepdim=True)).exp()
    return powers * powers.sum(1, keepdim=True).reciprocal()


def _weights(few: int, many: int, full: int, align_corners: bool) -> Tensor:
    """As `models.upsample` for the first `many` of `full` values, shape (many, few), by arithmetic alone."""
    place = torch.arange(many, dtype=torch.float64)
    corners, edges = place * ((few - 1) / max(1, full - 1)), (place + 0.5) * (few / full) - 0.5
    apart = (corners if align_corners else edges).clamp(min=0, max=few - 1)[:, None] - torch.arange(
        few, dtype=torch.float64
    )
    return (1 - apart.abs()).clamp(min=0).float()


def _plain(encoder: Encoder) -> Encoder:
    """A copy without convolutions that ask for the size of their map: TensorFlow's padding, on whole strides, is fixed.

    An encoder has only those sizes here (`Encoder.valid_size`). torch.export does not get ahead with the question.
    """
    copied = copy.deepcopy(encoder).eval().requires_grad_(False)
    for name, conv in list(copied.named_modules()):
        if isinstance(conv, Conv2dSame):
            pads = list[int]()
            for side, step, dilation in reversed(list(zip(conv.kernel_size, conv.stride, conv.dilation, strict=True))):
                total = max((side - 1) * dilation + 1 - step, 0)
                pads += [total // 2, total - total // 2]
            size, stride = conv.kernel_size, conv.stride
            conv_only = nn.Conv2d(conv.in_channels, conv.out_channels, size, stride, 0, conv.dilation, conv.groups)  # type: ignore[arg-type]
            conv_only.weight, conv_only.bias = conv.weight, conv.bias
            copied.set_submodule(name, nn.Sequential(nn.ZeroPad2d(tuple(pads)), conv_only))  # type: ignore[arg-type]
    return copied


def traced(graph: Graph, size: tuple[int, int] | None) -> ExportedProgram:
    """The graph as a program, for any number of images of any size, or of one size (height, width).

    Raises:
        UserError: torch.export cannot do this network.
    """
    number, *example = EXAMPLE
    images = torch.zeros(number, *(size or example), 3, dtype=torch.uint8)
    free: Sequence[int] = (0,) if size else (0, 1, 2)
    try:
        with torch.no_grad():
            return torch.export.export(
                graph.eval(), (images,), dynamic_shapes={IMAGES: dict.fromkeys(free, Dim.DYNAMIC)}, strict=False
            )
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        remedy = "take another format or encoder" if size else "try it for one size: --size 512 512"
        raise UserError(f"this network cannot be exported by torch.export ({reason}): {remedy}") from error
