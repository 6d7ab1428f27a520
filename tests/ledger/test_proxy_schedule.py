"""The short schedule compared with the paper's, on rows whose ratios are planted."""

import math

import numpy as np
import pandas
import pytest
from made_rows import a_run

from robustkit.cell import Cell
from robustkit.ledger import proxy_schedule, verdicts
from robustkit.plots import ledger as ledger_module
from robustkit.plots import style
from robustkit.profiles import grid, named_cells, profile_cells, twin, twin_cells

DEPTHS, WIDTHS = (2, 4, 6, 8, 10), (16, 64, 256, 1024)
RATIOS = {2: 1.0, 4: 1.01, 6: 0.7, 8: 0.6, 10: 0.5}  # deep nets are moved


def rows(sd=0.03, seeds=3, depths=DEPTHS):
    """He nets that rise with depth, under both schedules: a seed's noise is the same in both, but for a tenth."""
    lines = []
    for depth in depths:
        for width in WIDTHS:
            for seed in range(seeds):
                same = math.exp(sd * np.random.default_rng([depth, width, seed]).standard_normal())
                for fields, ratio in (({}, 1.0), ({"epochs": 5, "lr": 0.01}, RATIOS[depth])):
                    generator = np.random.default_rng([depth, width, seed, len(lines)])
                    lines.append(
                        a_run(generator, width, depth, seed, "he", depth * ratio * same, sd=sd / 10, **fields)
                    )
    return pandas.DataFrame(lines)


def test_ratios_are_paired_by_seed_and_those_beyond_the_seeds_spread_are_marked():
    table = proxy_schedule.pairs(rows())
    assert len(table) == len(DEPTHS) * len(WIDTHS) and set(table["n"]) == {3}
    for line in table.itertuples():
        # The mean of three differences of two logs, each with noise of 0.003: four standard errors.
        assert math.log(line.ratio / RATIOS[line.depth]) == pytest.approx(0, abs=4 * 0.003 * math.sqrt(2 / 3))
        assert line.low < line.ratio < line.high and 0.01 < line.spread < 0.09  # of chi^2 / 8, planted 0.03
        assert line.moved == (line.depth > 4)


def test_seeds_that_scatter_at_one_width_alone_do_not_hide_what_happens_at_the_others():
    noisy = rows(depths=(6,))
    wild = np.exp([-2.0, 0.0, 2.0])
    scatter = [wild[seed] if width == 16 else 1.0 for width, seed in zip(noisy["width"], noisy["seed"], strict=True)]
    table = proxy_schedule.pairs(noisy.assign(stability=noisy["stability"] * scatter)).set_index("width")
    assert table["moved"].tolist() == [False, True, True, True] and table["spread"][16] > 1 > table["spread"][64]


def test_one_schedule_alone_or_no_rows_give_no_pair():
    full = rows().query("lr == 0.001")
    assert proxy_schedule.pairs(full).empty and proxy_schedule.checked(full) == {}
    assert proxy_schedule.pairs(full.iloc[:0]).empty and proxy_schedule.pairs(pandas.DataFrame()).empty


def test_networks_that_differ_in_more_than_the_schedule_are_no_pair():
    both = rows()
    assert proxy_schedule.pairs(both.assign(scaling=["unit" if lr == 0.01 else "raw" for lr in both["lr"]])).empty


def test_a_reading_that_the_short_schedule_changes_is_shown_and_not_counted():
    def e09(found):
        entry = verdicts.ledger(found, only=["E09"]).iloc[0]
        return entry["readings"], entry["readings_notes"]

    readings, notes = e09(rows())
    assert readings == "3 counted: 3 reproduced; 1 not counted"
    assert (
        "changed by the short schedule: He, L=6 by -" in notes and "He, L=10 by -50 %" in notes and "L=4" not in notes
    )
    assert "changed" not in e09(rows(depths=(2, 4)))[1]


def test_the_runs_that_check_the_short_schedule_are_no_reading_of_the_ledger():
    checks = [cell for cell in twin_cells("laptop") if cell.scaling == "unit" and cell.seed == 0]
    generator = np.random.default_rng(0)
    fields = [{name: getattr(cell, name) for name in Cell.__dataclass_fields__} for cell in checks]
    lines = [
        a_run(generator, 64, c.depth, 0, "he", 1.0) | f | {"key": c.key} for c, f in zip(checks, fields, strict=True)
    ]
    one = verdicts.ledger(pandas.concat([rows(), pandas.DataFrame(lines)]), only=["E01"]).iloc[0]
    assert "unit" not in one["readings_detail"]


def test_the_twins_are_of_at_least_twelve_cells_of_different_kinds_with_the_papers_schedule():
    cells, figure = twin_cells("laptop"), {c for name in ("N4a", "N4b", "N5b") for c in grid(name, "laptop")}
    assert len(cells) == len(set(cells)) and not figure & set(cells) and set(cells) < set(profile_cells("laptop"))
    assert {(c.epochs, c.lr) for c in cells} == {(50, 0.001)} and {c.seed for c in cells} == {0, 1, 2}
    kinds = {(c.model, c.head, c.scaling, c.lr_rule, c.init, c.depth) for c in cells}
    assert len(kinds) >= 12 and {k[0] for k in kinds} == {"fcn", "cnn"}
    every = {c for name in ("unit", "standard") for c in named_cells(name, "laptop")}
    every |= {c for name in ("ntk", "inverse_width", "gain") for c in grid(name, "laptop")}
    every |= set(grid("W6", "laptop"))
    assert set(cells) <= {twin(c) for c in every}
    assert twin_cells("smoke") == twin_cells("paper") == []
    main = [c for c in named_cells("flow10", "laptop") if twin(c) in figure]
    assert {c.width for c in main} >= {16, 64, 512} and {c.init for c in main} == {"he", "lecun", "power"}


def test_the_picture_shows_each_pair_once_and_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTKIT_FIGURES", str(tmp_path))
    both = rows()
    both["key"] = [
        Cell(**{name: line[name] for name in Cell.__dataclass_fields__ if not isinstance(line[name], float)}
             | {"epochs": line["epochs"], "lr": line["lr"]}).key
        for line in both.to_dict("records")
    ]  # fmt: skip
    both.attrs["missing"] = grid("N5b", "laptop", seeds=[0], widths=[16], depths=[2])
    _, axes = style.panels(3)
    table = ledger_module.proxy_ratios(both, axes)
    drawn = pandas.concat(t for ax in axes for t in getattr(ax, "robustkit_tables", ()))
    assert sorted(drawn["mean"]) == sorted(table["ratio"]) and len(table) == 20
    twice = proxy_schedule.trained_twice(both, "laptop")
    assert (
        set(twice["width"]) == {16, 64, 256, 1024} and len(twice.attrs["missing"]) == 1
    )  # two layers alone have both schedules at 1024
