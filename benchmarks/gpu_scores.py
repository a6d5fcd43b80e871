"""Parts of `gpu.py` that train to the end: the encoder along, on 12 labelled frames of CamVid, as many steps as fit."""

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from gpu_setting import Row, Setting

from latentseg.config import Config
from latentseg.presets import load_config, only_read
from latentseg.runs.metrics import read_metrics
from latentseg.training.budget import steps_within
from latentseg.training.loop import train

ALONG = ["model.frozen=false", "data.check=quick", "seed=0", "cache=images"]
NO_ADVERSARY = ["method.lambda_lbl_adv=0", "method.lambda_ulbl_adv=0"]
MATCH = ["method.threshold=0.97", "method.lambda_match=1", "method.pool_power=3", "method.balance=1"]
ROWS = {
    "supervised": ["method.name=supervised"],
    "latent": ["method.name=latent", *NO_ADVERSARY],
    "latent, adversarial": ["method.name=latent", "method.lambda_lbl_adv=0.01", "method.lambda_ulbl_adv=0.001"],
    "latent_match": ["method.name=latent_match", *MATCH, "method.grid=heads", "method.consistency_start=0.15"],
}
"""As benchmarks/tables_camvid_trained.yaml and match_camvid_trained.yaml have them."""
RESERVED = 110.0
"""Seconds that are left for what comes after these parts."""
AROUND = 15.0
"""Seconds of a run beside its steps: reading, building, the validation at the end."""
STEPS = "4 steps that fit"


def config_of(setting: Setting, row: str, *more: str) -> Config:
    """The run of a row."""
    chosen = [*ALONG, *setting.data, *setting.options, *more, *ROWS[row]]
    method = ROWS[row][0].partition("=")[2]
    return load_config("camvid" if setting.camvid else "scenes", only_read(chosen, method))


def share(left: float, rows: int) -> float:
    """Seconds for the steps of each of some rows, of those that are left for all that is to come."""
    return max(10.0, (left - RESERVED) / rows - AROUND)


def steps(setting: Setting) -> Iterator[Row]:
    """Steps that each row could take in its share of the time; all take as many as the slowest."""
    if setting.small:
        yield "all", {"steps": 2}
        return
    began, found = time.perf_counter(), {}
    for row in ROWS:
        seconds = share(setting.left - 30, len(ROWS))  # this part takes about that long itself
        found[row] = steps_within(config_of(setting, row), seconds)[0].steps
        yield row, {"steps": found[row]}
    yield "all", {"steps": min(found.values()), "seconds": round(time.perf_counter() - began, 1)}


def score(setting: Setting, row: str) -> Iterator[Row]:
    """Train one row and score it on val."""
    number = int(setting.results[STEPS]["all"]["steps"])
    config = config_of(setting, row, f"steps={number}", f"log_every={min(20, number)}")
    with tempfile.TemporaryDirectory() as folder:
        run = train(config, Path(folder) / "run")
        lines = read_metrics(run.folder)
    [last] = [line for line in lines if "val_miou" in line]
    seconds = sum(line.get("seconds", 0.0) for line in lines)
    yield row, {"val_miou": round(100 * last["val_miou"], 2), "steps": number, "seconds": round(seconds, 1)}


PARTS = {f"4 {row}": partial(score, row=row) for row in ROWS}
