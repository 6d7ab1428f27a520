"""One plain loop for any module: the reference that faster engines are held to. And how far weights moved."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .config import Cell


def targets(y: Int[Tensor, " n"], cell: Cell, dtype: torch.dtype) -> Tensor:
    """What the loss compares with: classes; one-hot rows under squared loss; +-1 for the parity of the class."""
    if cell.loss == "cross_entropy":
        return y
    if cell.target == "parity":
        return (2 * (y % 2) - 1).to(dtype)[:, None]
    return nn.functional.one_hot(y, cell.d_out).to(dtype)


def loss_function(loss: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Mean loss a point: cross entropy, or half the squared distance ||f - y||^2 / 2 (NeurIPS Sec. 3)."""
    if loss == "cross_entropy":
        return nn.functional.cross_entropy
    return lambda output, target: (output - target).square().sum(1).mean() / 2


def train(
    model: nn.Module,
    x: Float[Tensor, " n dim *more"],
    y: Tensor,
    cell: Cell,
    *,
    order: torch.Generator,
    instants: Collection[int],
    observe: Callable[[int], bool],
) -> None:
    """Stochastic gradient descent on `model` as `cell` says; y are `targets`.

    Each epoch is a fresh shuffle from `order` (a CPU generator), cut into batches; the last, small one is kept.
    `observe(step)` is called before the step of each of `instants` (and after the last, if cell.steps is among
    them); training ends early when it returns False.
    """
    loss_of = loss_function(cell.loss)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=cell.lr, momentum=cell.momentum, weight_decay=cell.weight_decay
    )
    steps, steps_per_epoch = cell.steps, cell.steps_per_epoch
    drops = {0, *(round(fraction * steps) for fraction in cell.milestones)}
    for step in range(steps):
        if step in instants and not observe(step):
            return
        if step in drops:
            optimizer.param_groups[0]["lr"] = cell.rate(step)
        position = step % steps_per_epoch
        if position == 0:
            shuffle = torch.randperm(len(x), generator=order).to(x.device)
        batch = shuffle[position * cell.batch_size : (position + 1) * cell.batch_size]
        optimizer.zero_grad()
        loss_of(model(x[batch]), y[batch]).backward()
        optimizer.step()
    if steps in instants:
        observe(steps)


def _norms(weights: Sequence[Tensor]) -> Tensor:
    return torch.stack([torch.linalg.vector_norm(w.detach().double()) for w in weights])


def _moved(weights_now: Sequence[Tensor], weights_start: Sequence[Tensor]) -> Tensor:
    return _norms([now.detach() - start.detach() for now, start in zip(weights_now, weights_start, strict=True)])


def lazy_ratio(weights_now: Sequence[Tensor], weights_start: Sequence[Tensor]) -> float:
    """kappa = sum_l ||W_l(t) - W_l(0)||_F / sum_l ||W_l(0)||_F: small means lazy. A ratio of sums.

    Source: NeurIPS Sec. 5.2, workshop E.2.
    """
    return (_moved(weights_now, weights_start).sum() / _norms(weights_start).sum()).item()


def layer_movement(weights_now: Sequence[Tensor], weights_start: Sequence[Tensor]) -> list[float]:
    """||W_l(t) - W_l(0)||_F / ||W_l(0)||_F of each layer (Theorem 2 says each exceeds any constant when non-lazy)."""
    return (_moved(weights_now, weights_start) / _norms(weights_start)).tolist()
