"""Networks of segmentation_models_pytorch (`model.encoder=smp:Unet/resnet34`): encoder, and decoder as a head.

The encoder's maps are the house's feature maps. Each branch has a decoder of its own, as each light head fuses for
itself: so an encoder can be frozen and its features cached, while decoders learn at the heads' rate.
"""

import difflib
from collections.abc import Sequence
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

from latentseg.errors import UserError
from latentseg.models.weights import SMP, Colour, first_sentence

FITTING = (
    "Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "UPerNet", "Segformer",
)  # fmt: skip
"""Architectures that take images of any multiple of 32 pixels."""
UNFIT = {"PAN": "it pools small images away", "DPT": "it takes images of one size only"}
_IMAGENET: tuple[Colour, Colour] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_PROBE = (64, 96)  # pixels of the image by which a network is looked at


class Trunk(NamedTuple):
    """The encoder of a network, and which of its maps the decoder reads."""

    net: nn.Module
    picks: tuple[int, ...]
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    mean: Colour
    std: Colour


class DecoderHead(nn.Module):
    """Decoder of a network, and the convolution to the classes that it ends with; random weights.

    Args:
        name: The network, as `model.encoder` names it.
        picks: Which of the encoder's maps come in.
        strides: Their strides.
        num_outputs: Classes.
    """

    def __init__(self, name: str, picks: Sequence[int], strides: Sequence[int], num_outputs: int) -> None:
        super().__init__()
        network = _network(name, num_outputs=num_outputs)
        self.decoder: nn.Module = network.decoder
        self.classify: nn.Module = network.segmentation_head[0]
        self.picks, self.strides = tuple(picks), tuple(strides)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps of the encoder, finest first, to logits (N, num_outputs, h, w)."""
        height, width = (side * self.strides[0] for side in maps[0].shape[-2:])
        # Of maps without a channel, and of the image, decoders read the size alone.
        features = [
            maps[0].new_zeros(len(maps[0]), 0, height // 2**i, width // 2**i) for i in range(self.picks[-1] + 1)
        ]
        for i, x in zip(self.picks, maps, strict=True):
            features[i] = x
        logits: Tensor = self.classify(self.decoder(features))
        return logits


def trunk(name: str, pretrained: bool) -> Trunk:
    """Build the encoder of a network.

    Args:
        name: The network, as `model.encoder` names it.
        pretrained: With ImageNet weights and their normalisation, from the hub; random ones otherwise.

    Raises:
        UserError: The package is missing, network or encoder are unknown or do not fit each other, or the weights
            cannot be had.
    """
    network = _network(name)  # the structure comes first: what does not fit is refused before anything is fetched
    picks, channels, strides = _read_maps(name, network)
    colours = _IMAGENET
    if pretrained:
        try:
            network, colours = _network(name, pretrained=True), _normalisation(name.partition("/")[2])
        except UserError:
            raise
        except Exception as error:  # clients of the net raise what they like
            raise UserError(
                f"the pretrained weights of {name} cannot be fetched: {first_sentence(error)}; fetch them where there "
                f"is a network (they stay in the hub's cache), or set model.weights_kind=none"
            ) from error
    return Trunk(network.encoder, picks, channels, strides, *colours)


def _network(name: str, num_outputs: int = 1, pretrained: bool = False) -> Any:
    """A whole network of the package."""
    smp = _package(name)
    architecture, _, encoder = name.removeprefix(SMP).partition("/")
    _check_architecture(name, architecture)
    _check_encoder(smp, name, encoder)
    weights = _weight_set(smp, encoder) if pretrained else None
    try:
        return getattr(smp, architecture)(encoder_name=encoder, encoder_weights=weights, classes=num_outputs)
    except Exception as error:
        if pretrained:
            raise
        raise _unfit(name, error) from error


def _package(name: str) -> Any:
    try:
        import segmentation_models_pytorch  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UserError(
            f"model.encoder={name} needs segmentation_models_pytorch: pip install 'latentseg[smp]'"
        ) from error
    return segmentation_models_pytorch


def _check_architecture(name: str, architecture: str) -> None:
    if architecture in FITTING:
        return
    if architecture in UNFIT:
        raise UserError(f"model.encoder={name}: {UNFIT[architecture]}; take one of {', '.join(FITTING)}")
    near = difflib.get_close_matches(architecture.lower(), [fit.lower() for fit in FITTING], n=3)
    names = [fit for fit in FITTING if fit.lower() in near] or FITTING
    raise UserError(
        f"model.encoder={name}: there is no architecture {architecture!r}; "
        f"write it as smp:ARCHITECTURE/ENCODER, with {' or '.join(names)}"
    )


def _check_encoder(smp: Any, name: str, encoder: str) -> None:
    known = smp.encoders.get_encoder_names()
    if encoder in known or (encoder.startswith("tu-") and timm.is_model(encoder[3:])):
        return
    every = [*known, *(f"tu-{model}" for model in timm.list_models())]
    near = difflib.get_close_matches(encoder, every, n=5, cutoff=0.5) or ["resnet34", "efficientnet-b0", "mit_b0"]
    raise UserError(
        f"model.encoder={name}: segmentation_models_pytorch has no encoder {encoder!r} "
        f"(tu-NAME is timm's NAME); near: {', '.join(near)}"
    )


def _weight_set(smp: Any, encoder: str) -> str:
    """Name of the pretrained weights: ImageNet's where there are several."""
    if encoder.startswith("tu-"):
        return "imagenet"
    names = list(smp.encoders.encoders[encoder]["pretrained_settings"])
    return "imagenet" if "imagenet" in names else str(names[0])


def _normalisation(encoder: str) -> tuple[Colour, Colour]:
    """Mean and deviation, RGB in 0..1, that the pretrained weights of an encoder want."""
    smp = _package(encoder)
    told = smp.encoders.get_preprocessing_params(encoder, pretrained=_weight_set(smp, encoder))
    if told["input_space"] != "RGB":
        raise UserError(
            f"the pretrained weights of {encoder} want colours in the order {told['input_space']}, and images come as "
            f"RGB: take another encoder, or model.weights_kind=none"
        )
    white = told["input_range"][1]
    mean, std = (tuple(value / white for value in told[key]) for key in ("mean", "std"))
    return mean, std


def _read_maps(name: str, network: Any) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Numbers, channels and strides of the maps that the decoder reads; refuse a network that does not segment."""
    network.eval()
    try:
        with torch.no_grad():
            maps = [x.requires_grad_() for x in network.encoder(torch.zeros(1, 3, *_PROBE))]
        with torch.enable_grad():
            answer = network.decoder(list(maps))
            read = torch.autograd.grad(answer.sum(), maps, allow_unused=True)
    except Exception as error:
        raise _unfit(name, error) from error
    network.train()
    picks = tuple(i for i, grad in enumerate(read) if grad is not None and maps[i].shape[1])
    strides = tuple(_PROBE[0] // maps[i].shape[-2] for i in picks)
    return picks, tuple(maps[i].shape[1] for i in picks), strides


def _unfit(name: str, error: Exception) -> UserError:
    return UserError(
        f"model.encoder={name} does not segment images of multiples of 32 pixels: {first_sentence(error)}; "
        f"take another encoder or architecture"
    )
