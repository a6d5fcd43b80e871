"""Scores against values by hand and against torchmetrics."""

import math

import pytest
import torch
from torchmetrics.functional.classification import multiclass_jaccard_index

from latentseg.metrics import confusion_matrix, scores


def test_known_values() -> None:
    targets = torch.tensor([[0, 0, 1, 255], [1, 1, 2, 255]])
    preds = torch.tensor([[0, 1, 1, 0], [1, 0, 2, 3]])
    matrix = confusion_matrix(preds, targets, 4)
    assert matrix.tolist() == [[1, 1, 0, 0], [1, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert matrix.dtype == torch.int64
    result = scores(matrix)
    assert result.iou[:3] == pytest.approx([1 / 3, 2 / 4, 1])
    assert math.isnan(result.iou[3])
    assert result.miou == pytest.approx((1 / 3 + 1 / 2 + 1) / 3)
    assert result.pixel_accuracy == pytest.approx(4 / 6)
    assert result.absent == 1


def test_a_class_predicted_but_never_true_counts_as_zero() -> None:
    result = scores(confusion_matrix(torch.tensor([1, 0]), torch.tensor([0, 0]), 2))
    assert result.iou == [0.5, 0.0]
    assert result.absent == 0


def test_equals_torchmetrics_over_a_data_set() -> None:
    generator = torch.Generator().manual_seed(1)
    images = [
        (torch.randint(0, 5, (30, 40), generator=generator), torch.randint(0, 5, (30, 40), generator=generator))
        for _ in range(3)
    ]
    for index, (_, targets) in enumerate(images):
        targets[index] = 255
        targets[targets == 4] = min(4, index)  # classes are spread unevenly over the images
    total = sum((confusion_matrix(preds, targets, 5) for preds, targets in images), torch.zeros(5, 5).long())
    expected = multiclass_jaccard_index(
        torch.stack([preds for preds, _ in images]),
        torch.stack([targets for _, targets in images]),
        5,
        ignore_index=255,
        average="macro",
    )
    assert scores(total).miou == pytest.approx(float(expected), abs=1e-6)
    averaged = sum(scores(confusion_matrix(preds, targets, 5)).miou for preds, targets in images) / 3
    assert abs(averaged - float(expected)) > 1e-4  # the mean over images is another number


def test_counts_beyond_float32_are_exact() -> None:
    matrix = confusion_matrix(torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), 2)
    assert int((matrix + 2**24)[0, 0]) == 2**24 + 1


@pytest.mark.parametrize(("preds", "targets"), [([0, 3], [0, 0]), ([0, 0], [0, 3]), ([0, -1], [0, 0])])
def test_ids_outside_the_classes_are_refused(preds: list[int], targets: list[int]) -> None:
    with pytest.raises(ValueError, match="outside"):
        confusion_matrix(torch.tensor(preds), torch.tensor(targets), 3)


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        confusion_matrix(torch.zeros(2, 3), torch.zeros(3, 2), 3)


def test_which_classes_are_in_the_mean() -> None:
    """Class 0: IoU 1/3. Class 1: true, never found. Class 2: found, never true. Class 3: absent."""
    matrix = torch.tensor([[1, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    found = {over: scores(matrix, over) for over in ("occurring", "hit", "all")}
    assert {over: result.absent for over, result in found.items()} == {"occurring": 1, "hit": 3, "all": 0}
    assert found["occurring"].miou == pytest.approx(1 / 9)
    assert found["hit"].miou == pytest.approx(1 / 3)
    assert found["all"].miou == pytest.approx(1 / 12)
    assert all(math.isnan(result.iou[3]) for result in found.values())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("classes", [1, 2, 21, 255])
def test_counts_are_those_of_a_plain_loop(dtype: torch.dtype, classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    preds, targets = (torch.randint(0, classes, (2, 9, 11), generator=generator).to(dtype) for _ in range(2))
    targets[:, 2:4] = 255
    expected = torch.zeros(classes, classes, dtype=torch.int64)
    for true, said in zip(targets.flatten().tolist(), preds.flatten().tolist(), strict=True):
        if true != 255:
            expected[true, said] += 1
    assert torch.equal(confusion_matrix(preds, targets, classes), expected)
    assert torch.equal(
        confusion_matrix(preds[..., ::2], targets[..., ::2], classes).sum(), (targets[..., ::2] != 255).sum()
    )


@pytest.mark.parametrize(("preds", "targets"), [([0, 3], [0, 0]), ([0, 0], [0, 254]), ([255, 0], [0, 0])])
def test_bytes_outside_the_classes_are_refused(preds: list[int], targets: list[int]) -> None:
    with pytest.raises(ValueError, match="outside"):
        confusion_matrix(torch.tensor(preds, dtype=torch.uint8), torch.tensor(targets, dtype=torch.uint8), 3)


def test_no_pixels() -> None:
    nothing = torch.zeros(0, dtype=torch.uint8)
    assert confusion_matrix(nothing, nothing, 3).tolist() == [[0] * 3] * 3


@pytest.mark.parametrize("wide", [-1, 256, 256 + 255])
def test_ids_that_do_not_fit_into_a_byte_are_not_taken_for_others(wide: int) -> None:
    zero = torch.tensor([0])
    for preds, targets in ((zero + wide, zero), (zero, zero + wide)):
        with pytest.raises(ValueError, match="outside"):
            confusion_matrix(preds, targets, 255)


def test_the_text_of_a_score_says_of_how_many_classes() -> None:
    whole = scores(torch.tensor([[3, 1], [0, 4]]))
    assert whole.miou_text() == "77.50"
    assert whole.miou_text("%") == "77.50 %"
    few = scores(torch.tensor([[3, 0, 0], [0, 0, 0], [0, 1, 4]]))
    assert few.miou_text() == "60.00"
    absent = scores(torch.tensor([[3, 1, 0], [1, 5, 0], [0, 0, 0]]))
    assert absent.miou_text() == "65.71 (2 of 3 classes scored)"


def test_a_matrix_of_large_counts_is_scored_exactly() -> None:
    assert scores(torch.tensor([[2**25 + 1, 1], [0, 1]])).pixel_accuracy == (2**25 + 2) / (2**25 + 3)
