"""How far a pixel's colour and row alone go on the street scenes: the score that a network must leave behind.

Two predictors see nothing but (red, green, blue, row): a histogram P(class | colour bin, row bin) and a small
network. Both divide their probabilities by prior ** power, for several powers, since plain argmax never names a rare
class; the best power, chosen on the test scenes themselves, counts. So it is an upper bound.

Run: `python benchmarks/scenes_difficulty.py` (one minute on one core); writes `scenes_difficulty.json` beside it.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from latentseg.scenes.draw import CLASSES, draw_scene

C = len(CLASSES)
POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
Floats = NDArray[np.float32]
Labels = NDArray[np.uint8]


def main() -> None:
    """Draw both sets, fit both predictors, print and save the figures."""
    parser = argparse.ArgumentParser(description="Score of colour and row alone on the street scenes.")
    parser.add_argument("--train", type=int, default=300, help="scenes to learn from")
    parser.add_argument("--test", type=int, default=100, help="other scenes, to score")
    parser.add_argument("--seed", type=int, default=0, help="seed of the scenes")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    started = time.process_time()
    train_images, train_targets = draw_set(options.seed, 0, options.train)
    test_images, test_targets = draw_set(options.seed, options.train, options.test)
    milliseconds = 1000 * (time.process_time() - started) / (options.train + options.test)
    prior = np.bincount(train_targets[train_targets < C], minlength=C) / (train_targets < C).sum()
    results = {}
    for name, probs in (
        ("histogram", histogram_probs(train_images, train_targets, test_images)),
        ("network", network_probs(train_images, train_targets, test_images)),
    ):
        scores = {power: class_ious(probs, prior, power, test_targets) for power in POWERS}
        best = max(scores, key=lambda power: float(np.nanmean(scores[power])))
        results[name] = {
            "miou_by_power": {str(power): percent(float(np.nanmean(ious))) for power, ious in scores.items()},
            "best_miou": percent(float(np.nanmean(scores[best]))),
            "class_iou": dict(zip(CLASSES, map(percent, scores[best]), strict=True)),
        }
    seen = [np.isin(range(C), targets) for targets in train_targets]
    report = {
        "command": " ".join(["python", *sys.argv]),
        "seed": options.seed,
        "train_scenes": options.train,
        "test_scenes": options.test,
        "size": list(train_targets.shape[1:]),
        "milliseconds_per_scene": round(milliseconds, 1),
        "pixel_share": dict(zip(CLASSES, map(percent, prior), strict=True)),
        "scene_share": dict(zip(CLASSES, map(percent, np.mean(seen, axis=0)), strict=True)),
        **results,
    }
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    show(report, results)


def draw_set(seed: int, first: int, count: int) -> tuple[Labels, Labels]:
    """Images (N, 144, 256, 3) and targets (N, 144, 256) of `count` scenes."""
    pairs = [draw_scene(seed, index, 144, 256) for index in range(first, first + count)]
    return np.stack([image for image, _ in pairs]), np.stack([targets for _, targets in pairs])


def histogram_probs(images: Labels, targets: Labels, test_images: Labels, bins: int = 12) -> Floats:
    """P(class | colour bin, row bin), (N, H, W, C); empty bins fall back to the row's distribution."""
    rows = 18

    def cells(pictures: Labels) -> NDArray[np.int64]:
        colour = pictures.astype(np.int64) * bins // 256
        row = np.arange(pictures.shape[1]) * rows // pictures.shape[1]
        flat: NDArray[np.int64] = ((row[:, None] * bins + colour[..., 0]) * bins + colour[..., 1]) * bins + colour[
            ..., 2
        ]
        return flat

    keep = targets < C
    counts = np.bincount(cells(images)[keep] * C + targets[keep], minlength=rows * bins**3 * C)
    table = counts.reshape(rows, bins**3, C).astype(np.float32)
    by_row = table.sum(1, keepdims=True)
    table += 2 * by_row / by_row.sum(-1, keepdims=True)
    table /= table.sum(-1, keepdims=True)
    probs: Floats = table.reshape(-1, C)[cells(test_images)]
    return probs


def network_probs(images: Labels, targets: Labels, test_images: Labels, steps: int = 3000) -> Floats:
    """Probabilities (N, H, W, C) of a network of two hidden layers on (red, green, blue, row)."""
    features, labels = pixel_features(images), torch.from_numpy(targets.astype(np.int64)).flatten()
    kept = torch.nonzero(labels < C).flatten()
    net = nn.Sequential(nn.Linear(4, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, C))
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = kept[torch.randint(len(kept), (4096,))]
        loss = nn.functional.cross_entropy(net(features[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        parts = [net(part).softmax(-1) for part in torch.split(pixel_features(test_images), 1 << 18)]
    probs: Floats = torch.cat(parts).numpy().reshape(*test_images.shape[:3], C)
    return probs


def pixel_features(images: Labels) -> torch.Tensor:
    """Red, green, blue and row of every pixel, each in [-1, 1]: (pixels, 4)."""
    rows = np.broadcast_to(np.linspace(-1, 1, images.shape[1])[:, None, None], (*images.shape[:3], 1))
    stacked = np.concatenate([images / 127.5 - 1, rows], axis=-1, dtype=np.float32)
    return torch.from_numpy(stacked.reshape(-1, 4))


def class_ious(probs: Floats, prior: NDArray[np.float64], power: float, targets: Labels) -> NDArray[np.float64]:
    """IoU of each class; NaN where neither truth nor prediction holds it."""
    preds = (probs / np.maximum(prior, 1e-9).astype(np.float32) ** power).argmax(-1)
    keep = targets < C
    confusion = np.bincount(targets[keep] * np.int64(C) + preds[keep], minlength=C * C).reshape(C, C)
    hits = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hits
    ious: NDArray[np.float64] = np.where(union > 0, hits / np.maximum(union, 1), np.nan)
    return ious


def percent(share: float) -> float:
    """Share as a percentage with two digits."""
    return round(100 * float(share), 2)


def show(report: dict[str, object], results: dict[str, dict[str, object]]) -> None:
    """Print the table that the JSON file holds."""
    print(f"{'class':14s} {'pixels':>7s} {'scenes':>7s} " + " ".join(f"{name:>10s}" for name in results))
    columns = [report["pixel_share"], report["scene_share"], *(result["class_iou"] for result in results.values())]
    for name in CLASSES:
        print(f"{name:14s} " + " ".join(f"{column[name]:7.2f}" for column in columns if isinstance(column, dict)))
    for name, result in results.items():
        print(f"{name}: mIoU {result['best_miou']} % (by power of the prior: {result['miou_by_power']})")
    print(f"{report['milliseconds_per_scene']} ms per scene")


if __name__ == "__main__":
    main()
