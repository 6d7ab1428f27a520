"""Theory against depth beside what was measured: exact values at initialisation and Table 1."""

from __future__ import annotations

import numpy as np
import pandas

from .. import theory
from ..ledger.rows import scheme
from .curves import against
from .style import legend, look, nothing, theory_line
from .tables import d_in_and_out


def exact_in_depth(rows: pandas.DataFrame, ax):
    """The exact mean of P at initialisation against depth, for rows of one initialisation: a thin line per width."""
    if rows.empty:
        return ax
    name, depths = "exact at initialisation", range(2, rows["depth"].max() + 1)
    for width, part in rows.groupby("width"):
        values = [theory.stability_at_init(**scheme(part.iloc[0]) | {"depth": L}) for L in depths]
        style = {"linewidth": 0.6, "zorder": 4, "label": name if width == rows["width"].min() else "_exact"}
        theory_line(ax, {"width": width, "depth": depths}, values, name, **style)
    return legend(ax)


def bounds_in_depth(rows: pandas.DataFrame, ax, *, init: str):
    """Against depth: the exact initial value of each width (thin), and Table 1 as printed for the middle one."""
    if rows.empty:
        return ax
    exact_in_depth(rows, ax)
    widths = sorted(rows["width"].unique())
    middle = int(widths[len(widths) // 2])
    for version, name, dash in (("neurips", "NeurIPS", "--"), ("workshop", "workshop", ":")):
        style = {"linestyle": dash, "label": f"Table 1, {name}, $m$ = {middle}"}
        _table1(rows, ax, f"table1 {version}", init=init, width=middle, version=version, **style)
    return legend(ax)


def table1_in_depth(rows: pandas.DataFrame, ax, *, init: str, widths=None):
    """P against depth (solid) and Table 1 as printed in the NeurIPS version (dashed), a colour per width."""
    rows = rows if widths is None else rows[rows["width"].isin(widths)]
    if rows.empty:
        return nothing(ax)
    against(rows, ax, x="depth", by="width")
    for width in sorted(rows["width"].unique()):
        style = {"color": look("width", width)["color"], "linestyle": "--", "label": "_table1"}
        _table1(rows, ax, f"table1 {init}", init=init, width=int(width), version="neurips", **style)
    ax.plot([], [], "--", color="0.4", linewidth=1, label="Table 1")
    return legend(ax)


def _table1(rows: pandas.DataFrame, ax, quantity: str, *, init: str, width: int, version: str, **style) -> None:
    shape, depths = {"width": width, "version": version} | d_in_and_out(rows), range(2, rows["depth"].max() + 1)
    values = [theory.table1(init, depth=L, **shape) for L in depths]
    theory_line(ax, {"width": width, "depth": depths}, values, quantity, **style)


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
