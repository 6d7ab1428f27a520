"""Curves of rows: a measure against width or depth, over epochs, along training, or against another measure."""

from __future__ import annotations

import numpy as np
import pandas

from .. import theory
from ..cell import EVALUATION_POINTS, FRACTIONS
from ..ledger.rows import sizes, summarise
from .style import LABELS, label, legend, look, mean_and_band, nothing, record, set_axes


def against(rows: pandas.DataFrame, ax, *, x: str = "width", y: str = "stability", by: str = "depth", log=True):
    """y against x, a curve per value of `by`: seeds as dots, geometric mean over them and its 95 % band."""
    table = summarise(rows, x=x, y=y, by=by)
    for value, curve in table.groupby(by):
        seeds, style = rows[rows[by] == value], look(by, value)
        ax.plot(seeds[x], seeds[y], ".", color=style["color"], alpha=0.35, markersize=3, label="_seeds")
        mean_and_band(ax, curve, x, label=label(by, value), **style)
    set_axes(ax, x, y, table[x], log=log)
    record(ax, table, y)
    return legend(ax) if len(table) else nothing(ax)


def over_time(rows: pandas.DataFrame, ax, *, y: str = "kappa_over_time", by: str = "width"):
    """A recorded quantity against epochs: mean over seeds of each curve, every seed as a thin line."""
    fractions = FRACTIONS if y == "stability_over_time" else EVALUATION_POINTS
    good = rows[rows["status"] == "ok"]
    ax.set(xlabel="epoch", ylabel=LABELS[y.removesuffix("_over_time")])
    if good.empty:
        return nothing(ax)
    for value, curve in good.groupby(by):
        colour, epochs = look(by, value)["color"], np.array(fractions) * curve["epochs"].iloc[0]
        series = pandas.DataFrame(curve[y].tolist(), columns=range(len(fractions))).to_numpy(float)
        mean = np.nanmean(series, axis=0)  # a run that stopped early has NaN after its end
        ax.plot(epochs, series.T, color=colour, alpha=0.3, linewidth=0.6)
        ax.plot(epochs, mean, color=colour, label=label(by, value))
        record(ax, {by: value, "epochs": epochs, "mean": mean, "n": np.isfinite(series).sum(0)}, y)
    for milestone in good["milestones"].iloc[0]:
        ax.axvline(milestone * good["epochs"].iloc[0], color="0.8", linewidth=0.7, zorder=0)
    return legend(ax)


def along_training(rows: pandas.DataFrame, ax, *, by: str = "width"):
    """P against training loss at FRACTIONS of training, a line per run, from its start (ring) to its end (dot)."""
    good = rows[rows["status"] == "ok"]
    if good.empty:
        return nothing(ax)
    for value, curve in good.groupby(by):
        colour = look(by, value)["color"]
        for number, row in enumerate(curve.itertuples()):
            loss, stability = row.loss_at_stability, row.stability_over_time
            name = "_seed" if number else label(by, value)
            ax.plot(loss, stability, "-", color=colour, linewidth=0.7, alpha=0.6, label=name)
            ax.plot(loss[0], stability[0], "o", color=colour, markerfacecolor="white", markersize=3)
            ax.plot(loss[-1], stability[-1], "o", color=colour, markersize=3)
            table = {by: value, "seed": row.seed, "fraction": FRACTIONS[: len(loss)], "x": loss, "mean": stability}
            record(ax, table, "stability against training loss")
    ax.set(xscale="log", yscale="log", xlabel="training loss (falls to the right)", ylabel=LABELS["stability"])
    ax.invert_xaxis()
    return legend(ax)


def scatter(rows: pandas.DataFrame, ax, *, x: str, diagonal: bool = True):
    """P after training against another measure, a dot per run; the diagonal is where both agree."""
    good = rows[(rows["status"] == "ok") & (rows[x] > 0) & (rows["stability"] > 0)]
    if good.empty:
        return nothing(ax)
    for depth, part in good.groupby("depth"):
        style = look("depth", depth) | {"linestyle": "none", "markersize": 3.5, "alpha": 0.8}
        ax.plot(part[x], part["stability"], label=label("depth", depth), **style)
        table = part[["depth", "width", "seed"]].assign(x=part[x], mean=part["stability"])
        record(ax, table, f"stability against {x}")
    if diagonal:
        values = good[[x, "stability"]].to_numpy(float)
        ends = values.min() / 1.1, values.max() * 1.1
        ax.plot(ends, ends, color="0.6", linewidth=0.8, zorder=0, label="_diagonal")
    ax.set(xscale="log", yscale="log", xlabel=LABELS.get(x, x), ylabel=LABELS["stability"])
    return legend(ax)


def mark_transitions(rows: pandas.DataFrame, ax):
    """Mark on the width axis, for each depth, #parameters = n (|) and the peak of Table 1's bound, m = L^3/2 (^)."""
    if rows.empty:
        return ax
    d_in, d_out, n = sizes(rows.iloc[0])
    low, high = ax.get_xlim()
    bottom, top = ax.get_ylim()
    ax.set_ylim(bottom * (bottom / top) ** 0.18, top)  # room for the marks below the curves
    place = {"transform": ax.get_xaxis_transform(), "clip_on": False, "label": "_mark"}
    bar, triangle = {"marker": "|", "markersize": 8, "markeredgewidth": 1.5}, {"marker": "^", "markersize": 4}
    for depth in sorted(rows["depth"].unique()):
        crossing, peak = theory.interpolation_width(depth, d_in=d_in, d_out=d_out, n=n), theory.peak_width(depth)
        for at, up, style in ((crossing, 0.03, bar), (peak, 0.09, triangle)):
            if low <= at <= high:
                ax.plot([at], [up], **place, **look("depth", depth) | style)
    for name, style in (("#parameters = $n$", bar), ("$m = L^3/2$", triangle)):
        ax.plot([], [], linestyle="none", color="0.4", label=name, **style)
    return legend(ax)
