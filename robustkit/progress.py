"""The metric with a progress bar, which stability.py is without so that it can be copied alone."""

from __future__ import annotations

import functools

from torch import Tensor
from tqdm import tqdm

from . import stability

DELAY = 3  # seconds before a bar appears


@functools.wraps(stability.perturbation_stability)
def perturbation_stability(model, x, *, method="exact", chunk=None, **options) -> stability.Estimate:
    points = shown(x, "perturbation stability", method, chunk)
    return stability.perturbation_stability(model, points, method=method, chunk=chunk, **options)


def shown(x, what: str, method: str, chunk: int | None):
    """The points of x, block by block, with a bar if they take long; none under TQDM_DISABLE."""
    total = len(x) if isinstance(x, Tensor) and x.ndim else None
    with tqdm(desc=what, total=total, unit=" points", delay=DELAY, leave=False) as bar:
        for block, _ in stability.blocks(x, chunk, method):
            yield block
            bar.update(len(block))
