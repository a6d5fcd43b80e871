"""A segmenter of 1x1 convolutions and one batch, for tests of the methods."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from latentseg.config import MethodConfig, StrongConfig
from latentseg.data.batches import Batch
from latentseg.data.features import Features
from latentseg.methods.base import Losses, Method, Networks, Setup, build
from latentseg.models.discriminator import Discriminator
from latentseg.models.segmenter import Output, Perturb

C, L, SIZE = 4, 3, 32
CLASSES = ("a", "b", "c", "d")
PIXELS = [(n, y, x) for n in range(2) for y in range(SIZE) for x in range(SIZE)]


class Pixelwise(nn.Module):
    """A segmenter of 1x1 convolutions that counts its forwards."""

    def __init__(self, num_latent: int = L) -> None:
        super().__init__()
        self.semantic = nn.Conv2d(3, C, 1)
        self.latent = nn.Conv2d(3, num_latent, 1)
        self.forwards = 0

    def forward(self, images: Tensor | Features, perturb: Perturb | None = None, upsample: bool = True) -> Output:
        """Its "encoder" hands on the pixels; the heads' grid has half the pixels in each direction."""
        self.forwards += 1
        pixels = images.maps[0] if isinstance(images, Features) else images
        maps = pixels if perturb is None else perturb([pixels])[0]
        maps = maps if upsample else maps[..., ::2, ::2]
        return Output(self.semantic(maps), self.latent(maps))


def networks(adversarial: bool = True, num_latent: int = L, others: Sequence[str] = ()) -> Networks:
    """A segmenter, a discriminator, and others like the segmenter ("teacher", "peer"), each with its own weights."""
    torch.manual_seed(0)
    nets: dict[str, nn.Module] = {"segmenter": Pixelwise(num_latent)}
    if adversarial:
        nets["discriminator"] = Discriminator(C, width=4)
        for parameter in nets["discriminator"].parameters():
            parameter.data *= 3  # fresh, it says the same everywhere
    nets |= {name: Pixelwise(num_latent) for name in others}
    return Networks(nets).double()


def segmenter_of(nets: Networks) -> Pixelwise:
    segmenter = nets["segmenter"]
    assert isinstance(segmenter, Pixelwise)
    return segmenter


def tensors(images: object) -> Tensor:
    """The images of a batch, which are images here and no features."""
    assert isinstance(images, Tensor)
    return images


def batch(number: int = 2) -> Batch:
    """Two labelled images and `number` unlabelled ones, of which the second is padded at the right."""
    generator = torch.Generator().manual_seed(1)
    targets = torch.randint(0, C, (2, SIZE, SIZE), generator=generator)
    targets[0, :9] = 255
    valid = torch.ones(number, SIZE, SIZE, dtype=torch.bool)
    valid[1, :, 20:] = False
    return Batch(
        images=torch.rand(2, 3, SIZE, SIZE, generator=generator, dtype=torch.float64),
        targets=targets,
        unlabeled=torch.rand(number, 3, SIZE, SIZE, generator=generator, dtype=torch.float64),
        unlabeled_valid=valid,
        strong=(
            torch.rand(number, 3, SIZE, SIZE, generator=generator, dtype=torch.float64),
            torch.rand(number, 3, SIZE, SIZE, generator=generator, dtype=torch.float64),
        ),
        seed=5,
    )


def built(
    options: Mapping[str, object], alpha: float = 0.25, start: int = 0, strong: StrongConfig | None = None
) -> Method:
    """A method of the toy's C classes, in float64.

    Args:
        options: Of `MethodConfig`; `groups` stand for a map of the toy's classes.
        alpha: Rate of M.
        start: First step with the term that joins late.
        strong: The strong views.
    """
    config = MethodConfig.model_validate({"num_latent": L, **options})
    return build(Setup(config, strong or StrongConfig(), CLASSES, alpha, start)).double()


def run(
    method: Method, nets: Networks, step: int = 0, backward: bool = True, data: Batch | None = None
) -> dict[str, float]:
    """Take one step of a method; the value of each term by name."""
    parts: Iterator[Losses] = method(nets, data or batch(), step)
    values: dict[str, float] = {}
    for losses in parts:
        if backward:
            torch.autograd.backward(torch.stack([term.weight * term.value for term in losses.terms.values()]).sum())
        values |= {name: float(term.value.detach()) for name, term in losses.terms.items()}
    return values
