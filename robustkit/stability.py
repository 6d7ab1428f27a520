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
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

INPUTS = 2**18  # entries of the inputs that go through a model at once, which bounds its activations
ENTRIES, BLOCK = 2**28, 2**24  # entries of their Jacobians at once, and of the part of these held in float64
CUT_OFF = "the logits carry no gradient: the model must not run under no_grad, inference_mode or detach"


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
    with lambda the eigenvalues of J J^T. The trapezoid in log t has 321 nodes; its relative error is below 2e-12 for
    up to 300 eigenvalues, and 4e-12 for up to 3000.

    Raises ValueError if the Jacobian has fewer than two axes, or J J^T is not finite. Source: P of NeurIPS Eq. (1).
    """
    if jacobian.ndim < 2:
        raise ValueError(f"jacobian has shape {tuple(jacobian.shape)}, but must be (..., d_out, d_in)")
    _check_radius(radius)
    eigenvalues = gram_eigenvalues(jacobian)
    if not torch.isfinite(eigenvalues).all():
        raise ValueError("the Jacobian or J J^T holds a value that is not finite: has the model diverged?")
    return radius * norm_in_ball(eigenvalues, jacobian.shape[-1])


def gram_eigenvalues(jacobian: Tensor) -> Tensor:
    """Eigenvalues of J J^T (or the smaller J^T J), float64, ascending, or NaN: (..., d_out, d_in) -> (..., min)."""
    return spectrum(gram(jacobian))


def gram(jacobian: Tensor) -> Tensor:
    """J J^T (or the smaller J^T J), float64: (..., d_out, d_in) -> (..., min, min)."""
    if jacobian.shape[-2] > jacobian.shape[-1]:
        jacobian = jacobian.mT
    # A block of columns at a time: with a thousand logits one Jacobian is large enough in its own precision.
    blocks = jacobian.split(max(64, BLOCK * jacobian.shape[-1] // max(1, jacobian.numel())), -1)
    return sum(block @ block.mT for block in map(Tensor.double, blocks))


def spectrum(gram: Tensor) -> Tensor:
    """Eigenvalues of J J^T, ascending, or NaN where it is not finite: (..., k, k) -> (..., k)."""
    finite = gram.isfinite().all(-1).all(-1)[..., None]
    return torch.linalg.eigvalsh(gram.where(finite[..., None], 0)).clamp(min=0).where(finite, math.nan)


def norm_in_ball(eigenvalues: Tensor, d: int) -> Tensor:
    """E ||J u|| in the unit d-ball from the eigenvalues of J J^T: (..., k) -> (...); see `expected_norm`."""
    k = eigenvalues.shape[-1]
    parts = eigenvalues.reshape(-1, k).split(max(1, 2_500 // max(1, k)))  # a few points at a time stay in cache
    gaussian = torch.cat([_gaussian_norm(part) for part in parts]).reshape(eigenvalues.shape[:-1])
    if d < 4_000:
        mean_norm = math.sqrt(2) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))
    else:  # the difference of two large logarithms loses digits, Stirling's series does not
        mean_norm = math.sqrt(d) * (1 - 1 / (4 * d) + 1 / (32 * d**2) + 5 / (128 * d**3))
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


def jacobian(model, x: Tensor, *, copies: int = 1) -> Tensor:
    """Jacobian of the logits in the input: (n, *shape) -> (n, d_out, d_in).

    One backward pass per logit, for all points together, so points must not influence one another. With several
    `copies` of the points, one pass serves as many logits.
    """
    n, d_in = len(x), x[0].numel()
    x = x.detach().repeat(copies, *[1] * (x.ndim - 1)).requires_grad_(True)
    with torch.enable_grad():
        logits = _logits(model, x)
    d_out = logits.shape[1]
    rows, weights = x.new_empty(n, d_out, d_in), torch.zeros_like(logits).reshape(copies, n, d_out)
    for first in range(0, d_out, copies):
        weights.zero_().diagonal(first, 0, 2).fill_(1)  # copy c picks logit first + c
        picked, grad = weights.flatten(0, 1), None
        if logits.requires_grad:
            (grad,) = torch.autograd.grad(logits, x, picked, retain_graph=True, allow_unused=True)
        if grad is None:
            raise ValueError(CUT_OFF)
        block = rows[:, first : first + copies]  # (n, logits of this pass, d_in)
        block.copy_(grad.reshape(copies, n, d_in)[: block.shape[1]].transpose(0, 1))
    return rows


def perturbation_stability(
    model,
    x: Tensor,
    *,
    radius: float = 1.0,
    method: str = "exact",
    draws: int = 1,
    generator=None,
    relative: bool = False,
    chunk: int | None = None,
) -> Estimate:
    """P(f, radius)/radius = E_x E_u ||J(x) u||, u uniform in the unit ball: larger is less robust on average.

    model: any module or callable from a batch (n, *shape) to logits (n, d_out), without noise and without influence
        of one point on another: call model.eval() first. It is left as it was. x: floating-point points.
    method: "exact" (the mean over u by quadrature, one backward pass per logit; `radius` has no role: P is linear in
        it), "jvp" (`draws` random directions per point), "finite_difference" (||f(x + radius u) - f(x)||/radius,
        exact only within the linear region of f). The last two take `generator`. relative: divide by the mean norm of
        the logits, each centred over the classes. chunk: points handled at once, which bounds memory; None takes 4 to
        256 by the size of an input, and fewer where their Jacobians would hold more than 2^28 entries.
    The standard error is over the points. Raises ValueError on a bad argument, a model that is random or mixes
    points, or an output that is not finite logits. Source: NeurIPS Eq. (1), workshop Eq. (2).
    """
    _check(model, x, radius, method, draws, chunk)
    logits, d_in = _probe(model, x), x[0].numel()
    batch = chunk or max(4, min(256, INPUTS // d_in))
    if method == "exact":
        parts = x.split(chunk or min(batch, max(1, ENTRIES // (logits.shape[1] * d_in))))
        copies = [1 if chunk else max(1, min(batch // len(part), logits.shape[1])) for part in parts]
        # In one expression, as a name would hold one Jacobian while the next is computed.
        spectra = [gram_eigenvalues(jacobian(model, part, copies=c)) for part, c in zip(parts, copies, strict=True)]
        value = norm_in_ball(torch.cat(spectra), d_in)
    else:
        step = radius if method == "finite_difference" else None
        if step and min(x.element_size(), logits.element_size()) < 4:
            raise ValueError(f"x is {x.dtype}, its logits {logits.dtype}: finite_difference needs float32 or float64")
        # Directions are drawn for 256 points at a time, so that a seed names them whatever the chunk.
        blocks = x.split(max(256, batch))
        value = torch.cat([_sampled(model, block.split(batch), step, draws, generator) for block in blocks])
    if not torch.isfinite(value).all():
        first = value.isfinite().logical_not().nonzero()[0].item()
        with torch.no_grad():
            finite = _logits(model, x[[first, first]]).isfinite().all()
        why = "though its logits are: a root at 0, or overflow?" if finite else "nor are its logits: NaN weights?"
        raise ValueError(f"the stability at x[{first}] is not finite, {why}")
    if relative:
        with torch.no_grad():
            logits = torch.cat([_logits(model, part).double() for part in x.split(batch)])
        scale = (logits - logits.mean(1, keepdim=True)).norm(dim=1).mean().item()
        if scale == 0:
            raise ValueError("relative is True, but the centred logits are all zero (a single output has none)")
        value = value / scale
    sem = value.std().item() / math.sqrt(len(value)) if len(value) > 1 else math.nan
    return Estimate(value.mean().item(), sem, len(value))


def _sampled(model, parts, step: float | None, draws: int, generator) -> Tensor:
    """Mean over draws of ||J u|| (step None) or of ||f(x + step u) - f(x)||/step, one value per point, float64."""
    norms, shape = [], parts[0].shape[1:]
    for _ in range(draws):
        u = sample_ball(sum(map(len, parts)), shape.numel(), generator=generator).to(parts[0])
        pairs = zip(parts, u.unflatten(1, shape).split(len(parts[0])), strict=True)
        norms.append(torch.cat([_change(model, part, v, step).norm(dim=1) for part, v in pairs]))
    return torch.stack(norms).mean(0)


def _change(model, x: Tensor, u: Tensor, step: float | None) -> Tensor:
    """J u by forward mode (step None), or the difference quotient along u: (n, d_out), float64."""
    if step is not None:
        with torch.no_grad():
            return (_logits(model, x + step * u).double() - _logits(model, x).double()) / step
    # Of the kernels of attention one alone has a forward mode; torch takes it where x requires a gradient.
    with warnings.catch_warnings(), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
        warnings.filterwarnings("ignore", message=".*torch.jit", category=FutureWarning)  # torch's own, at first use
        try:
            logits = _logits(model, forward_ad.make_dual(x.detach().clone().requires_grad_(True), u))
        except NotImplementedError as error:
            raise ValueError("method is 'jvp', but a layer of model has no forward mode: choose another") from error
        tangent = forward_ad.unpack_dual(logits).tangent
    if tangent is None:
        raise ValueError(CUT_OFF)
    return tangent.detach().double()


def _probe(model, x: Tensor) -> Tensor:
    """Logits of two points. Raises ValueError if a point's depend on the call, or on the points beside it."""
    with torch.no_grad():
        one, two = _logits(model, x[[0, 0]]), _logits(model, torch.stack([x[0], x[-1] / 2]))
    # At one place in batches of one size even rounding agrees, up to the order of sums on a GPU.
    if (one[0] - two[0]).abs().max() > torch.finfo(one.dtype).eps ** 0.5 * one[0].abs().max():
        raise ValueError(
            "a point's logits change between calls or with the points beside it, but must not: call model.eval()"
        )
    return two


def _logits(model, x: Tensor) -> Tensor:
    logits = model(x.clone())  # a copy, as the first layer may work in place
    tensor = isinstance(logits, Tensor) and logits.is_floating_point()
    if tensor and logits.ndim == 2 and len(logits) == len(x) and logits.shape[1] > 0:
        return logits
    got = f"{logits.dtype} of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
    raise ValueError(f"model returned {got} for a batch of {len(x)}, but must return real logits of shape (n, d_out)")


def _check_radius(radius) -> None:
    if not isinstance(radius, Real) or not 0 < radius < math.inf:
        raise ValueError(f"radius is {radius!r}, but must be a finite number above 0")


def _check(model, x, radius, method, draws, chunk) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 2 or x.numel() == 0:
        got = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"x is {got}, but must be floating-point points of shape (n, *shape) with n at least 1")
    if method not in ("exact", "jvp", "finite_difference"):
        raise ValueError(f"method is {method!r}, but must be one of exact, jvp, finite_difference")
    if not torch.isfinite(x).all():
        raise ValueError("x holds a value that is not finite")
    _check_radius(radius)
    if not all(isinstance(count, Integral) and count >= 1 for count in (draws, 1 if chunk is None else chunk)):
        raise ValueError(f"draws is {draws!r} and chunk {chunk!r}, but both must be integers of at least 1")
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    devices = {parameter.device for module in modules for parameter in module.parameters(recurse=False)}
    if devices and x.device not in devices:
        raise ValueError(f"x is on {x.device}, but model on {devices.pop()}: move one of them by .to()")
    for module in modules:  # `_probe` catches kinds that are not listed here
        rate = getattr(module, "dropout", 0)  # of attention and recurrent layers
        noisy = isinstance(module, nn.modules.dropout._DropoutNd | nn.RReLU) or isinstance(rate, float) and rate > 0
        if module.training and (noisy or getattr(module, "running_mean", None) is not None):
            raise ValueError(f"model is in training mode and holds {type(module).__name__}: call model.eval()")
