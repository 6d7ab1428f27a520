"""Frame and axes in, axes out: measured curves in colour with bands, theory in black."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas
import seaborn
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogFormatterSciNotation,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from .. import theory
from ..cell import EVALUATION_POINTS, FRACTIONS
from ..datasets import dataset_info
from ..ledger import rows as ledger_rows
from ..ledger import statistics
from ..ledger.rows import dimensions, summarise

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
    fractions = FRACTIONS if y == "stability_over_time" else EVALUATION_POINTS
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


def mark_transitions(rows: pandas.DataFrame, ax):
    """Mark on the width axis, for each depth, #parameters = n (|) and the peak of Table 1's bound, m = L^3/2 (^)."""
    if rows.empty:
        return ax
    d_in, d_out = dimensions(rows)
    depths = sorted(rows["depth"].unique())
    colours = seaborn.color_palette("viridis", len(depths) + 1)
    low, high = ax.get_xlim()
    bottom, top = ax.get_ylim()
    ax.set_ylim(bottom * (bottom / top) ** 0.18, top)  # room for the marks below the curves
    n = dataset_info(rows["dataset"].iloc[0]).n_train
    style = {"transform": ax.get_xaxis_transform(), "clip_on": False, "label": "_mark"}
    for colour, depth in zip(colours, depths, strict=False):
        crossing, peak = theory.interpolation_width(depth, d_in=d_in, d_out=d_out, n=n), theory.peak_width(depth)
        if low <= crossing <= high:
            ax.plot([crossing], [0.03], "|", color=colour, markersize=8, markeredgewidth=1.5, **style)
        if low <= peak <= high:
            ax.plot([peak], [0.09], "^", color=colour, markersize=4, **style)
    ax.plot([], [], "|", color="0.4", markeredgewidth=1.5, label="#parameters = $n$")
    ax.plot([], [], "^", color="0.4", markersize=4, label="$m = L^3/2$")
    _legend(ax)
    return ax


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


def along_training(rows: pandas.DataFrame, ax, *, by: str = "width"):
    """P against training loss at the seven instants, a line a network, from its start (ring) to its end (dot)."""
    good = rows[rows["status"] == "ok"]
    if good.empty:
        return nothing(ax)
    for colour, (value, curve) in zip(colours(good[by]), good.groupby(by), strict=True):
        name = f"{_symbol(by)}{NAMES.get(value, _short(value))}"
        for number, row in enumerate(curve.itertuples()):
            loss, stability = row.loss_at_stability, row.stability_over_time
            label = "_seed" if number else name
            ax.plot(loss, stability, "-", color=colour, linewidth=0.7, alpha=0.6, label=label)
            ax.plot(loss[0], stability[0], "o", color=colour, markerfacecolor="white", markersize=3)
            ax.plot(loss[-1], stability[-1], "o", color=colour, markersize=3)
            line = {
                by: value,
                "seed": row.seed,
                "fraction": FRACTIONS[: len(loss)],
                "x": loss,
                "mean": stability,
            }
            _record(ax, pandas.DataFrame(line).assign(quantity="stability against training loss"))
    ax.set(xscale="log", yscale="log", xlabel="training loss (falls to the right)", ylabel=LABELS["stability"])
    log_ticks(ax.xaxis)
    log_ticks(ax.yaxis)
    ax.invert_xaxis()
    _legend(ax)
    return ax


def scatter(rows: pandas.DataFrame, ax, *, x: str, y: str = "stability", by: str = "depth", diagonal: bool = True):
    """One quantity against another, a dot a network; the diagonal is where both agree."""
    good = rows[(rows["status"] == "ok") & (rows[x] > 0) & (rows[y] > 0)]
    if good.empty:
        return nothing(ax)
    for number, (colour, (value, curve)) in enumerate(zip(colours(good[by]), good.groupby(by), strict=True)):
        name = f"{_symbol(by)}{NAMES.get(value, _short(value))}"
        marker = MARKERS[number % len(MARKERS)]
        ax.plot(curve[x], curve[y], marker, color=colour, markersize=3.5, alpha=0.8, label=name)
        table = curve[[by, "width", "seed"]].assign(x=curve[x], mean=curve[y], quantity=f"{y} against {x}")
        _record(ax, table)
    if diagonal:
        values = good[[x, y]].to_numpy(float)
        ends = values.min() / 1.1, values.max() * 1.1
        ax.plot(ends, ends, color="0.6", linewidth=0.8, zorder=0, label="_diagonal")
    ax.set(xscale="log", yscale="log", xlabel=LABELS.get(x, x), ylabel=LABELS.get(y, y))
    log_ticks(ax.xaxis)
    log_ticks(ax.yaxis)
    _legend(ax)
    return ax


def late_growth(rows: pandas.DataFrame) -> pandas.DataFrame:
    """Mean kappa after a tenth of training, at half and at the end; end over half is 1 if it stopped, 2 if linear."""
    good = rows[rows["status"] == "ok"]
    fractions = {"kappa at 1/10": 0.1, "at 1/2": 0.5, "at the end": 1.0}
    values = {
        name: good["kappa_over_time"].str[EVALUATION_POINTS.index(at)].astype(float) for name, at in fractions.items()
    }
    ratio = {"end over half": values["at the end"] / values["at 1/2"]}
    table = good[["init", "width"]].assign(**values, **ratio, n=1)
    return table.groupby(["init", "width"]).agg(dict.fromkeys([*values, *ratio], "mean") | {"n": "sum"}).reset_index()


def powers(rows: pandas.DataFrame, y: str) -> pandas.DataFrame:
    """Power of m in y, d log y / d log m with its 95 % interval over seeds: a row a scheme, depth and schedule."""
    table = []
    for (init, depth, schedule), curve in rows.groupby(["init", "depth", "schedule"]):
        widths = sorted(curve["width"].unique())
        if len(widths) > 1:
            found = statistics.rate(ledger_rows.values_by(curve, y))
            line = {"init": NAMES[init], "depth": depth, "schedule": schedule}
            line["widths"] = f"{widths[0]} to {widths[-1]}"
            table.append(line | {"power of m": f"{found.estimate:.3f} [{found.low:.3f}, {found.high:.3f}]"})
    return pandas.DataFrame(table, columns=["init", "depth", "schedule", "widths", "power of m"])


def colours(values) -> list:
    """One colour of the curve palette for each distinct value."""
    count = len(set(values))
    return seaborn.color_palette("viridis", count + 1)[:count]


def log_ticks(axis) -> None:
    """A few plain numbers on a logarithmic axis within two decades, powers of ten beyond; call it after drawing."""
    low, high = sorted(axis.get_view_interval())
    if high / low >= 100:
        axis.set_major_locator(LogLocator())
        axis.set_major_formatter(LogFormatterSciNotation())
    else:
        few = LogLocator(subs=(1, 2, 5) if high / low > 6 else (1, 1.5, 2, 3, 4, 5, 7))
        axis.set_major_locator(MaxNLocator(4) if high / low < 2.25 else few)
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def nothing(ax):
    """Say in the axes that there is nothing to draw yet."""
    ax.text(0.5, 0.5, "no rows yet", transform=ax.transAxes, ha="center")
    return ax
