"""Scheme -> standard deviation of each layer. The only place that chooses fan-in or fan-out."""

from __future__ import annotations

import math

from .checks import InputError, check_choice, check_number
from .config import INITS


def layer_stds(init, *, width, depth, d_in, d_out, power=None, gain=None) -> list[float]:
    """Standard deviations beta_1 .. beta_L of the Gaussian weights of each layer.

    "he":    sqrt(2/fan_in)                      (Table 1, He et al.)
    "lecun": sqrt(1/fan_in)                      (Table 1, LeCun et al.)
    "ntk":   sqrt(2/m) for l < L, sqrt(1/d_out)  (Table 1, Allen-Zhu et al.)
    "power": m**-power everywhere                (Sec. 5.1: the non-lazy choice is power=2)
    "gain":  gain * sqrt(2/fan_in)               (Theorem 1's gamma = gain)

    fan_in is d_in for the first layer and m = width after it; depth L counts weight matrices.
    The paper's N(0, beta^2) makes beta a standard deviation (NeurIPS Sec. 3.1).

    Raises InputError on a bad scheme or number.
    """
    check_choice("init", init, INITS)
    width = check_number("width", width, low=1, integer=True)
    depth = check_number("depth", depth, low=2, integer=True)
    d_in = check_number("d_in", d_in, low=1, integer=True)
    d_out = check_number("d_out", d_out, low=1, integer=True)
    power = check_number("power", power, optional=init != "power")
    gain = check_number("gain", gain, above=0, optional=init != "gain")
    for name, value in (("power", power), ("gain", gain)):
        if value is not None and init != name:
            raise InputError(f"{name} is {value!r}, but init is {init!r}: it must be None")
    fan_in = [d_in] + [width] * (depth - 1)
    if init == "ntk":
        return [math.sqrt(2 / width)] * (depth - 1) + [math.sqrt(1 / d_out)]
    if init == "power":
        return [width**-power] * depth
    scale = {"he": 2.0, "lecun": 1.0, "gain": 2 * (gain or 0) ** 2}[init]
    return [math.sqrt(scale / n) for n in fan_in]
