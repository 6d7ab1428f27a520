"""Perturbation stability P(f, eps)/eps of any classifier: average robustness, by three estimators; torch alone."""

from __future__ import annotations

import contextlib
import inspect
import math
import warnings
from numbers import Integral, Real
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

INPUTS, CHECKED = 2**18, 2**16  # entries of the inputs that go through a model at once, and when it is checked
ENTRIES, BLOCK = 2**28, 2**24  # of their Jacobians at once, and of the part of these held in float64
CUT_OFF = "the logits carry no gradient: the model must not run under no_grad, inference_mode or detach"


class Estimate(NamedTuple("Estimate", [("mean", float), ("sem", float), ("n", int)])):
    """A mean over n points and its standard error, NaN if n is 1; and `values`, float64 (n,), and `method`."""

    def __new__(cls, mean: float, sem: float, n: int, values: Tensor | None = None, method: str = "unknown"):
        estimate = super().__new__(cls, mean, sem, n)
        estimate.values, estimate.method = values, method
        return estimate

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
    with lambda the eigenvalues of J J^T. The trapezoid in log t has 321 nodes; its relative error is below 2e-12 for
    up to 300 eigenvalues, and 4e-12 for up to 3000.
    Raises ValueError unless the Jacobian has two axes or more, is real, and J J^T finite. Source: NeurIPS Eq. (1).
    """
    _check_radius(radius)
    eigenvalues = gram_eigenvalues(jacobian)
    if not torch.isfinite(eigenvalues).all():
        raise ValueError("the Jacobian or J J^T holds a value that is not finite: has the model diverged?")
    return radius * norm_in_ball(eigenvalues, jacobian.shape[-1])


def gram_eigenvalues(jacobian: Tensor) -> Tensor:
    """Eigenvalues of J J^T (or the smaller J^T J), float64, ascending, or NaN: (..., d_out, d_in) -> (..., min)."""
    if jacobian.ndim < 2 or jacobian.is_complex():
        raise ValueError(f"jacobian is {jacobian.dtype}, {tuple(jacobian.shape)}, not a real (..., d_out, d_in)")
    if jacobian.shape[-2] > jacobian.shape[-1]:
        jacobian = jacobian.mT
    blocks = jacobian.split(max(64, BLOCK * jacobian.shape[-1] // max(1, jacobian.numel())), -1)  # one alone is large
    gram = sum(block @ block.mT for block in map(_double, blocks))
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
    mean_norm = math.sqrt(2) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))
    if d >= 4_000:  # the difference of two large logarithms loses digits, Stirling's series does not
        mean_norm = math.sqrt(d) * (1 - 1 / (4 * d) + 1 / (32 * d**2) + 5 / (128 * d**3))
    return d / (d + 1) / mean_norm * torch.cat(gaussian).reshape(eigenvalues.shape[:-1])


def jacobian(model, x: Tensor, *, copies: int = 1) -> Tensor:
    """Jacobian of the logits in the input: (n, *shape) -> (n, d_out, d_in).

    One backward pass per logit, for points that do not influence one another; with several `copies` of them, one pass
    serves as many logits. Raises ValueError if there is no gradient, or one point needs more than 4 GiB.
    """
    n, d_in = len(x), x[0].numel()
    x = x.detach().repeat(copies, *[1] * (x.ndim - 1)).requires_grad_(True)
    with torch.enable_grad():
        logits = _logits(model, x)
    d_out = logits.shape[1]
    if (size := d_out * d_in * x.element_size()) > 2**32:
        raise ValueError(f"the Jacobian of one point takes {size / 1e9:.1f} GB: method 'jvp' does without it")
    rows, weights = x.new_empty(n, d_out, d_in), torch.zeros_like(logits).reshape(copies, n, d_out)
    for first in range(0, d_out, copies):
        weights.zero_().diagonal(first, 0, 2).fill_(1)  # copy c picks logit first + c
        try:
            (grad,) = torch.autograd.grad(logits, x, weights.flatten(0, 1), retain_graph=True, allow_unused=True)
        except Exception:  # compiled models, checkpointing and some Functions go back through a graph once
            grad = gradient(model, x, lambda _: weights.flatten(0, 1))[1]
        if grad is None:
            raise ValueError(CUT_OFF)
        rows[:, first : first + copies] = grad.reshape(copies, n, d_in).transpose(0, 1)[:, : d_out - first]
    return rows


def gradient(model, x: Tensor, weights) -> tuple[Tensor, Tensor | None]:
    """The logits at x, and J^T weights(logits) by a backward pass, or None where they carry no gradient."""
    x = x.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        logits = _logits(model, x)
        if logits.requires_grad:
            try:
                (x.grad,) = torch.autograd.grad(logits, x, weights(logits.detach()), allow_unused=True)
            except RuntimeError:  # reentrant checkpointing knows .backward() alone
                _logits(model, x).backward(weights(logits.detach()))
    return logits.detach(), x.grad


def perturbation_stability(
    model, x: Tensor, *, radius=1.0, method="exact", draws=1, generator=None, relative=False, chunk: int | None = None
) -> Estimate:
    """P(f, radius)/radius = E_x E_u ||J(x) u||, u uniform in the unit ball: larger is less robust on average.

    model: any module or callable from a batch (n, *shape) to logits (n, d_out), in evaluation mode: without noise or
        influence of one point on another. It is left as it was. x: floating-point points.
    method: "exact" (the mean over u by quadrature, one backward pass per logit; no `radius`, as P is linear), "jvp"
        (`draws` random directions per point) or "finite_difference" (||f(x + radius u) - f(x)||/radius, exact only in
        the linear region of f). The last two are seeded by one draw from `generator`.
    relative: divide by the mean norm of the logits, each centred over the classes. chunk: points handled at once,
        which bounds memory; None takes 4 to 256 by the size of an input, and fewer for large Jacobians.
    The standard error is over the points. Raises ValueError on what cannot be measured, also as `check_model` and
    `check_derivative` say. Source: NeurIPS Eq. (1), workshop Eq. (2).
    """
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 2 or x.numel() == 0:
        got = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        wanted = "a floating-point tensor (n, *shape), such as uint8 images / 255, or embeddings for token ids"
        raise ValueError(f"x is {got}, but must be {wanted}, with n at least 1")
    if method not in ("exact", "jvp", "finite_difference"):
        raise ValueError(f"method is {method!r}, but must be one of exact, jvp, finite_difference")
    if not torch.isfinite(x).all():
        raise ValueError("x holds a value that is not finite")
    if not all(isinstance(count, Integral) and count >= 1 for count in (draws, 1 if chunk is None else chunk)):
        raise ValueError(f"draws is {draws!r} and chunk {chunk!r}, but both must be integers of at least 1")
    _check_radius(radius)
    step = radius if method == "finite_difference" else None
    with undisturbed(model, x):
        x, d_in = x.clone() if x.is_inference() else x, x[0].numel()
        batch, d_out = chunk or max(4, min(256, INPUTS // d_in)), check_model(model, x)
        _check_step(model, x, step) if step else check_derivative(model, x)
        if method == "exact":
            parts = x.split(chunk or min(batch, max(1, ENTRIES // (d_out * d_in))))
            copies = [1 if chunk else max(1, min(batch // len(part), d_out)) for part in parts]
            # In one expression, as a name would hold one Jacobian while the next is computed.
            spectra = [
                gram_eigenvalues(jacobian(model, part, copies=c)) for part, c in zip(parts, copies, strict=True)
            ]
            value = norm_in_ball(torch.cat(spectra), d_in)
        else:
            # Not from the caller's generator itself: it may have drawn the weights, from the same numbers.
            seed = torch.randint(2**62, (), generator=generator, device=getattr(generator, "device", "cpu")).item()
            own, norms = torch.Generator().manual_seed(seed), []
            for block in x.split(max(256, batch)):  # as many at a time, so that a seed names them whatever the chunk
                draw = (zip(block.split(batch), _ball(block, own).split(batch), strict=True) for _ in range(draws))
                changes = torch.cat([_change(model, part, u, step) for pairs in draw for part, u in pairs])
                norms.append(changes.norm(dim=1).reshape(draws, -1).mean(0))
            value = torch.cat(norms)
        if not torch.isfinite(value).all():
            first = value.isfinite().logical_not().nonzero()[0].item()
            finite = _logits(model, x[[first, first]]).isfinite().all()
            why = "though its logits are: a root at 0, or overflow?" if finite else "nor are its logits: NaN weights?"
            raise ValueError(f"the stability at x[{first}] is not finite, {why}")
        if relative:
            logits = torch.cat([_double(_logits(model, part)) for part in x.split(batch)])
            scale = (logits - logits.mean(1, keepdim=True)).norm(dim=1).mean().item()
            if scale == 0:
                raise ValueError("relative is True, but the centred logits are all zero (a single output has none)")
            value = value / scale
    sem = value.std().item() / math.sqrt(len(value)) if len(value) > 1 else math.nan
    return Estimate(value.mean().item(), sem, len(value), value.cpu(), method)


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
        tangent = forward_ad.unpack_dual(logits).tangent
    if tangent is None:
        raise ValueError(CUT_OFF)
    return _double(tangent.detach())


def _ball(x: Tensor, generator=None) -> Tensor:
    generator = generator or torch.Generator().manual_seed(20_221_128)  # the same at each call
    return sample_ball(len(x), x[0].numel(), generator=generator).to(x).reshape(x.shape)


def _logits(model, x: Tensor) -> Tensor:
    logits = model(x.clone())  # a copy, as the first layer may work in place
    tensor = isinstance(logits, Tensor) and logits.is_floating_point()
    if tensor and logits.ndim == 2 and len(logits) == len(x) and logits.shape[1] > 0:
        return logits
    got = f"{logits.dtype} of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
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
    """Keep torch's global modes out of a measurement, and put back the model's modes and buffers whatever happens."""
    with contextlib.ExitStack() as after:
        after.callback(setattr, torch.backends.cudnn, "enabled", torch.backends.cudnn.enabled)
        if any(isinstance(module, nn.RNNBase) for module in _modules(model)):
            torch.backends.cudnn.enabled = False  # in evaluation mode it has no derivative of them
        for module in _modules(model):
            if getattr(module, "training", False):
                after.callback(setattr, module, "training", True)
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
    training = [module for module in _modules(model) if getattr(module, "training", False)]
    buffers = [buffer for module in _modules(model) for buffer in module.buffers(recurse=False)]
    state = torch.cuda.get_rng_state if x.is_cuda else torch.get_rng_state

    def observed(points: Tensor, *active) -> tuple[Tensor, bool]:
        with undisturbed(model, x):  # with these modules in training mode
            for module in training:
                module.training = module in active
            before = [state(), *(buffer.clone() for buffer in buffers)]
            return _double(_logits(model, points)), not all(map(torch.equal, before, [state(), *buffers]))

    def differ(one: Tensor, two: Tensor, share: float = 1e-3) -> bool:  # not where one is NaN
        return bool((one - two).abs().max() > share * max(one.abs().max(), two.abs().max()))

    def acts(*active) -> bool:
        other, also_moved = observed(x, *active)
        return also_moved > moved or differ(other, logits)

    try:
        logits, moved = observed(x)
    except (RuntimeError, TypeError, IndexError) as error:
        own = ", ".join({f"{p.dtype} on {p.device}" for module in _modules(model) for p in module.parameters()})
        got = f"{x.dtype} on {x.device} of shape {tuple(x.shape)}; one image alone is x[None]"
        raise ValueError(f"model ({own}) fails on x ({got}): {error}") from error
    # At one place in batches of one size rounding is the same too, up to the order of sums on a GPU.
    change = "between calls" * any(differ(observed(x)[0], logits) for _ in range(30 if moved else 1))
    mixed = differ(observed(x.flip(0))[0].flip(0), logits, 0.1)
    for first, factor in ((0, 3), (1, -3)):
        beside = x.clone()
        beside[first::2] = factor * beside[first::2] + 1
        with contextlib.suppress(Exception):  # of a model that rejects such points
            mixed |= differ(observed(beside)[0][1 - first :: 2], logits[1 - first :: 2])
    if change := change or "with the points beside it" * mixed:
        raise ValueError(f"a point's logits change {change}, in evaluation mode too, but must depend on it alone")
    if acts(*training):
        name = next(type(module).__name__ for k, module in enumerate(training, 1) if acts(*training[:k]))
        raise ValueError(f"model is in training mode and holds {name}: call model.eval()")
    return logits.shape[1]


def check_derivative(model, x: Tensor) -> None:
    """Raise ValueError if a branch of model has no derivative, and warn if the points lie on kinks.

    Beside a few points the gradient must be as long as at them, and its integral over three steps the change of the
    logits, but for what rounding, above all in half precision, or curvature may explain.
    """
    x = x[alive] if (alive := x.flatten(1).any(1)).any() else x  # at 0 networks without biases have a kink
    x = x[torch.arange(max(2, min(4, CHECKED // x[0].numel())), device=x.device) % len(x)]
    spread = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True)).float().norm(dim=1, keepdim=True)
    u = (_ball(x.flatten(1)) * spread.where(spread > 0, 1)).to(x).reshape(x.shape)

    def compared(length: float) -> tuple[bool, bool, float]:
        """Do change and integral differ; by more than explained; how much longer the gradient is beside the point."""
        points = [x + step * length * u for step in range(4)]
        logits, slopes = zip(*[gradient(model, part, _ball) for part in points], strict=True)
        values = _double(torch.stack(logits, 1)) * _double(_ball(logits[0]))[:, None]  # (points, 4, d_out)
        slopes = torch.stack([_double(slope).flatten(1) for slope in slopes], 1)  # (points, 4, d_in)
        steps, change = _double(torch.stack(points, 1)).flatten(2).diff(dim=1), values.diff(dim=1)
        integral, total = ((slopes[:, :-1] + slopes[:, 1:]) / 2 * steps).sum((1, 2)), change.sum((1, 2))
        error = ((total - integral) * change.any(2).all(1)).square().sum()  # where model sees each step
        # Rounding and curvature bend the change and turn the gradient; a branch without derivative does neither.
        bend = change.diff(dim=1).square().mean(1).sum() / 6 + (slopes * steps[:, :1]).sum(2).var(1).sum()
        here, beside, *_ = slopes.square().sum((0, 2)).sqrt()
        return error > 0.05 * max(total.square().sum(), integral.square().sum()), error > 15 * bend, beside / here

    try:
        differ, _, growth = compared(1e-3)
        kinks = all(abs(compared(length)[2] - 1) > 0.2 for length in (1e-3, 1e-5))
        pairs = ((a, 2 * a) for a in (0.04, 0.2)) if differ and x.element_size() > 2 else ()
        branch = any(all(compared(a)[:2] + compared(b)[:2]) for a, b in pairs)
    except Exception:  # of a model without a backward pass: where it is needed, it fails on its own
        return
    instead = "method 'finite_difference', with the radius that matters to you, needs no derivative"
    if branch:
        raise ValueError(f"a branch of model has no derivative: is it quantised, rounded or detached; {instead}")
    if kinks:
        why = "points lie on kinks of model, as of clamp(0, 1) at 0 and 1, or ReLUs without biases at 0"
        if growth == math.inf:
            raise ValueError(f"{why}, where its derivative is 0; {instead}")
        warnings.warn(f"{why}: close by its gradient is {growth:.2g} times as long; {instead}", stacklevel=3)


def _check_step(model, x: Tensor, radius: float) -> None:
    """Raise ValueError if rounding, which bends the logits from step to step, is most of their change over it."""
    for step in (radius * 2.0**power for power in range(60)):
        path = torch.stack([_double(_logits(model, x[:4] + part / 8 * step * _ball(x[:4]))) for part in range(9)])
        bend, moved = path.diff(n=2, dim=0).square().mean(0).sum() / 6, (path - path[0]).square().sum((1, 2)).max()
        if bend < 0.02 * moved:
            break
    if step > radius and moved > 0:
        raise ValueError(f"radius is {radius}, where rounding drowns the change: take {2 * step:.2g} or more")


def _check_radius(radius) -> None:
    if not isinstance(radius, Real) or not 0 < radius < math.inf:
        raise ValueError(f"radius is {radius!r}, but must be a finite number above 0")
