"""Which theorem covers which run: the table, and the shades on figures."""

import dataclasses

import matplotlib.pyplot as plt
import pandas
import pytest
from matplotlib.colors import to_rgb
from matplotlib.legend import Legend

from robustkit import profiles
from robustkit.cell import Cell
from robustkit.checks import InputError
from robustkit.plots import curves, hypotheses, style


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def notes(ax):
    """The words written into the axes, which are legends without lines."""
    return [artist for artist in ax.artists if isinstance(artist, Legend)]


def words_of(ax):
    return [note.get_texts()[0].get_text() for note in notes(ax)]


def an_axes(**size):
    figure, axes = style.panels(1, **size)
    return axes[0]


def test_the_card_of_the_figures_own_setting_meets_no_theorem():
    card = hypotheses.hypothesis_card(profiles.grid("N4b", "laptop"))
    assert list(card) == [
        "He, L = 2, mnist, raw, cross-entropy, o = 10, n = 60000",
        "non-lazy (c = 2), L = 2, mnist, raw, cross-entropy, o = 10, n = 60000",
    ]
    assert set(card.loc[["Theorem 1", "Theorem 2", "Theorem 3"]].to_numpy().ravel()) == {"not met"}
    for name in ("Sec. 3: squared loss", "Assumption 1: norm 1", "Theorem 3: gradient descent"):
        assert set(card.loc[name]) == {"not met"}
    assert card.loc["Sec. 4.1: lazy, as Table 1"].tolist() == ["met", "not met"]
    assert card.loc["Theorem 3: two layers"].tolist() == ["met", "met"]
    # (m^1.5 * 2 m^-2)^2 = 4/m is at most 1/10 from m = 40
    assert card.loc["Theorem 2: alpha >= 10 (m^1.5 sum beta)^L"].tolist() == ["not met", "met from m = 64"]


def test_the_small_runs_meet_the_theorem_they_were_made_for():
    def entry(control, theorem):
        return hypotheses.hypothesis_card(profiles.grid(control, "laptop")).loc[f"Theorem {theorem}"].tolist()

    assert set(entry("theorem1", 1)) == {"met"}
    assert entry("theorem2", 2) == ["met from m = 1024"]  # m >= 10 d with d = 64
    assert entry("theorem3_n8", 3) == ["met from m = 1024"] * 3  # m >= 10 n^2 = 640
    assert entry("theorem3_n8", 1) == ["not met"] * 3
    assert entry("theorem3_n32", 3) == ["met from m = 16384"] * 3


THREE = {"init": "power", "power": 2.0, "scaling": "unit", "loss": "squared", "target": "parity"}
THREE |= {"n_train": 4, "batch_size": 4, "depth": 2, "width": 256, "lr": 0.05}


@pytest.mark.parametrize(
    "change, row",
    [({"scaling": "raw"}, "Assumption 1: norm 1"), ({"target": "class"}, "Theorems 2 and 3: one output"),
     ({"depth": 3}, "Theorem 3: two layers"), ({"width": 159}, "Theorem 3: m >= 10 n^2"),
     ({"batch_size": 2}, "Theorem 3: gradient descent"), ({"momentum": 0.9}, "Theorem 3: gradient descent"),
     ({"alpha": 2.0}, "Theorems 1 and 3: alpha = 1"), ({"power": 1.4}, "Theorem 3: beta = m^-c, c >= 1.5")],
)  # fmt: skip
def test_one_hypothesis_broken_is_theorem_3_not_met(change, row):
    def entries(cell):
        return hypotheses.hypothesis_card([cell]).iloc[:, 0]

    right, wrong = entries(Cell(**THREE)), entries(Cell(**THREE | change))
    assert right["Theorem 3"] == right[row] == "met"
    assert wrong["Theorem 3"] == wrong[row] == "not met"


def test_the_card_says_what_a_setting_does_not_decide():
    card = hypotheses.hypothesis_card([Cell(**THREE), Cell(**THREE | {"lr": 0.1})]).iloc[:, 0]
    assert card["Theorem 3: small steps, as the proof's flow"] == "lr 0.05, lr 0.1"
    assert card["Assumption 2: training risk of order 1/n"] == "see train_loss"


def test_widths_that_meet_a_condition_without_being_the_widest_are_listed():
    # L = 2, c = 1, alpha = 3000: (m^1.5 * 2/m)^2 = 4 m is at most 300 up to m = 75
    cells = [Cell(**THREE | {"power": 1.0, "alpha": 3000.0, "width": m}) for m in (16, 64, 256)]
    card = hypotheses.hypothesis_card(cells).iloc[:, 0]
    assert card["Theorem 2: alpha >= 10 (m^1.5 sum beta)^L"] == "met at m = 16, 64"


def test_a_card_of_nothing_is_empty():
    assert hypotheses.hypothesis_card([]).shape[1] == 0


# ---------------------------------------------------------------------------------------------- shading


def rows_of(cells, value=lambda cell: cell.width**-0.5):
    frame = pandas.DataFrame([dataclasses.asdict(cell) | {"stability": value(cell)} for cell in cells])
    return frame.assign(status="ok")


def widths(*sizes, **fields):
    return [Cell(**THREE | fields | {"width": m, "seed": seed}) for m in sizes for seed in range(2)]


def drawn(rows, theorem, value=None):
    ax = curves.against(rows, an_axes())
    before = ax.get_xlim()
    hypotheses.shade_outside(ax, rows, theorem)
    assert ax.get_xlim() == before
    return ax


def test_shading_covers_the_widths_outside_and_no_other():
    rows = rows_of(widths(16, 64, 256, 1024))  # 10 n^2 = 160
    ax = drawn(rows, 3)
    low, high = ax.get_xlim()
    covered = [patch.get_extents().transformed(ax.transData.inverted()).intervalx for patch in ax.patches]
    assert min(a for a, _ in covered) == pytest.approx(low) and max(b for _, b in covered) == pytest.approx(128)
    assert words_of(ax) == ["hatched: outside the hypotheses of Theorem 3:\nm\xa0<\xa010\xa0n²"]
    table = ax.robustkit_tables[-1].set_index("width")
    assert table["lacks"].tolist() == ["m < 10 n^2"] * 2 + [""] * 2 and set(table["quantity"]) == {
        "outside Theorem 3"
    }


def test_a_panel_with_no_run_inside_is_shaded_as_a_whole_and_says_why():
    ax = drawn(rows_of(profiles.grid("N4a", "laptop", seeds=[0])), 1)
    assert not ax.patches and ax.get_facecolor()[:3] == to_rgb("0.97")
    (words,) = words_of(ax)
    assert words.replace("\n", " ").replace("\xa0", " ") == (
        "outside the hypotheses of Theorem 1: cross-entropy, raw scaling"
    )


def test_a_panel_that_meets_the_theorem_stays_as_it_is():
    ax = drawn(rows_of(widths(256, 1024)), 3)
    assert not ax.patches and not notes(ax) and ax.get_facecolor()[:3] == to_rgb("white")


def test_a_width_with_one_curve_inside_is_not_shaded():
    rows = rows_of([*widths(256, 1024), *widths(256, 1024, depth=4)])
    assert not drawn(rows, 3).patches


def test_reasons_common_to_all_runs_come_alone():
    rows = rows_of(profiles.grid("N4b", "laptop", seeds=[0]))
    assert "start" not in words_of(drawn(rows, 1))[0]


@pytest.mark.parametrize("shape", ["rising", "falling", "tent", "everywhere"])
def test_the_words_cover_no_data(shape):
    value = {
        "rising": lambda c: c.width, "falling": lambda c: 1 / c.width, "tent": lambda c: min(c.width, 4096 / c.width),
        "everywhere": lambda c: (100.0, 0.01)[c.seed],
    }[shape]  # fmt: skip
    rows = rows_of(widths(16, 32, 64, 128, 256, scaling="raw"), value)
    ax = drawn(rows, 3)
    if shape == "everywhere":
        for y in (50.0, 100.0, 0.01, 0.02):
            ax.axhline(y)
        hypotheses.shade_outside(ax, rows, 3)
    ax.figure.draw_without_rendering()
    box = notes(ax)[-1].get_texts()[0].get_window_extent()
    inside = ax.get_window_extent()
    assert inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
    for line in ax.lines:
        path = line.get_transform().transform_path(line.get_path()).interpolated(50).vertices
        assert not any(box.contains(*point) for point in path)


def test_depth_may_be_the_axis():
    rows = rows_of([Cell(**THREE | {"depth": depth}) for depth in (2, 4, 6)])
    ax = curves.against(rows, an_axes(), x="depth", by="width")
    hypotheses.shade_outside(ax, rows, 3, x="depth")
    edges = [patch.get_extents().transformed(ax.transData.inverted()).x0 for patch in ax.patches]
    assert min(edges) == pytest.approx(3)


def test_no_rows_and_no_such_theorem():
    ax = an_axes()
    assert hypotheses.shade_outside(ax, rows_of(widths(16)).iloc[:0], 1) is ax and not notes(ax)
    with pytest.raises(InputError, match="theorem is 4"):
        hypotheses.shade_outside(ax, rows_of(widths(16)), 4)
