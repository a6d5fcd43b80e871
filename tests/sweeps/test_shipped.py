"""The sweeps that come with the package."""

import pytest

from latentseg.config import Config
from latentseg.methods.table import METHODS
from latentseg.presets import load_config
from latentseg.sweeps.files import read_sweep, sweep_names, sweep_summaries


def has_discriminator(config: Config) -> bool:
    return METHODS[config.method.name].has_discriminator(config.method)


PAPER = {"table1_voc": 40, "table2_cityscapes": 40, "table3_voc": 15, "table4_voc": 30, "table5_voc": 25}
LAPTOP = {"table1_animals": 45, "table2_camvid": 45}
LAPTOP |= {f"table{t}_{data}": n for t, n in ((3, 12), (4, 6), (5, 18)) for data in ("animals", "camvid")}


def test_every_shipped_sweep_is_known() -> None:
    assert set(sweep_names()) == PAPER.keys() | LAPTOP.keys() | {"match_camvid", "match_animals"}
    assert all(sweep_summaries().values())


@pytest.mark.parametrize("name", ["match_camvid", "match_animals"])
def test_the_sweeps_of_all_methods_differ_in_the_method_alone(name: str) -> None:
    sweep = read_sweep(name)
    rows = {cell.row: cell.config for cell in sweep.cells if cell.grid["seed"] == 3}
    assert {config.method.name for config in rows.values()} == {
        *("supervised", "latent", "advsemiseg", "mean_teacher", "fixmatch", "unimatch", "cps", "latent_match")
    }
    plain = rows["latent_match"]
    for row, config in rows.items():
        same = plain.model_dump(exclude={"method", "steps", "data", "augment"})
        assert config.model_dump(exclude={"method", "steps", "data", "augment"}) == same
        assert (config.steps == plain.steps) == (not row.endswith(", equal time") and row != "all labels")
        assert (config.data == plain.data and config.augment == plain.augment) == (row != "all labels")
    assert rows["fixmatch"].method.lambda_match == rows["mean_teacher"].method.lambda_match
    preset = load_config(f"{name.removeprefix('match_')}_match").method
    options = ("threshold", "lambda_match", "pool_power", "neighbour_power", "balance", "consistency_start", "grid")
    for option in options:
        assert getattr(plain.method, option) == getattr(preset, option)
    assert sweep.grid == {"seed": [0, 1, 2, 3, 4]}


@pytest.mark.parametrize(("name", "cells"), [*PAPER.items(), *LAPTOP.items()])
def test_shipped_sweeps_resolve_without_data(name: str, cells: int) -> None:
    sweep = read_sweep(name)
    assert len(sweep.cells) == cells
    assert sweep.summary.startswith(f"Table {sweep.table}")
    assert name.startswith(f"table{sweep.table}_")
    paper = name in PAPER
    seeds = 1 if sweep.table == 4 and not paper else 5 if paper else 3
    assert sweep.grid == {"seed": list(range(seeds))}
    if sweep.table in (1, 2):
        assert sweep.column_key == "data.labeled"
        assert [row for row in sweep.rows if row != "supervised"] == ["AdvSemiSeg", "proposed"]
    adversarial = {cell.row for cell in sweep.cells if has_discriminator(cell.config)}
    assert adversarial == set(sweep.rows) - {"supervised", "all labels", "+ latent classes"}
    assert all(cell.config.method.lambda_lbl_adv == 0.01 for cell in sweep.cells if cell.row in adversarial)
    length = {"voc": 20000, "cityscapes": 40000}.get(name.partition("_")[2], sweep.options.get("steps"))
    assert {cell.config.steps for cell in sweep.cells} == {length}


def test_shipped_sweeps_share_their_common_cells() -> None:
    for data, first in (("animals", 1), ("camvid", 2), ("voc", 1)):
        proposed = {
            cell.folder
            for table, row, column in ((first, "proposed", 0), (3, "proposed", None), (5, "learned (20)", None))
            for sweep in [read_sweep(f"table{table}_{data}", [f"rows=[{row}]", "grid.seed=0"])]
            for cell in sweep.cells
            if column is None or cell.column == sweep.columns[column]
        }
        assert len(proposed) == 1
        assert proposed <= {
            cell.folder for cell in read_sweep(f"table4_{data}", ["grid.seed=0"]).cells if cell.column == 20
        }
