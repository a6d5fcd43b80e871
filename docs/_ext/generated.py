"""Reference pages from what the program itself says: its verbs, its options, its presets.

A page holds a directive, {verbs}, {options} or {presets}; the Markdown of these functions takes its place when the
site is built. So nothing is kept that could be out of date.
"""

import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import typer.main
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective

from latentseg.cli import app
from latentseg.presets import describe_options, group_maps, preset_summaries
from latentseg.sweeps.files import sweep_summaries


def verbs_page() -> str:
    """Every verb: usage, what it does, arguments and options."""
    return "\n\n".join(_verb(name, verb) for name, verb in _verbs(typer.main.get_command(app), "latentseg"))


def _verbs(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield name, command
        return
    for verb, inner in sorted(command.commands.items()):
        yield from _verbs(inner, f"{name} {verb}")


def _verb(name: str, verb: Any) -> str:
    with verb.make_context(name, [], resilient_parsing=True) as context:
        usage = re.sub(r"\{(\w+)\}", r"\1", " ".join(verb.collect_usage_pieces(context)))
        rows = [_parameter(parameter, context) for parameter in verb.params]
    usage = usage.replace("[[KEY=VALUE]...]...", "[KEY=VALUE]...")
    table = "\n".join(["| argument or option | meaning |", "|---|---|", *rows] if rows else [])
    return "\n\n".join([f"## {name}", f"```text\n{name} {usage}\n```", _help(verb.help or ""), table])


def _help(text: str) -> str:
    """The text of --help; a line with an example becomes a block of code."""
    blocks = []
    for line in text.strip().splitlines():
        said, colon, commands = line.strip().partition(": latentseg ")
        commands = "latentseg " + commands.replace(", or: ", "\n")
        blocks.append(f"{said}:\n\n```text\n{commands}\n```" if colon else line.strip())
    return "\n\n".join(block for block in blocks if block)


def _parameter(parameter: Any, context: Any) -> str:
    names, text = parameter.get_help_record(context)
    names = names.removesuffix(" <list[str]>")
    return f"| `{_cell(names)}` | {_cell(text)} |"


def options_page() -> str:
    """Every option, a section of the configuration under a heading."""
    parts: list[str] = []
    for block in "\n".join(describe_options()).split("\n\n"):
        lines = re.split(r"\n(?=[\w.]+ = )", block.strip())
        section = lines[0].partition(" = ")[0].rpartition(".")[0]
        parts.append(f"## {section or 'the run itself'}\n\n| option | default | meaning |\n|---|---|---|")
        parts[-1] += "".join(f"\n| {' | '.join(_option(line))} |" for line in lines)
    return "\n\n".join(parts)


def _option(line: str) -> tuple[str, str, str]:
    """Name, default and meaning, from a line of `latentseg presets --options`."""
    key, _, rest = line.partition(" = ")
    default, _, meaning = rest.partition("  ")
    meaning = meaning.replace(" *", " \\*")
    return f"`{key}`", f"`{_cell(default)}`" if default else "", _cell(meaning)


def presets_page() -> str:
    """Presets, sweeps and maps of groups, a line each."""
    tables = {
        "Presets": preset_summaries(),
        "Sweeps": sweep_summaries(),
        "Groups": {name: ", ".join(groups) for name, groups in group_maps().items()},
    }
    return "\n\n".join(
        f"## {title}\n\n| name | what |\n|---|---|" + "".join(f"\n| `{name}` | {_cell(what)} |" for name, what in rows)
        for title, rows in ((title, table.items()) for title, table in tables.items())
    )


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _directive(page: Callable[[], str]) -> type[SphinxDirective]:
    class Generated(SphinxDirective):
        def run(self) -> list[nodes.Node]:
            return self.parse_text_to_nodes(page(), allow_section_headings=True)

    return Generated


class OutsideLinks(SphinxTransform):
    """Markdown files outside of docs/ are no pages: a link to one leads to a copy of the file."""

    default_priority = 900

    def apply(self, **_: Any) -> None:
        """Turn such links of a page into downloads, as links to all other files are."""
        for link in list(self.document.findall(addnodes.pending_xref)):
            page = self.env.srcdir / f"{link['reftarget']}.md"
            if link.get("refdomain") == "doc" and not page.is_relative_to(self.env.srcdir):
                target = os.path.relpath(page, self.env.srcdir)
                link.replace_self(addnodes.download_reference("", "", *link.children, reftarget=f"/{target}"))


def setup(application: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    for name, page in (("verbs", verbs_page), ("options", options_page), ("presets", presets_page)):
        application.add_directive(name, _directive(page))
    application.add_transform(OutsideLinks)
    return {"parallel_read_safe": True}
