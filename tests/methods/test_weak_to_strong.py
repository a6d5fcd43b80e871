"""Strong views, CutMix, pseudo-labels and their figures, the mean teacher: each against plain loops."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from toy import batch

from latentseg.config import StrongConfig
from latentseg.data.features import Features
from latentseg.methods.weak_to_strong import (
    CutMix,
    PseudoLabels,
    PseudoLabelStats,
    describe,
    drop_channels,
    ema_update,
    generator,
    perturb,
    strong_views,
)

N, GRID = 3, (9, 7)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cutmix(seed: int = 0, images: int = N) -> CutMix:
    return CutMix(images, 1.0, seeded(seed))


def probs(seed: int, classes: int = 4, size: tuple[int, int] = GRID) -> Tensor:
    logits = torch.randn(N, classes, *size, generator=seeded(seed), dtype=torch.float64)
    return logits.softmax(1)


def some(seed: int, share: float = 0.7) -> Tensor:
    return torch.rand(N, *GRID, generator=seeded(seed)) < share


def taught(seed: int = 1, threshold: float = 0.6) -> PseudoLabels:
    return PseudoLabels.of(probs(seed), threshold, some(seed))


PLACES = [(n, y, x) for n in range(N) for y in range(GRID[0]) for x in range(GRID[1])]


@pytest.mark.parametrize("area", [(0.02, 0.4), (0.25, 0.5), (0.5, 0.5)])
def test_boxes_are_rectangles_of_the_asked_area_and_aspect(area: tuple[float, float]) -> None:
    grid, tolerance = 200, 0.02
    boxes = CutMix(150, 1.0, seeded(), area).boxes(grid, grid)
    height, width = boxes.any(2).sum(1).double() / grid, boxes.any(1).sum(1).double() / grid
    share = boxes.double().mean((1, 2))
    torch.testing.assert_close(share, height * width)
    assert float(share.min()) >= area[0] - tolerance
    assert float(share.max()) <= area[1] + tolerance
    assert float(share.mean()) == pytest.approx(sum(area) / 2, abs=0.03)
    aspect = height / width
    slack = 1 + 2 / grid / torch.minimum(height, width)  # a side is known to a cell
    assert bool((aspect <= slack / 0.3).all())
    assert bool((aspect >= 0.3 / slack).all())
    assert float(aspect.max()) > 1.8
    assert float(aspect.min()) < 1 / 1.8
    assert float(aspect.log().mean()) == pytest.approx(0, abs=0.2)  # tall as often as wide
    if area[1] == 0.5:
        assert bool((height == 1).any())  # clamped: the other side makes up for it
        assert bool((width == 1).any())


def test_boxes_lie_anywhere_in_the_image() -> None:
    boxes = CutMix(300, 1.0, seeded(), (0.1, 0.1), (1.0, 1.0)).boxes(100, 100)
    for side in (boxes.any(2), boxes.any(1)):
        assert set(side.sum(1).tolist()) <= {31, 32}  # whole: none is cut off by the border
        first = side.int().argmax(1).double() / 100
        assert float(first.min()) < 0.03
        assert float(first.max()) > 0.65  # of at most 0.68
        assert float(first.mean()) == pytest.approx(0.34, abs=0.05)


def test_a_box_comes_with_its_probability() -> None:
    def mixed(probability: float) -> list[bool]:
        found: list[bool] = CutMix(200, probability, seeded()).boxes(50, 50).any(2).any(1).tolist()
        return found

    assert sum(mixed(0.0)) == 0
    assert sum(mixed(1.0)) == 200
    assert 0.2 * 200 < sum(mixed(0.3)) < 0.4 * 200


def test_boxes_follow_from_the_seed() -> None:
    assert torch.equal(cutmix(1).boxes(20, 30), cutmix(1).boxes(20, 30))
    assert not torch.equal(cutmix(1).boxes(20, 30), cutmix(2).boxes(20, 30))


def test_a_grid_of_boxes_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each grid goes to the GPU once in a step, whatever is mixed on it."""
    mixer, drawn = cutmix(3), list[tuple[int, int]]()
    really = mixer.boxes

    def noted(height: int, width: int) -> Tensor:
        drawn.append((height, width))
        return really(height, width)

    monkeypatch.setattr(mixer, "boxes", noted)
    for shape in ((N, 3, *GRID), (N, *GRID), (N, 4, 5, 6), (N, 5, 6)):
        mixer.mix(torch.zeros(shape))
    assert drawn == [GRID, (5, 6)]


@pytest.mark.parametrize("shape", [(N, *GRID), (N, 4, *GRID)])
@pytest.mark.parametrize("kind", [torch.float32, torch.int64, torch.bool])
def test_mixing_equals_a_plain_loop(shape: tuple[int, ...], kind: torch.dtype) -> None:
    maps = torch.randint(0, 2 if kind is torch.bool else 99, shape, generator=seeded()).to(kind)
    mixer = cutmix(3)
    boxes, expected = mixer.boxes(*GRID).tolist(), maps.clone()
    for n, y, x in PLACES:
        if boxes[n][y][x]:
            expected[n, ..., y, x] = maps[n - 1, ..., y, x]
    mixed = mixer.mix(maps)
    assert mixed.dtype is kind
    assert torch.equal(mixed, expected)
    assert not torch.equal(mixed, maps)


def test_grids_of_any_size_are_cut_at_the_same_place() -> None:
    """The centre of a coarse cell is that of the middle one of its 5 x 5 fine cells."""
    mixer = cutmix(4)
    coarse, fine = (8, 6), (40, 30)
    assert torch.equal(mixer.boxes(*coarse), mixer.boxes(*fine)[:, 2::5, 2::5])
    which = torch.arange(N, dtype=torch.float32).view(N, 1, 1, 1)
    image = mixer.mix_view(which.expand(N, 3, *fine))
    features = mixer.mix_view(Features([which.expand(N, 5, *fine), which.expand(N, 2, *coarse)], fine))
    assert isinstance(image, Tensor)
    assert isinstance(features, Features)
    assert features.size == fine
    assert [maps.shape[1] for maps in features.maps] == [5, 2]
    assert torch.equal(features.maps[0][:, 0], image[:, 0])
    assert torch.equal(features.maps[1][:, 0], image[:, 0, 2::5, 2::5])
    assert set(features.maps[1].flatten().tolist()) == {0.0, 1.0, 2.0}


def test_whole_channels_are_dropped_and_the_others_scaled_up() -> None:
    maps = [torch.rand(N, 400, 3, 2, generator=seeded()) + 1, torch.rand(N, 300, 1, 1, generator=seeded(1)) + 1]
    dropped = drop_channels(maps, 0.25, seeded())
    for before, after in zip(maps, dropped, strict=True):
        gone = (after == 0).all(3).all(2)
        assert torch.equal(gone, (after == 0).any(3).any(2))
        assert float(gone.double().mean()) == pytest.approx(0.25, abs=0.04)
        assert not torch.equal(gone[0], gone[1])  # each image loses others
        torch.testing.assert_close(after[~gone], before[~gone] / 0.75)
    assert float(dropped[0].mean() / maps[0].mean()) == pytest.approx(1, abs=0.05)  # as before, on average
    assert not torch.equal((dropped[0] == 0)[:, :300, 0, 0], (dropped[1] == 0)[..., 0, 0])
    again, other = drop_channels(maps, 0.25, seeded()), drop_channels(maps, 0.25, seeded(1))
    assert all(torch.equal(a, b) for a, b in zip(dropped, again, strict=True))
    assert not torch.equal(dropped[0], other[0])
    assert all(a is b for a, b in zip(maps, drop_channels(maps, 0.0, seeded()), strict=True))


def test_noise_is_in_deviations_of_each_channel() -> None:
    """Of a channel over all images: the second image is brighter by three times the noise within one."""
    scale = torch.tensor([1.0, 10.0, 0.1]).view(1, 3, 1, 1)
    maps = (torch.randn(2, 3, 60, 60, generator=seeded()) + torch.tensor([0.0, 6.0]).view(2, 1, 1, 1)) * scale
    only_noise = StrongConfig(feature_noise=0.5, feature_dropout=0.0)
    [noisy] = perturb([maps], only_noise, seeded(1))
    change = noisy - maps
    torch.testing.assert_close(change.std((0, 2, 3)) / maps.std((0, 2, 3)), torch.full((3,), 0.5), rtol=0.05, atol=0)
    assert float((change / scale).mean().abs()) < 0.05
    assert torch.equal(perturb([maps], only_noise, seeded(1))[0], noisy)
    assert not torch.equal(perturb([maps], only_noise, seeded(2))[0], noisy)
    [same] = perturb([maps], StrongConfig(feature_noise=0.0, feature_dropout=0.0), seeded(1))
    assert same is maps


def test_dropped_channels_carry_no_noise() -> None:
    maps = torch.randn(N, 200, 2, 2, generator=seeded())
    [strong] = perturb([maps], StrongConfig(feature_noise=1.0, feature_dropout=0.5), seeded())
    gone = (strong == 0).all(3).all(2)
    assert float(gone.double().mean()) == pytest.approx(0.5, abs=0.08)
    assert bool(((strong - 2 * maps).abs() > 1e-6)[~gone].any())


def test_strong_views_of_images_come_from_the_data() -> None:
    data = batch()
    [first] = strong_views(data, StrongConfig(), 1, generator(data))
    both = strong_views(data, StrongConfig(), 2, generator(data))
    assert first is both[0] is data.strong[0]
    assert both[1] is data.strong[1]


def test_strong_views_of_features_are_perturbed_and_differ() -> None:
    maps = [torch.rand(2, 8, 4, 4, generator=seeded()), torch.rand(2, 6, 2, 2, generator=seeded(1))]
    data, config = batch(), StrongConfig(feature_noise=0.3)
    cached = type(data)(data.images, data.targets, Features(maps, (16, 16)), None, seed=3)
    views = strong_views(cached, config, 2, generator(cached))
    random = torch.Generator().manual_seed(3)
    for view in views:
        assert isinstance(view, Features)
        assert view.size == (16, 16)
        for mine, expected in zip(view.maps, perturb(maps, config, random), strict=True):
            assert torch.equal(mine, expected)
    assert not torch.equal(views[0][0][0], views[1][0][0])


def test_pseudo_labels_equal_a_plain_loop() -> None:
    maps, valid = probs(1), some(1)
    labels = PseudoLabels.of(maps, 0.6, valid)
    for n, y, x in PLACES:
        column, shown = maps[n, :, y, x].tolist(), bool(valid[n, y, x])
        assert int(labels.classes[n, y, x]) == column.index(max(column))
        assert float(labels.confidence[n, y, x]) == max(column)
        assert bool(labels.accepted[n, y, x]) == (shown and max(column) >= 0.6)
        assert bool(labels.rejected[n, y, x]) == (shown and max(column) < 0.6)
    assert torch.equal(labels.valid, valid)
    assert bool(labels.accepted.any())
    assert bool(labels.rejected.any())


def test_a_confidence_that_reaches_the_threshold_is_accepted() -> None:
    maps = torch.tensor([[0.5, 0.499], [0.25, 0.25], [0.25, 0.251]]).view(1, 3, 1, 2)
    assert PseudoLabels.of(maps, 0.5, torch.ones(1, 1, 2, dtype=torch.bool)).accepted.tolist() == [[[True, False]]]


def test_pseudo_labels_are_mixed_part_by_part() -> None:
    labels, mixer = taught(), cutmix(5)
    mixed, boxes = labels.mixed(mixer), mixer.boxes(*GRID)
    for n, y, x in PLACES:
        source = (n - 1, y, x) if boxes[n, y, x] else (n, y, x)
        for part in ("classes", "confidence", "accepted", "valid", "rejected"):
            assert getattr(mixed, part)[n, y, x] == getattr(labels, part)[source], part
    assert not torch.equal(mixed.classes, labels.classes)


def test_the_loss_is_the_cross_entropy_at_accepted_pixels_over_the_valid_ones() -> None:
    labels = taught()
    logits = torch.randn(N, 4, *GRID, generator=seeded(2), dtype=torch.float64)
    total, count = 0.0, 0
    for n, y, x in PLACES:
        column = logits[n, :, y, x].exp().tolist()
        count += bool(labels.valid[n, y, x])
        if labels.accepted[n, y, x]:
            total -= math.log(column[int(labels.classes[n, y, x])] / sum(column))
    assert 0 < int(labels.accepted.sum()) < count < len(PLACES)
    assert float(labels.loss(logits)) == pytest.approx(total / count, abs=1e-12)


@pytest.mark.parametrize("valid", [True, False])
def test_without_an_accepted_pixel_the_loss_is_a_differentiable_zero(valid: bool) -> None:
    labels = PseudoLabels.of(probs(1), 1.0, some(1) & valid)
    logits = torch.randn(N, 4, *GRID, requires_grad=True)
    loss = labels.loss(logits)
    torch.autograd.backward(loss)
    assert loss.item() == 0
    assert logits.grad is not None
    assert not bool(logits.grad.any())


def shares(lesson: PseudoLabelStats, truth: Tensor) -> dict[str, float]:
    """The figures in plain loops."""
    given, strong, found = lesson.given, lesson.strong, {}
    names = ("confidence", "accepted", "agreement", "accepted_accuracy", "rejected_accuracy")
    values: dict[str, list[float]] = {name: [] for name in names}
    for place in PLACES:
        n, y, x = place
        right = float(given.classes[place] == truth[place])
        if given.valid[place]:
            values["confidence"].append(float(given.confidence[place]))
            values["accepted"].append(float(given.accepted[place]))
        if strong.valid[place]:
            values["agreement"].append(float(int(lesson.student[n, :, y, x].argmax()) == int(strong.classes[place])))
        if given.valid[place] and truth[place] != 255:
            values["accepted_accuracy" if given.accepted[place] else "rejected_accuracy"].append(right)
    for name, each in values.items():
        if each:
            found[name] = sum(each) / len(each)
    return found


def lesson(threshold: float = 0.6) -> PseudoLabelStats:
    given = taught(1, threshold)
    return PseudoLabelStats(given, given.mixed(cutmix(5)), torch.randn(N, 4, *GRID, generator=seeded(9)))


def truth_of() -> Tensor:
    truth = torch.randint(0, 4, (N, *GRID), generator=seeded(7))
    return truth.where(torch.rand(N, *GRID, generator=seeded(8)) < 0.8, 255)


def test_figures_equal_plain_loops() -> None:
    expected = shares(lesson(), truth_of())
    assert len(expected) == 5
    assert all(0 < value < 1 for value in expected.values())
    assert describe(lesson(), truth_of()) == pytest.approx(expected, abs=1e-12)
    blind = {name: expected[name] for name in ("confidence", "accepted", "agreement")}
    assert describe(lesson(), None) == pytest.approx(blind, abs=1e-12)


@pytest.mark.parametrize(("threshold", "absent"), [(0.0, "rejected_accuracy"), (1.0, "accepted_accuracy")])
def test_an_accuracy_of_no_pixel_is_left_out(threshold: float, absent: str) -> None:
    figures = describe(lesson(threshold), truth_of())
    assert absent not in figures
    assert figures == pytest.approx(shares(lesson(threshold), truth_of()), abs=1e-12)
    assert figures["accepted"] == 1 - threshold


def test_without_truth_or_image_no_figure_is_made_up() -> None:
    assert set(describe(lesson(), torch.full((N, *GRID), 255))) == {"confidence", "accepted", "agreement"}
    nothing = PseudoLabels.of(probs(1), 0.6, torch.zeros(N, *GRID, dtype=torch.bool))
    assert describe(PseudoLabelStats(nothing, nothing, lesson().student), truth_of()) == {}


def test_the_truth_is_read_at_the_centres_of_a_coarser_grid() -> None:
    """Each label stands at the centre of 3 x 3 pixels, and around it is what would be wrong."""
    truth = torch.full((N, 3 * GRID[0], 3 * GRID[1]), 255)
    truth[:, 1::3, 1::3] = truth_of()
    assert describe(lesson(), truth) == pytest.approx(shares(lesson(), truth_of()), abs=1e-12)


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()


def learn(student: nn.Module, steps: int) -> None:
    """Something happens to every parameter and buffer."""
    for number, parameter in enumerate(student.parameters()):
        parameter.data += 0.1 * (number + 1)
    for _ in range(steps):
        student(torch.randn(5, 3, dtype=torch.float64))


def test_the_teacher_follows_by_the_formula_with_its_cap() -> None:
    """Decay 0.6: the first steps have 0 and 1/2, the third 0.6 and not 2/3."""
    teacher, student = network(1), network(2)
    expected = {name: value.clone() for name, value in teacher.state_dict().items()}
    for step, decay in enumerate((0.0, 0.5, 0.6)):
        learn(student, step + 1)
        ema_update(teacher, student, 0.6, step)
        now = student.state_dict()
        for name, mine in teacher.state_dict().items():
            if name.endswith("num_batches_tracked"):
                assert int(mine) == int(now[name]) == (step + 1) * (step + 2) // 2
            else:
                expected[name] = decay * expected[name] + (1 - decay) * now[name]
                torch.testing.assert_close(mine, expected[name], rtol=0, atol=1e-14)
    for name in ("0.weight", "1.running_mean"):
        assert not torch.equal(teacher.state_dict()[name], student.state_dict()[name])


def test_the_first_step_copies_and_decay_0_is_the_student_itself() -> None:
    for decay, step in ((0.99, 0), (0.0, 7)):
        teacher, student = network(1), network(2)
        learn(student, 1)
        ema_update(teacher, student, decay, step)
        assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), student.parameters(), strict=True))
        assert all(torch.equal(a, b) for a, b in zip(teacher.buffers(), student.buffers(), strict=True))


def test_what_never_learns_is_left_alone() -> None:
    teacher, student = network(1), network(2)
    before, student_now = copy.deepcopy(teacher.state_dict()), student.state_dict()
    student[0].requires_grad_(False)
    ema_update(teacher, student, 0.9, 0)
    for name, mine in teacher.state_dict().items():
        assert torch.equal(mine, (before if name.startswith("0.") else student_now)[name])


def test_following_leaves_no_graph_and_the_teacher_in_eval_mode() -> None:
    teacher, student = network(1), network(2)
    ema_update(teacher, student, 0.9, 1)
    assert not any(module.training for module in teacher.modules())
    assert all(module.training for module in student.modules())
    assert all(parameter.is_leaf and parameter.grad_fn is None for parameter in teacher.parameters())
    assert not any(buffer.requires_grad for buffer in teacher.buffers())
