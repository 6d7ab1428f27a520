"""One look for all figures: colours, markers, names, axes, ticks, legends; and what is drawn, kept for the CSV."""

from __future__ import annotations

import math
import textwrap
import zlib

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas
import seaborn
from matplotlib import ticker

from ..ledger.rows import NAMES

LABELS = {
    "stability": r"perturbation stability $P/\epsilon$",
    "stability_init": r"$P/\epsilon$ at initialisation",
    "stability_train": r"$P/\epsilon$ at training points",
    "kappa": r"lazy training ratio $\kappa$",
    "train_loss": "training loss",
    "loss": "training loss",
    "test_accuracy": "test accuracy",
    "width": "width $m$",
    "depth": "depth $L$",
    "power": "$c$",
}
HUES = seaborn.color_palette("colorblind")
INIT_HUES = [HUES[i] for i in (0, 2, 4, 1, 9, 5, 8)]  # in the order of NAMES
MARKERS = "osD^vP*X"
# Of an ordered quantity (log2 of a width): the ends of its colour scale, the step between markers, and an exponent
# below 1 where small values are the usual ones and need colours further apart.
SCALES = {"depth": (2, 10, 2, 1), "width": (4, 15, 1, 0.7), "power": (1, 3, 0.5, 1)}


def look(by: str, value) -> dict:
    """Colour and marker of one value of the column `by`, the same in every figure.

    Depths, widths and powers are places on viridis, an initialisation has a hue; "curve", an initialisation at a
    depth as from ledger.rows.named, has the hue of the one and the marker of the other. Anything else is grey.
    """
    if by in SCALES:
        low, high, step, exponent = SCALES[by]
        above = (math.log2(value) if by == "width" else value) - low
        shade = 0.85 * min(max(above / (high - low), 0), 1) ** exponent  # the yellow end is pale on white
        return {"color": matplotlib.colormaps["viridis"](shade), "marker": MARKERS[round(above / step) % 8]}
    name, _, depth = str(value).partition(", $L$ = ")
    if depth:
        return look("init", name) | {"marker": look("depth", int(depth))["marker"]}
    for hue, marker, named in zip(INIT_HUES, MARKERS, NAMES.items(), strict=False):
        if name in named:
            return {"color": hue, "marker": marker}
    return {"color": "0.4", "marker": MARKERS[zlib.crc32(name.encode()) % 8]}


def label(by: str, value) -> str:
    """The name of one value of the column `by` in a legend: "$L$ = 6", "He"."""
    return f"{LABELS[by].split()[-1]} = {value:g}" if by in SCALES else NAMES.get(value, str(value))


def panels(columns: int, rows: int = 1, *, width: float = 3.5, height: float = 2.9, **options):
    """A figure in print size (inches per panel) in the project's style, and its axes."""
    seaborn.set_theme(context="paper", style="ticks", palette="colorblind")
    plt.rcParams.update({"savefig.dpi": 200, "figure.dpi": 110, "legend.frameon": False, "axes.titlesize": 9})
    options |= {"figsize": (width * columns, height * rows), "layout": "constrained", "squeeze": False}
    figure, axes = plt.subplots(rows, columns, **options)
    return figure, (axes[0] if rows == 1 else axes)


def record(ax, table, quantity: str) -> None:
    """Keep what is drawn, a frame or columns for one, for the CSV beside the picture."""
    ax.robustkit_tables = [*getattr(ax, "robustkit_tables", ()), pandas.DataFrame(table).assign(quantity=quantity)]


def mean_and_band(ax, curve: pandas.DataFrame, x: str, **style) -> None:
    """Means of `ledger.rows.summarise` with their 95 % intervals."""
    ax.plot(curve[x], curve["mean"], markersize=4, **style)
    ax.fill_between(curve[x], curve["low"], curve["high"], color=style["color"], alpha=0.2, linewidth=0)


def theory_line(ax, at: dict, values, quantity: str, **style) -> None:
    """Draw values of theory against the last entry of `at` as a thin black line, and record both."""
    ax.plot(list(at.values())[-1], values, **{"color": "black", "linewidth": 1} | style)
    record(ax, at | {"mean": values}, quantity)


def set_axes(ax, x: str, y: str, ticks, *, log: bool = True) -> None:
    """Name the axes, and put ticks on x where there are values; widths and, if `log`, y are on log scales."""
    ax.set(xlabel=LABELS.get(x, x), ylabel=LABELS.get(y, y))
    if x == "width":
        ax.set_xscale("log", base=2)
    if log:
        ax.set_yscale("log")
    places = sorted(set(ticks))
    room = 16 * ax.bbox.width / ax.figure.dpi  # digits that fit below the axis, with a space after each number
    every = max(1, -(-sum(len(f"{place:g}") + 1 for place in places) // max(1, int(room))))
    ax.set_xticks(places[::every] if x == "width" else places)
    ax.xaxis.set_minor_locator(ticker.NullLocator())
    ax.xaxis.set_major_formatter("{x:g}")


def nothing(ax):
    """Say in the axes that there is nothing to draw yet."""
    ax.text(0.5, 0.5, "no rows yet", transform=ax.transAxes, ha="center")
    return ax


def legend(ax):
    """Name the lines above the axes, where no data are covered, in as few rows as have room."""
    handles, labels = ax.get_legend_handles_labels()
    lengths = np.array([5 + len(name.replace("$", "")) for name in labels])
    room, count = 27.5 * ax.bbox.width / ax.figure.dpi, len(labels)  # room for so many characters of this size
    for columns in range(min(count, 7), 0, -1):
        orders = sorted(range(count), key=lambda i, n=columns: i % n), list(range(count))  # by rows, by columns
        widths = [sum(lengths[i].max() for i in np.array_split(order, columns)) for order in orders]
        if min(widths) <= room and (count % columns != 1 or columns < 3):  # no row of one
            break
    order = orders[0] if widths[0] <= room else orders[1]
    named = [handles[i] for i in order], [labels[i] for i in order]
    style = {"fontsize": 6, "handlelength": 1.3, "columnspacing": 0.8, "handletextpad": 0.5, "borderaxespad": 0.2}
    ax.legend(*named, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, **style)
    return ax


def one_legend(figure, axes) -> None:
    """Replace the legends of panels that share their lines by one above the figure; curves of one depth need none."""
    lines = {}
    for ax in axes:
        handles, labels = ax.get_legend_handles_labels()
        lines |= {name: handle for handle, name in zip(handles, labels, strict=True) if "$L$" not in name}
        ax.label_outer()
        if ax.get_legend():
            ax.get_legend().remove()
    figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=len(lines) or 1, fontsize=7)


def log_ticks(axis) -> None:
    """A few plain numbers on a logarithmic axis within two decades, powers of ten beyond; call it after drawing."""
    low, high = sorted(axis.get_view_interval())
    if high / low >= 100:
        axis.set_major_locator(ticker.LogLocator())
        axis.set_major_formatter(ticker.LogFormatterSciNotation())
    else:
        few = ticker.LogLocator(subs=(1, 2, 5) if high / low > 6 else (1, 1.5, 2, 3, 4, 5, 7))
        axis.set_major_locator(ticker.MaxNLocator(4) if high / low < 2.25 else few)
        axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(ticker.NullFormatter())


def finish(figure, words: str) -> None:
    """Write words below a drawn figure, tick its log axes, and leave one legend to panels with the same lines."""
    room, lines = int(21 * figure.get_figwidth()), []  # characters of this size in a line
    for line in words.split("\n"):
        even = len(line) // math.ceil(len(line) / room) + 8
        lines += textwrap.wrap(line, min(room, even), break_on_hyphens=False)
    figure.supxlabel("\n".join(lines), fontsize=6, color="0.35")
    seen = set()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            if axis.get_scale() == "log" and not isinstance(axis.get_major_locator(), ticker.FixedLocator):
                log_ticks(axis)
        names = {text.get_text() for text in ax.get_legend().get_texts()} if ax.get_legend() else set()
        if names and names <= seen:
            ax.get_legend().remove()
        seen |= names
