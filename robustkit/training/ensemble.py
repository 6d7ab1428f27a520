"""Many fully connected networks of one shape trained together, with a backward pass by hand.

The first axis of every tensor is the networks of the group: each has its own weights, data order and learning rate,
and all are multiplied at once (baddbmm). The update is fused into the weight write, so no gradient is ever stored.
`loop.Loop` is the slow twin: one network, autograd.

On a GPU a step is one CUDA graph, which reads learning rates from a tensor, and groups are larger. There a network's
numbers agree with those of another group, or of the CPU, to rounding alone: cuBLAS chooses its kernel by the sizes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..cell import Cell
from ..networks import build
from ..stability import gram, spectrum
from .cuda_graph import GraphedStep
from .loop import CHUNK, Engine, targets

JACOBIAN_FLOATS = 2**20  # entries of one network's chunk of Jacobians, so that it stays in cache

# Networks of one group may differ in these fields alone.
_OWN = {"seed", "init", "power", "gain", "alpha", "lr", "lr_rule", "lr_decay", "milestones", "stop_loss"}


def batchable(cell: Cell) -> bool:
    """Whether this engine trains the cell: a fully connected net under plain SGD, wider than one unit."""
    return cell.model == "fcn" and cell.momentum == 0 and cell.weight_decay == 0 and cell.width > 1


def group_size(cell: Cell, device: str) -> int:
    """Number of networks to train at once: many where one alone would leave the machine idle."""
    if not batchable(cell):
        return 1
    if device == "cpu":  # the fastest of those tried: the group's batch of points must stay in cache
        return max(1, min(16, 512 // cell.width))
    return 20 if cell.width <= 1024 else max(1, 8192 // cell.width)


def groups(cells: Sequence[Cell], device: str, workers: int = 1) -> list[list[Cell]]:
    """Cells that can train together, in the order of their first; workers on the CPU share what is alike."""
    alike: dict[tuple, list[Cell]] = {}
    for cell in cells:
        shared = tuple(value for name, value in dataclasses.asdict(cell).items() if name not in _OWN)
        alike.setdefault(shared if batchable(cell) else cell.key, []).append(cell)
    result = []
    for members in alike.values():
        share = math.ceil(len(members) / workers) if device == "cpu" else len(members)
        size = min(group_size(members[0], device), share)
        result += [members[start : start + size] for start in range(0, len(members), size)]
    return result


def _up_to_16(size: int) -> int:
    return -(-size // 16) * 16


class Ensemble(Engine):
    """The networks of `cells` (one group of `groups`), as initialised from their seeds, on one device.

    `weights[l]` is (networks, fan_out, fan_in). On a CPU a network's numbers do not depend on the others', to the
    bit: its block begins on a boundary of 64 bytes, inputs are padded with zeros to a multiple of 16, and a single
    output to two, since BLAS takes another routine for a lone row, or for memory that is not aligned.
    """

    name = "ensemble"

    def __init__(self, cells: Sequence[Cell], device: str, dtype: torch.dtype):
        super().__init__(cells, device, dtype)
        first = cells[0]
        self.d_in, self.d_out = first.d_in, first.d_out
        sizes = [_up_to_16(first.d_in), *[first.width] * (first.depth - 1), max(2, first.d_out)]
        self.weights = [self._blocks(b, a).zero_() for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
        for s, cell in enumerate(cells):
            for weight, drawn in zip(self.weights, build(cell).weights, strict=True):
                weight[s, : len(drawn), : len(drawn[0])] = drawn.detach()
        self.alpha = torch.tensor([[[cell.alpha]] for cell in cells], dtype=dtype, device=device)
        self.rate = torch.zeros_like(self.alpha)

    def _blocks(self, *shape: int) -> Tensor:
        """An uninitialised tensor (networks, *shape)."""
        block, strides = _up_to_16(math.prod(shape)), [math.prod(shape[k + 1 :]) for k in range(len(shape))]
        storage = torch.empty(len(self.cells) * block, dtype=self.dtype, device=self.device)
        return storage.as_strided((len(self.cells), *shape), (block, *strides))

    def _points(self, x: Tensor) -> Tensor:
        """Flat points, padded as W_1 is."""
        x, padding = x.flatten(1), self.weights[0].shape[2] - self.d_in
        return torch.nn.functional.pad(x, (0, padding)) if padding else x.contiguous()

    def network(self, s: int) -> list[Tensor]:
        """Weights W_1 .. W_L of one network, each (fan_out, fan_in); views, not copies."""
        first, last = self.weights[0][s, :, : self.d_in], self.weights[-1][s, : self.d_out]
        return [first, *(weight[s] for weight in self.weights[1:-1]), last]

    def _set_rates(self, rates: Sequence[float]) -> None:
        self.rate.copy_(torch.tensor(rates, dtype=torch.float64).view(-1, 1, 1))

    def _own_states(self) -> list[dict[str, Tensor]]:
        networks = map(self.network, range(len(self.cells)))
        return [{f"weights.{layer}": weight for layer, weight in enumerate(weights)} for weights in networks]

    def _restore(self, states: Sequence[dict[str, Tensor]]) -> None:
        for s, state in enumerate(states):
            for layer, weight in enumerate(self.network(s)):
                weight.copy_(state[f"weights.{layer}"])

    def _prepare(self, x: Tensor, y: Tensor) -> Callable[[Tensor], None]:
        # What outputs are compared with, one row per point: one-hot classes, or +-1 and 0 for the padding.
        goals = targets(y, dataclasses.replace(self.cells[0], loss="squared"), self.dtype)
        goals = torch.nn.functional.pad(goals, (0, 1)) if self.d_out == 1 else goals
        # Two sizes, as the last batch of an epoch is small.
        points, size = self._points(x), self.cells[0].batch_size
        ready = {count: GraphedStep(self._step(points, goals, count)) for count in {size, len(x) % size or size}}
        return lambda batch: ready[batch.shape[1]](batch)

    def _step(self, points: Tensor, goals: Tensor, size: int) -> Callable[[Tensor], None]:
        """A function of a batch of indices (networks, size) that makes one step; its buffers are made once."""
        weights, networks, depth = self.weights, len(self.cells), len(self.weights)
        x = torch.empty(networks * size, points.shape[1], dtype=self.dtype, device=self.device)
        goal = torch.empty(networks * size, goals.shape[1], dtype=self.dtype, device=self.device)
        hidden = [x.view(networks, size, -1), *(self._blocks(size, len(w[0])) for w in weights[:-1])]
        output = self._blocks(goals.shape[1], size)  # a softmax over columns is many times faster than over rows
        spare = [self._blocks(size, len(weights[0][0])) for _ in range(2)]
        cross_entropy = self.cells[0].loss == "cross_entropy"

        def step(batch: Tensor) -> None:
            index = batch.reshape(-1)
            torch.index_select(points, 0, index, out=x)
            torch.index_select(goals, 0, index, out=goal)
            for weight, below, h in zip(weights[:-1], hidden[:-1], hidden[1:], strict=True):
                torch.bmm(below, weight.mT, out=h).relu_()
            torch.bmm(weights[-1], hidden[-1].mT, out=output).div_(self.alpha)
            # d loss / d f = (softmax(f) or f) - y, times learning rate / (alpha * size): each update is linear in it
            back = torch.softmax(output, 1) if cross_entropy else output
            back = back.sub_(goal.view(networks, size, -1).mT).mul_(self.rate / (self.alpha * size)).mT
            for layer in reversed(range(depth)):
                if layer:
                    below = torch.bmm(back, weights[layer], out=spare[layer % 2])
                    torch.ops.aten.threshold_backward.grad_input(below, hidden[layer], 0, grad_input=below)
                weights[layer].baddbmm_(back.mT, hidden[layer], alpha=-1)
                back = below if layer else None

        return step

    def _hidden(self, points: Tensor) -> Iterator[Tensor]:
        """h_1 .. h_{L-1} of every network at points (n, d), one after another: (networks, n, width) each."""
        h = points.expand(len(self.cells), -1, -1)
        for weight in self.weights[:-1]:
            h = torch.bmm(h, weight.mT, out=self._blocks(len(points), weight.shape[1])).relu_()
            yield h

    def logits(self, x: Float[Tensor, " n dim *more"]) -> Float[Tensor, " networks n d_out"]:
        """f(x) of every network."""
        parts = []
        for part in self._points(x).split(CHUNK):
            for h in self._hidden(part):  # noqa: B007  the last one alone: all of them together take much memory
                pass
            output = self._blocks(len(part), self.weights[-1].shape[1])
            parts.append(torch.bmm(h, self.weights[-1].mT, out=output).div_(self.alpha))
        return torch.cat(parts, 1)[..., : self.d_out]

    def eigenvalues(self, x: Float[Tensor, " n dim *more"]) -> Float[Tensor, " networks n rank"]:
        """Eigenvalues of J J^T at each point, ascending, float64; NaN where the Jacobian is not finite.

        J = W_L D_{L-1} W_{L-1} .. D_1 W_1 / alpha with D_l the 0/1 diagonal of active units (NeurIPS Def. 2).
        W_1 enters J J^T by W_1 W_1^T alone, so a narrow net takes the triangular factor of W_1^T = Q R in its place.
        """
        outputs, width = self.weights[-1].shape[1:]
        firsts = [weight.nan_to_num() for weight in self.weights[0]]
        if width < self.d_in:
            firsts = [torch.linalg.qr(first.T, mode="r").R.T for first in firsts]
        parts = []
        for part in self._points(x).split(max(1, JACOBIAN_FLOATS // (width * outputs))):
            active = [h.sign() for h in self._hidden(part)]
            rows, other = self._blocks(len(part), outputs, width), self._blocks(len(part), outputs, width)
            torch.mul(active[-1][:, :, None], self.weights[-1][:, None], out=rows)
            for weight, mask in zip(self.weights[-2:0:-1], active[-2::-1], strict=True):
                torch.bmm(rows.flatten(1, 2), weight, out=other.flatten(1, 2))
                rows, other = other.mul_(mask[:, :, None]), rows
            jacobians = (r[:, : self.d_out] @ first for r, first in zip(rows, firsts, strict=True))
            parts.append(torch.stack([gram(jacobian) for jacobian in jacobians]))
        return spectrum(torch.cat(parts, 1)) / self.alpha.double().square()
