"""How far weights moved from where they began: kappa, and each layer's part."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def _norm(weight: Tensor, minus: Tensor | None = None) -> Tensor:
    # A few rows at a time: a wide layer, in float64, would not fit beside itself.
    rows = weight.detach().split(2048)
    if minus is not None:
        rows = (now - start for now, start in zip(rows, minus.detach().split(2048), strict=True))
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(part.double()) for part in rows]))


def _norms(weights: Sequence[Tensor]) -> Tensor:
    return torch.stack([_norm(w) for w in weights])


def _moved(weights_now: Sequence[Tensor], weights_start: Sequence[Tensor]) -> Tensor:
    return torch.stack([_norm(now, start) for now, start in zip(weights_now, weights_start, strict=True)])


def lazy_ratio(weights_now: Sequence[Tensor], weights_start: Sequence[Tensor]) -> float:
    """kappa = sum_l ||W_l(t) - W_l(0)||_F / sum_l ||W_l(0)||_F: small means lazy. A ratio of sums.

    Source: NeurIPS Sec. 5.2, workshop E.2.
    """
    return (_moved(weights_now, weights_start).sum() / _norms(weights_start).sum()).item()


def layer_movement(weights_now: Sequence[Tensor], weights_start: Sequence[Tensor]) -> list[float]:
    """||W_l(t) - W_l(0)||_F / ||W_l(0)||_F of each layer (Theorem 2 says each exceeds any constant when non-lazy)."""
    return (_moved(weights_now, weights_start) / _norms(weights_start)).tolist()
