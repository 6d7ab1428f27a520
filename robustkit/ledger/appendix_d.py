"""Numerical checks of Appendix D of the workshop version: R_a, Lemmas 6 to 9, the probability of Theorem 3."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pandas
from scipy import special

from .. import theory
from ..profiles import PAPER_WIDTHS
from .criteria import Part, yes_or_no
from .lemmas import RARE


def _printed_radius(lambda0, n, width, alpha, beta2) -> float:
    return theory.radii(lambda0=lambda0, n=n, width=width, alpha=alpha, beta1=1.0, beta2=beta2)[0]


def _repaired_radius(lambda0, n, width, alpha, beta2) -> float:
    """R with m n^3 / alpha^2 R (R + sqrt(8/pi) beta_2) = lambda_0/8: [W Eq. 19] without its last inequality."""
    mean, room = math.sqrt(2 / math.pi) * beta2, alpha**2 * lambda0 / (8 * n**3 * width)
    return room / (math.sqrt(mean**2 + room) + mean)


def _allowed() -> list[tuple]:
    """(lambda_0, n, m, alpha, beta_2) at the largest possible lambda_0; R_a rises with lambda_0."""
    grid = itertools.product(range(1, 101), PAPER_WIDTHS, (0.5, 1.0, 1.5, 2.0, 3.0), (0.01, 1.0, 100.0))
    return [(m * m ** (-2 * c) / (2 * alpha**2), n, m, alpha, m**-c) for n, m, c, alpha in grid]


def _drawn() -> list[tuple]:
    """The same with the lambda_0 of random unit inputs, alpha = 1 and beta_2 = m^-1.5."""
    networks, generator, width = [], np.random.default_rng(0), 1024
    for n, d in itertools.product((1, 2, 5, 10, 30, 100), (16, 784)):
        x = generator.standard_normal((n, d))
        gram = theory.h_infinity(x / np.linalg.norm(x, axis=1, keepdims=True), width=width, beta2=width**-1.5)
        networks.append((float(np.linalg.eigvalsh(gram)[0]), n, width, 1.0, width**-1.5))
    return networks


def _radius_part(name: str, networks: list[tuple], radius=_printed_radius) -> Part:
    ratios = [radius(*network) / network[-1] for network in networks]
    answer = "yes" if min(ratios) > 0 else "partly" if max(ratios) > 0 else "no"
    return Part(answer, f"{name}: R_a/beta_2 from {min(ratios):.4g} to {max(ratios):.4g}, {len(ratios)} networks")


@functools.cache
def radius() -> list[Part]:
    """The radius R_a of [W Eq. 17] is negative: lambda_0 <= trace(H^inf)/n = m beta_2^2 / (2 alpha^2) at unit inputs.

    R_a <= beta_2 (1/(4 n^1.5) - sqrt(2/pi)) < 0
    """
    allowed = _allowed()
    largest = "largest lambda_0 = m beta_2^2/(2 alpha^2), n = 1 to 100, all widths and c = 0.5 to 3"
    repaired = max(_repaired_radius(*network) / network[-1] for network in allowed)
    text = "; proof: trace(H^inf)/n bounds lambda_0, so R_a/beta_2 <= 1/(4 n^1.5) - sqrt(2/pi) < 0; repairable: Eq. "
    text += "19 of [W] without its last inequality gives a positive radius, of order beta_2/n^3 and at most "
    text += f"{repaired:.3g} beta_2; with it the first inner term of Eq. 25 falls below the second, and the order of "
    part = _radius_part(largest, allowed).plus(f"{text}the Remark stands")
    return [part, _radius_part("lambda_0 of random unit inputs, n = 1 to 100", _drawn())]


def _gram(x, a, w) -> np.ndarray:
    """H of one network or a stack of them, alpha = 1: sum_r a_r^2 x_i.x_j 1{w_r.x_i >= 0, w_r.x_j >= 0}."""
    on = (w @ x.T >= 0).astype(float)
    return x @ x.T * ((on * a[..., None] ** 2).swapaxes(-1, -2) @ on)


def _lemma7_part(widths, n: int = 5, draws: int = 1000) -> Part:
    promised, words, refuted, x = 1 - 1 / n, [], False, np.eye(n)
    for width in widths:
        generator = np.random.default_rng(width)
        grams = _gram(x, generator.standard_normal((draws, width)), generator.standard_normal((draws, width, n)))
        mean = theory.h_infinity(x, width=width, beta2=1.0)
        lambda0 = np.linalg.eigvalsh(mean)[0]
        near = np.linalg.norm(grams - mean, 2, axis=(1, 2)) <= lambda0 / 4
        ratio = 16 * n * math.sqrt(math.log(2 * n**3)) / lambda0
        words.append(f"{near.mean():.3g} (m = {width}, beta_2/alpha = {ratio:.3g})")
        refuted |= bool(special.bdtr(near.sum(), draws, promised) < RARE)
    text = f"Lemma 7, orthonormal inputs, n = {n}, its condition met: |H(0) - H^inf|_2 <= lambda_0/4 in a fraction "
    text += f"{', '.join(words)} of {draws} draws, where {promised:g} is promised; both sides scale as "
    text += "(beta_2/alpha)^2, so a condition on the width is needed in its place"
    return Part(yes_or_no(not refuted), text)


def _entry_part(beta2: float, width: int = 10_000, n: int = 2, draws: int = 300) -> Part:
    generator, x = np.random.default_rng(0), np.eye(1)
    a, w = beta2 * generator.standard_normal((draws, width)), generator.standard_normal((draws, width, 1))
    off = (_gram(x, a, w) - theory.h_infinity(x, width=width, beta2=beta2)).ravel()
    bound, promised = 4 * beta2 * math.sqrt(math.log(2 * n**3)), 1 - 1 / n**3
    near = np.abs(off) <= bound
    text = f"its proof, beta_2 = {beta2:.3g}, alpha = 1, m = {width}, n = {n}: |H_ii(0) - H^inf_ii| has spread "
    text += f"{off.std():.3g} against the bound {bound:.3g}, kept in a fraction {near.mean():.3g} of {draws} draws, "
    text += f"where {promised:.3g} is promised; the spread is beta_2^2 sqrt(5m/4)/alpha^2"
    return Part(yes_or_no(special.bdtr(near.sum(), draws, promised) >= RARE), text)


def _condition_part(powers=(1.0, 1.5, 2.0, 3.0)) -> Part:
    grid = itertools.product(range(1, 101), PAPER_WIDTHS, powers)
    best = max(m ** (1 - c) / (32 * n * math.sqrt(math.log(2 * n**3))) for n, m, c in grid)
    text = "its condition at alpha = 1, beta_2 = m^-c, with lambda_0 <= m beta_2^2/2, asks m^(1-c) >= 32 n "
    text += f"sqrt(log(2n^3)); largest ratio of left to right for c from {min(powers):g} to {max(powers):g}: "
    return Part(yes_or_no(best >= 1), f"{text}{best:.3g}")


def _lemma8_part(sign: int = -1, draws: int = 50) -> Part:
    """sign -1: the last line of the proof as printed; +1: both inequalities the other way round."""
    generator, width = np.random.default_rng(0), 512
    x = generator.standard_normal((4, 10))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    lambda0 = np.linalg.eigvalsh(theory.h_infinity(x, width=width, beta2=1.0))[0]
    a, w = generator.standard_normal((draws, width)), generator.standard_normal((draws, width, 10))
    moved = _gram(x, a + 0.01 * generator.uniform(-1, 1, a.shape), w + 0.01 * generator.uniform(-1, 1, w.shape))
    start = _gram(x, a, w)
    close = np.linalg.norm(moved - start, 2, axis=(1, 2)) <= lambda0 / 4
    least, first = (np.linalg.eigvalsh(h)[close, 0] for h in (moved, start))
    holds = sign * (least - first + lambda0 / 4) >= 0
    text = f"Lemma 8, last line of its proof, lambda_min(H(t)) {'<=' if sign < 0 else '>='} lambda_min(H(0)) - "
    text += f"lambda_0/4: true of {holds.sum()} of {len(holds)} networks with |H(t) - H(0)|_2 <= lambda_0/4; "
    text += "direction slip, repairable: by Weyl it is >=, as the lemma states"
    # A slip in the proof alone: the lemma states the right direction (though, as R_a < 0, it applies to no network).
    return Part("yes" if holds.all() else "none", text)


@functools.cache
def lemmas7_8() -> list[Part]:
    """Counter-examples to [W] Lemmas 7 and 8 as printed: a bound, a condition, the direction of an inequality."""
    return [_lemma7_part((16, 64, 256, 1024)), _entry_part(1.0), _condition_part(), _lemma8_part()]


def lemma6(n: int = 4, width: int = 20, d: int = 6, alpha: float = 2.0) -> pandas.DataFrame:
    """df/dt of the gradient flow by central differences, compared with (H + G)(y - f) under two readings of G.

    [W] prints G_ij = sigma(w_r.x_i) sigma(w_r.x_j) / alpha^2, with r free; df/dt needs the sum over r. Of single
    neurons, the closest is taken. f is quadratic along the step, so that the difference is exact up to rounding where
    no neuron switches on the way. Source: [W Lemma 6].
    """
    generator, shift = np.random.default_rng(0), 1e-5
    x, y = generator.standard_normal((n, d)), generator.choice([-1.0, 1.0], n)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    a, w = generator.standard_normal(width), generator.standard_normal((width, d))
    sent = np.maximum(x @ w.T, 0)
    rest = y - sent @ a / alpha
    along_a, along_w = sent.T @ rest / alpha, a[:, None] * (((x @ w.T >= 0) * rest[:, None]).T @ x) / alpha
    after, before = (np.maximum(x @ (w + s * along_w).T, 0) @ (a + s * along_a) / alpha for s in (shift, -shift))
    change = (after - before) / (2 * shift)
    single = sent.T[:, :, None] * sent.T[:, None, :] / alpha**2
    readings = {"summed over r": [single.sum(0)], "one r, the best of all": list(single)}
    gram = _gram(x, a, w) / alpha**2
    errors = {name: min(np.abs(change - (gram + g) @ rest).max() for g in gs) for name, gs in readings.items()}
    table = {"G": list(errors), "largest error": list(errors.values()), "largest |df/dt|": np.abs(change).max()}
    return pandas.DataFrame(table)


def lemma9(ns=(8, 16, 32), width: int = 16384) -> pandas.DataFrame:
    """Probability that some |a_r(0)| exceeds sqrt(n) beta_2, beside the n exp(-n/2) of [W Lemma 9].

    exact: 1 - (2 Phi(sqrt n) - 1)^m, for m independent normal weights. union: m neurons, each below exp(-n/2), which
    2 (1 - Phi(x)) <= exp(-x^2/2) gives.
    """
    n = np.array(ns, dtype=float)
    exact = -np.expm1(width * np.log1p(-2 * special.ndtr(-np.sqrt(n))))
    table = {"n": list(ns), "m": width, "exact": exact, "printed n exp(-n/2)": n * np.exp(-n / 2)}
    return pandas.DataFrame(table | {"union, m exp(-n/2)": width * np.exp(-n / 2)})


def theorem3_probability(ns=(4, 5, 6, 8, 16, 32)) -> pandas.DataFrame:
    """The probability in Theorem 3 as printed, 1 - n exp(-n/2) - 3/n; below 0 it promises nothing."""
    n = np.array(ns, dtype=float)
    return pandas.DataFrame({"n": list(ns), "1 - n exp(-n/2) - 3/n": 1 - n * np.exp(-n / 2) - 3 / n})
