"""The grids behind the figures, against the table of profiles in the design."""

import math
import re
from pathlib import Path

import numpy as np
import pandas
import pytest

from robustkit.cell import Cell, schedule_name
from robustkit.checks import InputError
from robustkit.plots import interactive
from robustkit.profiles import (
    CONTROLS,
    FIGURES,
    LARGE,
    NOTEBOOKS,
    PROFILES,
    REPEATED,
    grid,
    profile_cells,
)
from robustkit.sweep import train_missing
from robustkit.training.remeasure import FURTHER

EIGHT, ELEVEN = [2**k for k in range(4, 10)], [2**k for k in range(4, 15)]


@pytest.mark.parametrize(
    ("profile", "widths", "depths", "count"),
    [
        ("smoke", [16, 32, 64, 128, 256], [2, 4, 6], 5 * 3 * 2),
        ("laptop", EIGHT, [2, 4, 6, 8, 10], 5 * (5 * 5 + 3)),  # five seeds, three at 512
        ("shipped", EIGHT, [2, 4, 6, 8, 10], 5 * (5 * 5 + 3)),
        ("paper", ELEVEN, [2, 4, 6, 8, 10], 5 * (5 * 5 + 6 * 3)),  # five seeds to 256, three above
    ],
)
def test_the_grids_of_depths_and_widths(profile, widths, depths, count):
    for figure, init in (("N5a", "he"), ("N5b", "lecun")):
        cells = grid(figure, profile)
        assert sorted({c.width for c in cells}) == widths
        assert sorted({c.depth for c in cells}) == depths
        assert {c.init for c in cells} == {init}
        assert len(cells) == len(set(cells)) == count


def test_on_a_laptop_two_layers_alone_have_the_papers_widths():
    cells = grid("N4a", "laptop")
    assert {c.depth for c in cells if c.width > 512} == {2} and sorted({c.width for c in cells}) == ELEVEN
    assert set(grid("N5a", "laptop")) < set(cells) and grid("N4a", "paper") == grid("N5a", "paper")


def test_seeds_are_fewer_where_a_training_is_dear():
    def seeds(profile, width):
        return [c.seed for c in grid("N2", profile, widths=[width])]

    assert seeds("smoke", 256) == [0, 1]
    assert seeds("laptop", 256) == seeds("paper", 256) == [0, 1, 2, 3, 4]
    assert seeds("laptop", 512) == seeds("paper", 512) == [0, 1, 2]


@pytest.mark.parametrize(
    ("profile", "widths"),
    [("smoke", [16, 32, 64, 128, 256]), ("laptop", ELEVEN), ("shipped", ELEVEN), ("paper", ELEVEN)],
)
def test_the_non_lazy_curves_have_one_hidden_layer(profile, widths):
    cells = grid("W7", profile)
    assert {c.depth for c in cells} == {2}
    assert {c.power for c in cells} == {1.0, 1.5, 2.0, 3.0}
    assert sorted({c.width for c in cells}) == widths
    assert {c for c in grid("N3", profile)} == {c for c in cells if c.power == 2}


def schedules(cells):
    return {schedule_name(cell.epochs, cell.lr) for cell in cells}


def flow_time(cell):
    return math.fsum(map(cell.learning_rate, range(cell.steps)))


def test_the_schedules_flow_for_about_the_same_time():
    theirs = {c for figure in FIGURES if figure != "WT4" for c in grid(figure, "paper")}
    assert {c.dataset for c in theirs} == {"mnist"} and schedules(theirs) == {"full", "50 epochs at 0.01"}
    faster = {(c.model, c.head) for c in theirs if c.lr == 0.01}
    assert faster == {("cnn", "pooling"), ("fcn", None)}  # Figure 6 at ten times the rate
    small = {figure: grid(figure, "smoke") for figure in FIGURES if figure != "WT4"}
    assert schedules(small.pop("W6")) == {"20 epochs at 0.1"}
    assert {(c.dataset, c.epochs, c.lr) for cells in small.values() for c in cells} == {("digits", 50, 0.04)}
    for made in (small["N2"][0], grid("W6", "smoke")[0], grid("N2", "laptop")[0], grid("unit", "laptop")[0]):
        assert 23 < flow_time(made) < 25


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_is_its_figures_once_each_cheapest_first(profile):
    cells = profile_cells(profile)
    assert len(cells) == len({c.key for c in cells})
    small = ["unit", *(CONTROLS.keys() - {*LARGE})]
    own = small if profile == "smoke" else ["unit", "standard", "flow10", *CONTROLS]
    beside = {c for name in (*own, "twins", "your_turn") for c in grid(name, profile)}
    assert set(cells) == {c for figure in FIGURES for c in grid(figure, profile)} | beside
    assert set(grid("N4a", profile)) < set(cells)
    flops = [c.flops for c in cells]
    assert flops == sorted(flops)


def test_figure_6_has_two_heads_and_fully_connected_nets_beside():
    for profile, widths in (("smoke", [8, 16]), ("laptop", [8, 16, 32, 64]), ("paper", [8, 16, 32, 64, 128, 256])):
        cells = grid("W6", profile)
        for head in ("pooling", "flatten"):
            made = [c for c in cells if c.head == head]
            assert sorted({c.width for c in made}) == widths and {(c.model, c.init) for c in made} == {("cnn", "he")}
            assert sorted({c.depth for c in made}) == ([4, 6] if profile == "smoke" else [4, 6, 8, 10])
        for rate in {c.lr for c in cells}:  # a fully connected net at each rate, at each width of the paper's range
            shapes = {(c.width, c.depth, c.seed) for c in cells if c.lr == rate and c.model == "cnn" and c.width > 8}
            assert shapes <= {(c.width, c.depth, c.seed) for c in cells if c.lr == rate and c.model == "fcn"}
    assert schedules(grid("W6", "laptop")) == {"flow10", "5 epochs at 0.1"}
    assert grid("W6", "laptop", depths=[2]) == []


def test_table_4_is_the_published_recipe_on_a_gpu_and_scaled_down_elsewhere():
    cells = grid("WT4", "paper")
    assert len(cells) == 2 * 2 * 3 and {c.dataset for c in cells} == {"cifar10", "cifar100"}
    assert {(c.depth, c.width, c.epochs, c.batch_size, c.momentum, c.weight_decay, c.augment) for c in cells} == {
        (110, 16, 164, 128, 0.9, 1e-4, "crop_flip")
    }
    for epoch, before, after in ((81, 0.1, 0.01), (122, 0.01, 0.001)):
        step = epoch * 391
        assert cells[0].learning_rate(step - 1) == pytest.approx(before) and cells[0].learning_rate(
            step
        ) == pytest.approx(after)
    assert {(c.init, c.power) for c in cells} == {("he", None), ("power", 2.0)}
    small = grid("WT4", "smoke") + grid("WT4", "laptop")
    assert {(c.dataset, c.depth) for c in small} == {("digits", 8), ("mnist", 20)}
    assert grid("WT4", "laptop", depths=[4]) == grid("WT4", "laptop", widths=[64]) == []


def test_the_shipped_profile_draws_the_laptop_grid():
    assert profile_cells("shipped") == profile_cells("laptop")


def test_keywords_replace_the_profiles_choices():
    cells = grid("N4a", "smoke", seeds=[7], widths=[20, 30], depths=[3], epochs=2, scaling="unit")
    fields = {"depth": 3, "seed": 7, "epochs": 2, "scaling": "unit", "lr": 0.04, "points": 256}
    assert cells == [Cell(width=m, **fields) for m in (20, 30)]
    alone = {c for c in profile_cells("smoke", seeds=[0], widths=[16])}
    controls = {c for name in CONTROLS for c in grid(name, "smoke", seeds=[0], widths=[16])}
    # He, LeCun, four powers; unit norm; two are in "ntk" as well; three nets of two depths for the CNN; two ResNets
    assert len(alone - controls) == 3 + 3 + 4 + 7 - 2 + 3 * 2 + 2


def test_the_controls_are_what_they_are_called():
    def cells(name, profile="laptop"):
        return grid(name, profile)

    assert {c.learning_rate(0) for c in cells("inverse_width") if c.width == 256} == {0.005}
    assert {c.stop_loss for c in cells("common_loss")} == {0.5}
    assert {c.milestones for name in ("constant_rate", "common_loss", "theorem1") for c in cells(name)} == {()}
    assert {c.gain for c in cells("gain")} == {1.25} and {c.init for c in cells("ntk") if c.depth > 2} == {"ntk"}
    for name in ("theorem1", "theorem2", "theorem3_n8", "theorem3_n32"):
        assert {(c.scaling, c.loss) for c in cells(name)} == {("unit", "squared")}
    assert {(c.d_in, c.d_out, c.depth) for c in cells("theorem2")} == {(64, 1, 2)}
    for n in (8, 16, 32):
        made = cells(f"theorem3_n{n}")
        assert {(c.train_points, c.batch_size, c.d_out, flow_time(c)) for c in made} == {(n, n, 1, 20.0)}
        assert max(c.width for c in made) > 10 * n**2 and {c.power for c in made} == {1.5, 2.0, 3.0}
    for name in CONTROLS.keys() - {*LARGE}:
        assert {c.dataset for c in cells(name, "smoke")} == {"digits"}
        assert len(cells(name, "smoke")) <= 36
    with pytest.raises(InputError, match="figure is 'ntks'.*did you mean 'ntk'"):
        grid("ntks", "laptop")


def test_other_readings_change_the_scaling_and_on_mnist_the_schedule():
    digits, mnist = grid("unit", "smoke"), grid("unit", "laptop")
    assert {c.scaling for c in digits + mnist} == {"unit"}
    assert schedules(digits) == {"50 epochs at 0.04"} and schedules(mnist) == {"flow10"}
    assert {c.depth for c in grid("standard", "laptop")} == {2, 6}
    assert grid("standard", "laptop", depths=[4]) == []
    assert flow_time(mnist[0]) == pytest.approx(flow_time(grid("N2", "laptop")[0]), rel=1e-3)
    with pytest.raises(InputError, match="figure is 'units'.*did you mean 'unit'"):
        grid("units", "laptop")


def test_a_field_given_to_the_grid_is_that_of_every_cell():
    assert grid("N4a", "smoke", init="lecun") == grid("N5b", "smoke")


def test_a_figure_without_these_depths_is_empty_and_does_not_stop_the_others():
    assert grid("N2", "smoke", depths=[4, 6]) == []
    assert {c.depth for c in profile_cells("smoke", depths=[4, 6])} == {4, 6}


@pytest.mark.parametrize(("field", "value"), [("width", 64), ("depth", 2), ("seed", 0)])
def test_a_field_that_the_grid_varies_never_gives_the_same_training_twice(field, value):
    """width=64 for widths=[64] is an easy slip."""
    try:
        cells = grid("N4a", "smoke", **{field: value})
    except InputError as refused:
        assert field in str(refused)
    else:
        assert len(cells) == len(set(cells))


@pytest.mark.parametrize("given", [(16, 32), range(16, 33, 16), 2 ** np.arange(4, 6)], ids=["()", "range", "array"])
def test_lists_may_come_as_a_user_writes_them(given):
    cells = grid("N2", "smoke", widths=given, seeds=given)
    assert [(c.width, c.seed) for c in cells] == [(16, 16), (16, 32), (32, 16), (32, 32)]


@pytest.mark.parametrize(
    ("figure", "profile", "choices", "said"),
    [
        ("N4", "smoke", {}, "figure is 'N4', but must be one of .*did you mean 'N4"),
        ("N4a", "smok", {}, "profile is 'smok', but must be one of .*did you mean 'smoke'"),
        ("N4a", "smoke", {"seeds": [0, 1, 0]}, r"seeds is \[0, 1, 0\]"),
        ("N4a", "smoke", {"widths": [64, 64.0]}, r"widths is \[64, 64.0\]"),
        ("N4a", "smoke", {"seeds": []}, r"seeds is \[\]"),
        ("N4a", "smoke", {"widths": ()}, r"widths is \[\]"),
        ("N4a", "smoke", {"depths": []}, r"depths is \[\]"),
        ("N4a", "smoke", {"depths": [1]}, "depth is 1"),
        ("N4a", "smoke", {"widths": [64, "128"]}, "width is '128'"),
        ("N4a", "smoke", {"epoch": 3}, "'epoch'.*did you mean 'epochs'"),
        ("N4a", "smoke", {"seeds": 3}, "seeds is 3"),
    ],
)
def test_a_bad_grid_is_refused(figure, profile, choices, said):
    with pytest.raises(InputError, match=said):
        grid(figure, profile, **choices)


def test_what_notebooks_collect_is_in_the_profile():
    """1526 runs of the paper profile, and 66 repeats, were in no plan: the notebooks trained them."""
    assert REPEATED.keys() <= FURTHER.keys()
    for name in REPEATED:
        assert len(grid(name, "laptop")) == len(set(grid(name, "laptop"))), name
    names = {name for names in NOTEBOOKS.values() for name in names} - {"all"}
    for profile in ("laptop", "paper"):
        planned = {name: set(grid(name, profile)) for name in (*REPEATED, "all")}
        for name in names:
            assert set(grid(name, profile)) <= planned[name if name in REPEATED else "all"], (profile, name)
    assert (len(grid("jacobian_change", "paper")), len(grid("jacobian_change", "laptop"))) == (66, 36)
    assert len(grid("attack", "paper")) == len(grid("attack", "laptop")) == 48
    assert {(c.width, c.seed) for c in grid("attack", "smoke", widths=[8], seeds=[4])} == {(8, 4)}


def test_smoke_trains_what_the_turns_of_the_reader_show_unchanged(monkeypatch):
    """A report trained these networks, in whatever profile."""
    shown = []
    monkeypatch.setattr(
        train_missing, "run", lambda cells, device: shown.append(cells) or pandas.DataFrame({"key": []})
    )
    for path in sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9][0-9]_*.py")):
        cell = path.read_text().partition("## Your turn")[2].partition("# %%\n")[2]
        if "interactive.your_turn" in cell:
            exec(cell.partition("figure,")[0], {"interactive": interactive})
    planned = set(grid("your_turn", "smoke"))
    assert planned == {c for cells in shown for c in cells} <= set(profile_cells("smoke"))
    assert all(own[0] in planned for own in shown) and len(shown) == 5
    assert grid("your_turn", "paper") == [] and {c.width for c in grid("your_turn", "smoke", widths=[64])} == {64}


def test_what_a_notebook_draws_is_what_its_source_collects():
    for path in sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9][0-9]_*.py")):
        source = path.read_text()
        names = set(re.findall(r'rk\.collect\("(\w+)"', source))
        names |= {
            name for line in re.findall(r"rk\.collect\(name.* for name in \((.*)\)", source) for name in eval(line)
        }
        if 'f"theorem3_n{n}"' in source:
            names |= {f"theorem3_n{n}" for n in (8, 16, 32)}
        assert names == set(NOTEBOOKS[path.name[:2]]), path.name
