"""Speed of exports beside ours and PyTorch eager: probabilities of a photo, in turns, CPU time of one thread.

    python benchmarks/export.py --rounds 9      # minutes; writes benchmarks/export.json

Weights are ImageNet's or random, heads are random: the time does not depend on them. "eager" is the segmenter as it
was trained, its BatchNorm by itself; "ours" is `Model.probs`. A ratio is the time over that of ours.
"""

import argparse
import json
import platform
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clocks import in_turns, ratio
from made import photo
from numpy.typing import NDArray
from torch.nn import functional

from latentseg import Model, load_config, train
from latentseg.engine import full_speed
from latentseg.export.files import open_onnx, open_pt2
from latentseg.export.int8 import quantized
from latentseg.export.run import export_run

SIZE = (360, 480)
NETWORKS = {
    "lite0": [],
    "resnet18": ["model.encoder=resnet18", "model.weights_kind=none"],
    "deeplab_resnet50": ["model.encoder=deeplab_resnet50", "model.weights_kind=none", "model.head=aspp"],
}
OPTIONS = ["method.name=supervised", "steps=1", "batch_size=1", "data.labeled=2", "device=cpu", "threads=1"]
OPTIONS += ["data.scenes.train=8", "data.scenes.val=2", "augment.crop=[97,129]", "precision=32-true"]


@torch.inference_mode()
def eager(model: Model, images: NDArray[np.uint8]) -> torch.Tensor:
    """The segmenter's forward, padded by hand, without anything of `inference`."""
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    height, width = SIZE
    full = model.segmenter.valid_size(*SIZE)
    logits = model.segmenter(functional.pad(tensor, (0, full[1] - width, 0, full[0] - height)), latent=False).semantic
    probs: torch.Tensor = logits[..., :height, :width].softmax(1)
    return probs


def measure(name: str, folder: Path, rounds: int) -> dict[str, Any]:
    """All ways of one network."""
    run = train(load_config("scenes", [*OPTIONS, *NETWORKS[name]]), folder / name).folder
    ours, plain = Model.open(run), Model.open(run)
    plain.segmenter.load_state_dict(plain.segmenter.state_dict())  # which undoes the folding
    files = {suffix: folder / f"{name}.{suffix}" for suffix in ("onnx", "pt2")}
    for kind, file in files.items():
        print(export_run(run, file, kind).text(), flush=True)
    images, contents = photo(0, SIZE)[None], {kind: file.read_bytes() for kind, file in files.items()}
    contents["int8"] = quantized(contents["onnx"], [images])
    onnx, pt2, int8 = open_onnx(contents["onnx"]), open_pt2(contents["pt2"]), open_onnx(contents["int8"])
    functions: dict[str, Callable[[], object]] = {
        "ours": lambda: ours.probs(images, latent=False),
        "eager": lambda: eager(plain, images),
        "onnx": lambda: onnx(images),
        "pt2": lambda: pt2(images),
        "int8": lambda: int8(images),
    }
    with full_speed():
        seconds = in_turns(functions, rounds)
    row: dict[str, Any] = {way: ratio(taken, seconds["ours"]) for way, taken in seconds.items() if way != "ours"}
    row["ours_ms"] = round(1000 * sorted(seconds["ours"])[rounds // 2], 1)
    row["ours_images_per_second"] = round(1000 / row["ours_ms"], 1)
    row["megabytes"] = {kind: round(len(content) / 1e6, 1) for kind, content in contents.items()}
    return row


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.networks:
            rows[name] = measure(name, Path(folder), options.rounds)
            print(json.dumps({name: rows[name]}), flush=True)
    versions = {name: metadata.version(name) for name in ("torch", "onnxruntime", "onnx", "onnxscript")}
    about = {"machine": platform.processor() or platform.machine(), "size": SIZE, "threads": 1, "versions": versions}
    options.out.write_text(json.dumps(about | {"networks": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
