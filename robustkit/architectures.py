"""Beyond the fully connected net: gaps between the depths of CNNs, and the accuracy of lazy and non-lazy ResNets."""

from __future__ import annotations

import math

import numpy as np
import pandas
from scipy.special import stdtrit

from . import statistics
from .criteria import Part, curve_of, shown, trend, usable, values_by
from .orders import needs
from .statistics import LEVEL

MUCH = 2.0  # "much larger": twice
SIMILAR = 1.0  # "similar": accuracies within so many percentage points, where the paper's own differ by 0.75 and 0.53
PAPER = {  # Table 4, in percent; "power" is its non-lazy training
    **{("cifar10", "he"): 92.89, ("cifar10", "power"): 92.14},
    **{("cifar100", "he"): 71.08, ("cifar100", "power"): 70.55},
}
ACCURACIES = {"last epoch": "test_accuracy", "best epoch": "best_test_accuracy"}


# ---------------------------------------------------------------------------------------------- Figure 6


def depth_gaps(rows: pandas.DataFrame) -> dict[int, float]:
    """{seed: mean over widths of log P(highest depth) - log P(lowest depth)}.

    Which depths these are at a width is taken from the means over seeds. Only seeds that have both everywhere count.
    """
    good = rows[usable(rows, "stability")]
    logs = np.log(good.pivot_table(index="seed", columns=["width", "depth"], values="stability"))
    gaps = []
    for width in logs.columns.unique("width"):
        means = logs[width].mean()
        gaps.append(logs[width, means.idxmax()] - logs[width, means.idxmin()])
    return pandas.concat(gaps, axis=1).mean(axis=1, skipna=False).dropna().to_dict() if gaps else {}


@needs("CNN and fully connected nets of the same widths and depths, under one schedule")
def gap_between_depths(rows: pandas.DataFrame) -> list[Part]:
    """[E12] Is the gap between depths of the CNN much larger than that of the fully connected net of its widths?"""
    cnn, fcn = (rows[rows["model"] == model] for model in ("cnn", "fcn"))
    shapes = [set(zip(part["width"], part["depth"], strict=True)) for part in (cnn, fcn)]
    widths = sorted({m for m, _ in shapes[0] & shapes[1]})
    widths = [m for m in widths if len({d for w, d in shapes[0] & shapes[1] if w == m}) > 2]
    both = [part[part["width"].isin(widths)] for part in (cnn, fcn)]
    gaps = [list(depth_gaps(part).values()) for part in both]
    if not all(gaps):
        return []
    if min(map(min, gaps)) <= 0:
        parts = [Part("inconclusive", "a seed has no gap between the depths: a ratio of gaps means nothing")]
    else:
        found, _ = statistics.compare({0: gaps[0]}, {0: gaps[1]})
        answers = {"yes": found.low > MUCH, "partly": found.low > 1, "no": found.high < 1, "inconclusive": True}
        answer = next(answer for answer, holds in answers.items() if holds)
        factors = [math.exp(float(np.mean(gap))) for gap in gaps]
        text = f"gap of the CNN over that of the fully connected net, in log P: {shown(found)}, to exceed {MUCH:g}; "
        text += f"the highest depth stands a factor of {factors[0]:.3g} over the lowest, against {factors[1]:.3g} "
        text += f"(mean over widths {', '.join(map(str, widths))}; {len(gaps[0])} and {len(gaps[1])} seeds)"
        parts = [Part(answer, text, found.mde)]
    for name, part in zip(("CNN", "fully connected"), both, strict=True):
        ways = [(m, statistics.trend(values_by(curve, "stability", "depth"))) for m, curve in part.groupby("width")]
        said = ", ".join(f"{w.outcome} at width {m} ({w.estimate:.3g})" for m, w in ways)
        parts.append(Part("none", f"{name}, P from the shallowest to the deepest: {said}"))
    rise = [trend(curve, "stability", "up", name=f"L={depth}").text for depth, curve in both[0].groupby("depth")]
    parts.append(Part("none", f"CNN, P over width: {'; '.join(rise)}"))
    said = "the text names neither head, stride, normalisation nor the widths: this is so under the reading tried"
    return [*parts, Part("none", said)]


# ---------------------------------------------------------------------------------------------- Table 4


@needs("ResNet-110, He and non-lazy, on CIFAR-10 and CIFAR-100")
def similar_accuracy(rows: pandas.DataFrame) -> list[Part]:
    """[E15] Mean difference lazy - non-lazy in test accuracy, paired by seed, with its t interval."""
    parts = []
    for name, y in ACCURACIES.items():
        difference = 100 * (_by_seed(rows, "he", y) - _by_seed(rows, "power", y)).dropna()
        n = len(difference)
        if n < 2:
            parts.append(Part("missing", f"{name}: {n} seeds have both trainings, two or more are needed"))
            continue
        mean, limit = difference.mean(), SIMILAR
        half = stdtrit(n - 1, 1 - LEVEL / 2) * difference.std() / math.sqrt(n)
        low, high = mean - half, mean + half
        inside, outside = -limit < low and high < limit, low > limit or high < -limit
        text = f"{name}: lazy - non-lazy {mean:.2f} [{low:.2f}, {high:.2f}] points, to lie within {limit:g}; n = {n}"
        dataset = rows["dataset"].iloc[0]
        text += f"; the paper's: {PAPER[dataset, 'he'] - PAPER[dataset, 'power']:.2f}"
        parts.append(Part("yes" if inside else "no" if outside else "inconclusive", text))
    kappas = [curve_of(rows, init)["kappa"].mean() for init in ("he", "power")]
    return [*parts, Part("none", f"kappa: He {kappas[0]:.3g}, non-lazy {kappas[1]:.3g}")]


def _by_seed(rows: pandas.DataFrame, init: str, y: str) -> pandas.Series:
    curve = curve_of(rows, init)
    return curve[curve["status"] == "ok"].set_index("seed")[y].astype(float)
