"""Theory against depth beside what was measured: exact values at initialisation and Table 1."""

from __future__ import annotations

import numpy as np
import pandas

from .. import theory
from ..ledger.rows import sizes
from .curves import against
from .style import legend, look, nothing, theory_line


def _depths_and_shape(rows: pandas.DataFrame) -> tuple[np.ndarray, dict[str, int]]:
    d_in, d_out, _ = sizes(rows.iloc[0])
    return np.arange(2, rows["depth"].max() + 1), {"d_in": d_in, "d_out": d_out}


def exact_in_depth(rows: pandas.DataFrame, ax):
    """The exact mean of P at initialisation against depth, for rows of one initialisation: a thin line per width."""
    if rows.empty:
        return ax
    name, (depths, shape) = "exact at initialisation", _depths_and_shape(rows)
    networks = rows[["init", "gain", "width"]].drop_duplicates().sort_values("width")
    for init, gain, width in networks.itertuples(index=False):
        own = shape | {"width": int(width), "gain": gain if init == "gain" else None}
        values = [theory.stability_at_init(init, depth=int(L), **own) for L in depths]
        style = {"linewidth": 0.6, "zorder": 4, "label": name if width == rows["width"].min() else "_exact"}
        theory_line(ax, {"width": width, "depth": depths}, values, name, **style)
    return legend(ax)


def bounds_in_depth(rows: pandas.DataFrame, ax, *, init: str):
    """Against depth: the exact initial value of each width (thin), and Table 1 as printed for the middle one."""
    if rows.empty:
        return ax
    exact_in_depth(rows, ax)
    depths, shape = _depths_and_shape(rows)
    widths = sorted(rows["width"].unique())
    middle = int(widths[len(widths) // 2])
    for version, name, dash in (("neurips", "NeurIPS", "--"), ("workshop", "workshop", ":")):
        values = [theory.table1(init, width=middle, depth=int(L), version=version, **shape) for L in depths]
        style = {"linestyle": dash, "label": f"Table 1, {name}, $m$ = {middle}"}
        theory_line(ax, {"width": middle, "depth": depths}, values, f"table1 {version}", **style)
    return legend(ax)


def table1_in_depth(rows: pandas.DataFrame, ax, *, init: str, widths=None):
    """P against depth (solid) and Table 1 as printed in the NeurIPS version (dashed), a colour per width."""
    rows = rows if widths is None else rows[rows["width"].isin(widths)]
    if rows.empty:
        return nothing(ax)
    against(rows, ax, x="depth", by="width")
    depths, shape = _depths_and_shape(rows)
    for width in sorted(rows["width"].unique()):
        values = [theory.table1(init, width=int(width), depth=int(L), version="neurips", **shape) for L in depths]
        style = {"color": look("width", width)["color"], "linestyle": "--", "label": "_table1"}
        theory_line(ax, {"width": width, "depth": depths}, values, f"table1 {init}", **style)
    ax.plot([], [], "--", color="0.4", linewidth=1, label="Table 1")
    return legend(ax)


def rise_in_depth(*, widths, d_in: int, d_out: int) -> pandas.DataFrame:
    """Where the LeCun bound of Table 1 rises most in L, by version and width: from L, to L, and the factor.

    A factor common to the whole bound does not change this; the two versions keep different constants in its terms.
    """
    table, depths = [], range(2, 41)
    for version in ("neurips", "workshop"):
        for width in widths:
            shape = {"width": width, "d_in": d_in, "d_out": d_out, "version": version}
            values = np.array([theory.table1("lecun", depth=L, **shape) for L in depths])
            top = (values / np.minimum.accumulate(values)).argmax()
            bottom = values[: top + 1].argmin()
            table.append((version, width, depths[bottom], depths[top], values[top] / values[bottom]))
    return pandas.DataFrame(table, columns=["version", "m", "from L", "to L", "factor"])
