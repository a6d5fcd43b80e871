import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from latentseg.config import AugmentConfig
from latentseg.data.transforms import draw_view, view_image, view_targets, view_valid

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
    return AugmentConfig.model_validate({"scale": (1, 1), "crop": (8, 10), "mirror": 0.0} | changes)


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
