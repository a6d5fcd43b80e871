"""classes.txt as people write it: ids are never shifted unseen."""

from collections.abc import Callable
from pathlib import Path

import pytest
from checking import notes_of

from latentseg.data.class_file import listed_classes
from latentseg.errors import DataError

Read = Callable[[str], tuple[tuple[str, ...], list[str]]]
NAMES = ("ground", "disc", "bar")


@pytest.fixture
def listed(tmp_path: Path) -> Read:
    def read(text: str) -> tuple[tuple[str, ...], list[str]]:
        (tmp_path / "classes.txt").write_bytes(text.encode())
        return listed_classes(tmp_path / "classes.txt")

    return read


@pytest.mark.parametrize(
    "text",
    [
        "ground\ndisc\nbar",
        "ground \r\ndisc\t\r\nbar\r\n\r\n\n",
        "ground\rdisc\rbar\r",
        "ground\u200b\n\u00a0disc\nbar\n",
    ],
)
def test_names_are_bare(listed: Read, text: str) -> None:
    assert listed(text) == (NAMES, [])


def test_a_blank_line_between_names_is_noted(listed: Read) -> None:
    names, (note,) = listed("ground\n\ndisc\nbar\n\n")
    assert names == NAMES
    assert note.endswith("has a blank line before disc, which counts for nothing: disc is id 1")
    assert listed("\n\nground\ndisc\nbar")[1][0].endswith("ground is id 0")


@pytest.mark.parametrize("line", ["# classes", "// classes"])
def test_comments_are_refused(listed: Read, line: str) -> None:
    with pytest.raises(DataError, match=r"a comment among the names of classes \(\S+ classes\); remove it"):
        listed(f"{line}\nground\ndisc\n")


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("1 ground\n2 disc\n3 bar\n", "'data.class_map={1: 0, 2: 1, 3: 2}'"),
        ("2: ground\n1: disc\n0: bar\n", "'data.class_map={2: 0, 1: 1, 0: 2}'"),
        ("128 64 128 ground\n1 2 3 disc\n4 5 6 bar\n", "name the file by data.color_map"),
        ("1 euro\n1 cent\n2 euro\n", "write the names alone, in the order of their ids"),
    ],
)
def test_numbers_that_are_no_ids_are_noted(listed: Read, text: str, remedy: str) -> None:
    names, (note,) = listed(text)
    assert list(names) == text.splitlines()
    assert f"begin with numbers, but {names[0]} is id 0" in note
    assert remedy in note


@pytest.mark.parametrize("mark", [",", ", ", ":", "\t", " = "])
def test_numbers_at_the_end_are_noted(listed: Read, mark: str) -> None:
    names, (note,) = listed(f"bar{mark}2\nground{mark}0\ndisc{mark}1\n")
    assert f"end with numbers, but {names[0]} is id 0" in note
    assert "'data.class_map={2: 0, 0: 1, 1: 2}'" in note
    assert listed(f"ground{mark}0\ndisc{mark}1\n")[1] == []


@pytest.mark.parametrize("head", ["name", "Class", "id,name", "label;color"])
def test_the_head_of_a_table_is_noted(listed: Read, head: str) -> None:
    names, (note,) = listed(f"{head}\n0,ground\n1,disc\n")
    assert names[0] == head
    assert note.endswith(f"begins with {head}, which is the class of id 0: if it is the head of a table, remove it")


@pytest.mark.parametrize("text", ['["ground", "disc"]', '[\n"ground",\n"disc"\n]\n', '{"ground": 0, "disc": 1}'])
def test_json_is_refused(listed: Read, text: str) -> None:
    with pytest.raises(DataError, match="names of classes as JSON; write them bare, one a line"):
        listed(text)
    assert listed("[red]ground\n{disc}\n")[0] == ("[red]ground", "{disc}")


def test_what_is_there_and_no_file_is_refused(listed: Read, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"classes\.txt: is no file of names; write the names of the classes into it"):
        listed_classes(tmp_path / "classes.txt")
    assert listed_classes(tmp_path / "none.txt") == ((), [])


@pytest.mark.parametrize("other", ["Disc", "\uff44isc", "DISC"])
def test_names_that_look_the_same_are_noted(other: str, folder_set: Callable[..., Path]) -> None:
    root = folder_set()
    (root / "classes.txt").write_text(f"ground\ndisc\n{other}\n", encoding="utf-8")
    assert f"the classes disc and {other} differ in capitals or Unicode form alone" in notes_of(root)


@pytest.mark.parametrize("text", ["0 ground\n1 disc\n2 bar\n", "1 euro\nshield\n", "7\n8\n", "2nd\n3rd\n"])
def test_numbers_that_are_ids_or_names_are_not(listed: Read, text: str) -> None:
    assert listed(text) == (tuple(text.splitlines()), [])


def test_the_check_says_it(folder_set: Callable[..., Path]) -> None:
    root = folder_set()
    (root / "classes.txt").write_text("1 a\n2 b\n3 c\n")
    assert "'data.class_map={1: 0, 2: 1, 3: 2}'" in notes_of(root)[0]
