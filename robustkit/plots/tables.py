"""Tables of rows: powers of the width, P per layer."""

from __future__ import annotations

import math

import pandas

from .. import theory
from ..ledger import statistics
from ..ledger.rows import scheme, sizes, values_by
from .style import label


def _slope(values: dict[float, list[float]], show=lambda slope: slope) -> str:
    """The slope of log y in log x with its 95 % interval, for {x: y over seeds}, after `show`."""
    fit = statistics.rate(values)
    return "{:.3f} [{:.3f}, {:.3f}]".format(*map(show, (fit.estimate, fit.low, fit.high)))


def d_in_and_out(rows: pandas.DataFrame) -> dict[str, int]:
    return dict(zip(("d_in", "d_out"), sizes(rows.iloc[0])[:2], strict=True))


def ends(values) -> str:
    """The range of values in words: "16 to 512"."""
    return f"{min(values)} to {max(values)}"


def slopes(rows: pandas.DataFrame, times: dict[str, int]) -> pandas.DataFrame:
    """Slope of log P in log m with its 95 % interval: a row per power c, a column per index into FRACTIONS."""
    table = []
    for power, curve in rows[rows["status"] == "ok"].groupby("power"):
        widths = curve.groupby("width")["stability_over_time"]
        at = {name: {m: [v[index] for v in values] for m, values in widths} for name, index in times.items()}
        table.append({"c": power} | {name: _slope(values) for name, values in at.items()})
    return pandas.DataFrame(table, columns=["c", *times])


def powers(rows: pandas.DataFrame, y: str) -> pandas.DataFrame:
    """Power of m in y, d log y / d log m, with its 95 % interval: a row per initialisation, depth and schedule."""
    columns, table = ["init", "depth", "schedule"], []
    for (init, depth, schedule), curve in rows.groupby(columns):
        if curve["width"].nunique() > 1:
            power = _slope(values_by(curve, y))
            table.append((label("init", init), depth, schedule, ends(curve["width"]), power))
    return pandas.DataFrame(table, columns=[*columns, "widths", "power of m"])


def per_layer(rows: pandas.DataFrame) -> pandas.DataFrame:
    """The factor by which P changes per layer, exp(d log P / d L), by initialisation, width and schedule.

    With 95 % intervals. "exact": the same of theory.stability_at_init between the first and the last depth.
    """
    columns, table = ["init", "width", "schedule"], []
    for (init, width, schedule), curve in rows.groupby(columns):
        first, last = curve["depth"].min(), curve["depth"].max()
        if first == last:
            continue
        below, above = (theory.stability_at_init(**scheme(curve.iloc[0]) | {"depth": int(L)}) for L in (first, last))
        line = [label("init", init), width, schedule, ends(curve["depth"]), (above / below) ** (1 / (last - first))]
        for y in ("stability_init", "stability"):  # a power of exp(L) is a rate in L
            values = {math.exp(L): v for L, v in values_by(curve, y, "depth").items()}
            line.append(_slope(values, math.exp))
        table.append(line)
    return pandas.DataFrame(table, columns=[*columns, "depths", "exact", "initial", "trained"]).round(3)
