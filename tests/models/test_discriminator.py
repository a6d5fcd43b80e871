"""The discriminator: its layers, sizes and the smallest map."""

import pytest
import torch
from torch import nn

from latentseg.errors import UserError
from latentseg.models.discriminator import Discriminator


def test_layers_are_the_papers() -> None:
    convs = [module for module in Discriminator(21).modules() if isinstance(module, nn.Conv2d)]
    assert [(conv.in_channels, conv.out_channels) for conv in convs] == [
        (21, 64),
        (64, 128),
        (128, 256),
        (256, 512),
        (512, 1),
    ]
    assert all((conv.kernel_size, conv.stride, conv.padding) == ((4, 4), (2, 2), (1, 1)) for conv in convs)
    slopes = [module.negative_slope for module in Discriminator(21).modules() if isinstance(module, nn.LeakyReLU)]
    assert slopes == [0.2] * 4


@pytest.mark.parametrize(("size", "downscale"), [((65, 33), 1), ((32, 100), 1), ((65, 130), 2), ((95, 94), 3)])
def test_one_logit_per_pixel(size: tuple[int, int], downscale: int) -> None:
    net = Discriminator(5, width=4, downscale=downscale)
    logits = net(torch.rand(2, 5, *size).softmax(dim=1))
    assert logits.shape == (2, 1, *size)
    assert logits.min() < logits.max()


def test_upsampling_keeps_the_corners_with_align_corners() -> None:
    torch.manual_seed(0)
    net = Discriminator(3, width=4)
    probs = torch.rand(1, 3, 129, 129)
    small = net.layers(probs)
    torch.testing.assert_close(net(probs)[..., ::128, ::128], small[..., ::3, ::3])
    other = Discriminator(3, width=4, align_corners=False)
    other.load_state_dict(net.state_dict())
    assert not torch.allclose(other(probs), net(probs))


def test_downscale_averages() -> None:
    torch.manual_seed(0)
    net = Discriminator(3, width=4, downscale=2)
    blocks = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(
        net(blocks.repeat_interleave(2, 2).repeat_interleave(2, 3))[..., 0, 0], net.layers(blocks)[..., 0, 0]
    )


@pytest.mark.parametrize(("size", "downscale"), [((31, 64), 1), ((64, 60), 2)])
def test_too_small_maps_are_refused(size: tuple[int, int], downscale: int) -> None:
    with pytest.raises(UserError, match=rf"{size[0]}x{size[1]}.*downscale={downscale}.*32x32"):
        Discriminator(3, width=4, downscale=downscale)(torch.rand(1, 3, *size))


@pytest.mark.parametrize("downscale", [1, 2, 3])
def test_maps_may_be_shrunk_before(downscale: int) -> None:
    """Also where the factor does not divide the size."""
    net, maps = Discriminator(3, width=4, downscale=downscale), torch.rand(2, 3, 97, 100)
    small = net.shrink(maps)
    assert small.shape == (2, 3, -(-97 // downscale), -(-100 // downscale))
    torch.testing.assert_close(small[0, 1, 0, 0], maps[0, 1, :downscale, :downscale].mean())
    assert torch.equal(net(small, (97, 100)), net(maps))
