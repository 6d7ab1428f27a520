"""The limit of infinite width: the kernels of a network, training by them, and the constant to which P tends."""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import torch
from scipy.optimize import brentq
from torch import Tensor
from torch.autograd import forward_ad

from .checks import InputError, check_choice, check_number, check_sizes
from .initialization import layer_stds
from .stability import sample_ball

PAIRS = 2**20  # of a test and a training point, whose kernels are differentiated at once: this bounds memory


class Limit(NamedTuple):
    """Mean of P/eps over networks and `n` test points, and its standard error over those points.

    mean_part is P/eps of the mean network, random_part that of the networks minus their mean, which comes from the
    random start alone. time is when gradient flow stopped, times the width where the width is infinite.
    """

    mean: float
    sem: float
    n: int
    mean_part: float
    random_part: float
    time: float


def kernels(x: Tensor, x2: Tensor, *, init, depth, d_out, width=None) -> tuple[Tensor, Tensor]:
    """Tangent kernel Theta of one logit, and covariance K of one logit at initialisation: float64, both (n, n2).

    s_0 = x.x2,  s_l = m beta_l^2 / (2 pi) r_l (sin a_l + (pi - a_l) cos a_l),  p_l = (pi - a_l) / (2 pi),
    Theta_1 = s_0,  Theta_{l+1} = m beta_{l+1}^2 p_l Theta_l + s_l,  Theta = Theta_L,  K = beta_L^2 s_{L-1}
    with r_l^2 = s_{l-1}(x, x) s_{l-1}(x2, x2) and cos a_l = s_{l-1} / r_l. s_l is the expected inner product of two
    points' activations, p_l the chance that a unit is on for both, and Theta a sum with one part per layer.

    x, x2: points (n, d) and (n2, d) other than 0. init: "he", "lecun" or "ntk". width: a number m gives the
    expectations at that width (up to O(1/m) for three layers and more), None the limits of Theta/m and K. These lack
    the part of W_1 under "he" and "lecun", and that of W_L under "ntk", which stay as they are while the others grow
    as m; that of W_1 counts beside another as d_in/m.
    Raises InputError on a bad number or scheme, or a point that has no direction. Source: Jacot et al. 2018 and
    Cho and Saul 2009, here for the standard deviations of Table 1.
    """
    check_choice("init", init, ("he", "lecun", "ntk"))
    x, x2, m = x.double(), x2.double(), 1 if width is None else width  # at m = 1 a part that grows is its own limit
    gains = [m * beta**2 for beta in layer_stds(init, width=m, depth=depth, d_in=x.shape[1], d_out=d_out)]
    size = x.norm(dim=1)[:, None] * x2.norm(dim=1)
    if not (torch.isfinite(size).all() and (size > 0).all()):
        raise InputError("x or x2 holds a point that is zero or not finite, but every point must have a direction")
    cosine = (x @ x2.T / size).clamp(-1, 1)
    tangent = torch.zeros_like(size) if width is None and init != "ntk" else size * cosine
    for gain, above in zip(gains[:-1], gains[1:], strict=True):
        both = 0.5 - torch.arccos(cosine) / (2 * math.pi)
        cosine = 2 * both * cosine + torch.sqrt(1 - cosine**2) / math.pi
        size = size * gain / 2
        tangent = above * both * tangent + size * cosine
    if width is None and init == "ntk":
        tangent = tangent - size * cosine
    return tangent, size * cosine * gains[-1] / m


def limit_stability(
    x_train: Tensor, y_train: Tensor, x_test: Tensor, *, init, depth, loss, width=None, draws=4, generator=None
) -> Limit:
    """P/eps of a network of infinite width, trained by gradient flow to a given training loss.

    f_t(x) = f_0(x) - a(x) (f_0(X) - Y),  a(x) = Theta(x, X) Theta(X, X)^-1 (1 - exp(-Theta(X, X) t / n)),
    P/eps = E_x E_u E_g ||mu + s g||,  mu = D_u a(x) Y,  s^2 = Var(D_u f_0(x) - D_u a(x) f_0(X)),  g ~ N(0, I_o)
    with f_0 a Gaussian process of covariance K, D_u the derivative along u, u uniform in the unit ball, and t such
    that the expected training loss ||f_t(X) - Y||^2 / (2n) is `loss`. Beyond the start, t enters through it alone.

    x_train: points (n, d). y_train: what their outputs are compared with, (n, d_out). x_test: points (n, d) where P
    is taken. loss: None for the initial value. init, depth, width: as in `kernels`; with a width, the network of
    this width made linear in its weights. draws: u for each test point, from `generator`. Time grows as n^3, memory
    as n^2. Raises InputError on a loss that is not below the initial one, a test point that is a training point
    (there the kernel has no derivative), or what `kernels` refuses.
    Source: Jacot et al. 2018 and Lee et al. 2019 for f_t; P is ours.
    """
    (draws,), d_out, n = check_sizes(draws=draws), y_train.shape[1], len(x_train)
    loss = check_number("loss", loss, above=0, optional=True)
    x, y, scheme = x_train.double(), y_train.double(), {"init": init, "depth": depth, "d_out": d_out, "width": width}
    tangent, start = kernels(x, x, **scheme)
    rates, modes = torch.linalg.eigh(tangent / n)
    rates = rates.clamp(min=rates[-1] * 1e-15)
    energy = (modes.T @ y).square().sum(1) + d_out * (modes.T @ start * modes.T).sum(1)  # of f_0(X) - Y, expected
    time = 0.0 if loss is None else _time(rates, energy / (2 * n), loss)
    learned = modes * (-torch.expm1(-rates * time) / (n * rates)) @ modes.T  # a(x) = Theta(x, X) learned
    # E (D_u f_0)^2 / |u|^2, at any point: each layer multiplies it by m beta^2 / 2, as half of the units are on.
    initial = start[0, 0] / x[0].square().sum()
    at, parts = x_test.double().repeat(draws, 1), []
    along = sample_ball(*at.shape, generator=generator).to(at)
    for points, u in zip(*(tensor.split(max(1, PAIRS // n)) for tensor in (at, along)), strict=True):
        with warnings.catch_warnings(), forward_ad.dual_level():
            warnings.filterwarnings("ignore", message=".*torch.jit", category=FutureWarning)  # torch's own
            both = kernels(forward_ad.make_dual(points, u), x, **scheme)
            tangent_u, start_u = (forward_ad.unpack_dual(kernel).tangent for kernel in both)
        a_u = tangent_u @ learned
        variance = initial * u.square().sum(1) + (a_u * (a_u @ start - 2 * start_u)).sum(1)
        parts.append(torch.stack([(a_u @ y).norm(dim=1), variance.clamp(min=0).sqrt()]))
    mu, s = torch.cat(parts, 1)
    if not torch.isfinite(mu).all():
        raise InputError("x_test holds a point of x_train, but the kernel has no derivative there")
    value, *others = (mean_norm(*pair, d_out) for pair in ((mu, s), (mu, 0 * s), (0 * mu, s)))
    value = value.view(draws, -1).mean(0)  # one for each test point
    sem = value.std().item() / math.sqrt(len(value)) if len(value) > 1 else math.nan
    return Limit(value.mean().item(), sem, len(value), *(part.mean().item() for part in others), time)


def mean_norm(mu: Tensor, s: Tensor, k: int) -> Tensor:
    """E ||mu + s g||, g ~ N(0, I_k), from ||mu|| and s, each (n,), exact by quadrature: (n,).

    E ||z|| = 1/(2 sqrt(pi)) * integral over t > 0 of t^(-3/2) (1 - E exp(-t ||z||^2)),
    E exp(-t ||z||^2) = (1 + 2 t s^2)^(-k/2) exp(-t ||mu||^2 / (1 + 2 t s^2)); nodes as in `stability.expected_norm`.
    """
    total = mu.square() + k * s.square()
    unit = total.where(total > 0, torch.ones_like(total))[:, None]
    y = torch.linspace(-66, 66, 321, dtype=torch.float64, device=mu.device)
    noise, signal = 2 * y.exp() * s.square()[:, None] / unit, y.exp() * mu.square()[:, None] / unit
    exponent = k / 2 * torch.log1p(noise) + signal / (1 + noise)
    integral = torch.trapezoid(torch.exp(-y / 2) * -torch.expm1(-exponent), y) / (2 * math.sqrt(math.pi))
    return integral * total.sqrt()


def _time(rates: Tensor, energy: Tensor, loss: float) -> float:
    """When the sum of energy * exp(-2 rate t) has fallen to `loss`."""
    if loss >= (first := energy.sum().item()):
        raise InputError(f"loss is {loss!r}, but must be below that at initialisation, {first:.3g}")

    def above(log_time: float) -> float:
        return (energy * torch.exp(-2 * rates * math.exp(log_time))).sum().item() - loss

    shortest = math.log(math.log(first / loss) / (2 * rates[-1].item()))
    return math.exp(brentq(above, shortest - 1, 5 - math.log(rates[0].item())))
