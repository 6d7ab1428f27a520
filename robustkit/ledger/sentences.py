"""Sentences whose numbers come from rows: one per headline claim; the answer in five lines is in answer.py."""

from __future__ import annotations

import math

import pandas

from ..cell import EVALUATION_POINTS, FRACTIONS
from ..files import figures_folder, write_atomically
from . import rows as ledger_rows
from . import statistics, theorems2_3
from .claims import HEADLINES, SCALAR_READING
from .kappa import with_growth
from .rows import NAMES, at_evaluation, curve_of, usable, values_by
from .width_and_depth import compare_at_loss

UNKNOWN = "not known yet"


def found(rows: pandas.DataFrame, ledger: pandas.DataFrame) -> str:
    """A Markdown list over the headline claims: what the main reading's rows say, then verdict and readings.

    rows: every row, as from robustkit.load(). ledger: as from verdicts.ledger. Numbers in square brackets are 95 %
    intervals over seeds, unless the sentence says what they are.
    """
    lines = []
    for line in ledger[ledger["id"].isin(HEADLINES)].itertuples():
        readings = f"; readings {line.readings}" if line.readings else ""
        lines.append(f"- **{line.id}** {sentence(line.id, rows)} *{line.verdict.capitalize()}*{readings}.")
    return "\n".join(lines) + "\n"


def sentence(claim: str, rows: pandas.DataFrame) -> str:
    """What the rows of a headline claim's main reading say, with their numbers; see `found`."""
    if claim != "E15":
        wanted = SCALAR_READING if claim == "T12" else ledger_rows.MAIN_READING
        rows = ledger_rows.of_reading(rows, wanted, exactly=claim != "T12")
    return (SENTENCES[claim](rows) if len(rows) else "") or "No rows on MNIST yet."


def save(text: str, profile: str, name: str = "found") -> str:
    """Write a text as figures/<profile>/<name>.md, and return it."""
    write_atomically(figures_folder(profile) / f"{name}.md", text)
    return text


def ends_of(found: dict) -> str:
    """The narrowest and the widest cell of {width: finding or interval}."""
    ends = (min(found), max(found)) if found else ()
    return " and ".join(f"{_interval(found[m])} at $m = {m:g}$" for m in ends) or UNKNOWN


def _interval(cell) -> str:
    value = cell.mean if isinstance(cell, statistics.Interval) else cell.estimate
    limits = f" [{cell.low:.3g}, {cell.high:.3g}]" if math.isfinite(cell.low) else " (no spread yet)"
    return f"{value:.3g}{limits}" if math.isfinite(value) else UNKNOWN


def _growth_of_kappa(rows: pandas.DataFrame) -> str:
    lazy = curve_of(rows, "he", depth=2)
    lazy = with_growth(lazy[usable(lazy, "kappa")])
    ends, growth = (statistics.intervals(values_by(lazy, y)) for y in ("kappa", "growth"))
    below = sum(cell.high < 1 for cell in ends.values())
    return (
        f"The lazy ratio of two-layer He networks ends at {ends_of(ends)}, below 1 at {below} of {len(ends)} widths; "
        f"since the first tenth of training it has grown by a factor of {ends_of(growth)}."
    )


def _law_of_kappa(rows: pandas.DataFrame) -> str:
    curve, half = curve_of(rows, "power", 2, 2), EVALUATION_POINTS.index(0.5)
    if curve.empty:
        return ""
    words = []
    for width in (curve["width"].min(), curve["width"].max()):
        cell = curve[(curve["width"] == width) & usable(curve, "kappa")]
        fits = [statistics.growth(EVALUATION_POINTS[1 : half + 1], k[1 : half + 1]) for k in cell["kappa_over_time"]]
        laws = [[fit[law][1] for fit in fits if fit] for law in ("linear", "exponential then linear")]
        line, start = (f"{min(v):.3f} to {max(v):.3f}" if v else UNKNOWN for v in laws)
        words.append(f"{line} at $m = {width}$ (an exponential start: {start})")
    return (
        "Over the epochs of constant learning rate, a straight line explains non-lazy $\\kappa(t)$ with an $R^2$, "
        f"least and most over seeds, of {' and '.join(words)}."
    )


def _lazy_and_not(rows: pandas.DataFrame) -> str:
    kappas = [values_by(curve_of(rows, *curve), "kappa") for curve in (("power", 2, 2), ("he", None, 2))]
    _, cells = statistics.compare(*kappas)
    return f"Non-lazy $\\kappa$ over lazy $\\kappa$ is {ends_of(cells)}."


def _peaks(rows: pandas.DataFrame) -> str:
    curves = curve_of(rows, "he")
    peaks = {depth: statistics.peak(values_by(curve, "stability")) for depth, curve in curves.groupby("depth")}
    words = ", ".join(f"{_interval(peak)} ($L = {depth}$)" for depth, peak in peaks.items())
    return words and (
        f"On widths {curves['width'].min()} to {curves['width'].max()}, the highest $P$ inside the grid over the "
        f"higher of its ends is {words}; a peak requires at least 1.05, and the paper's grid extends to 16384."
    )


def _more_robust(rows: pandas.DataFrame) -> str:
    curves = curve_of(rows, "he", depth=2), curve_of(rows, "power", 2, 2)
    _, cells = statistics.compare(*(values_by(curve, "stability") for curve in curves))
    _, at_loss = compare_at_loss(*curves)
    return f"Lazy $P$ over non-lazy $P$ is {ends_of(cells)}; at matched training loss it is {ends_of(at_loss)}."


def _falls_with_width(rows: pandas.DataFrame) -> str:
    curve = curve_of(rows, "power", 2, 2)
    trend = statistics.trend(values_by(curve, "stability"))
    losses = statistics.intervals(values_by(curve, "train_loss"))
    return len(curve) and (
        f"From $m = {curve['width'].min()}$ to {curve['width'].max()} non-lazy $P$ changes by a factor of "
        f"{_interval(trend)}; its training loss is {ends_of(losses)}."
    )


def _over_depth(rows: pandas.DataFrame, init: str) -> str:
    rows, depths = curve_of(rows, init), rows[rows["init"] == init]["depth"]
    whole = {m: curve for m, curve in rows.groupby("width") if curve["depth"].nunique() == depths.nunique() > 2}
    if not whole:
        return ""
    before, after = (
        {m: statistics.trend(values_by(curve, y, "depth")) for m, curve in whole.items()}
        for y in ("stability_init", "stability")
    )
    ways = [cell.outcome for cell in after.values()]
    return (
        f"From $L = {depths.min()}$ to {depths.max()}, $P$ changes by a factor of {ends_of(before)} before training, "
        f"and of {ends_of(after)} after it: up at {ways.count('up')} of {len(ways)} widths, "
        f"down at {ways.count('down')}."
    )


def _rates(rows: pandas.DataFrame) -> str:
    n, words = int(rows["n_train"].iloc[0]), []
    rows = at_evaluation(rows[rows["width"] >= ledger_rows.MUCH_GREATER * n**2], FRACTIONS.index(0.1))
    for power, curve in curve_of(rows, "power").groupby("power"):
        rate = statistics.rate(values_by(curve, "stability"))
        words.append(f"{_interval(rate)} for $c = {power:g}$ (at most {theorems2_3.orders(power)['Theorem 3']:g})")
    return words and (
        f"After a tenth of training on $n = {n}$ points, at widths from $10 n^2$ on, $P$ scales as a power of $m$ "
        f"with exponent {', '.join(words)}; in round brackets the theorem's bound."
    )


def _resnets(rows: pandas.DataFrame) -> str:
    rows = rows[(rows["model"] == "resnet") & (rows["depth"] == 110) & (rows["status"] == "ok")]
    means = rows.groupby(["dataset", "init"])["test_accuracy"].agg(["mean", "size"]).itertuples()
    words = [f"{100 * mean:.2f} % ({NAMES[init]}, {dataset}, n = {n})" for (dataset, init), mean, n in means]
    none = "No ResNet-110 has been trained: `python -m robustkit run paper --claim E15` does so on a GPU."
    return f"After the last epoch, mean test accuracies of ResNet-110 are {', '.join(words)}." if words else none


SENTENCES = {
    "E01": _growth_of_kappa,
    "E03": _law_of_kappa,
    "E05": _lazy_and_not,
    "E06": _peaks,
    "E07": _more_robust,
    "E08": _falls_with_width,
    "E09": lambda rows: f"He. {_over_depth(rows, 'he')}",
    "E10": lambda rows: f"LeCun. {_over_depth(rows, 'lecun')}",
    "E15": _resnets,
    "T12": _rates,
}
