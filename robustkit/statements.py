"""What a claim is, and which rows it is about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas

from .criteria import Part

DEPTHS = (2, 4, 6, 8, 10)
MAIN = ("mnist", "raw", "cross_entropy", "full")
PROXY = ("mnist", "raw", "cross_entropy", "flow10")
SCALAR = ("mnist", "unit", "squared", "400 epochs at 0.05", "n_train=16")
UNDER_THEOREM_1 = ("mnist", "unit", "squared", "5 epochs at 0.1")


def _rate_falls(rows: pandas.DataFrame) -> pandas.Series:
    return rows["milestones"].map(len) > 0


def ordinary(rows: pandas.DataFrame) -> pandas.Series:
    """Classifiers under the paper's falling rate, or trained to a loss."""
    return (rows["target"] == "class") & (_rate_falls(rows) | rows["stop_loss"].notna())


def to_the_end(rows: pandas.DataFrame) -> pandas.Series:
    """Classifiers under the paper's falling rate that were not stopped at a loss: kappa at every instant."""
    return ordinary(rows) & rows["stop_loss"].isna()


def constant_rate(rows: pandas.DataFrame) -> pandas.Series:
    """Classifiers under a constant rate, to the end."""
    return (rows["target"] == "class") & ~_rate_falls(rows) & rows["stop_loss"].isna()


def scalar_all(rows: pandas.DataFrame) -> pandas.Series:
    """One output on the parity of the class, all training points."""
    return (rows["target"] == "parity") & rows["n_train"].isna()


def scalar_few(rows: pandas.DataFrame) -> pandas.Series:
    """One output on the parity of the class, n points."""
    return (rows["target"] == "parity") & rows["n_train"].notna()


@dataclass(frozen=True)
class Claim:
    """One statement of the paper. `curves` are the (init, power, depths) it rests on; `judge` maps rows to Parts.

    `grids`: the figures, readings and controls whose trainings decide it. `where` picks its rows from all there are.
    `wanted`: the reading (dataset, scaling, loss, schedule) that is judged first. `either`: the parts are rival
    versions of which at most one can hold, so that one "yes" is all there can be. `further`: a measure that trainings
    were run again for (see further.py), and what judges its rows.
    """

    id: str
    source: str
    figure: str
    claim: str
    quote: str
    hypotheses: str
    criterion: str
    curves: tuple
    judge: Callable[[pandas.DataFrame], list[Part]]
    either: bool = False
    grids: tuple[str, ...] = ()
    where: Callable[[pandas.DataFrame], pandas.Series] = ordinary
    wanted: tuple[str, ...] = MAIN
    further: tuple[str, Callable[[pandas.DataFrame], list[Part]]] | None = None


HE, LECUN, SMALL = ("he", None, (2,)), ("lecun", None, DEPTHS), ("power", 2.0, (2,))
ALL_DEPTHS = ("he", None, DEPTHS)
FIGURE = "none: the figure's own setting (raw pixels, cross-entropy), which no theorem covers"
PEAK = (
    "PEAK: an interior width exceeds both ends by 5 % plus 2 standard errors (more, to share 5 % over the widths), "
    "on a grid that reaches twice L^3/2"
)
TREND = "linear contrast on log P, p < .01, end-to-end ratio beyond 1.1, no step significantly the other way"
