"""Figure 5 and what stands beside it: P and the bounds against depth."""

from __future__ import annotations

import math

import numpy as np
import pandas

from .. import theory
from ..ledger import rows as ledger_rows
from ..ledger import statistics
from ..ledger.rows import dimensions
from . import curves
from .curves import _legend, _record, colours, log_ticks, nothing


def bounds_in_depth(rows: pandas.DataFrame, ax, *, init: str):
    """Over depth: the exact initial value of each width (thin), and Table 1 as printed for the middle one."""
    if rows.empty:
        return ax
    d_in, d_out = dimensions(rows)
    widths, depths = sorted(rows["width"].unique()), np.arange(2, rows["depth"].max() + 1)
    shape = {"d_in": d_in, "d_out": d_out}
    for width in widths:
        exact = [theory.stability_at_init(init, width=int(width), depth=int(L), **shape) for L in depths]
        label = "exact at initialisation" if width == widths[0] else "_exact"
        ax.plot(depths, exact, color="black", linewidth=0.6, zorder=4, label=label)
        _record(
            ax,
            pandas.DataFrame({"width": width, "depth": depths, "mean": exact, "quantity": "exact at initialisation"}),
        )
    middle = int(widths[len(widths) // 2])
    for version, name, dash in (("neurips", "NeurIPS", "--"), ("workshop", "workshop", ":")):
        values = [theory.table1(init, width=middle, depth=int(L), version=version, **shape) for L in depths]
        ax.plot(depths, values, color="black", linestyle=dash, linewidth=1, label=f"Table 1, {name}, $m$ = {middle}")
        _record(
            ax, pandas.DataFrame({"width": middle, "depth": depths, "mean": values, "quantity": f"table1 {version}"})
        )
    _legend(ax)
    return ax


def table1_in_depth(rows: pandas.DataFrame, ax, *, init: str, widths=None, y: str = "stability"):
    """P against depth (solid) and Table 1 as printed in the NeurIPS version (dashed), a colour a width."""
    rows = rows if widths is None else rows[rows["width"].isin(widths)]
    if rows.empty:
        return nothing(ax)
    curves.against(rows, ax, x="depth", y=y, by="width")
    d_in, d_out = ledger_rows.dimensions(rows)
    depths = np.arange(2, rows["depth"].max() + 1)
    shape = {"d_in": d_in, "d_out": d_out, "version": "neurips"}
    for colour, width in zip(colours(rows["width"]), sorted(rows["width"].unique()), strict=True):
        values = [theory.table1(init, width=int(width), depth=int(L), **shape) for L in depths]
        ax.plot(depths, values, "--", color=colour, linewidth=1, label="_table1")
        table = pandas.DataFrame({"width": width, "depth": depths, "mean": values, "quantity": f"table1 {init}"})
        curves._record(ax, table)
    ax.plot([], [], "--", color="0.4", linewidth=1, label="Table 1")
    log_ticks(ax.yaxis)
    curves._legend(ax)
    return ax


def exact_in_depth(rows: pandas.DataFrame, ax):
    """The exact mean of P at initialisation against depth, for rows of one scheme: a thin black line a width."""
    for init, gain, width in rows[["init", "gain", "width"]].drop_duplicates().itertuples(index=False):
        d_in, d_out = ledger_rows.dimensions(rows)
        shape = {"width": int(width), "d_in": d_in, "d_out": d_out, "gain": gain if init == "gain" else None}
        depths = np.arange(2, rows["depth"].max() + 1)
        values = [theory.stability_at_init(init, depth=int(L), **shape) for L in depths]
        ax.plot(depths, values, color="black", linewidth=0.6, zorder=4, label="_exact")
        table = {"width": width, "depth": depths, "mean": values, "quantity": "exact at initialisation"}
        curves._record(ax, pandas.DataFrame(table))
    return ax


def rise_in_depth(*, widths, d_in: int, d_out: int, init: str = "lecun") -> pandas.DataFrame:
    """Where the bound of Table 1 rises most in L, for each version and width: from L, to L, and the factor.

    A factor common to the whole bound does not change this; the two versions keep different constants in its terms.
    """
    table, depths = [], range(2, 41)
    for version in ("neurips", "workshop"):
        for width in widths:
            shape = {"width": width, "d_in": d_in, "d_out": d_out, "version": version}
            values = np.array([theory.table1(init, depth=L, **shape) for L in depths])
            lowest = np.minimum.accumulate(values)
            top = int((values / lowest).argmax())
            bottom = int(values[: top + 1].argmin())
            rises = {"from L": depths[bottom], "to L": depths[top], "factor": values[top] / values[bottom]}
            table.append({"version": version, "m": width} | rises)
    return pandas.DataFrame(table)


def per_layer(rows: pandas.DataFrame) -> pandas.DataFrame:
    """The factor by which P changes a layer, exp(d log P / d L) by scheme, width and schedule, with 95 % intervals.

    "exact": the same of theory.stability_at_init between the first and the last depth.
    """
    table = []
    for (init, width, schedule), curve in rows.groupby(["init", "width", "schedule"]):
        depths = sorted(curve["depth"].unique())
        if len(depths) < 2:
            continue
        gain = float(curve["gain"].iloc[0]) if init == "gain" else None
        d_in, d_out = ledger_rows.dimensions(curve)
        shape = {"width": int(width), "d_in": d_in, "d_out": d_out, "gain": gain}
        ends = [theory.stability_at_init(init, depth=int(L), **shape) for L in (depths[0], depths[-1])]
        line = {"init": curves.NAMES[init], "width": width, "schedule": schedule}
        line["depths"] = f"{depths[0]} to {depths[-1]}"
        line["exact"] = (ends[1] / ends[0]) ** (1 / (depths[-1] - depths[0]))
        for name, y in (("initial", "stability_init"), ("trained", "stability")):
            # A power of exp(L) is a rate in L.
            values = {math.exp(L): v for L, v in ledger_rows.values_by(curve, y, "depth").items()}
            found = statistics.rate(values)
            line[name] = f"{math.exp(found.estimate):.3f} [{math.exp(found.low):.3f}, {math.exp(found.high):.3f}]"
        table.append(line)
    columns = ["init", "width", "schedule", "depths", "exact", "initial", "trained"]
    return pandas.DataFrame(table, columns=columns).round(3)
