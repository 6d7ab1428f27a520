"""Judges of P against width and depth."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas

from .. import theory
from . import rows as ledger_rows
from . import statistics
from .criteria import Part, judge_peak, judge_ratio, judge_trend, needs
from .rows import JUMP, NAMES, at_loss, curve_name, curve_of, each_curve, listed, shown, usable, values_by
from .theorem1 import in_the_limit


def peaks_in_width(rows) -> list[Part]:
    """[E06, E11, E19] PEAK of P over width for each initialisation and depth."""
    curves = rows.groupby(["init", "depth"])
    shared = {"y": "stability", "family": len(curves)}
    return [
        judge_peak(curve, name=curve_name(init, depth=depth), depth=depth, **shared).plus(_sides(curve, depth))
        for (init, depth), curve in curves
    ]


def _sides(rows: pandas.DataFrame, depth: int) -> str:
    """Log-slope of P in width on each side of the width at which there are as many weights as training points."""
    (d_in, d_out, n), curve = ledger_rows.sizes(rows.iloc[0]), values_by(rows, "stability")
    width = theory.interpolation_width(depth, d_in=d_in, d_out=d_out, n=n)
    words = []
    for side, fewer in (("fewer", True), ("more", False)):
        slope = statistics.rate({m: values for m, values in curve.items() if (m < width) == fewer})
        words.append(f"{side}: {shown(slope) if slope.outcome == 'measured' else 'not measured'}")
    return "; log-slope with fewer or more parameters than training points: " + ", ".join(words)


def no_transition(rows) -> list[Part]:
    """[E08] TREND down of P over width and no PEAK, with the trend at a common training loss beside it."""
    falls = judge_trend(rows, "stability", "down", name="falls with width").plus(_at_common_loss(rows))
    return [falls, judge_peak(rows, "stability", name="no phase transition", wanted=False)]


def falls_at_each_power(rows) -> list[Part]:
    """[E13] TREND down of P over width at each c, with the trend at a common training loss beside it."""
    curves = {curve_name("power", c): curve for c, curve in rows.groupby("power")}
    return [
        judge_trend(curve, "stability", "down", name=name, family=2).plus(_at_common_loss(curve))
        for name, curve in curves.items()
    ]


def _at_common_loss(rows: pandas.DataFrame) -> str:
    """The control: TREND of P over width where every network has the largest of the final training losses."""
    good = rows[usable(rows, "stability")]
    if "loss_at_stability" not in rows or good.empty:
        return ""
    common = good.groupby("width")["train_loss"].mean().max()
    curve = at_loss(rows, dict.fromkeys(good["width"].unique(), common))
    found = statistics.trend(curve)
    seen = f"{found.outcome}, end to end {shown(found)}" if math.isfinite(found.estimate) else found.note
    return f"; control at the common training loss {common:.3g}: {seen}{refused(curve)}"


def refused(curve: dict) -> str:
    """Where `at_loss` gives no value, and why."""
    at = [x for x, values in curve.items() if not values]
    why = f"P differs by more than {JUMP:g} times between two evaluation points"
    return f" (not computed at {listed(at)}, where {why})" if at else ""


def two_curves(y: str, flip: bool, name: str):
    """[E05, E07] COMPARE: lazy y over non-lazy y, or (`flip`) the other way round."""

    def judge(rows) -> list[Part]:
        lazy, other = curve_of(rows, "he"), curve_of(rows, "power", 2)
        if lazy.empty or other.empty:
            return []
        parts = judge_ratio(*[values_by(r, y) for r in ((other, lazy) if flip else (lazy, other))], name)
        if y == "stability" and "loss_at_stability" in rows:
            common, (found, cells) = common_losses(lazy, other), compare_at_loss(lazy, other)
            each = ", ".join(f"{shown(cell)} at width {m:g} (loss {common[m]:.3g})" for m, cell in cells.items())
            text = f"; control at matched training loss: {each or found.note}"
            parts[-1] = parts[-1].plus(text + refused(at_loss(lazy, common) | at_loss(other, common)))
        return parts

    return judge


def common_losses(lazy: pandas.DataFrame, other: pandas.DataFrame) -> dict[int, float]:
    """The larger of two curves' mean final training losses at each width that both have."""
    ends = [r[usable(r, "stability")].groupby("width")["train_loss"].mean() for r in (lazy, other)]
    return {m: max(e[m] for e in ends) for m in sorted(set(ends[0].index) & set(ends[1].index))}


def compare_at_loss(lazy: pandas.DataFrame, other: pandas.DataFrame) -> tuple:
    """Compare P of two curves where both have come down to the larger of their final training losses."""
    common = common_losses(lazy, other)
    return statistics.compare(at_loss(lazy, common), at_loss(other, common))


def trends_in_depth(way: str):
    """[E09, E10] TREND of P over depth at each width that has three depths, with controls."""

    def judge(rows) -> list[Part]:
        depths, parts, waiting = set(rows["depth"]), [], []
        family = max(1, int((rows.groupby("width")["depth"].nunique() > 2).sum()))
        for width, curve in rows.groupby("width"):
            if curve["depth"].nunique() < 3 <= len(depths):
                waiting.append(width)  # noted, and judged once it has three depths
                continue
            name = f"width {width}, L={listed(curve['depth'])}"
            parts.append(judge_trend(curve, "stability", way, name=name, by="depth", family=family))
            if absent := depths - set(curve["depth"]):
                parts.append(Part("missing", f"width {width}, L={listed(absent)}: no runs"))
        if parts and waiting:
            parts[-1] = parts[-1].plus(f"; not yet judged, with fewer than three depths: width {listed(waiting)}")
        return [*parts, *depth_controls(rows), *in_the_limit(rows)] if parts else []

    return judge


def depth_controls(rows: pandas.DataFrame) -> list[Part]:
    """TREND over depth before training, and at the final loss of the depth that each width trains least."""
    if "loss_at_stability" not in rows:
        return []
    good = rows[usable(rows, "stability")]
    good = good[good.groupby("width")["depth"].transform("nunique") > 2]
    outcomes: dict[str, dict] = {"at initialisation": {}, "at matched training loss": {}}
    for width, curve in good.groupby("width"):
        start = values_by(curve, "stability_init", "depth")
        common = curve.groupby("depth")["train_loss"].mean().max()
        matched = at_loss(curve, dict.fromkeys(curve["depth"], common), "depth")
        for ways, values in zip(outcomes.values(), (start, matched), strict=True):
            found = statistics.trend(values)
            ways.setdefault(found.outcome, []).append(f"{width} ({found.estimate:.3g})")
    listing = {
        name: [f"{way} at width {', '.join(at)}" for way, at in ways.items()] for name, ways in outcomes.items()
    }
    words = ". ".join(f"{name} {'; '.join(ways)}" for name, ways in listing.items())
    return [Part("none", f"controls, with the ratio of the deepest to the shallowest in brackets: {words}")]


@needs("three depths at one width, two seeds per cell")
def depth_peak(rows: pandas.DataFrame) -> list[Part]:
    """[E18] PEAK of P over depth at each width: first worse, then better. That there is none takes five depths."""
    parts, several = [], list(each_curve(rows, "depth"))
    for name, curve in several:
        found = statistics.peak(values_by(curve, "stability", "depth"), family=len(several))
        answer = {"peak": "yes", "none": "no" if curve["depth"].nunique() > 4 else "inconclusive"}
        text = f"{name}: PEAK over depth {found.outcome}, highest interior value over the higher end {shown(found)} "
        text += f"({found.note})"
        parts.append(Part(answer.get(found.outcome, "inconclusive"), text, found.mde))
    return parts


def rises_in_depth(init: str, y: str):
    """[E21, T17] TREND up of y over depth at each width."""

    @needs(f"{NAMES[init]}, three depths at one width, two seeds per cell")
    def judge(rows: pandas.DataFrame) -> list[Part]:
        several, parts = list(each_curve(curve_of(rows, init), "depth")), []
        for name, curve in several:
            part = judge_trend(curve, y, "up", name=f"{name}, {y}", by="depth", family=len(several))
            m, d_in = curve["width"].iloc[0], ledger_rows.sizes(curve.iloc[0])[0]
            narrow = init == "ntk" and m <= d_in
            parts.append(replace(part, answer="outside").plus(f"; m is not above d = {d_in}") if narrow else part)
        return parts

    return judge


@needs("gain above 1 and He at three depths of one width, two seeds per cell")
def explosion_trained(rows: pandas.DataFrame) -> list[Part]:
    """[T16, after training] Does log P rise faster per layer than under He, and by a straight line in L?

    A power of exp(L) is a rate per layer. "yes": the interval of the slope less He's (Welch) lies above 0, and AIC
    prefers a line in L to one in log L by more than 2. "partly": the first alone. "no": the slope lies below He's.
    """
    parts, he = [], curve_of(rows, "he")
    for name, curve in each_curve(rows[(rows["init"] == "gain") & (rows["gain"].astype(float) > 1)], "depth"):
        points = values_by(curve, "stability", "depth")
        beside = {L: v for L, v in values_by(he, "stability", "depth").items() if L in points}
        own, lazy = ({math.exp(L): v for L, v in values.items()} for values in (points, beside))
        slope, usual = statistics.rate(own), statistics.rate(lazy)
        difference, low, high = statistics.rate_difference(own, lazy)
        if math.isnan(slope.estimate):
            parts.append(Part("inconclusive", f"{name}: {slope.note}"))
            continue
        L, logs = np.array([(L, math.log(value)) for L, values in points.items() for value in values]).T
        rests = [np.sum((logs - np.polyval(np.polyfit(x, logs, 1), x)) ** 2) for x in (L, np.log(L))]
        evidence = len(L) * math.log(rests[1] / rests[0]) if min(rests) > 0 else 0.0
        faster, law = low > 0, "an exponential" if evidence > 0 else "a power"
        answer = ("yes" if evidence > 2 else "partly") if faster else "no" if high < 0 else "inconclusive"
        row = next(curve.itertuples())
        start = [math.log(theory.stability_at_init(**ledger_rows.scheme(row) | {"depth": int(d)})) for d in (2, 3)]
        text = f"{name}: log P per layer after training {shown(slope)} ({slope.note}), under He {shown(usual)}, "
        text += f"difference {difference:.3g} [{low:.3g}, {high:.3g}]; AIC prefers {law} of L by "
        text += f"{abs(evidence):.3g}; at initialisation {start[1] - start[0]:.3g} (exact), log gain "
        text += f"{math.log(row.gain):.3g}"
        parts.append(Part(answer, text, math.exp(slope.mde * (max(points) - min(points)))))
    return parts
