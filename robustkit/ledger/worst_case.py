"""Average compared with worst case: does P rank networks as local Lipschitz constants and attacks do? No verdict."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas
from scipy import special, stats

from .. import cell as cell_module
from .criteria import Part, needs
from .rows import reading_of, reading_rank, usable

BY = ["init", "power", "gain", "depth", "width"]  # the cells of one reading
LARGEST, MEAN = "the largest local Lipschitz constant", "the mean local Lipschitz constant"
PAIRS = {LARGEST: "lipschitz_max", MEAN: "lipschitz_mean", "P at training points": "stability_train"}
PAIRS_OF_LOGITS = {
    MEAN: "lipschitz_mean",
    LARGEST: "lipschitz_max",
    "the product of spectral norms": "spectral_product",
}
PAIRS_OF_LOGITS |= {"P of softmax outputs": "softmax_stability", "P at training points": "logit_stability_train"}
# P grows with the scale of the logits, to which an attack is blind: so P relative to their size is ranked as well.
SCALES = {"P": None, "P over the mean margin": "margin", "P over the norm of the logits": "logit_norm"}
INTERVALS = (
    "intervals: Fisher's z with standard error sqrt(1.06/(K-3)) over K cell means, as if the cells were drawn at "
    "random, which those of a grid are not; within cells: mean of each cell's own rank correlation over its seeds, "
    "with a t interval over cells; over few seeds a rank correlation is biased towards zero"
)


class Ranks(NamedTuple):
    """Spearman's r over cell means with its interval (NaN if constant), and the mean r within cells, +- half."""

    r: float
    low: float
    high: float
    cells: int
    n: int
    within: float
    half: float
    several: int  # cells with three seeds or more that differ


def ranks(cells: pandas.DataFrame, x: pandas.Series, y: pandas.Series) -> Ranks | None:
    """Rank correlation of x and y over rows that have the fields of a cell; None below four cells.

    Over K cell means: Spearman's r, Fisher's z with standard error sqrt(1.06/(K-3)), as if the cells were drawn at
    random. Within: the mean over cells with three seeds or more of the cell's own r, with a t interval over cells.
    """
    table = cells[BY].assign(x=x.astype(float), y=y.astype(float)).round({"x": 12, "y": 12})
    table = table[np.isfinite(table[["x", "y"]]).all(axis=1)]
    groups = [cell.to_numpy() for _, cell in table.groupby(BY, dropna=False)[["x", "y"]]]
    if len(groups) < 4:
        return None
    means = np.array([cell.mean(axis=0) for cell in groups]).round(12)  # accuracies tie: rounding must not rank them
    r = low = high = within = half = math.nan
    if (np.ptp(means, axis=0) > 0).all():
        r = float(stats.spearmanr(*means.T).statistic)
        z, error = math.atanh(max(-1 + 1e-12, min(r, 1 - 1e-12))), 1.96 * math.sqrt(1.06 / (len(means) - 3))
        low, high = math.tanh(z - error), math.tanh(z + error)
    own = [stats.spearmanr(*c.T).statistic for c in groups if len(c) > 2 and (np.ptp(c, axis=0) > 0).all()]
    if len(own) > 2:
        within = float(np.mean(own))
        half = special.stdtrit(len(own) - 1, 0.975) * stats.sem(own)
    return Ranks(r, low, high, len(means), len(table), within, float(half), len(own))


def in_words(found: Ranks) -> str:
    """Both correlations with their intervals."""
    over, own = f"over {found.cells} cell means", f"within cells {found.within:.3g} +- {found.half:.2g}"
    text = f"rank correlation {_number(found, '.3g')} {over}" if not math.isnan(found.r) else f"constant {over}"
    return text if math.isnan(found.within) else f"{text}; {own} (mean over {found.several} cells)"


def _number(found: Ranks, form: str = ".2f") -> str:
    return "constant" if math.isnan(found.r) else f"{found.r:{form}} [{found.low:{form}}, {found.high:{form}}]"


def _log(rows: pandas.DataFrame, *names: str) -> pandas.Series:
    """Log of the first column over the others; NaN where one is not above 0."""
    logs = [np.log(rows[name].astype(float).where(usable(rows, name))) for name in names]
    return logs[0] - sum(logs[1:])


@needs("P and local Lipschitz constants of four cells")
def average_and_worst(rows: pandas.DataFrame) -> list[Part]:
    """[E22] Rank correlation of P with local Lipschitz constants and with P at training points; see `ranks`."""
    found = _ranked(rows, "stability", PAIRS)
    return [Part("none", f"P and {name}: {in_words(seen)}") for name, seen in found.items()]


def _ranked(rows: pandas.DataFrame, x: str, pairs: dict[str, str]) -> dict[str, Ranks]:
    found = {name: ranks(rows, _log(rows, x), _log(rows, y)) for name, y in pairs.items()}
    return {name: seen for name, seen in found.items() if seen}


def under_attack(rows: pandas.DataFrame) -> list[Part]:
    """[E22] Rank correlation of P on logits with the accuracy lost to attacks, and with other measures; see `ranks`.

    The accuracy lost is ranked against P, P over the mean margin and P over the norm of the centred logits; P against
    local Lipschitz constants, the product of spectral norms, P of softmax and P at training points. Readings are kept
    apart.
    """
    rows = rows[usable(rows, "logit_stability")]
    rows = rows.assign(reading=[reading_of(row) for row in rows.to_dict("records")])
    readings = sorted(rows.groupby("reading", sort=False), key=reading_rank)
    parts = []
    for reading, same in readings:
        ranked = _ranked(same, "logit_stability", PAIRS_OF_LOGITS)
        lines = [f"P of logits and {name}: {in_words(seen)}; n = {seen.n}" for name, seen in ranked.items()]
        lines = [*_lost(same), *lines]
        if (other := same["init"] == "power").any() and not other.all():
            cells = same.loc[other, BY].drop_duplicates()
            lines += [f"without the {len(cells)} non-lazy cells: {line}" for line in _lost(same[~other])]
        heading = [f"under {', '.join(reading)}, {len(same)} runs:"] if lines and len(readings) > 1 else []
        parts += [Part("none", text) for text in heading + lines]
    return [*parts, Part("none", INTERVALS)] if parts else [Part("missing", "attacks on four cells are needed")]


def _lost(rows: pandas.DataFrame) -> list[str]:
    """Lines on the accuracy lost: one per norm and scale under PGD, and one for all of FGSM."""
    scaled = {name: _log(rows, *filter(None, ("logit_stability", column))) for name, column in SCALES.items()}
    texts, weaker = [], {name: [] for name in scaled}
    for norm, radii in cell_module.RADII.items():
        left = {attack: [rows[cell_module.column(attack, norm, r)] for r in radii] for attack in cell_module.ATTACKS}
        lines = []
        for name, x in scaled.items():
            found, fgsm = ([ranks(rows, x, rows["accuracy"] - y) for y in left[attack]] for attack in ("pgd", "fgsm"))
            weaker[name] += [seen.r for seen in fgsm if seen and not math.isnan(seen.r)]
            if all(found):
                lines.append(f"{name} and the accuracy lost to PGD in {norm}: {_several(found)}")
        if lines:
            texts += [_left(rows, norm, left["pgd"]), *lines]
    words = "; ".join(f"{name} {min(rs):.2f} to {max(rs):.2f}" for name, rs in weaker.items() if rs)
    summary = f"accuracy lost to FGSM, rank correlations at these norms and radii: {words}"
    return [*texts, summary] if words else texts


def _left(rows: pandas.DataFrame, norm: str, left: list[pandas.Series]) -> str:
    """The accuracy that PGD leaves, over cell means: where it leaves none, what is lost is the accuracy before."""
    cells = [rows[name] for name in BY]
    means = [y.groupby(cells, dropna=False).mean() for y in (rows["accuracy"], *left)]
    before, *after = (f"{mean.min():.2f} to {mean.max():.2f}" for mean in means)
    at = ", ".join(f"{radius:g}" for radius in cell_module.RADII[norm])
    gone = "; where almost none is left, the accuracy lost equals that before" if means[-1].max() < 0.05 else ""
    return f"PGD in {norm} at radius {at} leaves an accuracy of {', '.join(after)}, from {before}{gone}"


def _several(found: list[Ranks]) -> str:
    """The correlations at several radii in one line."""
    text = f"rank correlation {', '.join(map(_number, found))} over {_span(seen.cells for seen in found)} cell means"
    if all(math.isnan(seen.within) for seen in found):
        return text
    own = ["too few" if math.isnan(seen.within) else f"{seen.within:.2f} +- {seen.half:.2f}" for seen in found]
    return f"{text}; within cells {', '.join(own)} (mean over {_span(seen.several for seen in found)} cells)"


def _span(counts) -> str:
    values = sorted({*counts})
    return f"{values[0]}" if len(values) == 1 else f"{values[0]} to {values[-1]}"
