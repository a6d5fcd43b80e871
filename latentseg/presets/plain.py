"""YAML as plain values: what files and overrides hold, and nothing that could run, grow or look elsewhere.

A file from elsewhere is only text: `${...}` is no reference (it would read the environment), `*name` is no copy (ten
lines of them make a billion values), and there are no types beyond those of JSON.
"""

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode

from latentseg.errors import UserError

BYTES = 200_000
"""Of a YAML file. Python reads about as many in a second; a configuration with 255 classes has a tenth of them."""
DEPTH = 20
"""Values within values."""
DIGITS = 100
"""Of a whole number. Python refuses to print one of thousands, so no message could name it."""
FLOAT = re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*([eE][-+]?\d+)?|\.[\d_]+([eE][-+]?\d+)?|\.(inf|Inf|INF))$|\.(nan|NaN|NAN)$")
"""As YAML 1.2: 1e-5 is a number. Whole numbers, which it would take too, come first."""
INT = re.compile(r"[-+]?(0b[01_]+|0[0-7_]+|0|[1-9][\d_]*|0x[\da-fA-F_]+)$")
"""Not 1:30, which YAML 1.1 takes for 90 seconds."""
KINDS = ("null", "bool", "int", "float", "str", "seq", "map", "merge")
"""The types of JSON, and merge, the `<<` of a mapping. Dates are none of them: 2020-01-01 is text."""
NUMBERS = {"tag:yaml.org,2002:int": INT, "tag:yaml.org,2002:float": FLOAT}


class _Loader(yaml.SafeLoader):
    """Refuses aliases, deep nesting, repeated keys, other types, endless numbers, and text that no file could hold."""

    depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise ComposerError(None, None, "aliases (*name) are not read: write the value itself", event.start_mark)
        self.depth += 1
        if self.depth > DEPTH:
            raise ComposerError(None, None, f"values are nested more than {DEPTH} deep", self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        node: Node | None = super().compose_node(parent, index)
        self.depth -= 1
        if node is not None and node.tag.removeprefix("tag:yaml.org,2002:") not in KINDS:
            raise ConstructorError(None, None, f"values of the type {node.tag} are not read", node.start_mark)
        if isinstance(node, MappingNode):
            self._check_keys(node)
        return node

    def _check_keys(self, node: MappingNode) -> None:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                raise ConstructorError(None, None, "a key must be a word or a number", key.start_mark)
            if key.value in seen:
                raise ConstructorError(None, None, f"the key {key.value[:100]} is there twice", key.start_mark)
            seen.add(key.value)

    def construct_scalar(self, node: Any) -> Any:
        text = super().construct_scalar(node)
        problem = None
        if node.tag.endswith(":int") and len(text) > DIGITS:
            problem = f"a number of {len(text)} digits is not read"
        elif "${" in text:
            problem = "references of the form ${...} are not read: write the value itself"
        elif "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
            problem = "the text holds a character that no file can hold (NUL, or half of a pair of UTF-16)"
        if problem:
            raise ConstructorError(None, None, problem, node.start_mark)
        return text


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads as the same value."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's form
        return True

    def represent_str(self, data: str) -> ScalarNode:
        quotes = None if data.isprintable() else '"'  # in which rare line ends are written as escapes, and survive
        node: ScalarNode = self.represent_scalar("tag:yaml.org,2002:str", data, quotes)
        return node


_Dumper.add_representer(str, _Dumper.represent_str)
for _kind in (_Loader, _Dumper):
    _kind.yaml_implicit_resolvers = {
        letter: [(tag, pattern) for tag, pattern in found if tag.rpartition(":")[2] in KINDS and tag not in NUMBERS]
        for letter, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for _tag, _pattern in NUMBERS.items():
        _kind.add_implicit_resolver(_tag, _pattern, list("-+0123456789."))


def read_yaml(text: str | bytes, source: str) -> Any:
    """The plain values of a YAML text: None, bool, int, float, str, list and dict.

    Args:
        text: Bytes are UTF-8, with or without byte order mark, or UTF-16 with one.
        source: Its name in messages.

    Raises:
        UserError: It is no YAML, or holds what is not read: `${...}`, aliases, dates, 20 levels, a key twice.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        place = f", line {error.problem_mark.line + 1}" if error.problem_mark and isinstance(text, bytes) else ""
        raise UserError(f"{source}{place} cannot be read as YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{source} cannot be read as YAML: {str(error).splitlines()[0]}") from error
    except (ValueError, IndexError, KeyError) as error:  # `!!int ""`, `!!bool x`
        raise UserError(f"{source} cannot be read as YAML: a value is none of its type ({error})") from error


def read_yaml_file(path: Path, source: str) -> Any:
    """The plain values of a YAML file, as `read_yaml`.

    Raises:
        UserError: The file cannot be read, is too large for a configuration, or is no such YAML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(BYTES + 1)
    except OSError as error:
        raise UserError(f"{source} cannot be read: {error.strerror}") from error
    if len(content) > BYTES:
        raise UserError(f"{source} has more than {BYTES:,} bytes: no configuration is that long; name another file")
    return read_yaml(content, source)


def write_yaml(values: Any) -> str:
    """Plain values as YAML, one line each, in their order; `read_yaml` gives the same values."""
    return str(yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000))


def flow(value: Any) -> str:
    """A plain value as YAML on one line, as an override takes it."""
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    return str(text).removesuffix("\n").removesuffix("\n...")


def named_file(name: str) -> Path | None:
    """The file that a text names, `~` being the home folder; None if there is none, or it cannot be a path."""
    try:
        path = Path(name).expanduser()
        return path if path.is_file() else None
    except (OSError, ValueError, RuntimeError):  # too long; nobody's home
        return None
