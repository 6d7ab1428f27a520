"""The short schedule (flow10: a tenth of the steps at ten times the learning rate) compared with the paper's."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pandas
from scipy.stats import bartlett

from ..cell import Cell
from ..profiles import profile_cells, twin
from . import statistics
from .rows import curve_name, reading_of, usable, values_by

CURVE = ["reading", "init", "power", "gain", "depth"]
_SAME = [name for name in Cell.__dataclass_fields__ if name not in ("epochs", "lr")]


def pairs(rows: pandas.DataFrame) -> pandas.DataFrame:
    """P under the short schedule over P under the paper's: one row per cell trained under both.

    Seeds are paired: they start from the same weights. ratio, low, high: geometric mean over seeds and its 95 %
    interval, the spread of ratios pooled over the widths of a curve. spread: standard deviation of log P over the
    seeds under the short schedule, pooled over the widths of the curve unless Bartlett's test finds it unequal there.
    moved: |log ratio| > spread. loss, loss_full: mean training losses. reading: that of the short schedule, see
    rows.reading_of.
    """
    columns = ["model", *CURVE, "width", "n", "ratio", "low", "high", "spread", "moved", "loss", "loss_full"]
    good = rows[usable(rows, "stability")] if len(rows) else rows
    if good.empty:
        return pandas.DataFrame(columns=columns)
    reading = good["reading"] if "reading" in good else [reading_of(row) for row in good.to_dict("records")]
    good = good.assign(
        reading=reading,
        same=[str(fields) for fields in good[_SAME].itertuples(index=False)],
        lr=good["lr"].round(9),
        **good[["power", "gain"]].astype(float).fillna(0),
    )
    full = good.assign(epochs=good["epochs"] / 10, lr=(10 * good["lr"]).round(9))
    own = ["same", "epochs", "lr"]
    both = good.merge(full[[*own, "stability", "train_loss"]], on=own, suffixes=("", "_full"))
    every, lines = dict(list(good.groupby(CURVE))), []
    for name, curve in both.groupby(CURVE):
        spreads = _spreads(values_by(every[name], "stability"))
        ratios = {width: cell["stability"] / cell["stability_full"] for width, cell in curve.groupby("width")}
        losses = curve.groupby("width")[["train_loss", "train_loss_full"]].mean()
        for width, ratio in statistics.intervals(ratios).items():
            line = dict(zip(CURVE, name, strict=True)) | {"model": curve["model"].iloc[0], "width": int(width)}
            line |= asdict(ratio) | {"ratio": ratio.mean, "spread": spreads[width]}
            line |= {"moved": abs(math.log(ratio.mean)) > spreads[width]}
            lines.append(line | dict(zip(("loss", "loss_full"), losses.loc[width], strict=True)))
    return pandas.DataFrame(lines, columns=columns)


def _spreads(curve: dict[float, list[float]]) -> dict[float, float]:
    pooled, _ = statistics.pooled_sd(curve)
    logs = {x: np.log(values) for x, values in curve.items() if len(values) > 1}
    unequal = len(logs) > 1 and bartlett(*logs.values()).pvalue < statistics.UNEQUAL
    return {x: np.std(logs[x], ddof=1) if unequal and x in logs else pooled for x in curve}


def trained_twice(rows: pandas.DataFrame, profile: str) -> pandas.DataFrame:
    """The rows of the runs that a profile has under both schedules, with those that are missing."""
    cells = set(profile_cells(profile))
    both = {cell for short in cells if twin(short) in cells for cell in (short, twin(short))}
    found = rows[rows["key"].isin({cell.key for cell in both})].copy()
    found.attrs["missing"] = [cell for cell in rows.attrs.get("missing", []) if cell in both]
    return found


def checked(rows: pandas.DataFrame) -> dict[tuple, str]:
    """{(reading, init, power, depth): by how much the short schedule changes P; "" if by no more than seeds do}."""
    words = {}
    for (reading, init, power, _, depth), curve in pairs(rows).groupby(CURVE):
        ends = dict.fromkeys(f"{100 * (ratio - 1):+.0f} %" for ratio in (curve["ratio"].max(), curve["ratio"].min()))
        text = f"{curve_name(init, power or None, depth)} by {' to '.join(ends)}" if curve["moved"].any() else ""
        words[reading, init, power or None, depth] = text
    return words
