"""BatchNorm folded into the convolutions before it: an encoder whose weights rest runs faster, and says the same."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from latentseg.models.encoders import Encoder

PROOF = (65, 97)
"""Least height and width in pixels of the image by which a folded encoder is proved."""
TOLERANCE = 1e-4
"""Of the largest value of a map."""


def folded(encoder: Encoder) -> Encoder:
    """A copy of an encoder in eval mode, with BatchNorm folded into the convolutions that feed it.

    Which convolution feeds which BatchNorm is seen by running it, and both encoders must give the same maps. One of
    which that is not so, or without BatchNorm, such as a vision transformer, is returned itself.

    Args:
        encoder: Its weights rest; later changes do not reach the copy.
    """
    if not any(isinstance(module, _BatchNorm) for module in encoder.modules()):
        return encoder
    like = next(encoder.parameters())
    image = torch.randn(1, 3, *encoder.valid_size(*PROOF), generator=torch.Generator().manual_seed(0))
    image = image.to(like.device, like.dtype)
    copied = copy.deepcopy(encoder).eval().requires_grad_(False)
    with torch.no_grad(), torch.autocast(like.device.type, enabled=False):
        pairs = _pairs(copied, image)
        expected = copied(image)
        for conv, norm in pairs.items():
            _fold(copied, conv, norm)
        return copied if pairs and _same(copied, image, expected) else encoder


def _pairs(encoder: Encoder, image: Tensor) -> dict[str, str]:
    """Names of the BatchNorms by that of the convolution whose output they take."""
    made: list[tuple[Tensor, str]] = []
    taken: list[tuple[str, str]] = []

    def note(name: str, module: nn.Module, given: Tensor, put_out: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            made.append((put_out, name))
        else:
            taken.extend((conv, name) for tensor, conv in made if tensor is given)

    hooks = [
        module.register_forward_hook(lambda module, given, out, name=name: note(name, module, given[0], out))
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Conv2d | _BatchNorm)
    ]
    encoder(image)
    for hook in hooks:
        hook.remove()
    return dict(taken)


def _fold(encoder: Encoder, conv_name: str, norm_name: str) -> None:
    """Put a BatchNorm into its convolution; what remains in its place is its activation, where timm's has one."""
    conv, norm = encoder.get_submodule(conv_name), encoder.get_submodule(norm_name)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, _BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    encoder.set_submodule(norm_name, getattr(norm, "act", nn.Identity()))


def _same(encoder: Encoder, image: Tensor, expected: list[Tensor]) -> bool:
    try:
        maps = encoder(image)
    except (AttributeError, RuntimeError, TypeError):  # it asks its BatchNorms for something
        return False
    return all(bool((x - y).abs().max() <= TOLERANCE * y.abs().max()) for x, y in zip(maps, expected, strict=True))
