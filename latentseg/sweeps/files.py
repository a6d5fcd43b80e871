"""Sweep files: a grid over options.

A sweep is a YAML file (its first line, a comment, says what it is for):

base: camvid                                      # preset or YAML file
table: 3                                          # table of the paper that it stands beside
options: {steps: 1500, cache: features}           # of every cell
rows: {supervised: {method.name: supervised}}     # name -> options
columns: {method.num_latent: [2, 4, 6]}           # one key and its values
grid: {seed: [0, 1, 2]}                           # further keys and their values
splits: [val, test]                               # scored at the end
"""

import itertools
import json
from importlib import resources
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from latentseg import presets
from latentseg.errors import UserError
from latentseg.presets import load_config, option_names
from latentseg.sweeps.cells import Cell, Sweep, folder_name

KEYS = ("base", "table", "options", "rows", "columns", "grid", "splits")
SPLITS = ("val", "test", "holdout", "train")


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
    for override in overrides:
        _override(tree, override)
    for key in ("columns", "grid"):
        tree[key] = {name: values if isinstance(values, list) else [values] for name, values in tree[key].items()}
    _check_tree(tree, str(source))
    return _build(tree, text, home, str(source), tuple(overrides))


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
    path = Path(source)
    if not path.is_file():
        raise UserError(f"{source} is neither a YAML file nor a sweep that comes along: {', '.join(sweep_names())}")
    try:
        return path.read_text(encoding="utf-8"), path.parent
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{source} cannot be read: {error}") from error


def _parse(text: str, source: str) -> dict[str, Any]:
    try:
        tree = OmegaConf.to_container(OmegaConf.create(text), resolve=True)
    except (OmegaConfBaseException, YAMLError) as error:
        raise UserError(f"{source} is not valid YAML: {error}") from error
    if not isinstance(tree, dict) or not tree.get("base"):
        raise UserError(f"{source}: a sweep needs `base: PRESET_OR_YAML` and may have {', '.join(KEYS[1:])}")
    return {str(key): value for key, value in tree.items()}


def _parse_value(text: str) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))["value"]  # type: ignore[call-overload,index]
    except (OmegaConfBaseException, YAMLError) as error:
        raise UserError(f"the value {text!r} cannot be read: {error}".splitlines()[0]) from error


def _check_tree(tree: dict[str, Any], source: str) -> None:
    unknown = sorted(tree.keys() - set(KEYS))
    if unknown:
        raise UserError(f"{source}: unknown key {unknown[0]}; a sweep has {', '.join(KEYS)}")
    rows = tree["rows"]
    if not isinstance(rows, dict) or not rows or not all(isinstance(row, dict | None) for row in rows.values()):
        raise UserError(f"{source}: rows must be `name: {{option: value}}`, not {rows!r}")
    for name in ("options", "columns", "grid"):
        if not isinstance(tree[name], dict):
            raise UserError(f"{source}: {name} must be `option: value`, not {tree[name]!r}")
    if len(tree["columns"]) > 1:
        raise UserError(f"{source}: columns takes one key, found {', '.join(tree['columns'])}; the others go to grid")
    empty = [key for name in ("columns", "grid") for key, values in tree[name].items() if values in ([], None)]
    if empty:
        raise UserError(f"{source}: {empty[0]} has no values")
    splits = tree["splits"]
    if not isinstance(splits, list) or not splits or not set(splits) <= set(SPLITS):
        raise UserError(f"{source}: splits must be a list out of {', '.join(SPLITS)}, not {splits!r}")


def _override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    key, value = key.strip(), _parse_value(text)
    if not equals or not key:
        raise UserError(
            f"override {override!r} is not of the form key=value, such as data.root=CamVid or grid.seed=[0]"
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


def _build(tree: dict[str, Any], text: str, home: Path, source: str, overrides: tuple[str, ...]) -> Sweep:
    name = Path(source).stem
    first = text.splitlines()[0]
    base = str(tree["base"])
    base = str(home / base) if (home / base).is_file() else base
    rows = {str(row): options or {} for row, options in tree["rows"].items()}
    column_key, columns = next(iter(tree["columns"].items()), (None, [None]))
    cells = []
    for (row, options), column, *values in itertools.product(rows.items(), columns, *tree["grid"].values()):
        grid = dict(zip(tree["grid"], values, strict=True))
        cells.append(
            _cell(base, row, column, grid, tree["options"] | options | ({column_key: column} if column_key else {}))
        )
    _all_differ(cells, name)
    return Sweep(
        name=name,
        summary=first.removeprefix("#").strip() if first.startswith("#") else "",
        base=base,
        table=tree.get("table"),
        splits=tuple(tree["splits"]),
        options=tree["options"],
        rows=rows,
        column_key=column_key,
        columns=tuple(columns) if column_key else (),
        grid=tree["grid"],
        cells=tuple(cells),
        source=source,
        overrides=overrides,
    )


def _cell(base: str, row: str, column: Any, grid: dict[str, Any], values: dict[str, Any]) -> Cell:
    values = values | grid
    sections = {option.rpartition(".")[0] for option in option_names()}
    for key in values:
        if key in sections:
            raise UserError(f"{key} is a section; write its options with a dot, such as {key}.NAME: value")
    options = tuple(option_text(key, value) for key, value in values.items())
    try:
        config = load_config(base, options)
    except UserError as error:
        raise UserError(f"row {row!r}: {error}") from error
    return Cell(row, column, grid, options, config, folder_name(config))


def _all_differ(cells: list[Cell], name: str) -> None:
    seen: dict[str, Cell] = {}
    for cell in cells:
        twin = seen.setdefault(cell.folder, cell)
        if twin is not cell:
            here, there = (f"{one.row!r} ({' '.join(one.options)})" for one in (twin, cell))
            raise UserError(f"{name}: two cells are the same run: {here} and {there}")
