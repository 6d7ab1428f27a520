"""The standard deviation of each layer under each initialisation; fan-in or fan-out is chosen here alone."""

from __future__ import annotations

import math

from .cell import INITS, INITS_OF
from .checks import check_choice, check_own, check_sizes


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
    width, depth, d_in, d_out = check_sizes(width=width, depth=depth, d_in=d_in, d_out=d_out)
    power, gain = check_own("power", power, init), check_own("gain", gain, init)
    fan_in = [d_in] + [width] * (depth - 1)
    if init == "ntk":
        return [math.sqrt(2 / width)] * (depth - 1) + [math.sqrt(1 / d_out)]
    if init == "power":
        return [width**-power] * depth
    scale = {"he": 2.0, "lecun": 1.0, "gain": 2 * (gain or 0) ** 2}[init]
    return [math.sqrt(scale / n) for n in fan_in]


def cnn_stds(init, *, width, fan_ins, power=None) -> list[float]:
    """Standard deviations of the layers of a CNN whose output units have these numbers of inputs.

    "he": sqrt(2/fan_in), "lecun": sqrt(1/fan_in), "power": m**-power, with m = width channels. A convolution of
    kernel k has fan_in k^2 times its input channels (He et al.).

    Raises InputError on a bad scheme or number. Source: workshop E.1, E.4, which say no more.
    """
    check_choice("init", init, INITS_OF["cnn"])
    (width,), power = check_sizes(width=width), check_own("power", power, init)
    if init == "power":
        return [width**-power for _ in fan_ins]
    return [math.sqrt({"he": 2.0, "lecun": 1.0}[init] / n) for n in fan_ins]


def resnet_std(init, *, fan_in, fan_out, power=None) -> float:
    """Standard deviation of a convolution of the ResNet.

    "he": sqrt(2/fan_out) with fan_out = k^2 times its output channels, as in the published recipe;
    "power": fan_in**-power, the non-lazy scheme with m read as the layer's own fan-in (the linear layer included).

    Raises InputError on a bad scheme or number. Source: workshop E.1, E.3, and the recipe that E.3 links to.
    """
    check_choice("init", init, INITS_OF["resnet"])
    power = check_own("power", power, init)
    return math.sqrt(2 / fan_out) if init == "he" else fan_in**-power
