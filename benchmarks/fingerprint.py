"""What the package computes, to the last bit: a change that should alter nothing leaves the same fingerprint.

    python benchmarks/fingerprint.py before.json                       # in a worktree of the commit before
    python benchmarks/fingerprint.py after.json --against before.json  # after the change, on the same machine

Twenty steps of each method on drawn scenes (float32, one thread, encoder trained along; three also on cached features),
with the loss terms of each step, a hash of the last checkpoint's tensors, an evaluation, and the files of a prediction.
Only the command line is used, so the script runs on commits that arrange the package in another way. Other machines
give other last bits: compare files of one machine.
"""

import argparse
import hashlib
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

DATA = ["data.scenes.train=12", "data.scenes.val=4", "data.scenes.test=2", "data.scenes.height=64"]
DATA += ["data.scenes.width=96", "data.labeled=4"]
RUN = ["steps=20", "batch_size=2", "log_every=1", "threads=1", "precision=32-true", "cache=none", "device=cpu"]
RUN += ["checkpoint_every=20", "augment.crop=[64,64]"]
ALONG = ["model.frozen=false"]
CACHED = ["cache=features", "augment.views=2", "augment.labeled_views=4", "model.frozen=true"]
ADVERSARIAL = ["method.lambda_lbl_adv=0.01", "method.lambda_ulbl_adv=0.001", "discriminator.downscale=1"]
METHODS = {
    "supervised": ALONG,
    "latent": ALONG + ADVERSARIAL,
    "latent, no discriminator": [*ALONG, "method.name=latent"],
    "advsemiseg": ALONG + ADVERSARIAL,
    "given_classes": [*ALONG, *ADVERSARIAL, "method.groups=identity"],
    "symmetric": ALONG + ADVERSARIAL,
    "mean_teacher": ALONG,
    "fixmatch": ALONG,
    "unimatch": ALONG,
    "cps": ALONG,
    "latent_match": [*ALONG, "method.threshold=0.5"],
    "latent_match, cached": [*CACHED, "method.name=latent_match", "method.threshold=0.5"],
    "fixmatch, cached": [*CACHED, "method.name=fixmatch", "method.threshold=0.5"],
    "latent, cached": [*CACHED, "method.name=latent"],
}
TIMES = ("seconds", "images_per_second")


def fingerprint(folder: Path) -> dict[str, Any]:
    """Train, evaluate and predict in a folder, and give all figures.

    Args:
        folder: An empty folder.
    """
    found: dict[str, Any] = {}
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)).save(folder / "noise.png")
    for row, options in METHODS.items():
        run = folder / row.replace(", ", "-").replace(" ", "-")
        name = row.split(",")[0]
        cache = [f"cache_folder={folder / 'cache'}"] if "cached" in row else []
        _latentseg("train", "scenes", f"method.name={name}", *DATA, *RUN, *options, *cache, "--run", str(run))
        _latentseg("evaluate", str(run), "threads=1")
        _latentseg("predict", str(run), str(folder / "noise.png"), "--out", str(run / "out"), "--set", "threads=1")
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        [checkpoint] = (run / "checkpoints").glob("step_*")
        found[row] = {
            "terms": [{key: value for key, value in row.items() if key not in TIMES} for row in rows],
            "weights": tensors_hash(checkpoint),
            "scores": json.loads((run / "evaluation-val-last.json").read_text())["scores"],
            "files": {
                path.relative_to(run / "out").as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in sorted((run / "out").rglob("*.png"))
            },
        }
        print(row, found[row]["weights"][:12], flush=True)
    return found


def tensors_hash(checkpoint: Path) -> str:
    """Hash of all tensors of a checkpoint with their names."""
    files = [checkpoint] if checkpoint.is_file() else sorted(checkpoint.rglob("*.safetensors"))
    digest = hashlib.sha256()
    for file in files:
        for name, tensor in sorted(load_file(file).items()):
            digest.update(name.encode() + tensor.tobytes())
    return digest.hexdigest()


def differences(before: Any, after: Any, within: float = 0.0, where: str = "") -> list[str]:
    """Places in which two trees differ, as text; numbers by more than this share of them."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted(before.keys() | after.keys())
        return [line for key in keys for line in differences(before.get(key), after.get(key), within, f"{where}/{key}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [line for number, (old, new) in pairs for line in differences(old, new, within, f"{where}/{number}")]
    if isinstance(before, float) and isinstance(after, float) and math.isclose(before, after, rel_tol=within):
        return []
    return [] if before == after else [f"{where}: {before} before, {after} now"]


def _latentseg(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "latentseg", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"latentseg {' '.join(arguments)}\n{done.stdout}{done.stderr}")


def main() -> None:
    """Write the fingerprint, and compare it with another one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="JSON file to write")
    parser.add_argument("--against", type=Path, help="fingerprint of the commit before")
    parser.add_argument("--within", type=float, default=0.0, help="share by which numbers may differ")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = fingerprint(Path(folder))
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    if options.against:
        changed = differences(json.loads(options.against.read_text()), found, options.within)
        exact = f"within {options.within:g}" if options.within else "bit for bit"
        print("\n".join(changed) or f"the same as {options.against}, {exact}")
        raise SystemExit(1 if changed else 0)


if __name__ == "__main__":
    main()
