"""Frame and axes in, axes out: measured curves in colour with bands, theory in black."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pandas
import seaborn
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from .. import theory
from ..cell import FRACTIONS, INSTANTS, dataset_info
from ..ledger import statistics

LABELS = {
    "stability": r"perturbation stability $P/\epsilon$",
    "stability_init": r"$P/\epsilon$ at initialisation",
    "stability_train": r"$P/\epsilon$ at training points",
    "stability_over_time": r"perturbation stability $P/\epsilon$",
    "kappa": r"lazy training ratio $\kappa$",
    "kappa_over_time": r"lazy training ratio $\kappa$",
    "train_loss": "training loss",
    "loss_over_time": "training loss",
    "test_accuracy": "test accuracy",
    "width": "width $m$",
    "depth": "depth $L$",
    "power": "$c$",
}
NAMES = {"he": "He", "lecun": "LeCun", "ntk": "NTK", "power": "non-lazy", "gain": "gain"}
MARKERS = "osD^vP*X"
BOUNDS = {"neurips": "NeurIPS Eq. (3)", "workshop": "workshop Eq. (3)", "proof": "workshop, end of B.2"}
DASHES = {"neurips": "--", "workshop": ":", "proof": "-."}


def summarise(rows: pandas.DataFrame, *, x: str, y: str, by: str) -> pandas.DataFrame:
    """Geometric mean over seeds and its 95 % interval at each x of each curve: columns by, x, mean, low, high, n.

    The interval is a t interval on log y, its seed standard deviation pooled over the points of one curve. Seeds
    that failed or diverged are left out and counted in `bad`, never averaged.
    """
    tables = []
    for value, curve in rows.groupby(by, dropna=False):
        good = curve[np.isfinite(curve[y].astype(float))]
        groups = {at: cell[y].to_numpy(float) for at, cell in good.groupby(x)}
        found = statistics.intervals(groups) if groups else {}
        lines = [{by: value, x: at} | asdict(interval) for at, interval in found.items()]
        table = pandas.DataFrame(lines, columns=[by, x, "mean", "low", "high", "n"]).set_index(x)
        table = table.reindex(sorted(curve[x].unique())).fillna({by: value, "n": 0}).reset_index()
        table = table.astype({x: rows[x].dtype, "n": int, "mean": float, "low": float, "high": float})
        table["bad"] = table[x].map(curve.groupby(x).size()) - table["n"]
        tables.append(table)
    columns = [by, x, "mean", "low", "high", "n", "bad"]
    return pandas.concat(tables)[columns] if tables else pandas.DataFrame(columns=columns)


def against(
    rows: pandas.DataFrame, ax, *, x: str = "width", y: str = "stability", by: str = "depth", log: bool = True
):
    """Measured curves of y against x, one a value of `by`: seeds as dots, geometric mean and 95 % band."""
    table = summarise(rows, x=x, y=y, by=by)
    colours = seaborn.color_palette("viridis", max(table[by].nunique(), 1) + 1)
    for number, (value, curve) in enumerate(table.groupby(by)):
        seeds = rows[rows[by] == value]
        ax.plot(seeds[x], seeds[y], ".", color=colours[number], alpha=0.35, markersize=3, label="_seeds")
        ax.plot(
            curve[x], curve["mean"], marker=MARKERS[number % len(MARKERS)], color=colours[number], markersize=4,
            label=f"{_symbol(by)}{NAMES.get(value, _short(value))}",
        )  # fmt: skip
        ax.fill_between(curve[x], curve["low"], curve["high"], color=colours[number], alpha=0.2, linewidth=0)
    _axes(ax, x, y, table[x], log)
    _record(ax, table.assign(quantity=y))
    if len(table):
        _legend(ax)
    else:
        ax.text(0.5, 0.5, "no rows yet", transform=ax.transAxes, ha="center")
    return ax


def over_time(rows: pandas.DataFrame, ax, *, y: str = "kappa_over_time", by: str = "width"):
    """A recorded quantity against epochs: mean over seeds of each curve, every seed as a thin line."""
    fractions = FRACTIONS if y == "stability_over_time" else INSTANTS
    good = rows[rows["status"] == "ok"]
    colours = seaborn.color_palette("viridis", max(good[by].nunique(), 1) + 1)
    tables = []
    for number, (value, curve) in enumerate(good.groupby(by)):
        epochs = np.array(fractions) * curve["epochs"].iloc[0]
        series = pandas.DataFrame(curve[y].tolist(), columns=range(len(fractions))).to_numpy(float)
        mean = np.nanmean(series, axis=0)  # a run that stopped early has NaN after its end
        ax.plot(epochs, series.T, color=colours[number], alpha=0.3, linewidth=0.6)
        ax.plot(epochs, mean, color=colours[number], label=f"{_symbol(by)}{_short(value)}")
        tables.append(pandas.DataFrame({by: value, "epochs": epochs, "mean": mean, "n": np.isfinite(series).sum(0)}))
    for milestone in good["milestones"].iloc[0] if len(good) else ():
        ax.axvline(milestone * good["epochs"].iloc[0], color="0.8", linewidth=0.7, zorder=0)
    ax.set(xlabel="epoch", ylabel=LABELS[y])
    if tables:
        _record(ax, pandas.concat(tables).assign(quantity=y))
        _legend(ax)
    else:
        ax.text(0.5, 0.5, "no rows yet", transform=ax.transAxes, ha="center")
    return ax


def bounds(rows: pandas.DataFrame, ax, *, init: str, depth: int):
    """The three printed forms of Theorem 1 (constants as printed) and the exact value at initialisation."""
    if rows.empty:
        return ax
    d_in, d_out = _dimensions(rows)
    widths = np.unique(np.geomspace(rows["width"].min(), rows["width"].max(), 60).round().astype(int))
    shape = {"depth": depth, "d_in": d_in, "d_out": d_out}
    for version, label in BOUNDS.items():
        values = [theory.theorem1(init, width=m, version=version, **shape) for m in widths]
        ax.plot(widths, values, color="black", linestyle=DASHES[version], linewidth=1, label=label)
        _record(ax, pandas.DataFrame({"width": widths, "mean": values, "quantity": f"theorem1 {version}"}))
    exact = [theory.stability_at_init(init, width=m, **shape) for m in widths]
    ax.plot(widths, exact, color="black", linewidth=0.6, label="exact at initialisation")
    _record(ax, pandas.DataFrame({"width": widths, "mean": exact, "quantity": "exact at initialisation"}))
    return ax


def bounds_in_depth(rows: pandas.DataFrame, ax, *, init: str):
    """Over depth: the exact initial value of each width (thin), and Table 1 as printed for the middle one."""
    if rows.empty:
        return ax
    d_in, d_out = _dimensions(rows)
    widths, depths = sorted(rows["width"].unique()), np.arange(2, rows["depth"].max() + 1)
    shape = {"d_in": d_in, "d_out": d_out}
    for width in widths:
        exact = [theory.stability_at_init(init, width=int(width), depth=int(L), **shape) for L in depths]
        label = "exact at initialisation" if width == widths[0] else "_exact"
        ax.plot(depths, exact, color="black", linewidth=0.6, zorder=4, label=label)
        _record(
            ax,
            pandas.DataFrame({"width": width, "depth": depths, "mean": exact, "quantity": "exact at initialisation"}),
        )
    middle = int(widths[len(widths) // 2])
    for version, name, dash in (("neurips", "NeurIPS", "--"), ("workshop", "workshop", ":")):
        values = [theory.table1(init, width=middle, depth=int(L), version=version, **shape) for L in depths]
        ax.plot(depths, values, color="black", linestyle=dash, linewidth=1, label=f"Table 1, {name}, $m$ = {middle}")
        _record(
            ax, pandas.DataFrame({"width": middle, "depth": depths, "mean": values, "quantity": f"table1 {version}"})
        )
    _legend(ax)
    return ax


def one_legend(figure, axes) -> None:
    """Replace the legends of panels that share their lines by one below the figure."""
    lines = {}
    for ax in axes:
        handles, labels = ax.get_legend_handles_labels()
        lines |= {label: handle for handle, label in zip(handles, labels, strict=True) if "$L$" not in label}
        ax.label_outer()
        if ax.get_legend():
            ax.get_legend().remove()
    figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=len(lines) or 1, fontsize=7)


def slopes(rows: pandas.DataFrame, times: dict[str, int]) -> pandas.DataFrame:
    """Slope of log P in log m with its 95 % interval, a row a power c, a column a time (an index into FRACTIONS)."""
    table = []
    for power, curve in rows[rows["status"] == "ok"].groupby("power"):
        line = {"c": power}
        for name, index in times.items():
            values = {m: [v[index] for v in cell["stability_over_time"]] for m, cell in curve.groupby("width")}
            found = statistics.rate(values)
            line[name] = f"{found.estimate:.3f} [{found.low:.3f}, {found.high:.3f}]"
        table.append(line)
    return pandas.DataFrame(table, columns=["c", *times])


def peaks(rows: pandas.DataFrame) -> pandas.DataFrame:
    """For each depth, the width with the largest mean P, and its ratio to the narrowest and the widest network."""
    table = []
    for depth, curve in summarise(rows, x="width", y="stability", by="depth").dropna(subset="mean").groupby("depth"):
        widths, means = curve["width"].tolist(), curve["mean"].tolist()
        top = max(means)
        table.append(
            {
                "depth": depth,
                "widths": f"{widths[0]} to {widths[-1]}",
                "peak at": widths[means.index(top)],
                "peak": top,
            }
            | {"over the narrowest": top / means[0], "over the widest": top / means[-1]}
        )
    return pandas.DataFrame(table).round(3)


def mark_transitions(rows: pandas.DataFrame, ax):
    """Mark on the width axis, for each depth, #parameters = n (|) and the peak of Table 1's bound, m = L^3/2 (^)."""
    if rows.empty:
        return ax
    d_in, d_out = _dimensions(rows)
    depths = sorted(rows["depth"].unique())
    colours = seaborn.color_palette("viridis", len(depths) + 1)
    low, high = ax.get_xlim()
    bottom, top = ax.get_ylim()
    ax.set_ylim(bottom * (bottom / top) ** 0.18, top)  # room for the marks below the curves
    n = dataset_info(rows["dataset"].iloc[0]).n_train
    style = {"transform": ax.get_xaxis_transform(), "clip_on": False, "label": "_mark"}
    for colour, depth in zip(colours, depths, strict=False):
        crossing, peak = interpolation_width(depth, d_in=d_in, d_out=d_out, n=n), theory.peak_width(depth)
        if low <= crossing <= high:
            ax.plot([crossing], [0.03], "|", color=colour, markersize=8, markeredgewidth=1.5, **style)
        if low <= peak <= high:
            ax.plot([peak], [0.09], "^", color=colour, markersize=4, **style)
    ax.plot([], [], "|", color="0.4", markeredgewidth=1.5, label="#parameters = $n$")
    ax.plot([], [], "^", color="0.4", markersize=4, label="$m = L^3/2$")
    _legend(ax)
    return ax


def interpolation_width(depth: int, *, d_in: int, d_out: int, n: int) -> float:
    """The width at which a net has n parameters: m of (L-2) m^2 + (d + o) m = n."""
    ends, middle = d_in + d_out, depth - 2
    return n / ends if middle == 0 else (math.sqrt(ends**2 + 4 * middle * n) - ends) / (2 * middle)


def schematic(ax):
    """Figure 1: the fully connected network of Eq. (2), drawn."""
    names = ["$x$", "$h_1$", "$h_2$", "", "$h_{L-1}$", "$f(x)$"]
    layers = list(zip(names, [4, 5, 5, 0, 5, 3], ["0.75", None, None, None, None, "0.75"], strict=True))
    colour = seaborn.color_palette("colorblind")[0]
    ys = [np.linspace(-(n - 1) / 2, (n - 1) / 2, n) if n else [] for _, n, _ in layers]
    for left, right in ((0, 1), (1, 2), (4, 5)):
        for a in ys[left]:
            for b in ys[right]:
                ax.plot([left, right], [a, b], color="0.8", linewidth=0.5, zorder=1)
    for at, (name, _, grey) in enumerate(layers):
        ax.scatter([at] * len(ys[at]), ys[at], s=90, color=grey or colour, edgecolor="black", linewidth=0.5, zorder=2)
        ax.text(at, -3.0, name, ha="center")
    ax.text(3, 0, r"$\cdots$", ha="center", va="center", fontsize=16)
    for at, name in ((0.5, "$W_1$"), (1.5, "$W_2$"), (4.5, "$W_L$")):
        ax.text(at, 2.45, name, ha="center")
    for at, size in ((0, "$d$"), (1, "$m$"), (2, "$m$"), (4, "$m$"), (5, "$o$")):
        ax.text(at, -3.6, size, ha="center", color="0.4")
    ax.set(xlim=(-0.6, 5.6), ylim=(-3.9, 2.9))
    ax.axis("off")
    return ax


def _record(ax, table: pandas.DataFrame) -> None:
    ax.robustkit_tables = [*getattr(ax, "robustkit_tables", ()), table]


def _dimensions(rows: pandas.DataFrame) -> tuple[int, int]:
    data = dataset_info(rows["dataset"].iloc[0])
    return math.prod(data.shape), data.classes


def _symbol(by: str) -> str:
    return {"depth": "$L$ = ", "width": "$m$ = ", "power": "$c$ = "}.get(by, "")


def _short(value) -> str:
    return f"{value:g}" if isinstance(value, (int, float, np.number)) else str(value)


def _legend(ax) -> None:
    # Above the axes, where it covers no data.
    count = len(ax.get_legend_handles_labels()[1])
    style = {"fontsize": 6, "handlelength": 1.3, "columnspacing": 0.8, "handletextpad": 0.5, "borderaxespad": 0.2}
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=count if count <= 5 else 4, **style)


def _axes(ax, x: str, y: str, ticks: Sequence[float], log: bool) -> None:
    ax.set(xlabel=LABELS.get(x, x), ylabel=LABELS.get(y, y))
    if x == "width":
        ax.set_xscale("log", base=2)
    ax.xaxis.set_major_locator(FixedLocator(sorted(set(ticks))))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if log:
        ax.set_yscale("log")
        _plain_ticks(ax)


def _plain_ticks(ax) -> None:
    # Within two decades, 0.3 reads better than 3 x 10^-1.
    low, high = ax.get_ylim()
    if low > 0 and high / low < 100:
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5) if high / low > 4 else tuple(range(1, 10))))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
