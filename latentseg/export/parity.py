"""Whether an exported file says what the model says."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latentseg.errors import UserError
from latentseg.export.files import Runs
from latentseg.export.graph import LEAST
from latentseg.inference.model import Model

MOST, EQUAL = 1e-4, 0.9999
"""Largest difference of a probability, and least share of pixels with the same class."""
SURE = 1 - 1e-3
"""A model whose largest probability is nowhere below this, and of one class, shows nothing of itself."""
SIZES = ((1, 1.0, 1.0), (2, 0.7, 1.1), (1, 1.3, 0.6), (1, 0.5, 0.9), (3, 0.8, 0.45))
"""Numbers of images, and their heights and widths in terms of the views of the training."""


@dataclass(frozen=True)
class Parity:
    """What was compared, in all images."""

    difference: float
    """Largest difference of a probability."""
    equal: float
    """Share of pixels with the same class."""
    sizes: list[str]
    """Height x width."""
    varied: bool
    """Whether the model was unsure anywhere, or said several classes: else files that are wrong could pass, too."""


def check_parity(model: Model, run: Runs, size: tuple[int, int] | None) -> Parity:
    """Compare on images of five sizes, or on five batches of one size.

    Args:
        model: In float32, on the CPU.
        run: The file.
        size: The only height and width that it takes, in pixels; None: any.

    Raises:
        UserError: They say different things.
    """
    model = whole(model)
    most, equal, pixels, sizes = 0.0, 0, 0, []
    said, least = set[int](), 1.0
    height, width = model.run.config.augment.crop
    for seed, (number, tall, wide) in enumerate(SIZES):
        shape = size or (max(LEAST, round(height * tall) + seed), max(LEAST, round(width * wide) + 2 * seed))
        images = np.stack([picture(*shape, 10 * seed + place) for place in range(number)])
        ours = model.probs(images)
        for one, other in zip((ours.semantic, ours.latent), run(images), strict=False):
            assert one is not None
            most = float(np.maximum(most, np.abs(one.numpy() - other).max()))  # NaN stays
            same = one.numpy().argmax(1) == other.argmax(1)
            equal, pixels = equal + int(same.sum()), pixels + same.size
        said |= set(ours.semantic.argmax(1).flatten().tolist())
        least = min(least, float(ours.semantic.amax(1).min()))
        sizes.append(f"{shape[0]}x{shape[1]}")
    found = Parity(most, equal / pixels, sizes, varied=len(said) > 1 or least < SURE)
    if not (found.difference <= MOST and found.equal >= EQUAL):
        raise UserError(
            f"the export says something else than the model: probabilities differ by up to {most:.2g} (allowed: "
            f"{MOST:g}), {100 * found.equal:.3f} % of the pixels have the same class (at least {100 * EQUAL:g} %). "
            f"Nothing was written: take another format, or one size by --size"
        )
    return found


def whole(model: Model) -> Model:
    """The model as an export is: one view of the whole image."""
    plain = model.run.config.inference.model_copy(update={"mode": "whole", "scales": [1.0], "mirror": False})
    config = model.run.config.model_copy(update={"inference": plain})
    return replace(model, run=replace(model.run, config=config))


def picture(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Soft coloured patches and noise, RGB, uint8, shape (height, width, 3)."""
    rng = np.random.default_rng(seed)
    patches = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((width, height))
    noisy = np.asarray(patches, np.int16) + rng.integers(-20, 21, (height, width, 3))
    return noisy.clip(0, 255).astype(np.uint8)
