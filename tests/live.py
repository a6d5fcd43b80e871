"""What the tests of inference share: models from memory, runs of one step, and photographs."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from latentseg.config import InferenceConfig
from latentseg.data.colors import distinct_palette
from latentseg.inference.model import Model
from latentseg.inference.predict import LEGENDS
from latentseg.models.segmenter import Output
from latentseg.presets import load_config
from latentseg.runs.folder import Run
from latentseg.training.loop import train

OPTIONS = [
    "data.labeled=2",
    "data.scenes.train=4",
    "data.scenes.val=1",
    "data.scenes.height=32",
    "data.scenes.width=48",
    "data.resize=0.5",
    "augment.crop=[32,32]",
    "steps=1",
    "batch_size=2",
    "threads=1",
    "device=cpu",
]


class Channels(nn.Module):
    """Says which channel is the largest, the surer the larger it is; no latent branch."""

    mean, num_latent = (0.0, 0.0, 0.0), 0

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        return height, width

    def forward(self, images: Tensor, latent: bool = True) -> Output:
        return Output(4 * images, None)


def live(segmenter: Any, inference: InferenceConfig | None = None, *overrides: str) -> Model:
    """A model without a run folder, around a segmenter or a stand-in for one."""
    config = load_config("scenes", overrides)
    if inference is not None:
        config = config.model_copy(update={"inference": inference})
    return Model(Run(Path(), config, ("a", "b", "c"), distinct_palette(3)), segmenter)


def train_with(folder: Path, *overrides: str) -> Path:
    """A run of one step, with a head so large that its predictions vary."""
    latent = [] if "method.name=supervised" in overrides else ["method.num_latent=4"]
    run = train(load_config("scenes", [*OPTIONS, *latent, *overrides]), folder)
    last = run.checkpoints.last()
    assert last is not None
    tensors = run.checkpoints.read(last)
    for name, value in tensors.items():
        if name.endswith("head.classify.weight"):
            value.copy_(100 * torch.randn(value.shape, generator=torch.Generator().manual_seed(0)))
    run.checkpoints.save(2, tensors)
    return run.folder


def photo(height: int = 37, width: int = 53, seed: int = 0) -> NDArray[np.uint8]:
    """Large coloured patches, so that neighbouring pixels belong together."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.NEAREST))


def files(folder: Path) -> set[str]:
    """Names of all files below a folder of results, but the legends."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - set(LEGENDS)
