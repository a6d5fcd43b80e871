"""Hostile configurations: random overrides and YAML files, of which each must be taken, or refused by one message.

    python benchmarks/reliability/fuzz_config.py --number 2000 --seed 0 --json benchmarks/reliability/fuzz_config.json

Half are overrides, by a grammar (an option, a value that is odd, of the wrong kind or near the default); half are YAML
files: a preset or a sweep that is mutated (bytes, lines, values), or a text of odd pieces. Each is read, written and
read again, and goes through what a run looks at before PyTorch is there: its data set and its split. Nothing is
trained. Counts what is taken, what is refused, tracebacks, what takes longer than five seconds, and messages of more
than 5,000 characters (the command shows a screen of them).
"""

import argparse
import json
import random
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from latentseg.config import Config
from latentseg.data.datasets import open_dataset
from latentseg.data.splits import draw_split
from latentseg.errors import UserError
from latentseg.presets import dump_config, flat, load_config, option_names, preset_names, preset_text
from latentseg.sweeps.files import read_sweep, sweep_names, sweep_text

SECONDS = 5
"""What takes longer hangs."""
SCALARS = [
    "0", "1", "-1", "2", "255", "256", "1e-9", "1e38", "1e400", "-0.0", ".nan", ".inf", "-.inf", "0x10", "0b1", "017",
    "1_0", "1:30", "9" * 25, "9" * 5000, "0x" + "f" * 5000, "true", "null", "~", "", "''", "a", "all", "1/8", "1/0",
    "8/1", "9" * 5000 + "/" + "9" * 5000, "²", "\u0663", "é", "e\u0301", "\U0001f600", "\u202e", "\ufeff", "\x85",
    "2020-01-01", "2020-99-99", "=", "<<", "*a", "&a 1", "!!int ''", "!!python/name:os.system", "!!binary //79",
    "${steps}", "${oc.env:HOME}", "${", "${foo:1}", '"\\0"', '"\\ud800"', "x" * 300, "x" * 5000, "~nobody/x", "~root",
    "/proc", "/dev/zero", "/root", "..", "con\\nul", "`", "@", "%", "|", ">-", "# no", "'", '"', '{-" ...', "- - -",
    "$(touch hacked)", "; ls", "<script>", "=cmd()", "\x07", "\t", "  ", "[" * 2000, "{a: " * 2000, "[[[[[[1]]]]]]",
    "!!set {a}",
]  # fmt: skip
PIECES = [
    ": ", "\n", "\n  ", "- ", "[", "]", "{", "}", ",", "&a ", "*a", "<<: *a", "!!str ", "#", "---\n", "...\n", "'", '"',
    "? ", "| \n", "${", "}", "%YAML 1.1\n", "\t", "\x00", "\ufeff", "data", "method", "steps", "groups", "class_map",
]  # fmt: skip
BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)
)


DEFAULTS = flat(Config().model_dump(mode="json"))
LONG = 5000
"""Characters of a long message."""


def near(rng: random.Random, key: str) -> str:
    """A value that may well be taken: the default, or something beside it."""
    default = DEFAULTS.get(key)
    if isinstance(default, bool) or not isinstance(default, int | float):
        return rng.choice([json.dumps(default), "true", "false", "null", "all", "8", "0.5", "[1]"])
    return json.dumps(rng.choice([default, default * 2, default / 2, round(default), default + 1, 0, 1, 64]))


def value(rng: random.Random, depth: int = 0) -> str:
    """A value as someone types it: a scalar, or a list or mapping of values."""
    kind = rng.random()
    if kind < 0.7 or depth > 2:
        return rng.choice(SCALARS)
    inner = [value(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    if kind < 0.85:
        return f"[{', '.join(inner)}]"
    return "{" + ", ".join(f"{rng.choice(SCALARS)}: {one}" for one in inner) + "}"


def override(rng: random.Random) -> str:
    """One `key=value`, mostly of an option that exists."""
    key = rng.choice(option_names())
    if rng.random() < 0.1:
        key = mutated(rng, key.encode()).decode(errors="surrogateescape")
    elif rng.random() < 0.1:
        key = f"{rng.choice(['data.class_map', 'method.groups'])}.{rng.choice(SCALARS)}"
    typed = near(rng, key) if rng.random() < 0.75 else value(rng)
    text = f"{key}{rng.choice(['='] * 20 + ['', '==', ' = '])}{typed}"
    return (
        mutated(rng, text.encode(errors="surrogateescape")).decode(errors="surrogateescape")
        if rng.random() < 0.1
        else text
    )


def mutated(rng: random.Random, text: bytes) -> bytes:
    """A text with a few of its bytes flipped, doubled, dropped, or with something put in."""
    content = bytearray(text)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(content) + 1)
        kind = rng.randrange(4)
        if kind == 0 and content:
            content[place % len(content)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del content[place : place + rng.randint(1, 20)]
        elif kind == 2:
            content[place:place] = content[place : place + rng.randint(1, 200)] * rng.randint(1, 3)
        else:
            content[place:place] = rng.choice(PIECES + SCALARS).encode(errors="surrogateescape")
    return bytes(content)


def document(rng: random.Random, sweep: bool) -> bytes:
    """A YAML file: a mutated preset or sweep, one with odd values, or odd pieces in a row."""
    kind = rng.random()
    text = sweep_text(rng.choice(sweep_names())) if sweep else preset_text(rng.choice(preset_names()))
    if kind < 0.4:
        return mutated(rng, text.encode())
    if kind < 0.8:
        lines = text.splitlines()
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(lines))
            lines[place] = f"{lines[place].partition(':')[0]}: {value(rng)}"
        return "\n".join(lines).encode(errors="surrogateescape")
    if kind < 0.83:
        return (BOMB + f"{rng.choice(option_names())}: *k\n").encode()
    pieces = "".join(rng.choice(PIECES + SCALARS) for _ in range(rng.randint(1, 30)))
    return pieces.encode(rng.choice(["utf-8", "utf-16", "utf-8-sig", "latin-1"]), errors="replace")


def inputs(number: int, seed: int, folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is tried: its text, and a call that reads it."""
    path = folder / "hostile.yaml"
    for index in range(number):
        rng = random.Random(f"{seed} {index}")  # noqa: S311
        if index % 2 == 0:
            given = [override(rng) for _ in range(rng.choice([1, 1, 1, 2, 4]))]
            yield repr(given), partial(attempt, rng.choice(["scenes", "scenes", *preset_names()]), given, folder)
        else:
            sweep = index % 8 == 1
            path.write_bytes(content := document(rng, sweep))
            call = partial(attempt, path, [], folder, of_run=index % 8 == 3)
            yield repr(content), partial(read_sweep, path) if sweep else call


def attempt(source: str | Path, given: list[str], folder: Path, of_run: bool = False) -> None:
    """What every verb does first."""
    config = load_config(source, given, of_run)
    again = folder / "config.yaml"
    again.write_text(dump_config(config), encoding="utf-8")
    assert load_config(again, of_run=True) == config, "the written configuration is another one"
    few = {"train": 16, "val": 2, "test": 2, "height": 32, "width": 32}
    if config.data.kind != "scenes" and config.data.root is None:
        return  # it is asked for, in one message
    data = config.data.model_copy(update={"scenes": config.data.scenes.model_copy(update=few)})
    draw_split(open_dataset(data), data, config.seed)


def _late(*_: Any) -> None:
    raise TimeoutError(f"it takes more than {SECONDS} s")


def fuzz(number: int, seed: int) -> dict[str, Any]:
    """Try that many; tell how they ended."""
    counts = {"tried": 0, "taken": 0, "refused": 0, "tracebacks": 0, "hangs": 0, "long messages": 0}
    failures: list[str] = []
    slowest = 0.0
    signal.signal(signal.SIGALRM, _late)
    with tempfile.TemporaryDirectory() as folder:
        for text, call in inputs(number, seed, Path(folder)):
            counts["tried"] += 1
            began = time.perf_counter()
            signal.alarm(SECONDS)
            try:
                call()
                counts["taken"] += 1
            except UserError as error:
                counts["refused"] += 1
                counts["long messages"] += len(str(error)) > LONG
            except TimeoutError:
                counts["hangs"] += 1
                failures.append(text[:300])
            except Exception:  # noqa: BLE001 - this is what is looked for
                counts["tracebacks"] += 1
                failures.append(f"{text[:300]}: {traceback.format_exc(limit=-3)}")
            finally:
                signal.alarm(0)
            slowest = max(slowest, time.perf_counter() - began)
    return {"seed": seed} | counts | {"slowest_seconds": round(slowest, 2), "failures": failures}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = fuzz(arguments.number, arguments.seed)
    print(json.dumps(result, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
