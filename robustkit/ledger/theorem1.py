"""Rows compared with Theorem 1 and its orders: bounds up to a constant, the place of the peak, rates in width."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np
import pandas
from scipy import special, stats

from .. import theory
from ..cell import FRACTIONS
from ..files import INFINITE_WIDTH
from . import rows as ledger_rows
from . import statistics
from .criteria import Part, holm, judge_rates, needs
from .rows import NAMES, at_evaluation, curve_name, curve_of, each_curve, scheme, shown, sizes, usable, values_by
from .statistics import LEVEL, SLOPE, Finding, t_value

SETTLED = 0.05  # the first term has died out where it is this share of the second
FAR = 4096  # "highly over-parameterized": P is asked to be constant from this width on


def _ratios(rows: pandas.DataFrame, version: str) -> pandas.DataFrame:
    bounds = [theory.theorem1(**scheme(row), version=version) for row in rows.itertuples()]
    with np.errstate(all="ignore"):  # a bound that underflows leaves its row out
        return rows.assign(ratio=rows["stability"].astype(float) / bounds)


def constant_suffices(ratios_by_x) -> Finding:
    """Does one constant suffice, ratio <= C, as x grows? Estimate: slope of log ratio per doubling of x.

    "dominated": the slope's one-sided 95 % limit lies below the 0.02 of a flat curve, nor does the last step rise by
    more. "rises": the slope is above 0 (one-sided p < 0.05), not that flat, and the last step does not fall: then no
    constant suffices. Else "inconclusive". p: against a slope of 0 or less. mde: end-to-end ratio that would have
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
    falls, climbs = (special.stdtr(dof, t_value(gap, error)) < LEVEL for gap in (step, allowed - step))
    p, flat = 1 - found.p, statistics.rate(curve, bound=SLOPE / per_doubling).p < LEVEL
    rises = p < LEVEL and not flat and not falls
    outcome = "rises" if rises else "dominated" if flat and not climbs else "inconclusive"
    limits = [per_doubling * value for value in (found.estimate, found.low, found.high)]
    top, mde = max(means, key=means.get), math.exp(found.mde * math.log(x_last / x_first))
    note = f"C = {math.exp(means[top]):.3g} at {top:g} of {x_first:g} .. {x_last:g}, last step x {math.exp(step):.3g}"
    return Finding(outcome, *limits, p, mde, found.n, found.missing, note)


def _over_width_and_depth(rows: pandas.DataFrame) -> dict:
    """{(curve, x): constant_suffices} of the column ratio, over width at each depth and over depth at each width.

    While the term exp(-m/L^3) dies out, P/bound rises because the bound falls, even at initialisation, where the
    second term alone bounds P. A rise in width is therefore judged from where that term is at most 5 % of the other.
    """
    found = {}
    for over in ("width", "depth"):
        for name, curve in each_curve(rows, over):
            f = constant_suffices(values_by(curve, "ratio", over))
            if over == "width" and f.outcome == "rises":
                terms = [theory.theorem1_terms(**scheme(row), version="neurips") for row in curve.itertuples()]
                settled = curve[[first <= SETTLED * second for first, second in terms]]
                late = constant_suffices(values_by(settled, "ratio"))
                words = f"{f.note}; it rises over this grid; where the bound has settled: {late.outcome}, {late.note}"
                f = replace(f if math.isnan(late.p) else late, outcome=late.outcome, p=late.p, note=words)
            found[name, over] = f
    return found


def _bound_answers(found: dict) -> tuple[dict, dict]:
    adjusted = holm({key: f.p for key, f in found.items() if not math.isnan(f.p)})
    answers = {key: {"dominated": "yes", "rises": "no"}.get(f.outcome, "inconclusive") for key, f in found.items()}
    answers |= {key: "inconclusive" for key, p in adjusted.items() if answers[key] == "no" and p >= LEVEL}
    return answers, adjusted


def _setting(rows: pandas.DataFrame) -> str:
    losses = rows.loc[usable(rows, "stability"), "train_loss"].astype(float)
    text = f"; training loss {losses.min():.3g} to {losses.max():.3g}" if len(losses) else ""
    kinds = sorted({*rows["scaling"], *rows["loss"]})
    inside = kinds == ["squared", "unit"]
    return text + (
        "" if inside else f"; outside the hypotheses of Theorem 1 (unit norm, squared loss): {', '.join(kinds)}"
    )


@needs("three widths or depths of one initialisation, two seeds per cell")
def theorem1_bound(rows: pandas.DataFrame) -> list[Part]:
    """[T07] BOUND: is P at most a constant times [N Eq. 3]? The versions of [W] stand beside it, not judged."""
    found, parts = _over_width_and_depth(_ratios(rows, "neurips")), []
    answers, adjusted = _bound_answers(found)
    others = {version: _over_width_and_depth(_ratios(rows, version)) for version in ("workshop", "proof")}
    for key, f in found.items():
        text = f"{key[0]}: log P/bound per doubling of {key[1]} {shown(f)}, {f.note}, n = {f.n}"
        text += f", p of a rise {adjusted[key]:.2g} (Holm)" if key in adjusted else ""
        brief = {v: (o[key].outcome, o[key].note.partition(",")[0]) for v, o in others.items()}
        text += "".join(f"; {version}: {outcome}, {c}" for version, (outcome, c) in brief.items())
        parts.append(Part(answers[key], text + ("" if parts else _setting(rows)), f.mde))
    return parts


@needs("stability over training at three widths or depths of one initialisation, two seeds per cell")
def bound_along_training(rows: pandas.DataFrame) -> list[Part]:
    """[T18] BOUND as in theorem1_bound at each evaluation point; one Holm family over curves and points."""
    at = [_ratios(at_evaluation(rows, k), "neurips") for k in range(len(FRACTIONS))]
    found = {(k, *key): f for k, ratios in enumerate(at) for key, f in _over_width_and_depth(ratios).items()}
    answers, _ = _bound_answers(found)
    largest, parts = [_largest(ratios) for ratios in at], []
    for k in sorted({key[0] for key in found}):
        given = [answer for key, answer in answers.items() if key[0] == k]
        answer = "no" if "no" in given else "yes" if set(given) == {"yes"} else "inconclusive"
        counts = ", ".join(f"{given.count(word)} {word}" for word in ("yes", "no", "inconclusive"))
        mde = max((f.mde for key, f in found.items() if key[0] == k and not math.isnan(f.mde)), default=math.nan)
        text = f"at {FRACTIONS[k]:g} of training: {counts} of {len(given)} curves; largest C = {largest[k][0]:.3g}"
        parts.append(Part(answer, text + f" at {largest[k][1]}", mde))
    if parts:
        k = max(range(len(at)), key=lambda k: largest[k][0])
        parts[-1] = parts[-1].plus(f"; P/bound is largest at {FRACTIONS[k]:g} of training{_setting(rows)}")
    return parts


def _largest(rows: pandas.DataFrame) -> tuple[float, str]:
    """The largest cell mean of P/bound, and the cell that has it."""
    rows = rows[usable(rows, "ratio")]
    if rows.empty:
        return 0.0, "no cell"
    cells = np.log(rows["ratio"]).groupby([rows["init"], rows["depth"], rows["width"]]).mean()
    init, depth, width = cells.idxmax()
    return math.exp(cells.max()), f"{curve_name(init, depth=depth)}, width {width}"


def _vertex(curve: dict) -> tuple[float, float, int] | None:
    """log of the fitted peak, its standard error from the seeds (delta method) and degrees of freedom."""
    curve = {x: v for x, v in sorted(curve.items()) if len(v)}
    if statistics.peak(curve).outcome != "peak":
        return None
    x, y = np.log(list(curve)), np.array([np.mean(np.log(v)) for v in curve.values()])
    near = slice(int(y.argmax()) - 1, int(y.argmax()) + 2)  # PEAK makes the highest cell an interior one

    def top(heights):
        bend, tilt, _ = np.polyfit(x[near], heights, 2)
        return -tilt / (2 * bend)

    (sd, dof), sizes = statistics.pooled_sd(curve), np.array([len(v) for v in curve.values()])[near]
    small = 1e-4 * np.ptp(y[near])
    slopes = np.array([(top(y[near] + small * e) - top(y[near] - small * e)) / (2 * small) for e in np.eye(3)])
    return float(top(y[near])), float(sd * np.sqrt(np.sum(slopes**2 / sizes))), dof


def _exponent(depths, logs, errors, dof: int) -> tuple[float, float]:
    """Slope of log location in log L and its half-width: the wider of seed noise and scatter about the line."""
    x = np.log(depths)
    line, weights = stats.linregress(x, logs), (x - x.mean()) / np.sum((x - x.mean()) ** 2)
    noise = math.sqrt(np.sum((weights * errors) ** 2))
    half = max(special.stdtrit(len(x) - 2, 0.975) * line.stderr, special.stdtrit(dof, 0.975) * noise)
    return line.slope, half


@needs("five depths over widths on both sides of the peak")
def peak_location(rows: pandas.DataFrame) -> list[Part]:
    """[T08] Exponent in L of the width at the peak: yes if its interval holds 3 and lies within 2 .. 4."""
    parts = []
    for init, of_init in rows.groupby("init"):
        tops = {int(depth): _vertex(values_by(curve, "stability")) for depth, curve in of_init.groupby("depth")}
        found, (d_in, d_out, n) = {depth: top for depth, top in tops.items() if top}, sizes(of_init.iloc[0])
        rival = {depth: theory.interpolation_width(depth, d_in=d_in, d_out=d_out, n=n) for depth in found}
        where = ", ".join(
            f"L={k} at {math.exp(top[0]):.0f} (L^3/2 = {theory.peak_width(k):g}, #parameters = n at {rival[k]:.0f})"
            for k, top in found.items()
        )
        text = f"{NAMES[init]}: PEAK at {len(found)} of {len(tops)} depths: {where or 'none'}"
        if len(found) < 3:
            parts.append(Part("inconclusive", f"{text}; an exponent needs three depths with a peak"))
            continue
        logs, errors, dofs = (np.array(values) for values in zip(*found.values(), strict=True))
        slope, half = _exponent(list(found), logs, errors, int(dofs.sum()))
        other = stats.linregress(np.log(list(rival)), np.log(list(rival.values()))).slope
        answer = "no" if abs(slope - 3) > half else "yes" if slope - half > 2 and slope + half < 4 else "inconclusive"
        text += f"; exponent in L {slope:.3g} [{slope - half:.3g}, {slope + half:.3g}] against 3, rival {other:.3g}"
        parts.append(Part(answer, text))
    return parts


@functools.cache
def infinite_width(init: str) -> tuple[int, dict[int, float]]:
    """P of lazy networks of infinite width at unit norm and training loss 0.2: training points used, {depth: P}."""
    table = pandas.read_csv(INFINITE_WIDTH, comment="#")
    table = table[(table["dataset"] == "mnist") & table["width"].isna() & (table["init"] == init)]
    n = int(table["n_train"].max())
    return n, table[table["n_train"] == n].set_index("depth")["mean"].to_dict()


def in_the_limit(rows: pandas.DataFrame) -> list[Part]:
    """Of runs under Theorem 1's hypotheses: P in the limit of infinite width, and of the widest networks over it."""
    if {*rows["loss"]} != {"squared"} or {*rows["scaling"]} != {"unit"} or {*rows["stop_loss"]} != {0.2}:
        return []
    parts = []
    for init, of_init in rows[usable(rows, "stability")].groupby("init"):
        (n, limits), words = infinite_width(init), []
        for depth, curve in of_init.groupby("depth"):
            means = np.log(curve["stability"].astype(float)).groupby(curve["width"]).mean()
            way = "no slope yet" if len(means) < 2 else "down" if means.iloc[-1] < means.iloc[-2] else "up"
            over = math.exp(means.iloc[-1]) / limits[depth]
            widest = f"P at width {means.index[-1]} is {over:.2f} times it, {way}"
            words.append(f"{limits[depth]:.3g} (L={depth}; {widest})")
        text = f"{NAMES[init]}: in the limit of infinite width, computed on {n} training points, P is "
        parts.append(Part("none", f"{text}{', '.join(words)}; the last word is the way from the width before"))
    return parts


@needs(f"widths from {FAR} on, over three doublings")
def constant_in_width(rows: pandas.DataFrame) -> list[Part]:
    """[T09] FLAT of P from width 4096 on, and the constant that it tends to where that was computed."""
    widths, parts = ", ".join(f"{FAR * 2**k}" for k in range(4)), []
    for name, curve in each_curve(rows, "width", least=1):
        found = statistics.flat(values_by(curve, "stability"), beyond=FAR)
        answer = {"flat": "yes", "not flat": "no"}.get(found.outcome, "inconclusive")
        text = f"{found.outcome}, log-slope per doubling {shown(found)} ({found.note})"
        if math.isnan(found.p):
            text = f"undecided, widths {widths} needed, widest network is {curve['width'].max()}"
        parts.append(Part(answer, f"{name}: {text}", math.exp(3 * found.mde)))
    return [*parts, *in_the_limit(rows)]


@needs("NTK at three widths, two seeds per cell")
def ntk_orders(rows: pandas.DataFrame) -> list[Part]:
    """[T15] RATE: the exponent of P in m under NTK against 1/2, that of Wu et al. (reduced) and of Huang et al.

    Table 2 supposes m >> d: where fewer than two widths are above d, all are fitted, and the answer is "outside".
    """
    every = {name: values_by(curve, "stability") for name, curve in each_curve(curve_of(rows, "ntk"), "width")}
    d_in = sizes(next(rows.itertuples()))[0]
    wide = {name: {m: v for m, v in curve.items() if m > d_in} for name, curve in every.items()}
    points = {name: wide[name] if len(wide[name]) > 1 else curve for name, curve in every.items()}
    found = {name: statistics.rate(curve, bound=0.5) for name, curve in points.items()}
    answers, rules, parts = judge_rates(found), ", ".join(sorted(set(rows["lr_rule"]))), []
    for name, f in found.items():
        text = f"{name}: exponent of P in m {shown(f)} against 1/2 ({f.note}); learning-rate rule: {rules}"
        inside = len(wide[name]) > 1
        text += (
            "" if inside else f"; of the widths, {min(points[name]):g} to {max(points[name]):g}, not two are above "
        )
        text += "" if inside else f"d = {d_in}"
        parts.append(Part(answers[name] if inside else "outside", text, ledger_rows.span(points[name], f.mde)))
    return parts
