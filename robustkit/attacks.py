"""The worst case, to compare with the average: Lipschitz constants, local and global, and accuracy under attack.

Every function takes any module or callable from a batch of points to logits. Both attacks go down the margin
f_y - max over k != y of f_k, whose gradient, unlike that of cross entropy, does not vanish where softmax saturates.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .cell import ATTACKS, RADII
from .checks import InputError, check_choice, check_number
from .stability import check_model, gram, jacobian, spectrum, undisturbed

STEPS = 20  # of PGD
STRIDE = 2.5  # length of its steps together, in radii: it can cross the ball and walk along its edge
CHUNK = 100  # points attacked at once, which bounds memory


# ------------------------------------------------------------------------------------------------ Lipschitz constants


def lipschitz_constants(model, x: Float[Tensor, "n dim *more"]) -> Float[Tensor, " n"]:
    """Local Lipschitz constant at each point, the largest singular value of its Jacobian ||J(x)||_2; float64.

    NaN where the Jacobian is not finite. Raises ValueError as `stability.check_model` does.
    """
    with undisturbed(model, x):
        x = x.clone() if x.is_inference() else x
        check_model(model, x)
        return torch.cat([_spectral_norm(jacobian(model, part)) for part in x.split(CHUNK // 2)])


def _spectral_norm(matrices: Tensor) -> Tensor:
    scale = matrices.abs().amax((1, 2), keepdim=True).double().clamp(min=5e-324)  # whose squares stay within a float
    return spectrum(gram(matrices, scale))[:, -1].sqrt() * scale[:, 0, 0]


def spectral_product(weights: Sequence[Float[Tensor, "fan_out fan_in"]], *, alpha: float = 1.0) -> float:
    """prod_l ||W_l||_2 / alpha: a Lipschitz constant, over all inputs, of a fully connected ReLU network.

    No local Lipschitz constant exceeds it. Multiplied in logarithms and float64: infinite only where the product
    itself is too large for a float, NaN if a weight is not finite. Raises InputError unless the weights are matrices
    and alpha is above 0. Source: Szegedy et al. 2014, Sec. 4.3.
    """
    alpha, shapes = check_number("alpha", alpha, above=0), [tuple(w.shape) for w in weights]
    if not shapes or any(len(shape) != 2 for shape in shapes):
        raise InputError(f"weights have shapes {shapes}, but must be one or more matrices (fan_out, fan_in)")
    log = -math.log(alpha)
    for weight in weights:
        scale = weight.detach().abs().max().double()  # squares of the entries over it stay within a float
        if scale == 0:
            return 0.0
        log += (scale.log() + spectrum(gram(weight.detach().double() / scale))[-1].log() / 2).item()
    return math.exp(log) if not log > 709 else math.inf  # NaN goes through


# ------------------------------------------------------------------------------------------------ attacks


def margins(outputs: Float[Tensor, "n d_out"], y: Int[Tensor, " n"], *, parity: bool = False) -> Float[Tensor, " n"]:
    """f_y - max over k != y of f_k, above 0 where a point is classified as y; for parity +f if y is odd, else -f.

    Raises InputError if y are no integers or not classes of the outputs. Source: Carlini and Wagner 2017, f_6.
    """
    if y.is_floating_point() or y.is_complex():
        raise InputError(f"y is {y.dtype}, but must be integers")
    y = y.long()
    if outputs.ndim != 2 or len(outputs) != len(y) or (outputs.shape[1] == 1) != parity:
        wanted = "(n, 1) under parity" if parity else "(n, 2) or wider"
        raise InputError(f"outputs have shape {tuple(outputs.shape)} for {len(y)} classes, but must be {wanted}")
    if parity:
        return outputs[:, 0] * (2 * (y % 2) - 1)
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= outputs.shape[1]:
        raise InputError(f"y runs from {low} to {high}, but must be within 0 and {outputs.shape[1] - 1}")
    own = nn.functional.one_hot(y, outputs.shape[1]).bool()
    return outputs.masked_fill(~own, 0).sum(1) - outputs.masked_fill(own, -math.inf).amax(1)


def fgsm(model, x: Tensor, y: Tensor, radius: float, *, norm: str = "l2", parity: bool = False) -> Tensor:
    """x - radius * d(x), one step of full length; d: the sign of the margin's gradient (linf), or its direction (l2).

    x: points (n, *shape); y: their classes (n,). The radius is in the scaling of x, and there is no box: a pixel may
    leave [0, 1]. Raises InputError on a bad norm or radius, points or classes that do not fit, or a model that
    `stability.check_model` refuses. Source: Goodfellow et al. 2015, with the margin in place of cross entropy; the l2
    step is its counterpart.
    """
    with _parts(model, x, y, [radius], norm, 1) as parts:
        return torch.cat([_attacked(model, *part, radius, norm, 0, parity)[0][0] for part in parts])


def pgd(
    model, x: Tensor, y: Tensor, radius: float, *, norm: str = "l2", steps: int = STEPS, parity: bool = False
) -> Tensor:
    """Projected gradient descent on the margin, z <- project(z - 2.5 radius/steps * d(z)) from z = x; d as in `fgsm`.

    Returns, for each point, the one with the smallest margin among x, FGSM's point and every z. So it is never weaker
    than FGSM. No random start, no box. Raises InputError as `fgsm` does, and on steps below 1.
    Source: Madry et al. 2018.
    """
    with _parts(model, x, y, [radius], norm, steps) as parts:
        return torch.cat([_attacked(model, *part, radius, norm, steps, parity)[1][0] for part in parts])


def attacked_accuracies(
    model, x: Tensor, y: Tensor, radii: Sequence[float], *, norm="l2", steps: int = STEPS, parity: bool = False
) -> dict[str, list[float]]:
    """Accuracy on points x with classes y within each radius: {"fgsm": one per radius, "pgd": one per radius}.

    A point counts only if it is classified as y at x and wherever an attack went, at this or a smaller radius: so an
    accuracy never rises with the radius, PGD's is never above FGSM's, and each is an upper bound on the true one.
    Raises InputError as `fgsm` and `pgd` do.
    """
    correct = {attack: dict.fromkeys(radii, 0) for attack in ATTACKS}
    with _parts(model, x, y, radii, norm, steps) as parts:
        for points, classes in parts:
            right = dict.fromkeys(ATTACKS, True)
            for radius in sorted(set(radii)):
                met = _attacked(model, points, classes, radius, norm, steps, parity)
                for attack, (_, values) in zip(ATTACKS, met, strict=True):
                    right[attack] = right[attack] & (values > 0)
                    correct[attack][radius] += int(right[attack].sum())
    return {attack: [counts[radius] / len(x) for radius in radii] for attack, counts in correct.items()}


def _attacked(model, x: Tensor, y: Tensor, radius: float, norm: str, steps: int, parity: bool) -> tuple:
    """(points, margins) of FGSM and of PGD; a margin is the smallest on the way, x included."""
    start, direction = _descent(model, x, y, norm, parity)
    met, values, shift = [x, x - radius * direction], [start], torch.zeros_like(x)
    values.append(_descent(model, met[1], y, norm, parity)[0])
    for _ in range(steps):
        shift = radius * _into_unit_ball(shift / radius - STRIDE / steps * direction, norm)
        value, direction = _descent(model, x + shift, y, norm, parity)
        met, values = [*met, x + shift], [*values, value]
    least, at = torch.stack(values).min(0)
    worst = torch.stack(met)[at, torch.arange(len(x), device=at.device)]
    return (met[1], torch.minimum(*values[:2])), (worst, least)


def _descent(model, x: Tensor, y: Tensor, norm: str, parity: bool) -> tuple[Tensor, Tensor]:
    """Margins, and at each point the direction of length 1 in `norm` along which the margin rises most."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        values = margins(model(x.clone()), y, parity=parity)  # a copy, as the first layer may work in place
        if not values.requires_grad:
            raise InputError("the logits of model carry no gradient, but must: it runs under no_grad or detach")
        (gradient,) = torch.autograd.grad(values.sum(), x)
    # A margin that is NaN is above no other, so it counts as misclassified; its gradient is ignored.
    values, gradient = values.detach(), gradient.nan_to_num(0.0, 0.0, 0.0)
    if norm == "linf":
        return values, gradient.sign()
    # In float64, where squares of the small gradients of a deep network do not vanish.
    unit = nn.functional.normalize(gradient.double().flatten(1), dim=1, eps=1e-300)
    return values, unit.to(x).reshape(x.shape)


def _into_unit_ball(shift: Tensor, norm: str) -> Tensor:
    """Each point's shift, brought back onto the surface of the unit ball where it is outside."""
    if norm == "linf":
        return shift.clamp(-1, 1)
    return shift / shift.flatten(1).norm(dim=1).clamp(min=1).reshape(-1, *[1] * (shift.ndim - 1))


@contextlib.contextmanager
def _parts(model, x: Tensor, y: Tensor, radii: Sequence[float], norm: str, steps: int):
    """The points and classes to attack, checked, CHUNK at a time; the model is left as it was."""
    check_choice("norm", norm, RADII)
    check_number("steps", steps, low=1, integer=True)
    for radius in radii:
        check_number("radius", radius, above=0)
    if x.ndim < 2 or not x.is_floating_point() or len(x) == 0 or y.shape != x.shape[:1]:
        got = f"x is {x.dtype} of shape {tuple(x.shape)} and y of shape {tuple(y.shape)}"
        raise InputError(f"{got}, but must be floating-point points (n, *shape) and a class for each")
    with undisturbed(model, x):
        x = x.clone() if x.is_inference() else x
        try:
            check_model(model, x)
        except ValueError as error:
            raise InputError(str(error)) from error
        yield zip(x.split(CHUNK), y.split(CHUNK), strict=True)
