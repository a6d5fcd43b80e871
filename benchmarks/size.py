"""How much there is to read: `python benchmarks/size.py` counts the package into benchmarks/size.json."""

import ast
import json
from pathlib import Path


def main() -> None:
    """Count and write."""
    package = Path(__file__).parents[1] / "latentseg"
    texts = {path.relative_to(package).as_posix(): path.read_text() for path in sorted(package.rglob("*.py"))}
    lines = {name: len(text.splitlines()) for name, text in texts.items()}
    nodes = [(name, node) for name, text in texts.items() for node in ast.walk(ast.parse(text))]
    functions = [
        ((node.end_lineno or node.lineno) - node.lineno + 1, f"{name}: {node.name}")  # docstrings are counted
        for name, node in nodes
        if isinstance(node, ast.FunctionDef)
    ]
    counts = sorted(count for count, _ in functions)
    result = {
        "modules": len(lines),
        "lines": sum(lines.values()),
        "longest_module": max((count, name) for name, count in lines.items())[::-1],
        "longest_functions": sorted(functions, reverse=True)[:3],
        "functions": len(functions),
        "functions_over_30_lines": sum(count > 30 for count in counts),
        "median_function": counts[len(counts) // 2],
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
