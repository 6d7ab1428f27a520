"""Intervals and the tests that claims use, on logarithms, with the seed spread pooled over the cells of a curve.

A curve is a mapping {x: values over seeds}, x a width or a depth. Values are positive; an empty cell is a missing
one: it is left out and named. Replicates are seeds; noise is taken as normal on the log scale, with one standard
deviation for all cells of a curve. Where no cell has two seeds there is no spread: every outcome is "inconclusive".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import special  # its t and F functions are stats' own without the overhead

from .checks import InputError, check_number

LEVEL = 0.05  # of intervals (two-sided) and of families of tests; only a trend's contrast uses 0.01
RATIO = 1.1  # a trend must change its curve by this much, end to end
RISE = 1.05  # a peak must exceed both ends by this much
SLOPE = 0.02  # a flat curve's log-slope per doubling lies within this


@dataclass(frozen=True)
class Finding:
    """What a test says: its outcome, the estimate with its 95 % interval, and what this n could have seen.

    mde: smallest effect, in the estimate's unit, that would have been found with 80 % probability. n: values used.
    missing: x of the empty cells. note: what the outcome rests on.
    """

    outcome: str
    estimate: float
    low: float
    high: float
    p: float
    mde: float
    n: int
    missing: tuple = ()
    note: str = ""


@dataclass(frozen=True)
class Interval:
    """Geometric mean of one cell and its t interval with pooled degrees of freedom; NaN limits without a spread."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class _Cells:
    x: np.ndarray
    mean: np.ndarray  # of the logs
    n: np.ndarray
    sd: float
    dof: int
    missing: tuple

    def error(self, weights) -> float:
        """Standard error of the weighted sum of the cell means."""
        return self.sd * math.sqrt(np.sum(np.square(weights) / self.n))

    def lacks(self, count: int) -> str:
        """Why nothing can be decided from these cells, or nothing."""
        if len(self.x) < count:
            return f"{len(self.x)} cells, of {count} needed"
        return "" if self.dof else "no cell has two seeds"

    def undecided(self, note: str) -> Finding:
        return Finding("inconclusive", *[math.nan] * 5, int(self.n.sum()), self.missing, note)

    def ratio(self, outcome: str, log: float, half: float, p: float, mde: float, note: str) -> Finding:
        limits = (math.exp(log), math.exp(log - half), math.exp(log + half))
        return Finding(outcome, *limits, p, mde, int(self.n.sum()), self.missing, note)


def _cells(curve) -> _Cells:
    logs = {}
    for x in sorted(curve):
        values = np.atleast_1d(np.asarray(curve[x], dtype=float))
        if not (np.isfinite(values) & (values > 0)).all():
            raise InputError(f"curve at {x:g} has {values.tolist()}, but every value must be finite and above 0")
        logs[x] = np.log(values)
    there = {x: v for x, v in logs.items() if len(v)}
    n = np.array([len(v) for v in there.values()], dtype=int)
    dof = int(n.sum()) - len(n)
    squares = sum(float(np.sum((v - v.mean()) ** 2)) for v in there.values())
    means = np.array([v.mean() for v in there.values()])
    missing = tuple(x for x in logs if x not in there)
    sd = math.sqrt(squares / dof) if dof else math.nan
    return _Cells(np.array(list(there), dtype=float), means, n, sd, dof, missing)


def _t(quantile: float, dof: float) -> float:
    return float(special.stdtrit(dof, quantile))


def _over(value: float, error: float) -> float:
    """value / error, where no spread at all makes any difference certain."""
    return value / error if error > 0 else math.copysign(math.inf, value) if value else 0.0


def pooled_sd(curve) -> tuple[float, int]:
    """Standard deviation of log values over seeds, pooled over cells, and its degrees of freedom (NaN, 0 if none).

    s^2 = sum_k sum_i (log v_ki - mean_k)^2 / sum_k (n_k - 1). Raises InputError on a value that is not positive.
    """
    cells = _cells(curve)
    return cells.sd, cells.dof


def intervals(curve) -> dict[float, Interval]:
    """Geometric mean and 95 % t interval of each cell that has values: exp(mean_k +- t s / sqrt(n_k))."""
    cells = _cells(curve)
    half = _t(1 - LEVEL / 2, cells.dof) * cells.sd / np.sqrt(cells.n) if cells.dof else np.full(len(cells.n), np.nan)
    rows = zip(cells.x, cells.mean, half, cells.n, strict=True)
    return {float(x): Interval(math.exp(m), math.exp(m - h), math.exp(m + h), int(n)) for x, m, h, n in rows}


def trend(curve) -> Finding:
    """Does the curve rise or fall over its cells, in order? Estimate: ratio of the last cell to the first.

    "up" or "down": linear contrast over ranks with two-sided p < 0.01, end-to-end ratio beyond 1.1, and no adjacent
    step significantly the other way (one-sided, 5 % shared by the steps). "mixed": a step breaks the trend, or there
    are significant steps both ways. "none": the interval of the ratio lies within 1/1.1 .. 1.1. Else "inconclusive".
    mde: end-to-end ratio of a straight trend that the contrast would have found.
    """
    cells = _cells(curve)
    if cells.lacks(3):
        return cells.undecided(cells.lacks(3))
    count = len(cells.x)
    contrast = np.arange(count) - (count - 1) / 2
    slope, error = float(contrast @ cells.mean), cells.error(contrast)
    p = 2 * float(special.stdtr(cells.dof, -abs(_over(slope, error))))
    ratio = float(cells.mean[-1] - cells.mean[0])
    half = _t(1 - LEVEL / 2, cells.dof) * cells.sd * math.sqrt(1 / cells.n[0] + 1 / cells.n[-1])
    steps = np.diff(cells.mean)
    limits = _t(1 - LEVEL / (count - 1), cells.dof) * cells.sd * np.sqrt(1 / cells.n[1:] + 1 / cells.n[:-1])
    rises, falls = int((steps > limits).sum()), int((steps < -limits).sum())
    clear = p < 0.01 and slope * ratio > 0 and abs(ratio) > math.log(RATIO)
    if (rises and falls) or (clear and (falls if ratio > 0 else rises)):
        outcome = "mixed"
    elif clear:
        outcome = "up" if ratio > 0 else "down"
    else:
        outcome = "none" if abs(ratio) + half < math.log(RATIO) else "inconclusive"
    least = (_t(0.995, cells.dof) + _t(0.8, cells.dof)) * error * (count - 1) / np.sum(contrast**2)
    note = f"{count} cells; significant steps: {rises} up, {falls} down"
    return cells.ratio(outcome, ratio, half, p, max(RATIO, math.exp(least)), note)


def peak(curve, *, predicted=None, reach=2.0) -> Finding:
    """Does the curve rise and then fall? Estimate: ratio of the highest interior cell to the higher end.

    "peak": an interior cell exceeds both ends by log 1.05 plus the larger of 2 standard errors of the difference and
    the one-sided t quantile at 5 % shared by the interior cells. "none": every interior cell's 97.5 % upper limit
    over one end is below 1.05. Else "inconclusive", as is any grid that ends before `reach` times the x `predicted`;
    one that starts after it is judged and noted. mde: ratio to both ends that would have been found.
    """
    cells = _cells(curve)
    if cells.lacks(3):
        return cells.undecided(cells.lacks(3))
    over = cells.mean[1:-1, None] - cells.mean[[0, -1]]  # interior cell, end
    errors = cells.sd * np.sqrt(1 / cells.n[1:-1, None] + 1 / cells.n[[0, -1]])
    factor = max(2.0, _t(1 - LEVEL / len(over), cells.dof))
    best = int(over.min(axis=1).argmax())
    spot = best, int(over[best].argmin())
    estimate, error = float(over[spot]), float(errors[spot])
    p = min(1.0, len(over) * float(special.stdtr(cells.dof, _over(math.log(RISE) - estimate, error))))
    note = f"highest inside at {cells.x[1 + best]:g} of {cells.x[0]:g} .. {cells.x[-1]:g}"
    if (over > math.log(RISE) + factor * errors).all(axis=1).any():
        outcome = "peak"
    else:
        upper = over + _t(1 - LEVEL / 2, cells.dof) * errors  # two ends to choose from
        outcome = "none" if (upper < math.log(RISE)).any(axis=1).all() else "inconclusive"
    if predicted is not None and cells.x[-1] < reach * predicted:
        outcome = "inconclusive"
        note += f"; the grid must reach {reach * predicted:g}, {reach:g} times the predicted {predicted:g}"
    elif predicted is not None and cells.x[0] > predicted:
        note += f"; the predicted {predicted:g} lies before the grid"
    mde = RISE * math.exp((factor + _t(0.8, cells.dof)) * float(errors.max()))
    return cells.ratio(outcome, estimate, _t(1 - LEVEL / 2, cells.dof) * error, p, mde, note)


def _line(cells: _Cells, x: np.ndarray) -> tuple[float, float, float]:
    """Slope of the cell means against x, weighted by n; its standard error; p of the test for lack of fit."""
    centred = x - np.average(x, weights=cells.n)
    weights = cells.n * centred / np.sum(cells.n * centred**2)
    slope, free = float(weights @ cells.mean), len(x) - 2
    residual = cells.mean - np.average(cells.mean, weights=cells.n) - slope * centred
    mean_square = float(np.sum(cells.n * residual**2)) / max(free, 1)
    return slope, cells.error(weights), float(special.fdtrc(max(free, 1), cells.dof, _over(mean_square, cells.sd**2)))


def flat(curve, *, beyond=0.0) -> Finding:
    """Is the curve constant from x = `beyond` on? Estimate: slope of log value per doubling of x.

    Equivalence test: "flat" if the 90 % interval of the slope lies within +-0.02, "not flat" if the 95 % interval
    lies outside it, else "inconclusive"; at least three doublings are needed. p: of the equivalence test.
    mde: the smallest |slope| that would have been called "not flat".
    """
    cells = _cells({x: values for x, values in curve.items() if x >= beyond})
    doublings = math.log2(cells.x[-1] / cells.x[0]) if len(cells.x) else 0.0
    if doublings < 3 or not cells.dof:
        return cells.undecided(cells.lacks(2) or f"{doublings:g} doublings from {cells.x[0]:g} on, of three needed")
    slope, error, misfit = _line(cells, np.log2(cells.x))
    half = _t(1 - LEVEL / 2, cells.dof) * error
    p = float(special.stdtr(cells.dof, _over(abs(slope) - SLOPE, error)))
    outcome = "flat" if p < LEVEL else "not flat" if abs(slope) - half > SLOPE else "inconclusive"
    mde = SLOPE + half + _t(0.8, cells.dof) * error
    note = f"{doublings:g} doublings; lack of fit to a line p = {misfit:.2g}"
    return Finding(outcome, slope, slope - half, slope + half, p, mde, int(cells.n.sum()), cells.missing, note)


def rate(curve, *, bound=None) -> Finding:
    """Power of x in the curve, d log value / d log x, and whether it respects an upper bound.

    "respected": the 95 % interval lies below `bound`; "violated": above it; else "inconclusive"; "measured" without
    a bound. p: one-sided, that the slope is not below the bound. The interval holds seed noise only: the note gives
    the lack of fit to a power law. mde: the distance from the bound that would have been seen.
    """
    cells, bound = _cells(curve), check_number("bound", bound, optional=True)
    if cells.lacks(2):
        return cells.undecided(cells.lacks(2))
    slope, error, misfit = _line(cells, np.log(cells.x))
    half = _t(1 - LEVEL / 2, cells.dof) * error
    outcome, p = "measured", math.nan
    if bound is not None:
        outcome = "respected" if slope + half < bound else "violated" if slope - half > bound else "inconclusive"
        p = float(special.stdtr(cells.dof, _over(slope - bound, error)))
    note = f"{len(cells.x)} cells; lack of fit to a power law p = {misfit:.2g}"
    mde = half + _t(0.8, cells.dof) * error
    return Finding(outcome, slope, slope - half, slope + half, p, mde, int(cells.n.sum()), cells.missing, note)


def compare(larger, smaller) -> tuple[Finding, dict[float, Finding]]:
    """Is one curve above another at every x they share? The overall finding, and one a cell.

    A cell is "yes" if larger/smaller exceeds 1 at one-sided p < 0.05, "no" if it is below 1 at p < 0.05 shared by the
    cells, else "inconclusive". Overall "yes" is an intersection (every cell, no correction); "no" if any cell is.
    Each curve keeps its own pooled spread; degrees of freedom by Welch and Satterthwaite. Overall: the geometric mean
    of the ratios, with the largest p and mde of the cells.
    """
    curves = _cells(larger), _cells(smaller)
    shared = [x for x in curves[0].x.tolist() if x in curves[1].x]
    missing = tuple(sorted({*larger, *smaller} - set(shared)))

    def finding(at, share):
        spots = [np.isin(c.x, at) / len(at) for c in curves]
        ratio = sum(sign * float(w @ c.mean) for sign, w, c in zip((1, -1), spots, curves, strict=True))
        variances = [c.error(w) ** 2 for c, w in zip(curves, spots, strict=True)]
        parts = sum(v**2 / c.dof for v, c in zip(variances, curves, strict=True))
        dof = sum(variances) ** 2 / parts if parts > 0 else sum(c.dof for c in curves)
        error, n = math.sqrt(sum(variances)), sum(int(c.n[w > 0].sum()) for c, w in zip(curves, spots, strict=True))
        p, half = float(special.stdtr(dof, _over(-ratio, error))), _t(1 - LEVEL / 2, dof) * error
        outcome = "yes" if p < LEVEL else "no" if 1 - p < LEVEL / share else "inconclusive"
        mde = math.exp((_t(1 - LEVEL, dof) + _t(0.8, dof)) * error)
        return Finding(outcome, math.exp(ratio), math.exp(ratio - half), math.exp(ratio + half), p, mde, n, missing)

    if not shared or not (curves[0].dof and curves[1].dof):
        note = "a curve has no cell with two seeds" if shared else "no x has both curves"
        return Finding("inconclusive", *[math.nan] * 5, sum(int(c.n.sum()) for c in curves), missing, note), {}
    cells, overall = {x: finding([x], len(shared)) for x in shared}, finding(shared, 1)
    outcomes = {cell.outcome for cell in cells.values()}
    outcome = "no" if "no" in outcomes else "yes" if outcomes == {"yes"} else "inconclusive"
    worst = {"p": max(c.p for c in cells.values()), "mde": max(c.mde for c in cells.values())}
    return replace(overall, outcome=outcome, **worst, note=f"{len(shared)} cells"), cells


def growth(time, values) -> dict[str, tuple[float, float]]:
    """Which law do values follow over time: {law: (AIC, R^2)}; empty if they do not change.

    "linear" a + b t, "sqrt" a + b sqrt(t), "log" a + b log t, and "exponential then linear": a + b (exp(t/s) - 1) up
    to a knee, then its tangent (s and knee by grid search: four parameters). AIC = N log(RSS/N) + 2 (parameters + 1).
    Neighbours in time share their noise, so differences of AIC overstate the evidence: read them with R^2.
    Raises InputError unless there are at least six times, rising and above 0, with a finite value each.
    """
    t, v = np.asarray(time, dtype=float), np.asarray(values, dtype=float)
    rising = t.ndim == 1 and len(t) >= 6 and (np.diff(t, prepend=0) > 0).all()
    if not rising or t.shape != v.shape or not np.isfinite(v).all():
        raise InputError(
            f"time has shape {t.shape}, values {v.shape}, but must be 6 or more rising times, finite values"
        )
    scale, knee = np.meshgrid(t[-1] * np.geomspace(0.05, 5, 60), t, indexing="ij")
    scale, knee = scale.reshape(-1, 1), knee.reshape(-1, 1)
    bent = np.exp(np.minimum(t, knee) / scale) * (1 + np.maximum(t - knee, 0) / scale) - 1
    laws = {"linear": t, "sqrt": np.sqrt(t), "log": np.log(t), "exponential then linear": bent}
    total = float(np.sum((v - v.mean()) ** 2))
    found = {}
    for law, shapes in laws.items() if total > 0 else ():
        shapes = np.atleast_2d(shapes) - np.mean(shapes, axis=-1, keepdims=True)
        r_squared = float(((shapes @ (v - v.mean())) ** 2 / np.sum(shapes**2, axis=1)).max()) / total
        rest = max(1 - r_squared, 1e-12)  # below this is rounding: exact fits tie
        parameters = 4 if law == "exponential then linear" else 2
        found[law] = (len(t) * math.log(rest * total / len(t)) + 2 * (parameters + 1), min(r_squared, 1.0))
    return found
