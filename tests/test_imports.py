"""Imports point one way: cli -> verbs -> training -> methods -> losses, with data and models below the methods."""

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
VERBS = {"training", "inference", "analysis", "sweeps", "quickstart", "report", "cli", "__main__"}


def imported(module: str) -> set[str]:
    """Names of our modules, and roots of others', that a module imports anywhere, TYPE_CHECKING apart."""
    tree = ast.parse(MODULES[module].read_text())
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


def ours(module: str) -> set[str]:
    """Second part of the name of each module of ours that a module imports; "" is the package itself."""
    return {name.partition(".")[2].split(".")[0] for name in imported(module) if name.split(".")[0] == "latentseg"}


def below(*parts: str) -> list[str]:
    return [name for name in MODULES if name.partition(".")[2].split(".")[0] in parts]


def test_the_packages_are_all_seen() -> None:
    assert {"latentseg", "latentseg.data", "latentseg.data.batches", "latentseg.methods.latent"} <= MODULES.keys()
    assert ours("latentseg.training") >= {"methods", "data", "models", "checkpoints", "config"}


def test_losses_and_metrics_know_torch_alone() -> None:
    outside = imported("latentseg.losses") | imported("latentseg.metrics")
    assert {name for name in outside if name not in sys.stdlib_module_names} == {"torch", "latentseg.losses"}
    assert ours("latentseg.losses") == set()
    assert ours("latentseg.metrics") == {"losses"}


@pytest.mark.parametrize("module", [*below("errors", "config", "checkpoints"), *below("data"), *below("models")])
def test_the_lower_floors_know_nothing_of_the_upper_ones(module: str) -> None:
    assert ours(module) & ({"methods", "losses", "runs"} | VERBS) == set()


def test_data_and_models_do_not_know_each_other() -> None:
    assert not any("models" in ours(module) for module in below("data"))
    assert not any("data" in ours(module) for module in below("models"))


@pytest.mark.parametrize("module", below("scenes"))
def test_scenes_know_nothing_of_the_house(module: str) -> None:
    assert ours(module) <= {"scenes", "errors"}


@pytest.mark.parametrize("module", below("methods"))
def test_methods_know_no_loop(module: str) -> None:
    assert ours(module) <= {"methods", "losses", "config", "data", "features", "errors", "parallel"}


@pytest.mark.parametrize("module", ["latentseg.runs", *below("inference")])
def test_runs_and_inference_know_no_training(module: str) -> None:
    assert ours(module) & (VERBS - {"inference"}) == set()


@pytest.mark.parametrize("module", ["latentseg.training", *below("inference")])
def test_the_loop_knows_no_single_method(module: str) -> None:
    single = {name for name in imported(module) if name.startswith("latentseg.methods.")}
    assert single <= {"latentseg.methods.table", "latentseg.methods.base"}


def test_nothing_knows_the_command_line_but_its_entry() -> None:
    assert [module for module in MODULES if "cli" in ours(module)] == ["latentseg.__main__"]


def test_no_module_imports_itself_through_others() -> None:
    graph = {module: {name for name in imported(module) if name in MODULES} for module in MODULES}

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path, module])
        for name in sorted(graph[module]):
            if name != "latentseg" and not module.startswith(f"{name}."):
                visit(name, (*path, module))

    for module in MODULES:
        visit(module, ())


def test_help_needs_no_torch() -> None:
    code = "import sys, latentseg, latentseg.cli; assert 'torch' not in sys.modules; latentseg.train"
    code += "; assert 'torch' in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_package_names_what_it_offers() -> None:
    import latentseg  # noqa: PLC0415

    assert all(getattr(latentseg, name) is not None for name in latentseg.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        latentseg.nothing  # noqa: B018
