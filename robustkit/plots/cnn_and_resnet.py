"""Figure 6 and Table 4 of the workshop version: CNNs beside fully connected nets, and ResNets beside the paper."""

from __future__ import annotations

import math

import numpy as np
import pandas
import seaborn

from .. import cell as cell_module
from ..cell import Cell
from ..checks import check_choice
from ..datasets import dataset_info
from ..ledger import rows as ledger_rows
from ..ledger.cnn_and_resnet import ACCURACIES, PAPER, depth_gaps, depth_rises, much_larger, shared_shapes
from . import curves
from .curves import colours, log_ticks, nothing

# ---------------------------------------------------------------------------------------------- Figure 6


def views(rows: pandas.DataFrame) -> dict[str, pandas.DataFrame]:
    """The rows of Figure 6 by network and rate, each with what it misses; the faster rate only where it was run."""
    missing = rows.attrs.get("missing", [])
    rates = sorted({*rows["lr"], *(cell.lr for cell in missing)})
    found = {}
    for rate in rates:
        faster = f", rate x {rate / rates[0]:g}" if rate > rates[0] else ""
        for name, model, head in (
            *(("CNN, flatten", "cnn", "flatten"), ("CNN, pooling", "cnn", "pooling")),
            ("fully connected", "fcn", None),
        ):
            part = rows[(rows["model"] == model) & (rows["lr"] == rate)]
            part = part[part["head"] == head] if head else part
            part.attrs["missing"] = [c for c in missing if (c.model, c.head, c.lr) == (model, head, rate)]
            if len(part) or part.attrs["missing"]:
                found[name + faster] = part
    return found


def figure_6(found: dict[str, pandas.DataFrame], axes) -> None:
    """P (top) and training loss (bottom) against width, a column a view, each row on one scale."""
    for row, y in zip(axes, ("stability", "train_loss"), strict=True):
        for ax, (name, part) in zip(row, found.items(), strict=True):
            curves.against(part, ax, y=y)
            ax.set_title(f"{name}\n\n" if y == "stability" else "")
        limits = [ax.get_ylim() for ax in row if ax.lines]
        for ax in row if limits else ():
            ax.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
            curves.log_ticks(ax.yaxis)
            ax.label_outer()


def gaps(found: dict[str, pandas.DataFrame]) -> pandas.DataFrame:
    """How far P changes over depth, for each CNN and the fully connected net at its rate, where both have rows.

    Factors are geometric means over seeds and widths: of a straight line through log P from the least to the largest
    depth (above 1 it rises; row E12 of the ledger judges this one), and of the highest depth over the lowest.
    """
    table = []
    for name, cnn in found.items():
        network, comma, faster = name.partition(", rate")
        beside = found.get(f"fully connected{comma}{faster}")
        if not network.startswith("CNN") or beside is None:
            continue
        both = shared_shapes(cnn, beside)
        for whose, part in zip((network, "fully connected"), both, strict=True):
            line = {"pair": name, "network": whose, "widths": ", ".join(map(str, sorted(part["width"].unique())))}
            for column, values in (("rise over depth", depth_rises(part)), ("highest / lowest", depth_gaps(part))):
                line[column] = f"{math.exp(np.mean(values)):.3g}" if values else "missing"
            losses = part["train_loss"]
            line["training loss"] = f"{losses.min():.3g} to {losses.max():.3g}" if len(part) else "-"
            table.append(line | {"size, compared": ""})
        rises = [depth_rises(part) for part in both]
        table[-2]["size, compared"] = much_larger(*rises)[0] if all(rises) else "missing"
    return pandas.DataFrame(table)


# ---------------------------------------------------------------------------------------------- Table 4


def table_4(rows: pandas.DataFrame, cells: list[Cell]) -> pandas.DataFrame:
    """Table 4: a row a dataset and initialisation of `cells`, the paper's accuracy beside ours, in percent.

    Ours: mean over seeds +- their standard deviation, at the last and the best epoch.
    """
    table = []
    for dataset, init in dict.fromkeys((cell.dataset, cell.init) for cell in cells):
        wanted = [cell for cell in cells if (cell.dataset, cell.init) == (dataset, init)]
        keys = {cell.key for cell in wanted}
        found = rows[rows["key"].isin(keys) & (rows["status"] == "ok")] if len(rows) else rows
        paper = PAPER.get((dataset, init))
        line = {"network": f"ResNet-{wanted[0].depth}", "dataset": dataset, "initialisation": curves.NAMES[init]}
        line |= {"paper": "-" if paper is None else f"{paper:.2f}"}
        line |= {f"ours, {name}": _spread(100 * found[y], 2) for name, y in ACCURACIES.items()}
        line |= {"kappa": _spread(found["kappa"], 3), "P/eps": _spread(found["stability"], 3)}
        table.append(line | {"n": f"{len(found)} of {len(wanted)}"})
    return pandas.DataFrame(table)


def _spread(values: pandas.Series, digits: int) -> str:
    values = values.astype(float)
    if values.empty:
        return "missing"
    number = (lambda v: f"{v:.2f}") if digits == 2 else (lambda v: f"{v:.3g}")
    return number(values.mean()) + (f" +- {number(values.std())}" if len(values) > 1 else "")


def scaled_down(cells: list[Cell]) -> str:
    """What the ResNets of a profile lack of the published recipe, in words; empty if nothing."""
    cell = cells[0]
    if (cell.depth, cell.epochs) == (110, 164):
        return ""
    of = dataset_info(cell.dataset).n_train
    return (
        f"scaled down: ResNet-{cell.depth}, {cell.epochs:g} epochs on {cell.train_points} of the {of} points of "
        f"{cell.dataset}, without crops and flips; a check of the pipeline, and no evidence on Table 4"
    )


def accuracies(rows: pandas.DataFrame, ax):
    """Test accuracy at the last epoch, a column a dataset and initialisation: the paper's as a bar, ours as dots."""
    columns = list(dict.fromkeys([*PAPER, *zip(rows["dataset"], rows["init"], strict=True)]))
    colours = dict(zip(("he", "power"), seaborn.color_palette("colorblind"), strict=False))
    labels = []
    for x, (dataset, init) in enumerate(columns):
        part = rows[(rows["dataset"] == dataset) & (rows["init"] == init) & (rows["status"] == "ok")]
        if (dataset, init) in PAPER:
            value = PAPER[dataset, init]
            ax.plot(
                [x - 0.3, x + 0.3], [value, value], color="black", label="the paper, Table 4" if x == 0 else "_paper"
            )
            curves._record(
                ax, pandas.DataFrame([{"dataset": dataset, "init": init, "mean": value, "quantity": "paper"}])
            )
        values = 100 * part["test_accuracy"].astype(float)
        ax.plot([x] * len(values), values, "o", color=colours[init], markersize=4, label="_ours")
        ours = part[["dataset", "init", "seed"]].assign(mean=values, quantity="ours, last epoch")
        curves._record(ax, ours)
        network = f"ResNet-{part['depth'].iloc[0]}" if len(part) else "no rows yet"
        labels.append(f"{dataset}\n{curves.NAMES[init]}\n{network}")
    for init, name in (("he", "ours, He (lazy)"), ("power", "ours, non-lazy")):
        ax.plot([], [], "o", color=colours[init], markersize=4, label=name)
    ax.set_xticks(range(len(columns)), labels, fontsize=6)
    ax.set(ylabel="test accuracy, %", xlim=(-0.6, len(columns) - 0.4))
    curves._legend(ax)
    return ax


def over_epochs(rows: pandas.DataFrame, ax):
    """Test accuracy after each epoch, a line a seed."""
    good = rows[rows["status"] == "ok"]
    if good.empty:
        return curves.nothing(ax)
    for (init, dataset), part in good.groupby(["init", "dataset"]):
        colour = seaborn.color_palette("colorblind")[0 if init == "he" else 1]
        for number, row in enumerate(part.itertuples()):
            values = 100 * np.array(row.test_accuracy_over_time, dtype=float)
            label = "_seed" if number else f"{curves.NAMES[init]}, {dataset}"
            ax.plot(range(1, len(values) + 1), values, color=colour, linewidth=0.9, label=label)
            line = {"init": init, "dataset": dataset, "seed": row.seed, "epoch": range(1, len(values) + 1)}
            curves._record(ax, pandas.DataFrame(line | {"mean": values, "quantity": "test accuracy"}))
    ax.set(xlabel="epoch", ylabel="test accuracy, %")
    curves._legend(ax)
    return ax


WORST = {
    "logit_stability": curves.LABELS["stability"],
    "lipschitz_mean": r"mean local Lipschitz, $\|J\|_2$",
    "lipschitz_max": r"largest local Lipschitz, $\|J\|_2$",
    "spectral_product": "product of spectral norms",
    "softmax_stability": r"$P/\epsilon$ of softmax outputs",
    "logit_stability_train": curves.LABELS["stability_train"],
} | {
    cell_module.column(attack, norm, radius): rf"accuracy under {attack.upper()}, {symbol} radius {radius:g}"
    for attack in cell_module.ATTACKS
    for norm, symbol in (("l2", r"$\ell_2$"), ("linf", r"$\ell_\infty$"))
    for radius in cell_module.RADII[norm]
}


SCALES = {"margin": "the mean margin", "logit_norm": "the norm of the logits"}


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
    table = table.assign(reading=[", ".join(ledger_rows.reading_of(row)) for row in table.to_dict("records")])
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
