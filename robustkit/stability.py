"""Perturbation stability P(f, eps)/eps of any classifier: average robustness, by three estimators.

This file needs torch alone: copy it into your own project if the metric is all you want.
"""

from __future__ import annotations

import math
import warnings
from numbers import Integral, Real
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Estimate(NamedTuple):
    """A mean over `n` points and its standard error over those points."""

    mean: float
    sem: float
    n: int


def sample_ball(n: int, d: int, *, radius: float = 1.0, generator=None) -> Tensor:
    """Draw n points uniform in the d-dimensional l2 ball: radius * V^(1/d) * g/||g||, of shape (n, d).

    Raises ValueError if n or d is below 1, or radius is not above 0. Source: NeurIPS Eq. (1), Unif(B(eps, x)).
    """
    if n < 1 or d < 1:
        raise ValueError(f"n is {n}, d is {d}, but both must be at least 1")
    _check_radius(radius)
    direction = nn.functional.normalize(torch.randn(n, d, generator=generator), dim=1)
    return radius * torch.rand(n, 1, generator=generator) ** (1 / d) * direction


def expected_norm(jacobian: Tensor, radius: float = 1.0) -> Tensor:
    """E ||J u||, u uniform in the d-ball of this radius, exact by quadrature: (..., d_out, d_in) -> (...), float64.

    E ||J u|| = radius * d/(d+1) / c(d) * E ||J g||, g ~ N(0, I), c(d) = sqrt(2) Gamma((d+1)/2) / Gamma(d/2), and
    E ||J g|| = 1/(2 sqrt(pi)) * integral over t > 0 of t^(-3/2) (1 - prod_i (1 + 2 t lambda_i)^(-1/2)),
    with lambda the eigenvalues of J J^T. The trapezoid in log t has 321 nodes; its
    relative error is below 2e-12 for up to 300 eigenvalues.

    Raises ValueError if the Jacobian has fewer than two axes or is not finite. Source: P of NeurIPS Eq. (1).
    """
    if jacobian.ndim < 2:
        raise ValueError(f"jacobian has shape {tuple(jacobian.shape)}, but must be (..., d_out, d_in)")
    if not torch.isfinite(jacobian).all():
        raise ValueError("the Jacobian holds a value that is not finite: has the model diverged?")
    _check_radius(radius)
    return radius * norm_in_ball(gram_eigenvalues(jacobian), jacobian.shape[-1])


def gram_eigenvalues(jacobian: Tensor) -> Tensor:
    """Eigenvalues of J J^T (or of the smaller J^T J), float64, ascending: (..., d_out, d_in) -> (..., min).

    NaN where the product is not finite.
    """
    jacobian = jacobian.double()
    if jacobian.shape[-2] > jacobian.shape[-1]:
        jacobian = jacobian.mT
    gram = jacobian @ jacobian.mT
    finite = gram.isfinite().all(-1).all(-1)[..., None]
    return torch.linalg.eigvalsh(gram.where(finite[..., None], 0)).clamp(min=0).where(finite, math.nan)


def norm_in_ball(eigenvalues: Tensor, d: int) -> Tensor:
    """E ||J u|| in the unit d-ball from the eigenvalues of J J^T: (..., k) -> (...); see `expected_norm`."""
    parts = eigenvalues.reshape(-1, eigenvalues.shape[-1]).split(250)  # a few points at a time stay in cache
    gaussian = torch.cat([_gaussian_norm(part) for part in parts]).reshape(eigenvalues.shape[:-1])
    mean_norm = math.sqrt(2) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))
    return d / (d + 1) / mean_norm * gaussian


def _gaussian_norm(eigenvalues: Tensor) -> Tensor:
    """E ||J g||, g ~ N(0, I): (n, k) -> (n,)."""
    # Normalised to sum 1, so that scale neither overflows nor underflows.
    total = eigenvalues.sum(1, keepdim=True)
    share = eigenvalues / total.where(total > 0, torch.ones_like(total))
    y = torch.linspace(-66, 66, 321, dtype=torch.float64, device=eigenvalues.device)
    log_product = torch.log1p(2 * share[..., None] * y.exp()).sum(1) / 2  # (n, nodes)
    integral = torch.trapezoid(torch.exp(-y / 2) * -torch.expm1(-log_product), y) / (2 * math.sqrt(math.pi))
    return integral * total.squeeze(1).sqrt()


def jacobian(model, x: Tensor) -> Tensor:
    """Jacobian of the logits in the input, one backward pass a logit: (n, *shape) -> (n, d_out, d_in)."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = _logits(model, x)
        if not logits.requires_grad:
            raise ValueError("the logits carry no gradient: the model must not run under torch.no_grad() or detach")
        rows = [torch.autograd.grad(logits[:, k].sum(), x, retain_graph=True)[0] for k in range(logits.shape[1])]
    return torch.stack([row.flatten(1) for row in rows], dim=1)


def perturbation_stability(
    model,
    x: Tensor,
    *,
    radius: float = 1.0,
    method: str = "exact",
    draws: int = 1,
    generator=None,
    relative: bool = False,
    chunk: int = 256,
) -> Estimate:
    """P(f, radius)/radius = E_x E_u ||J(x) u||, u uniform in the unit ball: larger is less robust on average.

    model: any module or callable from a batch (n, *shape) to logits (n, d_out). x: floating-point points.
    method: "exact" (the mean over u by quadrature, `radius` has no role: P is linear in it), "jvp" (`draws` random
        directions a point), "finite_difference" (||f(x + radius u) - f(x)||/radius, exact only within the linear
        region of f). The last two take `generator`. relative: divide by the mean norm of the logits, each centred
        over the classes. chunk: points handled at once, which bounds memory.
    The standard error is over the points. Raises ValueError on a bad argument, a model in training mode, or an
    output that is not finite logits. Source: NeurIPS Eq. (1), workshop Eq. (2).
    """
    _check(model, x, radius, method, draws, chunk)
    values, scales = [], []
    for part in x.split(chunk):
        if method == "exact":
            rows = jacobian(model, part)
            values.append(norm_in_ball(gram_eigenvalues(rows), rows.shape[-1]))
        else:
            values.append(_sampled(model, part, radius if method == "finite_difference" else None, draws, generator))
        if relative:
            with torch.no_grad():
                logits = _logits(model, part)
            scales.append((logits - logits.mean(1, keepdim=True)).norm(dim=1))
    value = torch.cat(values).double()
    if not torch.isfinite(value).all():
        raise ValueError("the stability of a point is not finite: does the model hold NaN or infinite weights?")
    if relative:
        scale = torch.cat(scales).mean().item()
        if scale == 0:
            raise ValueError("relative is True, but the centred logits are all zero (a single output has none)")
        value = value / scale
    sem = value.std().item() / math.sqrt(len(value)) if len(value) > 1 else math.nan
    return Estimate(value.mean().item(), sem, len(value))


def _sampled(model, x: Tensor, step: float | None, draws: int, generator) -> Tensor:
    """Mean over draws of ||J u|| (step None) or of ||f(x + step u) - f(x)||/step, one value a point."""
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for _ in range(draws):
        u = sample_ball(len(x), x[0].numel(), generator=generator).to(x).reshape(x.shape)
        if step is None:
            with warnings.catch_warnings():  # torch's own, from the first use of forward mode
                warnings.filterwarnings("ignore", message=".*torch.jit", category=FutureWarning)
                _, change = torch.func.jvp(lambda z: _logits(model, z), (x,), (u,))
        else:
            with torch.no_grad():
                change = (_logits(model, x + step * u) - _logits(model, x)) / step
        total += change.detach().double().norm(dim=1)
    return total / draws


def _logits(model, x: Tensor) -> Tensor:
    logits = model(x)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"model returned {got} for {len(x)} points, but must return logits of shape (n, d_out)")
    return logits


def _check_radius(radius) -> None:
    if not isinstance(radius, Real) or not 0 < radius < math.inf:
        raise ValueError(f"radius is {radius!r}, but must be a finite number above 0")


def _check(model, x, radius, method, draws, chunk) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 2 or len(x) == 0:
        got = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"x is {got}, but must be floating-point points of shape (n, *shape) with n at least 1")
    if method not in ("exact", "jvp", "finite_difference"):
        raise ValueError(f"method is {method!r}, but must be one of exact, jvp, finite_difference")
    if not torch.isfinite(x).all():
        raise ValueError("x holds a value that is not finite")
    _check_radius(radius)
    if not all(isinstance(count, Integral) and count >= 1 for count in (draws, chunk)):
        raise ValueError(f"draws is {draws!r} and chunk {chunk!r}, but both must be integers of at least 1")
    noisy = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    if isinstance(model, nn.Module) and any(m.training and isinstance(m, noisy) for m in model.modules()):
        raise ValueError(
            "model is in training mode, where batch normalisation and dropout are random: call model.eval()"
        )
