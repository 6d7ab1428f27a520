"""No family of tests errs in more than one of twenty ledgers of noise, at the spreads over seeds that rows show."""

import math

import numpy as np
import pytest

from robustkit.ledger import criteria as criteria_module
from robustkit.ledger import statistics

LEDGERS = 200  # 2000 of them in tests/long/test_noise.py


def limit():
    """One in twenty, and three standard errors of the simulation."""
    return 0.05 + 3 * math.sqrt(0.05 * 0.95 / LEDGERS)


# (standard deviations of the logs over seeds, seeds) of each cell of each curve: results/shipped.jsonl, the reading
# that the ledger judges, by criteria.values_by, curves of three cells or more. Taken as the truth, estimates from
# three or five seeds differ more than true standard deviations would: the test is the harder for it.
HE_DEPTH = [
    ((0.0289, 0.0826, 0.1277, 0.0529, 0.0435), (5, 5, 5, 5, 5)),
    ((0.0209, 0.0498, 0.1171, 0.0671, 0.0664), (5, 5, 5, 5, 5)),
    ((0.0173, 0.025, 0.0356, 0.0444, 0.0459), (5, 5, 5, 5, 5)),
    ((0.0101, 0.0137, 0.0251, 0.0207, 0.034), (5, 5, 5, 5, 5)),
    ((0.0066, 0.0152, 0.0179, 0.0305, 0.03), (5, 5, 5, 5, 5)),
]
LECUN_DEPTH = [
    ((0.0234, 0.0588, 0.1794, 0.8076, 0.9267), (5, 5, 5, 5, 5)),
    ((0.0174, 0.0444, 0.1352, 0.1726, 1.0103), (5, 5, 5, 5, 5)),
    ((0.0145, 0.0324, 0.066, 0.045, 0.0965), (5, 5, 5, 5, 5)),
    ((0.0096, 0.0104, 0.0232, 0.0287, 0.0693), (5, 5, 5, 5, 5)),
    ((0.0048, 0.0115, 0.014, 0.0536, 0.0445), (5, 5, 5, 5, 5)),
]
LECUN_LOSS = [
    ((0.007, 0.0496, 0.1197, 0.5556, 0.2248), (5, 5, 5, 5, 5)),
    ((0.0136, 0.0432, 0.1291, 0.2612, 0.6117), (5, 5, 5, 5, 5)),
    ((0.0087, 0.0319, 0.0278, 0.0451, 0.1404), (5, 5, 5, 5, 5)),
    ((0.0076, 0.0243, 0.0386, 0.0543, 0.1028), (5, 5, 5, 5, 5)),
    ((0.0047, 0.0071, 0.029, 0.0441, 0.0316), (5, 5, 5, 5, 5)),
]
NTK_DEPTH = [
    ((0.0746, 0.0947, 0.0846, 0.045, 0.0716), (3, 3, 3, 3, 3)),
    ((0.0282, 0.0426, 0.0581, 0.0465, 0.065), (3, 3, 3, 3, 3)),
    ((0.0275, 0.028, 0.0306, 0.0408, 0.0516), (3, 3, 3, 3, 3)),
    ((0.0289, 0.0159, 0.0083, 0.0214, 0.0234), (3, 3, 3, 3, 3)),
    ((0.0124, 0.0122, 0.0105, 0.0224, 0.01), (3, 3, 3, 3, 3)),
    ((0.0172, 0.0124, 0.012, 0.0416, 0.0108), (3, 3, 3, 3, 3)),
]
NTK_WIDTH = [
    ((0.0746, 0.0282, 0.0275, 0.0289, 0.0124, 0.0172), (3, 3, 3, 3, 3, 3)),
    ((0.0947, 0.0426, 0.028, 0.0159, 0.0122, 0.0124), (3, 3, 3, 3, 3, 3)),
    ((0.0846, 0.0581, 0.0306, 0.0083, 0.0105, 0.012), (3, 3, 3, 3, 3, 3)),
    ((0.045, 0.0465, 0.0408, 0.0214, 0.0224, 0.0416), (3, 3, 3, 3, 3, 3)),
    ((0.0716, 0.065, 0.0516, 0.0234, 0.01, 0.0108), (3, 3, 3, 3, 3, 3)),
]
BOTH_WIDTH = [
    ((0.0289, 0.0209, 0.0173, 0.0101, 0.0066, 0.0073), (5, 5, 5, 5, 5, 3)),
    ((0.0826, 0.0498, 0.025, 0.0137, 0.0152), (5, 5, 5, 5, 5)),
    ((0.1277, 0.1171, 0.0356, 0.0251, 0.0179), (5, 5, 5, 5, 5)),
    ((0.0529, 0.0671, 0.0444, 0.0207, 0.0305), (5, 5, 5, 5, 5)),
    ((0.0435, 0.0664, 0.0459, 0.034, 0.03), (5, 5, 5, 5, 5)),
    ((0.0234, 0.0174, 0.0145, 0.0096, 0.0048, 0.0061), (5, 5, 5, 5, 5, 3)),
    ((0.0588, 0.0444, 0.0324, 0.0104, 0.0115), (5, 5, 5, 5, 5)),
    ((0.1794, 0.1352, 0.066, 0.0232, 0.014), (5, 5, 5, 5, 5)),
    ((0.8076, 0.1726, 0.045, 0.0287, 0.0536), (5, 5, 5, 5, 5)),
    ((0.9267, 1.0103, 0.0965, 0.0693, 0.0445), (5, 5, 5, 5, 5)),
]
NON_LAZY = [
    ((0.0126, 0.0147, 0.0064, 0.0117, 0.0106, 0.0019, 0.0064), (5, 5, 5, 5, 5, 3, 2)),
    ((0.0113, 0.0187, 0.0085, 0.0222, 0.0252, 0.0144, 0.0425), (5, 5, 5, 5, 5, 3, 2)),
]
P_PAIR = [
    ((0.0289, 0.0209, 0.0173, 0.0101, 0.0066, 0.0073), (5, 5, 5, 5, 5, 3)),
    ((0.0113, 0.0187, 0.0085, 0.0222, 0.0252, 0.0144, 0.0425), (5, 5, 5, 5, 5, 3, 2)),
]
KAPPA_PAIR = [
    ((0.0425, 0.0342, 0.0124, 0.0067, 0.0143, 0.0143), (5, 5, 5, 5, 5, 3)),
    ((0.0112, 0.0062, 0.0074, 0.0119, 0.0131, 0.0039, 0.0207), (5, 5, 5, 5, 5, 3, 2)),
]
# Over the depths at each width: P of He (E09), P and loss of LeCun (E10, T17), P of NTK (E21). Over the widths: P of
# NTK (T15), of He and LeCun at each depth (E11), of c = 1.5 and 2 (E13), of He and c = 2 (E07); kappa of these (E05).
TRENDS = {"E09": HE_DEPTH, "E10": LECUN_DEPTH, "E13": NON_LAZY, "E21": NTK_DEPTH, "T17": LECUN_LOSS}
PEAKS = {"E11": BOTH_WIDTH, "E18": HE_DEPTH + LECUN_DEPTH}
PAIRS = {"E05": KAPPA_PAIR, "E07": P_PAIR}


def ledgers(family, level):
    """Ledgers of noise about the logs level(cells, largest standard deviation): a list of curves each."""
    generator, drawn = np.random.default_rng(0), []
    for sds, n in family:
        cells = zip(sds, n, level(len(n), max(sds)), strict=True)
        values = [np.exp(mean + sd * generator.standard_normal((LEDGERS, k))) for sd, k, mean in cells]
        drawn.append([{2.0 ** (4 + i): v for i, v in enumerate(row)} for row in zip(*values, strict=True)])
    return zip(*drawn, strict=True)


def rates(family, level, judge):
    """Share of the ledgers in which `judge`, of a ledger's curves, gives each outcome at least once."""
    counts = {}
    for curves in ledgers(family, level):
        for outcome in set(judge(curves)):
            counts[outcome] = counts.get(outcome, 0) + 1 / LEDGERS
    return counts


def nothing(cells, sd):
    return np.zeros(cells)


def levels_off(cells, sd):
    """Rises steeply, and stays over the last three cells."""
    return 60 * sd * np.minimum(np.arange(cells) - cells + 3, 0)


def trends(curves):
    return [statistics.trend(curve, family=len(curves)).outcome for curve in curves]


def peaks(curves):
    return [statistics.peak(curve, family=len(curves)).outcome for curve in curves]


@pytest.mark.parametrize("claim", TRENDS)
def test_a_trend_is_seldom_found_in_noise(claim):
    def judge(curves):
        outcomes = trends(curves)
        said = {"up": "a trend", "down": "a trend", "mixed": "mixed"}
        no = {"up": ("no to down",), "down": ("no to up",), "mixed": ("no to up", "no to down")}
        return [word for o in outcomes if o in said for word in (said[o], *no[o])]

    found = rates(TRENDS[claim], nothing, judge)
    assert max(found.values(), default=0) <= limit(), found


@pytest.mark.parametrize("claim", ["E09", "E13"])
def test_a_rise_that_levels_off_is_seldom_called_anything_else(claim):
    found = rates(TRENDS[claim], levels_off, trends)
    assert found.pop("up") > 1 - limit() and sum(found.values()) <= limit(), found


def at_once(cells, sd):
    """Rises at once, and stays: each interior cell lies level with an end."""
    return 60 * sd * (np.arange(cells) > 0)


@pytest.mark.parametrize(("claim", "truth"), [("E11", nothing), ("E18", nothing), ("E18", at_once)])
def test_a_peak_is_seldom_found_without_one(claim, truth):
    assert rates(PEAKS[claim], truth, peaks).get("peak", 0) <= limit()


@pytest.mark.parametrize("claim", PAIRS)
def test_equal_curves_are_seldom_told_apart(claim):
    found = rates(PAIRS[claim], nothing, lambda curves: [statistics.compare(*curves)[0].outcome])
    assert found.get("yes", 0) <= limit() and found.get("no", 0) <= limit(), found


def test_an_exponent_at_its_bound_is_seldom_judged():
    def judge(curves):
        return criteria_module.judge_rates(
            {i: statistics.rate(curve, bound=0) for i, curve in enumerate(curves)}
        ).values()

    def either(curves):
        return ["judged"] if set(judge(curves)) & {"yes", "no"} else []

    assert rates(NTK_WIDTH, nothing, either)["judged"] <= limit()
