"""Judges of the lazy training ratio kappa, over time and with width."""

from __future__ import annotations

import math

import numpy as np
import pandas

from ..cell import EVALUATION_POINTS
from . import statistics
from .criteria import Part, judge_limit, judge_trend, needs
from .rows import NAMES, constant_rate, curve_name, curve_of, each_curve, recorded, usable

GROWTH = 1.1  # "almost unchanged": kappa grows by less than this after the first tenth of training


def small_and_still(rows) -> list[Part]:
    """[E01] Is kappa below 1 at each width, and has it hardly grown since a tenth of training?"""
    grown = judge_limit(with_growth(rows), "growth", GROWTH, "growth of kappa since the first tenth,")
    beside, tenth, half = [], EVALUATION_POINTS.index(0.1), EVALUATION_POINTS.index(0.5)
    for m, cell in rows[usable(rows, "kappa") & recorded(rows, "kappa_over_time", EVALUATION_POINTS)].groupby(
        "width"
    ):
        k = np.mean(cell["kappa_over_time"].tolist(), axis=0)
        beside.append(f"{k[tenth]:.3g} to {k[-1]:.3g}, by {100 * (k[-1] / k[half] - 1):.2g} % after half time ({m})")
    text = f"mean kappa from a tenth of training to its end (width in brackets): {'; '.join(beside)}"
    return [*judge_limit(rows, "kappa", 1.0, "kappa"), *grown, *([Part("none", text)] if beside else [])]


def with_growth(rows) -> pandas.DataFrame:
    """The rows with kappa at the end over kappa at a tenth of training as "growth", NaN where it is not known."""
    at, kappas = EVALUATION_POINTS.index(0.1), rows["kappa_over_time"]
    growth = [k[-1] / k[at] if isinstance(k, list | tuple) and k[at] else math.nan for k in kappas]
    return rows.assign(growth=growth)


LINEAR = {
    "yes": "linear is best by AIC, or within 2 of it",
    "partly": "linear beats sqrt and log and explains 95 %, but an exponential start beats linear",
    "no": "sqrt or log beats linear, a line explains less than 95 %, or there is no growth",
    "inconclusive": "seeds disagree on the law",
}


def linear_in_time(rows) -> list[Part]:
    """[E03] Is a straight line the law of kappa over the first half of training, by AIC? Seeds must agree.

    Within 2 of the best is yes; behind the law that bends up alone, with R^2 of 0.95 or more, is partly.
    """
    half, parts = EVALUATION_POINTS.index(0.5), []
    for width, cell in rows[usable(rows, "kappa")].groupby("width"):
        answers, laws = set(), []
        for kappa in cell["kappa_over_time"]:
            fits = statistics.growth(EVALUATION_POINTS[1 : half + 1], kappa[1 : half + 1])
            if not fits or kappa[half] <= kappa[1]:
                answers.add("no")
                continue
            line, bends = fits["linear"][0], min(fits["sqrt"][0], fits["log"][0])
            best = min(aic for aic, _ in fits.values())
            near = line < bends and fits["linear"][1] >= 0.95
            answers.add("yes" if line <= best + 2 else "partly" if near else "no")
            laws.append({law: r_squared for law, (_, r_squared) in fits.items()})
        mean = pandas.DataFrame(laws).mean()
        r_squared = ", ".join(f"{law} {value:.4f}" for law, value in mean.items()) or "no growth"
        answer = answers.pop() if len(answers) == 1 else "inconclusive"
        parts.append(Part(answer, f"width {width}: {LINEAR[answer]}; mean R^2: {r_squared}; n = {len(cell)}"))
    return parts


def _tail(kappa) -> str:
    """The law of kappa over the second half of training, with R^2 of log t, or "does not rise".

    Laws without a limit: those of statistics.growth, and log(1 + u/s), u the time since half; with one: exp(-u/s).
    s is searched for from 0.02 to 0.5 of training; AIC chooses.
    """
    t, v = np.array(EVALUATION_POINTS[1 : len(kappa)]), np.array(kappa[1:], dtype=float)
    if len(t) < 12:
        return "does not rise in so short a time"
    t, v = t[len(t) // 2 :], v[len(v) // 2 :]
    fits = statistics.growth(t, v)
    if not fits or v[-1] <= v[: len(v) // 2].mean():
        return "does not rise"
    aic = {law: value for law, (value, _) in fits.items()}
    u, total = (t - t[0]) / (t[-1] * np.geomspace(0.02, 0.5, 60)[:, None]), float(np.sum((v - v.mean()) ** 2))
    for law, shapes in (("saturates", np.exp(-u)), ("shifted log", np.log1p(u))):
        rest = min(float(np.sum((np.polyval(np.polyfit(s, v, 1), s) - v) ** 2)) for s in shapes)
        aic[law] = len(t) * math.log(max(rest, 1e-12 * total) / len(t)) + 8  # 1e-12: below this is rounding
    return f"{min(aic, key=aic.get)} (R^2 of log {fits['log'][1]:.4f})"


@needs("a constant learning rate (no milestones), kappa over time")
def unbounded_kappa(rows: pandas.DataFrame) -> list[Part]:
    """[E16] Does kappa still rise at the end, by a law without a limit?

    partly: every seed does; no: none rises; inconclusive: a law with a limit fits better, or seeds disagree. A finite
    run shows neither a limit nor its absence.
    """
    parts = []
    rows = rows[usable(rows, "kappa") & constant_rate(rows) & recorded(rows, "kappa_over_time")]
    for (init, power, depth, width), cell in rows.groupby(["init", "power", "depth", "width"], dropna=False):
        laws = [_tail(kappa) for kappa in cell["kappa_over_time"]]
        kinds = {{"does": "no", "saturates": "inconclusive"}.get(law.split()[0], "partly") for law in laws}
        answer = kinds.pop() if len(kinds) == 1 and len(laws) > 1 else "inconclusive"
        text = f"{curve_name(init, power, depth)}, width {width}: second half of training: {'; '.join(laws)}; "
        text += f"final kappa {cell['kappa'].mean():.3g}; a finite run shows no more"
        parts.append(Part(answer, text))
    return parts


@needs("He, LeCun or NTK at three widths, two seeds per cell")
def common_inits_are_lazy(rows: pandas.DataFrame) -> list[Part]:
    """[E17] kappa of He, LeCun and NTK: TREND down in width, and below 1 at the widest."""
    parts, family = [], sum(1 for _ in each_curve(rows, "width"))
    for init in ("he", "lecun", "ntk"):
        of_init = curve_of(rows, init)
        for name, curve in each_curve(of_init, "width"):
            parts.append(judge_trend(curve, "kappa", "down", name=f"{name}, kappa", family=family))
            parts += judge_limit(curve, "kappa", 1.0, f"{name}, kappa")[-1:]
        if of_init.empty:
            parts.append(Part("missing", f"{NAMES[init]}: no runs"))
    return parts
