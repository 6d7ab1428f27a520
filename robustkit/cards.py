"""The ledger and the hypotheses as pictures: what holds in which reading, and which theorem covers which run."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Sequence

import numpy as np
import pandas
import seaborn
from matplotlib.lines import Line2D
from matplotlib.path import Path

from . import theory
from .checks import InputError, check_choice
from .config import Cell
from .criteria import curve_name
from .initialization import layer_stds
from .plots import _record

# Verdict -> colour of its square, symbol, and colour of the symbol. The symbols tell the verdicts apart in grey too.
HUES = seaborn.color_palette("colorblind")
TICK = Path([(-0.6, 0.0), (-0.2, -0.5), (0.6, 0.6)])
HALF = Path([(-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (-0.5, -0.5)], closed=True)
STYLE = {
    "reproduced": (HUES[0], TICK, "white"),
    "partly": (HUES[9], HALF, "black"),
    "not reproduced": (HUES[3], "x", "white"),
    "inconclusive": (HUES[8], "$?$", "black"),
    "outside hypotheses": ("0.85", "o", "black"),
    "measured": (HUES[4], "d", "black"),
    "missing": ("white", "_", "0.4"),
}
WORDS = {"cross_entropy": "cross-entropy", "milestones=()": "constant rate", "target=parity": "one output"}
WORDS |= {"n_train=": "n = ", "batch_size=": "batch ", "stop_loss=": "to loss "}
HEADLINES = 10
MUCH = 10  # "much larger" read as ten times, our choice: the theorems name no factor


def ledger_picture(table: pandas.DataFrame, ax):
    """The ledger at a glance: a row a claim, its main verdict, then a small square for each other reading.

    "Holds in k of n" counts the readings with a verdict of reproduced among those that are decided; the others
    are open. A reading with a
    note in readings_notes (curves missing, networks at their start) is drawn small and not counted.
    table: as from claims.ledger, the ten headline claims first. The height of the figure sets the size of the rows.
    Raises InputError on an unknown verdict or readings_detail that is not the JSON of an object.
    """
    lines = table.to_dict("records")
    found = [_readings(line) for line in lines]
    most = max([1, *(len(verdicts) for verdicts in found)])
    places, side, squares = *_rows(ax, lines, found, HEADLINES, 64, most + 1), []
    for y, line, verdicts in zip(places, lines, found, strict=True):
        squares.append((0, y, side, line["verdict"], line["id"], next(iter(verdicts), ""), True))
        for i, (name, other) in enumerate(list(verdicts.items())[1:]):
            size = (0.45 if name in _notes(line) else 0.8) * side
            squares.append((1.2 + i, y, size, other, line["id"], name, False))
    _squares(ax, squares)
    for x, word, side_of in ((0.4, "main", "right"), (0.9, "other readings", "left"))[: min(most, 2)]:
        ax.text(x, -0.8, word, ha=side_of, va="center", fontsize=6, color="0.4")
    ax.set(xlim=(-0.7, max(most, 4) + 0.2), xticks=[])
    return ax


def specification_curve(table: pandas.DataFrame, ax, ids: Sequence[str] | None = None):
    """Claims against readings: the verdict that each reading of the paper's choices gives, blank where not tried.

    The first column is the main reading; another is named by what it does otherwise. In each row, the reading that
    gives the claim its verdict has a black frame.
    ids: the claims to show, in this order (InputError on an unknown one); None for all that have readings.
    """
    known = {line["id"]: line for line in table.to_dict("records")}
    for name in () if ids is None else ids:
        check_choice("ids", name, known)
    lines = [known[name] for name in ids] if ids is not None else [v for v in known.values() if _readings(v)]
    heads = 0 if ids is not None else sum(line["id"] in list(known)[:HEADLINES] for line in lines)
    found = [_readings(line) for line in lines]
    mains = [next(iter(verdicts)) for verdicts in found if verdicts]
    tried = [name for verdicts in found for name in verdicts]
    columns = sorted(dict.fromkeys(tried), key=lambda r: (r != max(mains, key=mains.count), -tried.count(r)))
    places, side, squares = *_rows(ax, lines, found, heads, 44, len(columns) + 1), []
    for y, line, verdicts in zip(places, lines, found, strict=True):
        ax.axhline(y, color="0.93", linewidth=0.6, zorder=0)
        for i, (name, verdict) in enumerate(verdicts.items()):
            size = (0.55 if name in _notes(line) else 1) * side
            squares.append((columns.index(name), y, size, verdict, line["id"], name, i == 0))
    _squares(ax, squares)
    ax.set(xlim=(-0.7, len(columns) + 0.3), xticks=range(len(columns)))
    ax.figure.draw_without_rendering()  # how many lines of a label fit side by side is known when the layout is
    names, pitch = _short_names(columns), 72 * ax.bbox.width / ax.figure.dpi / (len(columns) + 1)
    wide = max(24, max(map(len, names), default=0) // max(1, int(pitch / 7.5)) + 8)
    names = [textwrap.fill(name, wide, break_on_hyphens=False) for name in names]
    ax.set_xticklabels(names, rotation=90, fontsize=6, linespacing=0.95)
    return ax


def _readings(line: dict) -> dict[str, str]:
    """{reading: verdict} of one claim, the main one first; never a verdict where the data are digits."""
    text = line.get("readings_detail")
    try:
        verdicts = dict(json.loads(text)) if isinstance(text, str) and text.strip() else {}
    except (ValueError, TypeError) as error:
        raise InputError(f"readings_detail is {text!r}, but must be JSON, {{reading: verdict}}") from error
    if "digits" in line["verdict"]:
        return dict.fromkeys(verdicts, line["verdict"])
    for verdict in (line["verdict"], *verdicts.values()):
        check_choice(f"the verdict of {line['id']}", verdict, STYLE)
    return verdicts


def _short_names(columns: Sequence[str]) -> list[str]:
    """The first reading by what is not common to all, the others by what differs from the first."""
    words = [re.split(r", (?![^(]*\))", column) for column in columns]  # not at the commas of milestones=(0.5, 0.7)
    own = [[word for word in reading if not all(word in other for other in words)] for reading in words]
    short = own[:1] + [[word for word in reading if word not in own[0]] for reading in own[1:]]
    distinct = [names for names in (short, own) if all(names) and len({*map(tuple, names)}) == len(names)]
    names = [", ".join(reading) for reading in (*distinct, words)[0]]
    for word, plain in WORDS.items():
        names = [name.replace(word, plain) for name in names]
    return [name.replace(" ", "\xa0").replace(",\xa0", ", ") for name in names]  # lines end at commas alone


def _rows(ax, lines: list[dict], found: list[dict], heads: int, cut: int, columns: int) -> tuple[list[float], float]:
    """Label each row, count its readings at the right, rule off the headlines; heights of rows, side of a square."""
    gap = 0.7 if 0 < heads < len(lines) else 0.0
    places = [i + gap * (i >= heads) for i in range(len(lines))]
    side = min(9.0, *(0.62 * 72 * ax.bbox.size / ax.figure.dpi / (columns + 10, len(lines) + 2)))
    font = {"fontsize": max(4.5, min(7, side))}
    labels = [f"{textwrap.shorten(line['claim'], cut, placeholder=' …')}   {line['id']}" for line in lines]
    labels = [label.replace(", …", " …").replace("$", r"\$") for label in labels]
    ax.set_yticks(places, labels, **font)
    ax.set_ylim(len(lines) + gap - 0.4, -1.2)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    font |= {"transform": ax.get_yaxis_transform(), "va": "center_baseline", "color": "0.3"}
    for y, line, verdicts in zip(places, lines, found, strict=True):
        counted = [verdict for name, verdict in verdicts.items() if name not in _notes(line)]
        ax.text(1.01, y, _count(counted), **font)  # outside the axes, where the layout makes room for it
    if gap:
        ax.axhline(heads - 0.5 + gap / 2, color="0.4", linewidth=0.8, zorder=0)
    return places, side


def _count(verdicts: list[str]) -> str:
    """In how many of the readings that decide anything a claim holds, and how many leave it open."""
    decided = [v for v in verdicts if v in ("reproduced", "partly", "not reproduced")]
    words = [f"holds in {decided.count('reproduced')} of {len(decided)}"] if decided else []
    words += [f"partly in {decided.count('partly')}"] if "partly" in decided else []
    words += [f"{verdicts.count('inconclusive')} open"] if "inconclusive" in verdicts else []
    return ", ".join(words)


def _notes(line: dict) -> dict[str, str]:
    """{reading: why it is not counted}."""
    text = line.get("readings_notes")
    return json.loads(text) if isinstance(text, str) and text.strip() else {}


def _squares(ax, squares: list[tuple]) -> None:
    """Draw squares (x, y, side, verdict, id, reading, main) with their symbols, name them above, and record them."""
    for x, y, side, verdict, _, _, main in squares:
        for style in _marks(verdict, side, main):
            ax.plot([x], [y], **style, label="_square", clip_on=False)
    columns = ["x", "y", "side", "verdict", "id", "reading", "main"]
    _record(ax, pandas.DataFrame(squares, columns=columns).assign(quantity="verdict")[["quantity", *columns[3:]]])
    seen = {verdict for _, _, _, verdict, *_ in squares}
    words = [word for word in STYLE if word in seen] + ["digits: no verdict"] * bool(seen - {*STYLE})
    handles = [tuple(Line2D([], [], **style) for style in _marks(word, 7, False)) for word in words]
    style = {"fontsize": 6.5, "handlelength": 1, "columnspacing": 1.2, "handletextpad": 0.4, "frameon": False}
    ax.legend(
        handles, words, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(words) or 1, borderaxespad=0.2, **style
    )


def _marks(verdict: str, side: float, main: bool) -> list[dict]:
    """The square and, if there is a verdict, its symbol: keywords of a line with one point."""
    colour, symbol, ink = STYLE.get(verdict, ("0.75", "", "none"))
    edge = {"markeredgecolor": "black" if main else "0.5", "markeredgewidth": 1.0 if main else 0.5}
    square = {"marker": "s", "markersize": side, "color": colour, "linestyle": "none"} | edge
    edge = {"markeredgecolor": ink, "markeredgewidth": 0.5 if symbol in ("$?$", HALF) else 0.15 * side}
    fill = "none" if symbol in ("o", TICK) else ink
    return [square, {"marker": symbol, "markersize": 0.55 * side, "color": fill, "linestyle": "none"} | edge]


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
    "Theorem 3: small steps, as the proof's flow": lambda c: f"rate {c.rate(0):g}",
    "Theorem 3: early time": lambda c: "limit not named",
}


def _lacking(cell: Cell, theorem: int) -> list[str]:
    return [other(cell) for _, needed, meets, other in HYPOTHESES if str(theorem) in needed and not meets(cell)]


def hypothesis_card(cells: Sequence[Cell]) -> pandas.DataFrame:
    """Which theorem covers which kind of run: a row a theorem, then a row a hypothesis; a column a kind.

    The NeurIPS paper assumes: norm 1 in Assumption 1 (Sec. 3), the squared loss in the risk of Sec. 3, hence
    cross-entropy is outside all three theorems; Theorem 1 (Sec. 4.1, Eq. 3) alpha = 1 and lazy training, which the
    Remark to Theorem 2 says of He, LeCun and NTK (a gain keeps their order in m); Theorem 2 (Sec. 4.2) o = 1,
    Assumptions 1 and 2, alpha >> (m^(3/2) sum beta)^L, m >> d, large m; Theorem 3 (Sec. 4.3, Eq. 4) two layers,
    one output, gradient descent, alpha ~ 1, beta ~ m^-c with c >= 1.5, m >> n^2, a time below an unnamed constant.
    A theorem's own row leaves out what only the finished run can show. Raises InputError on anything but a Cell.
    """
    kinds: dict[str, list[Cell]] = {}
    for cell in cells:
        if not isinstance(cell, Cell):
            raise InputError(f"cells holds {cell!r}, but must hold robustkit.Cell alone")
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
    """Shade where no row meets the hypotheses of Theorem 1, 2 or 3, and (`note`) say in a free corner what they lack.

    Call it last, when all is drawn. x: the column on the axis. Raises InputError on another theorem.
    """
    check_choice("theorem", theorem, (1, 2, 3))
    if rows.empty:
        return ax
    found: dict = {}
    for line in rows[list(Cell.__dataclass_fields__)].to_dict("records"):
        cell = Cell(**{name: None if isinstance(v, float) and np.isnan(v) else v for name, v in line.items()})
        found.setdefault(line[x], []).append(_lacking(cell, theorem))
    places = np.array(sorted(found))
    outside = np.array([all(found[place]) for place in places])
    lists = [words for place in places[outside] for words in found[place]]
    every = list(dict.fromkeys(word for words in lists for word in words))
    reasons = [word for word in every if all(word in words for words in lists)] or every
    table = {x: places, "lacks": np.where(outside, ", ".join(reasons), "")}
    _record(ax, pandas.DataFrame(table).assign(quantity=f"outside Theorem {theorem}"))
    if not outside.any():
        return ax
    words = ", ".join(word.replace(" ", "\xa0") for word in reasons[:3])  # a reason is not broken over lines
    words += f" and\xa0{len(reasons) - 3}\xa0more" if len(reasons) > 3 else ""
    words = f"outside the hypotheses of Theorem {theorem}: {words}"
    if outside.all():
        ax.set_facecolor("0.97")
    else:
        limits, scale = ax.get_xlim(), ax.xaxis.get_transform()
        at = scale.transform(places.astype(float))
        edges = [limits[0], *scale.inverted().transform((at[:-1] + at[1:]) / 2), limits[1]]
        style = {"facecolor": "0.97", "edgecolor": "0.88", "hatch": "///", "linewidth": 0, "label": "_outside"}
        for i in np.flatnonzero(outside):
            ax.axvspan(edges[i], edges[i + 1], zorder=0, **style)
        ax.set_xlim(limits)
        words = f"hatched: {words}"
    return _in_a_free_corner(ax, words) if note else ax


def _in_a_free_corner(ax, words: str):
    """Write where no curve or band passes; if every corner is taken, make room above the curves."""
    lines = textwrap.fill(words, 48, break_on_hyphens=False).replace("^2", "²")
    back = {"facecolor": "0.97", "linewidth": 0, "pad": 0.5}
    text = ax.text(0, 0, lines, transform=ax.transAxes, fontsize=6, color="0.3", label="_outside", bbox=back)
    ax.figure.draw_without_rendering()  # the layout must be known before the text is measured
    size = text.get_window_extent().transformed(ax.transAxes.inverted()).size
    paths = [line.get_transform().transform_path(line.get_path()) for line in ax.lines]
    paths += [c.get_transform().transform_path(path) for c in ax.collections for path in c.get_paths()]
    taken = [path.interpolated(30).vertices if len(path.vertices) > 1 else path.vertices for path in paths]
    taken = ax.transAxes.inverted().transform(np.concatenate([np.empty((0, 2)), *taken]))
    for across, up in ((0.02, 0.98), (0.98, 0.98), (0.02, 0.02), (0.98, 0.02)):
        low = np.array([across, up]) - size * (np.array([across, up]) > 0.5) - 0.02
        if not ((taken > low) & (taken < low + size + 0.04)).all(axis=1).any():
            break
    else:
        across, up, scale = 0.02, 0.98, ax.yaxis.get_transform()
        bottom, top = scale.transform(np.array(ax.get_ylim()))
        ax.set_ylim(top=scale.inverted().transform(bottom + (top - bottom) / (0.95 - min(0.45, size[1]))))
    text.set(x=across, y=up, ha="left" if across < 0.5 else "right", va="bottom" if up < 0.5 else "top")
    return ax
