"""Files made to do harm, or no files at all: none is executed, each is read or refused by one message."""

import csv
import json
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from reliability.counting import Count, counted
from reliability.disturbed import OPTIONS, Command, Trial
from reliability.fuzz_config import mutated

from latentseg.data.check import check_set
from latentseg.errors import UserError
from latentseg.inference.model import Model
from latentseg.models.weights import read_state
from latentseg.presets import load_config, load_run
from latentseg.report.collect import read_inputs
from latentseg.report.page import write_report
from latentseg.runs.checkpoints import Checkpoints
from latentseg.runs.folder import open_run
from latentseg.sweeps.files import read_sweep
from latentseg.sweeps.run import commands

NAMES = [
    "=cmd|' /C calc'!A0",
    '<script>alert("x")</script>',
    "+1+1",
    "@SUM(A1)",
    "-2",
    "$(touch hacked)",
    "`touch hacked`",
]
"""Of classes."""
FILES = ["$(touch hacked)", "; touch hacked;", "`touch hacked`", "<img src=x onerror=alert(1)>", "--out=hacked", "a b"]
"""Of images."""
EVIL = "!!python/object/apply:os.system ['touch hacked']"


class _Payload:
    """A pickle that runs a command where it is loaded."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch hacked",)


class _Page(HTMLParser):
    """What would run in a browser."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.runs: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.runs += [tag] if tag in {"script", "iframe", "object", "embed"} else []
        self.runs += [name for name, value in attrs if name.startswith("on") or (value or "").startswith("javascript:")]


def malicious(trial: Trial) -> Count:
    """Pickles, YAML that calls, names that a shell, a browser or a spreadsheet would run: none does anything."""
    folder = trial.root / "malicious"
    folder.mkdir()
    run, pages, cells = _hostile_run(folder)
    evil = pickle.dumps(_Payload(), protocol=2)  # what PyTorch writes
    for name, content in {
        "evil.pth": evil, "evil.safetensors": evil, "tags.yaml": f"base: {EVIL}\nsteps: {EVIL}\n".encode(),
        "sweep.yaml": f"# s\nbase: scenes\noptions: {{steps: {EVIL}}}\nrows: {{a: {{}}}}\n".encode(),
    }.items():  # fmt: skip
        (folder / name).write_bytes(content)
    os.environ["LATENTSEG_SECRET"] = "5ecret"  # noqa: S105 - to be looked for
    tries: dict[str, Callable[[], Any]] = {
        "a pickle as weights": lambda: read_state(folder / "evil.pth"),
        "a pickle called safetensors": lambda: read_state(folder / "evil.safetensors"),
        "a pickle as checkpoint": lambda: _as_checkpoint(folder / "checkpoints", evil),
        "YAML that calls": lambda: load_config(folder / "tags.yaml"),
        "YAML that calls, of a sweep": lambda: read_sweep(folder / "sweep.yaml"),
        "YAML that calls, of a run": lambda: _with_config(run, f"steps: {EVIL}\n"),
        "an override that calls": lambda: load_config("scenes", [f"steps={EVIL}"]),
        "a reference to the environment": lambda: _without_secret(
            load_config("scenes", ["data.root=${oc.env:LATENTSEG_SECRET}"])
        ),
        "the commands of a sweep": lambda: _in_a_shell(folder),
        "names of classes and images": lambda: None,  # `_hostile_run` was the try
        "names on a page": lambda: _harmless(not _Page(pages).runs),
        "names in a table": lambda: _harmless(cells and all(cell[:1] not in "=+-@\t\r" for cell in cells)),
    }
    lost: list[str] = []

    def survives(number: int) -> bool:
        name, call = list(tries.items())[number]
        try:
            call()
        except UserError:
            pass
        except AssertionError:
            lost.append(name)
        executed = [*Path.cwd().glob("hacked*"), *folder.rglob("hacked*")]
        if executed:
            lost.append(f"{name}: executed")
            for path in executed:
                path.unlink()
        return name not in lost and not executed

    return counted(len(tries), survives, first_lost=lost)


def _harmless(right: object) -> None:
    assert right


def _hostile_run(folder: Path) -> tuple[Path, str, list[str]]:
    """Train, analyse, report and predict on a data set with such names; the run, its page, and words in its tables."""
    root, run = folder / "set", folder / "<b>run; touch hacked"
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for name in FILES:
            Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(
                root / "images" / split / f"{name}.png"
            )
            ids = rng.integers(0, len(NAMES), (48, 48), dtype=np.uint8)
            Image.fromarray(ids).save(root / "masks" / split / f"{name}.png")
    (root / "classes.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    options = [option for option in OPTIONS if not option.startswith(("data.", "steps="))]
    for words in (
        [
            "train",
            "folder",
            *options,
            "steps=2",
            "cache=none",
            "method.name=latent",
            f"data.root={root}",
            "--run",
            str(run),
        ],
        ["analyse", str(run)],
        ["report", str(run), "--out", str(folder / "report.html")],
        ["predict", str(run), str(root / "images" / "val"), "--out", str(folder / "out")],
    ):
        status, told = Command(words).wait()
        assert status == 0, told
    tables = [path.read_text(encoding="utf-8") for path in (run / "analysis").glob("*.csv")]
    cells = [row[0] for table in tables for row in csv.reader(table.splitlines())]
    return run, (folder / "report.html").read_text(encoding="utf-8"), cells


def _as_checkpoint(folder: Path, content: bytes) -> None:
    folder.mkdir()
    (folder / "step_00000002.safetensors").write_bytes(content)
    entry = Checkpoints(folder).last()
    assert entry is not None
    Checkpoints(folder).read(entry)


def _with_config(run: Path, text: str) -> None:
    whole = (run / "config.yaml").read_bytes()
    (run / "config.yaml").write_text(text, encoding="utf-8")
    try:
        load_run(run)
    finally:
        (run / "config.yaml").write_bytes(whole)


def _without_secret(config: Any) -> None:
    assert "5ecret" not in str(config)


def _in_a_shell(folder: Path) -> None:
    """What `sweep --commands` prints, run by a shell that has another `latentseg`."""
    path = folder / "$(touch hacked); touch hacked; `touch hacked`.yaml"
    path.write_text("# s\nbase: scenes\noptions: {steps: 2}\nrows: {a: {}}\n", encoding="utf-8")
    lines = commands(read_sweep(path), folder / "root; touch hacked")
    assert lines
    for line in lines:
        subprocess.run(["sh", "-c", f"latentseg() {{ :; }}; {line}"], check=True, cwd=folder)  # noqa: S607


def data_files(folder: Path, number: int) -> Count:
    """Data sets of which a file is damaged, gone, doubled or another's: the data check says what is wrong, if it is."""
    rng = random.Random(0)  # noqa: S311
    root = folder / "data"
    whole = _small_set(root)

    def survives(_number: int) -> bool:
        path = rng.choice(list(whole))
        for each, content in whole.items():
            each.write_bytes(content)
        kind = rng.random()
        extra = path.with_name(rng.choice(["a.png", "é.PNG", "00_mask.png", "x.jpg", "y.gif", "00.PNG", "\udcff.png"]))
        if kind < 0.1:
            path.unlink()
        elif kind < 0.2:
            extra.write_bytes(whole[path])
        elif kind < 0.3:
            path.write_bytes(rng.choice(list(whole.values())))
        else:
            path.write_bytes(mutated(rng, whole[path]))
        more = rng.choice(
            [[], ["data.labeled=1/2"], ["data.labeled=1"], ["data.color_map=palette"], ["data.on_bad=skip"]]
        )
        ok = _taken_or_refused(lambda: check_set(load_config("folder", [f"data.root={root}", *more])), lost, path)
        if extra not in whole:
            extra.unlink(missing_ok=True)
        return ok

    lost: list[str] = []
    return counted(number, survives, first_lost=lost)


def _small_set(root: Path) -> dict[Path, bytes]:
    """A data set of few files: their content by path."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(3):
            image, mask = (root / kind / split / f"{number:02}.png" for kind in ("images", "masks"))
            for path in (image, mask):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(image)
            Image.fromarray(rng.integers(0, 3, (12, 16), dtype=np.uint8)).save(mask)
    (root / "classes.txt").write_text("ground\nthing\nsky\n", encoding="utf-8")
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def run_folders(run: Path, number: int) -> Count:
    """Run folders of which a text file is damaged: opened and reported, or refused; other weights are never loaded."""
    rng = random.Random(0)  # noqa: S311
    whole = {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.suffix in {".json", ".jsonl", ".yaml"}}
    before = Model.open(run).step
    lost: list[str] = []

    def survives(number: int) -> bool:
        path = rng.choice(list(whole))
        odd = [
            b"",
            b"[]",
            b"null",
            b"{}",
            b"[" * 3000,
            b"\xff\xfe",
            b'{"step": 1e999}\n',
            b'{"step": "1"}\n',
            b"\0" * 99,
        ]
        path.write_bytes(rng.choice(odd) if rng.random() < 0.3 else mutated(rng, whole[path]))
        try:
            good = _taken_or_refused(lambda: _as_before(open_run(run).checkpoints.last(), before), lost, path)
            good &= _taken_or_refused(lambda: read_inputs([run]), lost, path)
            if number % 10 == 0:  # it takes seconds
                page = run.parent / f"page-{number}.html"
                good &= _taken_or_refused(lambda: write_report([run], page), lost, path)
        finally:
            path.write_bytes(whole[path])
        return good

    return counted(number, survives, first_lost=lost)


def _as_before(entry: Any, step: int) -> None:
    assert entry is not None
    assert entry.step == step


def _taken_or_refused(call: Callable[[], object], lost: list[str], path: Path) -> bool:
    try:
        call()
    except UserError:
        return True
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        lost.append(f"{path.name}: {type(error).__name__}: {error}"[:300])
        return False
    return True


def large_image(trial: Trial, side: int) -> Count:
    """An image of side x side pixels: predicted by tiles, in memory that is bounded."""
    run, path, out = trial.whole(), trial.root / "large.png", trial.root / "large"
    small = np.random.default_rng(0).integers(0, 256, (side // 100, side // 100, 3), dtype=np.uint8)
    Image.fromarray(small).resize((side, side), Image.Resampling.BILINEAR).save(path, compress_level=1)
    script = (
        "import resource, sys; from latentseg import cli\n"
        "try: cli.main()\n"
        "finally: print('PEAK', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    words = [sys.executable, "-c", script, "predict", str(run), str(path), "--out", str(out)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    peak = int(done.stdout.rpartition("PEAK ")[2] or 0) // 1024
    maps = list((out / "index").glob("*.png"))
    right = bool(maps) and Image.open(maps[0]).size == (side, side)
    survived = int(done.returncode == 0 and right and "in tiles" in done.stderr and peak < BASE + side**2 * 16 // 2**20)
    return {"tried": 1, "survived": survived, "lost": 1 - survived, "side": side, "peak_mb": peak} | (
        {} if survived else {"first_lost": [json.dumps(done.stderr[-500:])]}
    )


BASE = 2500
"""MB that the program and one tile may take; each pixel of the image may take 16 bytes more."""
