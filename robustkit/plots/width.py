"""Printed bounds beside measurements: Theorem 1's terms, Lemma 4, Tables 1 and 2, in width and in depth."""

from __future__ import annotations

import math

import numpy as np
import pandas

from .. import theory
from ..datasets import dataset_info
from ..initialization import layer_stds
from ..ledger import initial_value
from ..ledger import rows as ledger_rows
from ..ledger.rows import dimensions, summarise
from . import curves
from .curves import _record, colours, log_ticks, nothing, powers

TERMS = {"first term": "--", "second term": ":"}
LEMMA4 = ["L", "m", "printed", "omitted", "E||J_T - J_0||_2", "(9) at least", "n", "m >= o L^3", "m >= d L^3"]
SHAPES = {"ours": ("ours", "--"), "wu": ("Wu et al.", ":"), "huang": ("Huang et al.", "-.")}


def terms(rows: pandas.DataFrame, ax, *, depth: int, init: str = "he", version: str = "neurips"):
    """The two terms of Theorem 1 apart (black), and P at initialisation (grey) and after training (blue) of a depth.

    The first term falls without end: below a fifth of everything else it is not drawn, but recorded.
    """
    rows = rows[rows["depth"] == depth]
    if rows.empty:
        return nothing(ax)
    lowest = _before_and_after(rows, ax)
    widths = np.unique(np.geomspace(rows["width"].min(), rows["width"].max(), 60).round().astype(int))
    pairs = np.array([_terms(rows, init, m, depth, version) for m in widths])
    floor = min(pairs[:, 1].min(), lowest) / 5
    for values, (label, dash) in zip(pairs.T, TERMS.items(), strict=True):
        shown = np.where(values >= floor, values, np.nan)
        ax.plot(widths, shown, color="black", linestyle=dash, linewidth=1, label=label)
        curves._record(ax, pandas.DataFrame({"width": widths, "mean": values, "quantity": f"{label}, {version}"}))
    log_ticks(ax.yaxis)
    return ax


def _before_and_after(rows: pandas.DataFrame, ax) -> float:
    """P against width at initialisation (grey) and after training (blue), with bands; returns the lowest mean."""
    looks = {"stability_init": ("0.55", "s", "initial"), "stability": (colours([0])[0], "o", "trained")}
    lowest = math.inf
    for y, (colour, marker, label) in looks.items():
        curve = ledger_rows.summarise(rows, x="width", y=y, by="depth")
        ax.plot(curve["width"], curve["mean"], color=colour, marker=marker, markersize=3.5, label=label)
        ax.fill_between(curve["width"], curve["low"], curve["high"], color=colour, alpha=0.2, linewidth=0)
        curves._record(ax, curve.assign(quantity=y))
        lowest = min(lowest, curve["mean"].min())
    curves._axes(ax, "width", "stability", rows["width"], True)
    return lowest


def domination(rows: pandas.DataFrame, *, init: str = "he", version: str = "neurips") -> pandas.DataFrame:
    """For each depth, the constant C that the bound needs: the largest P / bound over widths, and where it is.

    P is the geometric mean over seeds. "range over widths": that largest ratio over the smallest, how far the bound's
    shape is from the measured one. A largest ratio at the end of the grid may grow beyond it.
    """
    table = []
    for depth in sorted(rows["depth"].unique()):
        line = {"depth": int(depth)}
        for name, y in (("initial", "stability_init"), ("trained", "stability")):
            curve = ledger_rows.summarise(rows[rows["depth"] == depth], x="width", y=y, by="depth").dropna(
                subset="mean"
            )
            if curve.empty:
                continue
            pairs = [_terms(rows, init, m, int(depth), version) for m in curve["width"]]
            ratio = curve["mean"].to_numpy(float) / np.sum(pairs, axis=1)
            line |= {f"C, {name}": ratio.max(), f"at m, {name}": int(curve["width"].iloc[ratio.argmax()])}
            line |= {f"range over widths, {name}": ratio.max() / ratio.min()}
            line |= {f"C without the first term, {name}": (curve["mean"] / [b for _, b in pairs]).max()}
        table.append(line)
    names = ("C", "at m", "range over widths", "C without the first term")
    columns = [f"{name}, {when}" for when in ("initial", "trained") for name in names]
    return pandas.DataFrame(table, columns=["depth", *columns]).round(3)


def peak_places(rows: pandas.DataFrame) -> pandas.DataFrame:
    """plots.peaks, with the width where the printed bound is largest and the one where #parameters = n."""
    columns = ["depth", "widths", "peak at", "peak", "over the narrowest", "over the widest"]
    found = peaks(rows).reindex(columns=columns)
    if found.empty:
        return found.assign(**{"printed peak, L^3/2": [], "#parameters = n at": []})
    d_in, d_out = ledger_rows.dimensions(rows)
    n = dataset_info(rows["dataset"].iloc[0]).n_train
    crossing = [theory.interpolation_width(int(L), d_in=d_in, d_out=d_out, n=n) for L in found["depth"]]
    printed = [theory.peak_width(L) for L in found["depth"]]
    return found.assign(**{"printed peak, L^3/2": printed, "#parameters = n at": crossing}).round(3)


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
            ratio = 2 * theory._exp(width / depth**3) / math.sqrt(math.pi * depth**3)
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
        means = [
            ledger_rows.summarise(curve, x="width", y=f"{norm}_change", by="depth")
            for norm in ("jacobian", "frobenius")
        ]
        widths = means[0]["width"].to_numpy(int)
        d_in, d_out = ledger_rows.dimensions(curve)
        table = lemma4(widths=widths.tolist(), depths=[int(depth)], d_in=d_in, d_out=d_out, init=init)
        table["E||J_T - J_0||_2"] = means[0]["mean"].to_numpy(float)
        table["(9) at least"] = initial_value.frobenius_sandwich(d_in)[0] * means[1]["mean"].to_numpy(float)
        table["n"] = means[0]["n"].to_numpy(int)
        table["m >= o L^3"], table["m >= d L^3"] = widths >= d_out * depth**3, widths >= d_in * depth**3
        tables.append(table[LEMMA4])
    return pandas.concat(tables[1:] or tables, ignore_index=True)


def table2_shapes(rows: pandas.DataFrame, ax, *, depth: int):
    """P of trained NTK networks of one depth and the three orders of Table 2, each through the narrowest width."""
    rows = rows[rows["depth"] == depth]
    curve = ledger_rows.summarise(rows, x="width", y="stability", by="depth").dropna(subset="mean")
    if curve.empty:
        return nothing(ax)
    _before_and_after(rows, ax)
    first, widths = curve.iloc[0], curve["width"].tolist()
    orders = _table2(rows, widths, depth)
    for name, (label, dash) in SHAPES.items():
        values = first["mean"] * orders[name] / orders[name].iloc[0]
        ax.plot(widths, values, color="black", linestyle=dash, linewidth=1, label=label)
        curves._record(ax, pandas.DataFrame({"width": widths, "mean": values, "quantity": f"table2 {name}"}))
    log_ticks(ax.yaxis)
    return ax


def table2_slopes(rows: pandas.DataFrame) -> pandas.DataFrame:
    """The powers of m in P of trained networks, and those of the orders of Table 2 over the same widths."""
    table = powers(rows, "stability")
    widths = {depth: sorted(curve["width"].unique()) for depth, curve in rows.groupby("depth")}
    for name, (label, _) in SHAPES.items():
        orders = {depth: _table2(rows, ms, int(depth))[name] for depth, ms in widths.items()}
        slopes = [np.polyfit(np.log(widths[L]), np.log(orders[L]), 1)[0] for L in table["depth"]]
        table[label] = np.array(slopes, dtype=float)
    return table


def _terms(rows, init: str, width, depth: int, version: str) -> tuple[float, float]:
    d_in, d_out = ledger_rows.dimensions(rows)
    return theory.theorem1_terms(init, width=int(width), depth=depth, d_in=d_in, d_out=d_out, version=version)


def _table2(rows, widths, depth: int) -> pandas.DataFrame:
    _, d_out = ledger_rows.dimensions(rows)
    orders = pandas.DataFrame([theory.table2(width=int(m), depth=depth, d_out=d_out) for m in widths])
    return orders[list(SHAPES)]


BOUNDS = {"neurips": "NeurIPS Eq. (3)", "workshop": "workshop Eq. (3)", "proof": "workshop, end of B.2"}


DASHES = {"neurips": "--", "workshop": ":", "proof": "-."}


def bounds(rows: pandas.DataFrame, ax, *, init: str, depth: int):
    """The three printed forms of Theorem 1 (constants as printed) and the exact value at initialisation."""
    if rows.empty:
        return ax
    d_in, d_out = dimensions(rows)
    widths = np.unique(np.geomspace(rows["width"].min(), rows["width"].max(), 60).round().astype(int))
    shape = {"depth": depth, "d_in": d_in, "d_out": d_out}
    for version, label in BOUNDS.items():
        values = [theory.theorem1(init, width=m, version=version, **shape) for m in widths]
        ax.plot(widths, values, color="black", linestyle=DASHES[version], linewidth=1, label=label)
        _record(ax, pandas.DataFrame({"width": widths, "mean": values, "quantity": f"theorem1 {version}"}))
    exact = [theory.stability_at_init(init, width=m, **shape) for m in widths]
    ax.plot(widths, exact, color="black", linewidth=0.6, label="exact at initialisation")
    _record(ax, pandas.DataFrame({"width": widths, "mean": exact, "quantity": "exact at initialisation"}))
    return ax


def one_legend(figure, axes) -> None:
    """Replace the legends of panels that share their lines by one below the figure."""
    lines = {}
    for ax in axes:
        handles, labels = ax.get_legend_handles_labels()
        lines |= {label: handle for handle, label in zip(handles, labels, strict=True) if "$L$" not in label}
        ax.label_outer()
        if ax.get_legend():
            ax.get_legend().remove()
    figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=len(lines) or 1, fontsize=7)


def peaks(rows: pandas.DataFrame) -> pandas.DataFrame:
    """For each depth, the width with the largest mean P, and its ratio to the narrowest and the widest network."""
    table = []
    for depth, curve in summarise(rows, x="width", y="stability", by="depth").dropna(subset="mean").groupby("depth"):
        widths, means = curve["width"].tolist(), curve["mean"].tolist()
        top = max(means)
        table.append(
            {
                "depth": depth,
                "widths": f"{widths[0]} to {widths[-1]}",
                "peak at": widths[means.index(top)],
                "peak": top,
            }
            | {"over the narrowest": top / means[0], "over the widest": top / means[-1]}
        )
    return pandas.DataFrame(table).round(3)
