"""What a table of rows says, in sentences whose every number comes from the rows: Markdown for the notebooks."""

from __future__ import annotations

import math

import numpy as np
import pandas

from ..plots import comparisons, curves

NOTHING = "*No rows yet.*"


def width_in_words(rows: pandas.DataFrame) -> str:
    """For each depth, the largest rise and fall of P from one width to a wider one, and where P is largest.

    P is the geometric mean over seeds; the widest 95 % interval of a mean stands beside, as a factor.
    """
    lines = []
    for depth, curve in (
        curves.summarise(rows, x="width", y="stability", by="depth").dropna(subset="mean").groupby("depth")
    ):
        m, means = curve["width"].to_numpy(int), np.log(curve["mean"].to_numpy(float))
        if len(m) < 2:
            continue
        later = np.triu(np.ones((len(m), len(m)), dtype=bool), 1)
        steps = np.where(later, means[None, :] - means[:, None], np.nan)
        top, spread = int(means.argmax()), (curve["high"] / curve["mean"]).max()
        place = "an end of the grid" if top in (0, len(m) - 1) else "inside the grid"
        text = (
            f"- $L = {depth}$: {_step('rises', steps, m)}, {_step('falls', -steps, m)}; largest at $m = {m[top]}$, "
        )
        known = f"; a mean is known to within a factor of {spread:.3f}" if math.isfinite(spread) else ""
        lines.append(text + place + known)
    return "\n".join(lines) or NOTHING


def _step(verb: str, steps: np.ndarray, m: np.ndarray) -> str:
    if not np.nanmax(steps) > 0:
        return f"{verb} nowhere"
    start, end = np.unravel_index(np.nanargmax(steps), steps.shape)
    return f"{verb} by a factor of {math.exp(np.nanmax(steps)):.3f} at most ($m = {m[start]}$ to ${m[end]}$)"


def lazy_in_words(rows: pandas.DataFrame) -> str:
    """At how many of the widths that both have non-lazy P is below He's, at the end and at matched training loss."""
    lines = []
    for when, found in (("At the end of training", rows), ("At matched training loss", comparisons.matched(rows))):
        table = curves.summarise(found, x="width", y="stability", by="init")
        means = table.pivot(index="width", columns="init", values="mean").reindex(columns=["he", "power"]).dropna()
        if len(means):
            ratio = (means["he"] / means["power"]).astype(float)
            text = f"- {when} non-lazy lies below lazy at {(ratio > 1).sum()} of {len(ratio)} widths; lazy over "
            text += f"non-lazy goes from {ratio.iloc[0]:.3g} at $m = {ratio.index[0]}$ to {ratio.iloc[-1]:.3g} at "
            lines.append(text + f"$m = {ratio.index[-1]}$.")
    return "\n".join(lines) or NOTHING


def depth_in_words(rows: pandas.DataFrame, name: str) -> str:
    """P at the largest depth over P at the smallest, before and after training, with the loss: a line a width.

    A network "has learned" if its loss at the largest depth is below half of log(classes), the loss of guessing.
    """
    depths = sorted(rows["depth"].unique())
    first, last = (depths[0], depths[-1]) if len(depths) > 1 else (None, None)
    means = {
        y: curves.summarise(rows, x="depth", y=y, by="width").pivot(index="width", columns="depth", values="mean")
        for y in ("stability_init", "stability", "train_loss")
    }
    ends = means["stability"].reindex(columns=[first, last]).dropna().index if len(depths) > 1 else ()
    if not len(ends):
        return NOTHING
    start, ratio = (
        (means[y].loc[ends, last] / means[y].loc[ends, first]).astype(float) for y in ("stability_init", "stability")
    )
    loss = means["train_loss"].loc[ends, last].astype(float)
    learned = loss < math.log(curves._dimensions(rows)[1]) / 2
    few = ~learned
    head = f"**{name}.** From $L = {first}$ to ${last}$, $P/\\epsilon$ falls at {(start < 1).sum()} of {len(ends)} "
    head += f"widths at initialisation; after training it rises at {(ratio[learned] > 1).sum()} of the "
    head += f"{learned.sum()} widths that have learned"
    head += f" and falls at {(ratio[few] < 1).sum()} of the {few.sum()} that have not" if few.any() else ""
    lines = [
        f"- $m = {m}$: times {start[m]:.3g} at the start, times {ratio[m]:.3g} after training; loss {loss[m]:.3g}"
        for m in ends
    ]
    return "\n".join([f"{head}.", "", *lines])
