"""Mutation testing: one small fault at a time is put into a module, and the tests of that module must notice it.

    python benchmarks/mutation.py losses metrics --most 100 --seed 0 --out benchmarks/mutation.json

Faults: comparisons, arithmetic, and/or, numbers and truth values, negated conditions, results that become None, calls
without arguments that are left out (`x.detach()` becomes `x`), statements that are left out (a `raise`, a call). Left
alone: strings, annotations, decorators, and what stands in a `raise`. `--most` draws so many of a module's by the
seed. Each runs in a fork of a process that has PyTorch in memory, on the fast tests of the module, up to the first
failure; what takes longer than `--seconds` counts as noticed.
"""

import argparse
import ast
import importlib
import importlib.util
import json
import os
import random
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

import pytest

TARGETS = {
    "losses": ["tests/test_losses.py"],
    "metrics": ["tests/test_metrics.py"],
    "data.splits": ["tests/data/test_splits.py"],
    "data.cover": ["tests/data/test_splits.py"],
    "runs.checkpoints": ["tests/runs/test_checkpoints.py", "tests/training/test_optim.py"],
    "data.classes": ["tests/data/test_classes.py", "tests/data/test_check.py"],
    "data.check": [f"tests/data/test_{name}.py" for name in ("check", "checked", "leaks", "files", "classes")],
    "methods.latent": ["tests/methods/test_latent.py"],
    "methods.adversarial": ["tests/methods/test_latent.py", "tests/methods/test_peer_methods.py"],
    "methods.weak_to_strong": [f"tests/methods/test_weak_to_strong{name}.py" for name in ("", "_methods")],
    "methods.latent_classes": ["tests/methods/test_latent.py", "tests/methods/test_latent_match.py"],
}
"""Modules of the package, and the tests that are theirs."""
ROOT = Path(__file__).parents[1]
WARM = ("torch", "torchvision", "timm", "lightning_fabric", "torchmetrics", "matplotlib.pyplot", "tensorboard")
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.MatMult: ast.Mult, ast.Break: ast.Continue,
    ast.Continue: ast.Break,
}  # fmt: skip
SKIPPED = {"annotation", "returns", "decorator_list", "exc", "cause", "type_params"}
"""Parts of the syntax that are left alone."""


class Mutant(NamedTuple):
    """A module with one fault."""

    where: str
    """Line, and what became what."""
    code: CodeType


def others(node: ast.AST, field: str) -> Iterator[ast.AST]:
    """What may stand in the place of a part of the syntax."""
    if type(node) in SWAPS:
        yield SWAPS[type(node)]()
    match node:
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(value + 1)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.Call(func=ast.Attribute(value=value), args=[], keywords=[]):
            yield value
        case ast.Return(value=ast.AST() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()) | ast.Raise():
            yield ast.Pass()
    if field in {"test", "ifs"} and not isinstance(node, ast.UnaryOp | ast.Compare):
        yield ast.UnaryOp(ast.Not(), node)  # type: ignore[arg-type]


def mutants(path: Path, name: str) -> Iterator[Mutant]:
    """All of a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))

    def inside(node: ast.AST) -> Iterator[Mutant]:
        for field, value in ast.iter_fields(node):
            if field in SKIPPED:
                continue
            children = value if isinstance(value, list) else [value]
            for number, child in enumerate(children):
                if not isinstance(child, ast.AST):
                    continue
                for other in others(child, field):
                    yield changed(node, field, number if isinstance(value, list) else None, child, other)
                yield from inside(child)

    def changed(parent: ast.AST, field: str, number: int | None, old: ast.AST, new: ast.AST) -> Mutant:
        shown = parent if isinstance(old, ast.operator | ast.cmpop | ast.boolop) else old
        line, before = getattr(shown, "lineno", 0), ast.unparse(shown)
        _put(parent, field, number, new)
        after = ast.unparse(parent if shown is parent else new)
        code = compile(ast.fix_missing_locations(tree), str(path), "exec")
        _put(parent, field, number, old)
        return Mutant(f"{name}:{line}: {before}  ->  {after}", code)

    yield from inside(tree)


def _put(parent: ast.AST, field: str, number: int | None, child: ast.AST) -> None:
    if number is None:
        setattr(parent, field, child)
    else:
        getattr(parent, field)[number] = child


class Loader:
    """Finds and loads the module with the fault in the place of the right one."""

    def __init__(self, name: str, code: CodeType) -> None:
        self.name, self.code = name, code

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> Any:
        """Only that module is found here."""
        return importlib.util.spec_from_loader(name, self) if name == self.name else None  # type: ignore[arg-type]

    def create_module(self, _spec: Any) -> None:
        """As usual."""

    def exec_module(self, module: Any) -> None:
        """Run the code with the fault."""
        exec(self.code, module.__dict__)  # noqa: S102


def passes(name: str, code: CodeType | None, seconds: int) -> bool:
    """Whether the tests of a module pass with a fault in it (None: as it is)."""
    with tempfile.TemporaryDirectory() as folder:
        child = os.fork()
        if child == 0:
            os.setsid()
            signal.alarm(seconds)
            for stream in (1, 2):
                os.dup2(os.open(Path(folder) / "out", os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
            if code is not None:
                sys.meta_path.insert(0, Loader(f"latentseg.{name}", code))
            quiet = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", f"--basetemp={Path(folder) / 'pytest'}"]
            os._exit(int(pytest.main([*quiet, f"--rootdir={ROOT}", *(str(ROOT / file) for file in TARGETS[name])])))
        _, status = os.waitpid(child, 0)
        if code is None and status:
            print((Path(folder) / "out").read_text(encoding="utf-8"))
        return status == 0


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Try the faults, and write after each module what was noticed; modules that are not named are kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=", ".join(TARGETS))
    parser.add_argument("--most", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--again", action="store_true", help="only the faults that the file says were not noticed")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    for module in WARM:
        importlib.import_module(module)
    results: dict[str, Any] = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else {}
    for name in given.modules or TARGETS:
        every = list(mutants(ROOT / "latentseg" / f"{name.replace('.', '/')}.py", name))
        drawn = random.Random(given.seed).sample(every, min(given.most, len(every)))  # noqa: S311
        tried = len(drawn)
        if given.again:
            tried, known = results[name]["tried"], set(results[name]["survived"])
            drawn = [mutant for mutant in every if mutant.where in known]
            assert len({mutant.where for mutant in drawn}) == len(known), f"{name} has changed: leave --again out"
        assert passes(name, None, given.seconds), f"the tests of {name} fail as they are"
        survived = []
        for mutant in drawn:
            if passes(name, mutant.code, given.seconds):
                survived.append(mutant.where)
                print(mutant.where, flush=True)
        score = round(100 * (1 - len(survived) / tried), 1)
        results[name] = {"faults": len(every), "tried": tried, "noticed_percent": score, "survived": survived}
        print(f"{name}: {tried} of {len(every)} faults tried, {score} % noticed", flush=True)
        given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return results


if __name__ == "__main__":
    main()
