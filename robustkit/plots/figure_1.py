"""Figure 1: the fully connected network of Eq. (2), drawn."""

from __future__ import annotations

import numpy as np

from .style import HUES


def schematic(ax):
    """Draw the network: input x, hidden layers h_1 .. h_{L-1}, output f(x), weights W_1 .. W_L, sizes d, m, o."""
    names = ["$x$", "$h_1$", "$h_2$", "", "$h_{L-1}$", "$f(x)$"]
    ys = [np.arange(n) - (n - 1) / 2 for n in (4, 5, 5, 0, 5, 3)]
    for left in (0, 1, 4):
        ends = [(a, b) for a in ys[left] for b in ys[left + 1]]
        ax.plot([left, left + 1], np.transpose(ends), color="0.8", linewidth=0.5, zorder=1)
    for at, (name, y) in enumerate(zip(names, ys, strict=True)):
        colour = "0.75" if at in (0, 5) else HUES[0]
        ax.scatter([at] * len(y), y, s=90, color=colour, edgecolor="black", linewidth=0.5, zorder=2)
        ax.text(at, -3.0, name, ha="center")
    ax.text(3, 0, r"$\cdots$", ha="center", va="center", fontsize=16)
    for at, name in ((0.5, "$W_1$"), (1.5, "$W_2$"), (4.5, "$W_L$")):
        ax.text(at, 2.45, name, ha="center")
    for at, size in ((0, "$d$"), (1, "$m$"), (2, "$m$"), (4, "$m$"), (5, "$o$")):
        ax.text(at, -3.6, size, ha="center", color="0.4")
    ax.set(xlim=(-0.6, 5.6), ylim=(-3.9, 2.9))
    ax.axis("off")
    return ax
