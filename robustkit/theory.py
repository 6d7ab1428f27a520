"""Every bound, exact value and table of the paper, each a plain function of floats; no torch.

m = width, L = depth (number of weight matrices), d = d_in, o = d_out, beta_l = standard deviation of layer l.
[N] is the NeurIPS paper, [W] its workshop version; remarks on proofs concern the appendix of [W].
Bounds written "<~" hide a constant: their values are orders, which a measurement may exceed.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from scipy.special import gammaln, logsumexp

from .checks import InputError, check_choice, check_number, check_sizes
from .initialization import layer_stds


def _exp(log: float) -> float:
    """exp that saturates at infinity instead of raising OverflowError."""
    return math.exp(log) if log < 709.0 else math.inf


def _log(value: float) -> float:
    """log with log 0 = -infinity: standard deviations such as m**-100 underflow."""
    return math.log(value) if value > 0 else -math.inf


def _log_chi_mean(k):
    """log of E chi_k = sqrt(2) Gamma((k+1)/2) / Gamma(k/2), the mean norm of k standard normals."""
    return 0.5 * math.log(2) + gammaln((k + 1) / 2) - gammaln(k / 2)


@functools.lru_cache
def _log_layer_mean(width: int) -> float:
    """log of M_m = 2^-m sum_k C(m, k) E chi_k: the mean stretch of a vector by a ReLU layer of unit variance.

    Half the neurons are on, so the squared factor is chi-square with Binomial(m, 1/2) degrees of freedom [W Lemma 2].
    """
    k = np.arange(1.0, width + 1)
    terms = gammaln(width + 1) - gammaln(k + 1) - gammaln(width - k + 1) - width * math.log(2) + _log_chi_mean(k)
    return float(logsumexp(terms))


def stability_at_init(init, *, width, depth, d_in, d_out, power=None, gain=None, alpha=1.0) -> float:
    """Exact mean of P/eps over the initial weights, at any input x != 0 of any norm.

    E P/eps = d/(d+1) * beta_1 M_m * (beta M_m)^(L-2) * beta_L c_o / alpha
    with c_o = E chi_o, M_m = 2^-m sum_k C(m,k) c_k = sqrt(m/2) (1 - 5/(8m) + O(1/m^2)).

    init, width, depth, d_in, d_out, power, gain: as in layer_stds. alpha: output divisor, above 0. Raises InputError
    on a bad scheme or number. Source: ours. [W Lemmas 2 and 5] give the law of each layer's squared stretch; it holds
    too for a vector other than the one that sets the signs, because (a, b) -> (-a, -b) leaves two jointly Gaussian
    numbers' law unchanged. The paper stops at the second moment; its claims of a peak in width are about trained
    networks, and this value rises in m to a constant.
    """
    betas = layer_stds(init, width=width, depth=depth, d_in=d_in, d_out=d_out, power=power, gain=gain)
    log = sum(map(_log, betas)) + (depth - 1) * _log_layer_mean(int(width)) + float(_log_chi_mean(d_out))
    return d_in / (d_in + 1) * _exp(log - math.log(check_number("alpha", alpha, above=0)))


def stability_spread(*, width, depth, d_out) -> float:
    """Spread over initial weights of the squared response to one fixed perturbation u.

    E ||J u||^4 / (E ||J u||^2)^2 = (1 + 5/m)^(L-1) (1 + 2/o)

    The same for every initialisation, as scales cancel. This minus 1 bounds the relative variance, over networks, of
    the mean squared response: averaging over u as P does takes most of the factor 1 + 2/o away. Raises InputError on
    a bad number. Source: ours, from the layer law of [W Lemma 2].
    """
    width, depth, d_out = check_sizes(width=width, depth=depth, d_out=d_out)
    return _exp((depth - 1) * math.log1p(5 / width)) * (1 + 2 / d_out)


def gamma(init, *, width, power=None, gain=None) -> float:
    """Gain of a hidden layer, beta / sqrt(2/m): 1 for "he" and "ntk", 1/sqrt(2) for "lecun".

    init, width, power, gain: as in layer_stds. Raises InputError on a bad scheme or number. Source: [N Theorem 1].
    """
    betas = layer_stds(init, width=width, depth=3, d_in=1, d_out=1, power=power, gain=gain)
    return betas[1] / math.sqrt(2 / width)


def theorem1_terms(init, *, width, depth, d_in, d_out, version, power=None, gain=None) -> tuple[float, float]:
    """The two terms of theorem1, in order, each with its factor gamma^(L-2); their sum is the bound."""
    check_choice("version", version, ("neurips", "workshop", "proof"))
    betas = layer_stds(init, width=width, depth=depth, d_in=d_in, d_out=d_out, power=power, gain=gain)
    # At L = 2 there is no middle layer and the factor is gamma^0.
    log_gammas = (depth - 2) * _log(gamma(init, width=width, power=power, gain=gain)) if depth > 2 else 0.0
    log_scale = _log(betas[0]) + _log(betas[-1])
    log_first = 1.5 * math.log(depth) + math.log(width) + log_scale - width / depth**3 + log_gammas
    log_first += 0.0 if version == "neurips" else 0.5 * math.log(math.pi / 8)
    log_second = log_gammas + (0.0 if version == "workshop" else 0.5 * math.log(width * d_out) + log_scale)
    return _exp(log_first), _exp(log_second - (0.5 * math.log(2) if version == "proof" else 0.0))


def theorem1(init, *, width, depth, d_in, d_out, version, power=None, gain=None) -> float:
    """Upper bound on P/eps after lazy training, up to a constant.

    neurips:  ( sqrt(L^3 m^2 beta_1^2 beta_L^2) exp(-m/L^3) + sqrt(m o beta_1^2 beta_L^2) ) gamma^(L-2)   [N Eq. 3]
    workshop: ( sqrt(pi L^3 m^2 beta_1^2 beta_L^2 / 8) exp(-m/L^3) + 1 ) gamma^(L-2)                      [W Eq. 3]
    proof:    ( sqrt(pi L^3 m^2 beta_1^2 beta_L^2 / 8) exp(-m/L^3) + sqrt(m o / 2) beta_1 beta_L ) gamma^(L-2)
                                                                           [W, end of B.2, no constant dropped]
    with gamma = beta / sqrt(2/m) and alpha = 1.

    init, width, depth, d_in, d_out, power, gain: as in layer_stds. Raises InputError on a bad scheme, version or
    number. As printed. The second term bounds the initial value closely; the first comes from Lemma 4, whose proof in
    [W] integrates a tail bound from 0 although it holds only above m beta_1 beta_L gamma^(L-2) / sqrt(2).
    """
    shape = {"width": width, "depth": depth, "d_in": d_in, "d_out": d_out}
    return sum(theorem1_terms(init, **shape, version=version, power=power, gain=gain))


def table1(init, *, width, depth, d_in, d_out, version) -> float:
    """The entry of Table 1 for "lecun", "he" or "ntk", as printed.

    neurips:  lecun (sqrt(L^3 m/d) e + sqrt(o/d)) g,  he sqrt(L^3 m/d) e + sqrt(o/d),  ntk sqrt(L^3 m/o) e + 1
    workshop: lecun (sqrt(pi L^3 m/(8d)) e + 1) g,  he sqrt(pi L^3 m/(2d)) e + 1,  ntk sqrt(pi L^3 m/(4o)) e + 1
    with e = exp(-m/L^3) and g = 2^(-(L-2)/2).

    Raises InputError on another scheme or version, or a bad number. Source: Table 1 of each version. Inserting the
    betas in [N Eq. 3] gives 2 x the "he" and sqrt(2) x the "ntk" entry of [N Table 1], which drops these constants;
    [W Table 1] is [W Eq. 3] exactly.
    """
    check_choice("init", init, ("lecun", "he", "ntk"))
    check_choice("version", version, ("neurips", "workshop"))
    layer_stds(init, width=width, depth=depth, d_in=d_in, d_out=d_out)  # for its checks of the numbers
    fan = d_out if init == "ntk" else d_in
    inside = 1 / fan if version == "neurips" else math.pi / ({"lecun": 8, "he": 2, "ntk": 4}[init] * fan)
    second = 1.0 if init == "ntk" or version == "workshop" else math.sqrt(d_out / d_in)
    first = math.sqrt(depth**3 * width * inside) * math.exp(-width / depth**3)
    return (first + second) * (2 ** (-(depth - 2) / 2) if init == "lecun" else 1.0)


def table2(*, width, depth, d_out, version="neurips") -> dict[str, float]:
    """The orders compared in Table 2, for the NTK initialisation with m >> o, d.

    ours sqrt(L^3 m/o) exp(-m/L^3) + 1 ("workshop": sqrt(pi L^3 m/(4o)) in its place);
    wu L^2 m^(1/3) sqrt(log m) + sqrt(m L);  wu_reduced sqrt(m L);  huang 2^((3L-5)/2) sqrt(m)

    Raises InputError on a bad number or version. Source: Table 2 of each version; the entries for Wu et al. and Huang
    et al. are the paper's translation, which it does not derive. wu_reduced is its caption's form under
    m/(log m)^6 >= L^12.
    """
    ours = table1("ntk", width=width, depth=depth, d_in=1, d_out=d_out, version=version)
    reduced = math.sqrt(width * depth)
    wu = depth**2 * width ** (1 / 3) * math.sqrt(math.log(width)) + reduced
    huang = _exp((3 * depth - 5) / 2 * math.log(2) + 0.5 * math.log(width))
    return {"ours": ours, "wu": wu, "wu_reduced": reduced, "huang": huang}


def peak_width(depth) -> float:
    """Width at which the Table 1 bound is largest: L^3/2, the maximum of sqrt(m) exp(-m/L^3).

    Raises InputError on a bad depth. Source: ours, from the form of Table 1 (beta_L ~ m^(-1/2)); the paper names no
    location. With beta_1 and beta_L held fixed, as [N Eq. 3] reads literally, m exp(-m/L^3) is largest at L^3.
    """
    return check_sizes(depth=depth)[0] ** 3 / 2


def interpolation_width(depth, *, d_in, d_out, n) -> float:
    """Width at which a network has as many parameters as there are training points: #parameters = n.

    The positive root m of (L-2) m^2 + (d + o) m = n.  Raises InputError on a bad number. Source: ours.
    """
    depth, d_in, d_out, n = check_sizes(depth=depth, d_in=d_in, d_out=d_out, n=n)
    ends, middle = d_in + d_out, depth - 2
    return n / ends if middle == 0 else (math.sqrt(ends**2 + 4 * middle * n) - ends) / (2 * middle)


def theorem2(*, width, depth, betas, alpha=1.0) -> tuple[float, float]:
    """Condition value and final lower bound of the non-lazy criterion.

    condition = (m^(3/2) sum_l beta_l)^L / alpha, which the theorem wants << 1;
    bound = (alpha/4)^(1/L) / (sqrt(3 m^3 / 2) sum_l beta_l) - 1/L - 1
          <= sup_t ||W_l(t) - W_l(0)||_F / ||W_l(0)||_F for every l, with high probability, when m >> d.

    betas: the L standard deviations (layer_stds). alpha: output divisor, above 0. A bound below 0 says nothing.
    Raises InputError on a bad number or if there are not L positive betas. Source: [N Theorem 2], bound from the last
    display but one of [W Appendix C]. As printed; its estimate of the initial norms, sqrt(3 m^3/2) beta_l, exceeds
    the true order m beta_l by sqrt(m), so the bound is loose by that.
    """
    width, depth = check_sizes(width=width, depth=depth)
    alpha = check_number("alpha", alpha, above=0)
    betas = [check_number("betas", beta, above=0) for beta in betas]
    if len(betas) != depth:
        raise InputError(f"betas has {len(betas)} values, but must have depth = {depth}")
    log_sum = 1.5 * math.log(width) + math.log(math.fsum(betas))
    condition = _exp(depth * log_sum - math.log(alpha))
    bound = _exp(math.log(alpha / 4) / depth - 0.5 * math.log(1.5) - log_sum) - 1 / depth - 1
    return condition, bound


def theorem3(*, n, width, power) -> float:
    """Right-hand side of the non-lazy bound on P/eps, without its Theta.

    (sqrt(n log m) + n) / m^(c-1) * (1/sqrt(n^3 m) + 1/m^(c-1/2)),  c = power

    n: training points. The theorem assumes two layers, one output, squared loss, ||x|| = 1, c >= 1.5, m >> n^2 and
    an unnamed early time; values outside are computed all the same. Raises InputError on a bad number. Source:
    [N Eq. 4] = [W Eq. 4]. The first inner term is the larger one from m = n^(3/(2(c-1))) on (n^1.5 for c = 2, n^3 for
    c = 1.5), and the order in m is then m^(1/2-c).
    """
    return sum(_theorem3_terms(n, width, power))


def theorem3_remark(*, n, width, power) -> float:
    """theorem3 as the Remark after it reads it: (sqrt(n log m) + n) / m^(2c-3/2), its second inner term alone.

    Raises InputError on a bad number. Source: the Remark in [N Sec. 4.3] and in [W], which prints m^2.5 for c = 2 and
    m^4.5 for c = 3. Where m >> n^2 this is the smaller term for both, so Eq. (4) does not give it.
    """
    return _theorem3_terms(n, width, power)[1]


def _theorem3_terms(n, width, power) -> tuple[float, float]:
    n, width = check_sizes(n=n, width=width)
    power, log_width = check_number("power", power), math.log(width)
    front = math.log(math.sqrt(n * log_width) + n) + (1 - power) * log_width
    return _exp(front - 0.5 * math.log(n**3 * width)), _exp(front - (power - 0.5) * log_width)


def theorem3_corrected(*, width, d_in, power, n, time, residual, alpha=1.0) -> float:
    """Upper bound on the mean of P/eps of a two-layer scalar network at any width, at any time of gradient flow.

    P(f_t)/eps <= E|u_1| / alpha * q(0) * exp(2 sqrt(n) residual t / alpha),  q = 1/2 sum_r (a_r^2 + ||w_r||^2),
    with E q(0) = m^(1-2c) (1 + d) / 2 in place of q(0), and E|u_1| = Gamma(d/2+1) / (sqrt(pi) Gamma((d+3)/2)).

    power: c, both standard deviations are m^-c. time: t of the flow on 1/2 sum_i (f_i - y_i)^2 (a flow on the mean
    loss 1/(2n) sum_i runs n times slower: divide its time by n). residual: ||y||_2, which serves every initialisation
    and so the mean over weights; ||y - f(0)||_2 serves one network, with its own q(0). All ||x_i|| <= 1. Raises
    InputError on a bad number. Gives infinity where the exponential overflows.
    Source: ours, in place of Theorem 3, whose time window in [W] is empty (see radii). Proof: ||grad f|| <= q/alpha,
    and dq/dt = 2 sum_i (y_i - f_i) f_i <= 2 sum_i |y_i| q/alpha, as |f_i| <= q/alpha; sum_i |y_i| <= sqrt(n) ||y||.
    With ||y - f|| <= ||y - f(0)|| instead, the second form. Rate in m at fixed t: m^(1-2c).
    """
    width, d_in, n = check_sizes(width=width, d_in=d_in, n=n)
    power, alpha = check_number("power", power), check_number("alpha", alpha, above=0)
    time, residual = check_number("time", time, low=0), check_number("residual", residual, low=0)
    log_projection = gammaln(d_in / 2 + 1) - gammaln((d_in + 3) / 2) - 0.5 * math.log(math.pi)
    log_start = (1 - 2 * power) * math.log(width) + math.log((1 + d_in) / 2)
    return _exp(float(log_projection) + log_start - math.log(alpha) + 2 * math.sqrt(n) * residual * time / alpha)


def h_infinity(x: np.ndarray, *, width, beta2, alpha=1.0) -> np.ndarray:
    """Expected Gram matrix of the first layer's gradient at initialisation, shape (n, n).

    H_ij = m beta_2^2 / alpha^2 * x_i.x_j (pi - theta_ij) / (2 pi),  theta_ij the angle between x_i and x_j

    x: inputs, shape (n, d), of any norm but 0. beta2: standard deviation of the output weights. Raises InputError on
    a bad number or shape, or a zero or non-finite input. Source: closed form of the expectation in [W Appendix D];
    lambda_0 is its smallest eigenvalue.
    """
    (width,), x = check_sizes(width=width), np.asarray(x, dtype=float)
    beta2, alpha = check_number("beta2", beta2, above=0), check_number("alpha", alpha, above=0)
    if x.ndim != 2:
        raise InputError(f"x has shape {x.shape}, but must be (n, d)")
    norms = np.linalg.norm(x, axis=1)
    if not (np.isfinite(norms).all() and (norms > 0).all()):
        raise InputError("x has a row that is zero or not finite, but every input must have a direction")
    products = x @ x.T
    angles = np.arccos(np.clip(products / np.outer(norms, norms), -1, 1))
    np.fill_diagonal(angles, 0)  # arccos turns a rounding of 1e-16 into 1e-8
    return width * (beta2 / alpha) ** 2 * products * (np.pi - angles) / (2 * np.pi)


def radii(*, lambda0, n, width, alpha, beta1, beta2) -> tuple[float, float]:
    """How far output and input weights may move in the proof of Theorem 3: (R_a, R_w).

    R_a = alpha/n sqrt(lambda_0/(8 n m)) - sqrt(2/pi) beta_2
    R_w = alpha^2 lambda_0 sqrt(2 pi) beta_1 / (32 n^3 m (R_a (R_a + sqrt(8/pi) beta_2) + beta_2^2))

    lambda0: smallest eigenvalue of h_infinity, above 0. n: training points. Raises InputError on a bad number.
    Source: [W Eq. 17], as printed. For unit inputs lambda_0 <= trace/n = m beta_2^2/(2 alpha^2), so that always
    R_a <= beta_2 (1/(4 n^1.5) - sqrt(2/pi)) < 0: Lemmas 8 to 11 of [W] then apply to no network.
    """
    n, width = check_sizes(n=n, width=width)
    for name, value in (("lambda0", lambda0), ("alpha", alpha), ("beta1", beta1), ("beta2", beta2)):
        check_number(name, value, above=0)
    r_a = alpha / n * math.sqrt(lambda0 / (8 * n * width)) - math.sqrt(2 / math.pi) * beta2
    moved = r_a * (r_a + math.sqrt(8 / math.pi) * beta2) + beta2**2
    return r_a, alpha**2 * lambda0 * math.sqrt(2 * math.pi) * beta1 / (32 * n**3 * width * moved)


def critical_times(*, lambda0, n, width, alpha, beta1, beta2, residual) -> tuple[float, float]:
    """End of the early phase in Theorem 3: (t_1, t_2), infinity where the movement never reaches its radius.

    t_1 = -2/lambda_0 log(1 - R_w lambda_0 alpha / (2 sqrt(n) (sqrt(n) beta_2 + R_a) residual))
    t_2 = -2/lambda_0 log(1 - R_a lambda_0 alpha / (2 sqrt(n) (3 beta_1 sqrt(log(m n^2)) + R_w) residual))

    residual: ||y - f(0)||_2, above 0. The rest as in radii. A negative time says that the window is empty (R_a < 0).
    Raises InputError on a bad number. Source: [W Appendix D], after Eq. 17, as printed; the theorem holds for
    t <= min(t_1, t_2).
    """
    residual = check_number("residual", residual, above=0)
    r_a, r_w = radii(lambda0=lambda0, n=n, width=width, alpha=alpha, beta1=beta1, beta2=beta2)

    def time(radius, speed):
        reached = radius * lambda0 * alpha / (2 * math.sqrt(n) * speed * residual)
        return -2 / lambda0 * math.log1p(-reached) if reached < 1 else math.inf

    return time(r_w, math.sqrt(n) * beta2 + r_a), time(r_a, 3 * beta1 * math.sqrt(math.log(width * n**2)) + r_w)
