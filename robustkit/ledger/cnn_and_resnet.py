"""Judges beyond fully connected networks: gaps between depths of CNNs, accuracy of lazy and non-lazy ResNets."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas
from scipy import stats

from . import statistics
from .criteria import Part, judge_trend, needs
from .rows import curve_of, usable, values_by
from .statistics import LEVEL
from .width_and_depth import depth_controls

MUCH_LARGER = 2.0  # a "much larger" gap is twice the other
SIMILAR = 1.0  # "similar" accuracies differ by at most this many points; the paper's differ by 0.75 and 0.53
PAPER = {("cifar10", "he"): 92.89, ("cifar10", "power"): 92.14}  # Table 4, in percent; "power" is its non-lazy regime
PAPER |= {("cifar100", "he"): 71.08, ("cifar100", "power"): 70.55}
UNSAID = "the text specifies neither head, stride and normalisation nor what its width counts: this holds under the "
UNSAID += "reading tried, where channels are compared with neurons"
ACCURACIES = {"last epoch": "test_accuracy", "best epoch": "best_test_accuracy"}


def t_interval(one, other=None, level: float = LEVEL) -> tuple[float, float]:
    """The t interval of a mean, or Welch's of a difference of two."""
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # equal values have no spread
        test = stats.ttest_1samp(one, 0) if other is None else stats.ttest_ind(one, other, equal_var=False)
    return tuple(test.confidence_interval(1 - level))


def shared_shapes(cnn: pandas.DataFrame, fcn: pandas.DataFrame) -> list[pandas.DataFrame]:
    """The rows of both at the widths and depths that both have, for widths with at least three such depths."""
    good = [part[usable(part, "stability")] for part in (cnn, fcn)]
    shapes = [pandas.MultiIndex.from_frame(part[["width", "depth"]]) for part in good]
    both = shapes[0].intersection(shapes[1]).unique()
    depths = both.get_level_values("width").value_counts()
    kept = both[both.get_level_values("width").isin(depths.index[depths > 2])]
    return [part[shape.isin(kept)] for part, shape in zip(good, shapes, strict=True)]


def _by_seed_and_depth(rows: pandas.DataFrame) -> list[pandas.DataFrame]:
    """log P of each width: one row per seed that has every cell, one column per depth. Duplicates are an error."""
    logs = np.log(rows.pivot(index="seed", columns=["width", "depth"], values="stability").astype(float)).dropna()
    return [logs[width] for width in logs.columns.unique("width")] if len(logs) else []


def depth_gaps(rows: pandas.DataFrame) -> list[float]:
    """Mean over widths of log P(highest depth) - log P(lowest depth), one per seed. Noise enlarges it.

    Which depths these are at a width is taken from the means over seeds.
    """
    tables = _by_seed_and_depth(rows)
    gaps = [table[table.mean().idxmax()] - table[table.mean().idxmin()] for table in tables]
    return list(np.mean(gaps, axis=0)) if gaps else []


def depth_rises(rows: pandas.DataFrame) -> list[float]:
    """Rise of a straight line through log P from the least to the largest depth, mean over widths, one per seed."""
    rises = [np.polyfit(t.columns, t.T, 1)[0] * np.ptp(t.columns) for t in _by_seed_and_depth(rows)]
    return list(np.mean(rises, axis=0)) if rises else []


def much_larger(cnn, fcn) -> tuple[str, str]:
    """Is |rise| of the CNN above twice that of the fully connected network (yes), above it (partly), below it (no)?

    By the 95 % Welch interval of g_cnn - k g_fcn over seeds, k = MUCH_LARGER and 1, each rise g taken with the sign
    of its mean. Returns the answer and what was seen.
    """
    if min(len(cnn), len(fcn)) < 2:
        return "inconclusive", "two seeds of each are needed"
    g = [np.sign(np.mean(values)) * np.asarray(values) for values in (cnn, fcn)]
    limits = {k: t_interval(g[0], k * g[1]) for k in (1.0, MUCH_LARGER)}
    larger, lower = limits[1.0][0] > 0, limits[1.0][1] < 0
    answer = "yes" if limits[MUCH_LARGER][0] > 0 else "partly" if larger else "no" if lower else "inconclusive"
    text = f"P changes by a factor of {math.exp(np.mean(cnn)):.3g} with depth in the CNN and of "
    text += f"{math.exp(np.mean(fcn)):.3g} in the fully connected network; size in log P, CNN less "
    text += " and less ".join(f"{k:g} times the other: [{low:.3g}, {high:.3g}]" for k, (low, high) in limits.items())
    return answer, f"{text}; n = {len(cnn)} and {len(fcn)}"


@needs("CNN and fully connected networks of the same widths and three depths, under one schedule")
def gap_between_depths(rows: pandas.DataFrame) -> list[Part]:
    """[E12] Does P change much more over depth in the CNN than in the fully connected network, and does it rise?"""
    both = shared_shapes(*(rows[rows["model"] == model] for model in ("cnn", "fcn")))
    rises = [depth_rises(part) for part in both]
    if not all(rises):
        return []
    (answer, text), widths = much_larger(*rises), ", ".join(map(str, sorted(both[0]["width"].unique())))
    low, high = t_interval(rises[0]) if len(rises[0]) > 1 else (math.nan, math.nan)
    if answer == "yes" and not low > 0:
        answer = "partly"  # the paper's sentence speaks of Theorem 1, where P rises
    text = f"size: {text}; widths {widths}; the CNN's log P rises over depth by [{low:.3g}, {high:.3g}]"
    gaps = [math.exp(np.mean(depth_gaps(part))) for part in both]
    beside = [f"highest P over lowest P, at whichever depths: {gaps[0]:.3g} and {gaps[1]:.3g}; noise enlarges both"]
    for name, part in zip(("CNN", "fully connected"), both, strict=True):
        ways = [(m, statistics.trend(values_by(curve, "stability", "depth"))) for m, curve in part.groupby("width")]
        said = ", ".join(f"{w.outcome} at width {m} ({w.estimate:.3g})" for m, w in ways)
        losses = f"training loss {part['train_loss'].min():.3g} to {part['train_loss'].max():.3g}"
        beside.append(f"{name}, P from the shallowest to the deepest: {said}; {losses}")
        beside += [f"{name}, {control.text}" for control in depth_controls(part)]
    curves = [(depth, curve) for depth, curve in both[0].groupby("depth") if curve["width"].nunique() > 2]
    rise = [judge_trend(curve, "stability", "up", name=f"L={depth}").text for depth, curve in curves]
    beside += [f"CNN, P over width (not judged): {'; '.join(rise)}"] if rise else []
    return [Part(answer, text), *(Part("none", said) for said in (*beside, UNSAID))]


@needs("ResNet-110, He and non-lazy, on CIFAR-10 and CIFAR-100")
def similar_accuracy(rows: pandas.DataFrame) -> list[Part]:
    """[E15] Does the mean difference lazy - non-lazy in test accuracy, paired by seed, lie within SIMILAR points?"""
    parts, dataset = [], rows["dataset"].iloc[0]
    ended = rows[rows["status"] == "ok"].set_index("seed")
    for name, y in ACCURACIES.items():
        lazy, other = (100 * curve_of(ended, init)[y].astype(float).dropna() for init in ("he", "power"))
        difference = (lazy - other).dropna()
        n, mean = len(difference), difference.mean()
        if n < 2:
            parts.append(Part("missing", f"{name}: {n} seeds have both runs, two or more are needed"))
            continue
        # As in any test of equivalence at 5 %, "similar" takes the 90 % interval.
        (near_low, near_high), (low, high) = t_interval(difference, level=2 * LEVEL), t_interval(difference)
        inside, outside = near_low > -SIMILAR and near_high < SIMILAR, low > SIMILAR or high < -SIMILAR
        alone, paper = t_interval(lazy, other), PAPER[dataset, "he"] - PAPER[dataset, "power"]
        text = f"{name}: lazy - non-lazy {mean:.2f} [{low:.2f}, {high:.2f}] points, paired, to lie within "
        text += f"{SIMILAR:g}; unpaired [{alone[0]:.2f}, {alone[1]:.2f}]; n = {n}, which can show similarity only "
        text += f"of a difference below {max(0.0, SIMILAR - (near_high - mean)):.2f}; the paper's: {paper:.2f}"
        parts.append(Part("yes" if inside else "no" if outside else "inconclusive", text))
    kappas = [curve_of(rows, init)["kappa"].mean() for init in ("he", "power")]
    return [*parts, Part("none", f"kappa: He {kappas[0]:.3g}, non-lazy {kappas[1]:.3g}")]
