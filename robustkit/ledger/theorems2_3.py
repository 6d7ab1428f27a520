"""Rows compared with Theorems 2 and 3: movement of the layers, and rates of P in width early in training."""

from __future__ import annotations

import math

import numpy as np
import pandas
from scipy.integrate import cumulative_trapezoid

from .. import theory
from ..cell import EVALUATION_POINTS, FRACTIONS
from ..initialization import layer_stds
from . import rows as ledger_rows
from . import statistics
from .criteria import Part, judge_rates, judge_trend, needs, yes_or_no
from .rows import MUCH_GREATER, at_evaluation, curve_name, curve_of, recorded, scheme, shown, sizes, values_by
from .width_and_depth import refused

EARLY = tuple(FRACTIONS.index(f) for f in (0.0, 0.05, 0.1, 0.2))


@needs("c = 2, two layers, one output, squared loss, three widths, two seeds per cell")
def theorem2_non_lazy(rows: pandas.DataFrame) -> list[Part]:
    """[T11] Does every layer's relative movement grow with m and exceed the bound, and do layers move in balance?"""
    rows = rows[recorded(rows, "movement_over_time", FRACTIONS) & recorded(rows, "loss_over_time", EVALUATION_POINTS)]
    parts = []
    for power, curve in curve_of(rows, "power", depth=2).groupby("power"):
        name, args = curve_name("power", power), {row.width: scheme(row) for row in curve.itertuples()}
        both = {m: theory.theorem2(width=m, depth=2, betas=layer_stds(**a)) for m, a in args.items()}
        told = {float(m): [bound] * 2 for m, (_, bound) in both.items() if bound > 0}
        condition = max(value for value, _ in both.values())
        for layer in (1, 2):
            moved = curve.assign(moved=[max(at[layer - 1] for at in v) for v in curve["movement_over_time"]])
            values = values_by(moved, "moved")
            grown = judge_trend(moved, "moved", "up", name=f"{name}, W_{layer} moves", whole=0)
            parts.append(grown.plus(f"; exponent in m {shown(statistics.rate(values))}"))
            found, cells = statistics.compare({m: v for m, v in values.items() if m in told}, told)
            text = f"{name}, W_{layer}: movement over the bound of Theorem 2 {shown(found)} at {len(cells)} widths "
            text += f"where it is above 0, of {len(values)}; condition at most {condition:.3g}, to be << 1"
            parts.append(Part(found.outcome, text, found.mde))
        parts.append(_balance(curve, name))
    return parts


def _balance(rows: pandas.DataFrame, name: str) -> Part:
    """||W_1(t)||^2 - ||W_1(0)||^2 = ||W_2(t)||^2 - ||W_2(0)||^2 under gradient flow, from movements D_l alone.

    Initial norms are taken as beta_l sqrt(fan-in fan-out). Three things may then separate D_1^2 and D_2^2: W_l(0)
    is not orthogonal to the movement (at most 2 D_l ||W_l(0)|| each); initial norms scatter (three standard errors,
    sqrt(2/k) of a squared norm of k weights); and the constant learning rate eta is finite: a step adds
    eta^2 ||g_l||^2 to ||W_l||^2. For ||x|| <= 1 these add up to at most eta (loss(0) - loss(t)) for the full gradient
    and, in expectation, eta/batch int 2 loss max(D_1^2, D_2^2) dt for the noise of the batches.
    """
    seen = []
    for m, cell in rows[ledger_rows.usable(rows, "stability")].groupby("width"):
        row = next(cell.itertuples())
        shape, points = scheme(row), sizes(row)[2]
        weights = np.array([m * shape["d_in"], m * shape["d_out"]], dtype=float)
        norms = np.square(layer_stds(**shape)) * weights
        moved = np.array(cell["movement_over_time"].tolist())  # seed, evaluation point, layer: over initial norms
        squares, loss = np.mean(moved**2, axis=0) * norms, np.mean(cell["loss_over_time"].tolist(), axis=0)
        cross = 2 * np.mean(moved, axis=0) @ norms
        flow = row.lr * row.epochs * math.ceil(points / row.batch_size)
        noise = 2 * loss * np.interp(EVALUATION_POINTS, FRACTIONS, squares.max(axis=1)) * flow / row.batch_size
        noise = cumulative_trapezoid(noise, EVALUATION_POINTS, initial=0)
        drift = row.lr * (loss[0] - loss + noise * (row.batch_size < points))
        slack = cross + np.interp(FRACTIONS, EVALUATION_POINTS, drift)
        slack += 3 * math.sqrt(np.sum(2 / weights) / len(cell)) * squares.max(axis=1)
        away, low = np.abs(squares[:, 0] - squares[:, 1]), squares.min(axis=1)
        seen += [(slack[k] / low[k], away[k] / low[k], m, f) for k, f in enumerate(FRACTIONS) if low[k] > 0]
    if not seen:
        return Part("missing", f"{name}, balance of norms: no runs that ended well")
    worst, tight = (
        f"{away:.2g} against {slack:.2g} at width {m}, {f:g} of training"
        for slack, away, m, f in (max(seen, key=lambda s: s[1] / s[0]), min(seen))
    )
    text = f"{name}, balance of norms: D_1^2 and D_2^2 differ by {worst} (worst of {len(seen)}), {tight} "
    text += "(tightest); allowed for: initial norms, movement along W(0), finite learning rate"
    holds = all(away <= slack for slack, away, *_ in seen)
    return Part("inconclusive" if holds and min(seen)[0] >= 1 else yes_or_no(holds), text)


def orders(c: float) -> dict[str, float]:
    """Exponents of m for beta = m^-c: the theorem's for m >> n^2, the Remark's (its smaller term), and ours."""
    return {"Theorem 3": 0.5 - c, "its Remark": 1.5 - 2 * c, "ours": 1 - 2 * c}


@needs("c >= 1.5, two layers, one output, squared loss, two widths, two seeds per cell")
def theorem3_rate(rows: pandas.DataFrame) -> list[Part]:
    """[T12, E20] RATE: slope of log P in log m early in training against the order of [N Eq. 4]; one Holm family."""
    found, about, moved = {}, {}, {}
    for power, curve in curve_of(rows, "power", depth=2).groupby("power"):
        first = curve.iloc[0]
        n, all_widths = sizes(first)[2], sorted(set(curve["width"]))
        inside = [m for m in all_widths if m >= MUCH_GREATER * n**2]
        widths = inside if len(inside) > 1 else all_widths
        where = f"{curve_name('power', power)}, n = {n}, widths {widths[0]} to {widths[-1]}"
        where += "" if widths == inside else f" (outside m >> n^2 = {n**2}: no two widths from {MUCH_GREATER} n^2 on)"
        curve = curve[curve["width"].isin(widths)]
        fitted = curve.loc[recorded(curve, "loss_at_stability", FRACTIONS), "loss_at_stability"]
        for k in EARLY:
            points = values_by(at_evaluation(curve, k), "stability")
            found[power, k] = statistics.rate(points, bound=orders(power)["Theorem 3"])
            moved[k] = max([moved.get(k, 0.0), *(1 - v[k] / v[0] for v in fitted)])
            name = f"{where}, {_time(first, k)}, n = {len(fitted)}"
            about[power, k] = name, points, power >= 1.5 and len(inside) > 1
    answers, parts = judge_rates(found), []
    for (power, k), f in found.items():
        name, points, covered = about[power, k]
        tight = ", ".join(f"{order} {value:g} ({_side(f, value)})" for order, value in orders(power).items())
        text = f"{name}: exponent of P in m {shown(f)} against {tight}; {f.note}"
        parts.append(Part(answers[power, k] if covered else "outside", text, ledger_rows.span(points, f.mde)))
    fell = ", ".join(f"{100 * share:.2g} %" for share in moved.values())
    text = (
        f"at these {len(moved)} times the training loss of no network has fallen by more than {fell} of its initial "
    )
    text += "value; as far as it has not moved, P is its initial value, and the exponents at the c are those of one "
    return [*parts, Part("none", f"{text}experiment, rescaled")] if parts else []


def _side(found: statistics.Finding, bound: float) -> str:
    if math.isnan(found.low):
        return "not measured"
    return "respected, not tight" if found.high < bound else "exceeded" if found.low > bound else "tight"


def _time(row, k: int) -> str:
    """The evaluation point in words: as flow time on the mean loss where the learning rate is constant."""
    if FRACTIONS[k] == 0:
        return "at initialisation"
    if len(row.milestones) or row.lr_rule != "fixed":
        return f"at {FRACTIONS[k]:g} of training"
    steps = row.epochs * math.ceil(sizes(row)[2] / row.batch_size)
    return f"flow time {row.lr * steps * FRACTIONS[k]:.3g} of the mean loss (1/n of that for the sum)"


@needs("c = 1.5 and c = 2, two layers, two shared widths, two seeds per cell")
def powers_differ(rows: pandas.DataFrame) -> list[Part]:
    """[E14] Slope of log P in log m at c = 1.5 less that at c = 2, compared with what the theory expects.

    The order m^(1/2-c) of Theorem 3 for m >> n^2 gives 0.5; its Remark's m^(3/2-2c) and our m^(1-2c) give 1. "yes":
    the 95 % interval (Welch) lies below 0.5; "partly": below 1; "no": above 0.5, and not below 1.
    """
    pair = [curve_of(rows, "power", power, 2) for power in (1.5, 2.0)]
    shared = sorted(set(pair[0]["width"]) & set(pair[1]["width"]))
    if len(shared) < 2:
        return []
    points = [values_by(curve[curve["width"].isin(shared)], "stability") for curve in pair]
    slopes = [statistics.rate(p) for p in points]
    difference, low, high = statistics.rate_difference(*points)
    if math.isnan(difference):
        return [Part("inconclusive", "c = 1.5 against c = 2: " + "; ".join(f.note for f in slopes if f.note))]
    n = sizes(next(pair[0].itertuples()))[2]
    logs = np.log([[theory.theorem3(n=n, width=m, power=power) for power in (1.5, 2.0)] for m in shared])
    told = np.polyfit(np.log(shared), logs, 1)[0]
    answer = "yes" if high < 0.5 else "partly" if high < 1 else "no" if low > 0.5 else "inconclusive"
    text = f"widths {shared[0]} to {shared[-1]}: slope {shown(slopes[0])} at c = 1.5, {shown(slopes[1])} at c = 2; "
    text += f"difference {difference:.3g} [{low:.3g}, {high:.3g}] against 0.5 (Theorem 3, m >> n^2), 1 (its Remark; "
    text += f"ours) and {told[0] - told[1]:.3g} (the right-hand side at n = {n} and these widths)"
    return [Part(answer, text + _difference_at_loss(pair, shared))]


def _difference_at_loss(pair, widths) -> str:
    """The control: the same difference where every network has the largest of the final training losses."""
    if any("loss_at_stability" not in curve for curve in pair):
        return ""
    pair = [curve[curve["width"].isin(widths) & ledger_rows.usable(curve, "stability")] for curve in pair]
    common = max(curve.groupby("width")["train_loss"].mean().max() for curve in pair)
    curves = [ledger_rows.at_loss(curve, dict.fromkeys(widths, common)) for curve in pair]
    difference, low, high = statistics.rate_difference(*curves)
    seen = "unknown" if math.isnan(difference) else f"{difference:.3g} [{low:.3g}, {high:.3g}]"
    return f"; control at the common training loss {common:.3g}: {seen}" + refused(
        {x: v for c in curves for x, v in c.items() if not v}
    )
