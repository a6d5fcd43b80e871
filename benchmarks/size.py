"""How much there is to read: modules, lines, the longest of them, and the three files of one training step.

    python benchmarks/size.py

Results: benchmarks/size.json.
"""

import ast
import json
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "latentseg"
STEP = ("methods/latent.py", "losses.py", "models/segmenter.py")


def functions(path: Path) -> list[tuple[int, str]]:
    """Lines (docstring included) and name of each function of a module."""
    return [
        ((node.end_lineno or node.lineno) - node.lineno + 1, node.name)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    ]


def imports(path: Path) -> list[str]:
    """Modules that a module imports."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    whole = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    parts = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return sorted(whole | parts)


def main() -> None:
    """Count and write."""
    modules = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
    lines = {name: len(path.read_text().splitlines()) for name, path in modules.items()}
    longest = max(lines, key=lambda name: lines[name])
    every = [(count, f"{name}: {function}") for name, path in modules.items() for count, function in functions(path)]
    counts = sorted(count for count, _ in every)
    result = {
        "modules": len(modules),
        "lines": sum(lines.values()),
        "longest_module": [longest, lines[longest]],
        "longest_functions": sorted(every, reverse=True)[:3],
        "functions": len(every),
        "functions_over_30_lines": sum(count > 30 for count in counts),
        "median_function": counts[len(counts) // 2],
        "one_step": {name: {"lines": lines[name], "imports": imports(modules[name])} for name in STEP},
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
