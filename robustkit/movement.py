"""How far weights moved from where they began: kappa, and each layer's part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def _norm(parts: Iterable[Tensor]) -> Tensor:
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(part.double()) for part in parts]))


def layer_norms(weights_now: Sequence[Tensor], weights_start: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """||W_l(t) - W_l(0)||_F and ||W_l(0)||_F of each layer, float64."""
    moved, began = [], []
    for now, start in zip(weights_now, weights_start, strict=True):
        # A few rows at a time: a wide layer, in float64, would not fit beside itself.
        rows, start_rows = now.detach().split(2048), start.detach().split(2048)
        moved.append(_norm(a - b for a, b in zip(rows, start_rows, strict=True)))
        began.append(_norm(start_rows))
    return torch.stack(moved), torch.stack(began)


def lazy_ratio(weights_now: Sequence[Tensor], weights_start: Sequence[Tensor]) -> float:
    """kappa = sum_l ||W_l(t) - W_l(0)||_F / sum_l ||W_l(0)||_F: small means lazy. A ratio of sums.

    Source: NeurIPS Sec. 5.2, workshop E.2.
    """
    moved, began = layer_norms(weights_now, weights_start)
    return (moved.sum() / began.sum()).item()


def layer_movement(weights_now: Sequence[Tensor], weights_start: Sequence[Tensor]) -> list[float]:
    """||W_l(t) - W_l(0)||_F / ||W_l(0)||_F of each layer (Theorem 2: non-lazy, each exceeds any constant)."""
    moved, began = layer_norms(weights_now, weights_start)
    return (moved / began).tolist()
