"""The empirical claims: their words, their criterion, and what judges it."""

from __future__ import annotations

from .claims import (
    ALL_DEPTHS,
    DEPTHS,
    FIGURE,
    HE,
    LECUN,
    MAIN,
    PEAK,
    PROXY,
    SCALAR,
    SMALL,
    TREND,
    Claim,
    constant_rate,
    scalar_few,
    to_the_end,
)
from .cnn_and_resnet import MUCH, gap_between_depths, similar_accuracy
from .criteria import (
    GROWTH,
    curve_name,
    linear_in_time,
    no_transition,
    peak,
    peaks_in_width,
    small_and_still,
    trend,
    trends_in_depth,
    two_curves,
)
from .theorems2_3 import common_inits_are_lazy, depth_peak, ntk_depth, powers_differ, theorem3_rate, unbounded_kappa
from .worst_case import average_and_worst, under_attack

EMPIRICAL = (
    Claim(
        "E01", "N Fig. 2a, W Fig. 4a", "N2", "He, two layers: kappa is small and almost unchanged over epochs",
        "Fig. 2(a) shows that ratio κ is small and almost unchanged, recognized as lazy training.", FIGURE,
        f"at each width: the interval of kappa lies below 1; that of kappa(end)/kappa(first tenth) below {GROWTH}",
        (HE,), small_and_still,
        grids=("N2", "unit", "standard"), where=to_the_end,
    ),
    Claim(
        "E03", "N Fig. 3a, W Fig. 5a", "N3", "Non-lazy: kappa grows almost linearly in time",
        "The ratio increases almost linearly over time in Fig. 3(a).", FIGURE,
        "at each width, first half of training (constant rate): linear against sqrt, log and exponential then linear "
        "by AIC, with R^2 of each; in part where a line beats the two laws that bend down, explains 95 %, and is "
        "beaten by the start that bends up",
        (SMALL,), linear_in_time,
        grids=("N3", "unit", "standard"), where=to_the_end,
        any_power=True,
    ),
    Claim(
        "E05", "N Sec. 5.2, W E.2", "N3", "Non-lazy kappa is much higher than lazy kappa",
        "However, the value of κ is much higher than that of lazy training regime.", FIGURE,
        "COMPARE: one-sided p < .05 at every width", (HE, SMALL), two_curves("kappa", True, "kappa, c = 2 over He,"),
        grids=("N4b", "unit", "standard"),
        any_power=True,
    ),
    Claim(
        "E06", "N Fig. 4a, W Fig. 2a, abstract", "N4a", "P rises and then falls with width at all five depths",
        "All of the five curves confirm the phase transition with width: the perturbation stability firstly "
        "increases and then decreases with width, which match our theoretical results.", FIGURE,
        PEAK + ", for each depth", (ALL_DEPTHS,), peaks_in_width,
        grids=("N4a", "unit", "standard"),
    ),
    Claim(
        "E07", "N Fig. 4b, W Fig. 2b", "N4b", "Non-lazy P is significantly below lazy P",
        "The perturbation stability of non-lazy training is significantly smaller than that of lazy training, which "
        "means non-lazy training regime is more robust.", FIGURE,
        "COMPARE: one-sided p < .05 at every width; matched training loss is a control",
        (HE, SMALL), two_curves("stability", False, "P, He over c = 2,"),
        grids=("N4b", "unit", "standard"),
        any_power=True,
    ),
    Claim(
        "E08", "N Fig. 4b, W Fig. 2b", "N4b", "Non-lazy P falls with width, without a phase transition",
        "Besides, the perturbation stability of non-lazy training decreases with the width of the neural network "
        "increases, which coincides with our theoretical result, i.e., no phase transition phenomenon.", FIGURE,
        f"TREND down ({TREND}) and no PEAK; the common training loss is a control", (SMALL,), no_transition,
        grids=("N3", "unit", "standard"),
        any_power=True,
    ),
    Claim(
        "E09", "N Fig. 5a, W Fig. 3a", "N5a", "He: P rises with depth",
        "the perturbation stability under He initialization increases with depth, while the LeCun initialization "
        "shows the opposite tendency, which verified our theory.", FIGURE,
        f"TREND up over the depths at each width: {TREND}", (ALL_DEPTHS,), trends_in_depth("up"),
        grids=("N5a", "unit"),
    ),
    Claim(
        "E10", "N Fig. 5b, W Fig. 3b", "N5b", "LeCun: P falls with depth",
        "the perturbation stability under He initialization increases with depth, while the LeCun initialization "
        "shows the opposite tendency, which verified our theory.", FIGURE,
        f"TREND down over the depths at each width: {TREND}; read it beside the training loss",
        (LECUN,), trends_in_depth("down"),
        grids=("N5b", "unit"),
    ),
    Claim(
        "E15", "W Table 4", "W_Table4", "ResNet-110: lazy and non-lazy accuracy are similar",
        "Notice that the non-lazy training regime achieves a similar performance to lazy training regime.",
        "our reading of the linked recipe; batch normalisation turns the initial scale into an effective rate",
        "interval of the paired difference in accuracy, 3 seeds, last and best epoch: similar if the 90 % one lies "
        "within a point, not if the 95 % one lies outside",
        (("he", None, (110,)), ("power", 2.0, (110,))), similar_accuracy, grids=("WT4",), models=("resnet",),
        wanted=("cifar10", "standard", "cross_entropy", "164 epochs at 0.1"),
    ),
    Claim(
        "E02", "N Fig. 2b, W Fig. 4b", "N2", "Lazy kappa falls with width",
        "In Fig. 2(b), we can see that the κ decreases with the increasing width.", FIGURE,
        f"TREND down, of kappa: {TREND}", (HE,), lambda rows: [trend(rows, "kappa", "down", name="kappa")],
        grids=("N2", "unit", "standard"),
    ),
    Claim(
        "E04", "N Fig. 3b, W Fig. 5b", "N3", "Non-lazy kappa in width: rises then falls (caption), or falls (text)",
        "The tendency of κ for non-lazy training is increasing with the width and then decreasing, i.e., a phase "
        "transition in Fig. 3(b). [caption] At the same time, Fig. 3(b) shows a similar tendency between the width "
        "and lazy training ratio as lazy training. [text]", FIGURE,
        "PEAK for the caption, TREND down for the text; both cannot hold", (SMALL,),
        lambda rows: [peak(rows, "kappa", name="caption"), trend(rows, "kappa", "down", name="text")],
        either=True,
        grids=("N3", "unit", "standard"),
        any_power=True,
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
        lambda rows: [
            trend(r, "stability", "down", name=curve_name("power", c), family=2) for c, r in rows.groupby("power")
        ],
        grids=("W7",),
    ),
    Claim(
        "E12", "W Fig. 6", "W6", "CNN: a much larger gap between depths than in fully connected nets",
        "Compared with the fully connected network, the main difference of the convolutional neural network is that "
        "the gap between different depths is much larger than fully connected network, which is more in line with "
        "the relationship between robustness and depth under He initialization in Theorem 1.", FIGURE,
        "over the widths and depths that both have, under one schedule: size of the change of log P over depth (a "
        f"straight line, end to end); the interval of CNN less {MUCH:g} times the other above 0 is much larger, if "
        "the CNN's is a rise, of CNN less the other larger in part; each head is a reading, flatten (whose nets "
        "train) the first",
        (("he", None, (4, 6, 8, 10)),), gap_between_depths, grids=("W6",), models=("cnn", "fcn"),
        wanted=(*MAIN, "model=cnn", "head=flatten"),
    ),
    Claim(
        "E14", "W E.5", "W7", "Variances 1/m^3 and 1/m^4 differ less than the theory expects",
        "the difference between different initializations is not as large as our theoretical expectation", FIGURE,
        "interval of the difference of the slopes of log P in log m, against the theorem's",
        (("power", 1.5, (2,)), SMALL), powers_differ, grids=("W7",),
    ),
    Claim(
        "E16", "N Sec. 5.2", "N23_constant_rate", "Non-lazy kappa would grow without bound",
        "Combining the results about tendency with time, the ratio will be expected to increase as the time until "
        "infinity.", "constant rate", "growth law of kappa in time under a constant rate, by AIC; a finite run can "
        "support this in part at most", (SMALL,), unbounded_kappa, grids=("constant_rate",), where=constant_rate,
        wanted=PROXY,
    ),
    Claim(
        "E17", "N Sec. 4.2, Remark", "N_lazy_schemes", "Common initialisations lead to lazy training",
        "Commonly used initializations such as NTK initialization, LeCun initialization, He's initialization lead to "
        "lazy training.", "m >> d in Theorem 2; the claim itself names none",
        f"TREND down of kappa in width for each, and kappa below 1 at the widest: {TREND}",
        (HE, ("lecun", None, (2,)), ("ntk", None, (2,))), common_inits_are_lazy,
        grids=("N2", "N5b", "ntk_full", "ntk"),
    ),
    Claim(
        "E18", "N Sec. 6", "N5a", "P against depth: first worse, then better",
        "Intriguingly, we find a change of behavior in average robustness with respect to the depth, initially "
        "exacerbating robustness and then alleviating it.", FIGURE,
        "PEAK over the depths at each width; a no needs a no at each, since the paper names none",
        (ALL_DEPTHS, LECUN), depth_peak, either=True, grids=("N5a", "N5b"),
    ),
    Claim(
        "E19", "abstract, N Sec. 4.1", "N_Table2_shapes", "The width transition appears under NTK too (LeCun: E11)",
        "We can see that phase transition phenomena exist under these two initializations regarding the width m, "
        "similar to the LeCun initialization.", FIGURE, PEAK + ", for each initialisation and depth",
        (("ntk", None, DEPTHS),), peaks_in_width, grids=("ntk_full", "ntk"),
    ),
    Claim(
        "E20", "N Sec. 4.3", "T3", "Width always helps non-lazy training, early",
        "Under this setting of non-lazy training regime, the robustness and width of the neural network are "
        "positively correlated in the early stages of training.",
        "two layers, one output, squared loss, unit norm, c >= 1.5, m >> n^2, early time",
        "the slope of log P in log m at early flow times lies below the theorem's", (SMALL,), theorem3_rate,
        grids=("theorem3_n16", "theorem3_n8", "theorem3_n32"), where=scalar_few, wanted=SCALAR, early=True,
    ),
    Claim(
        "E21", "N Table 1", "N_Table1_depth", "NTK: depth hurts",
        "So these two initializations hurt the robustness of the neural network at a polynomial order.", FIGURE,
        f"TREND up over the depths at each width: {TREND}", (("ntk", None, DEPTHS),), ntk_depth,
        grids=("ntk_full", "ntk"),
    ),
    Claim(
        "E22", "ours", "E22_attacks",
        "Average against worst case: does P rank networks as Lipschitz constants and attacks do?",
        "(The paper makes no such statement.)", FIGURE,
        "rank correlations over cell means (Fisher's z, standard error sqrt(1.06/(K-3)), though cells are no random "
        "sample) and within cells, of P with local Lipschitz constants, the product of spectral norms, P of softmax, "
        "P at training points and the accuracy lost to FGSM and PGD; for attacks, which do not see the scale, also "
        "of P over the mean margin and over the norm of the logits; no verdict",
        (ALL_DEPTHS,), average_and_worst, grids=("N4a",), further=("attack", under_attack),
    ),
)  # fmt: skip
