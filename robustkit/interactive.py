"""Sliders over the printed bounds, and the pictures that they turn: MNIST's dimensions, d = 784 and o = 10."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np

from . import theory
from .criteria import NAMES
from .figures import panels

WIDTHS = np.unique(np.geomspace(4, 2**16, 120).round().astype(int))
MNIST = {"d_in": 784, "d_out": 10}


def sliders(draw: Callable[..., None], start: dict, **choices: Sequence) -> None:
    """Call draw(**chosen) under a slider for each of `choices`, from the values in `start`.

    Where nobody is there to move a slider (papermill sets ROBUSTKIT_STATIC) or ipywidgets is not installed, the
    picture at `start` is all there is.
    """
    try:
        import ipywidgets
    except ImportError:
        ipywidgets = None
    if ipywidgets is None or os.environ.get("ROBUSTKIT_STATIC"):
        draw(**start)
        return
    handles = {
        name: ipywidgets.SelectionSlider(options=values, value=start[name], description=name)
        for name, values in choices.items()
    }
    ipywidgets.interact(draw, **handles)


def _axes(title: str, **labels):
    _, (ax,) = panels(1, width=5, height=3)
    ax.set(**{"yscale": "log", "ylabel": r"$P/\epsilon$", "title": title} | labels)
    return ax


def theorem1_in_width(init: str, depth: int) -> None:
    """Theorem 1 [N Eq. 3], its two terms, and the exact initial P against width; the vertical line is m = L^3/2."""
    shape = {"depth": depth, **MNIST}
    pairs = [theory.theorem1_terms(init, width=m, version="neurips", **shape) for m in WIDTHS]
    first, second = np.transpose(pairs)
    whole = first + second
    ax = _axes(f"Theorem 1, {NAMES[init]}, $L$ = {depth}", xscale="log", xlabel="width $m$")
    ax.plot(WIDTHS, whole, "k-", label="the bound")
    ax.plot(WIDTHS, first, "k--", linewidth=1, label="its first term")
    ax.plot(WIDTHS, second, "k:", linewidth=1, label="its second term")
    exact = [theory.stability_at_init(init, width=m, **shape) for m in WIDTHS]
    ax.plot(WIDTHS, exact, color="0.6", label="exact at initialisation")
    ax.axvline(theory.peak_width(depth), color="0.8", linewidth=0.8, zorder=0)
    ax.set_ylim(min(exact) / 3, whole.max() * 3)
    ax.legend(fontsize=7)


def table1_in_depth(init: str, width: int) -> None:
    """Table 1 of both versions and the exact initial P against depth."""
    shape, depths = {"width": width, **MNIST}, range(2, 41)
    ax = _axes(f"Table 1, {NAMES[init]}, $m$ = {width}", xlabel="depth $L$")
    for version, name, dash in (("neurips", "NeurIPS", "k--"), ("workshop", "workshop", "k:")):
        ax.plot(depths, [theory.table1(init, depth=L, version=version, **shape) for L in depths], dash, label=name)
    exact = [theory.stability_at_init(init, depth=L, **shape) for L in depths]
    ax.plot(depths, exact, color="0.6", label="exact at initialisation")
    ax.legend(fontsize=7)


def theorem3_in_width(n: int, c: float) -> None:
    """Theorem 3 [Eq. 4], each of its two terms alone, and the rate m^(1-2c) that can be proved, against width."""
    m = WIDTHS.astype(float)
    whole = np.array([theory.theorem3(n=n, width=int(width), power=c) for width in WIDTHS])
    terms = np.array([(n**3 * m) ** -0.5, m ** (0.5 - c)])
    first, second = whole * terms / terms.sum(0)
    ax = _axes(f"Theorem 3, $n$ = {n}, $c$ = {c:g}; grey: $m < 10 n^2$", xscale="log", xlabel="width $m$")
    ax.plot(m, whole, "k-", label="Eq. (4)")
    ax.plot(m, first, "k--", linewidth=1, label="its first term")
    ax.plot(m, second, "k:", linewidth=1, label="its second term, the Remark's")
    ax.plot(m, whole[0] * (m / m[0]) ** (1 - 2 * c), "k-.", linewidth=1, label="$m^{1-2c}$")
    ax.axvspan(m[0], min(10 * n**2, m[-1]), color="0.94", zorder=0)
    ax.set_ylabel(r"$P/\epsilon$, up to constants")
    ax.legend(fontsize=7)
