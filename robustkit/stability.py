"""Perturbation stability P(f, eps)/eps of any classifier: average robustness, by three estimators; torch alone."""

from __future__ import annotations

import contextlib
import inspect
import math
import warnings
from collections.abc import Iterable
from numbers import Integral, Real
from typing import NamedTuple

import torch
from torch import Tensor, backends, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

INPUTS, CHECKED = 2**18, 2**16  # entries of the inputs that go through a model at once, and when it is checked
ENTRIES, BLOCK = 2**28, 2**24  # entries of their Jacobians at once, and of the part of these held in float64
CUT_OFF = "the logits carry no gradient: the model must not run under no_grad, inference_mode or detach"


class Estimate(NamedTuple("Estimate", [("mean", float), ("sem", float), ("n", int)])):
    """A mean over n points and its standard error, NaN if n is 1; and `values`, float64 (n,), and `method`."""

    values, method = None, "unknown"

    def __repr__(self) -> str:
        error = f"standard error {self.sem:.2g}, n = {self.n}" if self.n > 1 else "no standard error (n = 1)"
        return f"Estimate(mean {self.mean:.6g}, {error}, method {self.method})"


def sample_ball(n: int, d: int, *, radius: float = 1.0, generator=None) -> Tensor:
    """Draw n points uniform in the d-dimensional l2 ball: radius * V^(1/d) * g/||g||, of shape (n, d), float32.
    Raises ValueError if n or d is below 1, or radius is not above 0. Source: NeurIPS Eq. (1), Unif(B(eps, x)).
    """
    if n < 1 or d < 1:
        raise ValueError(f"n is {n}, d is {d}, but both must be at least 1")
    _check_radius(radius)
    options = {"generator": generator, "dtype": torch.float32, "device": getattr(generator, "device", "cpu")}
    direction = nn.functional.normalize(torch.randn(n, d, **options), dim=1)
    return radius * torch.rand(n, 1, **options) ** (1 / d) * direction


def expected_norm(jacobian: Tensor, radius: float = 1.0) -> Tensor:
    """E ||J u||, u uniform in the d-ball of this radius, exact by quadrature: (..., d_out, d_in) -> (...), float64.

    E ||J u|| = radius * d/(d+1) / c(d) * E ||J g||, g ~ N(0, I), c(d) = sqrt(2) Gamma((d+1)/2) / Gamma(d/2), and
    E ||J g|| = 1/(2 sqrt(pi)) * integral over t > 0 of t^(-3/2) (1 - prod_i (1 + 2 t lambda_i)^(-1/2)),
    with lambda the eigenvalues of J J^T, by a trapezoid in log t: 321 nodes, relative error below 4e-12 for k = 3000.
    Raises ValueError unless J is real, of two axes or more, not empty, and finite. Source: NeurIPS Eq. (1).
    """
    _check_radius(radius)
    if jacobian.ndim < 2 or 0 in jacobian.shape[-2:] or not jacobian.is_floating_point():
        raise ValueError(f"jacobian is {jacobian.dtype}, {tuple(jacobian.shape)}, not a real (..., d_out, d_in)")
    if not torch.isfinite(values := mean_norm(jacobian)).all():
        raise ValueError("the Jacobian, or its norm, is not finite: has the model diverged?")
    return radius * values


def mean_norm(jacobian: Tensor) -> Tensor:
    """`expected_norm` in the unit ball, or NaN; over the largest entry squares neither over- nor underflow."""
    scale = _double(torch.linalg.vector_norm(jacobian, math.inf, (-2, -1), keepdim=True)).clamp(min=5e-324)
    return norm_in_ball(spectrum(gram(jacobian, scale)), jacobian.shape[-1]) * scale[..., 0, 0]


def gram(jacobian: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """J J^T (or the smaller J^T J) over scale^2, float64: (..., d_out, d_in) -> (..., min, min)."""
    jacobian = jacobian.mT if jacobian.shape[-2] > jacobian.shape[-1] else jacobian
    size = max(64, BLOCK * jacobian.shape[-1] // max(1, jacobian.numel()))  # columns at a time: one alone is large
    return sum(part @ part.mT for part in (_double(block) / scale for block in jacobian.split(size, -1)))


def spectrum(gram: Tensor) -> Tensor:
    """Eigenvalues of J J^T, ascending, or NaN where it is not finite: (..., k, k) -> (..., k)."""
    finite = gram.isfinite().all(-1).all(-1)[..., None]
    return torch.linalg.eigvalsh(gram.where(finite[..., None], 0)).clamp(min=0).where(finite, math.nan)


def norm_in_ball(eigenvalues: Tensor, d: int) -> Tensor:
    """E ||J u|| in the unit d-ball from the eigenvalues of J J^T: (..., k) -> (...); see `expected_norm`."""
    k, gaussian = eigenvalues.shape[-1], []
    y = torch.linspace(-66, 66, 321, dtype=torch.float64, device=eigenvalues.device)
    for part in eigenvalues.reshape(-1, k).split(max(1, 2_500 // max(1, k))):  # a few points at a time stay in cache
        total = part.sum(1, keepdim=True)
        share = part / total.where(total > 0, torch.ones_like(total))  # so that scale neither over- nor underflows
        log_product = torch.log1p(2 * share[..., None] * y.exp()).sum(1) / 2  # (n, nodes)
        integral = torch.trapezoid(torch.exp(-y / 2) * -torch.expm1(-log_product), y) / (2 * math.sqrt(math.pi))
        gaussian.append(integral * total.squeeze(1).sqrt())  # E ||J g||
    length = math.sqrt(2) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))  # E ||g||
    if d >= 4_000:  # the difference of two large logarithms loses digits, Stirling's series does not
        length = math.sqrt(d) * (1 - 1 / (4 * d) + 1 / (32 * d**2) + 5 / (128 * d**3))
    return d / (d + 1) / length * torch.cat(gaussian).reshape(eigenvalues.shape[:-1])


def jacobian(model, x: Tensor, *, copies: int = 1) -> Tensor:
    """Jacobian of the logits in the input, (n, *shape) -> (n, d_out, d_in), of points without mutual influence.

    One backward pass per logit, or per `copies` of them. Raises ValueError without a gradient, or above 4 GiB.
    """
    n, d_in = len(x), x[0].numel()
    x = x.detach().repeat(copies, *[1] * (x.ndim - 1)).requires_grad_(True)
    with torch.enable_grad():
        logits = _logits(model, x)
        if not logits.requires_grad:
            raise ValueError(CUT_OFF)
        d_out = logits.shape[1]
        if (size := d_out * d_in * x.element_size()) > 2**32:
            raise ValueError(f"the Jacobian of one point takes {size / 1e9:.1f} GB: method 'jvp' does without it")
        rows, weights = x.new_empty(n, d_out, d_in), torch.zeros_like(logits).reshape(copies, n, d_out)
        for first in range(0, d_out, copies):
            weights.zero_().diagonal(first, 0, 2).fill_(1)  # copy c picks logit first + c
            try:
                (grad,) = torch.autograd.grad(logits, x, weights.flatten(0, 1), retain_graph=True, allow_unused=True)
            except Exception:  # compiled models, checkpointing and some Functions go back through a graph once
                (_logits(model, x) * weights.flatten(0, 1)).sum().backward()
                grad, x.grad = x.grad, None
            if grad is None:
                raise ValueError(CUT_OFF)
            rows[:, first : first + copies] = grad.reshape(copies, n, d_in).transpose(0, 1)[:, : d_out - first]
    return rows


def perturbation_stability(
    model, x, *, radius=1.0, method="exact", draws=1, generator=None, relative=False, chunk=None, device=None
) -> Estimate:
    """P(f, radius)/radius = E_x E_u ||J(x) u||, u uniform in the unit ball: larger is less robust on average.

    model: any module or callable from a batch (n, *shape) to logits (n, d_out), in evaluation mode: without noise or
        influence of one point on another. It is left as it was. x: floating-point points, or an iterable of batches
        or of (batch, labels), such as a DataLoader; `device` takes them there a few at a time.
    method: "exact" (the mean over u by quadrature, one backward pass per logit; no `radius`, as P is linear), "jvp"
        (`draws` random directions per point) or "finite_difference" (||f(x + radius u) - f(x)||/radius, exact only in
        the linear region of f). The last two are seeded by one draw from `generator`.
    relative: divide by the mean norm of the logits, each centred over the classes. chunk: points handled at once,
        4 to 256 by the size of an input where None, which bounds memory. The standard error is over the points.
    Raises ValueError, or warns, as `check_model` and `check_derivative` do. Source: NeurIPS Eq. (1), workshop's (2).
    """
    if method not in ("exact", "jvp", "finite_difference"):
        raise ValueError(f"method is {method!r}, but must be one of exact, jvp, finite_difference")
    if not all(isinstance(count, Integral) and count >= 1 for count in (draws, 1 if chunk is None else chunk)):
        raise ValueError(f"draws is {draws!r} and chunk {chunk!r}, but both must be integers of at least 1")
    _check_radius(radius)
    if method != "exact":  # directions of our own, as the caller's generator may have drawn the weights
        seed = torch.randint(2**62, (), generator=generator, device=getattr(generator, "device", "cpu")).item()
        own = torch.Generator().manual_seed(seed)
    step, values, logits = radius if method == "finite_difference" else None, [], []
    for points, batch in blocks(x, chunk, method, device):
        with undisturbed(model, points):
            if not values:
                d_out = check_model(model, points)
                _check_step(model, points, step) if step else check_derivative(model, points)
            if method == "exact":
                parts = points.split(max(1, ENTRIES // (d_out * points[0].numel())))
                # In one expression, as a name would hold one Jacobian while the next is computed.
                values += [mean_norm(jacobian(model, p, copies=min(d_out, batch // len(p)))).cpu() for p in parts]
            else:
                draw = (zip(points.split(batch), _ball(points, own).split(batch), strict=True) for _ in range(draws))
                changes = torch.cat([_change(model, part, u, step) for pairs in draw for part, u in pairs])
                values.append(_norm(changes).reshape(draws, -1).mean(0).cpu())
            if relative:
                logits += [_double(_logits(model, part)) for part in points.split(batch)]
    if not values:
        raise ValueError("x holds no points, but must hold at least 1")
    value = torch.cat(values)
    if len(bad := value.isfinite().logical_not().nonzero()):
        raise ValueError(f"the stability at x[{bad[0].item()}] is not finite: NaN weights, a root at 0, or overflow?")
    if relative:
        scale = _norm(torch.cat([part - part.mean(1, keepdim=True) for part in logits])).mean().item()
        if scale == 0:
            raise ValueError("relative is True, but the centred logits are all zero (a single output has none)")
        value = value / scale
    sem = value.std().item() / math.sqrt(len(value)) if len(value) > 1 else math.nan
    estimate = Estimate(value.mean().item(), sem, len(value))
    estimate.values, estimate.method = value, method
    return estimate


def blocks(x, chunk: int | None, method: str, device=None):
    """The points of x, checked, in blocks (of 256 for directions, whatever the chunk), with the size of a pass."""
    for batch in x if isinstance(x, Iterable) and not isinstance(x, Tensor) else [x]:
        points = batch[0] if isinstance(batch, tuple | list) and batch else batch
        tensor = isinstance(points, Tensor)
        if not tensor or not points.is_floating_point() or points.ndim < 2 or points.numel() == 0:
            got = f"{points.dtype} of shape {tuple(points.shape)}" if tensor else type(points).__name__
            wanted = "a floating-point tensor (n, *shape), such as uint8 images / 255, or embeddings for token ids"
            raise ValueError(f"x {'is' if points is x else 'holds'} {got}, but must be {wanted}, with n at least 1")
        if not torch.isfinite(points).all():
            raise ValueError("x holds a value that is not finite")
        size = chunk or max(4, min(256, INPUTS // points[0].numel()))
        for block in points.split(size if method == "exact" else max(256, size)):
            yield block.to(device or block.device), size


def _change(model, x: Tensor, u: Tensor, step: float | None) -> Tensor:
    """J u by forward mode (step None), or the difference quotient along u: (n, d_out), float64."""
    if step is not None:
        return (_double(_logits(model, x + step * u)) - _double(_logits(model, x))) / step
    # Of the kernels of attention one alone has a forward mode; torch takes it where x requires a gradient.
    with warnings.catch_warnings(), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
        warnings.filterwarnings("ignore", message=".*torch.jit", category=FutureWarning)  # torch's own, at first use
        try:
            logits = _logits(model, forward_ad.make_dual(x.detach().clone().requires_grad_(True), u))
        except NotImplementedError as error:
            raise ValueError("method is 'jvp', but a layer of model has no forward mode: choose another") from error
        if (tangent := forward_ad.unpack_dual(logits).tangent) is None:
            raise ValueError(CUT_OFF)
    return _double(tangent.detach())


def _ball(x: Tensor, generator=None) -> Tensor:
    generator = generator or torch.Generator().manual_seed(20_221_128)  # the same at each call
    return sample_ball(len(x), x[0].numel(), generator=generator).to(x).reshape(x.shape)


def _logits(model, x: Tensor) -> Tensor:
    logits = model(x.clone())  # a copy, as the first layer may work in place
    tensor = isinstance(logits, Tensor)
    if tensor and logits.is_floating_point() and logits.ndim == 2 and len(logits) == len(x) and logits.numel():
        return logits
    got = f"{logits.dtype} of shape {tuple(logits.shape)}" if tensor else type(logits).__name__
    hint = ": pass lambda z: model(z).logits" * hasattr(logits, "logits")
    raise ValueError(f"model returned {got} for a batch of {len(x)}, not real logits of shape (n, d_out){hint}")


def _double(values: Tensor) -> Tensor:
    return (values.cpu() if values.device.type == "mps" else values).double()  # which has no float64


def _modules(model) -> list[nn.Module]:
    """The modules of a model, or those that a function, a method or another object holds."""
    held = [model, getattr(model, "__self__", None), *getattr(model, "__dict__", {}).values()]
    if inspect.isfunction(model):
        held += [value for names in inspect.getclosurevars(model)[:2] for value in names.values()]
        held += model.__defaults__ or ()
    return [module for value in held if isinstance(value, nn.Module) for module in value.modules()]


@contextlib.contextmanager
def undisturbed(model, x: Tensor):
    """Keep torch's global modes out of a measurement, and put back the model's buffers whatever happens."""
    with contextlib.ExitStack() as after:
        after.callback(setattr, backends.cudnn, "enabled", backends.cudnn.enabled)
        for switch in (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv):
            after.callback(setattr, switch, "fp32_precision", switch.fp32_precision)
            switch.fp32_precision = "ieee"
        for module in _modules(model):
            backends.cudnn.enabled &= not isinstance(module, nn.RNNBase)  # of which it has no derivative in eval()
            for name, buffer in module.named_buffers(recurse=False):
                after.callback(lambda b, value: torch.equal(b, value) or b.copy_(value), buffer, buffer.clone())
                after.callback(setattr, module, name, buffer)
            for parameter in module.parameters(recurse=False):  # backward passes keep less for the points alone
                after.callback(parameter.requires_grad_, parameter.requires_grad)
                parameter.requires_grad_(False)
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            yield


def check_model(model, x: Tensor) -> int:
    """d_out of a model that gives a point the same logits at each call and beside any others; else ValueError."""
    x = x[torch.arange(max(2, min(8, CHECKED // x[0].numel())), device=x.device) % len(x)]
    modules, state = _modules(model), torch.cuda.get_rng_state if x.is_cuda else torch.get_rng_state
    buffers = [buffer for module in modules for buffer in module.buffers(recurse=False)]
    before = [state(), *(buffer.clone() for buffer in buffers)]
    try:
        logits = _double(_logits(model, x))
    except (RuntimeError, TypeError, IndexError) as error:
        own = ", ".join({f"{p.dtype} on {p.device}" for module in modules for p in module.parameters()})
        got = f"{x.dtype} on {x.device} of shape {tuple(x.shape)}; one image alone is x[None]"
        raise ValueError(f"model ({own}) fails on x ({got}): {error}") from error
    moved = not all(map(torch.equal, before, [state(), *buffers]))

    def differ(points: Tensor, rows=slice(None), logits=logits, share=1e-3) -> bool:  # not where one is NaN
        one, two = _double(_logits(model, points))[rows], logits[rows]
        return bool((one - two).abs().max() > share * max(one.abs().max(), two.abs().max()))

    # At one place in batches of one size rounding is the same too, up to the order of sums on a GPU.
    mixed = differ(x.flip(0), logits=logits.flip(0), share=0.1)
    for first, factor in ((0, 3), (1, -3)):
        beside = x.index_copy(0, torch.arange(first, len(x), 2, device=x.device), factor * x[first::2] + 1)
        with contextlib.suppress(Exception):  # of a model that rejects such points
            mixed |= differ(beside, slice(1 - first, None, 2))
    noisy = any(differ(x) for _ in range(30 if moved else 1))
    change = "between calls" * noisy or "with the points beside it" * mixed
    if (change or moved) and any(getattr(module, "training", False) for module in modules):
        raise ValueError(f"a point's logits change {change or 'between calls'} in training mode: call model.eval()")
    if change:
        raise ValueError(f"a point's logits change {change}, in evaluation mode too, but must depend on it alone")
    return logits.shape[1]


def check_derivative(model, x: Tensor) -> None:
    """Raise ValueError if a branch of model has no derivative, and warn if the points lie on kinks.

    Beside a few points the gradient must be as long, and integrate to the logits' change, but for rounding and bends.
    """
    x = x[alive] if (alive := x.flatten(1).any(1)).any() else x  # at 0 networks without biases have a kink
    x = x[torch.arange(max(2, min(4, CHECKED // x[0].numel())), device=x.device) % len(x)]
    spread = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True)).float().norm(dim=1, keepdim=True)
    u = (_ball(x.flatten(1)) * spread.where(spread > 0, 1)).to(x).reshape(x.shape)

    @torch.enable_grad()
    def probe(length: float):  # does the change differ from the integral, by more than explained; longer gradient
        points = torch.stack([x + step * length * u for step in range(4)]).requires_grad_(True)  # (4, n, *shape)
        logits = torch.stack([_logits(model, part) for part in points])
        weights = _ball(logits[0].detach())
        (slopes,) = torch.autograd.grad(logits, points, weights.expand_as(logits))
        change = (_double(logits.detach()) * _double(weights)).diff(dim=0)  # (3, n, d_out)
        steps, slopes = _double(points.detach()).flatten(2).diff(dim=0), _double(slopes).flatten(2)
        integral, total = ((slopes[:-1] + slopes[1:]) / 2 * steps).sum((0, 2)), change.sum((0, 2))
        error = ((total - integral) * change.any(2).all(0)).square().sum()  # where model sees each step
        # Rounding and curvature bend the change and turn the gradient; a branch without derivative does neither.
        bend = change.diff(dim=0).square().mean(0).sum() / 6 + (slopes * steps[:1]).sum(2).var(0).sum()
        here, beside, *_ = slopes.square().sum((1, 2)).sqrt()
        return error > 0.05 * max(total.square().sum(), integral.square().sum()), error > 15 * bend, beside / here

    kinks = branch = False
    with contextlib.suppress(Exception):  # of a model without a backward pass: where one is needed, it fails there
        differ, _, growth = probe(1e-3)
        kinks = abs(growth - 1) > 0.2 and abs(probe(1e-5)[2] - 1) > 0.2
        branch = differ and any(all(probe(a)[:2] + probe(2 * a)[:2]) for a in (0.04, 0.2) if x.element_size() > 2)
    why = "points lie on kinks of model, as of clamp(0, 1) at 0 and 1, or ReLUs without biases at 0"
    why = why if kinks else "a branch of model has no derivative: is it quantised, rounded or detached"
    why += "; method 'finite_difference', with the radius that matters to you, needs no derivative"
    if branch or kinks and growth == math.inf:
        raise ValueError(why)
    if kinks:
        warnings.warn(f"{why}: beside them the gradient is {growth:.2g} times as long", stacklevel=3)


def _check_step(model, x: Tensor, radius: float) -> None:
    """Raise ValueError if rounding, which bends the logits from step to step, is most of their change over it."""
    reach = max(1, x[:4].flatten(1).norm(dim=1).max())  # beyond, what does not change is constant, not rounded
    for step in (radius * 2.0**power for power in range(1100)):
        path = torch.stack([_double(_logits(model, x[:4] + part / 8 * step * _ball(x[:4]))) for part in range(9)])
        bend, moved = path.diff(n=2, dim=0).square().mean(0).sum() / 6, (path - path[0]).square().sum((1, 2)).max()
        if bend < 0.02 * moved or step > reach:
            break
    if radius < step <= reach:
        raise ValueError(f"radius is {radius}, where rounding drowns the change: take {2 * step:.2g} or more")


def _check_radius(radius) -> None:
    if not isinstance(radius, Real) or not 0 < radius < math.inf:
        raise ValueError(f"radius is {radius!r}, but must be a finite number above 0")


def _norm(vectors: Tensor) -> Tensor:
    return (vectors / (scale := vectors.abs().amax(1, keepdim=True).clamp(min=5e-324))).norm(dim=1) * scale[:, 0]
