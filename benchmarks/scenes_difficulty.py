"""How far a pixel's colour and row alone go on the street scenes: the score that a network must leave behind.

    python benchmarks/scenes_difficulty.py

A histogram P(class | colour bin, row bin) predicts, divided by prior ** power, since plain argmax never names a rare
class; the best power, chosen on the test scenes themselves, counts. Results: benchmarks/scenes_difficulty.json, where
`network` is a network of two hidden layers on (red, green, blue, row), by the script of commit 8b8335e.
"""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latentseg.scenes.draw import CLASSES, draw_scene

C = len(CLASSES)
POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
TRAIN, TEST, SEED = 300, 100, 0
Floats = NDArray[np.float32]
Labels = NDArray[np.uint8]


def draw_set(first: int, count: int) -> tuple[Labels, Labels]:
    """Images (N, 144, 256, 3) and targets (N, 144, 256) of `count` scenes."""
    pairs = [draw_scene(SEED, index, 144, 256) for index in range(first, first + count)]
    return np.stack([image for image, _ in pairs]), np.stack([targets for _, targets in pairs])


def histogram_probs(images: Labels, targets: Labels, test_images: Labels, bins: int = 12) -> Floats:
    """P(class | colour bin, row bin), (N, H, W, C); empty bins fall back to the row's distribution."""
    rows = 18

    def cells(pictures: Labels) -> NDArray[np.int64]:
        flat = np.arange(pictures.shape[1])[:, None] * rows // pictures.shape[1]
        for channel in range(3):
            flat = flat * bins + pictures[..., channel].astype(np.int64) * bins // 256
        return np.asarray(flat, np.int64)

    keep = targets < C
    counts = np.bincount(cells(images)[keep] * C + targets[keep], minlength=rows * bins**3 * C)
    table = counts.reshape(rows, bins**3, C).astype(np.float32)
    by_row = table.sum(1, keepdims=True)
    table += 2 * by_row / by_row.sum(-1, keepdims=True)
    table /= table.sum(-1, keepdims=True)
    probs: Floats = table.reshape(-1, C)[cells(test_images)]
    return probs


def class_ious(probs: Floats, prior: NDArray[np.float64], power: float, targets: Labels) -> NDArray[np.float64]:
    """IoU of each class; NaN where neither truth nor prediction holds it."""
    preds = (probs / np.maximum(prior, 1e-9).astype(np.float32) ** power).argmax(-1)
    keep = targets < C
    confusion = np.bincount(targets[keep] * np.int64(C) + preds[keep], minlength=C * C).reshape(C, C)
    hits = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hits
    ious: NDArray[np.float64] = np.where(union > 0, hits / np.maximum(union, 1), np.nan)
    return ious


def percent(values: NDArray[np.float64]) -> dict[str, float]:
    """Shares by class in %."""
    return dict(zip(CLASSES, np.round(100 * values, 2).tolist(), strict=True))


def main() -> None:
    """Draw both sets, fit the histogram, print and save the figures; what the file holds besides stays."""
    train_images, train_targets = draw_set(0, TRAIN)
    test_images, test_targets = draw_set(TRAIN, TEST)
    prior = np.bincount(train_targets[train_targets < C], minlength=C) / (train_targets < C).sum()
    seen = np.mean([np.isin(range(C), targets) for targets in train_targets], axis=0)
    probs = histogram_probs(train_images, train_targets, test_images)
    ious = {power: class_ious(probs, prior, power, test_targets) for power in POWERS}
    by_power = {str(power): round(100 * float(np.nanmean(values)), 2) for power, values in ious.items()}
    best = max(POWERS, key=lambda power: by_power[str(power)])
    found = {"miou_by_power": by_power, "best_miou": by_power[str(best)], "class_iou": percent(ious[best])}
    path = Path(__file__).with_suffix(".json")
    report = {"pixel_share": percent(prior), "scene_share": percent(seen), "histogram": found}
    path.write_text(json.dumps(json.loads(path.read_text()) | report, indent=1) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
