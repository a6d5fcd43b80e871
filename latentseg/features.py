"""What a frozen encoder made of a batch of images: data hands it on, the segmenter decodes it."""

from typing import NamedTuple

from torch import Tensor


class Features(NamedTuple):
    """Feature maps of N images, in place of the images themselves."""

    maps: list[Tensor]
    """Finest first, each of shape (N, channels, h, w)."""
    size: tuple[int, int]
    """Height and width of the images, in pixels."""
