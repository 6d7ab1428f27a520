"""Bounds beside measurements: tables against rows made from the bound itself, Lemma 4 against an integral."""

import math

import matplotlib.pyplot as plt
import numpy
import pandas
import pytest
import scipy.integrate
import scipy.optimize
from made_rows import a_frame, a_row

from robustkit import theory
from robustkit.plots import curves, output, style, tables
from robustkit.plots import depth as depth_module
from robustkit.plots import width as width_module

MNIST = {"d_in": 784, "d_out": 10}
DIGITS = {"d_in": 64, "d_out": 10}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def grid(value, *, widths=(16, 64, 256), depths=(2, 4), init="he", **fields):
    """Rows with P = value(m, L), two seeds a little apart whose geometric mean is that value."""
    return a_frame(
        *(
            a_row(value(m, L) * factor, width=m, depth=L, seed=seed, init=init, **fields)
            for m in widths
            for L in depths
            for seed, factor in enumerate((1.02, 1 / 1.02))
        )
    )


def printed(m, L):
    return theory.theorem1("he", width=m, depth=L, version="neurips", **DIGITS)


def test_peaks_are_set_beside_the_printed_and_the_interpolating_width():
    table = width_module.peak_places(grid(lambda m, L: 2.0 if m == 64 else 1.0, depths=(2, 6)))
    assert table["peak at"].tolist() == [64, 64]
    # The printed width is where the printed bound is largest among all widths, by search.
    widths = range(1, 400)
    best = max(widths, key=lambda m: theory.table1("he", width=m, depth=6, version="neurips", **DIGITS))
    assert table["printed peak, L^3/2"].tolist()[1] == best == 108
    m = table["#parameters = n at"][1]
    assert 4 * m * m + 74 * m == pytest.approx(1437, rel=1e-3)  # six layers of digits; the table has three decimals


@pytest.mark.parametrize("init", ["he", "lecun", "ntk"])
@pytest.mark.parametrize(("width", "depth"), [(16, 2), (64, 4), (256, 6)])
def test_the_omitted_piece_is_the_part_of_the_integral_below_the_threshold(init, width, depth):
    (row,) = width_module.lemma4(widths=[width], depths=[depth], init=init, **MNIST).itertuples(index=False)
    # The standard deviations of Table 1, written out, and the tail of the workshop's proof, integrated in numbers.
    one, last, gamma = {
        "he": (math.sqrt(2 / 784), math.sqrt(2 / width), 1),
        "lecun": (math.sqrt(1 / 784), math.sqrt(1 / width), math.sqrt(0.5)),
        "ntk": (math.sqrt(2 / width), math.sqrt(1 / 10), 1),
    }[init]
    u = 2 / (width * one**2 * last**2 * gamma ** (2 * (depth - 2)))
    threshold = scipy.optimize.brentq(lambda delta: (u * delta**2 - width) / (depth**3 * (width + 1)), 0, 1e6)
    assert row.omitted == pytest.approx(threshold, rel=1e-9)

    def tail(delta, m_or_more):
        return math.exp(-(delta**2 * u + width**2) / (depth**3 * m_or_more))

    scale = math.sqrt(depth**3 * (width + 1) / u)
    whole, _ = scipy.integrate.quad(tail, 0, 10 * scale, args=(width + 1,))
    # Printed with m for m + 1 under the root and in the exponent.
    assert row.printed == pytest.approx(
        whole * math.sqrt(width / (width + 1)) * math.exp(width**2 / (depth**3 * (width + 1)) - width / depth**3),
        rel=1e-6,
    )
    assert row[-1] == pytest.approx(row.omitted / row.printed, rel=1e-9)


def moved_rows(value, *, widths=(16, 64), depths=(2, 4), status="ok"):
    rows = grid(lambda m, L: 1.0, widths=widths, depths=depths)
    change = [value(row.width, row.depth) * (1.1 if row.seed else 1 / 1.1) for row in rows.itertuples()]
    return rows.assign(jacobian_change=change, frobenius_change=[3 * v for v in change], status=status)


def test_lemma_4_stands_beside_what_was_measured():
    table = width_module.lemma4_measured(moved_rows(lambda m, L: m + L))
    assert table[["L", "m"]].to_numpy().tolist() == [[2, 16], [2, 64], [4, 16], [4, 64]]
    assert table["E||J_T - J_0||_2"].tolist() == pytest.approx([18, 66, 20, 68])  # geometric mean of the two seeds
    alone = width_module.lemma4(widths=(16, 64), depths=(2, 4), **DIGITS)
    for name in ("printed", "omitted"):
        assert table[name].tolist() == pytest.approx(alone[name].tolist(), rel=1e-12)
    # At rank one (9)'s left side is E|u_1| ||.||_F: by quadrature over the ball in 64 dimensions, where a coordinate
    # has the density c (1 - t^2)^(63/2).
    weight = scipy.integrate.quad(lambda t: (1 - t * t) ** 31.5, -1, 1)[0]
    mean = scipy.integrate.quad(lambda t: abs(t) * (1 - t * t) ** 31.5, -1, 1)[0] / weight
    assert table["(9) at least"].tolist() == pytest.approx([3 * mean * v for v in (18, 66, 20, 68)], rel=1e-6)
    assert table["m >= o L^3"].tolist() == [m >= 10 * L**3 for L in (2, 4) for m in (16, 64)]
    assert not table["m >= d L^3"].any()  # 64 * 8 is the least
    wide = width_module.lemma4_measured(moved_rows(lambda m, L: 1.0, widths=(80, 512), depths=(2,)))
    assert wide["m >= o L^3"].tolist() == [True, True] and wide["m >= d L^3"].tolist() == [False, True]


def test_lemma_4_has_no_line_for_what_failed():
    table = width_module.lemma4_measured(moved_rows(lambda m, L: 1.0, status="diverged"))
    assert table.empty and table.columns.tolist() == width_module.LEMMA4


def test_the_two_terms_are_drawn_apart_and_the_measured_curves_beside_them():
    _, (ax,) = style.panels(1)
    width_module.terms(grid(lambda m, L: 1.0), ax, depth=2)
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert {"initial", "trained", "first term", "second term"} <= set(lines)
    first, second = theory.theorem1_terms("he", width=16, depth=2, version="neurips", **DIGITS)
    assert lines["first term"].get_ydata()[0] == pytest.approx(first, rel=1e-12)
    assert lines["second term"].get_ydata()[0] == pytest.approx(second, rel=1e-12)
    # exp(-32) is below the picture, and still among its numbers.
    assert numpy.isnan(lines["first term"].get_ydata()[-1]) and ax.get_ylim()[0] > 1e-3
    recorded = [t for t in ax.robustkit_tables if t["quantity"].iloc[0].startswith("first term")]
    assert 0 < recorded[0]["mean"].iloc[-1] < 1e-10


def test_the_orders_of_table_2_pass_through_the_narrowest_network():
    _, (ax,) = style.panels(1)
    rows = grid(lambda m, L: 0.7, init="ntk")
    width_module.table2_shapes(rows, ax, depth=4)
    lines = {line.get_label(): line.get_ydata() for line in ax.get_lines()}
    for label in ("ours", "Wu et al.", "Huang et al."):
        assert lines[label][0] == pytest.approx(0.7, rel=1e-9)
    assert lines["Huang et al."][-1] == pytest.approx(0.7 * 4, rel=1e-9)  # sqrt(256 / 16)


def test_table_1_is_drawn_in_the_colour_of_its_width():
    _, (ax,) = style.panels(1)
    rows = grid(lambda m, L: 1.0, depths=(2, 4, 6))
    depth_module.table1_in_depth(rows, ax, init="he", widths=[16, 256])
    dashed = [line for line in ax.get_lines() if line.get_label() == "_table1"]
    solid = [line for line in ax.get_lines() if line.get_label().startswith("$m$")]
    assert [line.get_color() for line in dashed] == [line.get_color() for line in solid]
    expected = theory.table1("he", width=256, depth=6, version="neurips", **DIGITS)
    assert dashed[1].get_ydata()[-1] == pytest.approx(expected, rel=1e-12)


def test_the_lecun_bound_rises_from_and_to_the_depths_said():
    table = depth_module.rise_in_depth(widths=(16, 64, 256), **MNIST)
    for row in table.to_dict("records"):
        values = {
            L: theory.table1("lecun", width=row["m"], depth=L, version=row["version"], **MNIST) for L in range(2, 41)
        }
        rises = {(a, b): values[b] / values[a] for a in values for b in values if a <= b}
        assert row["factor"] == pytest.approx(max(rises.values()), rel=1e-12)
        assert rises[row["from L"], row["to L"]] == pytest.approx(row["factor"], rel=1e-12)
    assert table.loc[0, "factor"] > 1  # NeurIPS, 16: not monotone


def test_the_factor_per_layer_of_an_exponential_is_its_base():
    rows = grid(lambda m, L: 1.25**L, depths=(2, 4, 6), init="gain", gain=1.25)
    table = tables.per_layer(rows)
    assert table["init"].tolist() == ["gain"] * 3
    assert [text.split()[0] for text in table["trained"]] == ["1.250"] * 3
    # Before training each layer multiplies by gain M_m sqrt(2/m) = gain (1 - 5/(8m) + ..): from below to the gain.
    exact = table["exact"].tolist()
    assert exact == sorted(exact) and exact[0] > 1.25 * (1 - 0.7 / 16) and exact[-1] < 1.25


def test_the_exact_value_is_a_line_per_width():
    _, (ax,) = style.panels(1)
    depth_module.exact_in_depth(grid(lambda m, L: 1.0, init="gain", gain=1.25), ax)
    values = [line.get_ydata()[-1] for line in ax.get_lines()]
    shape = {"depth": 4, "gain": 1.25, **DIGITS}
    assert values == pytest.approx([theory.stability_at_init("gain", width=m, **shape) for m in (16, 64, 256)])


def test_without_rows_every_table_is_empty_and_every_picture_says_so():
    rows = a_frame()
    _, axes = style.panels(3)
    width_module.terms(rows, axes[0], depth=2)
    width_module.table2_shapes(rows, axes[1], depth=2)
    depth_module.table1_in_depth(rows, axes[2], init="he", widths=[])
    assert [ax.texts[0].get_text() for ax in axes] == ["no rows yet"] * 3
    depth_module.exact_in_depth(rows, axes[0])
    empty = (
        width_module.peak_places(rows),
        tables.per_layer(rows),
    )
    for number, table in enumerate(empty):
        assert output.save_table(table, f"T{number}", "smoke").empty and len(table.columns)


# ---------------------------------------------------------------------------------------- the limit of infinite width


def test_the_limit_stands_right_of_the_widest_network_in_the_colour_of_its_depth():
    _, (ax,) = style.panels(1)
    curves.against(grid(lambda m, L: 1 / L), ax)
    limits = pandas.DataFrame({"depth": [2, 4], "n_train": 4000, "mean": [0.3, 0.2], "sem": 0.01})
    width_module.limit_marks(ax, limits)
    marks = [line for line in ax.get_lines() if line.get_linestyle() == "--"]
    assert [line.get_color() for line in marks] == [style.look("depth", L)["color"] for L in (2, 4)]
    assert [set(line.get_ydata()) for line in marks] == [{0.3}, {0.2}]
    assert all(min(line.get_xdata()) > 256 and max(line.get_xdata()) == ax.get_xlim()[1] for line in marks)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["16", "64", "256", r"$\infty$"]
    kept = ax.robustkit_tables[-1]
    assert kept["mean"].tolist() == [0.3, 0.2] and kept["n_train"].tolist() == [4000, 4000]
