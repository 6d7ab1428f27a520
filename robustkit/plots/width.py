"""Theory against width beside what was measured: Theorem 1 and its two terms, Lemma 4, Table 2, peaks."""

from __future__ import annotations

import math

import numpy as np
import pandas

from .. import theory
from ..initialization import layer_stds
from ..ledger.initial_value import frobenius_sandwich
from ..ledger.rows import sizes, summarise
from .style import look, mean_and_band, nothing, record, set_axes, theory_line
from .tables import ends, powers

BOUNDS = {
    "neurips": ("NeurIPS Eq. (3)", "--"),
    "workshop": ("workshop Eq. (3)", ":"),
    "proof": ("workshop, end of B.2", "-."),
}
TERMS = {"first term": "--", "second term": ":"}
SHAPES = {"ours": ("ours", "--"), "wu": ("Wu et al.", ":"), "huang": ("Huang et al.", "-.")}
LEMMA4 = ["L", "m", "printed", "omitted", "E||J_T - J_0||_2", "(9) at least", "n", "m >= o L^3", "m >= d L^3"]
PEAKS = ["depth", "widths", "peak at", "peak", "over the narrowest", "over the widest"]
PEAKS += ["printed peak, L^3/2", "#parameters = n at"]


def _dimensions(rows: pandas.DataFrame) -> dict[str, int]:
    return dict(zip(("d_in", "d_out"), sizes(rows.iloc[0]), strict=False))


def _fine(rows: pandas.DataFrame) -> np.ndarray:
    return np.unique(np.geomspace(rows["width"].min(), rows["width"].max(), 60).round().astype(int))


def _terms(widths, init: str, version: str, **shape) -> np.ndarray:
    pairs = [theory.theorem1_terms(init, width=int(m), version=version, **shape) for m in widths]
    return np.array(pairs).reshape(-1, 2)


def bounds(rows: pandas.DataFrame, ax, *, init: str, depth: int):
    """The three printed forms of Theorem 1 (constants as printed) and the exact value at initialisation."""
    if rows.empty:
        return ax
    widths, shape = _fine(rows), {"depth": depth} | _dimensions(rows)
    for version, (name, dash) in BOUNDS.items():
        values = [theory.theorem1(init, width=m, version=version, **shape) for m in widths]
        theory_line(ax, {"width": widths}, values, f"theorem1 {version}", linestyle=dash, label=name)
    exact = [theory.stability_at_init(init, width=m, **shape) for m in widths]
    name = "exact at initialisation"
    theory_line(ax, {"width": widths}, exact, name, linewidth=0.6, label=name)
    return ax


def terms(rows: pandas.DataFrame, ax, *, depth: int, init: str = "he", version: str = "neurips"):
    """The two terms of Theorem 1 apart (black), and P at initialisation (grey) and after training of one depth.

    The first term falls without end: below a fifth of everything else it is not drawn, but recorded.
    """
    rows = rows[rows["depth"] == depth]
    if rows.empty:
        return nothing(ax)
    lowest, widths = _before_and_after(rows, ax), _fine(rows)
    pairs = _terms(widths, init, version, depth=depth, **_dimensions(rows))
    floor = min(pairs[:, 1].min(), lowest) / 5
    for values, (name, dash) in zip(pairs.T, TERMS.items(), strict=True):
        drawn = np.where(values >= floor, values, np.nan)
        ax.plot(widths, drawn, color="black", linestyle=dash, linewidth=1, label=name)
        record(ax, {"width": widths, "mean": values}, f"{name}, {version}")
    return ax


def _before_and_after(rows: pandas.DataFrame, ax) -> float:
    """P against width at initialisation (grey) and after training, with bands; returns the lowest mean."""
    means, hue = [], look("init", rows["init"].iloc[0])["color"]
    looks = {"stability_init": ("0.55", "s", "initial"), "stability": (hue, "o", "trained")}
    for y, (colour, marker, name) in looks.items():
        curve = summarise(rows, x="width", y=y, by="depth")
        mean_and_band(ax, curve, "width", color=colour, marker=marker, label=name)
        record(ax, curve, y)
        means.append(curve["mean"].min())
    set_axes(ax, "width", "stability", rows["width"])
    return min(means)


def domination(rows: pandas.DataFrame, *, init: str = "he", version: str = "neurips") -> pandas.DataFrame:
    """For each depth, the constant C that the bound needs: the largest P / bound over widths, and where it is.

    P is the geometric mean over seeds. "range over widths": that largest ratio over the smallest, by which the shape
    of the bound differs from the measured one. A largest ratio at the end of the grid may grow beyond it.
    """
    table = []
    for depth, part in rows.groupby("depth"):
        line = {"depth": int(depth)}
        for name, y in (("initial", "stability_init"), ("trained", "stability")):
            curve = summarise(part, x="width", y=y, by="depth").dropna(subset="mean")
            if curve.empty:
                continue
            pairs = _terms(curve["width"], init, version, depth=int(depth), **_dimensions(rows))
            ratio = curve["mean"].to_numpy(float) / pairs.sum(axis=1)
            line |= {f"C, {name}": ratio.max(), f"at m, {name}": int(curve["width"].iloc[ratio.argmax()])}
            line |= {f"range over widths, {name}": ratio.max() / ratio.min()}
            line |= {f"C without the first term, {name}": (curve["mean"] / pairs[:, 1]).max()}
        table.append(line)
    names = ("C", "at m", "range over widths", "C without the first term")
    columns = [f"{name}, {when}" for when in ("initial", "trained") for name in names]
    return pandas.DataFrame(table, columns=["depth", *columns]).round(3)


def peak_places(rows: pandas.DataFrame) -> pandas.DataFrame:
    """For each depth, the width with the largest mean P, and its ratio to P of the narrowest and the widest network.

    Beside it the width where the printed bound is largest and the one where #parameters = n.
    """
    table, (d_in, d_out, n) = [], sizes(rows.iloc[0]) if len(rows) else (0, 0, 0)
    for depth, curve in summarise(rows, x="width", y="stability", by="depth").dropna(subset="mean").groupby("depth"):
        widths, means = curve["width"], curve["mean"]
        line = {"depth": depth, "widths": ends(widths), "peak at": widths[means.idxmax()], "peak": means.max()}
        line |= {"over the narrowest": means.max() / means.iloc[0], "over the widest": means.max() / means.iloc[-1]}
        line |= {"printed peak, L^3/2": theory.peak_width(depth)}
        table.append(
            line | {"#parameters = n at": theory.interpolation_width(int(depth), d_in=d_in, d_out=d_out, n=n)}
        )
    return pandas.DataFrame(table, columns=PEAKS).round(3)


def lemma4(*, widths, depths, d_in: int, d_out: int, init: str = "he") -> pandas.DataFrame:
    """Lemma 4's printed bound, the piece its proof leaves out, and their ratio, for each depth and width.

    printed: gamma^(L-2) sqrt(pi L^3 m^2 beta_1^2 beta_L^2 / 8) exp(-m/L^3);  omitted: sqrt(m/u) with
    u = 2/(m beta_1^2 beta_L^2 gamma^(2(L-2))): the integral from 0 to where the tail bound begins to hold.
    Source: [W Lemma 4]. Their ratio 2 exp(m/L^3) / sqrt(pi L^3) is the same for every initialisation.
    """
    table = []
    for depth in depths:
        for width in widths:
            shape = {"width": width, "depth": depth, "d_in": d_in, "d_out": d_out}
            betas = layer_stds(init, **shape)
            printed, gammas = theory.theorem1_terms(init, version="workshop", **shape)
            omitted = width * betas[0] * betas[-1] * gammas / math.sqrt(2)
            with np.errstate(over="ignore"):
                ratio = 2 * np.exp(width / depth**3) / math.sqrt(math.pi * depth**3)
            table.append({"L": depth, "m": width, "printed": printed, "omitted": omitted, "omitted/printed": ratio})
    return pandas.DataFrame(table)


def lemma4_measured(moved: pandas.DataFrame) -> pandas.DataFrame:
    """`lemma4` at the depths and widths of rows of the measure "jacobian_change", beside what was measured there.

    E||J_T - J_0||_2 is the left side of [W Eq. 10], a geometric mean over seeds. "(9) at least": the left side of
    [W Eq. 9] over eps, from below, by frobenius_sandwich times E||J_T - J_0||_F. The ranges are those of
    [W Lemma 4], m >= d L^3, with d read as the output size (Allen-Zhu et al.) or the input size (the paper).
    """
    tables, good = [pandas.DataFrame(columns=LEMMA4)], moved[moved["status"] == "ok"]
    for (init, depth), curve in good.groupby(["init", "depth"]):
        spectral, frobenius = (
            summarise(curve, x="width", y=f"{norm}_change", by="depth") for norm in ("jacobian", "frobenius")
        )
        shape, widths = _dimensions(curve), spectral["width"].to_numpy(int)
        table = lemma4(widths=widths.tolist(), depths=[int(depth)], init=init, **shape)
        table["E||J_T - J_0||_2"] = spectral["mean"].to_numpy(float)
        table["(9) at least"] = frobenius_sandwich(shape["d_in"])[0] * frobenius["mean"].to_numpy(float)
        table["n"] = spectral["n"].to_numpy(int)
        table["m >= o L^3"], table["m >= d L^3"] = (widths >= shape[d] * depth**3 for d in ("d_out", "d_in"))
        tables.append(table[LEMMA4])
    return pandas.concat(tables[1:] or tables, ignore_index=True)


def table2_shapes(rows: pandas.DataFrame, ax, *, depth: int):
    """P of trained NTK networks of one depth and the three orders of Table 2, each through the narrowest width."""
    rows = rows[rows["depth"] == depth]
    curve = summarise(rows, x="width", y="stability", by="depth").dropna(subset="mean")
    if curve.empty:
        return nothing(ax)
    _before_and_after(rows, ax)
    widths, orders = curve["width"].tolist(), _table2(rows, curve["width"], depth)
    for column, (name, dash) in SHAPES.items():
        values = curve["mean"].iloc[0] * orders[column] / orders[column].iloc[0]
        theory_line(ax, {"width": widths}, values, f"table2 {column}", linestyle=dash, label=name)
    return ax


def table2_slopes(rows: pandas.DataFrame) -> pandas.DataFrame:
    """The powers of m in P of trained networks, and those of the orders of Table 2 over the same widths."""
    table = powers(rows, "stability")
    widths = {depth: sorted(curve["width"].unique()) for depth, curve in rows.groupby("depth")}
    orders = {depth: np.log(_table2(rows, ms, int(depth))) for depth, ms in widths.items()}
    for column, (name, _) in SHAPES.items():
        slopes = [np.polyfit(np.log(widths[L]), orders[L][column], 1)[0] for L in table["depth"]]
        table[name] = np.array(slopes, dtype=float)
    return table


def _table2(rows, widths, depth: int) -> pandas.DataFrame:
    d_out = _dimensions(rows)["d_out"]
    return pandas.DataFrame([theory.table2(width=int(m), depth=depth, d_out=d_out) for m in widths])
