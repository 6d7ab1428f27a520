"""For a reader at the keyboard: sliders over the printed bounds on MNIST, and a network of one's own among others."""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace

import numpy as np
import pandas

from .. import theory
from ..cell import Cell
from ..checks import InputError, check_choice
from ..data import missing_mnist_files
from ..datasets import dataset_info
from ..files import data_folder
from ..profiles import SETTINGS, SHORT, grid
from ..sweep import store, train_missing
from .curves import against
from .output import caption
from .style import LABELS, finish, label, legend, panels

WIDTHS = np.unique(np.geomspace(4, 2**16, 120).round().astype(int))
MNIST = {"d_in": math.prod(dataset_info("mnist").shape), "d_out": dataset_info("mnist").classes}


def sliders(draw: Callable[..., None], start: dict, **choices: Sequence) -> None:
    """Call draw(**chosen) under a slider for each of `choices`, from the values in `start`.

    Where nobody is there to move a slider (in a report) or ipywidgets is not installed, the picture at `start` is
    drawn alone.
    """
    if train_missing.reporting() or not importlib.util.find_spec("ipywidgets"):
        return draw(**start)
    from ipywidgets import SelectionSlider, interact

    handles = {n: SelectionSlider(options=v, value=start[n], description=n) for n, v in choices.items()}
    interact(draw, **handles)


def _lines(title: str, x: str, at, lines: dict[str, tuple], ylabel: str = r"$P/\epsilon$"):
    """Axes with {label: (values, format of the line)} against widths or depths."""
    _, (ax,) = panels(1, width=5, height=3)
    for name, (values, style) in lines.items():
        ax.plot(at, values, style, linewidth=1, label=name)
    ax.set(xscale="log" if x == "width" else "linear", yscale="log", xlabel=LABELS[x], ylabel=ylabel, title=title)
    ax.legend(fontsize=7)
    return ax


def theorem1_in_width(init: str, depth: int) -> None:
    """Theorem 1 [N Eq. 3], its two terms, and the exact initial P against width; the vertical line is m = L^3/2."""
    shape = {"depth": depth, **MNIST}
    first, second = np.transpose([theory.theorem1_terms(init, width=m, version="neurips", **shape) for m in WIDTHS])
    exact = [theory.stability_at_init(init, width=m, **shape) for m in WIDTHS]
    lines = {"the bound": (first + second, "k-"), "its first term": (first, "k--"), "its second term": (second, "k:")}
    lines["exact at initialisation"] = exact, "C7-"
    ax = _lines(f"Theorem 1, {label('init', init)}, $L$ = {depth}", "width", WIDTHS, lines)
    ax.axvline(theory.peak_width(depth), color="0.8", linewidth=0.8, zorder=0)
    ax.set_ylim(min(exact) / 3, (first + second).max() * 3)


def table1_in_depth(init: str, width: int) -> None:
    """Table 1 of both versions and the exact initial P against depth."""
    shape, depths = {"width": width, **MNIST}, range(2, 41)
    lines = {}
    for version, name, style in (("neurips", "NeurIPS", "k--"), ("workshop", "workshop", "k:")):
        lines[name] = [theory.table1(init, depth=L, version=version, **shape) for L in depths], style
    lines["exact at initialisation"] = [theory.stability_at_init(init, depth=L, **shape) for L in depths], "C7-"
    _lines(f"Table 1, {label('init', init)}, $m$ = {width}", "depth", depths, lines)


def theorem3_in_width(n: int, c: float) -> None:
    """Theorem 3 [Eq. 4], each of its two terms alone, and the rate m^(1-2c) that can be proved, against width."""
    m = WIDTHS.astype(float)
    whole = np.array([theory.theorem3(n=n, width=int(width), power=c) for width in WIDTHS])
    second = np.array([theory.theorem3_remark(n=n, width=int(width), power=c) for width in WIDTHS])
    lines = {"Eq. (4)": (whole, "k-"), "its first term": (whole - second, "k--")}
    lines["its second term, the Remark's"] = second, "k:"
    lines["$m^{1-2c}$"] = whole[0] * (m / m[0]) ** (1 - 2 * c), "k-."
    title = f"Theorem 3, $n$ = {n}, $c$ = {c:g}; grey: $m < 10 n^2$"
    ax = _lines(title, "width", m, lines, r"$P/\epsilon$, up to constants")
    ax.axvspan(m[0], min(10 * n**2, m[-1]), color="0.94", zorder=0)


# ---------------------------------------------------------------------------------------------- your turn


def your_turn(dataset: str = "digits", *, among: dict[str, Sequence], **mine) -> pandas.DataFrame:
    """Train one network, described by fields of a Cell, and return its row among those of others; `yours` marks it.

    The others differ from it in the fields of `among` alone. On digits they are trained as well, at the values in
    `among`. On MNIST, under the short schedule (a tenth of the steps at ten times the learning rate), they are the
    rows that the store has. Runs that the store has are not repeated; a report shows these alone.
    Raises InputError on a bad field, and where MNIST's files are not there: nothing is downloaded.
    """
    check_choice("dataset", dataset, ("digits", "mnist"))
    if dataset == "mnist":
        if missing_mnist_files():
            folder = data_folder() / "MNIST" / "raw"
            words = f"dataset is 'mnist', but its files are not in {folder} and nothing is downloaded here: "
            raise InputError(f"{words}`python -m robustkit run laptop` fetches them, and 'digits' needs none")
        own = replace(Cell(width=16, depth=2, **SETTINGS["laptop"] | SHORT), **mine)
        others = _stored(own, tuple(among))
    else:
        own = replace(grid("W6" if mine.get("model") == "cnn" else "N4a", "smoke")[0], **mine)
        choices = itertools.product(*among.values())
        others = [replace(own, **dict(zip(among, values, strict=True))) for values in choices]
    rows = train_missing.run(list(dict.fromkeys([own, *others])), device="cpu")
    rows = rows.assign(yours=rows["key"] == own.key)
    rows.attrs["among"] = tuple(among)
    return rows


def _stored(own: Cell, free: Sequence[str]) -> list[Cell]:
    """The finished runs in the store that differ from a cell in the fields `free` alone."""
    rows = [row for row in store.load_rows() if row["status"] != "failed" and row["cell"]["dataset"] == own.dataset]
    cells = [Cell(**row["cell"]) for row in rows]
    fixed = [field.name for field in fields(Cell) if field.name not in free]
    return [cell for cell in cells if all(getattr(cell, name) == getattr(own, name) for name in fixed)]


def show_yours(rows: pandas.DataFrame, ax, *, x: str = "width", y: str = "stability", by: str = "depth", log=True):
    """Rows of `your_turn`: the others as curves, yours as a star, and below them what the picture shows."""
    mine, others = rows[rows["yours"]], rows[~rows["yours"]]
    against(others, ax, x=x, y=y, by=by, log=log)
    value = f": {mine[y].item():.4g}" if mine[y].notna().any() else ""
    ax.plot(mine[x], mine[y], "k*", markersize=9, zorder=5, label=f"yours{value}")
    ax.set_xticks(sorted(set(rows[x])))
    legend(ax)
    finish(ax.figure, _said(mine, others, rows.attrs["among"]))


def _said(mine: pandas.DataFrame, others: pandas.DataFrame, among: Sequence[str]) -> str:
    star, names = "Star: yours, which has no row yet: run this cell", ("power", "head", "width", "depth", "seed")
    for own in mine.to_dict("records"):
        values = [f"{name} {own[name]}" for name in names if pandas.notna(own[name])]
        star = f"Star: yours, {', '.join([label('init', own['init']), *values])}"
        star += "" if own["status"] == "ok" else f", which {own['status']} and is not drawn: {own['reason']}"
    free = " or ".join(filter(None, (", ".join(among[:-1]), among[-1])))
    shown = caption(others if len(others) else mine, "yours").partition(": ")[2]
    return f"{star}. {'The others differ' if len(others) else 'No row differs'} from it in {free} alone: {shown}"
