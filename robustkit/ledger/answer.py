"""The answer in five lines, written from rows: for the README and the report."""

from __future__ import annotations

from pathlib import Path

import pandas

from .. import theory
from . import statistics
from .claims import THEOREM_1_READING
from .rows import MAIN_READING, after_epochs, curve_of, of_reading, values_by
from .sentences import ends_of

TO_ONE_LOSS = (*MAIN_READING[:3], "10 epochs at 0.01", "milestones=()", "stop_loss=0.5")
FIVE_LINES = Path(__file__).with_name("answer.md").read_text(encoding="utf-8")


def answer(rows: pandas.DataFrame, ledger: pandas.DataFrame) -> str:
    """What came out, as five lines of Markdown, in the setting of the figures and under Theorem 1's hypotheses.

    rows: every row, as from robustkit.load(). ledger: as from verdicts.ledger.
    """
    figure, theorem, one_loss = (of_reading(rows, r) for r in (MAIN_READING, THEOREM_1_READING, TO_ONE_LOSS))
    words = {"shape": shape(curve_of(figure, "he")), "shape_theorem": shape(curve_of(theorem, "he"))}
    for init in ("he", "lecun"):
        words |= {init: ways(curve_of(figure, init)), f"{init}_theorem": ways(curve_of(theorem, init))}
    words["lecun_early"] = ways(curve_of(after_epochs(figure, 2.5), "lecun"))
    for name, own in (("ratio", figure), ("ratio_at_loss", one_loss)):
        pair = curve_of(own, "he", depth=2), curve_of(own, "power", 2, 2)
        words[name] = ends_of(statistics.compare(*(values_by(curve, "stability") for curve in pair))[1])
    for line in ledger.itertuples():
        words |= {line.id: line.verdict, f"{line.id}_theorem": line.under_theorem1 or "missing"}
        words[f"{line.id}_parts"] = line.parts or "no parts yet"
    return FIVE_LINES.format(**words)


def shape(rows: pandas.DataFrame) -> str:
    """At which depths P rises and then falls with width, and by how much it changes at the others."""
    if rows.empty:
        return "no runs yet"
    peaks, others = [], []
    for depth, curve in rows.groupby("depth"):
        values, shared = values_by(curve, "stability"), {"family": rows["depth"].nunique()}
        seen = statistics.peak(values, predicted=theory.peak_width(depth), **shared)
        whole = statistics.trend(values, **shared).estimate
        if seen.outcome == "peak":
            peaks.append(f"{depth} (by {100 * (seen.estimate - 1):.0f} %)")
        else:
            others.append(f"{100 * (whole - 1):+.0f} % ($L = {depth}$)")
    text = f"it does so at $L =$ {', '.join(peaks)}" if peaks else "it shows no clear peak at any depth"
    text += f"; from end to end it changes by {', '.join(others)}" if others else ""
    return f"{text}, on widths {rows['width'].min()} to {rows['width'].max()}"


def ways(rows: pandas.DataFrame) -> str:
    """At how many widths P rises and falls with depth, and by which factors."""
    found: dict[str, dict] = {}
    for width, curve in rows.groupby("width"):
        if curve["depth"].nunique() > 2:
            trend = statistics.trend(values_by(curve, "stability", "depth"))
            found.setdefault(trend.outcome, {})[width] = trend
    total = sum(map(len, found.values()))
    words = {"up": "rises", "down": "falls"}
    told = [
        f"{words[way]} at {len(at)} of {total} widths, by a factor of {ends_of(at)}"
        for way, at in found.items()
        if way in words
    ]
    return f"it {', and '.join(told)}" if told else "it neither rises nor falls clearly" if total else "no runs yet"
