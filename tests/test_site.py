"""The reference pages of the site say what the program says, and its commands are ones that it takes."""

import json
import re
import shlex
from pathlib import Path

import pytest
import typer.main
from blocks import DOCS, PAGES, blocks, commands, prepare, run_page, tiny
from generated import options_page, presets_page, verbs_page

from latentseg.cli import app
from latentseg.presets import option_names, preset_names
from latentseg.sweeps.files import sweep_names

ROOT = Path(__file__).parents[1]
EVERY_PAGE = sorted(str(path.relative_to(ROOT)) for path in (*DOCS.glob("*.md"), ROOT / "README.md"))


def parse(words: list[str]) -> None:
    """Parse a command line without running it; typer raises what it would tell a user."""
    command, name = typer.main.get_command(app), "latentseg"
    while hasattr(command, "commands") and words and words[0] in command.commands:
        name, command, words = words[0], command.commands[words[0]], words[1:]
    if hasattr(command, "commands") and not words[0].startswith("-"):
        raise ValueError(f"no such verb: {words[0]}")
    command.make_context(name, words)


def lines_of(page: str) -> list[str]:
    texts = [text for language, text in blocks(ROOT / page) if not language]
    lines = [line for text in texts for line in commands(text)]
    return [line.split(" | ")[0] for line in lines if line.startswith("latentseg ")]


@pytest.mark.parametrize("page", [page for page in EVERY_PAGE if lines_of(page)])
def test_every_command_of_a_page_can_be_parsed(page: str) -> None:
    for line in lines_of(page):
        parse([word for word in shlex.split(line, comments=True)[1:] if word != "..."])


@pytest.mark.parametrize("line", ["train photos --tine 20m", "predict runs/photos", "no-such-verb", "evaluate"])
def test_a_wrong_command_is_found(line: str) -> None:
    with pytest.raises(Exception, match=r"(?i)no such|missing"):
        parse(shlex.split(line))


def test_the_reference_has_every_verb_with_every_option() -> None:
    page = verbs_page()
    found = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name, command in found.items():
        for verb, inner in getattr(command, "commands", {"": command}).items():
            part = page.split(f"## {f'latentseg {name} {verb}'.strip()}\n")[1].split("\n## ")[0]
            wanted = [option for parameter in inner.params for option in parameter.opts if option.startswith("--")]
            assert [option for option in wanted if f"`{option}" not in part and f" {option}" not in part] == []


def test_the_reference_has_every_option_of_a_run_once() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \|", options_page(), re.MULTILINE)
    sections = {name.rpartition(".")[0] for name in option_names()}
    assert sorted(rows) == sorted(set(option_names()) - sections)


def test_a_description_of_two_lines_is_one_cell() -> None:
    row = next(line for line in options_page().splitlines() if line.startswith("| `data.balance`"))
    assert "up to sqrt(balance / share) times" in row
    assert row.count(" | ") == 2


def test_the_reference_has_every_preset_and_sweep() -> None:
    page = presets_page()
    assert [name for name in (*preset_names(), *sweep_names()) if f"| `{name}` |" not in page] == []


def test_commands_are_joined_made_small_and_left_out() -> None:
    text = "# a word\nlatentseg train photos \\\n    --time 20m --run runs/a\n\nmake test\n"
    first, second = commands(text)
    words = tiny(first)
    assert words is not None
    assert words[:4] == ["train", "photos", "--run", "runs/a"]
    assert "steps=2" in words
    assert tiny(second) is None
    assert tiny("latentseg train camvid data.root=CamVid") is None


def test_every_page_that_is_run_exists_and_has_commands() -> None:
    assert [name for name in PAGES if not list(blocks(DOCS / f"{name}.md"))] == []


def test_every_page_is_in_the_menu() -> None:
    menu = re.findall(r"^[\w/*]+$", (DOCS / "index.md").read_text(encoding="utf-8"), re.MULTILINE)
    pages = {str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.rglob("*.md")} - {"index"}
    listed = {page for page in pages for entry in menu if Path(page).match(entry)}
    assert sorted(pages - listed) == []


def test_every_figure_of_the_script_is_committed_and_shown() -> None:
    drawn = re.findall(r'"(\w+)": \1\b', (DOCS / "figures/draw.py").read_text(encoding="utf-8").split("FIGURES =")[1])
    shown = "".join((DOCS / name).read_text(encoding="utf-8") for name in ("method.md", "latent_classes.md"))
    assert drawn
    assert [name for name in drawn if f"(figures/{name}.svg)" not in shown] == []
    assert [name for name in drawn if not (DOCS / f"figures/{name}.svg").exists()] == []


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_a_figure_has_a_caption(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    figures = re.findall(r"^!\[[^\]]+\]\([^)]+\)\n\n(.)", text, re.MULTILINE)
    own = page in {"index.md", "method.md", "quickstart.md", "latent_classes.md"}
    assert [first for first in figures if own and first != "*"] == []


@pytest.mark.parametrize("path", sorted((DOCS / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert [
        cell for cell in cells if cell["cell_type"] == "code" and (cell["outputs"] or cell["execution_count"])
    ] == []


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    prepare(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("page", "number"), [("quickstart", 5), ("your_photos", 3), ("labelling", 4), ("formats", 1)])
def test_the_commands_of_a_page_run(page: str, number: int, prepared: Path) -> None:
    assert len(run_page(page, prepared)) == number


def test_a_command_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wrong.md").write_text("```\nlatentseg evaluate runs/no_such\n```\n")
    monkeypatch.setattr("blocks.DOCS", tmp_path)
    with pytest.raises(RuntimeError, match="evaluate runs/no_such: runs/no_such is not a run folder"):
        run_page("wrong", tmp_path)
