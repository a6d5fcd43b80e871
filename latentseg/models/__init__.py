"""The networks: encoder, two-branch segmenter, discriminator, and where their weights come from."""

from latentseg.models.discriminator import Discriminator
from latentseg.models.segmenter import Output, Segmenter, build_segmenter

__all__ = ["Discriminator", "Output", "Segmenter", "build_segmenter"]
