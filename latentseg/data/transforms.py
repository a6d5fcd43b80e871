"""Random views of training images: scale, crop, turn, mirror, optional photometric changes; strong views of views."""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from latentseg.config import AugmentConfig, StrongConfig
from latentseg.data.images import IGNORE_INDEX

BLUR_SIGMAS = (0.1, 2.0)
"""Least and largest deviation of a strong view's blur, in pixels (UniMatch)."""


class View(NamedTuple):
    """One random view of an image: how it is scaled, cropped, mirrored and recoloured. Sizes in pixels."""

    size: tuple[int, int]
    """Height and width that the image is scaled to."""
    window: tuple[int, int, int, int]
    """Top, left, height and width of the part that is kept; the rest of the crop is padding, right and bottom."""
    flip: bool
    """Whether it is mirrored."""
    colors: tuple[float, ...]
    """Draws in 0..1 for brightness, contrast, saturation and hue."""
    turn: float = 0.0
    """Degrees by which the part that is kept is turned about its centre, anticlockwise, before it is mirrored."""
    upside: bool = False
    """Whether top and bottom change places."""


class Strong(NamedTuple):
    """What makes a view a strong one: draws in 0..1, whatever the options are."""

    jitter: float
    """Colours change below the probability of it."""
    colors: tuple[float, ...]
    """For brightness, contrast, saturation and hue."""
    grey: float
    """Colours go below the probability of it."""
    blur: float
    """Blurred below the probability of it."""
    sigma: float
    """For the deviation of the blur."""


def draw_view(height: int, width: int, augment: AugmentConfig, rng: np.random.Generator) -> View:
    """Draw a view of an image of the given height and width.

    All random numbers are drawn in one fixed order whatever the options are, so switching one option leaves the
    others' outcome as it was.
    """
    scale, top, left, mirror, *colors, turn, upside = rng.random(10).tolist()
    factor = _factor(augment, scale)
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    shown = (min(size[0], augment.crop[0]), min(size[1], augment.crop[1]))
    y, x = int(top * (size[0] - shown[0] + 1)), int(left * (size[1] - shown[1] + 1))
    degrees = (2 * turn - 1) * augment.rotate
    return View(size, (y, x, *shown), mirror < augment.mirror, tuple(colors), degrees, upside < augment.flip)


def draw_strong(rng: np.random.Generator) -> Strong:
    """Draw a strong view: all numbers in one fixed order, as `draw_view` does."""
    jitter, grey, blur, sigma, *colors = rng.random(8).tolist()
    return Strong(jitter, tuple(colors), grey, blur, sigma)


def _factor(augment: AugmentConfig, draw: float) -> float:
    lowest, highest = augment.scale
    if augment.scale_step is None:
        return lowest + draw * (highest - lowest)
    steps = round((highest - lowest) / augment.scale_step)
    return lowest + augment.scale_step * int(draw * (steps + 1))


def view_image(
    image: NDArray[np.uint8], view: View, augment: AugmentConfig, mean: tuple[float, float, float]
) -> Tensor:
    """The view of an image (H, W, 3), RGB, uint8: float32 in 0..1, shape (3, h, w), padded with the mean colour."""
    scaled = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)  # channels last: resized in half the time
    if view.size != scaled.shape[-2:]:
        scaled = functional.resize(scaled, list(view.size), InterpolationMode.BILINEAR)
    top, left, height, width = view.window
    window = scaled.numpy()[:, top : top + height, left : left + width]
    if view.turn:
        fill = np.rint(np.array(mean) * 255).astype(np.uint8)
        whole = np.ascontiguousarray(scaled.permute(1, 2, 0).numpy())
        window = _turned(whole, view, fill.tolist(), Image.Resampling.BILINEAR).transpose(2, 0, 1)
    pixels = torch.from_numpy(_mirrored(window, view).copy())
    pixels = _recolored(pixels, augment, view.colors)
    shown = np.empty((3, *augment.crop), np.float32)
    np.divide(pixels.numpy(), np.float32(255), out=shown[:, :height, :width])
    padding = np.array(mean, np.float32).reshape(3, 1, 1)
    shown[:, height:], shown[:, :height, width:] = padding, padding
    return torch.from_numpy(shown)


def strong_image(weak: Tensor, view: View, draws: Strong, strong: StrongConfig) -> Tensor:
    """The strong view of a finished view: the same pixels in other colours, grey or blurred. Padding stays.

    Args:
        weak: What `view_image` made of the image, shape (3, h, w).
        view: The view it shows, which tells image from padding.
        draws: What `draw_strong` drew.
        strong: Probabilities and amounts.

    Returns:
        float32 in 0..1, shape (3, h, w).
    """
    _, _, height, width = view.window
    pixels = (weak[:, :height, :width] * 255).round().to(torch.uint8)  # as they were: a weak view has 256 steps
    if draws.jitter < strong.jitter:
        pixels = _recolored(pixels, strong, draws.colors)
    if draws.grey < strong.grey:
        pixels = functional.rgb_to_grayscale(pixels, num_output_channels=3)
    if draws.blur < strong.blur:
        lowest, highest = BLUR_SIGMAS
        pixels = _blurred(pixels, lowest + draws.sigma * (highest - lowest))
    shown = weak.clone()
    changed = pixels.float() / 255
    valid = _window_valid(view)
    shown[:, :height, :width] = changed if valid is None else changed.where(valid, weak[:, :height, :width])
    return shown


def view_targets(targets: NDArray[np.uint8], view: View, augment: AugmentConfig) -> Tensor:
    """The view of class ids (H, W), uint8: int64, shape (h, w), 255 where there is no label."""
    top, left, height, width = view.window
    rows, columns = (_nearest(length, scaled) for length, scaled in zip(targets.shape, view.size, strict=True))
    if view.turn:
        whole = targets.take(rows, axis=0).take(columns, axis=1)
        window = _turned(whole, view, IGNORE_INDEX, Image.Resampling.NEAREST)
    else:
        window = targets.take(rows[top : top + height], axis=0).take(columns[left : left + width], axis=1)
    labels = torch.empty(augment.crop, dtype=torch.int64)
    labels[:height, :width] = torch.from_numpy(_mirrored(window, view).copy())
    labels[height:], labels[:height, width:] = IGNORE_INDEX, IGNORE_INDEX
    return labels


def view_valid(view: View, augment: AugmentConfig) -> Tensor:
    """Where the image shows, bool, shape (h, w): False in the padding, at the right, the bottom and turned corners."""
    _, _, height, width = view.window
    valid = torch.zeros(augment.crop, dtype=torch.bool)
    turned = _window_valid(view)
    valid[:height, :width] = True if turned is None else turned
    return valid


def _window_valid(view: View) -> Tensor | None:
    """Where the part of a view that is kept shows image, bool, shape (height, width); None: everywhere."""
    if not view.turn:
        return None
    inside = _turned(np.ones(view.size, np.uint8), view, 0, Image.Resampling.NEAREST)
    return torch.from_numpy(_mirrored(inside, view).copy()).bool()


def _turned(whole: NDArray[np.uint8], view: View, fill: int | list[int], how: Image.Resampling) -> NDArray[np.uint8]:
    """The part of a scaled image, (H, W) or (H, W, 3), that a view keeps, turned about its centre."""
    top, left, height, width = view.window
    cos, sin = math.cos(math.radians(view.turn)), math.sin(math.radians(view.turn))
    x, y = width / 2, height / 2  # a pixel at the place p from there shows the one at R p
    matrix = (cos, -sin, left + x - cos * x + sin * y, sin, cos, top + y - sin * x - cos * y)
    color = tuple(fill) if isinstance(fill, list) else fill
    picture = Image.fromarray(whole).transform((width, height), Image.Transform.AFFINE, matrix, how, fillcolor=color)
    return np.asarray(picture)


def _mirrored(window: NDArray[np.uint8], view: View) -> NDArray[np.uint8]:
    """The last two axes as the view mirrors them."""
    return window[..., :: -1 if view.upside else 1, :: -1 if view.flip else 1]


def _nearest(length: int, scaled: int) -> NDArray[np.int64]:
    """Which row (or column) of a map each one of the scaled map shows: as PyTorch's `nearest-exact`."""
    places = (np.arange(scaled, dtype=np.float32) + np.float32(0.5)) * (np.float32(length) / np.float32(scaled))
    return np.minimum(places.astype(np.int64), length - 1)


def _recolored(pixels: Tensor, amounts: AugmentConfig | StrongConfig, draws: tuple[float, ...]) -> Tensor:
    """Change brightness, contrast, saturation and hue, in this order; each draw in 0..1 spans the option's range."""
    brightness, contrast, saturation, hue = (2 * draw - 1 for draw in draws)
    if amounts.brightness:
        pixels = functional.adjust_brightness(pixels, max(0.0, 1 + brightness * amounts.brightness))
    if amounts.contrast:
        pixels = _contrast(pixels, max(0.0, 1 + contrast * amounts.contrast))
    if amounts.saturation:
        pixels = functional.adjust_saturation(pixels, max(0.0, 1 + saturation * amounts.saturation))
    if amounts.hue:
        pixels = functional.adjust_hue(pixels, hue * amounts.hue)
    return pixels


def _contrast(pixels: Tensor, factor: float) -> Tensor:
    """Blend with the mean grey. The mean is a sum of integers: the same for any number of threads."""
    grey = functional.rgb_to_grayscale(pixels)
    mean = float(grey.sum(dtype=torch.int64)) / grey.numel()
    blended: Tensor = pixels * factor + mean * (1 - factor)
    return blended.round().clamp(0, 255).to(torch.uint8)


def _blurred(pixels: Tensor, sigma: float) -> Tensor:
    """Gaussian blur; the kernel spans three deviations, or what the reflected border of a small image allows."""
    radius = math.ceil(3 * sigma)
    height, width = (2 * min(radius, size - 1) + 1 for size in pixels.shape[-2:])
    blurred: Tensor = functional.gaussian_blur(pixels, [width, height], [sigma, sigma])
    return blurred
