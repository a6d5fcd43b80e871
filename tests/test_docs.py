"""The documents name only what exists: files, functions, options, presets, verbs and make targets."""

import pkgutil
import re
import shlex
from pathlib import Path

import pytest
import typer.main

from latentseg.cli import app
from latentseg.errors import UserError
from latentseg.presets import load_config, option_names, preset_names
from latentseg.sweeps.files import read_sweep, sweep_names

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("docs/paper.md", "docs/methods.md", "docs/scaling.md", "CONTRIBUTING.md", "CHANGELOG.md")
NOT_FIRST = ("make", "latentseg", ".venv/bin/latentseg")


def verbs() -> set[str]:
    return set(getattr(typer.main.get_command(app), "commands", {}))


def split_document(name: str) -> tuple[str, list[str]]:
    """Text without code blocks, and the lines of the code blocks."""
    text = (ROOT / name).read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines() if line.strip()]
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE), lines


def in_code_type(name: str) -> list[str]:
    return sorted(set(re.findall(r"`([^`\n]+)`", split_document(name)[0])))


def resolves(dotted: str) -> bool:
    """Whether a name is an object of the package; `latentseg.` may stand before it or not."""
    try:
        pkgutil.resolve_name(f"latentseg.{dotted.removeprefix('latentseg.')}")
    except (ImportError, AttributeError, ValueError):
        return False
    return True


def accepted(source: str, overrides: list[str]) -> bool:
    try:
        load_config(source, overrides)
    except UserError:
        return False
    return True


def sweeps_accept(source: str, overrides: list[str]) -> bool:
    try:
        read_sweep(source, overrides)
    except UserError:
        return False
    return True


def command_exists(line: str) -> bool:
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return all(word in targets for word in words[1:] if "=" not in word)
    if words[1] not in verbs():
        return False
    overrides = [word for word in words[3:] if "=" in word and not word.startswith("--")]
    if words[1] == "sweep" and len(words) > 2:
        return sweeps_accept(words[2], overrides)
    return accepted(words[2], overrides) if words[1] == "train" and len(words) > 2 else True


def exists(token: str) -> bool:
    words = token.split()
    if words[0] in NOT_FIRST and len(words) > 1:
        return command_exists(token)
    if all("=" in word for word in words):
        return accepted("voc", words)
    if "/" in token or (ROOT / token).exists():
        return any(ROOT.glob(token.rstrip("/")))
    if token in sweep_names():
        return True
    return token in option_names() or token in preset_names() or token in verbs() or resolves(token)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_everything_in_code_type_exists(document: str) -> None:
    tokens = in_code_type(document)
    assert tokens
    assert [token for token in tokens if not exists(token)] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_in_code_blocks_are_accepted(document: str) -> None:
    ours = [line for line in split_document(document)[1] if line.split()[0] in NOT_FIRST]
    assert [line for line in ours if not command_exists(line)] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files(document: str) -> None:
    text, _ = split_document(document)
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert [link for link in links if not ((ROOT / document).parent / link).exists()] == []


@pytest.mark.parametrize(
    "wrong",
    [
        "losses.cross_entropi",
        "methods.latent.Latent.no_such",
        "latentseg/no_such.py",
        "method.no_such",
        "method.num_latent=one",
        "method.no_such=1",
        "no_such_preset",
        "make no-such-target",
        "latentseg no-such-verb",
        "latentseg train voc method.name=no_such",
        "latentseg sweep table6_voc",
        "latentseg sweep table3_voc method.no_such=1",
    ],
)
def test_a_name_that_does_not_exist_is_found(wrong: str) -> None:
    assert not exists(wrong)


@pytest.mark.parametrize(("section", "numbers"), [("Equations", range(1, 13)), ("Figures", range(1, 10))])
def test_the_paper_page_has_a_row_for_each_number(section: str, numbers: range) -> None:
    part = split_document("docs/paper.md")[0].split(f"## {section}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([\d, ]+) \|", part, re.MULTILINE)
    assert [int(number) for row in rows for number in row.split(",")] == list(numbers)


def test_the_paper_page_has_every_table() -> None:
    text, _ = split_document("docs/paper.md")
    assert re.findall(r"^\*\*Table (\d)", text, re.MULTILINE) == list("12345")
