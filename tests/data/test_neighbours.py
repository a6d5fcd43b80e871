"""What the neighbours of an image show: propagation on hand-made graphs, the file of features, and its guards."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny import StoppedError, assert_same_run, on_call, stop, tiny
from torch import Tensor

from latentseg.config import Config
from latentseg.data import neighbours
from latentseg.data.batches import UNLABELED, places
from latentseg.data.datasets import open_dataset
from latentseg.data.neighbours import neighbour_shares, propagate
from latentseg.data.splits import draw_split
from latentseg.errors import UserError
from latentseg.methods.latent_classes import LatentClasses
from latentseg.models.segmenter import build_segmenter
from latentseg.training import trainer
from latentseg.training.loop import train

ASK = ["method.name=latent_match", "method.neighbour_power=2", "model.frozen=true", "cache=none"]


def by_loops(features: list[list[float]], shares: list[list[float]], count: int) -> list[list[float]]:
    """Propagation with plain loops."""
    points = np.array(features) - np.mean(features, 0)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    size, classes = len(points), range(len(shares[0]))
    weights = np.zeros((size, size))
    for i in range(size):
        nearest = sorted((j for j in range(size) if j != i), key=lambda j: -points[i] @ points[j])[:count]
        for j in nearest:
            weights[i, j] += max(0, points[i] @ points[j]) ** 3 / 2
            weights[j, i] += max(0, points[i] @ points[j]) ** 3 / 2
    roots = [max(1e-9, weights[i].sum()) ** 0.5 for i in range(size)]
    totals = [max(1e-9, sum(row[c] for row in shares)) for c in classes]
    own = [[row[c] / totals[c] for c in classes] for row in shares]
    found = own
    for _ in range(60):
        found = [
            [
                0.95 * sum(weights[i, j] / (roots[i] * roots[j]) * found[j][c] for j in range(size)) + 0.05 * own[i][c]
                for c in classes
            ]
            for i in range(size)
        ]
    means = [sum(row[c] for row in found) / size for c in classes]
    return [[((row[c] / means[c] if means[c] else 1) + 0.03) / 1.03 for c in classes] for row in found]


def test_propagation_equals_plain_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "NEIGHBOURS", 3)
    monkeypatch.setattr(neighbours, "AT_ONCE", 36)  # parts of 4, 4 and 1 images
    random = np.random.default_rng(0)
    features, shares = random.normal(size=(9, 4)), np.zeros((9, 3))
    shares[[0, 1, 5]] = np.array([[0.5, 0.5, 0], [0, 1, 0], [1, 0, 0]])
    found = propagate(torch.from_numpy(features), torch.from_numpy(shares))
    expected = torch.tensor(by_loops(features.tolist(), shares.tolist(), 3), dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert found[:, 2].tolist() == [1.0] * 9  # no labelled image shows it
    torch.testing.assert_close(found.mean(0), torch.ones(3, dtype=torch.float64))


def test_labels_reach_those_that_look_alike_through_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two arcs of images; the first of each is labelled. The far end of an arc is nearer to the other's label."""
    monkeypatch.setattr(neighbours, "NEIGHBOURS", 2)
    angles = [*np.linspace(0, 2.6, 14), *np.linspace(3.14, 5.74, 14)]
    features = torch.tensor([[np.cos(angle), np.sin(angle)] for angle in angles])
    shares = torch.zeros(28, 2, dtype=torch.float64)
    shares[0, 0] = shares[14, 1] = 1
    assert (features[13] - features[14]).norm() < (features[13] - features[0]).norm()
    found = propagate(features, shares)
    assert (found[:14, 0] > found[:14, 1]).all()
    assert (found[14:, 1] > found[14:, 0]).all()


@pytest.mark.parametrize("images", [1, 2])
def test_one_and_two_images_are_enough(images: int) -> None:
    shares = torch.zeros(images, 2)
    shares[0, 0] = 1
    found = propagate(torch.rand(images, 3), shares)
    assert found.shape == (images, 2)
    assert torch.isfinite(found).all()
    assert (found > 0).all()


def test_an_image_that_no_label_reaches_shows_little_of_everything() -> None:
    features = torch.tensor([[1.0, 0], [1, 0.01], [-1, 0], [-1, 0.01]], dtype=torch.float64)
    shares = torch.zeros(4, 2, dtype=torch.float64)
    shares[0] = 0.5
    found = propagate(features, shares)
    torch.testing.assert_close(found[2:], torch.full((2, 2), 0.03 / 1.03, dtype=torch.float64))


# with a data set


class Colours:
    """Three features of an image, or their squares; counts its looks."""

    def __init__(self, power: int = 1) -> None:
        self.power, self.looks, self.name = power, 0, f"colours{power}"

    def __call__(self, pixels: NDArray[np.uint8], /) -> Tensor:
        self.looks += 1
        return torch.from_numpy(pixels.reshape(-1, 3).mean(0)).float() ** self.power


def shares_of(config: Config, describe: Colours) -> Tensor:
    dataset = open_dataset(config.data)
    split = draw_split(dataset, config.data, config.seed)
    torch.manual_seed(0)  # the file's name has the encoder's weights in it
    segmenter = build_segmenter(config.model, len(dataset.classes), 0)
    return neighbour_shares(config, dataset, split, segmenter, describe)


def test_shares_are_those_of_the_masks_in_the_order_of_the_unlabelled_images(tmp_path: Path) -> None:
    config = tiny(*ASK, f"cache_folder={tmp_path}")
    dataset = open_dataset(config.data)
    split = draw_split(dataset, config.data, config.seed)
    found = shares_of(config, Colours())
    items = [*split.labeled, *split.unlabeled]
    shares = torch.zeros(len(items), len(dataset.classes))
    for row, item in enumerate(split.labeled):
        ids = dataset.read_targets(item)
        for c in range(len(dataset.classes)):
            shares[row, c] = float((ids == c).sum() / (ids != 255).sum())
    expected = propagate(torch.stack([Colours()(dataset.read_image(item)) for item in items]), shares)
    torch.testing.assert_close(found, expected[len(split.labeled) :], rtol=1e-4, atol=1e-4)
    assert len(found) == len(split.unlabeled) == 8


def test_each_image_is_looked_at_once(tmp_path: Path) -> None:
    look, config = Colours(), tiny(*ASK, f"cache_folder={tmp_path}")
    first = shares_of(config, look)
    assert look.looks == 12
    assert torch.equal(shares_of(config, look), first)
    assert look.looks == 12
    [path] = tmp_path.glob("*.npy")
    path.write_bytes(path.read_bytes()[:100])  # cut short
    assert torch.equal(shares_of(config, look), first)
    assert look.looks == 24
    assert len(list(tmp_path.iterdir())) == 1  # no lock, nothing half written
    other = tiny(*ASK, f"cache_folder={tmp_path}", "data.scenes.train=11")
    shares_of(other, look)
    assert look.looks == 35


def test_other_features_of_the_same_encoder_have_a_file_of_their_own(tmp_path: Path) -> None:
    config = tiny(*ASK, f"cache_folder={tmp_path}")
    first, other = shares_of(config, Colours()), shares_of(config, Colours(2))
    assert not torch.equal(first, other)
    assert torch.equal(shares_of(config, Colours()), first)
    assert len(list(tmp_path.glob("*.npy"))) == 2


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write features to .*file/deep.*cache_folder"):
        shares_of(tiny(*ASK, f"cache_folder={tmp_path / 'file' / 'deep'}"), Colours())


def test_an_encoder_that_learns_is_not_asked_and_a_note_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*ASK, f"cache_folder={tmp_path / 'cache'}", "steps=2", "validate_every=0"]
    train(tiny(*options, "model.frozen=false"), tmp_path / "learns")
    assert not (tmp_path / "cache").exists()
    assert "method.neighbour_power is not used" in " ".join(capsys.readouterr().err.split())
    train(tiny(*options), tmp_path / "frozen")
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1
    assert "neighbour_power" not in capsys.readouterr().err


@pytest.mark.parametrize("cache", ["none", "features"])
def test_a_resumed_run_asks_the_same_neighbours(tmp_path: Path, cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = [*ASK, f"cache={cache}", "augment.views=2", f"cache_folder={tmp_path / 'cache'}"]
    options += ["method.consistency_start=0", "method.threshold=0"]
    given: list[Tensor] = []

    def note(latent: LatentClasses, probs: Tensor, valid: Tensor, power: float, near: Tensor | None) -> Tensor:
        assert near is not None
        given.append(near)
        return latent_pool(latent, probs, valid, power, near)

    latent_pool = LatentClasses.pool
    monkeypatch.setattr(LatentClasses, "pool", note)
    train(tiny(*options), tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "training_step", on_call(3, trainer.training_step, stop))
        with pytest.raises(StoppedError):
            train(tiny(*options), tmp_path / "parts")
    train(tiny(*options), tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    dataset = open_dataset(tiny(*options).data)
    split = draw_split(dataset, tiny(*options).data, 0)
    drawn = [place.number for step in range(6) for place in places(tiny(*options), UNLABELED, split.unlabeled, step)]
    by_image = dict(zip(drawn, torch.cat(given[:6]), strict=True))
    assert all(torch.equal(by_image[number], row) for number, row in zip(drawn, torch.cat(given[:6]), strict=True))
    assert len({tuple(row.tolist()) for row in by_image.values()}) == len(by_image) == 8
