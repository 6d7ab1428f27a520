"""Controls as pictures: matched loss, along training, initial against final."""

from __future__ import annotations

import numpy as np
import pandas
import seaborn
from matplotlib.ticker import (
    FuncFormatter,
    LogFormatterSciNotation,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from .. import attacks
from ..cell import FRACTIONS, INSTANTS
from ..checks import check_choice
from ..ledger import criteria, proxy_schedule, statistics
from . import curves

WORST = {
    "logit_stability": curves.LABELS["stability"],
    "lipschitz_mean": r"mean local Lipschitz, $\|J\|_2$",
    "lipschitz_max": r"largest local Lipschitz, $\|J\|_2$",
    "spectral_product": "product of spectral norms",
    "softmax_stability": r"$P/\epsilon$ of softmax outputs",
    "logit_stability_train": curves.LABELS["stability_train"],
} | {
    attacks.column(attack, norm, radius): rf"accuracy under {attack.upper()}, {symbol} radius {radius:g}"
    for attack in attacks.ATTACKS
    for norm, symbol in (("l2", r"$\ell_2$"), ("linf", r"$\ell_\infty$"))
    for radius in attacks.RADII[norm]
}
WORDS = {"lr_rule=inverse_width": "rate 1/m", "model=cnn": "CNN", "head=": ""}
SCALES = {"margin": "the mean margin", "logit_norm": "the norm of the logits"}


def named(rows: pandas.DataFrame) -> pandas.DataFrame:
    """The rows with a column "curve", such as "He, $L$ = 6", for controls that hold several."""
    names = [f"{curves.NAMES[init]}, $L$ = {depth}" for init, depth in zip(rows["init"], rows["depth"], strict=True)]
    return rows.assign(curve=names)


def together(*frames: pandas.DataFrame) -> pandas.DataFrame:
    """Rows of several grids in one frame, each once, for a caption or a table that holds all; with what they miss."""
    there = [rows for rows in frames if len(rows)]
    found = pandas.concat(there).drop_duplicates("key") if there else frames[0].copy()
    found.attrs["missing"] = list(dict.fromkeys(cell for rows in frames for cell in rows.attrs.get("missing", [])))
    return found


def only(rows: pandas.DataFrame, init: str) -> pandas.DataFrame:
    """The rows of one scheme, and of the missing cells those that are its own."""
    found = rows[rows["init"] == init].copy()
    found.attrs["missing"] = [cell for cell in rows.attrs.get("missing", []) if cell.init == init]
    return found


def matched(rows: pandas.DataFrame, *, by: str = "init") -> pandas.DataFrame:
    """P of each network where its training loss first came down to its width's common loss: by, width, stability.

    The common loss of a width is the largest of its curves' mean final losses, so every curve has been there. P is
    read off between the seven recorded instants, linear in log loss and log P. A width lacking a curve is left out.
    """
    good = rows[criteria.usable(rows, "stability")]
    ends = good.groupby([by, "width"])["train_loss"].mean().unstack(by).dropna()
    common = ends.max(axis=1).to_dict()
    lines = [
        {by: name, "width": int(width), "stability": value, "common loss": common[width]}
        for name, curve in good.groupby(by)
        for width, values in criteria._at_loss(curve, common).items()
        for value in values
    ]
    return pandas.DataFrame(lines, columns=[by, "width", "stability", "common loss"])


def along_training(rows: pandas.DataFrame, ax, *, by: str = "width"):
    """P against training loss at the seven instants, a line a network, from its start (ring) to its end (dot)."""
    good = rows[rows["status"] == "ok"]
    if good.empty:
        return nothing(ax)
    for colour, (value, curve) in zip(colours(good[by]), good.groupby(by), strict=True):
        name = f"{curves._symbol(by)}{curves.NAMES.get(value, curves._short(value))}"
        for number, row in enumerate(curve.itertuples()):
            loss, stability = row.loss_at_stability, row.stability_over_time
            label = "_seed" if number else name
            ax.plot(loss, stability, "-", color=colour, linewidth=0.7, alpha=0.6, label=label)
            ax.plot(loss[0], stability[0], "o", color=colour, markerfacecolor="white", markersize=3)
            ax.plot(loss[-1], stability[-1], "o", color=colour, markersize=3)
            line = {by: value, "seed": row.seed, "fraction": FRACTIONS[: len(loss)], "x": loss, "mean": stability}
            curves._record(ax, pandas.DataFrame(line).assign(quantity="stability against training loss"))
    ax.set(xscale="log", yscale="log", xlabel="training loss (falls to the right)", ylabel=curves.LABELS["stability"])
    log_ticks(ax.xaxis)
    log_ticks(ax.yaxis)
    ax.invert_xaxis()
    curves._legend(ax)
    return ax


def scatter(rows: pandas.DataFrame, ax, *, x: str, y: str = "stability", by: str = "depth", diagonal: bool = True):
    """One quantity against another, a dot a network; the diagonal is where both agree."""
    good = rows[(rows["status"] == "ok") & (rows[x] > 0) & (rows[y] > 0)]
    if good.empty:
        return nothing(ax)
    for number, (colour, (value, curve)) in enumerate(zip(colours(good[by]), good.groupby(by), strict=True)):
        name = f"{curves._symbol(by)}{curves.NAMES.get(value, curves._short(value))}"
        marker = curves.MARKERS[number % len(curves.MARKERS)]
        ax.plot(curve[x], curve[y], marker, color=colour, markersize=3.5, alpha=0.8, label=name)
        table = curve[[by, "width", "seed"]].assign(x=curve[x], mean=curve[y], quantity=f"{y} against {x}")
        curves._record(ax, table)
    if diagonal:
        values = good[[x, y]].to_numpy(float)
        ends = values.min() / 1.1, values.max() * 1.1
        ax.plot(ends, ends, color="0.6", linewidth=0.8, zorder=0, label="_diagonal")
    ax.set(xscale="log", yscale="log", xlabel=curves.LABELS.get(x, x), ylabel=curves.LABELS.get(y, y))
    log_ticks(ax.xaxis)
    log_ticks(ax.yaxis)
    curves._legend(ax)
    return ax


def average_against_worst(
    rows: pandas.DataFrame, ax, *, y: str = "lipschitz_mean", x: str = "logit_stability", over: str | None = None
):
    """P/eps against a worst-case measure: cell means (large) and their seeds (dots), colour by depth, marker by init.

    rows: as from load_further("attack"). y: a column of them. over: "margin" or "logit_norm", by which P is divided.
    Means are geometric, and the axes logarithmic, but for accuracies. Cells of different readings are not averaged.
    Raises InputError on another `over`.
    """
    check_choice("over", over, (None, *SCALES))
    if rows.empty:
        return nothing(ax)
    x_values, accuracy = rows[x] / rows[over] if over else rows[x], y.startswith("accuracy")
    table = rows.assign(x=x_values.astype(float), mean=rows[y].astype(float))
    good = (table["status"] == "ok") & (table["x"] > 0) & (table["mean"] >= 0 if accuracy else table["mean"] > 0)
    table = table[good & np.isfinite(table[["x", "mean"]]).all(axis=1)]
    if table.empty:
        return nothing(ax)
    table = table.assign(reading=[", ".join(criteria.reading_of(row)) for row in table.to_dict("records")])
    by, schemes = ["depth", "init", "power", "gain", "width", "reading"], list(curves.NAMES)
    palette = dict(zip(sorted(table["depth"].unique()), colours(table["depth"]), strict=True))
    named_init, quantity = table["init"].nunique() > 1, f"{y} against {x}" + (f" over {over}" if over else "")
    for (depth, init), curve in table.groupby(["depth", "init"]):
        marker, colour = curves.MARKERS[schemes.index(init)], palette[depth]
        ax.plot(curve["x"], curve["mean"], ".", color=colour, alpha=0.35, markersize=3, label="_seeds")
        cells = curve.assign(x=np.log(curve["x"]), mean=curve["mean"] if accuracy else np.log(curve["mean"]), n=1)
        cells = cells.groupby(by, dropna=False).agg({"x": "mean", "mean": "mean", "n": "sum"}).reset_index()
        cells["x"], cells["mean"] = np.exp(cells["x"]), cells["mean"] if accuracy else np.exp(cells["mean"])
        label = f"{curves.NAMES[init]}, $L$ = {depth}" if named_init else f"$L$ = {depth}"
        ax.plot(cells["x"], cells["mean"], marker, color=colour, markersize=4.5, alpha=0.9, label=label)
        curves._record(ax, cells.assign(quantity=f"{quantity}, cell means"))
        curves._record(ax, curve[[*by, "seed", "x", "mean"]].assign(quantity=f"{quantity}, seeds"))
    x_label = WORST.get(x, curves.LABELS.get(x, x))
    ax.set(xscale="log", xlabel=rf"$P/\epsilon$ over {SCALES[over]}" if over else x_label, ylabel=WORST.get(y, y))
    log_ticks(ax.xaxis)
    if accuracy:
        ax.set_ylim(-0.02, 1.02)
    else:
        ax.set_yscale("log")
        log_ticks(ax.yaxis)
    curves._legend(ax)
    return ax


def proxy_ratios(rows: pandas.DataFrame, axes) -> pandas.DataFrame:
    """P under the proxy over P under the paper's schedule; returns the table of what is drawn, as from `proxy.pairs`.

    Three axes: raw pixels under He and under LeCun against width, then each other kind on a line of its own; colours
    are depths. A filled dot has moved by no more than the seeds' spread, a ring by more; bars are 95 % intervals.
    """
    table = proxy_schedule.pairs(rows)
    table = table.assign(kind=[_kind(line) for line in table.itertuples()], moved=table["moved"].astype(bool))
    palette = dict(zip(sorted(table["depth"].unique()), colours(table["depth"]), strict=True))
    parts = [table[table["kind"] == kind] for kind in ("raw, He", "raw, LeCun")]
    parts += [table[~table["kind"].isin(("raw, He", "raw, LeCun"))]]
    kinds, ends = (
        sorted(parts[2]["kind"].unique()),
        (min(0.9, 0.98 * table["low"].min()), max(1.1, table["high"].max())),
    )
    for ax, part, name in zip(axes, parts, ("He, raw", "LeCun, raw", "the other kinds"), strict=True):
        upright = part is not parts[2]
        for (depth, moved), some in part.groupby(["depth", "moved"]):
            error = np.abs(some[["low", "high"]].to_numpy(float).T - some["ratio"].to_numpy(float))
            spot = some["width"] if upright else some["kind"].map(kinds.index) + (depth - 6) / 20
            x, y, bars = (spot, some["ratio"], "yerr") if upright else (some["ratio"], spot, "xerr")
            style = {"color": palette[depth], "markerfacecolor": "white" if moved else palette[depth]}
            label = f"$L$ = {depth}" if not moved or part[part["depth"] == depth]["moved"].all() else "_"
            ax.errorbar(x, y, fmt="o", markersize=4, elinewidth=0.8, label=label, **{bars: error}, **style)
        (ax.axhline if upright else ax.axvline)(1, color="0.6", linewidth=0.8, zorder=0)
        ratio, across = "$P$, proxy over full schedule", curves.LABELS["width"]
        ax.set(title=f"{name}\n", **({"ylim": ends, "ylabel": ratio} if upright else {"xlim": ends, "xlabel": ratio}))
        if upright:
            ax.set(xscale="log", xlabel=across, xticks=sorted(part["width"].unique()))
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.xaxis.set_minor_locator(NullLocator())
        curves._legend(ax) if upright and len(part) else None if len(part) else nothing(ax)
        drawn = part.drop(columns=["reading", "ratio"]).assign(mean=part["ratio"])
        curves._record(ax, drawn.assign(quantity="P, proxy over full schedule"))
    axes[2].set_yticks(range(len(kinds)), kinds, fontsize=7)
    axes[2].invert_yaxis()
    return table.drop(columns="kind").assign(reading=[", ".join(reading) for reading in table["reading"]])


def _kind(line) -> str:
    """A reading and a scheme in short, such as "raw, rate 1/m, NTK"."""
    text = ", ".join([line.reading[1], *line.reading[4:], curves.NAMES[line.init]])
    for word, plain in WORDS.items():
        text = text.replace(word, plain)
    return text


def late_growth(rows: pandas.DataFrame) -> pandas.DataFrame:
    """Mean kappa after a tenth of training, at half and at the end; end over half is 1 if it stopped, 2 if linear."""
    good = rows[rows["status"] == "ok"]
    instants = {"kappa at 1/10": 0.1, "at 1/2": 0.5, "at the end": 1.0}
    values = {name: good["kappa_over_time"].str[INSTANTS.index(at)].astype(float) for name, at in instants.items()}
    ratio = {"end over half": values["at the end"] / values["at 1/2"]}
    table = good[["init", "width"]].assign(**values, **ratio, n=1)
    return table.groupby(["init", "width"]).agg(dict.fromkeys([*values, *ratio], "mean") | {"n": "sum"}).reset_index()


def powers(rows: pandas.DataFrame, y: str) -> pandas.DataFrame:
    """Power of m in y, d log y / d log m with its 95 % interval over seeds: a row a scheme, depth and schedule."""
    table = []
    for (init, depth, schedule), curve in rows.groupby(["init", "depth", "schedule"]):
        widths = sorted(curve["width"].unique())
        if len(widths) > 1:
            found = statistics.rate(criteria.values_by(curve, y))
            line = {"init": curves.NAMES[init], "depth": depth, "schedule": schedule}
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
