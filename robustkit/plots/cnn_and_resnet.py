"""Figure 6 and Table 4 of the workshop version: CNNs, and ResNets."""

from __future__ import annotations

import math

import numpy as np
import pandas

from ..cell import Cell
from ..datasets import dataset_info
from ..ledger.cnn_and_resnet import ACCURACIES, PAPER, depth_gaps, depth_rises, much_larger, shared_shapes
from .curves import against
from .style import label, legend, look, nothing, record

GAPS = ["pair", "network", "widths", "rise over depth", "highest / lowest", "training loss", "size, compared"]

# ---------------------------------------------------------------------------------------------- Figure 6


def views(rows: pandas.DataFrame) -> dict[str, pandas.DataFrame]:
    """The rows of Figure 6 by network and learning rate, with what each misses; the larger one where it was run."""
    missing = rows.attrs.get("missing", [])
    rates = sorted({*rows["lr"], *(cell.lr for cell in missing)})
    parts, networks = {}, {"flatten": "CNN, flatten", "pooling": "CNN, pooling", None: "fully connected"}
    for rate in rates:
        faster = f", learning rate x {rate / rates[0]:g}" if rate > rates[0] else ""
        for head, name in networks.items():
            part = rows[(rows["lr"] == rate) & (rows["head"].isna() if head is None else rows["head"] == head)]
            part.attrs["missing"] = [cell for cell in missing if (cell.head, cell.lr) == (head, rate)]
            if len(part) or part.attrs["missing"]:
                parts[name + faster] = part
    return parts


def figure_6(parts: dict[str, pandas.DataFrame], axes) -> None:
    """P (top) and training loss (bottom) against width, a column per view, each row on one scale."""
    for row, y in zip(axes, ("stability", "train_loss"), strict=True):
        for ax, (name, part) in zip(row, parts.items(), strict=True):
            if ax is not row[0]:
                ax.sharey(row[0])
            against(part, ax, y=y)
            ax.label_outer()
            if y == "stability":
                ax.set_title(name.replace(", learning", "\nlearning"), pad=15)  # above the legend


def gaps(parts: dict[str, pandas.DataFrame]) -> pandas.DataFrame:
    """By which factor P changes over depth, for each CNN and the fully connected net at its learning rate.

    Factors are geometric means over seeds and widths: of a straight line through log P from the least to the largest
    depth (above 1 it rises; row E12 of the ledger judges this one), and of the highest depth over the lowest.
    """
    table = []
    for name, cnn in parts.items():
        network, comma, faster = name.partition(", learning")
        beside = parts.get(f"fully connected{comma}{faster}")
        if not network.startswith("CNN") or beside is None:
            continue
        both = shared_shapes(cnn, beside)
        rises = [depth_rises(part) for part in both]
        larger = much_larger(*rises)[0] if all(rises) else "missing"
        for whose, part, rise in zip((network, "fully connected"), both, rises, strict=True):
            factors = [f"{math.exp(np.mean(v)):.3g}" if v else "missing" for v in (rise, depth_gaps(part))]
            loss = f"{part['train_loss'].min():.3g} to {part['train_loss'].max():.3g}" if len(part) else "-"
            widths = ", ".join(map(str, sorted(part["width"].unique())))
            table.append((name, whose, widths, *factors, loss, larger if whose == network else ""))
    return pandas.DataFrame(table, columns=GAPS)


# ---------------------------------------------------------------------------------------------- Table 4


def table_4(rows: pandas.DataFrame, cells: list[Cell]) -> pandas.DataFrame:
    """Table 4: a row per dataset and initialisation of `cells`, the paper's accuracy beside ours, in percent.

    Ours: mean over seeds +- their standard deviation, at the last and the best epoch.
    """
    table = []
    for dataset, init in dict.fromkeys((cell.dataset, cell.init) for cell in cells):
        wanted = [cell for cell in cells if (cell.dataset, cell.init) == (dataset, init)]
        good = rows[rows["key"].isin([cell.key for cell in wanted]) & (rows["status"] == "ok")] if len(rows) else rows
        line = {"network": f"ResNet-{wanted[0].depth}", "dataset": dataset, "initialisation": label("init", init)}
        line |= {"paper": f"{PAPER[dataset, init]:.2f}" if (dataset, init) in PAPER else "-"}
        line |= {f"ours, {name}": _spread(100 * good[y], ".2f") for name, y in ACCURACIES.items()}
        line |= {"kappa": _spread(good["kappa"], ".3g"), "P/eps": _spread(good["stability"], ".3g")}
        table.append(line | {"n": f"{len(good)} of {len(wanted)}"})
    return pandas.DataFrame(table)


def _spread(values: pandas.Series, digits: str) -> str:
    numbers = [f"{value:{digits}}" for value in values.astype(float).agg(["mean", "std"])]
    return " +- ".join(numbers[: len(values)]) or "missing"


def scaled_down(cells: list[Cell]) -> str:
    """What the ResNets of a profile lack of the published recipe, in words; empty if nothing."""
    cell = cells[0]
    if (cell.depth, cell.epochs) == (110, 164):
        return ""
    points = dataset_info(cell.dataset).n_train
    return (
        f"scaled down: ResNet-{cell.depth}, {cell.epochs:g} epochs on {cell.train_points} of the {points} points of "
        f"{cell.dataset}, without crops and flips; a check of the pipeline, and no evidence on Table 4"
    )


def accuracies(rows: pandas.DataFrame, ax):
    """Test accuracy at the last epoch, by dataset and initialisation: the paper's as a bar, ours as dots."""
    columns = list(dict.fromkeys([*PAPER, *zip(rows["dataset"], rows["init"], strict=True)]))
    labels, name = [], "the paper, Table 4"
    for x, (dataset, init) in enumerate(columns):
        part = rows[(rows["dataset"] == dataset) & (rows["init"] == init) & (rows["status"] == "ok")]
        if (dataset, init) in PAPER:
            value = PAPER[dataset, init]
            ax.plot([x - 0.3, x + 0.3], [value, value], color="black", label=name if x == 0 else "_paper")
            record(ax, {"dataset": [dataset], "init": init, "mean": value}, "paper")
        values = 100 * part["test_accuracy"].astype(float)
        ours = f"ours, {label('init', init)}" if init not in [other for _, other in columns[:x]] else "_ours"
        ax.plot([x] * len(values), values, linestyle="none", markersize=4, label=ours, **look("init", init))
        record(ax, part[["dataset", "init", "seed"]].assign(mean=values), "ours, last epoch")
        network = f"ResNet-{part['depth'].iloc[0]}" if len(part) else "no rows yet"
        labels.append(f"{dataset}\n{label('init', init)}\n{network}")
    ax.set_xticks(range(len(columns)), labels, fontsize=5)
    ax.set(ylabel="test accuracy, %", xlim=(-0.6, len(columns) - 0.4))
    return legend(ax)


def over_epochs(rows: pandas.DataFrame, ax):
    """Test accuracy after each epoch, a line per seed."""
    good = rows[rows["status"] == "ok"]
    if good.empty:
        return nothing(ax)
    for (init, dataset), part in good.groupby(["init", "dataset"]):
        for number, row in enumerate(part.itertuples()):
            values = 100 * np.array(row.test_accuracy_over_time, dtype=float)
            line = {"init": init, "dataset": dataset, "seed": row.seed, "epoch": range(1, len(values) + 1)}
            name = "_seed" if number else f"{label('init', init)}, {dataset}"
            ax.plot(line["epoch"], values, color=look("init", init)["color"], linewidth=0.9, label=name)
            record(ax, line | {"mean": values}, "test accuracy")
    ax.set(xlabel="epoch", ylabel="test accuracy, %")
    return legend(ax)
