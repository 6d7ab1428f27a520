"""The paper's statements: their words, the runs that decide each, its criterion and its judge."""

from __future__ import annotations

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

# The headline claims of the README, in its order.
HEADLINES = ("E01", "E03", "E05", "E06", "E07", "E08", "E09", "E10", "E15", "T12")

# Of these, the paper's answer in five lines: width, depth under He and LeCun, lazy against non-lazy, the theory.
ANSWER = ("E06", "E09", "E10", "E07", "T12")

# Readings that some claims are judged under in place of the main one.
SHORT_READING = (*MAIN_READING[:3], "flow10")
SCALAR_READING = ("mnist", "unit", "squared", "400 epochs at 0.05", "n_train=16")
THEOREM_1_READING = ("mnist", "unit", "squared", "5 epochs at 0.1")


@dataclass(frozen=True)
class Claim:
    """One statement of the paper. `curves` are the (init, power, depths) it rests on; `judge` maps rows to Parts.

    `grids`: the figures, readings and controls whose runs decide it. `where`: which of their rows it is about.
    `wanted`: the reading (dataset, scaling, loss, schedule, ...) that is judged first. `either`: the parts are rival
    versions of which at most one can hold, so that one "yes" is all there can be. `any_power`: another c in place of
    c = 2 is another reading. `early`: it is about the start of training, so that networks may have hardly trained.
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
ALL_DEPTHS = ("he", None, PAPER_DEPTHS)
FIGURE = "none: the figure's own setting (raw pixels, cross-entropy), which no theorem covers"


EMPIRICAL = (
    Claim(
        "E01", "N Fig. 2a, W Fig. 4a", "N2", "He, two layers: kappa is small and almost unchanged over epochs",
        "Fig. 2(a) shows that ratio κ is small and almost unchanged, recognized as lazy training.", FIGURE,
        f"at each width: the interval of kappa lies below 1, that of kappa(end)/kappa(first tenth) below {GROWTH}",
        (HE,), small_and_still, grids=("N2", "unit", "standard"), where=to_the_end,
    ),
    Claim(
        "E03", "N Fig. 3a, W Fig. 5a", "N3", "Non-lazy: kappa grows almost linearly in time",
        "The ratio increases almost linearly over time in Fig. 3(a).", FIGURE,
        "at each width, first half of training (constant learning rate): linear compared by AIC with sqrt, log and "
        "exponential then linear, with R^2 of each; in part where a line beats the two concave laws, explains 95 %, "
        "and is beaten by the exponential start alone", (SMALL,), linear_in_time,
        grids=("N3", "unit", "standard"), where=to_the_end, any_power=True,
    ),
    Claim(
        "E05", "N Sec. 5.2, W E.2", "N3", "Non-lazy kappa is much higher than lazy kappa",
        "However, the value of κ is much higher than that of lazy training regime.", FIGURE,
        "COMPARE: one-sided p < .05 at every width", (HE, SMALL), two_curves("kappa", True, "kappa, c = 2 over He,"),
        grids=("N4b", "unit", "standard"), any_power=True,
    ),
    Claim(
        "E06", "N Fig. 4a, W Fig. 2a, abstract", "N4a", "P rises and then falls with width at all five depths",
        "All of the five curves confirm the phase transition with width: the perturbation stability firstly "
        "increases and then decreases with width, which match our theoretical results.", FIGURE,
        PEAK + ", for each depth", (ALL_DEPTHS,), peaks_in_width, grids=("N4a", "unit", "standard"),
    ),
    Claim(
        "E07", "N Fig. 4b, W Fig. 2b", "N4b", "Non-lazy P is significantly below lazy P",
        "The perturbation stability of non-lazy training is significantly smaller than that of lazy training, which "
        "means non-lazy training regime is more robust.", FIGURE,
        "COMPARE: one-sided p < .05 at every width; matched training loss is a control",
        (HE, SMALL), two_curves("stability", False, "P, He over c = 2,"), grids=("N4b", "unit", "standard"),
        any_power=True,
    ),
    Claim(
        "E08", "N Fig. 4b, W Fig. 2b", "N4b", "Non-lazy P falls with width, without a phase transition",
        "Besides, the perturbation stability of non-lazy training decreases with the width of the neural network "
        "increases, which coincides with our theoretical result, i.e., no phase transition phenomenon.", FIGURE,
        f"TREND down ({TREND}) and no PEAK; the common training loss is a control", (SMALL,),
        width_and_depth.no_transition, grids=("N3", "unit", "standard"), any_power=True,
    ),
    Claim(
        "E09", "N Fig. 5a, W Fig. 3a", "N5a", "He: P rises with depth",
        "the perturbation stability under He initialization increases with depth, while the LeCun initialization "
        "shows the opposite tendency, which verified our theory.", FIGURE,
        f"TREND up over depth at each width: {TREND}", (ALL_DEPTHS,), trends_in_depth("up"), grids=("N5a", "unit"),
    ),
    Claim(
        "E10", "N Fig. 5b, W Fig. 3b", "N5b", "LeCun: P falls with depth",
        "the perturbation stability under He initialization increases with depth, while the LeCun initialization "
        "shows the opposite tendency, which verified our theory.", FIGURE,
        f"TREND down over depth at each width: {TREND}; to be read beside the training loss",
        (LECUN,), trends_in_depth("down"), grids=("N5b", "unit"),
    ),
    Claim(
        "E15", "W Table 4", "W_Table4", "ResNet-110: lazy and non-lazy accuracy are similar",
        "Notice that the non-lazy training regime achieves a similar performance to lazy training regime.",
        "our reading of the linked recipe; batch normalisation makes the initial scale an effective learning rate",
        "interval of the paired difference in accuracy, 3 seeds, last and best epoch: similar if the 90 % interval "
        "lies within one percentage point, not similar if the 95 % interval lies outside",
        (("he", None, (110,)), ("power", 2.0, (110,))), similar_accuracy, grids=("WT4",), models=("resnet",),
        wanted=("cifar10", "standard", "cross_entropy", "164 epochs at 0.1"),
    ),
    Claim(
        "E02", "N Fig. 2b, W Fig. 4b", "N2", "Lazy kappa falls with width",
        "In Fig. 2(b), we can see that the κ decreases with the increasing width.", FIGURE,
        f"TREND down of kappa: {TREND}", (HE,), lambda rows: [judge_trend(rows, "kappa", "down", name="kappa")],
        grids=("N2", "unit", "standard"),
    ),
    Claim(
        "E04", "N Fig. 3b, W Fig. 5b", "N3", "Non-lazy kappa in width: rises then falls (caption), or falls (text)",
        "The tendency of κ for non-lazy training is increasing with the width and then decreasing, i.e., a phase "
        "transition in Fig. 3(b). [caption] At the same time, Fig. 3(b) shows a similar tendency between the width "
        "and lazy training ratio as lazy training. [text]", FIGURE,
        "PEAK for the caption, TREND down for the text, which exclude each other", (SMALL,),
        lambda rows: [judge_peak(rows, "kappa", name="caption"), judge_trend(rows, "kappa", "down", name="text")],
        either=True, grids=("N3", "unit", "standard"), any_power=True,
    ),
    Claim(
        "E11", "N Fig. 5", "N5a", "The phase transition in width appears under He and under LeCun",
        "We observe a similar phase transition phenomenon", FIGURE,
        PEAK + ", for each initialisation and depth", (ALL_DEPTHS, LECUN), peaks_in_width,
        grids=("N5a", "N5b", "unit"),
    ),
    Claim(
        "E13", "W Fig. 7", "W7", "Variances 1/m^3 and 1/m^4: P falls with width",
        "shows that the robustness improves with the increase of the width of network which consistent with Theorem "
        "3", FIGURE, f"TREND down for c = 1.5 and c = 2: {TREND}", (("power", 1.5, (2,)), SMALL),
        width_and_depth.falls_at_each_power, grids=("W7",),
    ),
    Claim(
        "E12", "W Fig. 6", "W6", "CNN: a much larger gap between depths than in fully connected networks",
        "Compared with the fully connected network, the main difference of the convolutional neural network is that "
        "the gap between different depths is much larger than fully connected network, which is more in line with "
        "the relationship between robustness and depth under He initialization in Theorem 1.", FIGURE,
        "over the widths and depths that both have, under one schedule: size of the change of log P over depth (a "
        f"straight line, end to end); much larger if the interval of the CNN's less {MUCH_LARGER:g} times the other "
        "lies above 0 and the CNN's is a rise, in part if that of the CNN's less the other does; each head is a "
        "reading, flatten (whose networks train) the first",
        (("he", None, (4, 6, 8, 10)),), gap_between_depths, grids=("W6",), models=("cnn", "fcn"),
        wanted=(*MAIN_READING, "model=cnn", "head=flatten"),
    ),
    Claim(
        "E14", "W E.5", "W7", "Variances 1/m^3 and 1/m^4 differ less than the theory expects",
        "the difference between different initializations is not as large as our theoretical expectation", FIGURE,
        "interval of the difference between the slopes of log P in log m, compared with the theorem's",
        (("power", 1.5, (2,)), SMALL), powers_differ, grids=("W7",),
    ),
    Claim(
        "E16", "N Sec. 5.2", "N23_constant_rate", "Non-lazy kappa would grow without bound",
        "Combining the results about tendency with time, the ratio will be expected to increase as the time until "
        "infinity.", "constant learning rate",
        "growth law of kappa in time under a constant learning rate, by AIC; a finite run can support this in part "
        "at most", (SMALL,), unbounded_kappa, grids=("constant_rate",), where=constant_rate, wanted=SHORT_READING,
    ),
    Claim(
        "E17", "N Sec. 4.2, Remark", "N_lazy_schemes", "Common initialisations lead to lazy training",
        "Commonly used initializations such as NTK initialization, LeCun initialization, He's initialization lead to "
        "lazy training.", "m >> d in Theorem 2; the claim itself states none",
        f"for each, kappa below 1 at the largest width, and TREND down of kappa in width: {TREND}",
        (HE, ("lecun", None, (2,)), ("ntk", None, (2,))), common_inits_are_lazy,
        grids=("N2", "N5b", "ntk_full", "ntk"),
    ),
    Claim(
        "E18", "N Sec. 6", "N5a", "P against depth: first worse, then better",
        "Intriguingly, we find a change of behavior in average robustness with respect to the depth, initially "
        "exacerbating robustness and then alleviating it.", FIGURE,
        "PEAK over depth at each width; refuted only if absent at every width, since the paper names none",
        (ALL_DEPTHS, LECUN), width_and_depth.depth_peak, either=True, grids=("N5a", "N5b"),
    ),
    Claim(
        "E19", "abstract, N Sec. 4.1", "N_Table2_shapes", "The width transition appears under NTK too (LeCun: E11)",
        "We can see that phase transition phenomena exist under these two initializations regarding the width m, "
        "similar to the LeCun initialization.", FIGURE, PEAK + ", for each initialisation and depth",
        (("ntk", None, PAPER_DEPTHS),), peaks_in_width, grids=("ntk_full", "ntk"),
    ),
    Claim(
        "E20", "N Sec. 4.3", "T3", "Width always helps non-lazy training early on",
        "Under this setting of non-lazy training regime, the robustness and width of the neural network are "
        "positively correlated in the early stages of training.",
        "two layers, one output, squared loss, unit norm, c >= 1.5, m >> n^2, early time",
        "slope of log P in log m at early flow times, below the theorem's", (SMALL,), theorem3_rate, early=True,
        grids=("theorem3_n16", "theorem3_n8", "theorem3_n32"), where=scalar(few=True), wanted=SCALAR_READING,
    ),
    Claim(
        "E21", "N Table 1", "N_Table1_depth", "NTK: depth hurts",
        "So these two initializations hurt the robustness of the neural network at a polynomial order.", FIGURE,
        f"TREND up over depth at each width: {TREND}", (("ntk", None, PAPER_DEPTHS),),
        rises_in_depth("ntk", "stability"), grids=("ntk_full", "ntk"),
    ),
    Claim(
        "E22", "ours", "E22_attacks",
        "Average and worst case: does P rank networks as Lipschitz constants and attacks do?",
        "(The paper makes no such statement.)", FIGURE,
        "rank correlations over cell means (Fisher's z, standard error sqrt(1.06/(K-3)), though cells are no random "
        "sample) and within cells, of P with local Lipschitz constants, the product of spectral norms, P of softmax, "
        "P at training points and the accuracy lost to FGSM and PGD; for attacks, which are blind to the scale of "
        "the logits, also of P over the mean margin and over the norm of the logits; no verdict",
        (ALL_DEPTHS,), average_and_worst, grids=("N4a",), further=("attack", under_attack),
    ),
)  # fmt: skip


THEORETICAL = (
    Claim(
        "T12", "N Theorem 3, Remark", "T3",
        "Non-lazy P falls at least at the printed rate in width, early in training",
        "P(f_t, eps)/eps <= Theta((sqrt(n log m) + n) / m^(c-1) (1/sqrt(n^3 m) + 1/m^(c-1/2))) [Eq. 4] ... as "
        "the width m increases in the over-parameterized regime, a Gaussian initialization with smaller variance "
        "leads to the robustness increasing in a faster decay.",
        "two layers, one output, squared loss, unit norm, c >= 1.5, m >> n^2, early time",
        "RATE at fixed flow time, one-sided, against the theorem's 1/2 - c; the Remark's rate and 1 - 2c beside it",
        (("power", 1.5, (2,)), ("power", 2.0, (2,)), ("power", 3.0, (2,))), theorem3_rate, early=True,
        grids=("theorem3_n8", "theorem3_n16", "theorem3_n32"), where=scalar(few=True), wanted=SCALAR_READING,
    ),
    Claim(
        "T01", "W Lemma 1", "", "A rectified Gaussian squared is a Bernoulli times a chi-square",
        "Then X and Y have the same distribution.", "none", "two-sample Kolmogorov-Smirnov in 20 seeds", (),
        lambda rows: lemmas.lemma1(),
    ),
    Claim(
        "T02", "W Lemma 2", "", "The squared norm after a ReLU layer is chi-square with binomial degrees of freedom",
        "Then, q|v|^2 / (2|h|^2) is chi-square(rho), where rho is Ber(q, 1/2).", "none",
        "moments within 4 standard errors, mass at 0, two-sample KS; also with the signs of another vector", (),
        lambda rows: lemmas.lemma2(),
    ),
    Claim(
        "T03", "W Lemma 5", "", "Second moment of the response to a perturbation at initialisation",
        "E |W_L D_{L-1} ... D_1 W_1 (x - x^)|^2 <= m o beta_1^2 beta_L^2 gamma^(2(L-2)) / 2 eps^2", "none",
        "Monte Carlo over weights within 4 standard errors of the exact value; ratio of the printed bound to it", (),
        lambda rows: lemmas.lemma5(),
    ),
    Claim(
        "T04", "N Theorem 1, second term", "N4a_bounds", "The second term bounds P at initialisation",
        "P/eps <~ (sqrt(L^3 m^2 beta_1^2 beta_L^2) e^(-m/L^3) + sqrt(m o beta_1^2 beta_L^2)) gamma^(L-2) [Eq. 3]",
        "none at initialisation",
        "ratio to the exact value at least 1 on the paper's grid", (), lambda rows: initial_value.second_term(),
    ),
    Claim(
        "T05", "ours", "N5_initial", "P at initialisation: nearly constant in depth (He, NTK), halved every two "
        "layers (LeCun)", "(The paper makes no claim at initialisation.)", "none", "exact slopes of log P", (),
        lambda rows: initial_value.initial_depth(),
    ),
    Claim(
        "T06", "W Lemma 4", "W_Lemma4_measured", "The Jacobian's movement in training decays exponentially in m/L^3",
        "E | grad f^T (x - x^) - W_L D_{L-1} ... D_1 W_1 (x - x^) | <= Theta(eps gamma^(L-2) "
        "sqrt(pi L^3 m^2 beta_1^2 beta_L^2 / 8) e^(-m/L^3))",
        "unit norm; m of order d_out L^3 or more, by its own proof",
        "rate of exp(-rate m/L^3) in the measured E|J_T - J_0|, its interval against 1; a power law beside it", (),
        lambda rows: [], grids=("theorem1",), further=("jacobian_change", lemmas.lemma4),
    ),
    Claim(
        "T07", "N Theorem 1", "N4a_terms", "The bound holds for trained networks, up to a constant",
        "Then, under a small perturbation, we have the following: P/eps <~ (sqrt(L^3 m^2 beta_1^2 beta_L^2) "
        "e^(-m/L^3) + sqrt(m o beta_1^2 beta_L^2)) gamma^(L-2) [Eq. 3]", "unit norm, squared loss, small movement",
        "BOUND: log P/bound does not rise with width or depth (Holm over the family)", (ALL_DEPTHS,),
        theorem1_bound, grids=("theorem1", "N4a", "unit"), wanted=THEOREM_1_READING,
    ),
    Claim(
        "T08", "N Sec. 4.1", "N4a", "The peak in width moves like L^3",
        "After a critical point, e^(-m/L^3) plays a major role, so the stability will decrease as m increases.",
        FIGURE,
        "exponent in L of the width of the fitted peak, with its interval; #parameters = n as a rival", (ALL_DEPTHS,),
        peak_location, grids=("N4a", "unit"),
    ),
    Claim(
        "T09", "N Sec. 4.1", "N4a", "P tends to a constant in width",
        "Hence the perturbation stability tends to be a constant and independent of the width m as the width m tends "
        "to infinity.", FIGURE, "FLAT from width 4096 on: slope per doubling within 2 %", (ALL_DEPTHS,),
        constant_in_width, grids=("N4a",),
    ),
    Claim(
        "T10", "W Lemma 3", "", "The rescaled network has the same dynamics",
        "Then if we choose an appropriate learning rate, f and f' will have the same dynamics.", "none",
        "trajectories agree to rounding in float64", (), lambda rows: lemmas.lemma3(),
    ),
    Claim(
        "T11", "N Theorem 2", "T2_movement", "Under the condition, every layer moves far from its start",
        "sup_t |W_l(t) - W_l(0)|_F / |W_l(0)|_F >> 1", "small initial variance, m >> d, one output, unit norm",
        "relative movement of each layer rises with width; the printed lower bound lies below it; balance of norms",
        (SMALL,), theorem2_non_lazy, grids=("theorem2",), where=scalar(few=False),
        wanted=("digits", "unit", "squared", "400 epochs at 0.1"),
    ),
    Claim(
        "T13", "W Appendix D, Eq. 17", "T3_window", "The radius R_a within which output weights may move is positive",
        "R_a := alpha/n sqrt(lambda_0/(8 n m)) - sqrt(2/pi) beta_2", "none: over the inputs that the text admits",
        "sign of R_a at the largest possible lambda_0", (), lambda rows: appendix_d.radius(),
    ),
    Claim(
        "T14", "W Lemmas 7 and 8", "", "The Gram matrix stays near its expectation, as printed",
        "|H(0) - H^inf|_2 <= lambda_0/4, and lambda_min(H(0)) >= 3/4 lambda_0", "alpha as Lemma 7 asks",
        "a counter-example, or none found", (), lambda rows: appendix_d.lemmas7_8(),
    ),
    Claim(
        "T15", "N Table 2", "N_Table2_shapes",
        "NTK: P rises in width by less than the square root that Wu et al. and Huang et al. allow",
        "The results on the width are significantly better than the previous results increasing as the square root "
        "of m.", FIGURE,
        "exponent of P in m, its interval below 1/2; at one learning rate, and (a reading) at one that falls as 1/m",
        (("ntk", None, PAPER_DEPTHS),), ntk_orders, grids=("ntk_full", "ntk", "inverse_width"),
    ),
    Claim(
        "T16", "N Sec. 4.1", "N_gain", "gamma above 1: depth hurts at an exponential rate",
        "If some initialization schemes admit gamma > 1, then the depth L will hurt the robustness of the neural "
        "network at an exponentially increasing rate.", FIGURE,
        "exact slope per layer at initialisation; after training, its interval above 0",
        (("gain", None, PAPER_DEPTHS),), grids=("gain_full", "gain"),
        judge=lambda rows: [*initial_value.explosion_at_init(), *width_and_depth.explosion_trained(rows)],
    ),
    Claim(
        "T17", "N Sec. 4.1", "N5b_along_training", "LeCun: deeper is harder to train",
        "Since the activation function ReLU loses half of the energy in every layer, training a deep network with "
        "the LeCun initialization is difficult.",
        FIGURE, f"TREND up of the training loss over depth at each width: {TREND}", (LECUN,),
        rises_in_depth("lecun", "train_loss"), grids=("N5b", "unit"),
    ),
    Claim(
        "T18", "ours, from N Theorem 1", "N4a_terms", "The bound holds during training",
        "(The paper states Theorem 1 for trained networks, and names no time.)",
        "unit norm, squared loss, small movement", "BOUND at each of the seven evaluation points", (ALL_DEPTHS,),
        bound_along_training, grids=("theorem1", "N4a", "unit"), wanted=THEOREM_1_READING,
    ),
)  # fmt: skip

CLAIMS = {claim.id: claim for claim in (*EMPIRICAL, *THEORETICAL)}
CLAIMS = tuple(CLAIMS[name] for name in (*HEADLINES, *sorted(CLAIMS.keys() - set(HEADLINES))))
