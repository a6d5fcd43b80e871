"""What was decided about a folder: options, each with its reason and what else there is."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from latentseg.presets.plain import flow


class Choice(NamedTuple):
    """An option that was chosen."""

    key: str
    """Its dotted name."""
    value: Any
    reason: str
    """Why: what was found, or assumed."""
    alternative: str = ""
    """What to write instead where that is wrong."""

    @property
    def override(self) -> str:
        """As `key=value`."""
        return f"{self.key}={flow(self.value)}"


class Problem(NamedTuple):
    """Something that was not understood."""

    what: str
    remedy: str


@dataclass
class Found:
    """What lies in a folder."""

    root: Path
    layout: str
    """In a few words."""
    choices: list[Choice]
    problems: list[Problem] = field(default_factory=list)

    @property
    def overrides(self) -> list[str]:
        """The choices as `key=value`."""
        return [choice.override for choice in self.choices]

    def table(self) -> Table:
        """What was found, assumed, and not understood."""
        table = Table(title=Text(f"{self.root}: {self.layout}"), title_justify="left")
        table.add_column("decision", overflow="fold", ratio=2)
        table.add_column("because", overflow="fold", ratio=3)
        for choice in self.choices:
            otherwise = f". Otherwise: {choice.alternative}" if choice.alternative else ""
            # Text: in markup [a, b] would be a style
            table.add_row(Text(f"{choice.key}={_short(choice.value)}"), Text(choice.reason + otherwise))
        if self.problems:
            table.add_section()
        for problem in self.problems:
            remedy = f". Remedy: {problem.remedy}" if problem.remedy else ""
            table.add_row("not understood", Text(problem.what + remedy), style="yellow")
        return table


def _short(value: Any) -> str:
    text = flow(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
