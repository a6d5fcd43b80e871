"""Pretrained weights: which kinds there are, what each means, and how a file of it is read.

Weights carry their preprocessing and their stride position. A match of keys notices
neither, so both come from the kind, `RECIPES`. The key map of a kind is complete: a file with a key that is
missing, left over or of another shape is refused.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from latentseg.config import ModelConfig, WeightsKind
from latentseg.errors import RunError, UserError
from latentseg.models.resnet import DEEPLAB_LAYERS, StrideAt
from latentseg.presets.weights import downloaded
from latentseg.runs.checkpoints import Checkpoints

Family = Literal["deeplab", "lite0", "timm", "smp"]
SMP = "smp:"
"""Before the name of a network of segmentation_models_pytorch."""
Colour = tuple[float, float, float]


class Recipe(NamedTuple):
    """What images must look like for the weights, and where the weights want the stride.

    mean and std are those of RGB in 0..1.
    """

    mean: Colour
    std: Colour
    stride_at: StrideAt
    first_dilated: bool = True
    """Whether the first blocks of dilated stages are dilated, too (`DeepLabResNet`)."""


_CAFFE = Recipe((122.68 / 255, 116.67 / 255, 104.01 / 255), (1 / 255, 1 / 255, 1 / 255), "1x1")
_IMAGENET = Recipe((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "3x3")

RECIPES: dict[WeightsKind, Recipe] = {
    "coco": _CAFFE,
    "caffe": _CAFFE,
    "torchvision": _IMAGENET,
    "torchvision_coco": _IMAGENET._replace(first_dilated=False),
    "timm": _IMAGENET,
    "none": _IMAGENET,
    "latentseg": _IMAGENET,  # a start only: the file brings its own
}
"""Recipe of each kind that a deeplab encoder takes. Random weights (none) are treated as torchvision's."""

KINDS: dict[Family, tuple[WeightsKind, ...]] = {
    "deeplab": ("coco", "caffe", "torchvision", "torchvision_coco", "timm", "latentseg", "none"),
    "lite0": ("lite0", "latentseg", "none"),
    "timm": ("timm", "latentseg", "none"),
    "smp": ("smp", "latentseg", "none"),
}
_CLASSIFIERS: dict[WeightsKind, tuple[str, ...]] = {
    "coco": (),
    "caffe": ("fc.weight", "fc.bias"),
    "torchvision": ("fc.weight", "fc.bias"),
    "timm": ("fc.weight", "fc.bias"),
}
_DEEPLAB_HEADS = ("classifier.", "aux_classifier.")
_NET = "encoder.net."
_COCO_HEAD = "layer5.conv2d_list."
_COCO_RATES = (6, 12, 18, 24)  # dilation of each convolution in it
_OUR_PREFIX = "segmenter."
_HEAD_BIASES = ("semantic_head.convs.0.bias", "semantic_head.classify.bias")


def family(encoder: str) -> Family:
    """Which builder an encoder's name belongs to."""
    if encoder in DEEPLAB_LAYERS:
        return "deeplab"
    if encoder.startswith(SMP):
        return "smp"
    return "lite0" if encoder == "lite0" else "timm"


def check_kind(config: ModelConfig) -> None:
    """Refuse a kind of weights that does not fit the encoder, or that needs a file and has none.

    Raises:
        UserError: The pair does not fit, or the file is not named.
    """
    group, kind = family(config.encoder), config.weights_kind
    if kind not in KINDS[group]:
        raise UserError(
            f"model.weights_kind={kind} does not fit model.encoder={config.encoder}; "
            f"it takes model.weights_kind={' or '.join(KINDS[group])}"
        )
    if config.weights is None and kind in ("coco", "caffe", "torchvision", "latentseg"):
        raise UserError(
            f"model.weights_kind={kind} needs its file: model.weights=FILE, "
            f"or model.weights_kind=none for random weights (`latentseg weights` says where to get them)"
        )
    if config.weights is not None and kind in ("smp", "none"):
        others = [name for name in KINDS[group] if name not in ("smp", "none")]
        raise UserError(
            f"model.weights={config.weights} is not read with model.weights_kind={kind}: "
            f"set model.weights_kind={' or '.join(others)}, or model.weights=null"
        )


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors, .pth or .pt file, or a run folder, without running anything in it.

    A wrapper {"state_dict": ...} or {"model": ...} and a `module.` before every key are taken off.

    Raises:
        UserError: The file is missing, or of another kind.
        RunError: It is damaged, or holds more than tensors.
    """
    file = Path(path)
    if (file / "checkpoints").is_dir() or (file / "config.yaml").is_file():
        return _of_run(file)
    if not file.is_file():
        raise UserError(
            f"{path}: no such file; model.weights must name a .safetensors, .pth or .pt file, or a run folder"
        )
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except (SafetensorError, OSError) as error:
            raise RunError(f"{path} is damaged or not a safetensors file: {first_sentence(error)}") from error
    if file.suffix not in (".pth", ".pt"):
        raise UserError(f"{path}: weights are read from .safetensors, .pth or .pt, not from {file.suffix!r}")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RunError(
            f"{path} holds more than tensors or is no PyTorch file, and is refused because loading it "
            f"could run code: {first_sentence(error)}"
        ) from error
    except Exception as error:
        raise RunError(f"{path} is truncated or damaged: {first_sentence(error)}") from error
    return _unwrap(content, path)


def _of_run(folder: Path) -> dict[str, Tensor]:
    """Tensors of the last checkpoint of a run folder, or of a saved model."""
    inner = folder / "checkpoints"
    checkpoints = Checkpoints(inner if inner.is_dir() else folder)
    entry = checkpoints.last()
    if entry is None:
        raise RunError(f"model.weights={folder}: this run has no checkpoint yet; train it first, or name a file")
    return checkpoints.read(entry)


def _unwrap(content: Any, path: str | Path) -> dict[str, Tensor]:
    for name in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not content:
        raise RunError(f"{path} holds no state dict but {type(content).__name__}; save model.state_dict()")
    odd = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if odd:
        raise RunError(f"{path} holds entries that are no tensors: {_some(odd)}; save model.state_dict()")
    if all(key.startswith("module.") for key in content):
        return {key.removeprefix("module."): value for key, value in content.items()}
    return dict(content)


def first_sentence(error: Exception) -> str:
    """First sentence of an error: what torch says after it is advice to trust the file."""
    text = (str(error) or type(error).__name__).splitlines()[0]
    return text.split(". ")[0][:200]


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f", ... ({len(names)} in all)" if len(names) > 8 else "")


def compare(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str) -> None:
    """Refuse tensors that are not exactly the expected ones in name and shape.

    A missing num_batches_tracked is tolerated: Caffe's and older files lack it and nothing here uses it.

    Raises:
        RunError: Names the missing, extra and misshapen tensors (the first eight and the count).
    """
    missing = [key for key in expected if key not in given and not key.endswith("num_batches_tracked")]
    extra = [key for key in given if key not in expected]
    shapes = [
        f"{key} {tuple(given[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in given and given[key].shape != expected[key].shape
    ]
    problems = [
        f"{title}: {_some(names)}"
        for title, names in (("missing", missing), ("extra", extra), ("wrong shape", shapes))
        if names
    ]
    if problems:
        raise RunError(
            f"{source} does not hold the weights of this model ({'; '.join(problems)}): "
            f"check model.encoder, model.head and model.weights_kind"
        )


def timm_model(
    name: str,
    features_only: bool,
    pretrained: bool,
    state: dict[str, Tensor] | None = None,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a timm model, with the hub's weights, with given ones, or with random ones.

    Args:
        name: A model name of timm.
        features_only: Feature maps instead of a classifier.
        pretrained: Fetch the weights from the hub.
        state: State dict of the full model to take instead.
        options: Further arguments of the model, such as whether it takes images of any size.

    Raises:
        UserError: timm cannot build it so, or the hub cannot be reached.
    """
    overlay = None if state is None else {"state_dict": state}
    wanted = pretrained or state is not None
    try:
        net: nn.Module = timm.create_model(
            name, features_only=features_only, pretrained=wanted, pretrained_cfg_overlay=overlay, **(options or {})
        )
    except Exception as error:  # hub clients raise what they like, timm even assertions
        if not pretrained:
            raise UserError(
                f"model.encoder={name}: timm does not build it "
                f"{'with feature maps' if features_only else ''}: {first_sentence(error)}; take another encoder"
            ) from error
        raise UserError(
            f"the pretrained weights of {name} cannot be fetched: {first_sentence(error)}; set model.weights=FILE "
            f"with model.weights_kind=timm, or model.weights_kind=none"
        ) from error
    return net


def load_weights(segmenter: nn.Module, config: ModelConfig) -> None:
    """Fill a segmenter from the weights that the config names.

    Encoders that come from timm (lite0 among them) have their ImageNet weights already (`encoders.py`).

    Args:
        segmenter: A `Segmenter`, changed in place.
        config: The model's options; encoder, weights, weights_kind and load_head are read.

    Raises:
        UserError: The file is bad or does not fit.
    """
    check_kind(config)
    own: dict[str, Tensor] = segmenter.state_dict()
    if config.weights_kind == "latentseg":
        names, state = _ours(own, config)
    elif family(config.encoder) == "deeplab" and config.weights_kind != "none":
        names, state = _resnet(own, config)
    else:
        return
    compare(state, {file_key: own[key] for file_key, key in names.items()}, _source(config))
    segmenter.load_state_dict(own | {names[file_key]: value for file_key, value in state.items()})


def _source(config: ModelConfig) -> str:
    return f"model.weights={config.weights or 'null'} (model.weights_kind={config.weights_kind})"


def _resnet(own: Mapping[str, Tensor], config: ModelConfig) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Key map (file -> segmenter) of an AdvSemiSeg, torchvision or timm ResNet, and the file's tensors."""
    deeplab = config.weights_kind == "torchvision_coco"
    if config.weights is None and deeplab:
        state = read_state(downloaded(config.encoder))
    elif config.weights is None:
        name = config.encoder.removeprefix("deeplab_")
        state = timm_model(name, features_only=False, pretrained=True).state_dict()
    else:
        state = read_state(config.weights)
    keys = [key for key in own if key.startswith(_NET) and not key.endswith("_extra_state")]
    names = {"backbone." * deeplab + key.removeprefix(_NET): key for key in keys}
    if deeplab:  # its heads are made for 21 classes, on v3's ASPP
        return names, {key: value for key, value in state.items() if not key.startswith(_DEEPLAB_HEADS)}
    if config.weights_kind == "coco":
        if config.load_head:
            names |= _coco_head(own, state, config)
        taken = tuple(names)
        state = {key: value for key, value in state.items() if not key.startswith(_COCO_HEAD) or key in taken}
    dropped = _CLASSIFIERS[config.weights_kind]
    return names, {key: value for key, value in state.items() if key not in dropped}


def _coco_head(own: Mapping[str, Tensor], state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, str]:
    head = "semantic_head.convs."
    names = {
        f"{_COCO_HEAD}{_COCO_RATES.index(rate)}.{part}": f"{head}{i}.{part}"
        for i, rate in enumerate(config.aspp_rates)
        for part in ("weight", "bias")
        if f"{head}{i}.{part}" in own
    }
    if not names:
        raise UserError(
            f"{_source(config)} has a head of four dilated convolutions, which model.head={config.head} "
            f"cannot take: set model.load_head=false, or model.head=aspp"
        )
    _check_classes(state, f"{_COCO_HEAD}0.bias", own[f"{head}0.bias"].shape[0], config)
    return names


def _check_classes(state: Mapping[str, Tensor], key: str, num_classes: int, config: ModelConfig) -> None:
    if key in state and state[key].shape[0] != num_classes:
        raise UserError(
            f"{_source(config)} has a semantic head of {state[key].shape[0]} classes, the data set has "
            f"{num_classes}: set model.load_head=false to start the head afresh"
        )


def _ours(own: Mapping[str, Tensor], config: ModelConfig) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Key map (file -> segmenter) of a checkpoint of ours, and its segmenter's tensors."""
    everything = read_state(str(config.weights))
    state = {key: value for key, value in everything.items() if key.startswith(_OUR_PREFIX)}
    if not state:
        raise RunError(f"{_source(config)} is no checkpoint of latentseg: no key starts with {_OUR_PREFIX}")
    for bias in _HEAD_BIASES if config.load_head else ():
        if bias in own:
            _check_classes(state, _OUR_PREFIX + bias, own[bias].shape[0], config)
    fresh: tuple[str, ...] = () if config.load_head else ("semantic_head.",)
    if not _same(state, own, "latent_head."):
        fresh += ("latent_head.",)
    names = {_OUR_PREFIX + key: key for key in own if not key.startswith(fresh)}
    skipped = tuple(_OUR_PREFIX + part for part in fresh)
    return names, {key: value for key, value in state.items() if not key.startswith(skipped)}


def _same(state: Mapping[str, Tensor], own: Mapping[str, Tensor], part: str) -> bool:
    """Whether a part of the segmenter has the same names and shapes here and in the file."""
    theirs = {key: value.shape for key, value in state.items() if key.startswith(_OUR_PREFIX + part)}
    return theirs == {_OUR_PREFIX + key: value.shape for key, value in own.items() if key.startswith(part)}
