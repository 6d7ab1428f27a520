"""The paper's statements: for each the runs that decide it and its judge; its words are in claims.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas

from ..profiles import PAPER_DEPTHS
from . import appendix_d, initial_value, lemmas, width_and_depth
from .cnn_and_resnet import MUCH_LARGER, gap_between_depths, similar_accuracy
from .criteria import PEAK, TREND, Part, judge_peak, judge_trend
from .kappa import GROWTH, common_inits_are_lazy, linear_in_time, small_and_still, unbounded_kappa
from .rows import MAIN_READING, constant_rate, ordinary, scalar, to_the_end
from .theorem1 import bound_along_training, constant_in_width, ntk_orders, peak_location, theorem1_bound
from .theorems2_3 import powers_differ, theorem2_non_lazy, theorem3_rate
from .width_and_depth import peaks_in_width, rises_in_depth, trends_in_depth, two_curves
from .worst_case import average_and_worst, under_attack

# What stands before the ledger, and how its rules came about, which stands behind it.
PREAMBLE = (Path(__file__).parent / "preamble.md").read_text(encoding="utf-8").replace("\n", " ").strip()
LEAD, _, RULES = PREAMBLE.partition(". ")
WORDS = tomllib.loads((Path(__file__).parent / "claims.toml").read_text(encoding="utf-8"))
# What {GROWTH} and the like stand for in a claim's criterion and hypotheses.
CONSTANTS = {
    "FIGURE": "none: the figure's own setting (raw pixels, cross-entropy), which no theorem covers",
    "PEAK": PEAK, "TREND": TREND, "GROWTH": GROWTH, "MUCH_LARGER": MUCH_LARGER,
}  # fmt: skip

# The headline claims of the README, in its order.
HEADLINES = ("E01", "E03", "E05", "E06", "E07", "E08", "E09", "E10", "E15", "T12")

# Readings that some claims are judged under in place of the main one.
SHORT_READING = (*MAIN_READING[:3], "flow10")
SCALAR_READING = ("mnist", "unit", "squared", "400 epochs at 0.05", "n_train=16")
THEOREM_1_READING = ("mnist", "unit", "squared", "5 epochs at 0.1", "milestones=()", "stop_loss=0.2", "stop_every=20")


@dataclass(frozen=True)
class Claim:
    """One statement of the paper. `curves` are the (init, power, depths) it rests on; `judge` maps rows to Parts.

    `grids`: the figures, readings and controls whose runs decide it. `where`: which of their rows it is about.
    `wanted`: the reading (dataset, scaling, loss, schedule, ...) that is judged first. `either`: the parts are rival
    versions of which at most one can hold, so that one "yes" is all there can be. `any_power`: another c in place of
    c = 2 is another reading. `early`: it is about the start of training, so that networks may have hardly trained.
    `early_too`: early times of the paper's schedule are readings of their own.
    `further`: a measure that runs were repeated for (see training/remeasure.py), and what judges its rows.
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
    any_power: bool = False
    early: bool = False
    early_too: bool = False
    grids: tuple[str, ...] = ()
    where: Callable[[pandas.DataFrame], pandas.Series] = ordinary
    wanted: tuple[str, ...] = MAIN_READING
    models: tuple[str, ...] = ("fcn",)
    further: tuple[str, Callable[[pandas.DataFrame], list[Part]]] | None = None

    @property
    def single_curves(self) -> list[tuple]:
        """(init, power, depth) of each curve it rests on."""
        return [(init, power, depth) for init, power, depths in self.curves for depth in depths]


HE, LECUN, SMALL = ("he", None, (2,)), ("lecun", None, PAPER_DEPTHS), ("power", 2.0, (2,))
ALL_DEPTHS, NTK, THEOREM_1 = ("he", None, PAPER_DEPTHS), ("ntk", None, PAPER_DEPTHS), ("theorem1", "theorem1_wide")


def _beside_a_gain(rows: pandas.DataFrame) -> pandas.Series:
    """Classifiers of width 64 under the choices under which there are networks with a gain above 1."""
    choices = rows["scaling"] + rows["schedule"] + rows["lr_rule"]
    return ordinary(rows) & (rows["width"] == 64) & choices.isin(choices[rows["init"] == "gain"])


def _claim(name: str, curves: tuple, judge: Callable, **options) -> Claim:
    words = WORDS[name] | {key: WORDS[name][key].format(**CONSTANTS) for key in ("hypotheses", "criterion")}
    return Claim(name, **words, curves=curves, judge=judge, **options)


_ALL = (
    _claim("E01", (HE,), small_and_still, grids=("N2", "unit", "standard"), where=to_the_end),
    _claim("E03", (SMALL,), linear_in_time, grids=("N3", "unit", "standard"), where=to_the_end, any_power=True),
    _claim(
        "E05", (HE, SMALL), two_curves("kappa", True, "kappa, c = 2 over He,"),
        grids=("N4b", "unit", "standard"), any_power=True,
    ),
    _claim("E06", (ALL_DEPTHS,), peaks_in_width, grids=("N4a", "unit", "standard", *THEOREM_1), early_too=True),
    _claim(
        "E07", (HE, SMALL), two_curves("stability", False, "P, He over c = 2,"),
        grids=("N4b", "unit", "standard"), any_power=True,
    ),
    _claim("E08", (SMALL,), width_and_depth.no_transition, grids=("N3", "unit", "standard"), any_power=True),
    _claim("E09", (ALL_DEPTHS,), trends_in_depth("up"), grids=("N5a", "unit", *THEOREM_1), early_too=True),
    _claim("E10", (LECUN,), trends_in_depth("down"), grids=("N5b", "unit", *THEOREM_1), early_too=True),
    _claim(
        "E15", (("he", None, (110,)), ("power", 2.0, (110,))), similar_accuracy, grids=("WT4",),
        models=("resnet",), wanted=("cifar10", "standard", "cross_entropy", "164 epochs at 0.1"),
    ),
    _claim(
        "E02", (HE,), lambda rows: [judge_trend(rows, "kappa", "down", name="kappa")],
        grids=("N2", "unit", "standard"),
    ),
    _claim(
        "E04", (SMALL,),
        lambda rows: [judge_peak(rows, "kappa", name="caption"), judge_trend(rows, "kappa", "down", name="text")],
        either=True, grids=("N3", "unit", "standard"), any_power=True,
    ),
    _claim("E11", (ALL_DEPTHS, LECUN), peaks_in_width, grids=("N4a", "N5b", "unit", *THEOREM_1), early_too=True),
    _claim("E13", (("power", 1.5, (2,)), SMALL), width_and_depth.falls_at_each_power, grids=("W7",)),
    _claim(
        "E12", (("he", None, (4, 6, 8, 10)),), gap_between_depths, grids=("W6",), models=("cnn", "fcn"),
        wanted=(*MAIN_READING, "model=cnn", "head=flatten"),
    ),
    _claim("E14", (("power", 1.5, (2,)), SMALL), powers_differ, grids=("W7",)),
    _claim("E16", (SMALL,), unbounded_kappa, grids=("constant_rate",), where=constant_rate, wanted=SHORT_READING),
    _claim(
        "E17", (ALL_DEPTHS, LECUN, NTK), common_inits_are_lazy, grids=("N4a", "N5b", "ntk_full", "ntk"),
    ),
    _claim("E18", (ALL_DEPTHS, LECUN), width_and_depth.depth_peak, either=True, grids=("N5a", "N5b")),
    _claim("E19", (NTK,), peaks_in_width, grids=("ntk_full", "ntk", *THEOREM_1)),
    _claim(
        "E20", (SMALL,), theorem3_rate, early=True, grids=("theorem3_n16", "theorem3_n8", "theorem3_n32"),
        where=scalar(few=True), wanted=SCALAR_READING,
    ),
    _claim("E21", (NTK,), rises_in_depth("ntk", "stability"), grids=("ntk_full", "ntk", *THEOREM_1)),
    _claim("E22", (ALL_DEPTHS,), average_and_worst, grids=("N4a",), further=("attack", under_attack)),
    _claim(
        "T12", (("power", 1.5, (2,)), ("power", 2.0, (2,)), ("power", 3.0, (2,))), theorem3_rate, early=True,
        grids=("theorem3_n8", "theorem3_n16", "theorem3_n32"), where=scalar(few=True), wanted=SCALAR_READING,
    ),
    _claim("T01", (), lambda rows: lemmas.lemma1()),
    _claim("T02", (), lambda rows: lemmas.lemma2()),
    _claim("T03", (), lambda rows: lemmas.lemma5()),
    _claim("T04", (), lambda rows: initial_value.second_term()),
    _claim("T05", (), lambda rows: initial_value.initial_depth()),
    _claim("T06", (), lambda rows: [], grids=("lemma4",), further=("jacobian_change", lemmas.lemma4)),
    _claim("T07", (ALL_DEPTHS,), theorem1_bound, grids=(*THEOREM_1, "N4a", "unit"), wanted=THEOREM_1_READING),
    _claim("T08", (ALL_DEPTHS,), peak_location, grids=("N4a", "unit", *THEOREM_1)),
    _claim("T09", (ALL_DEPTHS,), constant_in_width, grids=("N4a", *THEOREM_1)),
    _claim("T10", (), lambda rows: lemmas.lemma3()),
    _claim(
        "T11", (SMALL,), theorem2_non_lazy, grids=("theorem2",), where=scalar(few=False),
        wanted=("digits", "unit", "squared", "400 epochs at 0.1"),
    ),
    _claim("T13", (), lambda rows: appendix_d.radius()),
    _claim("T14", (), lambda rows: appendix_d.lemmas7_8()),
    _claim("T15", (NTK,), ntk_orders, grids=("ntk_full", "ntk", "inverse_width", *THEOREM_1)),
    _claim(
        "T16", (("gain", None, PAPER_DEPTHS), ALL_DEPTHS), where=_beside_a_gain,
        judge=lambda rows: [*initial_value.explosion_at_init(), *width_and_depth.explosion_trained(rows)],
        grids=("gain_full", "gain", "N4a"),
    ),
    _claim("T17", (LECUN,), rises_in_depth("lecun", "train_loss"), grids=("N5b", "unit")),
    _claim("T18", (ALL_DEPTHS,), bound_along_training, grids=(*THEOREM_1, "N4a", "unit"), wanted=THEOREM_1_READING),
)  # fmt: skip

CLAIMS = {claim.id: claim for claim in _ALL}
CLAIMS = tuple(CLAIMS[name] for name in (*HEADLINES, *sorted(CLAIMS.keys() - set(HEADLINES))))
