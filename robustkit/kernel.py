"""The kernel argument of Appendix D: expected Gram matrix, how far weights may move, and for how long.

Importable from robustkit.theory. [W] is the workshop version; n = training points, m = width.
"""

from __future__ import annotations

import math

import numpy as np

from .checks import InputError, check_number


def h_infinity(x: np.ndarray, *, width, beta2, alpha=1.0) -> np.ndarray:
    """Expected Gram matrix of the first layer's gradient at initialisation, shape (n, n).

    H_ij = m beta_2^2 / alpha^2 * x_i.x_j (pi - theta_ij) / (2 pi),  theta_ij the angle between x_i and x_j

    x: inputs, shape (n, d), of any norm but 0. beta2: standard deviation of the output weights.
    Raises InputError on a bad number or shape, or a zero or non-finite input.
    Source: closed form of the expectation in [W Appendix D]; lambda_0 is its smallest eigenvalue.
    """
    width = check_number("width", width, low=1, integer=True)
    beta2 = check_number("beta2", beta2, above=0)
    alpha = check_number("alpha", alpha, above=0)
    x = np.asarray(x, dtype=float)
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

    lambda0: smallest eigenvalue of h_infinity, above 0. n: training points.
    Raises InputError on a bad number.
    Source: [W Eq. 17], as printed. For unit inputs lambda_0 <= trace/n = m beta_2^2/(2 alpha^2), so
    R_a <= beta_2 (1/(4 n^1.5) - sqrt(2/pi)) < 0 always: Lemmas 8 to 11 of [W] then apply to no network.
    """
    n = check_number("n", n, low=1, integer=True)
    width = check_number("width", width, low=1, integer=True)
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
    Raises InputError on a bad number.
    Source: [W Appendix D], after Eq. 17, as printed; the theorem holds for t <= min(t_1, t_2).
    """
    residual = check_number("residual", residual, above=0)
    r_a, r_w = radii(lambda0=lambda0, n=n, width=width, alpha=alpha, beta1=beta1, beta2=beta2)

    def time(radius, speed):
        reached = radius * lambda0 * alpha / (2 * math.sqrt(n) * speed * residual)
        return -2 / lambda0 * math.log1p(-reached) if reached < 1 else math.inf

    t_1 = time(r_w, math.sqrt(n) * beta2 + r_a)
    return t_1, time(r_a, 3 * beta1 * math.sqrt(math.log(width * n**2)) + r_w)
