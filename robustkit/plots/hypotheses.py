"""Which theorem covers which run: a table of hypotheses, and shades on figures that show theory."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

import numpy as np
import pandas
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

from .. import theory
from ..cell import Cell
from ..checks import check_choice
from ..initialization import layer_stds
from ..ledger.rows import MUCH_GREATER as MUCH
from ..ledger.rows import curve_name
from .style import record


def _start(cell: Cell) -> str:
    return curve_name(cell.init, cell.power) + (f" {cell.gain:g}" if cell.gain else "")


def _scale(c: Cell) -> float:
    betas = layer_stds(c.init, width=c.width, depth=c.depth, d_in=c.d_in, d_out=c.d_out, power=c.power, gain=c.gain)
    return theory.theorem2(width=c.width, depth=c.depth, betas=betas, alpha=c.alpha)[0]


# A hypothesis with its place, the theorems that need it, whether a setting meets it, what it is otherwise.
HYPOTHESES = (
    ("Eq. (2): fully connected", "123", lambda c: c.model == "fcn", lambda c: c.model),
    ("Sec. 3: squared loss", "123", lambda c: c.loss == "squared", lambda c: "cross-entropy"),
    ("Assumption 1: norm 1", "123", lambda c: c.scaling == "unit", lambda c: f"{c.scaling} scaling"),
    ("Sec. 4.1: lazy, as Table 1", "1", lambda c: c.init != "power", lambda c: f"{_start(c)} start"),
    ("Theorems 1 and 3: alpha = 1", "13", lambda c: c.alpha == 1, lambda c: f"alpha = {c.alpha:g}"),
    ("Theorems 2 and 3: one output", "23", lambda c: c.d_out == 1, lambda c: f"{c.d_out} outputs"),
    (f"Theorem 2: alpha >= {MUCH} (m^1.5 sum beta)^L", "2", lambda c: _scale(c) <= 1 / MUCH, lambda c: "big start"),
    (f"Theorem 2: m >= {MUCH} d", "2", lambda c: c.width >= MUCH * c.d_in, lambda c: f"m < {MUCH} d"),
    ("Theorem 3: two layers", "3", lambda c: c.depth == 2, lambda c: f"{c.depth} layers"),
    ("Theorem 3: beta = m^-c, c >= 1.5", "3", lambda c: (c.power or 0) >= 1.5, lambda c: f"{_start(c)} start"),
    (f"Theorem 3: m >= {MUCH} n^2", "3", lambda c: c.width >= MUCH * c.train_points**2, lambda c: f"m < {MUCH} n^2"),
    ("Theorem 3: gradient descent", "3", lambda c: c.steps_per_epoch == 1 and not c.momentum, lambda c: "SGD"),
)
# What a setting alone does not decide, and where to look.
OPEN = {
    "Assumption 2: training risk of order 1/n": lambda c: "see train_loss",
    "Theorem 3: small steps, as the proof's flow": lambda c: f"lr {c.learning_rate(0):g}",
    "Theorem 3: early time": lambda c: "limit not named",
}


def _lacking(cell: Cell, theorem: int) -> list[str]:
    return [other(cell) for _, needed, meets, other in HYPOTHESES if str(theorem) in needed and not meets(cell)]


def hypothesis_card(cells: Sequence[Cell]) -> pandas.DataFrame:
    """Which theorem covers which kind of run: a row per theorem, then a row per hypothesis; a column per kind.

    The NeurIPS paper assumes: norm 1 in Assumption 1 (Sec. 3), the squared loss in the risk of Sec. 3, hence
    cross-entropy is outside all three theorems; Theorem 1 (Sec. 4.1, Eq. 3) alpha = 1 and lazy training, which the
    Remark to Theorem 2 says of He, LeCun and NTK (a gain keeps their order in m); Theorem 2 (Sec. 4.2) o = 1,
    Assumptions 1 and 2, alpha >> (m^(3/2) sum beta)^L, m >> d, large m; Theorem 3 (Sec. 4.3, Eq. 4) two layers,
    one output, gradient descent, alpha ~ 1, beta ~ m^-c with c >= 1.5, m >> n^2, a time below an unnamed constant.
    A theorem's own row leaves out what only the finished run can show.
    """
    kinds: dict[str, list[Cell]] = {}
    for cell in cells:
        words = [] if cell.model == "fcn" else [cell.model]
        words += [_start(cell), "L = 2" if cell.depth == 2 else "L > 2", cell.dataset, cell.scaling]
        words += [cell.loss.replace("_", "-"), f"o = {cell.d_out}", f"n = {cell.train_points}"]
        kinds.setdefault(", ".join(words), []).append(cell)
    tests = {f"Theorem {k}": lambda cell, k=k: not _lacking(cell, k) for k in (1, 2, 3)}
    tests |= {name: meets for name, _, meets, _ in HYPOTHESES}
    card = pandas.DataFrame(index=pandas.Index([*tests, *OPEN], name="hypothesis"))
    for kind, members in kinds.items():
        entries = {name: _entry(members, meets) for name, meets in tests.items()}
        entries |= {name: ", ".join(dict.fromkeys(map(says, members))) for name, says in OPEN.items()}
        card[kind] = pandas.Series(entries)
    return card


def _entry(cells: list[Cell], meets: Callable) -> str:
    failing = {cell.width for cell in cells if not meets(cell)}
    met = sorted({cell.width for cell in cells} - failing)
    if not (met and failing):
        return "met" if met else "not met"
    return f"met from m = {met[0]}" if met[0] > max(failing) else f"met at m = {', '.join(map(str, met))}"


def shade_outside(ax, rows: pandas.DataFrame, theorem: int, *, x: str = "width", note: bool = True):
    """Shade where no row meets the hypotheses of Theorem 1, 2 or 3, and (`note`) say in a free place what they lack.

    Call it last, when all is drawn. x: the column on the axis. Raises InputError on another theorem.
    """
    check_choice("theorem", theorem, (1, 2, 3))
    if rows.empty:
        return ax
    lacking: dict = {}
    for line in rows[list(Cell.__dataclass_fields__)].to_dict("records"):
        cell = Cell(**{name: None if isinstance(v, float) and np.isnan(v) else v for name, v in line.items()})
        lacking.setdefault(line[x], []).append(_lacking(cell, theorem))
    places = np.array(sorted(lacking))
    outside = np.array([all(lacking[place]) for place in places])
    lists = [words for place in places[outside] for words in lacking[place]]
    every = list(dict.fromkeys(word for words in lists for word in words))
    reasons = [word for word in every if all(word in words for words in lists)] or every
    record(ax, {x: places, "lacks": np.where(outside, ", ".join(reasons), "")}, f"outside Theorem {theorem}")
    if not outside.any():
        return ax
    words = ", ".join(word.replace(" ", "\xa0") for word in reasons[:3])  # a reason is not broken over lines
    words += f" and\xa0{len(reasons) - 3}\xa0more" if len(reasons) > 3 else ""
    words = f"outside the hypotheses of Theorem {theorem}: {words}".replace("^2", "²")
    if outside.all():
        ax.set_facecolor("0.97")
    else:
        limits, scale = ax.get_xlim(), ax.xaxis.get_transform()
        at = scale.transform(places.astype(float))
        edges = [limits[0], *scale.inverted().transform((at[:-1] + at[1:]) / 2), limits[1]]
        style = {"facecolor": "0.97", "edgecolor": "0.88", "hatch": "///", "linewidth": 0}
        style |= {"label": "_outside", "transform": ax.get_xaxis_transform()}
        for i in np.flatnonzero(outside):  # polygons, on which the words may stand
            ax.fill(np.repeat(edges[i : i + 2], 2), [0, 1, 1, 0], zorder=0, **style)
        ax.set_xlim(limits)
        words = f"hatched: {words}"
    if note:  # a legend without lines, which Matplotlib puts where it covers least
        style = {"fontsize": 6, "labelcolor": "0.3", "handlelength": 0, "handletextpad": 0, "borderpad": 0.2}
        style |= {"frameon": True, "framealpha": 0.9, "facecolor": "0.97", "edgecolor": "none"}
        lines = textwrap.fill(words, 48, break_on_hyphens=False)
        ax.add_artist(Legend(ax, [Line2D([], [], alpha=0)], [lines], loc="best", **style))
    return ax
