"""Threads, batches of equal size, and order, with stand-ins whose answer is known."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from live import live
from torch import Tensor, nn

from latentseg.config import InferenceConfig
from latentseg.data.ahead import AHEAD, THREADS, in_threads
from latentseg.errors import UserError
from latentseg.inference import stream
from latentseg.inference.stream import Ready
from latentseg.models.segmenter import Output


class Brightest(nn.Module):
    """Says which channel is the largest, and latent class 1 where red is above a half; notes the batches."""

    mean = (0.0, 0.0, 0.0)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.batches: list[tuple[int, ...]] = []

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        return height, width

    def forward(self, images: Tensor, latent: bool = True) -> Output:
        self.batches.append(tuple(images.shape))
        red = images[:, :1]
        return Output(9 * images, torch.cat([0.5 - red, red - 0.5], 1) if latent else None)


def images(sizes: list[tuple[int, int]]) -> list[Ready[int]]:
    rng = np.random.default_rng(0)
    return [(rng.integers(0, 256, (*size, 3), dtype=np.uint8), size, i) for i, size in enumerate(sizes)]


def as_it_is(image: Ready[int]) -> Ready[int]:
    return image


def predicted(given: list[Ready[int]], **options: int | float | list[float] | bool) -> tuple[Brightest, list[int]]:
    """Predict, compare every map with what the pixels say, and give the order of the results."""
    segmenter, order = Brightest(), []
    for number, maps in live(segmenter, InferenceConfig.model_validate(options)).stream(given, as_it_is, latent=True):
        pixels = given[number][0]
        assert maps.semantic.dtype == torch.uint8
        assert np.array_equal(maps.semantic.numpy(), pixels.argmax(2))
        assert maps.latent is not None
        assert np.array_equal(maps.latent.numpy(), pixels[..., 0] > 127)
        order.append(number)
    return segmenter, order


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100])
def test_batches_of_equal_size(batch_size: int) -> None:
    sizes = [(4, 5), (4, 5), (5, 4), (4, 5), (6, 6), (5, 4), (4, 5), (4, 5), (5, 4)] * 3
    segmenter, order = predicted(images(sizes), batch_size=batch_size)
    assert sorted(order) == list(range(len(sizes)))
    for size in set(sizes):
        same = [number for number in order if sizes[number] == size]
        assert same == sorted(same)
    assert max(batch[0] for batch in segmenter.batches) <= batch_size
    assert sum(batch[0] for batch in segmenter.batches) == len(sizes)


def test_one_by_one_keeps_the_order() -> None:
    _, order = predicted(images([(4, 5), (5, 4), (4, 5), (6, 6)]), batch_size=1)
    assert order == [0, 1, 2, 3]


def test_small_images_share_a_batch_and_large_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stream.BATCH_PIXELS, "cpu", 100)
    segmenter, _ = predicted(images([(5, 5)] * 5 + [(10, 10)] * 2))
    assert [(batch[0], batch[-1]) for batch in segmenter.batches] == [(4, 5), (1, 10), (1, 10), (1, 5)]


def test_few_images_wait_for_company() -> None:
    """A hundred sizes, of which no batch is ever full."""
    drawn = 0

    def many() -> Iterator[Ready[int]]:
        nonlocal drawn
        for image in images([(2, 3 + number) for number in range(100)]):
            drawn += 1
            yield image

    seen = 0
    for _ in live(Brightest(), InferenceConfig(batch_size=4)).stream(many(), as_it_is):
        seen += 1
        assert drawn - seen < 2 * AHEAD + 4
    assert seen == 100


def test_the_latent_classes_are_left_out_unless_asked_for() -> None:
    ((_, maps),) = live(Brightest()).stream(images([(4, 5)]), as_it_is)
    assert maps.latent is None


def test_images_are_read_by_threads_and_what_is_none_is_left_out() -> None:
    given, here = images([(4, 5)] * 6), threading.current_thread()

    def read(number: int) -> Ready[tuple[int, bool]] | None:
        image, size, _ = given[number]
        return (image, size, (number, threading.current_thread() is here)) if number % 2 else None

    found = [belongs for belongs, _ in live(Brightest()).stream(range(6), read)]
    assert found == [(1, False), (3, False), (5, False)]


def test_a_stream_that_is_left_early_ends_what_it_draws_from() -> None:
    closed = []

    def many() -> Iterator[Ready[int]]:
        try:
            yield from images([(4, 5)] * 50)
        finally:
            closed.append(True)

    source = many()
    stream = live(Brightest(), InferenceConfig(batch_size=1)).stream(source, as_it_is)
    next(iter(stream))
    stream.close()
    assert closed == [True]
    assert source is not None


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_keep_the_order(threads: int) -> None:
    def slow(number: int) -> int:
        time.sleep(0.003 * (number % 3))
        return number * number

    assert list(in_threads(slow, range(40), threads)) == [number * number for number in range(40)]


def test_threads_work_ahead_but_not_far() -> None:
    drawn = 0

    def things() -> Iterator[int]:
        nonlocal drawn
        for number in range(100):
            drawn += 1
            yield number

    for number in in_threads(lambda number: number, things(), ahead=5):
        assert drawn <= number + 6
    assert drawn == 100


def test_things_are_drawn_by_the_caller_and_done_by_threads() -> None:
    here = threading.current_thread()

    def things() -> Iterator[threading.Thread]:
        for _ in range(5):
            yield threading.current_thread()

    both = list(in_threads(lambda drawn_by: (drawn_by, threading.current_thread()), things()))
    assert all(drawn_by is here and done_by is not here for drawn_by, done_by in both)


def test_an_error_comes_at_its_place_and_ends_the_rest() -> None:
    done = []

    def work(number: int) -> int:
        if number == 7:
            raise UserError("number 7 is broken")
        time.sleep(0.01)
        done.append(number)
        return number

    got = []
    with pytest.raises(UserError, match="number 7 is broken"):  # noqa: PT012
        for number in in_threads(work, range(1000)):
            got.append(number)  # noqa: PERF402
    assert got == list(range(7))
    assert len(done) < 7 + AHEAD + THREADS


def test_an_interrupted_caller_leaves_no_thread_at_work() -> None:
    done = []

    def things() -> Iterator[int]:
        yield from range(20)
        raise KeyboardInterrupt

    def work(number: int) -> None:
        time.sleep(0.05)
        done.append(number)

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(in_threads(work, things(), ahead=30))
    assert time.monotonic() - began < 0.3
    assert len(done) <= 3 * THREADS


def test_what_it_draws_from_is_closed_even_if_something_holds_it() -> None:
    closed = []

    def things() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed.append(True)

    drawn = things()
    inner = in_threads(lambda number: number, drawn)
    outer = in_threads(lambda number: number, inner)
    next(outer)
    outer.close()
    assert closed == [True]
    assert drawn is not None
    assert inner is not None
