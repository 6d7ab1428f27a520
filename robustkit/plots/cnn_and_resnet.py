"""Figure 6 and Table 4 of the workshop version: CNNs beside fully connected nets, and ResNets beside the paper."""

from __future__ import annotations

import math

import numpy as np
import pandas
import seaborn

from ..cell import Cell, dataset_info
from ..ledger.cnn_and_resnet import ACCURACIES, PAPER, depth_gaps, depth_rises, much_larger, shared_shapes
from . import comparisons, curves

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
            comparisons.log_ticks(ax.yaxis)
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
        return comparisons.nothing(ax)
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
