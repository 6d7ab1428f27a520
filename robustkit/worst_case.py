"""Average against worst case: does P rank networks as local Lipschitz constants and attacks do? No verdict."""

from __future__ import annotations

import math

import numpy as np
import pandas
from scipy import special, stats

from .criteria import Part, usable
from .orders import needs

PAIRS = {"the largest": "lipschitz_max", "the mean": "lipschitz_mean", "P at training points": "stability_train"}


@needs("P and local Lipschitz constants of four cells")
def average_and_worst(rows: pandas.DataFrame) -> list[Part]:
    """[E22] Rank correlation of P with local Lipschitz constants and with P at training points; no verdict.

    Over K cell means: Spearman's r, Fisher's z with standard error sqrt(1.06/(K-3)). Within: the mean over cells with
    three seeds or more of the cell's own r, with a t interval over cells.
    """
    by, parts = ["init", "power", "gain", "depth", "width"], []
    for name, y in PAIRS.items():
        sound = rows[usable(rows, "stability") & usable(rows, y)]
        cells = [cell[["stability", y]].astype(float) for _, cell in sound.groupby(by, dropna=False)]
        if len(cells) < 4:
            continue
        text = f"P and {name}{' local Lipschitz constant' if y != 'stability_train' else ''}: "
        text += _over_cells(np.array([np.log(cell).mean() for cell in cells]))
        own = [stats.spearmanr(*c.to_numpy().T).statistic for c in cells if len(c) > 2 and (c.nunique() > 1).all()]
        if len(own) > 2:
            half = special.stdtrit(len(own) - 1, 0.975) * np.std(own, ddof=1) / math.sqrt(len(own))
            text += f"; within cells {np.mean(own):.3g} +- {half:.2g} (mean over {len(own)} cells)"
        parts.append(Part("none", text))
    return parts


def _over_cells(means: np.ndarray) -> str:
    """Spearman's r of two columns of cell means, with Fisher's interval."""
    if (np.ptp(means, axis=0) == 0).any():
        return f"constant over {len(means)} cell means"
    r = float(stats.spearmanr(*means.T).statistic)
    z, half = math.atanh(max(-1 + 1e-12, min(r, 1 - 1e-12))), 1.96 * math.sqrt(1.06 / (len(means) - 3))
    low, high = math.tanh(z - half), math.tanh(z + half)
    return f"rank correlation {r:.3g} [{low:.3g}, {high:.3g}] over {len(means)} cell means"


def under_attack(rows: pandas.DataFrame) -> list[Part]:
    """[E22] The same, of P on logits with the accuracy lost under attack and with P on softmax outputs."""
    sound, parts = rows[usable(rows, "logit_stability")], []
    by = ["init", "power", "gain", "depth", "width"]
    lost = {f"accuracy lost at radius {y.split('_', 2)[2].replace('_', '.')}": y for y in rows if "attacked" in y}
    for name, y in (lost | {"P of softmax outputs": "softmax_stability"}).items():
        values = sound["accuracy"] - sound[y] if name in lost else sound[y]
        table = sound[by].assign(p=sound["logit_stability"], other=values).astype({"p": float, "other": float})
        means = table.dropna(subset="other").groupby(by, dropna=False)[["p", "other"]].mean().to_numpy()
        if len(means) > 3:
            parts.append(Part("none", f"P of logits and {name}: {_over_cells(means)}; n = {len(table)}"))
    return parts or [Part("missing", "attacks on four cells are needed")]
