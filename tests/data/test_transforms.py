from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from latentseg.config import AugmentConfig, StrongConfig
from latentseg.data.transforms import (
    Strong,
    View,
    draw_strong,
    draw_view,
    strong_image,
    view_image,
    view_targets,
    view_valid,
)

MEAN = (0.1, 0.2, 0.3)


def pair(height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    return (
        rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        rng.integers(0, 3, (height, width), dtype=np.uint8),
    )


def random_view(
    image: NDArray[np.uint8],
    targets: NDArray[np.uint8] | None,
    augment: AugmentConfig,
    mean: tuple[float, float, float],
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A view, its class ids, and where it shows image."""
    view = draw_view(*image.shape[:2], augment, rng)  # type: ignore[call-arg]
    labels = torch.full(augment.crop, 255) if targets is None else view_targets(targets, view, augment)
    return view_image(image, view, augment, mean), labels, view_valid(view, augment)


def options(**changes: object) -> AugmentConfig:
    """Options with a crop that is smaller than a run may have."""
    crop = changes.pop("crop", (8, 10))
    return AugmentConfig.model_validate({"scale": (1, 1), "mirror": 0.0} | changes).model_copy(update={"crop": crop})


def test_without_chance_the_pixels_are_the_image() -> None:
    image, targets = pair(8, 10)
    view, labels, valid = random_view(image, targets, options(), MEAN, np.random.default_rng(0))
    assert (view.dtype, labels.dtype, valid.dtype) == (torch.float32, torch.int64, torch.bool)
    torch.testing.assert_close(view, torch.from_numpy(image).permute(2, 0, 1) / 255, rtol=0, atol=0)
    np.testing.assert_array_equal(labels, targets)
    assert valid.all()


def test_small_images_are_padded_at_right_and_bottom() -> None:
    image, targets = pair(5, 6)
    view, labels, valid = random_view(image, targets, options(), MEAN, np.random.default_rng(0))
    assert valid[:5, :6].all()
    assert valid.sum() == 30
    assert (labels[~valid] == 255).all()
    np.testing.assert_array_equal(labels[:5, :6], targets)
    assert view[:, 7, 9].tolist() == torch.tensor(MEAN).tolist()


def test_crops_cover_the_image_up_to_its_edges() -> None:
    image, targets = pair(10, 12)
    seen = np.zeros((10, 12), bool)
    for seed in range(200):
        view, labels, _ = random_view(image, targets, options(), MEAN, np.random.default_rng(seed))
        places = [
            (y, x) for y in range(3) for x in range(3) if (image[y, x] == (view[:, 0, 0] * 255).round().numpy()).all()
        ]
        ((y, x),) = places
        np.testing.assert_array_equal(labels, targets[y : y + 8, x : x + 10])
        seen[y : y + 8, x : x + 10] = True
    assert seen.all()


def test_mirror_turns_image_and_targets_alike() -> None:
    image, targets = pair(8, 10)
    view, labels, _ = random_view(image, targets, options(mirror=1.0), MEAN, np.random.default_rng(0))
    np.testing.assert_array_equal((view * 255).round().permute(1, 2, 0), image[:, ::-1])
    np.testing.assert_array_equal(labels, targets[:, ::-1])


def test_targets_follow_the_image_when_scaled() -> None:
    targets = np.zeros((40, 40), np.uint8)
    targets[:, 20:] = 9
    targets[30:] = 4
    image = np.stack([targets * 25] * 3, axis=-1).astype(np.uint8)
    sizes = set()
    for seed in range(20):
        augment = options(scale=(0.5, 1.5), crop=(64, 64), mirror=0.5)
        view, labels, valid = random_view(image, targets, augment, MEAN, np.random.default_rng(seed))
        sizes.add(int(valid[0].sum()))
        assert set(labels.flatten().tolist()) <= {0, 9, 4, 255}
        assert (((view[0] * 255 - 25 * labels).abs() < 30)[valid]).float().mean() > 0.9
    assert min(sizes) >= 20
    assert max(sizes) <= 60
    assert len(sizes) > 8


def test_unlabelled_images_have_the_same_view_and_no_targets() -> None:
    image, targets = pair(20, 20)
    augment = options(scale=(0.3, 1.5), mirror=0.5, hue=0.1)
    for seed in range(5):
        with_targets = random_view(image, targets, augment, MEAN, np.random.default_rng(seed))
        without = random_view(image, None, augment, MEAN, np.random.default_rng(seed))
        assert torch.equal(with_targets[0], without[0])
        assert torch.equal(with_targets[2], without[2])
        assert (without[1] == 255).all()


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_colour_changes_leave_place_and_padding_alone(name: str) -> None:
    image, targets = pair(6, 10)
    plain = random_view(image, targets, options(scale=(0.8, 1.2)), MEAN, np.random.default_rng(1))
    changed = random_view(image, targets, options(scale=(0.8, 1.2), **{name: 0.4}), MEAN, np.random.default_rng(1))
    assert torch.equal(plain[1], changed[1])
    assert not torch.equal(plain[0], changed[0])
    assert torch.equal(plain[0][:, ~plain[2]], changed[0][:, ~plain[2]])
    assert 0 <= changed[0].min() <= changed[0].max() <= 1


def test_the_input_is_left_as_it_was_and_global_chance_is_not_used() -> None:
    image, targets = pair(8, 10)
    before, state = image.copy(), torch.get_rng_state()
    augment = options(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.2, mirror=0.5)
    random_view(image, targets, augment, MEAN, np.random.default_rng(0))
    np.testing.assert_array_equal(image, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_scales_come_in_steps_where_asked_for() -> None:
    augment = options(scale=(0.5, 1.6), scale_step=0.1)
    sizes = {draw_view(100, 200, augment, np.random.default_rng(seed)).size for seed in range(300)}
    assert sizes == {(10 * k, 20 * k) for k in range(5, 17)}  # 0.5 + k / 10, k = 0..11
    assert draw_view(100, 200, options(scale=(1, 1), scale_step=0.1), np.random.default_rng(0)).size == (100, 200)


def resized_then_cropped(pixels: torch.Tensor, view: View, how: InterpolationMode) -> torch.Tensor:
    """The plain way: scale all of (C, H, W), keep the window, mirror."""
    scaled = functional.resize(pixels.contiguous(), list(view.size), how)
    window: torch.Tensor = functional.crop(scaled, *view.window)
    return window.flip(-1) if view.flip else window


@pytest.mark.parametrize("size", [(37, 50), (61, 45), (9, 300), (1, 1), (2, 40)])
def test_views_are_the_image_scaled_then_cropped_then_mirrored(size: tuple[int, int]) -> None:
    image, targets = pair(*size)
    augment = options(scale=(0.4, 2.0), crop=(32, 33), mirror=0.5)
    flips, borders = set(), set()
    for seed in range(100):
        view = draw_view(*size, augment, np.random.default_rng(seed))
        top, left, height, width = view.window
        flips.add(view.flip)
        borders.add((top == 0, left == 0, top + height == view.size[0], left + width == view.size[1]))
        pixels, ids = torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(targets)[None]
        shown = torch.tensor(MEAN).view(3, 1, 1).expand(3, 32, 33).clone()
        shown[:, :height, :width] = resized_then_cropped(pixels, view, InterpolationMode.BILINEAR).float() / 255
        labels = torch.full((32, 33), 255)
        labels[:height, :width] = resized_then_cropped(ids, view, InterpolationMode.NEAREST_EXACT)[0]
        assert torch.equal(view_image(image, view, augment, MEAN), shown)
        assert torch.equal(view_targets(targets, view, augment), labels)
    assert flips == {True, False}
    assert len(borders) > 3 or min(size) < 32  # inner windows, too


@pytest.mark.parametrize("length", [1, 7, 180, 375, 500])
def test_masks_take_the_rows_that_pytorch_takes(length: int) -> None:
    rows = np.repeat(np.arange(length, dtype=np.int32)[:, None], 2, axis=1)
    for scaled in range(1, 2 * length + 2):
        view = View((scaled, 2), (0, 0, scaled, 2), False, (0.5,) * 4)
        halves = [(rows >> shift & 255).astype(np.uint8) for shift in (0, 8)]  # 500 rows do not fit a byte
        low, high = (view_targets(half, view, options(crop=(scaled, 2))) for half in halves)
        expected = nn.functional.interpolate(torch.arange(length).view(1, 1, -1).float(), scaled, mode="nearest-exact")
        assert torch.equal((low + 256 * high)[:, 0], expected[0, 0].long())


def test_views_of_arrays_in_any_memory_order_leave_them_alone() -> None:
    image, targets = pair(20, 24)
    views = [image, np.asfortranarray(image), image[::-1][::-1], np.concatenate([image, image], axis=1)[:, :24]]
    before = image.copy()
    for seed in range(5):
        view = draw_view(20, 24, options(scale=(0.5, 1.5), mirror=0.5), np.random.default_rng(seed))
        shown = [view_image(array, view, options(), MEAN) for array in views]
        assert all(torch.equal(shown[0], other) for other in shown)
        view_targets(targets, view, options()).fill_(7)
        shown[0].fill_(0.5)
    np.testing.assert_array_equal(image, before)
    assert targets.max() == 2


OFF = {"jitter": 0.0, "grey": 0.0, "blur": 0.0}
MIDDLE = Strong(0.5, (0.5, 0.5, 0.5, 0.5), 0.5, 0.5, 0.5)


def weak_and_strong(draws: Strong, size: tuple[int, int] = (6, 7), **changes: object) -> tuple[torch.Tensor, ...]:
    """A weak view (padded where it is smaller than 8 x 10), its strong view, and where they show image."""
    image, _ = pair(*size)
    view = draw_view(*size, options(mirror=0.5), np.random.default_rng(2))
    weak = view_image(image, view, options(), MEAN)
    strong = strong_image(weak, view, draws, StrongConfig.model_validate(OFF | changes))
    return weak, strong, view_valid(view, options())


def test_strong_draws_come_in_one_order_whatever_the_options_are() -> None:
    numbers = np.random.default_rng(4).random(8).tolist()
    assert draw_strong(np.random.default_rng(4)) == Strong(numbers[0], tuple(numbers[4:]), *numbers[1:4])


def test_a_strong_view_that_is_off_is_the_weak_view() -> None:
    for draw in (0.0, 0.5, 0.999):
        weak, strong, _ = weak_and_strong(Strong(draw, (draw,) * 4, draw, draw, draw))
        assert torch.equal(weak, strong)
    weak, strong, _ = weak_and_strong(Strong(0.8, (1.0,) * 4, 0.2, 0.5, 1.0), jitter=0.8, grey=0.2, blur=0.5)
    assert torch.equal(weak, strong)  # each draw must be below its probability
    weak, strong, _ = weak_and_strong(MIDDLE, jitter=1.0)  # all factors are 1, hue is not turned
    torch.testing.assert_close(weak, strong, rtol=0, atol=1.01 / 255)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue", "grey", "blur"])
def test_strong_changes_leave_the_padding_the_weak_view_and_global_chance_alone(name: str) -> None:
    amounts = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
    changes: dict[str, Any] = {"jitter": 1.0} | amounts | {name: 0.4 if name in amounts else 1.0}
    state, before = torch.get_rng_state(), weak_and_strong(MIDDLE)[0]
    draws = Strong(0.2, (0.9,) * 4, 0.2, 0.2, 0.9)
    weak, strong, valid = weak_and_strong(draws, **changes)
    assert not valid.all()
    assert torch.equal(weak, before)
    assert torch.equal(weak[:, ~valid], strong[:, ~valid])
    assert (weak[:, valid] != strong[:, valid]).float().mean() > 0.5
    assert strong.dtype == torch.float32
    assert 0 <= strong.min() <= strong.max() <= 1
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(strong, weak_and_strong(draws, **changes)[1])


def test_strong_changes_are_known_by_hand() -> None:
    draws = Strong(0.0, (0.25, 0.5, 0.5, 0.5), 0.0, 0.0, 0.0)
    plain: dict[str, Any] = {"jitter": 1.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    weak, strong, valid = weak_and_strong(draws, **plain, brightness=0.5)
    torch.testing.assert_close(strong[:, valid], 0.75 * weak[:, valid], rtol=0, atol=1.01 / 255)
    weak, strong, valid = weak_and_strong(draws, grey=1.0)
    luma = (torch.tensor([0.299, 0.587, 0.114])[:, None] * weak[:, valid]).sum(dim=0)
    torch.testing.assert_close(strong[:, valid], luma.expand(3, -1), rtol=0, atol=1.01 / 255)
    weak, strong, valid = weak_and_strong(draws._replace(colors=(0.5, 0.0, 0.5, 0.5)), jitter=1.0, contrast=1.0)
    assert strong[:, valid].std() < 1e-6  # contrast 0: the mean grey, of the image without its padding
    luma = (torch.tensor([0.299, 0.587, 0.114])[:, None] * weak[:, valid]).sum(dim=0)
    assert float(strong[0, 0, 0]) == pytest.approx(float(luma.mean()), abs=1.01 / 255)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (8, 10)])
@pytest.mark.parametrize("draw", [0.0, 0.999])
def test_blur_fits_windows_smaller_than_its_kernel(size: tuple[int, int], draw: float) -> None:
    weak, strong, valid = weak_and_strong(MIDDLE._replace(blur=0.0, sigma=draw), size, blur=1.0)
    assert torch.equal(weak[:, ~valid], strong[:, ~valid])
    assert float(strong[:, valid].mean()) == pytest.approx(float(weak[:, valid].mean()), abs=0.1)
    assert torch.equal(weak, strong) == (draw == 0.0 or size == (1, 1))  # a deviation of 0.1 pixels does nothing


def test_blur_is_gaussian_with_the_deviation_drawn() -> None:
    weak = torch.zeros(3, 21, 21)
    weak[:, 10, 10] = 1
    view = View((21, 21), (0, 0, 21, 21), False, (0.5,) * 4)
    options = StrongConfig.model_validate(OFF | {"blur": 1.0})
    strong = strong_image(weak, view, MIDDLE, options)  # half of 0.1..2: 1.05
    y, x = torch.meshgrid(torch.arange(21) - 10, torch.arange(21) - 10, indexing="ij")
    bell = torch.exp(-(y**2 + x**2) / (2 * 1.05**2))
    torch.testing.assert_close(strong[0], bell / bell.sum(), rtol=0, atol=0.51 / 255)


def test_strong_views_are_the_same_for_any_number_of_threads() -> None:
    threads, views = torch.get_num_threads(), []
    image = np.random.default_rng(0).integers(0, 256, (189, 253, 3), dtype=np.uint8)
    augment = options(crop=(189, 253))
    view = draw_view(189, 253, augment, np.random.default_rng(0))
    strong = StrongConfig.model_validate({"jitter": 1.0, "grey": 0.0, "blur": 1.0})
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            weak = view_image(image, view, augment, MEAN)
            views.append(strong_image(weak, view, draw_strong(np.random.default_rng(1)), strong))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*views)


def test_a_quarter_turn_is_the_image_turned() -> None:
    """Anticlockwise, image and labels alike; a square one is all there."""
    image, targets = pair(8, 8)
    view = View((8, 8), (0, 0, 8, 8), False, (0.5,) * 4, turn=90.0)
    augment = options(crop=(8, 8))
    expected = torch.from_numpy(np.rot90(image).copy()).permute(2, 0, 1) / 255
    torch.testing.assert_close(view_image(image, view, augment, MEAN), expected, rtol=0, atol=1.01 / 255)
    np.testing.assert_array_equal(view_targets(targets, view, augment), np.rot90(targets))
    assert view_valid(view, augment).all()


def test_what_turns_into_sight_is_padding() -> None:
    """By 45 degrees the corners of a square are outside of it; image, labels and validity agree on where."""
    image, targets = np.full((32, 32, 3), 255, np.uint8), np.ones((32, 32), np.uint8)
    view, augment = View((32, 32), (0, 0, 32, 32), False, (0.5,) * 4, turn=45.0), options(crop=(32, 40))
    valid = view_valid(view, augment)
    assert not valid[0, 0]
    assert valid[16, 16]
    assert not valid[:, 32:].any()
    assert float(valid[:, :32].float().mean()) == pytest.approx(0.828, abs=0.02)  # an octagon: 2 sqrt(2) - 2
    labels, shown = view_targets(targets, view, augment), view_image(image, view, augment, MEAN)
    assert torch.equal(labels == 1, valid)
    assert torch.equal((shown[0] == 1), valid)
    assert shown[:, 0, 0].tolist() == pytest.approx([26 / 255, 51 / 255, 76 / 255], abs=1 / 255)
    strong = strong_image(shown, view, Strong(0.0, (1.0,) * 4, 1.0, 1.0, 0.0), StrongConfig(brightness=0.5))
    assert torch.equal(strong[:, ~valid], shown[:, ~valid])


def test_a_larger_image_fills_the_corners_of_a_turned_crop() -> None:
    image, targets = pair(60, 60)
    view, augment = View((60, 60), (20, 22, 16, 18), False, (0.5,) * 4, turn=37.0), options(crop=(16, 18))
    assert view_valid(view, augment).all()
    assert (view_targets(targets, view, augment) != 255).all()
    assert view_image(image, view, augment, MEAN).shape == (3, 16, 18)


def test_a_vertical_flip_exchanges_top_and_bottom() -> None:
    image, targets = pair(8, 10)
    view = View((8, 10), (0, 0, 8, 10), True, (0.5,) * 4, upside=True)
    expected = torch.from_numpy(image[::-1, ::-1].copy()).permute(2, 0, 1) / 255
    torch.testing.assert_close(view_image(image, view, options(), MEAN), expected, rtol=0, atol=0)
    np.testing.assert_array_equal(view_targets(targets, view, options()), targets[::-1, ::-1])


def test_turning_and_flipping_change_no_other_draw() -> None:
    plain = [draw_view(40, 50, options(), np.random.default_rng(seed)) for seed in range(20)]
    other = [draw_view(40, 50, options(rotate=30.0, flip=0.5), np.random.default_rng(seed)) for seed in range(20)]
    assert [view[:4] for view in other] == [view[:4] for view in plain]
    assert all(view.turn == 0 and not view.upside for view in plain)
    assert -30 <= min(view.turn for view in other) < -10 < 10 < max(view.turn for view in other) <= 30
    assert {view.upside for view in other} == {True, False}
