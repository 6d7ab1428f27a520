"""Models beside one another: how many times the first one's perturbation stability each has."""

import pandas

from .style import record


def comparison(frame: pandas.DataFrame, ax):
    """The ratio of each model's P/eps to the first model's, from `rk.compare`, with its 95 % interval."""
    rows, centre = range(len(frame)), frame["ratio"]
    reach = [centre - frame["ratio_low"], frame["ratio_high"] - centre]
    ax.errorbar(centre, rows, xerr=reach, fmt="o", color="C0", markersize=4, capsize=2, linewidth=1)
    ax.axvline(1, color="0.6", linewidth=0.8, zorder=0)
    names = [f"{row.model}\n{row.stability:.3g}" for row in frame.itertuples()]
    ax.set_yticks(rows, names)
    ax.set_ylim(len(frame) - 0.5, -0.5)
    first, n = frame["model"].iloc[0], frame["n"].iloc[0]
    ax.set_xlabel(f"ratio of $P/\\epsilon$ to {first}, 95 % interval, $n$ = {n}")
    record(ax, frame.assign(mean=centre), "ratio of perturbation stabilities")
    return ax
