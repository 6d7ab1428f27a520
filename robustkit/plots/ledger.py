"""Pictures of the ledger: claims by readings, and what the short schedule does to P.

The short schedule takes a tenth of the steps at ten times the learning rate.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Sequence

import numpy as np
import pandas
from matplotlib.lines import Line2D
from matplotlib.path import Path

from ..checks import check_choice
from ..ledger import proxy_schedule
from ..ledger.claims import HEADLINES, THEOREM_1_READING
from ..ledger.rows import in_words
from .style import HUES, label, legend, look, nothing, record, set_axes

# Verdict -> colour of its square, symbol, and colour of the symbol. The symbols tell the verdicts apart in grey too.
THEOREM_1 = ", ".join(THEOREM_1_READING)
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


def ledger_picture(table: pandas.DataFrame, ax):
    """The ledger at a glance: a row per claim, its main verdict, that under Theorem 1's hypotheses, other readings.

    "Holds in k of n" counts the readings with a verdict of reproduced among those that are decided; the others
    are open. A reading with a note in readings_notes (curves missing, networks at their start) is drawn small and not
    counted. table: as from verdicts.ledger, the ten headline claims first. The figure's height sets that of the rows.
    Raises InputError on an unknown verdict.
    """
    lines = table.to_dict("records")
    readings = [_readings(line) or {"": line["verdict"]} for line in lines]
    most = max([1, *map(len, readings)])

    def place(i: int, names: list[str]) -> float:  # a column for the reading under Theorem 1's hypotheses
        second = names[1:2] == [THEOREM_1]
        return 1.2 * i if i == 0 or (i == 1 and second) else i + (0.4 if second else 1.4)

    _squares(ax, lines, readings, *_rows(ax, lines, len(HEADLINES), 64, most + 2), place)
    heads = ((0.4, "figure", "right"), (0.7, "Thm. 1", "left"), (2.3, "other readings", "left"))
    for x, word, side_of in heads[: 1 if most == 1 else 3]:
        ax.text(x, -0.8, word, ha=side_of, va="center", fontsize=6, color="0.4")
    ax.set(xlim=(-0.7, max(most, 4) + 1.4), xticks=[])
    return ax


def specification_curve(table: pandas.DataFrame, ax, ids: Sequence[str] | None = None):
    """Claims against readings: the verdict that each reading of the paper's choices gives, blank where not tried.

    The first column is the main reading; another is named by its differences from it. In each row, the reading that
    gives the claim its verdict has a black frame.
    ids: the claims to show, in this order (InputError on an unknown one); None for all that have readings.
    """
    known = {line["id"]: line for line in table.to_dict("records")}
    for name in () if ids is None else ids:
        check_choice("ids", name, known)
    lines = [known[name] for name in ids] if ids is not None else [v for v in known.values() if _readings(v)]
    readings = [_readings(line) for line in lines]
    mains = [next(iter(verdicts)) for verdicts in readings if verdicts]
    tried = [name for verdicts in readings for name in verdicts]
    columns = sorted(dict.fromkeys(tried), key=lambda r: (r != max(mains, key=mains.count), -tried.count(r)))
    places, side = _rows(ax, lines, 0, 44, len(columns) + 1)
    ax.hlines(places, 0, 1, transform=ax.get_yaxis_transform(), color="0.93", linewidth=0.6, zorder=0)
    _squares(ax, lines, readings, places, side, lambda i, names: columns.index(names[i]))
    ax.set(xlim=(-0.7, len(columns) + 0.3), xticks=range(len(columns)))
    ax.figure.draw_without_rendering()  # the layout decides where a label may be broken
    names, pitch = _short_names(columns), 72 * ax.bbox.width / ax.figure.dpi / (len(columns) + 1)
    wide = max(24, max(map(len, names), default=0) // max(1, int(pitch / 7.5)) + 8)
    names = ["Theorem 1's hypotheses" if c == THEOREM_1 else n for c, n in zip(columns, names, strict=True)]
    names = [textwrap.fill(name, wide, break_on_hyphens=False) for name in names]
    ax.set_xticklabels(names, rotation=90, fontsize=6, linespacing=0.95)
    return ax


def _readings(line: dict) -> dict[str, str]:
    """{reading: verdict} of one claim, the main one first; never a verdict where the data are digits."""
    verdicts = json.loads(line.get("readings_detail") or "{}")
    if "digits" in line["verdict"]:
        return dict.fromkeys(verdicts, line["verdict"])
    for verdict in (line["verdict"], *verdicts.values()):
        check_choice(f"the verdict of {line['id']}", verdict, STYLE)
    return verdicts


def _notes(line: dict) -> dict[str, str]:
    """{reading: why it is not counted}."""
    return json.loads(line.get("readings_notes") or "{}")


def _short_names(columns: Sequence[str]) -> list[str]:
    """The first reading by what is not common to all, the others by what differs from the first."""
    words = [re.split(r", (?![^(]*\))", column) for column in columns]  # not at the commas of milestones=(0.5, 0.7)
    # Left out of a name: that a batch of n points is full, and the number of test points.
    implied = [("batch_size=", "points=") if "n_train=" in column else () for column in columns]
    words = [[w for w in reading if not w.startswith(ends)] for reading, ends in zip(words, implied, strict=True)]
    own = [[word for word in reading if not all(word in other for other in words)] for reading in words]
    short = own[:1] + [[word for word in reading if word not in own[0]] for reading in own[1:]]
    distinct = [names for names in (short, own) if all(names) and len({*map(tuple, names)}) == len(names)]
    names = [in_words(", ".join(reading)) for reading in (*distinct, words)[0]]
    return [name.replace(" ", "\xa0").replace(",\xa0", ", ") for name in names]  # lines end at commas alone


def _rows(ax, lines: list[dict], heads: int, cut: int, columns: int) -> tuple[list[float], float]:
    """Label each row, count its readings at the right, rule off the headlines; heights of rows, side of a square."""
    gap = 0.7 if 0 < heads < len(lines) else 0.0
    places = [i + gap * (i >= heads) for i in range(len(lines))]
    side = min(9.0, *(0.62 * 72 * ax.bbox.size / ax.figure.dpi / (columns + 10, len(lines) + 2)))
    font = {"fontsize": max(4.5, min(7, side))}
    labels = [f"{textwrap.shorten(line['claim'], cut, placeholder=' …')}   {line['id']}" for line in lines]
    labels = [name.replace(", …", " …").replace("$", r"\$") for name in labels]
    ax.set_yticks(places, labels, **font)
    ax.set_ylim(len(lines) + gap - 0.4, -1.2)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    font |= {"transform": ax.get_yaxis_transform(), "va": "center_baseline", "color": "0.3"}
    for y, line in zip(places, lines, strict=True):
        ax.text(1.01, y, _count(line), **font)  # outside the axes, where the layout makes room for it
    if gap:
        ax.axhline(heads - 0.5 + gap / 2, color="0.4", linewidth=0.8, zorder=0)
    return places, side


def _count(line: dict) -> str:
    """The number of readings in which a claim holds, of those that decide it, and of those that leave it open."""
    verdicts = [verdict for name, verdict in _readings(line).items() if name not in _notes(line)]
    decided = [v for v in verdicts if v in ("reproduced", "partly", "not reproduced")]
    words = [f"holds in {decided.count('reproduced')} of {len(decided)}"] if decided else []
    words += [f"partly in {decided.count('partly')}"] if "partly" in decided else []
    words += [f"{verdicts.count('inconclusive')} open"] if "inconclusive" in verdicts else []
    return ", ".join(words)


def _squares(ax, lines, readings, places, side: float, x_of: Callable[[int, list[str]], float]) -> None:
    """Draw and record a square with its symbol for each reading, the first with a frame; name the symbols above."""
    table = []
    for y, line, verdicts in zip(places, lines, readings, strict=True):
        for i, (name, verdict) in enumerate(verdicts.items()):
            size = side * (1 if i == 0 else 0.45 if name in _notes(line) else 0.8)
            for style in _marks(verdict, size, i == 0):
                ax.plot([x_of(i, list(verdicts))], [y], **style, label="_square", clip_on=False)
            table.append(("verdict", verdict, line["id"], name, i == 0))
    table = pandas.DataFrame(table, columns=["quantity", "verdict", "id", "reading", "main"])
    record(ax, table, "verdict")
    seen = set(table["verdict"])
    words = [word for word in STYLE if word in seen] + ["digits: no verdict"] * bool(seen - {*STYLE})
    handles = [tuple(Line2D([], [], **style) for style in _marks(word, 7, False)) for word in words]
    style = {"fontsize": 6.5, "handlelength": 1, "columnspacing": 1.2, "handletextpad": 0.4, "borderaxespad": 0.2}
    ax.legend(handles, words, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(words) or 1, **style)


def _marks(verdict: str, side: float, main: bool) -> list[dict]:
    """The square and, if there is a verdict, its symbol: keywords of a line with one point."""
    colour, symbol, ink = STYLE.get(verdict, ("0.75", "", "none"))
    edge = {"markeredgecolor": "black" if main else "0.5", "markeredgewidth": 1.0 if main else 0.5}
    square = {"marker": "s", "markersize": side, "color": colour, "linestyle": "none"} | edge
    edge = {"markeredgecolor": ink, "markeredgewidth": 0.5 if symbol in ("$?$", HALF) else 0.15 * side}
    fill = "none" if symbol in ("o", TICK) else ink
    return [square, {"marker": symbol, "markersize": 0.55 * side, "color": fill, "linestyle": "none"} | edge]


def proxy_ratios(rows: pandas.DataFrame, axes) -> pandas.DataFrame:
    """P under the short schedule over P under the paper's; returns what is drawn, as from `proxy_schedule.pairs`.

    Three axes: raw pixels under He and under LeCun against width, then each other kind on a line of its own; colours
    are depths. A filled dot has moved by no more than the seeds' spread, a ring by more; bars are 95 % intervals.
    """
    table = proxy_schedule.pairs(rows)
    kinds = [", ".join([line.reading[1], *line.reading[4:], label("init", line.init)]) for line in table.itertuples()]
    table = table.assign(kind=[in_words(kind) for kind in kinds], moved=table["moved"].astype(bool))
    parts = {kind: table[table["kind"] == kind] for kind in ("raw, He", "raw, LeCun")}
    others = table[~table["kind"].isin(parts)]
    kinds, ratio = sorted(others["kind"].unique()), "$P$, short over full schedule"
    ends = min(0.9, 0.98 * table["low"].min()), max(1.1, table["high"].max())
    for ax, (name, part) in zip(axes, parts.items(), strict=False):
        _ratios(ax, part, "yerr", part["width"], part["ratio"])
        set_axes(ax, "width", "", part["width"], log=False)
        ax.axhline(1, color="0.6", linewidth=0.8, zorder=0)
        ax.set(ylim=ends, ylabel=ratio)
        ax.set_title(name, pad=24)  # above the legend
    _ratios(axes[2], others, "xerr", others["ratio"], others["kind"].map(kinds.index) + (others["depth"] - 6) / 20)
    axes[2].axvline(1, color="0.6", linewidth=0.8, zorder=0)
    axes[2].set(xlim=ends, xlabel=ratio)
    axes[2].set_title("the other kinds", pad=24)
    axes[2].set_yticks(range(len(kinds)), kinds, fontsize=7)
    axes[2].invert_yaxis()
    return table.drop(columns="kind").assign(reading=[", ".join(reading) for reading in table["reading"]])


def _ratios(ax, part: pandas.DataFrame, bars: str, x: pandas.Series, y: pandas.Series):
    for depth in sorted(part["depth"].unique()):
        ax.plot([], [], "o", color=look("depth", depth)["color"], markersize=4, label=label("depth", depth))
    ax.plot([], [], "o", color="0.4", markerfacecolor="white", markersize=4, label="beyond the seeds' spread")
    for (depth, moved), some in part.groupby(["depth", "moved"]):
        colour, at = look("depth", depth)["color"], some.index
        error = np.abs(some[["low", "high"]].to_numpy(float).T - some["ratio"].to_numpy(float))
        style = {"color": colour, "markerfacecolor": "white" if moved else colour, "fmt": "o", "markersize": 4}
        ax.errorbar(x[at], y[at], **{bars: error}, elinewidth=0.8, label="_", **style)
    record(ax, part.drop(columns=["reading", "ratio"]).assign(mean=part["ratio"]), "P, short over full schedule")
    return legend(ax) if len(part) else nothing(ax)
