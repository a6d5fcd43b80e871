"""What a sweep file says, and the description that the report reads."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentseg.errors import UserError
from latentseg.presets import load_config
from latentseg.sweeps import files
from latentseg.sweeps.cells import Sweep, folder_name
from latentseg.sweeps.files import option_text, read_sweep, write_sweep

SweepOf = Callable[..., Sweep]


def test_cells_are_the_product_of_rows_columns_and_grid(sweep_of: SweepOf) -> None:
    text = "# Why\nbase: scenes\nrows: {a: {steps: 7}, b: }\ncolumns: {method.num_latent: [2, 4]}\n"
    sweep = sweep_of(text + "grid: {seed: [0, 1], data.labeled: [1/8, 12]}\noptions: {steps: 5}\n")
    assert (sweep.name, sweep.summary, sweep.table, sweep.splits) == ("my", "Why", None, ("val",))
    assert len(sweep.cells) == 16
    last = sweep.cells[-1]
    assert (last.row, last.column, last.grid) == ("b", 4, {"seed": 1, "data.labeled": 12})
    assert last.options == ("steps=5", "method.num_latent=4", "seed=1", "data.labeled=12")
    assert (last.config.steps, last.config.method.num_latent, last.config.data.labeled) == (5, 4, 12)
    assert {cell.config.steps for cell in sweep.cells if cell.row == "a"} == {7}
    assert len({cell.folder for cell in sweep.cells}) == 16


def test_without_rows_there_is_one(sweep_of: SweepOf) -> None:
    assert [cell.row for cell in sweep_of("base: scenes\n").cells] == ["proposed"]


def test_a_base_beside_the_file_is_found(tmp_path: Path, sweep_of: SweepOf) -> None:
    (tmp_path / "mine.yaml").write_text("steps: 3\ndata: {kind: scenes}\n")
    assert sweep_of("base: mine.yaml\n").cells[0].config.steps == 3


@pytest.mark.parametrize("value", ["1/8", "all", "+ x", "1e-3", "3", "true", "null", "a: b", 3, 0.5, None, [1, "2"]])
def test_an_option_is_read_as_it_was_written(value: Any) -> None:
    assert files._parse_value(option_text("key", value).partition("=")[2]) == value


def test_options_as_a_person_writes_them() -> None:
    assert option_text("data.labeled", "1/30") == "data.labeled=1/30"
    assert option_text("augment.crop", [32, 32]) == "augment.crop=[32, 32]"


def test_overrides_apply_to_all_cells_but_a_rows_own_option_stays(sweep_of: SweepOf) -> None:
    text = "base: scenes\noptions: {steps: 5}\nrows: {few: {}, all labels: {data.labeled: all}}\n"
    sweep = sweep_of(text, "steps=9", "data.labeled=1/30", "data.root=/a b")
    assert [cell.config.data.labeled for cell in sweep.cells] == ["1/30", "all"]
    assert {(cell.config.steps, cell.config.data.root) for cell in sweep.cells} == {(9, "/a b")}


def test_overrides_pick_rows_and_replace_lists(tiny: SweepOf) -> None:
    sweep = tiny("rows=[+ latent classes]", "grid.seed=[3,4,5]", "columns.method.num_latent=[2,3]", "splits=val")
    assert {cell.row for cell in sweep.cells} == {"+ latent classes"}
    assert [cell.grid["seed"] for cell in sweep.cells] == [3, 4, 5, 3, 4, 5]
    assert (sweep.column_key, sweep.columns, sweep.splits) == ("method.num_latent", (2, 3), ("val",))
    assert len(tiny("grid.seed=7", "rows=supervised").cells) == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rows=[superwised]", "no row 'superwised'; there are 'supervised', '. latent classes'"),
        ("seed=3", r"the sweep varies seed; choose its values by grid.seed=\[...\]"),
        ("steps", "not of the form key=value"),
        ("stepz=3", "row 'supervised': unknown option stepz; did you mean steps"),
        ("grid.sed=[3]", "unknown option sed; did you mean seed"),
        ("grid.seed=[]", "seed has no values"),
        ("splits=[vall]", "splits must be a list out of val, test"),
        ("grid.seed=[0,0]", "two cells are the same run: 'supervised' .* and 'supervised'"),
        ("data={kind: scenes}", "data is a section"),
        ("steps=[", "cannot be read"),
    ],
)
def test_overrides_that_make_no_sense_are_refused(tiny: SweepOf, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny(override)


def test_an_override_without_effect_is_refused(sweep_of: SweepOf) -> None:
    with pytest.raises(UserError, match=r"every row of the sweep sets method.name itself"):
        sweep_of("base: scenes\nrows: {a: {method.name: supervised}}\n", "method.name=latent")
    with pytest.raises(UserError, match=r"the columns of this sweep are method.num_latent"):
        sweep_of("base: scenes\ncolumns: {method.num_latent: [2]}\n", "columns.seed=[1]")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows: {}", "a sweep needs `base"),
        ("[1]", "a sweep needs `base"),
        ("base: scenes\nrow: {}", "unknown key row; a sweep has base"),
        ("base: scenes\nrows: [a]", "rows must be"),
        ("base: scenes\nrows: {a: 3}", "rows must be"),
        ("base: scenes\noptions: 3", "options must be"),
        ("base: scenes\ncolumns: {seed: [1], steps: [2]}", "columns takes one key, found seed, steps"),
        ("base: scenez", "did you mean the preset scenes"),
        ("base: {", "cannot be read as YAML"),
        ("base: scenes\nrows: {a: {}, b: {}}", "two cells are the same run"),
    ],
)
def test_files_that_are_not_understood(sweep_of: SweepOf, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sweep_of(text)


def test_an_unknown_sweep_names_the_shipped_ones() -> None:
    with pytest.raises(UserError, match=r"neither a YAML file nor a sweep that comes along: .*table3_voc"):
        read_sweep("table9_voc")


def test_the_description_tells_the_report_everything(tiny: SweepOf, tmp_path: Path) -> None:
    sweep = tiny()
    path = write_sweep(sweep, tmp_path / "root")
    assert path == tmp_path / "root" / "sweeps" / "tiny.json"
    content = json.loads(path.read_text())
    head = {"name": "tiny", "summary": "Two methods on tiny scenes", "table": 3, "base": "scenes", "columns": []}
    head |= {"column_key": None, "rows": ["supervised", "+ latent classes"], "grid": {"seed": [0, 1]}}
    assert {key: content[key] for key in head} == head
    assert content["splits"] == ["val", "test"]
    assert content["options"]["steps"] == 2
    assert len(content["cells"]) == 4
    cell = content["cells"][3]
    assert cell.keys() == {"row", "column", "grid", "options", "folder"}
    assert (cell["row"], cell["column"], cell["grid"], cell["folder"]) == (
        "+ latent classes",
        None,
        {"seed": 1},
        sweep.cells[3].folder,
    )
    assert folder_name(load_config(content["base"], cell["options"])) == cell["folder"]


def listed(path: Path) -> list[tuple[str, int]]:
    return [(cell["row"], cell["grid"]["seed"]) for cell in json.loads(path.read_text())["cells"]]


def test_pieces_of_a_sweep_add_up(tiny: SweepOf, tmp_path: Path) -> None:
    """One row, one seed, then another of each, then one again, with other options that change no result."""
    write_sweep(tiny("rows=[+ latent classes]", "grid.seed=[1]", "splits=[val]"), tmp_path)
    write_sweep(tiny("rows=[supervised]", "grid.seed=[0]", "log_every=2"), tmp_path)
    path = write_sweep(tiny("rows=[supervised]", "grid.seed=[0]", "threads=2", "splits=[val]"), tmp_path)
    assert listed(path) == [("+ latent classes", 1), ("supervised", 0)]
    tree = json.loads(path.read_text())
    assert tree["rows"] == ["supervised", "+ latent classes"]  # as in the file
    assert (tree["grid"], tree["splits"]) == ({"seed": [0, 1]}, ["val", "test"])
    assert {cell["folder"] for cell in tree["cells"]} < {cell.folder for cell in tiny().cells}
    write_sweep(tiny(), tmp_path)
    assert sorted(listed(path)) == sorted((row, seed) for row in ("supervised", "+ latent classes") for seed in (0, 1))


def test_columns_of_pieces_add_up(sweep_of: SweepOf, tmp_path: Path) -> None:
    text = "base: scenes\ncolumns: {method.num_latent: [2, 4, 10]}\ngrid: {seed: [0]}\n"
    write_sweep(sweep_of(text, "columns.method.num_latent=[10]"), tmp_path)
    write_sweep(sweep_of(text, "columns.method.num_latent=[4,2]", "grid.optim.lr=[0.5]"), tmp_path)
    tree = json.loads((tmp_path / "sweeps" / "my.json").read_text())
    assert (tree["columns"], tree["grid"]) == ([2, 4, 10], {"seed": [0], "optim.lr": [0.5]})
    assert [(cell["column"], cell["grid"]) for cell in tree["cells"]] == [
        (10, {"seed": 0}),
        (4, {"seed": 0, "optim.lr": 0.5}),
        (2, {"seed": 0, "optim.lr": 0.5}),
    ]


@pytest.mark.parametrize("change", ["steps=3", "base=camvid", "columns.method.num_latent=[7]"])
def test_cells_of_other_options_do_not_count_as_pieces(
    tiny: SweepOf, tmp_path: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sweep(tiny("grid.seed=0"), tmp_path)
    path = write_sweep(tiny("grid.seed=1", change), tmp_path)
    assert [seed for _, seed in listed(path)] == [1, 1]
    assert "note: tiny.json no longer lists 2 cells that were made with other options" in capsys.readouterr().err


def test_a_row_that_has_changed_in_the_file_does_not_count(sweep_of: SweepOf, tmp_path: Path) -> None:
    text = "base: scenes\nrows: {a: {steps: 5}, b: {steps: 6}, c: {steps: 7}}\ngrid: {seed: [0, 1]}\n"
    write_sweep(sweep_of(text, "grid.seed=0"), tmp_path)
    path = write_sweep(sweep_of(text.replace("6", "8").replace("c:", "d:"), "grid.seed=1", "rows=a"), tmp_path)
    assert listed(path) == [("a", 0), ("a", 1)]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"cells": [3]}', '{"cells": [], "column_key": null}'])
def test_a_damaged_description_is_written_anew(tiny: SweepOf, tmp_path: Path, damage: str) -> None:
    path = write_sweep(tiny(), tmp_path)
    content = path.read_text()
    path.write_text(damage)
    write_sweep(tiny(), tmp_path)
    assert path.read_text() == content


# options that some methods read


MIXED = """base: scenes
options: {method.num_latent: 7, steps: 5}
rows: {supervised: {method.name: supervised}, latent: {method.name: latent}, cps: {method.name: cps}}
"""


def test_an_option_is_dropped_where_the_method_does_not_read_it(sweep_of: SweepOf) -> None:
    cells = sweep_of(MIXED, "method.lambda_match=2", "data.root=/a/set").cells
    root = ("steps=5", "data.root=/a/set")
    assert {cell.row: set(cell.options) for cell in cells} == {
        "supervised": {"method.name=supervised", *root},
        "latent": {"method.name=latent", "method.num_latent=7", *root},
        "cps": {"method.name=cps", "method.lambda_match=2", *root},
    }
    assert {cell.folder: cell.config for cell in cells} == {
        folder_name(load_config("scenes", cell.options)): load_config("scenes", cell.options) for cell in cells
    }


def test_rows_that_are_not_picked_count(sweep_of: SweepOf) -> None:
    (cell,) = sweep_of(MIXED, "rows=[supervised]", "method.lambda_match=2").cells
    assert cell.options == ("steps=5", "method.name=supervised")


def test_the_same_run_may_stand_in_several_columns(sweep_of: SweepOf, tmp_path: Path) -> None:
    sweep = sweep_of(MIXED.replace("method.num_latent: 7, ", "") + "columns: {method.num_latent: [2, 4]}\n")
    folders = {row: [cell.folder for cell in sweep.cells if cell.row == row] for row in sweep.rows}
    assert {row: len(set(names)) for row, names in folders.items()} == {"supervised": 1, "latent": 2, "cps": 1}
    path = write_sweep(sweep, tmp_path)
    write_sweep(sweep, tmp_path)
    assert len(json.loads(path.read_text())["cells"]) == 6


@pytest.mark.parametrize(
    ("row", "override", "message"),
    [
        (
            "",
            "method.trust=0.5",
            "my: method.trust is read by advsemiseg, not by cps, latent, supervised: leave it out",
        ),
        ("", "grid.method.trust=[0.5]", "my: method.trust is read by advsemiseg"),
        (
            ", method.num_latent: 3",
            "steps=3",
            "row 'cps': method.num_latent is read by latent, not by cps",
        ),
    ],
)
def test_an_option_that_no_row_reads_is_refused(sweep_of: SweepOf, row: str, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sweep_of(MIXED.replace("{method.name: cps", "{method.name: cps" + row), override)
