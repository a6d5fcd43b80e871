"""The graph says what the model says, before anything traces it."""

import copy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from live import live
from torch import nn

from latentseg.config import InferenceConfig
from latentseg.errors import UserError
from latentseg.export.graph import Graph
from latentseg.export.int8 import OfFile, spread
from latentseg.export.parity import check_parity, picture
from latentseg.export.run import Export
from latentseg.inference.model import Model
from latentseg.models.segmenter import Segmenter, build_segmenter
from latentseg.presets import load_config

ENCODERS = {
    "lite0": ["model.weights_kind=lite0"],
    "deeplab_resnet50": ["model.head=aspp"],
    "test_vit": ["model.head_stride=16"],
}


def options(encoder: str) -> list[str]:
    return ["model.weights_kind=none", f"model.encoder={encoder}", "model.head_channels=16", *ENCODERS[encoder]]


@cache
def segmenter(encoder: str) -> Segmenter:
    torch.manual_seed(0)
    return build_segmenter(load_config("scenes", options(encoder)).model, 3, 2).eval()


def model(encoder: str, pad_to: tuple[int, int] | None = None) -> Model:
    return live(segmenter(encoder), InferenceConfig(pad_to=pad_to), *options(encoder))


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize(("size", "pad_to"), [((40, 57), None), ((64, 96), None), ((33, 41), (70, 50))])
def test_it_says_what_the_model_says(encoder: str, size: tuple[int, int], pad_to: tuple[int, int] | None) -> None:
    ours = model(encoder, pad_to)
    images = np.stack([picture(*size, seed) for seed in range(2)])
    expected = ours.probs(images)
    with torch.no_grad():
        found = Graph(ours.segmenter, latent=True, pad_to=pad_to).eval()(torch.from_numpy(images))
    assert expected.latent is not None
    assert expected.semantic.std() > 1e-3  # of a network that says the same everywhere nothing would be proved
    for one, other in zip(found, (expected.semantic, expected.latent), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=5e-5)


def test_a_file_that_says_something_else_is_refused() -> None:
    ours = model("test_vit")
    graph = Graph(ours.segmenter, latent=False, pad_to=None).eval()

    @torch.no_grad()
    def run(images: np.ndarray, shift: float = 0.0, swapped: int = 0) -> list[np.ndarray]:
        [probs] = graph(torch.from_numpy(images))
        probs = probs + shift
        probs[:, :, 0, :swapped] = probs[:, [1, 2, 0], 0, :swapped]
        return [probs.numpy()]

    assert check_parity(ours, run, None).equal == 1
    assert len(set(check_parity(ours, run, None).sizes)) == 5
    assert set(check_parity(ours, run, (48, 64)).sizes) == {"48x64"}
    with pytest.raises(UserError, match=r"differ by up to 0\.0002"):
        check_parity(ours, lambda images: run(images, shift=2e-4), None)
    with pytest.raises(UserError, match="of the pixels have the same class"):
        check_parity(ours, lambda images: run(images, swapped=20), None)
    with pytest.raises(UserError, match="differ by up to nan"):
        check_parity(ours, lambda images: run(images, shift=float("nan")), None)


def test_a_file_in_the_place_of_a_segmenter_sees_the_pixels_and_is_scored() -> None:
    seen = []

    def run(images: np.ndarray) -> list[np.ndarray]:
        seen.append(images)
        return [np.moveaxis(images, -1, 1).astype(np.float32)]

    image = picture(37, 53, 0)
    labels = live(OfFile(run)).labels(image).semantic
    assert np.array_equal(seen[0], image[None])
    assert np.array_equal(labels[0].numpy(), image.argmax(-1))


def test_images_for_the_ranges_lie_at_equal_distances() -> None:
    items = list(range(10))
    assert spread(items, 4) == [0, 2, 5, 7]  # type: ignore[arg-type, comparison-overlap]
    assert spread(items, 20) == items  # type: ignore[arg-type, comparison-overlap]


@pytest.mark.parametrize(("bias", "varied"), [(0.0, True), (100.0, False)])
def test_a_proof_that_shows_nothing_is_known(bias: float, varied: bool) -> None:
    """A model that is sure of one class says the same as any file that is sure of it."""
    ours = live(copy.deepcopy(segmenter("test_vit")), None, *options("test_vit"))
    classify = ours.segmenter.get_submodule("semantic_head.classify")
    assert isinstance(classify, nn.Conv2d)
    assert classify.bias is not None
    classify.bias.data[1] += bias
    graph = Graph(ours.segmenter, latent=False, pad_to=None).eval()

    @torch.no_grad()
    def run(images: np.ndarray) -> list[np.ndarray]:
        return [probs.numpy() for probs in graph(torch.from_numpy(images))]

    found = check_parity(ours, run, None)
    assert found.varied is varied
    told = Export(Path(__file__), {"size": "any", "resize": "1"}, found, None).text()
    assert ("this proves little" in told) is not varied
