"""Imports point one way, from the command line down to the losses; the rooms stand on floors."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "latentseg"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
FLOORS = (
    ("errors", "losses", "methods.table", "console", "reading", "signals"),
    ("metrics", "messages", "config", "distributed", "runs.checkpoints", "runs.locks"),
    ("presets", "engine"),
    ("scenes",),
    ("data",),
    ("found",),
    ("models", "runs"),
    ("methods",),
    ("inference",),
    ("analysis", "annotate", "export"),
    ("suggest", "training"),
    ("report", "sweeps", "demo"),
    ("quickstart",),
    ("verbs",),
    ("cli",),
    ("__main__",),
)
"""Each imports from floors above it in this list, and from its own room."""
LINES = 350
"""No module has more."""


def imported(module: str) -> set[str]:
    """Names of our modules, and roots of others', that a module imports anywhere, TYPE_CHECKING apart."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            assert node.module is not None
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & MODULES.keys()) or {node.module}
    return {name if name.startswith("latentseg") else name.split(".")[0] for name in found}


def place(module: str) -> tuple[int, str]:
    """Floor and room of a module of ours: the longest name in the list that it lies in."""
    inner = module.removeprefix("latentseg.")
    rooms = [(floor, room) for floor, rooms in enumerate(FLOORS) for room in rooms]
    return max(
        ((floor, room) for floor, room in rooms if inner == room or inner.startswith(f"{room}.")),
        key=lambda found: len(found[1]),
    )


@pytest.mark.parametrize("module", [name for name in MODULES if name != "latentseg"])
def test_a_module_imports_from_below_and_from_its_own_room(module: str) -> None:
    floor, room = place(module)
    for name in (imported(module) & MODULES.keys()) - {"latentseg"}:
        below, other = place(name)
        assert below < floor or other.partition(".")[0] == room.partition(".")[0], name


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_long(module: str) -> None:
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= LINES


def test_losses_and_metrics_know_torch_alone() -> None:
    outside = imported("latentseg.losses") | imported("latentseg.metrics")
    assert {name for name in outside if name not in sys.stdlib_module_names} == {"torch", "latentseg.losses"}


@pytest.mark.parametrize(
    "module", [name for name in MODULES if name != "latentseg" and place(name)[1] in ("training", "inference")]
)
def test_the_loop_knows_no_single_method(module: str) -> None:
    shared = {"latentseg.methods.base", "latentseg.methods.table", "latentseg.methods.weak_to_strong"}
    assert {name for name in imported(module) if name.startswith("latentseg.methods.")} <= shared


def test_no_module_imports_itself_through_others() -> None:
    graph = {module: {name for name in imported(module) if name in MODULES} for module in MODULES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path, module])
        for name in sorted(graph[module]) if module not in done else ():
            if name != "latentseg" and not module.startswith(f"{name}."):
                visit(name, (*path, module))
        done.add(module)

    for module in MODULES:
        visit(module, ())


@pytest.mark.parametrize(
    ("modules", "late"),
    [
        ("latentseg, latentseg.cli", "torch"),
        (
            "latentseg.training.loop, latentseg.inference.predict",
            "latentseg.analysis.heatmap mlflow segmentation_models_pytorch",
        ),
    ],
)
def test_what_takes_long_is_imported_where_it_is_used(modules: str, late: str) -> None:
    code = f"import sys, {modules}; assert not {set(late.split())} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_package_names_what_it_offers() -> None:
    import latentseg  # noqa: PLC0415

    assert all(getattr(latentseg, name) is not None for name in latentseg.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        latentseg.nothing  # noqa: B018
