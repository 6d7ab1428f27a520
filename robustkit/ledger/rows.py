"""Rows of the store, picked and grouped for the ledger and the plots, and what names them in a sentence."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pandas

from ..cell import FRACTIONS, Cell
from ..datasets import dataset_info
from . import statistics

NAMES = {"he": "He", "lecun": "LeCun", "ntk": "NTK", "power": "non-lazy", "gain": "gain"}
MAIN_READING = ("mnist", "raw", "cross_entropy", "full")  # the reading of the paper's figures
JUMP = 2.0  # P is interpolated only between evaluation points at which it differs by less than this factor
WIDEST = 20  # columns of a table on a page
MUCH_GREATER = 10  # a >> b is read as a >= 10 b: the theorems give no factor

# What may differ between the rows of one reading. Rows that differ in anything else are never pooled.
FREE = {"width", "depth", "seed", "init", "power", "gain", "epochs", "lr"}


def curve_name(init: str, power=None, depth=None) -> str:
    """Such as "non-lazy (c = 2), L=2"."""
    return NAMES[init] + (f" (c = {power:g})" if pandas.notna(power) else "") + (f", L={depth}" if depth else "")


def readable(table: pandas.DataFrame) -> pandas.DataFrame:
    """A table as it is shown: initialisations by their names, and on its side if it is wider than a page."""
    table = table.replace({"init": NAMES}) if "init" in table else table
    if table.shape[1] <= WIDEST:
        return table
    return table.set_index(table.columns[0]).T.reset_index(names="").rename_axis(columns=None)


def listed(values) -> str:
    return ", ".join(f"{value:g}" for value in sorted(set(values)))


def shown(finding: statistics.Finding) -> str:
    return f"{finding.estimate:.3g} [{finding.low:.3g}, {finding.high:.3g}]"


def reading_of(row: dict) -> tuple:
    """The choices that rows must share to be pooled: four main ones, then those not at their default."""
    main = tuple(str(row.get(name, "?")) for name in ("dataset", "scaling", "loss", "schedule"))
    others = []
    for name, field in Cell.__dataclass_fields__.items():
        if name in FREE or name in ("dataset", "scaling", "loss") or name not in row:
            continue
        value = tuple(row[name]) if isinstance(row[name], (list, tuple)) else row[name]
        value = None if isinstance(value, float) and math.isnan(value) else value
        if value != field.default:
            others.append(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}")
    return (*main, *others)


def of_reading(rows: pandas.DataFrame, wanted: tuple, exactly: bool = True) -> pandas.DataFrame:
    """The rows of one reading, or of all that begin with it."""
    of = [reading_of(row) for row in rows.to_dict("records")]
    kept = [(reading if exactly else reading[: len(wanted)]) == wanted for reading in of]
    return rows[pandas.Series(kept, index=rows.index, dtype=bool)]


# Words for readings, as reading_of writes them.
WORDS = {"cross_entropy": "cross-entropy", "milestones=()": "constant learning rate", "target=parity": "one output"}
WORDS |= {"n_train=": "n = ", "batch_size=": "batch ", "stop_loss=": "to loss ", "flow10": "short schedule"}
WORDS |= {"lr_rule=inverse_width": "learning rate 1/m", "model=cnn": "CNN", "head=": ""}


def in_words(text: str) -> str:
    """A reading for people to read."""
    for word, plain in WORDS.items():
        text = text.replace(word, plain)
    return text


def reading_rank(item, wanted=MAIN_READING) -> tuple:
    """The wanted reading first, then the one nearest to it, then the one with most rows."""
    reading, rows = item
    return *(a != b for a, b in zip(reading, wanted, strict=False)), len(reading), -len(rows)


def ordinary(rows: pandas.DataFrame) -> pandas.Series:
    """Classifiers under the paper's decaying learning rate, or trained to a given loss."""
    return (rows["target"] == "class") & ((rows["milestones"].map(len) > 0) | rows["stop_loss"].notna())


def to_the_end(rows: pandas.DataFrame) -> pandas.Series:
    """Classifiers under the paper's decaying learning rate, never stopped early: kappa at every evaluation point."""
    return ordinary(rows) & rows["stop_loss"].isna()


def constant_rate(rows: pandas.DataFrame) -> pandas.Series:
    """Classifiers under a constant learning rate, never stopped early."""
    return (rows["target"] == "class") & (rows["milestones"].map(len) == 0) & rows["stop_loss"].isna()


def scalar(few: bool):
    """Rows of one output trained on the parity of the class: on n points if `few`, else on all training points."""
    return lambda rows: (rows["target"] == "parity") & (rows["n_train"].notna() == few)


def curve_of(rows: pandas.DataFrame, init: str, power=None, depth=None) -> pandas.DataFrame:
    """The rows of one initialisation, and of one c and depth where these are given."""
    keep = (rows["init"] == init) & ((rows["power"] == power) if power is not None else True)
    return rows[keep & ((rows["depth"] == depth) if depth is not None else True)]


def each_curve(rows: pandas.DataFrame, over: str, least: int = 3):
    """(name, rows) of each curve over width or depth with at least `least` cells."""
    fixed = "depth" if over == "width" else "width"
    for (init, power, gain, at), curve in rows.groupby(["init", "power", "gain", fixed], dropna=False, sort=False):
        if curve[over].nunique() >= least:
            name = curve_name(init, power) + (f" ({gain:g})" if not pandas.isna(gain) else "")
            yield name + (f", L={at}" if fixed == "depth" else f", width {at}"), curve


def usable(rows: pandas.DataFrame, y: str) -> pandas.Series:
    """Which rows have a measure with a logarithm: the run ended well, and y is finite and above 0."""
    return (rows["status"] == "ok") & rows[y].astype(float).between(0, math.inf, inclusive="neither")


def values_by(rows: pandas.DataFrame, y: str, by: str = "width") -> dict[float, list[float]]:
    """{x: values over seeds} of the usable rows; a cell without a usable seed stays, empty."""
    good = rows[usable(rows, y)]
    return {float(x): good.loc[good[by] == x, y].astype(float).tolist() for x in sorted(rows[by].unique())}


def recorded(rows: pandas.DataFrame, name: str, points: tuple | None = None) -> pandas.Series:
    """Which rows have the list of this name, complete if its evaluation points are given."""
    kept = [isinstance(v, (list, tuple)) and (points is None or len(v) == len(points)) for v in rows[name]]
    return pandas.Series(kept, index=rows.index, dtype=bool)


def at_evaluation(rows: pandas.DataFrame, k: int) -> pandas.DataFrame:
    """The rows with P/eps at the k-th of FRACTIONS in place of the final one, which a run stopped by then keeps."""
    kept = zip(rows["stability_over_time"], rows["stability"], strict=True)
    known = ((v, end) if isinstance(v, list | tuple) and v else ([], math.nan) for v, end in kept)
    return rows.assign(stability=[v[k] if len(v) > k else end for v, end in known])


def after_epochs(rows: pandas.DataFrame, epochs: float) -> pandas.DataFrame:
    """The rows as they were after so many epochs of the paper's schedule, at its constant learning rate of 1e-3.

    rows: of the full schedule, or of a shorter one at this constant rate; others, and those that recorded nothing
    at this time, are left out.
    """
    kept = []
    rows = rows if "loss_at_stability" in rows else rows.iloc[:0].assign(loss_at_stability=None)
    for row in rows[(rows["lr"] == 0.001) & recorded(rows, "loss_at_stability", FRACTIONS)].to_dict("records"):
        fraction, milestones = epochs / row["epochs"], row["milestones"]
        if fraction in FRACTIONS and fraction <= min(milestones, default=1):
            k = FRACTIONS.index(fraction)
            row |= {name: row[name][: k + 1] for name in ("stability_over_time", "loss_at_stability")}
            row |= {"loss_over_time": row["loss_at_stability"], "path": None}  # which reaches to the end of the run
            row |= {"stability": row["stability_over_time"][-1], "train_loss": row["loss_at_stability"][-1]}
            kept.append(row | {"test_accuracy": row["test_accuracy"] if fraction == 1 else math.nan})
    return pandas.DataFrame(kept, columns=rows.columns)


def at_loss(rows: pandas.DataFrame, loss: dict, by: str = "width") -> dict[float, list[float]]:
    """{x: P over seeds} where the training loss first came down to loss[x], x as `by`.

    P is interpolated between evaluation points, linearly in log loss and log P: the 51 of the column "path" where a
    run was repeated for it, else the seven of every row. An x is left empty if at one of its seeds P differs by more
    than a factor of JUMP between the two points around the loss.
    """
    curve, refused = {}, set()
    known = recorded(rows, "loss_at_stability") & recorded(rows, "stability_over_time")
    for row in rows[usable(rows, "stability") & known & rows[by].isin(list(loss))].itertuples():
        path = getattr(row, "path", None)
        pair = (
            (row.loss_over_time, path) if isinstance(path, list) else (row.loss_at_stability, row.stability_over_time)
        )
        losses, logs = (np.log(np.maximum(np.array(v, dtype=float), 1e-300)) for v in pair)
        losses, x = np.minimum.accumulate(losses), getattr(row, by)
        level = min(math.log(loss[x]), losses[0])
        k = min(max(int((losses > level).sum()), 1), len(losses) - 1)  # the first point at or below the loss
        if abs(logs[k] - logs[k - 1]) > math.log(JUMP) and losses[k] < level < losses[k - 1]:
            refused.add(float(x))
        curve.setdefault(float(x), []).append(math.exp(np.interp(level, losses[::-1], logs[::-1])))
    return {x: [] if x in refused else values for x, values in curve.items()}


def matched(rows: pandas.DataFrame, *, by: str = "init") -> pandas.DataFrame:
    """P of each network where its training loss first came down to the common loss of its width; see at_loss.

    The common loss is the largest of the curves' mean final losses, which every curve has therefore reached. Columns:
    by, width, stability, common loss. A width that lacks a curve is left out.
    """
    good = rows[usable(rows, "stability")]
    ends = good.groupby([by, "width"])["train_loss"].mean().unstack(by).dropna()
    common = ends.max(axis=1).to_dict()
    curves = [(name, at_loss(curve, common)) for name, curve in good.groupby(by)]
    lines = [(name, int(m), v, common[m]) for name, curve in curves for m, values in curve.items() for v in values]
    return pandas.DataFrame(lines, columns=[by, "width", "stability", "common loss"])


def span(curve: dict, exponent: float) -> float:
    """The ratio from end to end of the curve's grid that an exponent gives."""
    x = [x for x, values in curve.items() if len(values)]
    return math.exp(exponent * math.log(max(x) / min(x))) if x else math.nan


def summarise(rows: pandas.DataFrame, *, x: str, y: str, by: str) -> pandas.DataFrame:
    """Geometric mean over seeds and its 95 % interval at each x of each curve: columns by, x, mean, low, high, n.

    The interval is a t interval on log y, its seed standard deviation pooled over the points of one curve. Seeds
    that failed or diverged are left out and counted in `bad`, never averaged.
    """
    lines, none = [], statistics.Interval(math.nan, math.nan, math.nan, 0)
    for value, curve in rows.groupby(by, dropna=False):
        good = curve[np.isfinite(curve[y].astype(float))]
        cells = statistics.intervals({at: cell[y].to_numpy(float) for at, cell in good.groupby(x)})
        for at, count in curve.groupby(x).size().items():
            cell = cells.get(at, none)
            lines.append({by: value, x: at} | asdict(cell) | {"bad": count - cell.n})
    return pandas.DataFrame(lines, columns=[by, x, "mean", "low", "high", "n", "bad"])


def sizes(row) -> tuple[int, int, int]:
    """d_in, d_out and training points of a row."""
    info = dataset_info(row.dataset)
    points = info.n_train if pandas.isna(row.n_train) else int(row.n_train)
    return math.prod(info.shape), 1 if row.target == "parity" else info.classes, points


def scheme(row) -> dict:
    """The arguments of theory's functions and of layer_stds that a row fixes."""
    (d_in, d_out, _), own = sizes(row), {"power": row.power, "gain": row.gain}
    shape = {"width": int(row.width), "depth": int(row.depth), "d_in": d_in, "d_out": d_out}
    return {"init": row.init} | shape | {name: None if pandas.isna(v) else v for name, v in own.items()}


def named(rows: pandas.DataFrame) -> pandas.DataFrame:
    """The rows with a column "curve", such as "He, $L$ = 6", for controls of several curves."""
    return rows.assign(
        curve=[f"{NAMES[row.init]}, $L$ = {row.depth}" for row in rows[["init", "depth"]].itertuples()]
    )


def together(*frames: pandas.DataFrame) -> pandas.DataFrame:
    """Rows of several grids in one frame, each once, with the missing cells of all."""
    there = [rows for rows in frames if len(rows)]
    both = pandas.concat(there).drop_duplicates("key") if there else frames[0].copy()
    both.attrs["missing"] = list(dict.fromkeys(cell for rows in frames for cell in rows.attrs.get("missing", [])))
    return both


def only(rows: pandas.DataFrame, init: str) -> pandas.DataFrame:
    """The rows of one initialisation, with its missing cells alone."""
    own = rows[rows["init"] == init].copy()
    own.attrs["missing"] = [cell for cell in rows.attrs.get("missing", []) if cell.init == init]
    return own
