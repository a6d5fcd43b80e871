"""The presets in the protocol of UniMatch and UniMatch V2: each starts, takes two steps, is killed, goes on, is scored.

    python benchmarks/match_presets.py      # 1 thread: about 30 minutes, 8 GB

As benchmarks/paper_presets.py, on the same generated data, with random weights in the layouts of torchvision's
ResNet-101 and timm's DINOv2-S. Model, crop and losses are the preset's; the batch is 1 or 2 and the consistency is on
from the first step. An untrained teacher may be sure of no pixel or of each, so `match` or `cons` may be 0. Results:
benchmarks/match_presets.json, cell by cell; a cell that is there is skipped. Its seconds are wall time on a busy
machine (load 3 to 5 on 2 cores) and no speeds.
"""

from pathlib import Path

import timm
import torch
from paper_presets import Cell, main, random_resnet101

RESULT = Path(__file__).with_suffix(".json")
OPTIONS = [
    "data.labeled=1/2", "checkpoint_every=1", "log_every=1", "threads=1", "method.consistency_start=0",
]  # fmt: skip
TERMS = frozenset({"ce", "latent", "match", "cons"})
MAY_BE_ZERO = frozenset({"match", "cons"})
SIZES = {
    "voc_match_dinov2": ["batch_size=2", "workers=2"],
    "cityscapes_match_dinov2": ["batch_size=1", "workers=2"],
    "voc_match": ["batch_size=2", "workers=2"],
    "cityscapes_match": ["batch_size=1", "workers=0"],
}
CELLS = {name: Cell(name, [*OPTIONS, *size], TERMS, MAY_BE_ZERO) for name, size in SIZES.items()}


def write_resnet101(folder: Path) -> Path:
    """A file as torchvision's ResNet-101, classifier included."""
    torch.save(random_resnet101(), path := folder / "resnet101.pth")
    return path


def write_dinov2(folder: Path) -> Path:
    """A file as timm's DINOv2-S."""
    torch.manual_seed(0)
    state = timm.create_model("vit_small_patch14_dinov2.lvd142m", pretrained=False).state_dict()
    torch.save(state, path := folder / "dinov2_small.pth")
    return path


if __name__ == "__main__":
    writers = {name: write_dinov2 if name.endswith("dinov2") else write_resnet101 for name in CELLS}
    main(CELLS, RESULT, __doc__, writers)
