"""The choice: no two alike, rare classes first, far from what is known, the same each time."""

from collections.abc import Sequence

import numpy as np
import pytest

from latentseg.suggest.ranking import WAYS, Floats, Known, Pool, Way, choose, grown, nearest, place

NOTHING = Known.nothing(2)


def pool(
    features: Sequence[Sequence[float]],
    expected: Sequence[Sequence[float]] | None = None,
    entropy: Sequence[float] | None = None,
) -> Pool:
    """Images that differ in what is given and in nothing else."""
    shares = np.array(expected or [[0.5, 0.5]] * len(features), np.float32)
    signals = {"entropy": np.array(entropy or [0.5] * len(features), np.float32)}
    return Pool(signals, shares, shares, np.array(features, np.float32))


def indices(images: Pool, known: Known = NOTHING, count: int = 99, by: str = "all", seed: int = 0) -> list[int]:
    return [pick.index for pick in choose(images, known, count, WAYS[by], seed)]


def known(features: Sequence[Sequence[float]], pixels: Sequence[float] = (0, 0)) -> Known:
    counts: Floats = np.array(pixels, np.float32)
    return Known(counts, counts, np.array(features, np.float32))


def test_place_is_the_share_below_and_equal_ones_share_it() -> None:
    assert place(np.array([3, 1, 3, 7], np.float32)).tolist() == [0.5, 0.125, 0.5, 0.875]
    assert place(np.array([2, 2], np.float32)).tolist() == [0.5, 0.5]


def test_grown_is_how_often_the_labels_of_a_class_are_doubled() -> None:
    found = grown(np.array([[0.99, 0.5]], np.float32), np.array([0.98, 0.49], np.float32))
    assert found[0].tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize("by", ["all", "diverse"])
def test_of_alike_images_one_is_chosen_before_all_others_are(by: str) -> None:
    features = [[0.0, 0.0]] * 6 + [[0.0, 1.0], [1.0, 0.0], [0.4, 0.3]]
    entropy = [0.9] * 6 + [0.1, 0.1, 0.1]  # the model is least sure of the one that is there six times
    chosen = indices(pool(features, entropy=entropy), count=4, by=by)
    assert len([index for index in chosen if index < 6]) == 1
    assert {6, 7, 8} <= {*chosen}


def test_without_the_distance_alike_images_are_chosen_together() -> None:
    assert indices(pool([[0.0], [0.0], [1.0]], entropy=[0.9, 0.8, 0.1]), by="entropy") == [0, 1, 2]


def test_an_image_like_a_labelled_one_comes_last() -> None:
    images = pool([[0.0], [5.0], [9.0]], entropy=[0.9, 0.2, 0.1])
    assert indices(images)[0] == 0
    assert indices(images, known([[0.0]]))[-1] == 0


def test_a_class_with_few_labelled_pixels_comes_first() -> None:
    images = pool([[1.0], [1.1], [1.2], [0.9]], [[0.9, 0.1], [0.9, 0.1], [0.7, 0.3], [0.9, 0.1]])
    few = choose(images, known([[0.0]], [11.9, 0.1]), 1, WAYS["all"], 0)[0]
    assert (few.index, few.rare) == (2, 1)
    assert indices(images, known([[0.0]], [0.1, 11.9]), by="rare")[-1] == 2


def test_a_class_that_was_chosen_is_rare_no_more() -> None:
    images = pool([[0.0]] * 3, [[0.5, 0.5, 0.0], [0.55, 0.45, 0.0], [0.7, 0.0, 0.3]])
    assert indices(images, known([[0.0]], [5, 0.1, 0.2]), by="rare") == [0, 2, 1]


def test_signals_that_a_run_lacks_are_left_out() -> None:
    images = pool([[0.0], [1.0]], entropy=[0.1, 0.9])
    first = choose(images, NOTHING, 1, Way({"entropy": 1, "branches": 5}), 0)[0]
    assert (first.index, first.value) == (1, 0.75)


@pytest.mark.parametrize("by", [*WAYS])
def test_each_image_once_and_the_same_each_time(by: str) -> None:
    if by in ("branches", "teacher"):
        return
    rng = np.random.default_rng(0)
    shares = rng.dirichlet([1, 1], 30).tolist()
    images = pool(rng.normal(size=(30, 4)).tolist(), shares, rng.random(30).tolist())
    chosen = indices(images, by=by)
    assert sorted(chosen) == list(range(30))
    assert indices(images, by=by) == chosen
    assert indices(images, count=7, by=by) == chosen[:7]


def test_a_draw_depends_on_the_seed() -> None:
    images = pool([[float(number)] for number in range(20)])
    assert indices(images, by="random", seed=1) != indices(images, by="random", seed=2)


def test_a_stratified_draw_takes_the_class_that_the_fewest_images_show() -> None:
    images = pool([[float(number)] for number in range(8)], [[1.0, 0.0]] * 6 + [[0.0, 1.0]] * 2)
    chosen = indices(images, known([[0.0]], [3, 1]), count=4, by="stratified")
    assert [index >= 6 for index in chosen] == [True, True, False, False]


def test_nearest_without_centres_is_infinite() -> None:
    features = np.array([[0.0, 0.0], [3.0, 4.0]], np.float32)
    assert np.isinf(nearest(features, NOTHING.features)).all()
    assert nearest(features, features[:1]).tolist() == [0, 5]
