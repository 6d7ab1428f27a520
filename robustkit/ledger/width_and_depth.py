"""How P goes with width and with depth, judged."""

from __future__ import annotations

import math

import pandas

from .. import theory
from ..datasets import dataset_info
from . import statistics
from .criteria import Part, against, compare, needs, peak, trend
from .rows import _at_loss, _list, curve_name, curve_of, curves, scheme, shown, usable, values_by


def _sides(rows: pandas.DataFrame, depth: int) -> str:
    """Log-slope of P in width on each side of the width at which a net has as many weights as training points."""
    data = dataset_info(rows["dataset"].iloc[0])
    d_in, curve = math.prod(data.shape), values_by(rows, "stability")
    fewer = [m for m in curve if m * (d_in + (depth - 2) * m + data.classes) < data.n_train]
    sides = {"fewer": fewer, "more": [m for m in curve if m not in fewer]}
    found = {side: statistics.rate({m: curve[m] for m in widths}) for side, widths in sides.items()}
    words = [
        f"{side}: {shown(f)}" if f.outcome == "measured" else f"{side}: not measured" for side, f in found.items()
    ]
    return "; log-slope with fewer or more parameters than training points: " + ", ".join(words)


def peaks_in_width(rows) -> list[Part]:
    parts, curves = [], list(rows.groupby(["init", "depth"]))
    for (init, depth), curve in curves:
        part = peak(curve, "stability", name=curve_name(init, depth=depth), depth=depth, family=len(curves))
        parts.append(Part(part.answer, part.text + _sides(curve, depth), part.mde))
    return parts


def depth_controls(rows: pandas.DataFrame) -> list[Part]:
    """TREND over depth before training, and at the loss that the least trained depth of each width ends at."""
    if "loss_at_stability" not in rows:
        return []
    words, good = [], rows[usable(rows, "stability")]
    good = good[good.groupby("width")["depth"].transform("nunique") > 2]
    for name in ("at initialisation", "at matched training loss"):
        ways: dict[str, list] = {}
        for width, curve in good.groupby("width"):
            if name == "at initialisation":
                values = values_by(curve, "stability_init", "depth")
            else:
                common = curve.groupby("depth")["train_loss"].mean().max()
                values = _at_loss(curve, dict.fromkeys(curve["depth"].unique(), common), "depth")
            found = statistics.trend(values)
            ways.setdefault(found.outcome, []).append(f"{width} ({found.estimate:.3g})")
        words.append(f"{name} " + "; ".join(f"{way} at width {', '.join(at)}" for way, at in ways.items()))
    return [Part("none", f"controls, end over start in brackets: {'. '.join(words)}")]


def trends_in_depth(way: str):
    def judge(rows) -> list[Part]:
        depths, parts, waiting = set(rows["depth"]), [], []
        family = max(1, int((rows.groupby("width")["depth"].nunique() > 2).sum()))
        for width, curve in rows.groupby("width"):
            if curve["depth"].nunique() < 3 <= len(depths):
                waiting.append(width)  # just begun: noted, and judged when it has three depths
                continue
            name = f"width {width}, L={_list(curve['depth'])}"
            parts.append(trend(curve, "stability", way, name=name, by="depth", family=family))
            if absent := depths - set(curve["depth"]):
                parts.append(Part("missing", f"width {width}, L={_list(absent)}: no rows"))
        if parts and waiting:
            text = f"{parts[-1].text}; not judged yet, with fewer than three depths: width {_list(waiting)}"
            parts[-1] = Part(parts[-1].answer, text, parts[-1].mde)
        return [*parts, *depth_controls(rows)] if parts else []

    return judge


def two_curves(y: str, flip: bool, name: str):
    def judge(rows) -> list[Part]:
        lazy, other = curve_of(rows, "he"), curve_of(rows, "power", 2)
        if lazy.empty or other.empty:
            return []
        parts = compare(*[values_by(r, y) for r in ((other, lazy) if flip else (lazy, other))], name)
        if y == "stability" and "loss_at_stability" in rows:
            text = _matched(lazy, other)
            parts[-1] = Part(parts[-1].answer, parts[-1].text + text, parts[-1].mde)
        return parts

    return judge


def _matched(lazy: pandas.DataFrame, other: pandas.DataFrame) -> str:
    ends = [r[usable(r, "stability")].groupby("width")["train_loss"].mean() for r in (lazy, other)]
    common = {m: max(e[m] for e in ends) for m in set(ends[0].index) & set(ends[1].index)}
    found, cells = statistics.compare(_at_loss(lazy, common), _at_loss(other, common))
    above = sum(c.outcome == "yes" for c in cells.values())
    return f"; control at matched training loss: mean ratio {shown(found)}, above 1 at {above} of {len(cells)} widths"


def no_transition(rows) -> list[Part]:
    falls = trend(rows, "stability", "down", name="falls with width")
    if "loss_at_stability" in rows:
        good = rows[usable(rows, "stability")]
        common = good.groupby("width")["train_loss"].mean().max() if len(good) else math.nan
        found = statistics.trend(_at_loss(rows, dict.fromkeys(good["width"].unique(), common)))
        text = f"; control at the common training loss {common:.3g}: {found.outcome}, end to end {shown(found)}"
        falls = Part(falls.answer, falls.text + text, falls.mde)
    return [falls, peak(rows, "stability", name="no phase transition", wanted=False)]


@needs("gain above 1 at three depths of one width, two seeds a cell")
def explosion_trained(rows: pandas.DataFrame) -> list[Part]:
    """[T16, after training] RATE: slope of log P per layer, against 0; exp(L) in place of x makes it per layer."""
    found, starts, reach = {}, {}, {}
    for name, curve in curves(rows[(rows["init"] == "gain") & (rows["gain"].astype(float) > 1)], "depth"):
        points = values_by(curve, "stability", "depth")
        found[name] = statistics.rate({math.exp(depth): values for depth, values in points.items()}, bound=0.0)
        ends = [next(curve[curve["depth"] == depth].itertuples()) for depth in (min(points), max(points))]
        first, last = (math.log(theory.stability_at_init(**scheme(row))) for row in ends)
        reach[name] = max(points) - min(points)
        starts[name] = f"{(last - first) / reach[name]:.3g} (exact), log gain {math.log(ends[0].gain):.3g}"
    turned, parts = {"yes": "no", "no": "yes"}, []  # growth lies above 0, not below
    for name, answer in against(found).items():
        f = found[name]
        text = f"{name}: log P per layer after training {shown(f)} ({f.note}), at initialisation {starts[name]}"
        parts.append(Part(turned.get(answer, answer), text, math.exp(f.mde * reach[name])))
    return parts


@needs("three depths at one width, two seeds a cell")
def depth_peak(rows: pandas.DataFrame) -> list[Part]:
    """[E18] PEAK of P over depth at each width: first worse, then better. That there is none takes five depths."""
    parts = []
    several = list(curves(rows, "depth"))
    for name, curve in several:
        found = statistics.peak(values_by(curve, "stability", "depth"), family=len(several))
        answer = {"peak": "yes", "none": "no" if curve["depth"].nunique() > 4 else ""}.get(found.outcome)
        text = f"{name}: PEAK over depth {found.outcome}, inside over the higher end {shown(found)} ({found.note})"
        parts.append(Part(answer or "inconclusive", text, found.mde))
    return parts


def _rises(rows: pandas.DataFrame, init: str, y: str) -> list[Part]:
    several = list(curves(curve_of(rows, init), "depth"))
    return [trend(c, y, "up", name=f"{name}, {y}", by="depth", family=len(several)) for name, c in several]


@needs("NTK, three depths at one width, two seeds a cell")
def ntk_depth(rows: pandas.DataFrame) -> list[Part]:
    """[E21] TREND up of P over depth at each width under NTK."""
    return _rises(rows, "ntk", "stability")


@needs("LeCun, three depths at one width, two seeds a cell")
def lecun_loss(rows: pandas.DataFrame) -> list[Part]:
    """[T17] TREND up of the training loss over depth at each width under LeCun, at one schedule."""
    return _rises(rows, "lecun", "train_loss")
