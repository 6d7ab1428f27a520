"""What a reader turns: sliders over the printed bounds (d = 784, o = 10), and a network of their own among others."""

from __future__ import annotations

import itertools
import os
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import fields, replace

import numpy as np
import pandas
from matplotlib.ticker import FixedLocator

from .. import theory
from ..cell import Cell
from ..checks import InputError, check_choice
from ..data import MNIST_FILES
from ..files import data_folder
from ..ledger.rows import NAMES
from ..profiles import SETTINGS, SHORT, grid
from ..sweep import store, train_missing
from . import curves
from .output import caption, panels

WIDTHS = np.unique(np.geomspace(4, 2**16, 120).round().astype(int))
MNIST = {"d_in": 784, "d_out": 10}


def sliders(draw: Callable[..., None], start: dict, **choices: Sequence) -> None:
    """Call draw(**chosen) under a slider for each of `choices`, from the values in `start`.

    Where nobody is there to move a slider (papermill sets ROBUSTKIT_STATIC) or ipywidgets is not installed, the
    picture at `start` is all there is.
    """
    try:
        import ipywidgets
    except ImportError:
        ipywidgets = None
    if ipywidgets is None or os.environ.get("ROBUSTKIT_STATIC"):
        draw(**start)
        return
    handles = {
        name: ipywidgets.SelectionSlider(options=values, value=start[name], description=name)
        for name, values in choices.items()
    }
    ipywidgets.interact(draw, **handles)


def _axes(title: str, **labels):
    _, (ax,) = panels(1, width=5, height=3)
    ax.set(**{"yscale": "log", "ylabel": r"$P/\epsilon$", "title": title} | labels)
    return ax


def theorem1_in_width(init: str, depth: int) -> None:
    """Theorem 1 [N Eq. 3], its two terms, and the exact initial P against width; the vertical line is m = L^3/2."""
    shape = {"depth": depth, **MNIST}
    pairs = [theory.theorem1_terms(init, width=m, version="neurips", **shape) for m in WIDTHS]
    first, second = np.transpose(pairs)
    whole = first + second
    ax = _axes(f"Theorem 1, {NAMES[init]}, $L$ = {depth}", xscale="log", xlabel="width $m$")
    ax.plot(WIDTHS, whole, "k-", label="the bound")
    ax.plot(WIDTHS, first, "k--", linewidth=1, label="its first term")
    ax.plot(WIDTHS, second, "k:", linewidth=1, label="its second term")
    exact = [theory.stability_at_init(init, width=m, **shape) for m in WIDTHS]
    ax.plot(WIDTHS, exact, color="0.6", label="exact at initialisation")
    ax.axvline(theory.peak_width(depth), color="0.8", linewidth=0.8, zorder=0)
    ax.set_ylim(min(exact) / 3, whole.max() * 3)
    ax.legend(fontsize=7)


def table1_in_depth(init: str, width: int) -> None:
    """Table 1 of both versions and the exact initial P against depth."""
    shape, depths = {"width": width, **MNIST}, range(2, 41)
    ax = _axes(f"Table 1, {NAMES[init]}, $m$ = {width}", xlabel="depth $L$")
    for version, name, dash in (("neurips", "NeurIPS", "k--"), ("workshop", "workshop", "k:")):
        ax.plot(depths, [theory.table1(init, depth=L, version=version, **shape) for L in depths], dash, label=name)
    exact = [theory.stability_at_init(init, depth=L, **shape) for L in depths]
    ax.plot(depths, exact, color="0.6", label="exact at initialisation")
    ax.legend(fontsize=7)


def theorem3_in_width(n: int, c: float) -> None:
    """Theorem 3 [Eq. 4], each of its two terms alone, and the rate m^(1-2c) that can be proved, against width."""
    m = WIDTHS.astype(float)
    whole = np.array([theory.theorem3(n=n, width=int(width), power=c) for width in WIDTHS])
    terms = np.array([(n**3 * m) ** -0.5, m ** (0.5 - c)])
    first, second = whole * terms / terms.sum(0)
    ax = _axes(f"Theorem 3, $n$ = {n}, $c$ = {c:g}; grey: $m < 10 n^2$", xscale="log", xlabel="width $m$")
    ax.plot(m, whole, "k-", label="Eq. (4)")
    ax.plot(m, first, "k--", linewidth=1, label="its first term")
    ax.plot(m, second, "k:", linewidth=1, label="its second term, the Remark's")
    ax.plot(m, whole[0] * (m / m[0]) ** (1 - 2 * c), "k-.", linewidth=1, label="$m^{1-2c}$")
    ax.axvspan(m[0], min(10 * n**2, m[-1]), color="0.94", zorder=0)
    ax.set_ylabel(r"$P/\epsilon$, up to constants")
    ax.legend(fontsize=7)


# ---------------------------------------------------------------------------------------------- your turn


def your_turn(dataset: str = "digits", *, among: dict[str, Sequence], **mine) -> pandas.DataFrame:
    """Train one network, described by fields of a Cell, and return its row among those of others; `yours` marks it.

    The others differ from it in the fields of `among` alone. On digits they are trained as well, at the values in
    `among`. On MNIST (a tenth of the steps at ten times the rate) they are the rows that the store has. What was
    trained before is read from the store.
    Raises InputError on a bad field, and where MNIST's files are not there: nothing is downloaded.
    """
    check_choice("dataset", dataset, ("digits", "mnist"))
    if dataset == "mnist":
        _check_mnist()
        start = Cell(width=16, depth=2, **SETTINGS["laptop"] | SHORT)
    else:
        start = grid("W6" if mine.get("model") == "cnn" else "N4a", "smoke")[0]
    own = replace(start, **mine)
    if dataset == "mnist":
        others = _stored(own, tuple(among))
    else:
        others = [
            replace(own, **dict(zip(among, values, strict=True))) for values in itertools.product(*among.values())
        ]
    rows = train_missing.run(list(dict.fromkeys([own, *others])), device="cpu")
    rows = rows.assign(yours=rows["key"] == own.key)
    rows.attrs["among"] = tuple(among)
    return rows


def _check_mnist() -> None:
    folder = data_folder() / "MNIST" / "raw"
    if not all((folder / name).exists() or (folder / f"{name}.gz").exists() for name in MNIST_FILES):
        raise InputError(
            f"dataset is 'mnist', but its files are not in {folder} and nothing is downloaded here: "
            "`python -m robustkit run laptop` fetches them, and 'digits' needs none"
        )


def _stored(own: Cell, free: Sequence[str]) -> list[Cell]:
    """The finished trainings in the store that differ from a cell in the fields `free` alone."""
    rows = [row for row in store.load_rows() if row["status"] != "failed" and row["cell"]["dataset"] == own.dataset]
    cells = [Cell(**row["cell"]) for row in rows]
    fixed = [field.name for field in fields(Cell) if field.name not in free]
    return [cell for cell in cells if all(getattr(cell, name) == getattr(own, name) for name in fixed)]


def show_yours(
    rows: pandas.DataFrame, ax, *, x: str = "width", y: str = "stability", by: str = "depth", log: bool = True
) -> None:
    """Rows of `your_turn`: the others as curves, yours as a star, and below them what the picture shows."""
    mine, others = rows[rows["yours"]], rows[~rows["yours"]]
    curves.against(others, ax, x=x, y=y, by=by, log=log)
    value = f": {mine[y].item():.4g}" if mine[y].notna().all() else ""
    ax.plot(mine[x], mine[y], "k*", markersize=9, zorder=5, label=f"yours{value}")
    ax.xaxis.set_major_locator(FixedLocator(sorted(set(rows[x]))))
    curves._legend(ax)
    lines = textwrap.wrap(_said(mine, others, rows.attrs["among"]), int(23 * ax.figure.get_figwidth()))
    ax.figure.supxlabel("\n".join(lines), fontsize=6, color="0.35")


def _said(mine: pandas.DataFrame, others: pandas.DataFrame, among: Sequence[str]) -> str:
    (own,) = mine.to_dict("records")
    values = [
        f"{name} {own[name]}" for name in ("power", "head", "width", "depth", "seed") if pandas.notna(own[name])
    ]
    star = f"Star: yours, {', '.join([NAMES[own['init']], *values])}"
    star += "" if own["status"] == "ok" else f", which {own['status']} and is not drawn: {own['reason']}"
    free = " or ".join(filter(None, (", ".join(among[:-1]), among[-1])))
    what = caption(others if len(others) else mine, "yours").partition(": ")[2]
    return f"{star}. {'The others differ' if len(others) else 'No row differs'} from it in {free} alone: {what}"
