"""The claims of the theory: their words, their criterion, and what judges it."""

from __future__ import annotations

from . import appendix_d, initial_value, lemmas
from .claims import (
    ALL_DEPTHS,
    DEPTHS,
    FIGURE,
    LECUN,
    SCALAR,
    SMALL,
    TREND,
    UNDER_THEOREM_1,
    Claim,
    scalar_all,
    scalar_few,
)
from .theorem1 import bound_along_training, constant_in_width, ntk_orders, peak_location, theorem1_bound
from .theorems2_3 import explosion_trained, lecun_loss, theorem2_non_lazy, theorem3_rate

THEORETICAL = (
    Claim(
        "T12", "N Theorem 3, Remark", "T3",
        "Non-lazy P falls at least at the printed rate in width, early in training",
        "P(f_t, eps)/eps <= Theta((sqrt(n log m) + n) / m^(c-1) (1/sqrt(n^3 m) + 1/m^(c-1/2))) [Eq. 4] ... as "
        "the width m increases in the over-parameterized regime, a Gaussian initialization with smaller variance "
        "leads to the robustness increasing in a faster decay.",
        "two layers, one output, squared loss, unit norm, c >= 1.5, m >> n^2, early time",
        "RATE at fixed flow time, one-sided, against the theorem's 1/2 - c; the Remark's rate and 1 - 2c beside it",
        (("power", 1.5, (2,)), ("power", 2.0, (2,)), ("power", 3.0, (2,))), theorem3_rate,
        grids=("theorem3_n8", "theorem3_n16", "theorem3_n32"), where=scalar_few, wanted=SCALAR, early=True,
    ),
    Claim(
        "T01", "W Lemma 1", "", "A rectified Gaussian squared is a Bernoulli times a chi-square",
        "Then X and Y have the same distribution.", "none", "two-sample Kolmogorov-Smirnov in 20 seeds", (),
        lambda rows: lemmas.lemma1(),
    ),
    Claim(
        "T02", "W Lemma 2", "", "The squared norm after a ReLU layer is chi-square with binomial degrees of freedom",
        "Then, q|v|^2 / (2|h|^2) is chi-square(rho), where rho is Ber(q, 1/2).", "none",
        "moments within 4 standard errors, mass at 0, KS; also with the signs of another vector", (),
        lambda rows: lemmas.lemma2(),
    ),
    Claim(
        "T03", "W Lemma 5", "", "Second moment of the response to a perturbation at initialisation",
        "E |W_L D_{L-1} ... D_1 W_1 (x - x^)|^2 <= m o beta_1^2 beta_L^2 gamma^(2(L-2)) / 2 eps^2", "none",
        "Monte Carlo over weights within 4 standard errors of the exact value; printed over true", (),
        lambda rows: lemmas.lemma5(),
    ),
    Claim(
        "T04", "N Theorem 1, second term", "N4a_bounds", "The second term bounds P at initialisation",
        "P/eps <~ (sqrt(L^3 m^2 beta_1^2 beta_L^2) e^(-m/L^3) + sqrt(m o beta_1^2 beta_L^2)) gamma^(L-2) [Eq. 3]",
        "none at initialisation",
        "ratio to the exact value at least 1 over the paper's grid", (), lambda rows: initial_value.second_term(),
    ),
    Claim(
        "T05", "ours", "N5_initial", "P at initialisation: nearly constant in depth (He, NTK), halved every two "
        "layers (LeCun)", "(The paper makes no claim at initialisation.)", "none", "exact slopes", (),
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
        "BOUND: log of P/bound does not rise with width or depth (Holm over the family)", (ALL_DEPTHS,),
        theorem1_bound, grids=("theorem1", "N4a", "unit"), wanted=UNDER_THEOREM_1,
    ),
    Claim(
        "T08", "N Sec. 4.1", "N4a", "The peak in width moves like L^3",
        "After a critical point, e^(-m/L^3) plays a major role, so the stability will decrease as m increases.",
        FIGURE,
        "exponent of the fitted peak's width in L, with its interval; #parameters = n as rival", (ALL_DEPTHS,),
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
        (SMALL,), theorem2_non_lazy, grids=("theorem2",), where=scalar_all,
        wanted=("digits", "unit", "squared", "400 epochs at 0.1"),
    ),
    Claim(
        "T13", "W Appendix D, Eq. 17", "T3_window", "The radius R_a within which output weights may move is positive",
        "R_a := alpha/n sqrt(lambda_0/(8 n m)) - sqrt(2/pi) beta_2", "none: over the inputs that the text allows",
        "sign of R_a at the largest lambda_0 there can be", (), lambda rows: appendix_d.radius(),
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
        "exponent of P in m, its interval below 1/2; at the common rate, and (as a reading) at a rate of 1/m",
        (("ntk", None, DEPTHS),), ntk_orders,
        grids=("ntk_full", "ntk", "inverse_width"),
    ),
    Claim(
        "T16", "N Sec. 4.1", "N_gain", "gamma above 1: depth hurts at an exponential rate",
        "If some initialization schemes admit gamma > 1, then the depth L will hurt the robustness of the neural "
        "network at an exponentially increasing rate.", FIGURE,
        "exact slope per layer at initialisation; after training the slope's interval above 0",
        (("gain", None, DEPTHS),), lambda rows: [*initial_value.explosion_at_init(), *explosion_trained(rows)],
        grids=("gain_full", "gain"),
    ),
    Claim(
        "T17", "N Sec. 4.1", "N5b_along_training", "LeCun: deeper is harder to train",
        "Since the activation function ReLU loses half of the energy in every layer, training a deep network with "
        "the LeCun initialization is difficult.",
        FIGURE, f"TREND up of the training loss over the depths at each width: {TREND}", (LECUN,), lecun_loss,
        grids=("N5b", "unit"),
    ),
    Claim(
        "T18", "ours, from N Theorem 1", "N4a_terms", "The bound holds during training",
        "(The paper states Theorem 1 for trained networks, and names no time.)",
        "unit norm, squared loss, small movement", "BOUND at each of the seven instants", (ALL_DEPTHS,),
        bound_along_training, grids=("theorem1", "N4a", "unit"), wanted=UNDER_THEOREM_1,
    ),
)  # fmt: skip
