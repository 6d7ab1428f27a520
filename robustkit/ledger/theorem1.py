"""How rows are held against Theorem 1 and its orders: rates, and bounds up to a constant."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas
from scipy import special

from .. import theory
from ..cell import FRACTIONS
from . import statistics
from .criteria import Part, against, domination, holm, needs
from .rows import NAMES, at_evaluation, curve_name, curve_of, curves, scheme, shown, sizes, span, usable, values_by
from .statistics import LEVEL

SETTLED = 0.05  # a term this small beside the other is over
FAR = 4096  # "highly over-parameterized": where a constant in width is looked for


# ---------------------------------------------------------------------------------------------- Theorem 1


def _ratios(rows: pandas.DataFrame, version: str) -> pandas.DataFrame:
    bounds = [theory.theorem1(**scheme(row), version=version) for row in rows.itertuples()]
    with np.errstate(all="ignore"):  # a bound that underflows leaves its row out
        return rows.assign(ratio=rows["stability"].astype(float) / bounds)


def _dominations(rows: pandas.DataFrame) -> dict:
    """{(curve, x): domination} of the column ratio, over width at each depth and over depth at each width.

    While the term exp(-m/L^3) dies out, P/bound rises because the bound falls, even at initialisation, where the
    second term alone bounds P. A rise in width is therefore judged from where that term is at most 5 % of the other.
    """
    found = {}
    for over in ("width", "depth"):
        for name, curve in curves(rows, over):
            f = domination(values_by(curve, "ratio", over))
            if over == "width" and f.outcome == "rises":
                terms = [theory.theorem1_terms(**scheme(row), version="neurips") for row in curve.itertuples()]
                late = domination(values_by(curve[[first <= SETTLED * second for first, second in terms]], "ratio"))
                words = f"{f.note}; it rises over this grid; where the bound has settled: {late.outcome}, {late.note}"
                f = replace(f if math.isnan(late.p) else late, outcome=late.outcome, p=late.p, note=words)
            found[name, over] = f
    return found


def _bound_answers(found: dict) -> tuple[dict, dict]:
    tested = [key for key, f in found.items() if not math.isnan(f.p)]
    adjusted = dict(zip(tested, holm([found[key].p for key in tested]), strict=True))
    answers = {"rises": "no", "dominated": "yes", "inconclusive": "inconclusive"}
    keep = {key: f.outcome != "rises" or adjusted[key] < LEVEL for key, f in found.items()}
    return {key: answers[f.outcome] if keep[key] else "inconclusive" for key, f in found.items()}, adjusted


def _setting(rows: pandas.DataFrame) -> str:
    losses = rows.loc[usable(rows, "stability"), "train_loss"].astype(float)
    text = f"; training loss {losses.min():.3g} to {losses.max():.3g}" if len(losses) else ""
    kinds = {name: set(rows[name]) for name in ("scaling", "loss")}
    if kinds != {"scaling": {"unit"}, "loss": {"squared"}}:
        words = ", ".join(sorted(kinds["scaling"] | kinds["loss"]))
        text += f"; outside the hypotheses of Theorem 1 (unit norm, squared loss): {words}"
    return text


@needs("three widths or depths of one initialisation, two seeds a cell")
def theorem1_bound(rows: pandas.DataFrame) -> list[Part]:
    """[T07] BOUND: P over [N Eq. 3], judged; the versions of [W] are said beside it."""
    found, parts = _dominations(_ratios(rows, "neurips")), []
    answers, adjusted = _bound_answers(found)
    others = {version: _dominations(_ratios(rows, version)) for version in ("workshop", "proof")}
    for key, f in found.items():
        text = f"{key[0]}: log P/bound per doubling of {key[1]} {shown(f)}, {f.note}, n = {f.n}"
        text += f", p of a rise {adjusted[key]:.2g} (Holm)" if key in adjusted else ""
        brief = {v: (o[key].outcome, o[key].note.partition(",")[0]) for v, o in others.items()}
        text += "".join(f"; {version}: {outcome}, {c}" for version, (outcome, c) in brief.items())
        parts.append(Part(answers[key], text + ("" if parts else _setting(rows)), f.mde))
    return parts


@needs("stability along training at three widths or depths of one initialisation, two seeds a cell")
def bound_along_training(rows: pandas.DataFrame) -> list[Part]:
    """[T18] BOUND as in theorem1_bound at each recorded instant; one Holm family over curves and instants."""
    at = [_ratios(at_evaluation(rows, k), "neurips") for k in range(len(FRACTIONS))]
    found = {(k, *key): f for k, ratios in enumerate(at) for key, f in _dominations(ratios).items()}
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
        text = f"; P/bound is largest at {FRACTIONS[k]:g} of training{_setting(rows)}"
        parts[-1] = Part(parts[-1].answer, parts[-1].text + text, parts[-1].mde)
    return parts


def _largest(rows: pandas.DataFrame) -> tuple[float, str]:
    """The largest cell mean of the column ratio, and where it is."""
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
    x = np.log(depths) - np.mean(np.log(depths))
    weights = x / np.sum(x**2)
    slope, free = float(weights @ logs), len(x) - 2
    scatter = math.sqrt(np.sum((logs - np.mean(logs) - slope * x) ** 2) / free / np.sum(x**2))
    noise = math.sqrt(np.sum((weights * errors) ** 2))
    return slope, float(max(special.stdtrit(free, 0.975) * scatter, special.stdtrit(dof, 0.975) * noise))


@needs("five depths over widths on both sides of the peak")
def peak_location(rows: pandas.DataFrame) -> list[Part]:
    """[T08] Exponent in L of the width at the peak: 3 is "yes" if it lies in an interval within 2 .. 4."""
    parts = []
    for init, of_init in rows.groupby("init"):
        tops = {int(depth): _vertex(values_by(curve, "stability")) for depth, curve in of_init.groupby("depth")}
        found = {depth: top for depth, top in tops.items() if top}
        row = of_init.iloc[0]
        d_in, d_out, n = sizes(row)
        rival = {depth: theory.interpolation_width(depth, d_in=d_in, d_out=d_out, n=n) for depth in tops}
        where = ", ".join(
            f"L={k} at {math.exp(top[0]):.0f} (L^3/2 = {theory.peak_width(k):g}, #parameters = n at {rival[k]:.0f})"
            for k, top in found.items()
        )
        text = f"{NAMES[init]}: PEAK at {len(found)} of {len(tops)} depths: {where or 'none'}"
        if len(found) < 3:
            text += "; an exponent needs three depths with a peak"
            parts.append(Part("inconclusive", text))
            continue
        logs, errors, dofs = (np.array(values) for values in zip(*found.values(), strict=True))
        slope, half = _exponent(list(found), logs, errors, int(dofs.sum()))
        other, _ = _exponent(list(found), np.log([rival[depth] for depth in found]), 0 * errors, 1)
        answer = "no" if abs(slope - 3) > half else "yes" if slope - half > 2 and slope + half < 4 else "inconclusive"
        text += f"; exponent in L {slope:.3g} [{slope - half:.3g}, {slope + half:.3g}] against 3, rival {other:.3g}"
        parts.append(Part(answer, text))
    return parts


@needs(f"widths from {FAR} on, over three doublings")
def constant_in_width(rows: pandas.DataFrame) -> list[Part]:
    """[T09] FLAT of P from width 4096 on."""
    widths, parts = ", ".join(f"{FAR * 2**k}" for k in range(4)), []
    for name, curve in curves(rows, "width", least=1):
        found = statistics.flat(values_by(curve, "stability"), beyond=FAR)
        answer = {"flat": "yes", "not flat": "no"}.get(found.outcome, "inconclusive")
        text = f"{name}: {found.outcome}, log-slope per doubling {shown(found)} ({found.note})"
        if math.isnan(found.p):
            text = f"{name}: undecided, widths {widths} needed, widest run is {curve['width'].max()}"
        parts.append(Part(answer, text, math.exp(3 * found.mde)))
    return parts


@needs("NTK at three widths, two seeds a cell")
def ntk_orders(rows: pandas.DataFrame) -> list[Part]:
    """[T15] RATE: the exponent of P in m under NTK, against the 1/2 of Wu et al. (reduced) and of Huang et al."""
    found = {}
    for name, curve in curves(curve_of(rows, "ntk"), "width"):
        points = values_by(curve, "stability")
        found[name] = statistics.rate(points, bound=0.5), points
    answers, parts = against({name: f for name, (f, _) in found.items()}), []
    rules = ", ".join(sorted(set(rows["lr_rule"])))
    for name, (f, points) in found.items():
        text = f"{name}: exponent of P in m {shown(f)} against 1/2 ({f.note}); learning rate by width: {rules}"
        parts.append(Part(answers[name], text, span(points, f.mde)))
    return parts
