"""Theory against width beside what was measured: Theorem 1 and its two terms, Lemma 4, Table 2, peaks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas

from .. import theory
from ..initialization import layer_stds
from ..ledger.initial_value import frobenius_sandwich
from ..ledger.rows import sizes, summarise
from .style import look, mean_and_band, nothing, record, set_axes, theory_line
from .tables import d_in_and_out, ends

BOUNDS = {"neurips": ("NeurIPS Eq. (3)", "--"), "workshop": ("workshop Eq. (3)", ":")}
BOUNDS["proof"] = ("workshop, end of B.2", "-.")
ORDERS = {"ours": ("ours", "--"), "wu": ("Wu et al.", ":"), "huang": ("Huang et al.", "-.")}
LEMMA4 = ["L", "m", "printed", "omitted", "E||J_T - J_0||_2", "(9) at least", "n", "m >= o L^3", "m >= d L^3"]
PEAKS = ["depth", "widths", "peak at", "peak", "over the narrowest", "over the widest"]
PEAKS += ["printed peak, L^3/2", "#parameters = n at"]


def _fine(rows: pandas.DataFrame) -> np.ndarray:
    return np.unique(np.geomspace(rows["width"].min(), rows["width"].max(), 60).round().astype(int))


def limit_marks(ax, limits: pandas.DataFrame, *, by: str = "depth"):
    """Mark P in the limit of infinite width at the right edge of a panel of P against width, dashed, one per curve.

    limits: lines of results/infinite_width.csv, one for each value of the column `by`. Call it when all is drawn.
    """
    ticks, (low, high) = ax.get_xticks(), ax.get_xlim()
    ax.set_xticks([*ticks, 2 * high], [*(f"{tick:g}" for tick in ticks), r"$\infty$"])
    for value, mean in zip(limits[by], limits["mean"], strict=True):
        ax.plot([high, 4 * high], [mean, mean], linestyle="--", color=look(by, value)["color"], label="_limit")
    ax.set_xlim(low, 4 * high)
    bottom, top = ax.get_ylim()
    ax.set_ylim(min(bottom, 0.93 * limits["mean"].min()), top)
    record(ax, limits[[by, "n_train", "mean", "sem"]].assign(width=math.inf), "limit of infinite width")
    return ax


def _terms(rows: pandas.DataFrame, widths, depth: int) -> np.ndarray:
    shape = {"depth": int(depth), "version": "neurips"} | d_in_and_out(rows)
    return np.array([theory.theorem1_terms("he", width=int(m), **shape) for m in widths]).reshape(-1, 2)


def bounds(rows: pandas.DataFrame, ax, *, init: str, depth: int):
    """The three printed forms of Theorem 1 (constants as printed) and the exact value at initialisation."""
    if rows.empty:
        return ax
    widths, shape = _fine(rows), {"depth": depth} | d_in_and_out(rows)
    for version, (name, dash) in BOUNDS.items():
        values = [theory.theorem1(init, width=m, version=version, **shape) for m in widths]
        theory_line(ax, {"width": widths}, values, f"theorem1 {version}", linestyle=dash, label=name)
    exact, name = [theory.stability_at_init(init, width=m, **shape) for m in widths], "exact at initialisation"
    theory_line(ax, {"width": widths}, exact, name, linewidth=0.6, label=name)
    return ax


def terms(rows: pandas.DataFrame, ax, *, depth: int):
    """The two terms of Theorem 1 for He (black), and P at initialisation (grey) and after training, of one depth.

    The first term falls without end: below a fifth of everything else it is not drawn, but recorded.
    """
    rows = rows[rows["depth"] == depth]
    if rows.empty:
        return nothing(ax)
    lowest, widths = _before_and_after(rows, ax), _fine(rows)
    first, second = _terms(rows, widths, depth).T
    drawn = np.where(first >= min(second.min(), lowest) / 5, first, np.nan)
    ax.plot(widths, drawn, color="black", linestyle="--", linewidth=1, label="first term")
    record(ax, {"width": widths, "mean": first}, "first term, neurips")
    theory_line(ax, {"width": widths}, second, "second term, neurips", linestyle=":", label="second term")
    return ax


def _before_and_after(rows: pandas.DataFrame, ax) -> float:
    """P against width at initialisation (grey) and after training, with bands; returns the lowest mean."""
    before = {"color": "0.55", "marker": "s", "label": "initial"}
    after = {"color": look("init", rows["init"].iloc[0])["color"], "marker": "o", "label": "trained"}
    lowest = math.inf
    for y, style in (("stability_init", before), ("stability", after)):
        curve = summarise(rows, x="width", y=y, by="depth")
        mean_and_band(ax, curve, "width", **style)
        record(ax, curve, y)
        lowest = min(lowest, curve["mean"].min())
    set_axes(ax, "width", "stability", rows["width"])
    return lowest


def peak_places(rows: pandas.DataFrame) -> pandas.DataFrame:
    """For each depth, the width with the largest mean P, and its ratio to P of the narrowest and the widest network.

    Beside it the width where the printed bound is largest and the one where #parameters = n.
    """
    table = []
    for depth, curve in summarise(rows, x="width", y="stability", by="depth").dropna(subset="mean").groupby("depth"):
        widths, means, n = curve["width"], curve["mean"], sizes(rows.iloc[0])[-1]
        ratios = means.max() / means.iloc[[0, -1]]
        marks = theory.peak_width(depth), theory.interpolation_width(depth, n=n, **d_in_and_out(rows))
        table.append((depth, ends(widths), widths[means.idxmax()], means.max(), *ratios, *marks))
    return pandas.DataFrame(table, columns=PEAKS).round(3)


def lemma4(*, widths, depths, d_in: int, d_out: int, init: str = "he") -> pandas.DataFrame:
    """Lemma 4's printed bound, the piece its proof leaves out, and their ratio, for each depth and width.

    printed: gamma^(L-2) sqrt(pi L^3 m^2 beta_1^2 beta_L^2 / 8) exp(-m/L^3);  omitted: sqrt(m/u) with
    u = 2/(m beta_1^2 beta_L^2 gamma^(2(L-2))): the integral from 0 to where the tail bound begins to hold.
    Source: [W Lemma 4]. Their ratio 2 exp(m/L^3) / sqrt(pi L^3) is the same for every initialisation.
    """
    table = []
    for depth, width in itertools.product(depths, widths):
        shape = {"width": width, "depth": depth, "d_in": d_in, "d_out": d_out}
        printed, gammas = theory.theorem1_terms(init, version="workshop", **shape)
        betas = layer_stds(init, **shape)
        omitted = width * betas[0] * betas[-1] * gammas / math.sqrt(2)
        table.append((depth, width, printed, omitted, omitted / printed if printed else math.inf))
    return pandas.DataFrame(table, columns=[*LEMMA4[:4], "omitted/printed"])


def lemma4_measured(moved: pandas.DataFrame) -> pandas.DataFrame:
    """`lemma4` at the depths and widths of rows of the measure "jacobian_change", beside what was measured there.

    E||J_T - J_0||_2 is the left side of [W Eq. 10], a geometric mean over seeds. "(9) at least": the left side of
    [W Eq. 9] over eps, from below, by frobenius_sandwich times E||J_T - J_0||_F. The ranges are those of
    [W Lemma 4], m >= d L^3, with d read as the output size (Allen-Zhu et al.) or the input size (the paper).
    """
    tables, good = [pandas.DataFrame(columns=LEMMA4)], moved[moved["status"] == "ok"]
    for (init, depth), curve in good.groupby(["init", "depth"]):
        names = ("jacobian_change", "frobenius_change")
        spectral, frobenius = (summarise(curve, x="width", y=name, by="depth") for name in names)
        shape, widths = d_in_and_out(curve), spectral["width"].to_numpy(int)
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
    orders = _table2(rows, curve["width"], depth)
    for column, (name, dash) in ORDERS.items():
        values = curve["mean"].iloc[0] * orders[column] / orders[column].iloc[0]
        theory_line(ax, {"width": orders.index}, values.tolist(), f"table2 {column}", linestyle=dash, label=name)
    return ax


def _table2(rows: pandas.DataFrame, widths, depth) -> pandas.DataFrame:
    """The orders of Table 2, a row per width."""
    d_out = sizes(rows.iloc[0])[1]
    return pandas.DataFrame(
        [theory.table2(width=int(m), depth=int(depth), d_out=d_out) for m in widths], index=widths
    )
