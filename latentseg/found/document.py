"""What was decided about a folder as a YAML file that people read and change."""

from typing import Any

from latentseg.found.choices import Choice, Found
from latentseg.presets import flat, load_config, preset_text
from latentseg.presets.plain import flow, read_yaml

WIDTH = 118


def document(found: Found, base: str, overrides: list[str]) -> str:
    """A configuration as text: the options of a preset, the choices for a folder with their reasons, and overrides.

    Args:
        found: What lies in the folder.
        base: The preset.
        overrides: `key=value` that win.

    Raises:
        UserError: An option is wrong.
    """
    load_config(base, [*found.overrides, *overrides])  # checks them
    values = flat(read_yaml(preset_text(base), base))
    given = {key.strip(): read_yaml(text, key) for key, _, text in (each.partition("=") for each in overrides)}
    chosen = {choice.key: choice for choice in found.choices if choice.key not in given}
    chosen |= {key: Choice(key, value, "given on the command line") for key, value in given.items()}
    values |= {key: choice.value for key, choice in chosen.items()}
    lines = [f"# Written by latentseg init {found.root}: {found.layout}."]
    for problem in found.problems:
        lines += _comment(f"Not understood: {problem.what}" + (f": {problem.remedy}" * bool(problem.remedy)), "")
    lines += [f"# Options without a reason are those of the preset {base}; `latentseg presets --options` explains all."]
    sections = dict.fromkeys(key.rpartition(".")[0] for key in sorted(values, key=lambda key: "." in key))
    for section in sections:
        indent = "  " * bool(section)
        lines += ["", f"{section}:"] if section else [""]
        for key, value in values.items():
            if key.rpartition(".")[0] == section:
                lines += _option(chosen.get(key), key.rpartition(".")[2], value, indent)
    return "\n".join(lines) + "\n"


def _option(choice: Choice | None, name: str, value: Any, indent: str) -> list[str]:
    lines: list[str] = []
    if choice:
        lines += _comment(choice.reason, indent)
        lines += _comment(f"otherwise: {choice.alternative}", indent) if choice.alternative else []
    return [*lines, f"{indent}{name}: {flow(value)}"]


def _comment(text: str, indent: str) -> list[str]:
    """Lines of a comment, none too long."""
    lines, line = [], ""
    for word in text.split():
        if line and len(indent) + 2 + len(line) + 1 + len(word) > WIDTH:
            lines.append(line)
            line = ""
        line = f"{line} {word}".strip()
    return [f"{indent}# {each}" for each in (*lines, line)]
