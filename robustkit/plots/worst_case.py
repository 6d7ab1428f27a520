"""P, an average over perturbations, against measures of the worst perturbation."""

from __future__ import annotations

import numpy as np
import pandas

from ..checks import check_choice
from ..ledger.rows import reading_of
from .style import LABELS, label, legend, look, nothing, record

WORST = {
    "lipschitz_mean": r"mean local Lipschitz, $\|J\|_2$",
    "lipschitz_max": r"largest local Lipschitz, $\|J\|_2$",
    "spectral_product": "product of spectral norms",
    "softmax_stability": r"$P/\epsilon$ of softmax outputs",
    "logit_stability_train": LABELS["stability_train"],
}
NORMS = {"l2": r"$\ell_2$", "linf": r"$\ell_\infty$"}
SCALES = {"margin": "the mean margin", "logit_norm": "the norm of the logits"}


def average_against_worst(rows: pandas.DataFrame, ax, *, y: str = "lipschitz_mean", over: str | None = None):
    """P/eps against a worst-case measure: cell means (large) and their seeds (dots), colour by depth, marker by init.

    rows: as from load_further("attack"). y: a column of them. over: "margin" or "logit_norm", by which P is divided.
    Means are geometric, and the axes logarithmic, but for accuracies. Cells of different readings are not averaged.
    Raises InputError on another `over`.
    """
    check_choice("over", over, (None, *SCALES))
    accuracy, quantity = y.startswith("accuracy"), f"{y} against logit_stability" + (f" over {over}" if over else "")
    log, exp = (np.asarray, np.asarray) if accuracy else (np.log, np.exp)
    x = rows["logit_stability"] / (rows[over] if over else 1)
    table = rows.assign(x=x.astype(float), mean=rows[y].astype(float))
    good = (table["status"] == "ok") & (table["x"] > 0) & (table["mean"] >= 0 if accuracy else table["mean"] > 0)
    table = table[good & np.isfinite(table[["x", "mean"]]).all(axis=1)]
    if table.empty:
        return nothing(ax)
    table = table.assign(reading=[", ".join(reading_of(row)) for row in table.to_dict("records")])
    by = ["depth", "init", "power", "gain", "width", "reading"]
    for (depth, init), curve in table.groupby(["depth", "init"]):
        style = {"color": look("depth", depth)["color"], "linestyle": "none"}
        ax.plot(curve["x"], curve["mean"], marker=".", alpha=0.35, markersize=3, label="_seeds", **style)
        cells = curve.assign(x=np.log(curve["x"]), mean=log(curve["mean"]), n=1).groupby(by, dropna=False)
        cells = cells.agg({"x": "mean", "mean": "mean", "n": "sum"}).reset_index()
        cells = cells.assign(x=np.exp(cells["x"]), mean=exp(cells["mean"]))
        name = f"{label('init', init)}, " * (table["init"].nunique() > 1) + label("depth", depth)
        style |= {"marker": look("init", init)["marker"], "markersize": 4.5, "alpha": 0.9, "label": name}
        ax.plot(cells["x"], cells["mean"], **style)
        record(ax, cells, f"{quantity}, cell means")
        record(ax, curve[[*by, "seed", "x", "mean"]], f"{quantity}, seeds")
    if accuracy:
        _, attack, norm, radius = y.split("_")
        ax.set(ylim=(-0.02, 1.02), ylabel=f"accuracy under {attack.upper()},\n{NORMS[norm]} radius {radius}")
    else:
        ax.set(yscale="log", ylabel=WORST[y])
    ax.set(xscale="log", xlabel=rf"$P/\epsilon$ over {SCALES[over]}" if over else LABELS["stability"])
    return legend(ax)
