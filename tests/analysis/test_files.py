"""Cells of a CSV file that a spreadsheet would compute."""

import pytest

from latentseg.analysis.files import harmless


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@sum", "\t=1", "\r=1", "\n=1", '=HYPERLINK("x")'])
def test_what_begins_like_a_formula_is_quoted(name: str) -> None:
    assert harmless(name) == f"'{name}"


@pytest.mark.parametrize("name", ["road", "l3", "traffic light", "a=b", "", "é-1"])
def test_names_stay_what_they_are(name: str) -> None:
    assert harmless(name) == name
