"""The documents name only what exists: files, headings, functions, options, presets, verbs and make targets."""

import pkgutil
import re
import shlex
from pathlib import Path

import pytest
import typer.main

from latentseg import __version__
from latentseg.cli import app
from latentseg.errors import UserError
from latentseg.methods.table import METHODS
from latentseg.presets import load_config, option_names, preset_names
from latentseg.sweeps.files import read_sweep, sweep_names

ROOT = Path(__file__).parents[1]
DOCUMENTS = (
    "docs/paper.md",
    "docs/methods.md",
    "docs/scaling.md",
    "docs/method.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
)
"""Every name in code type in these is checked."""
PLACES = ("*.md", "docs/**/*.md", "benchmarks/*.md")
PAGES = sorted(str(path.relative_to(ROOT)) for place in PLACES for path in ROOT.glob(place))
LONGEST_LINE = 119
"""In characters, outside of tables."""
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


def broken_links(page: Path, text: str) -> list[str]:
    """Links to files that do not exist, and to headings that their page does not have."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        if "://" in link or (target.exists() and (not heading or heading in anchors(target))):
            continue
        broken.append(link)
    return broken


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


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
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
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
        return accepted("voc", words) or any(accepted("voc", [f"method.name={name}", *words]) for name in METHODS)
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


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page: str) -> None:
    assert broken_links(ROOT / page, split_document(page)[0]) == []


@pytest.mark.parametrize("link", ["no_such.md", "methods.md#no-such-heading", "#no-such-heading"])
def test_a_broken_link_is_found(link: str) -> None:
    good = "[a](results.md) [b](notebook/latent_match.md#the-parts-of-latent_match) [c](#notebook) [d](https://a.org/b)"
    assert broken_links(ROOT / "docs/results.md", f"{good} [e]({link})") == [link]


@pytest.mark.parametrize("page", PAGES)
def test_scripts_and_figures_named_in_a_page_exist(page: str) -> None:
    named = re.findall(r"benchmarks/\w+\.(?:py|yaml|json|png)", (ROOT / page).read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_pages_named_in_the_code_exist() -> None:
    sources = [path for folder in ("latentseg", "benchmarks", "tests") for path in (ROOT / folder).rglob("*.py")]
    named = {name for path in sources for name in re.findall(r"docs/[\w/]+\.md", path.read_text(encoding="utf-8"))}
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_lines_are_short_outside_of_tables(page: str) -> None:
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > LONGEST_LINE and not line.startswith("|")] == []


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


def test_the_version_is_the_same_everywhere() -> None:
    places = {
        "pyproject.toml": r'^version = "(.+)"$',
        "CITATION.cff": r"^version: (.+)$",
        "CHANGELOG.md": r"^## \[(\d.*)\] - \d{4}-\d\d-\d\d$",
    }
    found = {name: re.findall(form, (ROOT / name).read_text(), re.MULTILINE)[:1] for name, form in places.items()}
    assert found == {name: [__version__] for name in places}
