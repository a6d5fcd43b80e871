"""Random views of training images: scale, crop, mirror, and the optional photometric changes."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from latentseg.config import AugmentConfig
from latentseg.data.images import IGNORE_INDEX


def random_view(
    image: NDArray[np.uint8],
    targets: NDArray[np.uint8] | None,
    augment: AugmentConfig,
    mean: tuple[float, float, float],
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Scale, crop, mirror and recolour an image at random.

    All random numbers are drawn in one fixed order whatever the options are, so switching
    one option leaves the others' outcome as it was.

    Args:
        image: RGB, uint8, shape (H, W, 3).
        targets: Class ids, uint8, shape (H, W); None for an unlabelled image.
        augment: Ranges and probabilities.
        mean: The model's mean colour, RGB in 0..1; it fills the padding.
        rng: Source of all randomness.

    Returns:
        The image, float32 in 0..1, shape (3, h, w); class ids, int64, shape (h, w), 255 where there is no label; and
        where the image shows, bool, shape (h, w): False in the padding at the right and the bottom.
    """
    scale, top, left, mirror, *colors = rng.random(8).tolist()
    factor = augment.scale[0] + scale * (augment.scale[1] - augment.scale[0])
    size = [max(1, round(side * factor)) for side in image.shape[:2]]
    height, width = (min(side, crop) for side, crop in zip(size, augment.crop, strict=True))
    y, x = int(top * (size[0] - height + 1)), int(left * (size[1] - width + 1))
    flip = mirror < augment.mirror

    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    pixels = _window(pixels, size, (y, x, height, width), flip, InterpolationMode.BILINEAR)
    view = torch.tensor(mean, dtype=torch.float32).view(3, 1, 1).expand(3, *augment.crop).clone()
    view[:, :height, :width] = _recolored(pixels, augment, colors).float() / 255

    labels = torch.full(augment.crop, IGNORE_INDEX, dtype=torch.int64)
    if targets is not None:
        ids = torch.from_numpy(np.ascontiguousarray(targets))[None]
        labels[:height, :width] = _window(ids, size, (y, x, height, width), flip, InterpolationMode.NEAREST_EXACT)[0]
    valid = torch.zeros(augment.crop, dtype=torch.bool)
    valid[:height, :width] = True
    return view, labels, valid


def _window(
    pixels: Tensor, size: list[int], window: tuple[int, int, int, int], flip: bool, how: InterpolationMode
) -> Tensor:
    scaled = functional.resize(pixels, size, how) if size != list(pixels.shape[-2:]) else pixels
    cropped: Tensor = functional.crop(scaled, *window)
    return cropped.flip(-1) if flip else cropped


def _recolored(pixels: Tensor, augment: AugmentConfig, draws: list[float]) -> Tensor:
    """Change brightness, contrast, saturation and hue, in this order; each draw in 0..1 spans the option's range."""
    brightness, contrast, saturation, hue = (2 * draw - 1 for draw in draws)
    if augment.brightness:
        pixels = functional.adjust_brightness(pixels, max(0.0, 1 + brightness * augment.brightness))
    if augment.contrast:
        pixels = _contrast(pixels, max(0.0, 1 + contrast * augment.contrast))
    if augment.saturation:
        pixels = functional.adjust_saturation(pixels, max(0.0, 1 + saturation * augment.saturation))
    if augment.hue:
        pixels = functional.adjust_hue(pixels, hue * augment.hue)
    return pixels


def _contrast(pixels: Tensor, factor: float) -> Tensor:
    """Blend with the mean grey. The mean is a sum of integers: the same for any number of threads."""
    grey = functional.rgb_to_grayscale(pixels)
    mean = float(grey.sum(dtype=torch.int64)) / grey.numel()
    blended: Tensor = pixels * factor + mean * (1 - factor)
    return blended.round().clamp(0, 255).to(torch.uint8)
