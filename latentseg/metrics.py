"""Scores of a segmentation over a whole data set, from one confusion matrix."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from latentseg.losses import IGNORE_INDEX


def confusion_matrix(preds: Tensor, targets: Tensor, num_classes: int) -> Tensor:
    """Count pixels by true class (row) and predicted class (column).

    Args:
        preds: Class ids in 0..C-1, any shape, integer.
        targets: Class ids in 0..C-1 of the same shape; 255 is left out.
        num_classes: C.

    Returns:
        Shape (C, C), int64. Matrices of several images add up.

    Raises:
        ValueError: The shapes differ, or an id is neither a class nor (in targets) 255.
    """
    if preds.shape != targets.shape:
        raise ValueError(f"predictions of shape {tuple(preds.shape)}, targets of {tuple(targets.shape)}")
    rows, columns = _bytes(targets, "targets", num_classes), _bytes(preds, "predictions", num_classes)
    pairs = torch.bincount((rows.int() * 256 + columns).flatten(), minlength=256 * 256).reshape(256, 256)
    known = pairs[:IGNORE_INDEX]  # all bytes are counted: what lies outside the classes shows without a look at pixels
    for name, outside in (("targets", known[num_classes:]), ("predictions", known[:, num_classes:])):
        if bool(outside.any()):
            raise ValueError(f"{name} hold values outside 0..{num_classes - 1}")
    return known[:num_classes, :num_classes].clone()


def _bytes(ids: Tensor, name: str, num_classes: int) -> Tensor:
    if ids.dtype != torch.uint8 and ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) <= 255:
        raise ValueError(f"{name} hold values outside 0..{num_classes - 1}")
    return ids.byte()


@dataclass(frozen=True)
class Scores:
    """Scores from a confusion matrix. A class absent from truth and prediction has the IoU NaN."""

    iou: list[float]
    """Intersection over union per class, in 0..1."""
    miou: float
    """Mean of `iou` over the classes that count; NaN if none does."""
    pixel_accuracy: float
    """Share of labelled pixels that are predicted right."""
    absent: int
    """Number of classes left out of the mean."""

    def miou_text(self, unit: str = "") -> str:
        """The mIoU in %, with its unit if given, and with the number of classes in it where some are left out."""
        few = f" ({len(self.iou) - self.absent} of {len(self.iou)} classes scored)" if self.absent else ""
        return f"{100 * self.miou:.2f}{f' {unit}' if unit else ''}{few}"


def scores(matrix: Tensor, over: Literal["occurring", "hit", "all"] = "occurring") -> Scores:
    """Compute the scores of a confusion matrix, shape (C, C), rows true and columns predicted.

    Args:
        matrix: From `confusion_matrix`.
        over: Classes in the mean: those in truth or prediction; those with a true positive (AdvSemiSeg's code, which
            thereby leaves out what a model never finds); or all, absent ones as 0 (UniMatch's code).
    """
    counts = matrix.double()
    hits = counts.diagonal()
    union = counts.sum(0) + counts.sum(1) - hits
    iou = hits / union  # 0 / 0 is NaN: the class is absent
    counted = {"occurring": iou, "hit": iou.where(hits > 0, torch.nan), "all": iou.nan_to_num()}[over]
    return Scores(
        iou=iou.tolist(),
        miou=float(counted.nanmean()),
        pixel_accuracy=float(hits.sum() / counts.sum()),
        absent=int(counted.isnan().sum()),
    )
