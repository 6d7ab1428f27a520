"""Judges of P against width and depth."""

from __future__ import annotations

import math

import pandas

from .. import theory
from . import rows as ledger_rows
from . import statistics
from .criteria import Part, judge_peak, judge_rates, judge_ratio, judge_trend, needs
from .rows import NAMES, at_loss, curve_name, curve_of, each_curve, listed, shown, usable, values_by


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
    falls = judge_trend(rows, "stability", "down", name="falls with width")
    if "loss_at_stability" in rows:
        good = rows[usable(rows, "stability")]
        common = good.groupby("width")["train_loss"].mean().max() if len(good) else math.nan
        found = statistics.trend(at_loss(rows, dict.fromkeys(good["width"].unique(), common)))
        text = f"; control at the common training loss {common:.3g}: {found.outcome}, end to end {shown(found)}"
        falls = falls.plus(text)
    return [falls, judge_peak(rows, "stability", name="no phase transition", wanted=False)]


def falls_at_each_power(rows) -> list[Part]:
    """[E13] TREND down of P over width at each c."""
    curves = {curve_name("power", c): curve for c, curve in rows.groupby("power")}
    return [judge_trend(curve, "stability", "down", name=name, family=2) for name, curve in curves.items()]


def two_curves(y: str, flip: bool, name: str):
    """[E05, E07] COMPARE: lazy y over non-lazy y, or (`flip`) the other way round."""

    def judge(rows) -> list[Part]:
        lazy, other = curve_of(rows, "he"), curve_of(rows, "power", 2)
        if lazy.empty or other.empty:
            return []
        parts = judge_ratio(*[values_by(r, y) for r in ((other, lazy) if flip else (lazy, other))], name)
        if y == "stability" and "loss_at_stability" in rows:
            found, cells = compare_at_loss(lazy, other)
            text = f"; control at matched training loss: mean ratio {shown(found)}, above 1 at "
            text += f"{sum(cell.outcome == 'yes' for cell in cells.values())} of {len(cells)} widths"
            parts[-1] = parts[-1].plus(text)
        return parts

    return judge


def compare_at_loss(lazy: pandas.DataFrame, other: pandas.DataFrame) -> tuple:
    """Compare P of two curves where both have come down to the larger of their final training losses."""
    ends = [r[usable(r, "stability")].groupby("width")["train_loss"].mean() for r in (lazy, other)]
    common = {m: max(e[m] for e in ends) for m in set(ends[0].index) & set(ends[1].index)}
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
        return [*parts, *depth_controls(rows)] if parts else []

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
        several = list(each_curve(curve_of(rows, init), "depth"))
        return [judge_trend(c, y, "up", name=f"{name}, {y}", by="depth", family=len(several)) for name, c in several]

    return judge


@needs("gain above 1 at three depths of one width, two seeds per cell")
def explosion_trained(rows: pandas.DataFrame) -> list[Part]:
    """[T16, after training] RATE: is the slope of log P per layer above 0? A power of exp(L) is one per layer."""
    found, starts, reach = {}, {}, {}
    for name, curve in each_curve(rows[(rows["init"] == "gain") & (rows["gain"].astype(float) > 1)], "depth"):
        points = values_by(curve, "stability", "depth")
        found[name] = statistics.rate({math.exp(depth): values for depth, values in points.items()}, bound=0.0)
        ends = [next(curve[curve["depth"] == depth].itertuples()) for depth in (min(points), max(points))]
        first, last = (math.log(theory.stability_at_init(**ledger_rows.scheme(row))) for row in ends)
        reach[name] = max(points) - min(points)
        starts[name] = f"{(last - first) / reach[name]:.3g} (exact), log gain {math.log(ends[0].gain):.3g}"
    turned, parts = {"yes": "no", "no": "yes"}, []  # growth lies above 0, not below
    for name, answer in judge_rates(found).items():
        f = found[name]
        text = f"{name}: log P per layer after training {shown(f)} ({f.note}), at initialisation {starts[name]}"
        parts.append(Part(turned.get(answer, answer), text, math.exp(f.mde * reach[name])))
    return parts
