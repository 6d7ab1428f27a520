"""Answers, and how each kind of test judges rows: pure functions that say what was seen beside each answer."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import pandas

from .. import theory
from ..profiles import PAPER_WIDTHS
from . import statistics
from .rows import listed, shown, values_by
from .statistics import LEVEL, Finding

OPTIONAL = ("stability_over_time", "movement_over_time", "loss_over_time", "kappa_over_time", "stability_train")
OPTIONAL += ("lipschitz_mean", "lipschitz_max", "train_loss")  # measures that a row may lack


@dataclass(frozen=True)
class Part:
    """One judgement: its answer, what was seen, and the smallest ratio that would have been detected (mde).

    Answers are yes, partly, no, inconclusive, missing, outside (the hypotheses) and none (no verdict is asked for).
    """

    answer: str
    text: str
    mde: float = math.nan

    def plus(self, text: str) -> Part:
        return replace(self, text=self.text + text)


def yes_or_no(holds: bool) -> str:
    return "yes" if holds else "no"


def needs(what: str):
    """Decorate a judge: measures that its rows lack become None, and a judge without parts says what it needs."""

    def wrap(judge):
        @functools.wraps(judge)
        def safe(rows: pandas.DataFrame) -> list[Part]:
            rows = rows.assign(**{name: None for name in OPTIONAL if name not in rows})
            return (judge(rows) if len(rows) else []) or [Part("missing", f"no such runs: {what}")]

        return safe

    return wrap


TREND = "linear contrast on log P, p < .01, end-to-end ratio beyond 1.1, no significant step the other way"
PEAK = (
    "PEAK: an interior width exceeds both ends by 5 % plus 2 standard errors (more, to share 5 % over the widths), "
)
PEAK += "on a grid that reaches twice L^3/2"


def judge_trend(rows, y, way, *, name, by="width", family=1, whole=PAPER_WIDTHS[-1]) -> Part:
    """Does y go up, or down, along `by`? See statistics.trend. Over widths short of `whole`: in part at most."""
    found = statistics.trend(values_by(rows, y, by), family=family)
    answer = {way: "yes", "inconclusive": "inconclusive"}.get(found.outcome, "no")
    text = f"{name}: TREND {found.outcome}, end to end {shown(found)} ({found.note})"
    if answer == "yes" and by == "width" and (widest := rows["width"].max()) < whole:
        answer, text = "partly", f"{text}; in part: the paper's widths reach {whole}, these {widest}"
    return Part(answer, text, found.mde)


def judge_peak(rows, y, *, name, depth=None, wanted=True, family=1) -> Part:
    """Does y rise and then fall with width (or, if that is not wanted, does it not)? See statistics.peak.

    Networks of a depth have their peak predicted at m = L^3/2. That there is none takes the paper's whole grid.
    """
    predicted, widest = theory.peak_width(depth) if depth else None, rows["width"].max()
    found = statistics.peak(values_by(rows, y), predicted=predicted, family=family)
    text = f"{name}: PEAK {found.outcome}, highest interior value over the higher end {shown(found)} ({found.note})"
    if predicted and widest < statistics.REACH * predicted:
        text += f"; PEAK needs a grid well past L^3/2 = {predicted:g}: widest network is {widest}"
    answer = {"peak": yes_or_no(wanted), "none": yes_or_no(not wanted)}.get(found.outcome, "inconclusive")
    if found.outcome == "none" and widest < PAPER_WIDTHS[-1]:  # part of a grid cannot show that there is no peak
        answer = "inconclusive"
        text += f"; undecided: the paper's widths reach {PAPER_WIDTHS[-1]}, these {widest}"
    return Part(answer, text, found.mde)


def judge_limit(rows, y: str, limit: float, name: str) -> list[Part]:
    """Does y lie below a limit at each width, with its whole interval?"""
    parts = []
    for m, cell in statistics.intervals(values_by(rows, y)).items():
        answer = "yes" if cell.high < limit else "no" if cell.low > limit else "inconclusive"
        text = f"width {m:g}: {name} {cell.mean:.3g} [{cell.low:.3g}, {cell.high:.3g}] against {limit:g}"
        parts.append(Part(answer, f"{text}, n = {cell.n}", cell.high / cell.mean))
    return parts


def judge_ratio(larger, smaller, name) -> list[Part]:
    """Does one curve {x: values} lie above another, at each x they share and at all of them?"""
    overall, cells = statistics.compare(larger, smaller)
    parts = [Part(c.outcome, f"width {m:g}: {name} {shown(c)}, n = {c.n}", c.mde) for m, c in cells.items()]
    if not parts:
        return [Part("inconclusive", f"{name}: {overall.note}")]
    last = max(cells)
    text = (
        f"every width: {overall.outcome}, {shown(cells[last])} at the widest, {last:g}; mean ratio {shown(overall)}"
    )
    text += f"; only one of the two curves at width {listed(overall.missing)}" if overall.missing else ""
    return [*parts, Part(overall.outcome, text, overall.mde)]


def holm(ps: dict) -> dict:
    """Holm's adjusted p of a family: p_(k) (K-k+1), never below the one before, at most 1."""
    adjusted, reached = {}, 0.0
    for rank, key in enumerate(sorted(ps, key=ps.get)):
        adjusted[key] = reached = min(1.0, max(reached, (len(ps) - rank) * ps[key]))
    return adjusted


def judge_rates(findings: dict[object, Finding]) -> dict[object, str]:
    """Is each rate below its bound? Yes, no or inconclusive, by two-sided tests at 5 % after Holm over the family."""
    adjusted = holm({key: 2 * min(f.p, 1 - f.p) for key, f in findings.items() if not math.isnan(f.p)})
    undecided = dict.fromkeys(findings, "inconclusive")
    return undecided | {key: yes_or_no(findings[key].p < 0.5) for key, p in adjusted.items() if p < LEVEL}
