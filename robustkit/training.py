"""One plain loop for any module: the reference that faster engines are held to. And how far weights moved."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .config import Cell
from .data import stream_generator
from .networks import build
from .stability import gram_eigenvalues, jacobian

CHUNK = 1_000  # points evaluated at once


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


class Loop:
    """One network under `train`, with the interface of `ensemble.Ensemble`: its slow twin, for any module."""

    name = "loop"

    def __init__(self, cells: Sequence[Cell], device: str, dtype: torch.dtype):
        (self.cell,) = self.cells = list(cells)
        self.dtype, self.model = dtype, build(self.cell).to(device, dtype)

    def network(self, s: int) -> list[Tensor]:
        """Weights of the network, s = 0."""
        return [weight.detach() for weight in self.model.parameters()]

    def train(self, x: Tensor, y: Tensor, *, instants: Collection[int], observe: Callable) -> None:
        """`train` on points x with classes y; `observe(step)` returns a list of one."""
        y, order = targets(y, self.cell, self.dtype), stream_generator(self.cell.seed, "order")
        train(self.model, x, y, self.cell, order=order, instants=instants, observe=lambda step: observe(step)[0])

    @torch.no_grad()
    def logits(self, x: Tensor) -> Float[Tensor, " 1 n d_out"]:
        """f(x)."""
        return torch.cat([self.model(part) for part in x.split(CHUNK)])[None]

    def eigenvalues(self, x: Tensor) -> Float[Tensor, " 1 n rank"]:
        """Eigenvalues of J J^T at each point, ascending, float64; the rank is at most min(d_out, d_in)."""
        return torch.cat([gram_eigenvalues(jacobian(self.model, part)) for part in x.split(256)])[None]
