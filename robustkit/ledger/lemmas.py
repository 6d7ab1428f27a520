"""Numerical checks of the paper's lemmas, of which only the fourth needs trained networks.

Each check draws from fixed seeds or computes exactly, so that its answer never changes. [W] is the appendix of the
workshop version; the supplement of [N] was not at hand and may differ.
"""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pandas
from scipy import special, stats

from .. import theory
from ..datasets import dataset_info
from ..initialization import layer_stds
from .criteria import Part, yes_or_no
from .rows import usable, values_by

SEEDS, DRAWS, NETS_DRAWN = 20, 500_000, 20_000
MNIST = {"d_in": 784, "d_out": 10}
LIMIT = 4.0  # standard errors
RARE = 0.01  # a count less likely than this is not chance


def _rejections(name: str, p_values) -> Part:
    """yes, unless as many rejections at 5 % have a probability below 1 % under the claim."""
    count, tests = sum(p < 0.05 for p in p_values), len(p_values)
    chance = stats.binomtest(count, tests, 0.05, alternative="greater").pvalue
    text = f"{name}: {count} of {tests} tests reject at 5 % (as many or more by chance: {chance:.2g})"
    return Part(yes_or_no(chance >= RARE), text)


def _compare_laws(first, second) -> list[Part]:
    """Compare two samplers generator -> draws >= 0, at 0 and above it apart: KS is conservative at an atom."""
    above, at_zero = [], []
    for seed in range(SEEDS):
        generator = np.random.default_rng(seed)
        x, y = first(generator), second(generator)
        above.append(stats.ks_2samp(x[x > 0], y[y > 0], method="asymp").pvalue)
        share = (np.mean(x == 0) + np.mean(y == 0)) / 2
        error = math.sqrt(share * (1 - share) * (1 / len(x) + 1 / len(y)))
        at_zero.append(2 * special.ndtr(-abs(np.mean(x == 0) - np.mean(y == 0)) / error))
    tests = {"law above 0, two-sample KS": above, "mass at 0, two proportions": at_zero}
    return [_rejections(f"{name}, {len(x)} draws of each per seed", p_values) for name, p_values in tests.items()]


def _rectified_square(generator) -> np.ndarray:
    return np.maximum(generator.standard_normal(DRAWS), 0) ** 2


def _halved_square(generator, keep=0.5, scale=1.0) -> np.ndarray:
    return (generator.random(DRAWS) < keep) * (scale * generator.standard_normal(DRAWS)) ** 2


@functools.cache
def lemma1() -> list[Part]:
    """(w 1{w >= 0})^2 and s w^2 have the same law, w normal and s Bernoulli(1/2). Source: [W Lemma 1]."""
    return _compare_laws(_rectified_square, _halved_square)


def _stretches(q: int, same: bool, seed: int) -> np.ndarray:
    """q ||D W t||^2 / (2 ||t||^2), W_ij ~ N(0, 2/q), the signs D taken from t itself or from another vector."""
    moved, signing = np.array([1.0, -2, 0.5]), np.array([0.3, -1, 2])
    weights = math.sqrt(2 / q) * np.random.default_rng([seed, q, 1 + same]).standard_normal((20_000, q, 3))
    sent = weights @ moved
    on = sent >= 0 if same else weights @ signing >= 0
    return q * np.sum((on * sent) ** 2, axis=1) / (2 * moved @ moved)


def _chi_square_parts(name: str, same: bool, keep=0.5) -> list[Part]:
    """Moments, mass at 0 and law of the stretches against chi-square of Binomial(q, keep) degrees of freedom."""
    z, p_values, sizes = [], [], (2, 6, 16)
    for q in sizes:
        samples = [_stretches(q, same, seed) for seed in range(SEEDS)]
        for seed, sample in enumerate(samples):
            generator = np.random.default_rng([seed, q, 3])
            degrees = generator.binomial(q, keep, len(sample))
            drawn = 2 * generator.standard_gamma(degrees[degrees > 0] / 2)
            p_values.append(stats.ks_2samp(sample[sample > 0], drawn, method="asymp").pvalue)
        every = np.concatenate(samples)
        mean, variance, empty = q * keep, q * keep * (3 - keep), (1 - keep) ** q
        for values, expected in ((every, mean), ((every - mean) ** 2, variance), (every == 0, empty)):
            if len(every) * expected > 100:  # enough zeros for a normal count
                z.append((values.mean() - expected) / (values.std() / math.sqrt(len(every))))
    worst, listed = max(map(abs, z)), f"q = {', '.join(map(str, sizes))}"
    text = f"{name}: mean q/2, variance 5q/4 and mass 2^-q at 0 are off by at most {worst:.2g} standard errors; "
    law = _rejections(f"{name}: law above 0, two-sample KS, {listed}, {len(samples[0])} draws each", p_values)
    return [Part(yes_or_no(worst < LIMIT), text + f"{listed}, n = {len(every)} each"), law]


@functools.cache
def lemma2() -> list[Part]:
    """q ||phi(W h)||^2 / (2 ||h||^2) is chi-square of Binomial(q, 1/2) degrees, and so for signs of another vector.

    Source: [W Lemma 2]. Its Lemma 5 uses the second form without stating it; it holds, since
    (a, b) -> (-a, -b) keeps the law of two jointly normal numbers, so that 1{a >= 0} tells nothing of b^2.
    """
    other = "signs D of another vector (used by Lemma 5, not stated)"
    return _chi_square_parts("as stated", same=True) + _chi_square_parts(other, same=False)


def _second_moment(init, *, width, depth, d_in, d_out, gain=None, draws=NETS_DRAWN) -> tuple[float, float]:
    """Mean and standard error of ||W_L D ... D W_1 u||^2 over networks and u uniform in the unit ball."""
    generator = np.random.default_rng([width, depth, d_in, d_out])
    betas = layer_stds(init, width=width, depth=depth, d_in=d_in, d_out=d_out, gain=gain)
    moved = generator.standard_normal((draws, d_in))
    moved *= generator.random((draws, 1)) ** (1 / d_in) / np.linalg.norm(moved, axis=1, keepdims=True)
    hidden = np.ones_like(moved)
    for beta in betas[:-1]:
        weights = beta * generator.standard_normal((draws, width, hidden.shape[1]))
        before, sent = ((weights @ v[..., None])[..., 0] for v in (hidden, moved))
        hidden, moved = np.maximum(before, 0), (before >= 0) * sent
    last = betas[-1] * generator.standard_normal((draws, d_out, width))
    squares = np.sum((last @ moved[..., None]) ** 2, axis=(1, 2))
    return squares.mean(), squares.std() / math.sqrt(draws)


_NETS = (
    {"init": "he", "width": 8, "depth": 2, "d_in": 3, "d_out": 2},
    {"init": "lecun", "width": 16, "depth": 3, "d_in": 2, "d_out": 10},
    {"init": "ntk", "width": 12, "depth": 4, "d_in": 16, "d_out": 4},
    {"init": "gain", "width": 8, "depth": 5, "d_in": 1, "d_out": 1, "gain": 1.2},
)


@functools.cache
def _lemma5_moments() -> tuple:
    """(d, Monte Carlo mean, its error, printed bound) for each network, eps = 1."""
    return tuple(
        (net["d_in"], *_second_moment(**net), theory.theorem1_terms(**net, version="proof")[1] ** 2) for net in _NETS
    )


def _lemma5_equality(factor) -> Part:
    worst = max(abs(mean - factor(d) * printed) / error for d, mean, error, printed in _lemma5_moments())
    text = f"equality with eps^2 d/(d+2) in place of eps^2: {len(_NETS)} networks (L = 2 to 5), {NETS_DRAWN} draws "
    text += f"of weights and perturbation each, at most {worst:.2g} standard errors off"
    return Part(yes_or_no(worst < LIMIT), text)


@functools.cache
def lemma5() -> list[Part]:
    """E ||W_L D ... D W_1 delta||^2 = m o beta_1^2 beta_L^2 gamma^(2(L-2)) / 2 * eps^2 d/(d+2).

    delta is uniform in the ball of radius eps. Source: [W Lemma 5], which prints <= with eps^2; E ||delta||^2 =
    eps^2 d/(d+2) makes it an equality.
    """
    ratios = [f"{printed / mean:.3g} (d = {d})" for d, mean, _, printed in _lemma5_moments()]
    holds = all(mean - LIMIT * error < printed for _, mean, error, printed in _lemma5_moments())
    text = f"the printed bound holds; printed over measured: {', '.join(ratios)}; exactly (d+2)/d, "
    text += f"so {1 + 2 / MNIST['d_in']:.4f} at d = {MNIST['d_in']}"
    return [Part(yes_or_no(holds), text), _lemma5_equality(lambda d: d / (d + 2))]


def _descend(weights, x, y, *, rate, factor, steps) -> np.ndarray:
    """Outputs along gradient descent on 1/(2n) sum ||f - y||^2, f = factor W_L phi(... W_1 x): (steps + 1, n, o)."""
    weights, outputs = [w.copy() for w in weights], []
    for _ in range(steps + 1):
        hidden = [x]
        for w in weights[:-1]:
            hidden.append(np.maximum(hidden[-1] @ w.T, 0))
        outputs.append(factor * hidden[-1] @ weights[-1].T)
        back = factor * (outputs[-1] - y) / len(x)
        for w, h in zip(reversed(weights), reversed(hidden), strict=True):
            gradient, back = back.T @ h, (back @ w) * (h > 0)
            w -= rate * gradient
    return np.array(outputs)


def _rescaled(gamma: float, rate_power: float = 2.0) -> Part:
    depth, width, n, steps, rate = 4, 16, 8, 60, 0.1
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((n, 5)), generator.standard_normal((n, 3))
    betas = layer_stds("he", width=width, depth=depth, d_in=5, d_out=3)
    sizes = itertools.pairwise([5, *[width] * (depth - 1), 3])
    weights = [b * generator.standard_normal((out, inn)) for b, (inn, out) in zip(betas, sizes, strict=True)]
    plain = _descend(weights, x, y, rate=rate, factor=1.0, steps=steps)
    scaled = [w / gamma for w in weights]
    other = _descend(scaled, x, y, rate=rate / gamma**rate_power, factor=gamma**depth, steps=steps)
    # A weight known to a relative 1e-7 gives outputs known to `spread`. Each step rounds a weight through sums of at
    # most `width` or n terms, forwards and backwards through every layer, by 2^-53 each.
    moved = [w * (1 + 1e-7 * generator.choice([-1, 1], w.shape)) for w in weights]
    spread = np.abs(_descend(moved, x, y, rate=rate, factor=1.0, steps=steps) - plain).max()
    tolerance = spread / 1e-7 * steps * (2 * depth * width + n) * 2**-53
    off, fall = np.abs(other - plain).max(), np.sum((plain[-1] - y) ** 2) / np.sum((plain[0] - y) ** 2)
    text = f"gamma = {gamma:.3g}: outputs differ by at most {off:.2g} in {steps} steps (rounding allows "
    text += f"{tolerance:.2g}), while the loss falls to {fall:.2g} of its initial value; L = {depth}, m = {width}, "
    return Part(yes_or_no(off < tolerance), f"{text}n = {n}")


@functools.cache
def lemma3() -> list[Part]:
    """f~ = gamma^L W~_L phi(... W~_1 x), W~ = W/gamma, trained at eta/gamma^2, has the outputs of f throughout.

    Source: [W Lemma 3] and its proof. At gamma = 2 every scaling is exact in binary: the difference must be 0.
    """
    return [_rescaled(gamma) for gamma in (math.sqrt(0.5), 1.5, 2.0)]


def _line(x: np.ndarray, y: np.ndarray) -> tuple:
    """The line through the points by least squares, and its residual sum of squares."""
    line = stats.linregress(x, y)
    return line, float(np.sum((y - line.intercept - line.slope * x) ** 2))


def lemma4(rows: pandas.DataFrame) -> list[Part]:
    """[T06] [W Lemma 4] on measured E_x ||J_T - J_0||_2: the rate of its decay in m/L^3 against the printed 1.

    sqrt(m) exp(-rate m/L^3), the printed form with its m beta_1 beta_L of order sqrt(m), is fitted to log y by least
    squares; the 95 % t interval of the rate is from the residuals. "no": its upper end is below 1. "yes": its lower
    end is above 0, its upper end at least 1, and AIC prefers this law by more than 2 to a power of m, which has as
    many parameters. The proof's own range is m of order d_out L^3 or more, its d read as in Allen-Zhu et al., whose
    d is the output size (in the paper's notation it would be the input size, and the range begin later): only where
    it holds fewer than three widths are narrower ones fitted, and the answer is "outside".
    """
    parts = []
    for depth, curve in rows[usable(rows, "jacobian_change")].groupby("depth"):
        d_out = 1 if curve["target"].iloc[0] == "parity" else dataset_info(curve["dataset"].iloc[0]).classes
        cells = {m: np.log(v) for m, v in values_by(curve, "jacobian_change").items() if v}
        inside = [m for m in cells if m >= d_out * depth**3]
        name = f"L={depth}, {len(inside)} of widths {min(cells):g} to {max(cells):g} at m >= d_out L^3 = "
        name += f"{d_out * depth**3}, fitted from "
        cells = {m: cells[m] for m in inside} if len(inside) >= 3 else cells
        width, logs = np.repeat(list(cells), list(map(len, cells.values()))), np.concatenate(list(cells.values()))
        if len(cells) < 3 or len(logs) <= len(cells):
            parts.append(Part("inconclusive", f"{name}three widths: two seeds are needed"))
            continue
        exponential, misfit = _line(width / depth**3, logs - np.log(width) / 2)
        power, misfit_of_power = _line(np.log(width), logs)
        evidence = len(logs) * math.log(misfit_of_power / misfit)  # difference of AIC
        rate, half = -exponential.slope, float(special.stdtrit(len(logs) - 2, 0.975)) * exponential.stderr
        low, high, preferred = rate - half, rate + half, "exponential" if evidence > 0 else "power law"
        answer = "no" if high < 1 else "yes" if low > 0 and evidence > 2 else "inconclusive"
        first, last = (math.exp(cells[end(cells)].mean()) for end in (min, max))
        text = f"{name}{min(cells):g} on: E||J_T - J_0||_2 from {first:.3g} to {last:.3g}, sqrt(m) exp(-rate m/L^3) "
        text += f"with rate {rate:.3g} [{low:.3g}, {high:.3g}] (the lemma prints 1) or m^{power.slope:.3g}; AIC "
        text += f"prefers the {preferred} by {abs(evidence):.3g}; ||J_0||_2 {curve['jacobian_init'].mean():.3g}; "
        parts.append(Part("outside" if len(inside) < 3 else answer, f"{text}n = {len(logs)}"))
    return parts or [Part("missing", "E||J_T - J_0||: no runs that ended well")]
