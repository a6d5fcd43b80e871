"""Sweep files: a grid over options, read; and RUN_ROOT/sweeps/NAME.json, written for the report.

A sweep is a YAML file (its first line, a comment, says what it is for):

base: camvid                                      # preset or YAML file
table: 3                                          # table of the paper that it stands beside
options: {steps: 1500, cache: features}           # of every cell
rows: {supervised: {method.name: supervised}}     # name -> options
columns: {method.num_latent: [2, 4, 6]}           # one key and its values
grid: {seed: [0, 1, 2]}                           # further keys and their values
splits: [val, test]                               # scored at the end

An option that only some of the rows' methods read is dropped for the others.
"""

import itertools
import json
from collections.abc import Iterable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from latentseg import presets
from latentseg.console import console
from latentseg.errors import UserError
from latentseg.methods.table import readers
from latentseg.presets import load_config, only_read, option_names
from latentseg.presets.plain import named_file, read_yaml
from latentseg.runs.locks import hold
from latentseg.sweeps.cells import Cell, Sweep, folder_name

KEYS = ("base", "table", "options", "rows", "columns", "grid", "splits")
SPLITS = ("val", "test", "holdout", "train")
Tree = dict[str, Any]


def sweep_names() -> list[str]:
    """Names of the sweeps that come with the package."""
    folder = resources.files(presets) / "sweeps"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def sweep_summaries() -> dict[str, str]:
    """What each shipped sweep is for, from its first line."""
    return {name: sweep_text(name).splitlines()[0].removeprefix("# ") for name in sweep_names()}


def sweep_text(name: str) -> str:
    """The YAML of a shipped sweep."""
    return (resources.files(presets) / "sweeps" / f"{name}.yaml").read_text(encoding="utf-8")


def read_sweep(source: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Sweep:
    """Read a shipped sweep or a YAML file and check every cell.

    Args:
        source: Name of a shipped sweep, or path of a YAML file.
        overrides: `key=value` for every cell; a row's own option wins over it. `rows=[a,b]` picks rows;
            `grid.KEY=[..]`, `columns.KEY=[..]`, `splits=[..]` and `base=..` replace what the file says.

    Raises:
        UserError: The file or an override is not understood, an option does not exist, or two cells are the same run.
    """
    text, home = _read_source(str(source))
    tree = _parse(text, str(source))
    tree = {"options": {}, "rows": {"proposed": {}}, "columns": {}, "grid": {}, "splits": ["val"]} | {
        key: value for key, value in tree.items() if value is not None
    }
    _check_tree(tree, str(source))
    every = {str(row): options or {} for row, options in tree["rows"].items()}
    for override in overrides:
        _override(tree, override)
    for key in ("columns", "grid"):
        tree[key] = {name: values if isinstance(values, list) else [values] for name, values in tree[key].items()}
    _check_tree(tree, str(source))
    return _build(tree, every, text, home, str(source), tuple(overrides))


def write_sweep(sweep: Sweep, run_root: Path, notes: dict[Path, str] | None = None) -> Path:
    """Write RUN_ROOT/sweeps/NAME.json, where the report begins.

    Pieces of a sweep (`rows=[...]`, other seeds) add up: cells that are listed there already stay, if the sweep would
    make the same ones. Others, of other options, are no longer listed; their folders stay.

    Args:
        sweep: From `read_sweep`, with its cells' places (`Sweep.at`).
        run_root: Folder of all run folders.
        notes: Further files and their content, from `check_cells`; written unless they are there.

    Raises:
        UserError: The run root cannot be written.
    """
    from latentseg.runs.checkpoints import write_atomically  # noqa: PLC0415 - slow (PyTorch): a sweep is read first

    path = run_root / "sweeps" / f"{sweep.name}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write the run root {run_root}: {error.strerror}; choose one by --run-root") from error
    with hold(run_root / "locks" / "sweeps.lock", f"the list of cells {path}", wait=True):
        before = path.read_bytes() if path.is_file() else b""
        content = _with_earlier_pieces(sweep, before).to_json().encode()
        if before != content:
            write_atomically(path, content)
        for note, text in (notes or {}).items():
            note.parent.mkdir(exist_ok=True)
            if not note.is_file():
                write_atomically(note, text.encode())
    return path


def _with_earlier_pieces(sweep: Sweep, before: bytes) -> Sweep:
    """The sweep with those cells of its description so far that it would make itself."""
    new, kept = {_place(vars(cell)): cell for cell in sweep.cells}, {}
    try:
        tree = json.loads(before)
        splits, listed = [split for split in tree["splits"] if split in SPLITS], len(tree["cells"])
        for entry in tree["cells"] if tree["column_key"] == sweep.column_key else []:
            cell = new.get(_place(entry)) or _made_again(sweep, entry)
            if cell and entry["folder"] in (cell.folder, cell.earlier):
                kept[_place(entry)] = replace(cell, folder=entry["folder"])
    except (ValueError, KeyError, TypeError, RecursionError):  # none yet, or damaged
        return sweep
    if lost := listed - len(kept):
        console.print(f"note: {sweep.name}.json no longer lists {lost} cells that were made with other options")
    if not kept:
        return sweep
    grid = {key: [] for cell in kept.values() for key in cell.grid} | sweep.grid
    splits += [split for split in sweep.splits if split not in splits]
    return replace(sweep, cells=tuple((kept | new).values()), grid=grid, splits=tuple(splits))


def _place(cell: Tree) -> str:
    return json.dumps([cell["row"], cell["column"], cell["grid"]], sort_keys=True)


def _made_again(sweep: Sweep, entry: Tree) -> Cell | None:
    """The cell that the sweep would make for row, column and grid of a described one; None if it cannot."""
    try:
        return make_cell(sweep, entry["row"], entry["column"], entry["grid"])
    except (UserError, KeyError):
        return None


def option_text(key: str, value: Any) -> str:
    """`key=value` as a person would write it, in quotes where it would be read as something else."""
    plain = f"{key}={value}"
    try:
        if isinstance(value, str) and _parse_value(value) == value:
            return plain
    except UserError:
        pass
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def _read_source(source: str) -> tuple[str, Path]:
    if source in sweep_names():
        return sweep_text(source), Path()
    path = named_file(source)
    if path is None:
        raise UserError(f"{source} is neither a YAML file nor a sweep that comes along: {', '.join(sweep_names())}")
    try:
        return path.read_text(encoding="utf-8"), path.parent
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{source} cannot be read: {error}") from error


def _parse(text: str, source: str) -> Tree:
    tree = read_yaml(text, source)
    if not isinstance(tree, dict) or not tree.get("base"):
        raise UserError(f"{source}: a sweep needs `base: PRESET_OR_YAML` and may have {', '.join(KEYS[1:])}")
    return {str(key): value for key, value in tree.items()}


def _parse_value(text: str) -> Any:
    return read_yaml(text, f"the value {text[:100]!r}")


def _check_tree(tree: Tree, source: str) -> None:
    unknown = sorted(tree.keys() - set(KEYS))
    if unknown:
        raise UserError(f"{source}: unknown key {unknown[0]}; a sweep has {', '.join(KEYS)}")
    rows = tree["rows"]
    if not isinstance(rows, dict) or not rows or not all(isinstance(row, dict | None) for row in rows.values()):
        raise UserError(f"{source}: rows must be `name: {{option: value}}`, not {repr(rows)[:200]}")
    for name in ("options", "columns", "grid"):
        if not isinstance(tree[name], dict):
            raise UserError(f"{source}: {name} must be `option: value`, not {repr(tree[name])[:200]}")
    if len(tree["columns"]) > 1:
        raise UserError(
            f"{source}: columns takes one key, found {', '.join(map(str, tree['columns']))}; the others go to grid"
        )
    empty = [key for name in ("columns", "grid") for key, values in tree[name].items() if values in ([], None)]
    if empty:
        raise UserError(f"{source}: {empty[0]} has no values")
    splits = tree["splits"]
    if not isinstance(splits, list) or not splits or not all(split in SPLITS for split in splits):
        raise UserError(f"{source}: splits must be a list out of {', '.join(SPLITS)}, not {repr(splits)[:200]}")


def _override(tree: Tree, override: str) -> None:
    key, equals, text = override.partition("=")
    key, value = key.strip(), _parse_value(text)
    if not equals or not key:
        raise UserError(
            f"override {override[:100]!r} is not of the form key=value, such as data.root=CamVid or grid.seed=[0]"
        )
    part, _, name = key.partition(".")
    values = value if isinstance(value, list) else [value]
    if key == "rows":
        missing = [row for row in values if row not in tree["rows"]]
        if missing:
            raise UserError(f"{override}: no row {missing[0]!r}; there are {', '.join(map(repr, tree['rows']))}")
        tree["rows"] = {row: tree["rows"][row] for row in values}
    elif key == "splits":
        tree["splits"] = values
    elif key == "base":
        tree["base"] = str(value)
    elif part in ("columns", "grid") and name:
        if part == "columns" and tree["columns"] and name not in tree["columns"]:
            raise UserError(f"{override}: the columns of this sweep are {next(iter(tree['columns']))}")
        tree[part][name] = values
    else:
        varied = [part for part in ("columns", "grid") if key in tree[part]]
        if varied:
            raise UserError(f"{override}: the sweep varies {key}; choose its values by {varied[0]}.{key}=[...]")
        if all(key in (options or {}) for options in tree["rows"].values()):
            raise UserError(f"{override}: every row of the sweep sets {key} itself; pick rows by rows=[...]")
        tree["options"][key] = value


def _build(tree: Tree, rows: dict[str, Tree], text: str, home: Path, source: str, overrides: tuple[str, ...]) -> Sweep:
    first, base = text.splitlines()[0], str(tree["base"])
    column_key, columns = next(iter(tree["columns"].items()), (None, [None]))
    sweep = Sweep(
        name=Path(source).stem,
        summary=first.removeprefix("#").strip() if first.startswith("#") else "",
        base=str(home / base) if (home / base).is_file() else base,
        table=tree.get("table"),
        splits=tuple(tree["splits"]),
        options=tree["options"],
        rows=rows,
        column_key=column_key,
        columns=tuple(columns) if column_key else (),
        grid=tree["grid"],
        cells=(),
        source=source,
        overrides=overrides,
    )
    grids = [dict(zip(tree["grid"], values, strict=True)) for values in itertools.product(*tree["grid"].values())]
    cells = [make_cell(sweep, str(row), *place) for row, *place in itertools.product(tree["rows"], columns, grids)]
    _all_differ(cells, sweep.name)
    _check_read(sweep, cells)
    return replace(sweep, cells=tuple(cells))


def make_cell(sweep: Sweep, row: str, column: Any, grid: Tree) -> Cell:
    """The cell of a row, a column (None without columns) and values of the grid's keys.

    Its options are those of all cells, the row's, the column's and the grid's; the last wins. Those that its method
    does not read are dropped: other rows read them (`_check_read`).

    Raises:
        UserError: An option does not exist, or has no such value.
    """
    values = sweep.options | sweep.rows[row] | ({sweep.column_key: column} if sweep.column_key else {}) | grid
    sections = {option.rpartition(".")[0] for option in option_names()}
    for key in values:
        if key in sections:
            raise UserError(f"{key} is a section; write its options with a dot, such as {key}.NAME: value")
    given = [option_text(key, value) for key, value in values.items()]
    try:
        config = full = load_config(sweep.base, given, keep_unread=True)
        options = only_read(given, full.method.name)
        if len(options) < len(given):
            config = load_config(sweep.base, options)
    except UserError as error:
        raise UserError(f"row {row!r}: {error}") from error
    return Cell(row, column, grid, tuple(options), config, folder_name(config), folder_name(full, whole_root=True))


def _check_read(sweep: Sweep, cells: list[Cell]) -> None:
    """Refuse a row's option that its own methods do not read, and an option of all cells that no row's method reads."""
    methods: dict[str, set[str]] = {}
    for cell in cells:
        methods.setdefault(cell.row, set()).add(cell.config.method.name)
    for row, own in methods.items():
        _refuse_unread(sweep.rows[row], own, f"row {row!r}")
    common = [*sweep.options, *([sweep.column_key] if sweep.column_key else []), *sweep.grid]
    if any(_is_unread(key, set[str]().union(*methods.values())) for key in common):  # by the rows that are picked
        first = cells[0]
        every = {make_cell(sweep, row, first.column, first.grid).config.method.name for row in sweep.rows}
        _refuse_unread(common, every.union(*methods.values()), sweep.name)


def _is_unread(key: str, methods: set[str]) -> bool:
    return bool(readers(key)) and methods.isdisjoint(readers(key))


def _refuse_unread(keys: Iterable[str], methods: set[str], where: str) -> None:
    for key in keys:
        if _is_unread(key, methods):
            mine = ", ".join(sorted(methods))
            raise UserError(f"{where}: {key} is read by {', '.join(readers(key))}, not by {mine}: leave it out")


def _all_differ(cells: list[Cell], name: str) -> None:
    """Refuse cells that are the same with all their options; those that differ in unread ones share a folder."""
    seen: dict[str, Cell] = {}
    for cell in cells:
        twin = seen.setdefault(cell.earlier, cell)
        if twin is not cell:
            here, there = (f"{one.row!r} ({' '.join(one.options)})" for one in (twin, cell))
            raise UserError(f"{name}: two cells are the same run: {here} and {there}")
