"""The segmenter: an encoder, and two heads of which one tells classes and one tells latent classes."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from latentseg.config import ModelConfig
from latentseg.data.features import Features
from latentseg.errors import UserError
from latentseg.models.architectures import DecoderHead
from latentseg.models.encoders import Encoder, build_encoder
from latentseg.models.folding import folded
from latentseg.models.upsample import upsample
from latentseg.models.weights import load_weights

Perturb = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""Changes feature maps, each of shape (N, channels, h, w)."""


class Output(NamedTuple):
    """What the segmenter says, at the size of the image or on the heads' grid; or what is made of it.

    semantic: logits of the classes, (N, C, H, W). In inference also their probabilities, or class ids, (N, H, W).
    latent: logits of the latent classes, (N, L, H, W), or likewise; None without a latent branch.
    """

    semantic: Tensor
    latent: Tensor | None


class AsppHead(nn.Module):
    """DeepLab-v2's head: the sum of four dilated 3x3 convolutions (arXiv:1606.00915, section 3.2, ASPP-L).

    Weights start from N(0, 0.01). Biases start from PyTorch's default, as in AdvSemiSeg's code, which sets
    the weights only.

    Args:
        in_channels: Channels of the map.
        num_outputs: Classes.
        rates: Dilations.
    """

    def __init__(self, in_channels: int, num_outputs: int, rates: Sequence[int] = (6, 12, 18, 24)) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(in_channels, num_outputs, 3, padding=rate, dilation=rate) for rate in rates
        )
        for parameter in self.parameters():
            if parameter.ndim == 4:
                nn.init.normal_(parameter, std=0.01)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps of the encoder, of which the last counts, to logits (N, num_outputs, h, w)."""
        return torch.stack([conv(maps[-1]) for conv in self.convs]).sum(dim=0)


class Fusion(nn.Module):
    """Feature maps of several strides, summed into one (after arXiv:1612.03144, Figure 3).

    From the coarsest map on, the sum is upsampled to the next finer one and its 1x1 projection added; maps of equal
    stride, such as those of a vision transformer, are summed as they are. Maps
    finer than the target are brought to its size: their detail takes part, no convolution runs at their size.

    Args:
        encoder: Whose maps come in.
        channels: Channels of the fused map.
        stride: Stride of the fused map, in pixels of the image.
    """

    def __init__(self, encoder: Encoder, channels: int, stride: int) -> None:
        super().__init__()
        self.align_corners = encoder.align_corners
        self.target = encoder.strides.index(stride)
        self.laterals = nn.ModuleList(nn.Conv2d(inputs, channels, 1) for inputs in encoder.channels)
        self.smooth = _smooth(channels)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Fuse the maps, finest first, into (N, channels, h, w)."""
        size = maps[self.target].shape[-2:]
        fused: Tensor = self.laterals[-1](maps[-1])
        for lateral, x in zip(reversed(self.laterals[:-1]), reversed(maps[:-1]), strict=True):
            # Resizing and a 1x1 convolution commute; at the coarser size both cost less.
            here = x if x.shape[-1] <= size[-1] and x.shape[-2] <= size[-2] else _resize(x, size, self)
            fused = _resize(fused, here.shape[-2:], self) + lateral(here)
        smoothed: Tensor = self.smooth(fused)
        return smoothed


class LightHead(nn.Module):
    """Fusion of the encoder's maps, a 3x3 convolution with GroupNorm and ReLU, a 1x1 convolution to the classes.

    Each branch fuses for itself. One fused map for both was tried first: the latent loss then pulled at what the
    semantic branch stands on (docs/notebook/first_runs.md).

    Args:
        encoder: Whose maps come in.
        channels: Channels of the fused map and of the 3x3 convolution.
        stride: Stride of the fused map, in pixels of the image.
        num_outputs: Classes.
    """

    def __init__(self, encoder: Encoder, channels: int, stride: int, num_outputs: int) -> None:
        super().__init__()
        self.fusion = Fusion(encoder, channels, stride)
        self.body = _smooth(channels)
        self.classify = nn.Conv2d(channels, num_outputs, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps of the encoder, finest first, to logits (N, num_outputs, h, w)."""
        logits: Tensor = self.classify(self.body(self.fusion(maps)))
        return logits


def _smooth(channels: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(math.gcd(8, channels), channels), nn.ReLU())


def _resize(x: Tensor, size: Sequence[int], grid: "Fusion") -> Tensor:
    """Bilinear, on the grid of the encoder: halving takes every second value, or the mean of each four."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return functional.interpolate(x, size=list(size), mode="bilinear", align_corners=grid.align_corners)


class Segmenter(nn.Module):
    """Encoder and heads (arXiv:1912.12936, Figure 2). Mean and deviation travel with the weights.

    Args:
        encoder: Gives the feature maps.
        num_classes: Semantic classes C.
        num_latent: Latent classes L; 0 for no latent branch.
        config: Heads, BatchNorm, frozen or not. The encoder's name and weights are not read.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, encoder: Encoder, num_classes: int, num_latent: int, config: ModelConfig) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_latent = num_latent
        self.frozen = config.frozen
        self.batchnorm = config.batchnorm
        self.micro_batches = config.micro_batches
        self.register_buffer("pixel_mean", torch.tensor(encoder.mean).view(3, 1, 1))
        self.register_buffer("pixel_std", torch.tensor(encoder.std).view(3, 1, 1))
        self.encoder = encoder
        self._folded: tuple[Encoder, ...] = ()  # a tuple hides it: it is no part of the state dict
        self.register_load_state_dict_pre_hook(lambda *_: self._unfold())  # type: ignore[no-untyped-call]
        _check_head(encoder, config)
        self.semantic_head = _build_head(encoder, num_classes, config)
        self.latent_head = _build_head(encoder, num_latent, config) if num_latent else None
        self._fix_parameters()
        self.memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
        self.to(memory_format=self.memory_format)
        self.train()

    @property
    def mean(self) -> tuple[float, float, float]:
        """Colour that becomes zero, RGB in 0..1: what images are padded with."""
        red, green, blue = self.pixel_mean.flatten().tolist()
        return red, green, blue

    @property
    def align_corners(self) -> bool:
        """How maps are resized; the discriminator does as the segmenter."""
        return self.encoder.align_corners

    def forward(
        self, images: Tensor | Features, perturb: Perturb | None = None, upsample: bool = True, latent: bool = True
    ) -> Output:
        """Segment images.

        Args:
            images: Shape (N, 3, H, W), RGB in 0..1; or what `encode` made of them before.
            perturb: Changes the feature maps on their way to the heads.
            upsample: Logits at the size of the images; on the heads' own grid if False.
            latent: False leaves out the latent branch, if there is one.
        """
        if isinstance(images, Features):
            maps, size = [features.to(self.pixel_mean.dtype) for features in images.maps], images.size
        else:
            maps, size = self.encode(images), (images.shape[-2], images.shape[-1])
        return self.decode(maps if perturb is None else perturb(maps), size if upsample else None, latent)

    def encode(self, images: Tensor) -> list[Tensor]:
        """Feature maps of images (N, 3, H, W), RGB in 0..1; without a gradient if the encoder is frozen."""
        images = ((images - self.pixel_mean) / self.pixel_std).contiguous(memory_format=self.memory_format)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            if self.micro_batches == 1 or not torch.is_grad_enabled():
                encoder = self._folded[0] if self._folded and not torch.is_grad_enabled() else self.encoder
                maps: list[Tensor] = encoder(images)
                return maps
            parts = [
                checkpoint(self.encoder, images_part, use_reentrant=False, context_fn=self._contexts)
                for images_part in images.chunk(self.micro_batches)
            ]
        return [torch.cat(level) for level in zip(*parts, strict=True)]

    def fold(self) -> None:
        """Run the encoder with BatchNorm folded into its convolutions where no gradient is wanted.

        For weights that rest: of a trained segmenter, or of a frozen encoder. Keys and values of the state dict stay.
        Loading weights, moving, and training an encoder that is not frozen end it.
        """
        encoder = folded(self.encoder)
        self._folded = (encoder,) if encoder is not self.encoder else ()

    def _unfold(self) -> None:
        self._folded = ()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Segmenter":
        """Move, or change the type of numbers: what is folded is of the weights before."""
        self._unfold()
        return super()._apply(fn, recurse)  # type: ignore[no-any-return, no-untyped-call]

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Around a micro-batch's two forwards: BatchNorm counts its statistics in the first one alone."""
        return nullcontext(), self._norms_as_they_are()

    @contextmanager
    def _norms_as_they_are(self) -> Iterator[None]:
        norms = self._norms()
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 0.0
        try:
            yield
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum

    def decode(self, features: Sequence[Tensor], size: tuple[int, int] | None, latent: bool = True) -> Output:
        """Logits at a size (height, width) in pixels, or on the heads' grid, from the maps that `encode` gave."""
        semantic = self.semantic_head(features)
        groups = self.latent_head(features) if latent and self.latent_head is not None else None
        if size is None:
            return Output(semantic.contiguous(), None if groups is None else groups.contiguous())
        groups = None if groups is None else upsample(groups, size, self.align_corners)
        return Output(upsample(semantic, size, self.align_corners), groups)

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        """Smallest size in pixels, at least the given one, that the encoder takes: 8k+1, 32k, or whole patches."""
        return self.encoder.valid_size(height, width)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters by learning rate."""
        groups: dict[str, list[nn.Parameter]] = {"encoder": [], "heads": []}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                groups["encoder" if name.startswith("encoder.") else "heads"].append(parameter)
        return groups

    def train(self, mode: bool = True) -> "Segmenter":
        """Switch to training, except what stays in eval mode: a frozen encoder, frozen BatchNorm."""
        super().train(mode)
        if mode and not self.frozen:
            self._unfold()
        if self.frozen:
            self.encoder.eval()
        elif self.batchnorm == "frozen":
            for norm in self._norms():
                norm.eval()
        return self

    def _norms(self) -> list[_BatchNorm]:
        return [module for module in self.encoder.modules() if isinstance(module, _BatchNorm)]

    def _fix_parameters(self) -> None:
        if self.frozen:
            self.encoder.requires_grad_(requires_grad=False)
        elif self.batchnorm != "train":
            for norm in self._norms():
                norm.requires_grad_(requires_grad=False)


def _build_head(encoder: Encoder, num_outputs: int, config: ModelConfig) -> AsppHead | LightHead | DecoderHead:
    if encoder.network is not None:
        return DecoderHead(encoder.network, encoder.picks, encoder.strides, num_outputs)
    if config.head == "aspp":
        return AsppHead(encoder.channels[-1], num_outputs, config.aspp_rates)
    return LightHead(encoder, config.head_channels, config.head_stride, num_outputs)


def _check_head(encoder: Encoder, config: ModelConfig) -> None:
    if config.head == "aspp" and encoder.strides[-1] != 8:
        raise UserError(
            f"model.head=aspp works on a last map of stride 8, this encoder's has {encoder.strides[-1]}: "
            f"set model.head=light, or take a deeplab_resnet encoder"
        )
    if encoder.network is None and config.head == "light" and config.head_stride not in encoder.strides:
        raise UserError(
            f"model.head_stride={config.head_stride} is no stride of this encoder, which has "
            f"{', '.join(map(str, sorted(set(encoder.strides))))}: set it to one of them"
        )


def build_segmenter(config: ModelConfig, num_classes: int, num_latent: int, pretrained: bool = True) -> Segmenter:
    """Build the segmenter of a config and fill it with the weights that the config names.

    Args:
        config: The model's options.
        num_classes: Semantic classes C.
        num_latent: Latent classes L; 0 for no latent branch.
        pretrained: False gives the structure only, for a state dict of ours: that brings normalisation and
            place of the stride along.

    Raises:
        UserError: Encoder, head and weights do not fit each other, or the weights cannot be had.
    """
    segmenter = Segmenter(build_encoder(config, pretrained), num_classes, num_latent, config)
    if pretrained:
        load_weights(segmenter, config)
    return segmenter
