"""Whole images, windows, scales and mirror, with stand-ins whose answer is known."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from live import live
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from latentseg.config import InferenceConfig
from latentseg.engine import choose_device
from latentseg.errors import UserError
from latentseg.inference.model import argmax
from latentseg.inference.tiles import starts
from latentseg.models.segmenter import Output

MEAN = (0.25, 0.5, 0.75)


class PerPixel(nn.Module):
    """A segmenter that looks at one pixel at a time, and notes the images that it sees."""

    mean = MEAN

    def __init__(self, classes: int = 4, latent: int = 3, grid: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.semantic = nn.Conv2d(3, classes, 1)
        self.latent = nn.Conv2d(3, latent, 1) if latent else None
        self.grid, self.seen = grid, list[Tensor]()

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        return self.grid * -(-height // self.grid), self.grid * -(-width // self.grid)

    def forward(self, images: Tensor, latent: bool = True) -> Output:
        self.seen.append(images)
        groups = 5 * self.latent(images) if latent and self.latent is not None else None
        return Output(5 * self.semantic(images), groups)


class Columns(PerPixel):
    """Says class 0 in the left half of whatever it sees, class 1 in the right half; no latent branch."""

    def __init__(self) -> None:
        super().__init__(2, 0)

    def forward(self, images: Tensor, latent: bool = True) -> Output:
        self.seen.append(images)
        left = torch.arange(images.shape[-1]) < images.shape[-1] // 2
        logits = torch.stack([left, ~left]).float() * 100
        return Output(logits.view(1, 2, 1, -1).expand(len(images), 2, *images.shape[-2:]), None)


Images = NDArray[np.uint8]


def predict(segmenter: Any, images: Images, config: InferenceConfig, size: tuple[int, int] | None = None) -> Any:
    return live(segmenter, config).probs(images, size)


def tensor(images: Images) -> Tensor:
    """(N, H, W, 3), uint8, as the segmenter sees it: (N, 3, H, W) in 0..1."""
    return torch.from_numpy(images.astype(np.float32).transpose(0, 3, 1, 2)) / 255


@pytest.fixture
def images() -> Images:
    return np.random.default_rng(1).integers(0, 256, (2, 37, 53, 3), dtype=np.uint8)


@pytest.mark.parametrize("window", [(16, 16), (37, 20), (10, 53), (64, 64), (8, 9)])
@pytest.mark.parametrize("overlap", [0.0, 1 / 3, 0.9])
def test_windows_give_what_the_whole_image_gives(images: Images, window: tuple[int, int], overlap: float) -> None:
    segmenter = PerPixel()
    whole = predict(segmenter, images, InferenceConfig())
    slide = predict(segmenter, images, InferenceConfig(mode="slide", window=window, overlap=overlap))
    torch.testing.assert_close(slide.semantic, whole.semantic, rtol=0, atol=1e-5)
    torch.testing.assert_close(slide.latent, whole.latent, rtol=0, atol=1e-5)
    expected = (5 * segmenter.semantic(tensor(images))).softmax(1)
    torch.testing.assert_close(whole.semantic, expected, rtol=0, atol=1e-5)


def test_windows_are_of_the_size_asked_for(images: Images) -> None:
    segmenter = PerPixel()
    predict(segmenter, images, InferenceConfig(mode="slide", window=(16, 24), overlap=0.5))
    assert {tuple(seen.shape) for seen in segmenter.seen} == {(2, 3, 16, 24)}
    assert len(segmenter.seen) == 4 * 4  # starts 0, 7, 14, 21 and 0, 10, 19, 29


def test_overlapping_windows_are_averaged() -> None:
    """Windows at 0, 4 and 8 of 16 columns, each left half 0 and right half 1."""
    config = InferenceConfig(mode="slide", window=(8, 8), overlap=0.5)
    probs = predict(Columns(), np.zeros((1, 1, 16, 3), np.uint8), config).semantic
    assert probs[0, 0, 0].tolist() == pytest.approx([1] * 4 + [0.5] * 8 + [0] * 4)


@pytest.mark.parametrize("length", [1, 2, 7, 64, 321, 500, 1023])
@pytest.mark.parametrize("window", [1, 2, 5, 33, 321])
@pytest.mark.parametrize("overlap", [0.0, 0.1, 1 / 3, 0.5, 0.99])
def test_windows_cover_everything(length: int, window: int, overlap: float) -> None:
    window = min(window, length)
    places = starts(length, window, overlap)
    assert places[0] == 0
    assert places[-1] == length - window
    steps = [right - left for left, right in pairwise(places)]
    assert all(1 <= step <= max(1, window * (1 - overlap) + 1e-9) for step in steps)
    covered = {x for start in places for x in range(start, start + window)}
    assert covered == set(range(length))


@pytest.mark.parametrize("latent", [0, 3])
@pytest.mark.parametrize(
    ("size", "options"),
    [
        (None, {}),
        (None, {"mirror": True}),
        (None, {"mode": "slide", "window": (16, 16)}),
        ((74, 106), {}),
        ((111, 159), {"mirror": True}),
    ],
)
def test_tiles_give_what_the_whole_image_gives(
    images: Images, size: tuple[int, int] | None, options: Any, latent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a network that looks at one pixel at a time; at another size, what is between them is interpolated alike."""
    segmenter = PerPixel(latent=latent)
    config = InferenceConfig(**options)
    whole = predict(segmenter, images, config, size)
    for name, value in {"WHOLE_PIXELS": 500, "TILE": 18, "MARGIN": 5, "LEAST": 3}.items():
        monkeypatch.setattr(f"latentseg.inference.tiles.{name}", value)
    segmenter.seen.clear()
    model = live(segmenter, config)
    probs, labels = model.probs(images, size), model.labels(images, size)
    assert len(segmenter.seen) > 10
    assert max(image.shape[-1] for image in segmenter.seen) < 53
    assert (probs.latent is None) == (labels.latent is None) == (latent == 0)
    for maps, found, ids in zip(whole, probs, labels, strict=True):
        if maps is not None:
            assert found is not None
            assert ids is not None
            assert found.shape == maps.shape
            assert torch.allclose(found, maps, atol=1e-4)
            assert torch.equal(ids, argmax(maps))


def test_the_mirrored_view_is_turned_back(images: Images) -> None:
    probs = predict(Columns(), images[:, :, :8], InferenceConfig(mirror=True)).semantic
    torch.testing.assert_close(probs, torch.full_like(probs, 0.5))  # left, and the mirror's left: right
    segmenter = PerPixel()
    mirrored = predict(segmenter, images, InferenceConfig(mirror=True))
    torch.testing.assert_close(segmenter.seen[1], tensor(images).flip(-1), rtol=0, atol=0)
    plain = predict(segmenter, images, InferenceConfig())
    torch.testing.assert_close(mirrored.semantic, plain.semantic, rtol=0, atol=1e-5)
    torch.testing.assert_close(mirrored.latent, plain.latent, rtol=0, atol=1e-5)


def test_scales_are_averaged_as_probabilities(images: Images) -> None:
    segmenter = PerPixel()
    result = predict(segmenter, images, InferenceConfig(scales=[0.5, 1.0, 1.5]))
    assert [tuple(seen.shape[-2:]) for seen in segmenter.seen] == [(18, 26), (37, 53), (56, 80)]
    for name, conv in (("semantic", segmenter.semantic), ("latent", segmenter.latent)):
        assert conv is not None
        expected = torch.zeros(2, conv.out_channels, 37, 53)
        for size in ((18, 26), (37, 53), (56, 80)):
            view = tensor(images)
            view = view if size == (37, 53) else F.interpolate(view, size, mode="bilinear", antialias=True)
            expected += F.interpolate((5 * conv(view)).softmax(1), (37, 53), mode="bilinear") / 3
        torch.testing.assert_close(getattr(result, name), expected, rtol=0, atol=1e-5)


def test_odd_sizes_are_padded_with_the_mean_colour_and_cropped(images: Images) -> None:
    segmenter = PerPixel(grid=32)
    result = predict(segmenter, images, InferenceConfig())
    (seen,) = segmenter.seen
    assert seen.shape == (2, 3, 64, 64)
    torch.testing.assert_close(seen[..., :37, :53], tensor(images), rtol=0, atol=0)
    mean = torch.tensor(MEAN).view(1, 3, 1, 1)
    assert bool((seen[..., 37:, :] == mean).all())
    assert bool((seen[..., 53:] == mean).all())
    assert result.semantic.shape == (2, 4, 37, 53)
    expected = (5 * segmenter.semantic(tensor(images))).softmax(1)
    torch.testing.assert_close(result.semantic, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [None, (37, 53), (74, 106), (19, 27), (100, 7), (1, 1)])
@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_probabilities_at_any_size(images: Images, size: tuple[int, int] | None, mode: Any) -> None:
    config = InferenceConfig(mode=mode, window=(16, 16), scales=[0.1, 1.0, 1.25], mirror=True)
    result = predict(PerPixel(grid=8), images, config, size)
    for probs, channels in ((result.semantic, 4), (result.latent, 3)):
        assert probs.shape == (2, channels, *(size or (37, 53)))
        torch.testing.assert_close(probs.sum(1), torch.ones_like(probs[:, 0]))
        assert bool((probs >= 0).all())


def test_no_latent_branch_gives_no_latent_map(images: Images) -> None:
    for mode in ("whole", "slide"):
        assert predict(PerPixel(latent=0), images, InferenceConfig(mode=mode, window=(9, 9))).latent is None


def test_no_gradient_is_kept(images: Images) -> None:
    assert not predict(PerPixel(), images, InferenceConfig()).semantic.requires_grad


def test_an_image_is_a_batch_of_one(images: Images) -> None:
    segmenter = PerPixel()
    one = predict(segmenter, images[0], InferenceConfig())
    assert torch.equal(segmenter.seen[0], tensor(images[:1]))
    assert one.semantic.shape == (1, 4, 37, 53)
    torch.testing.assert_close(one.semantic, predict(segmenter, images, InferenceConfig()).semantic[:1])


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    for name in ("cuda", "mps"):
        with pytest.raises(UserError, match=rf"device={name}: PyTorch finds none on this machine; take device=auto"):
            choose_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("cuda")


def test_images_are_padded_to_the_asked_size_and_cropped_back(images: Images) -> None:
    segmenter = PerPixel(grid=8)
    padded = predict(segmenter, images, InferenceConfig(pad_to=(50, 40)))
    assert segmenter.seen[0].shape[-2:] == (56, 56)  # (50, 53), up to the grid
    assert segmenter.seen[0][0, :, 40, 0].tolist() == pytest.approx(MEAN)
    torch.testing.assert_close(padded.semantic, predict(segmenter, images, InferenceConfig()).semantic)


@pytest.mark.parametrize("size", [None, (37, 53), (74, 106), (19, 27)])
@pytest.mark.parametrize(
    "options",
    [{}, {"mirror": True}, {"scales": [0.5, 1.0]}, {"mode": "slide", "window": (16, 16)}, {"pad_to": (50, 60)}],
)
def test_labels_are_the_most_probable_classes(
    images: Images, options: dict[str, Any], size: tuple[int, int] | None
) -> None:
    config = InferenceConfig.model_validate(options)
    segmenter: Any = PerPixel(grid=8)
    probs = predict(segmenter, images, config, size)
    labels = live(segmenter, config).labels(images, size)
    assert labels.latent is not None
    for ids, maps in ((labels.semantic, probs.semantic), (labels.latent, probs.latent)):
        assert ids.dtype == torch.uint8
        assert torch.equal(ids.long(), maps.argmax(1))


def test_of_equal_ones_the_first_is_the_largest() -> None:
    maps = torch.tensor([1.0, 2, 2, 0, 2]).view(1, 5, 1, 1).expand(2, 5, 33, 17)
    assert bool((argmax(maps) == 1).all())


def test_the_latent_branch_runs_only_if_asked_for(images: Images) -> None:
    segmenter: Any = PerPixel()
    segmenter.latent = None
    segmenter.forward = lambda images, latent: Output(images, images if latent else None)
    for mode in ("whole", "slide"):
        model = live(segmenter, InferenceConfig(mode=mode, window=(9, 9)))
        assert model.probs(images, latent=False).latent is None
        assert model.labels(images, latent=False).latent is None
        assert model.labels(images).latent is not None


@pytest.mark.parametrize("answer", ["probs", "labels"])
def test_the_precision_of_the_forward(images: Images, answer: str) -> None:
    formats = []

    class Noted(PerPixel):
        def forward(self, images: Tensor, latent: bool = True) -> Output:
            output = super().forward(images, latent)
            formats.append(output.semantic.dtype)
            return output

    for precision in ("32-true", "bf16-mixed"):
        result = getattr(live(Noted(), InferenceConfig(), f"precision={precision}"), answer)(images)
        assert result.semantic.dtype in (torch.float32, torch.uint8)
    assert formats == [torch.float32, torch.bfloat16]
