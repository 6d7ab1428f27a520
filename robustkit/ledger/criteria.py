"""How a claim is judged: small pure functions from rows to answers, each with what was seen."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import pandas
from scipy import special

from .. import theory
from . import statistics
from .rows import _list, shown, values_by
from .statistics import LEVEL, SLOPE, Finding

PAPER_WIDTH = 2**14


@dataclass(frozen=True)
class Part:
    """One judgement: yes, partly, no, inconclusive or missing; what was seen; the ratio it could have detected."""

    answer: str
    text: str
    mde: float = math.nan


# ---------------------------------------------------------------------------------------------- rows


# ---------------------------------------------------------------------------------------------- judgements


def _answer(finding: statistics.Finding, yes: str, no: tuple) -> str:
    return "yes" if finding.outcome == yes else "no" if finding.outcome in no else "inconclusive"


def trend(rows, y, way, *, name, by="width", family=1) -> Part:
    found = statistics.trend(values_by(rows, y, by), family=family)
    answer = _answer(found, way, tuple({"up", "down", "mixed", "none"} - {way}))
    return Part(answer, f"{name}: TREND {found.outcome}, end to end {shown(found)} ({found.note})", found.mde)


def peak(rows, y, *, name, depth=None, wanted=True, family=1) -> Part:
    predicted = theory.peak_width(depth) if depth else None
    found = statistics.peak(values_by(rows, y), predicted=predicted, family=family)
    text = f"{name}: PEAK {found.outcome}, highest inside over the higher end {shown(found)} ({found.note})"
    if predicted and rows["width"].max() < 2 * predicted:
        text += f"; PEAK needs a grid well past L^3/2 = {predicted:g}: widest run is {rows['width'].max()}"
    yes, no = ("peak", ("none",)) if wanted else ("none", ("peak",))
    answer = _answer(found, yes, no)
    if found.outcome == "none" and rows["width"].max() < PAPER_WIDTH:  # part of a grid cannot show that there is none
        answer = "inconclusive"
        text += f"; undecided: the paper's widths go on to {PAPER_WIDTH}, these to {rows['width'].max()}"
    return Part(answer, text, found.mde)


def compare(larger, smaller, name) -> list[Part]:
    overall, cells = statistics.compare(larger, smaller)
    parts = [Part(c.outcome, f"width {m:g}: {name} {shown(c)}, n = {c.n}", c.mde) for m, c in cells.items()]
    if not parts:
        return [Part("inconclusive", f"{name}: {overall.note}")]
    text = f"every width: {overall.outcome}; mean ratio {shown(overall)}"
    text += f"; only one of the two at width {_list(overall.missing)}" if overall.missing else ""
    return [*parts, Part(overall.outcome, text, overall.mde)]


def _below(rows, y: str, limit: float, name: str) -> list[Part]:
    parts = []
    for m, cell in statistics.intervals(values_by(rows, y)).items():
        answer = "yes" if cell.high < limit else "no" if cell.low > limit else "inconclusive"
        text = (
            f"width {m:g}: {name} {cell.mean:.3g} [{cell.low:.3g}, {cell.high:.3g}] against {limit:g}, n = {cell.n}"
        )
        parts.append(Part(answer, text, cell.high / cell.mean))
    return parts


_LISTS = ("stability_over_time", "movement_over_time", "loss_over_time", "kappa_over_time")


MEASURES = (*_LISTS, "stability_train", "lipschitz_mean", "lipschitz_max", "train_loss")


def needs(what: str):
    """A judge that finds nothing to judge says what is missing; a measure that rows lack was not taken."""

    def wrap(judge):
        @functools.wraps(judge)
        def safe(rows: pandas.DataFrame) -> list[Part]:
            rows = rows.assign(**{name: None for name in MEASURES if name not in rows})
            return (judge(rows) if len(rows) else []) or [Part("missing", f"no such rows: {what}")]

        return safe

    return wrap


def holm(ps) -> list[float]:
    """Holm's adjusted p of a family, in the order given: p_(k) (K-k+1), never below the one before, at most 1."""
    adjusted, reached = [1.0] * len(ps), 0.0
    for rank, k in enumerate(np.argsort(ps, kind="stable")):
        adjusted[k] = reached = min(1.0, max(reached, (len(ps) - rank) * ps[k]))
    return adjusted


def domination(ratios_by_x) -> Finding:
    """Does one constant serve, ratio <= C, as x grows? Estimate: slope of log ratio per doubling of x.

    "dominated": the slope's one-sided 95 % limit lies below the 0.02 of a flat curve, nor does the last step rise by
    more. "rises": the slope is above 0 (one-sided p < 0.05), not that flat, and the last step does not fall: then no
    constant serves. Else "inconclusive". p: against a slope of 0 or less. mde: end-to-end ratio that would have
    been found. The note gives C, the largest mean ratio; of x beyond the grid it says nothing.
    """
    curve, per_doubling = {x: v for x, v in ratios_by_x.items() if len(v)}, math.log(2)
    found = statistics.rate(curve, bound=0.0)
    if len(curve) < 3 or math.isnan(found.p):
        note = found.note if math.isnan(found.p) else f"{len(curve)} cells, of 3 needed"
        return Finding("inconclusive", *[math.nan] * 5, found.n, found.missing, note)
    means = {x: float(np.mean(np.log(values))) for x, values in curve.items()}
    (x_first, *_, x_before, x_last), (sd, dof) = sorted(curve), statistics.pooled_sd(curve)
    error = sd * math.sqrt(1 / len(curve[x_before]) + 1 / len(curve[x_last]))
    step, allowed = means[x_last] - means[x_before], SLOPE * math.log2(x_last / x_before)
    falls, climbs = (special.stdtr(dof, statistics._over(gap, error)) < LEVEL for gap in (step, allowed - step))
    p, flat = 1 - found.p, statistics.rate(curve, bound=SLOPE / per_doubling).p < LEVEL
    rises = p < LEVEL and not flat and not falls
    outcome = "rises" if rises else "dominated" if flat and not climbs else "inconclusive"
    limits = [per_doubling * value for value in (found.estimate, found.low, found.high)]
    top, mde = max(means, key=means.get), math.exp(found.mde * math.log(x_last / x_first))
    note = f"C = {math.exp(means[top]):.3g} at {top:g} of {x_first:g} .. {x_last:g}, last step x {math.exp(step):.3g}"
    return Finding(outcome, *limits, p, mde, found.n, found.missing, note)


def against(findings: dict) -> dict:
    """yes, no or inconclusive to each rate below its bound; Holm over the family, two-sided at 5 %."""
    tested = [key for key, f in findings.items() if not math.isnan(f.p)]
    adjusted = dict(zip(tested, holm([2 * min(findings[k].p, 1 - findings[k].p) for k in tested]), strict=True))
    sides = {key: "yes" if f.p < 0.5 else "no" for key, f in findings.items()}
    return {key: sides[key] if adjusted.get(key, 1.0) < LEVEL else "inconclusive" for key in findings}


PEAK = (
    "PEAK: an interior width exceeds both ends by 5 % plus 2 standard errors (more, to share 5 % over the widths), "
    "on a grid that reaches twice L^3/2"
)


TREND = "linear contrast on log P, p < .01, end-to-end ratio beyond 1.1, no step significantly the other way"
