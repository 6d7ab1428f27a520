"""P at initialisation, checked by its exact values; and its bounds by the Frobenius norm of the Jacobian."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
from scipy import special

from .. import theory
from ..checks import check_number
from ..profiles import PAPER_DEPTHS, PAPER_WIDTHS
from .criteria import Part, yes_or_no
from .lemmas import MNIST
from .rows import NAMES

SLOPE_WIDTHS, SCHEMES = (16, 128, 1024, 16384), ("he", "lecun", "ntk")


def _ratios(version: str, scheme: str) -> list[float]:
    """Second term of Theorem 1 over the exact P/eps at initialisation, on the paper's grid."""
    shapes = [{"width": m, "depth": d, **MNIST} for m, d in itertools.product(PAPER_WIDTHS, PAPER_DEPTHS)]
    return [_second_term_ratio(version, scheme, **shape) for shape in shapes]


def _second_term_ratio(version: str, scheme: str, **shape) -> float:
    return theory.theorem1_terms(scheme, **shape, version=version)[1] / theory.stability_at_init(scheme, **shape)


def _second_term_part(version: str, name: str, factor: float = 1.0, note: str = "") -> Part:
    found = {s: [factor * r for r in _ratios(version, s)] for s in SCHEMES}
    ranges = ", ".join(f"{NAMES[s]} {min(r):.4g} to {max(r):.4g}" for s, r in found.items())
    text = f"{name} over exact P: {ranges}; {len(PAPER_WIDTHS) * len(PAPER_DEPTHS)} cells each, d = 784, o = 10{note}"
    return Part(yes_or_no(min(map(min, found.values())) >= 1), text)


@functools.cache
def second_term() -> list[Part]:
    """The second term of Theorem 1 alone lies above P at initialisation.

    sqrt(m o / 2) beta_1 beta_L gamma^(L-2)   [W, end of B.2]; sqrt(2) times that [N Eq. 3]; gamma^(L-2)   [W Eq. 3]

    The form of B.2 is the root of a second moment, which bounds the mean by Jensen's inequality.
    """
    at_small = _second_term_ratio("workshop", "he", width=PAPER_WIDTHS[-1], depth=2, d_in=10, d_out=10)
    note = f"; it treats d and o as constants: at d = o = 10 He would give {at_small:.2g}"
    return [
        _second_term_part("proof", "proof [W B.2]"),
        _second_term_part("neurips", "[N Eq. 3]"),
        _second_term_part("workshop", "the + 1 of [W Eq. 3], as printed", note=note),
    ]


def _slope(init, width: int, gain=None) -> float:
    """Exact growth of log P per layer, the same at every depth: each middle layer multiplies P by beta M_m."""
    ends = PAPER_DEPTHS[0], PAPER_DEPTHS[-1]
    logs = [math.log(theory.stability_at_init(init, width=width, depth=d, gain=gain, **MNIST)) for d in ends]
    return (logs[1] - logs[0]) / (ends[1] - ends[0])


def _follows(slopes: dict, per_layer: float) -> bool:
    """Are the slopes {m: s} log(per_layer) - 5/(8m) up to the next order, 1/m^2?"""
    return all(abs(s - math.log(per_layer) + 5 / (8 * m)) < 1 / m**2 for m, s in slopes.items())


def _listed(slopes: dict) -> str:
    return ", ".join(f"{s:.3g} (m = {m})" for m, s in slopes.items())


def _depth_part(init: str, per_layer: float) -> Part:
    slopes = {m: _slope(init, m) for m in SLOPE_WIDTHS}
    values = [
        [theory.stability_at_init(init, width=m, depth=depth, **MNIST) for m in PAPER_WIDTHS]
        for depth in PAPER_DEPTHS
    ]
    rises = np.diff(np.log(values))
    # Rises that halve at each doubling of width have a finite sum: the limit is a constant.
    shrink = rises[:, 1:] / rises[:, :-1]
    holds = (rises > 0).all() and shrink.max() < 0.6 and _follows(slopes, per_layer)
    text = f"{NAMES[init]}: log P per layer {_listed(slopes)}, that is log {per_layer:.4g} - 5/(8m); rises with "
    text += f"width at every L, each doubling by {shrink.min():.2g} to {shrink.max():.2g} of the previous rise; "
    return Part(yes_or_no(holds), f"{text}exact values")


@functools.cache
def initial_depth() -> list[Part]:
    """P at initialisation falls in depth by 5/(8m) a layer (He, NTK), by 1/sqrt(2) more (LeCun), and rises in width.

    Source: ours, from theory.stability_at_init; the paper makes no claim at initialisation.
    """
    return [_depth_part(s, math.sqrt(0.5) if s == "lecun" else 1.0) for s in SCHEMES]


def _growth_part(gain: float) -> Part:
    slopes = {m: _slope("gain", m, gain) for m in SLOPE_WIDTHS}
    grows = all(s > 0 for s in slopes.values()) and _follows(slopes, gain)
    text = f"gamma = {gain:g}, at initialisation: log P per layer {_listed(slopes)}, that is log gamma = "
    return Part(yes_or_no(grows), text + f"{math.log(gain):.3g} less 5/(8m); exact values")


@functools.cache
def explosion_at_init() -> list[Part]:
    """gamma > 1: P at initialisation grows by log gamma - 5/(8m) a layer; at gamma = 1 it does not grow.

    Source: [N Sec. 4.1]; the workshop version prints gamma >= 1.
    """
    still = {m: _slope("gain", m, 1.0) for m in SLOPE_WIDTHS}
    text = f"gamma = 1, at initialisation: does not grow, log P per layer {_listed(still)}; exact values"
    return [*(_growth_part(gain) for gain in (1.1, 1.25, 1.5)), Part(yes_or_no(max(still.values()) <= 0), text)]


def frobenius_sandwich(d_in) -> tuple[float, float]:
    """Constants (low, high) of low ||J||_F <= P/eps <= high ||J||_F, for every Jacobian J with d_in columns.

    low = sqrt(2/pi) c_d, high = 1/sqrt(d+2), with c_d = d/(d+1) / E chi_d, so that E ||J u|| = c_d E ||J g||

    Above, Cauchy-Schwarz: E ||J u||^2 = ||J||_F^2/(d+2). Below, E sqrt(sum_i lambda_i g_i^2) is concave in the
    eigenvalues of J J^T, so at a fixed sum it is least where one of them is all: rank one, E |g| = sqrt(2/pi).
    Raises InputError on a bad d_in. Source: ours; the paper uses the spectral norm.
    """
    d = check_number("d_in", d_in, low=1, integer=True)
    chi_mean = math.sqrt(2) * math.exp(special.gammaln((d + 1) / 2) - special.gammaln(d / 2))
    return math.sqrt(2 / math.pi) * d / (d + 1) / chi_mean, 1 / math.sqrt(d + 2)
