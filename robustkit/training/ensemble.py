"""Many fully connected networks of one shape trained together, with a backward pass by hand.

The first axis of every tensor is the networks of the group: each has its own weights, data order and rate, and all
are multiplied at once (baddbmm). The update is fused into the weight write, so no gradient is ever stored. On a GPU a
step is one CUDA graph. `training.Loop` is the slow twin: the same interface, one network, autograd.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..cell import Cell
from ..data import stream_generator
from ..networks import build
from ..stability import gram_eigenvalues
from .checkpoint import Saved
from .loop import CHUNK, batches, targets

JACOBIAN_FLOATS = 2**20  # entries of one network's chunk of Jacobians, so that it stays in cache

# Networks of one group may differ in these fields alone.
_OWN = {"seed", "init", "power", "gain", "alpha", "lr", "lr_rule", "lr_decay", "milestones", "stop_loss"}


def batchable(cell: Cell) -> bool:
    """Whether this engine trains the cell: a fully connected net under plain SGD, wider than one unit."""
    return cell.model == "fcn" and cell.momentum == 0 and cell.weight_decay == 0 and cell.width > 1


def group_size(cell: Cell, device: str) -> int:
    """Networks to train at once: many where one is too small to fill the machine, one where it fills it."""
    if not batchable(cell):
        return 1
    if device == "cpu":  # what measured fastest: the group's batch of points must stay in cache
        return max(1, min(16, 512 // cell.width))
    return 20 if cell.width <= 1024 else max(1, 8192 // cell.width)


def groups(cells: Sequence[Cell], device: str, workers: int = 1) -> list[list[Cell]]:
    """Cells that can train together, in the order in which their first comes; workers on the CPU share them out."""
    alike: dict[tuple, list[Cell]] = {}
    for cell in cells:
        shared = tuple(value for name, value in dataclasses.asdict(cell).items() if name not in _OWN)
        alike.setdefault(shared if batchable(cell) else cell.key, []).append(cell)
    found = []
    for members in alike.values():
        share = math.ceil(len(members) / workers) if device == "cpu" else len(members)
        size = min(group_size(members[0], device), share)
        found += [members[start : start + size] for start in range(0, len(members), size)]
    return found


@functools.cache
def _side_stream(device: int) -> torch.cuda.Stream:
    # One a device, for good: every stream that products run on keeps a workspace of its own.
    return torch.cuda.Stream(device)


def _up_to_16(size: int) -> int:
    return -(-size // 16) * 16


class Ensemble:
    """The networks of `cells` (one group of `groups`), as initialised from their seeds, on one device.

    `weights[l]` is (networks, fan_out, fan_in). A network's numbers do not depend on the others', to the bit: its
    block begins on a boundary of 64 bytes, inputs are padded with zeros to a multiple of 16, and a single output to
    two, since BLAS takes another routine for a lone row, or for memory that is not aligned.
    """

    name = "ensemble"

    def __init__(self, cells: Sequence[Cell], device: str, dtype: torch.dtype):
        self.cells, self.device, self.dtype = list(cells), device, dtype
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

    def train(
        self,
        x: Float[Tensor, " n dim *more"],
        y: Tensor,
        *,
        evaluate_at: Collection[int],
        observe: Callable[[int], Sequence[bool]],
        resume: Sequence[Saved] | None = None,
        save: Callable[[int, Callable[[], list[dict]]], None] | None = None,
    ) -> None:
        """Stochastic gradient descent on points x with classes y, as the cells say; see `loop.train`.

        `observe(step)` says which networks are trained further: the others keep their weights from then on. `resume`
        holds what `save` was given, one per network and all of one step.
        """
        cells, first, start = self.cells, self.cells[0], 0
        points, goals = self._points(x), self._goals(y)
        orders, going = [stream_generator(cell.seed, "order") for cell in cells], [True] * len(cells)
        if resume:
            start, going = resume[0].step, [saved.state["going"] for saved in resume]
            for s, (saved, order) in enumerate(zip(resume, orders, strict=True)):
                order.set_state(saved.state["order"])
                for weight, kept in zip(self.network(s), saved.state["weights"], strict=True):
                    weight.copy_(kept)

        def state(order_states: Sequence[Tensor]) -> list[dict]:
            copies = [[weight.to("cpu", copy=True) for weight in self.network(s)] for s in range(len(cells))]
            parts = zip(copies, order_states, going, strict=True)
            return [{"weights": weights, "order": order, "going": on} for weights, order, on in parts]

        drops = {0, *(round(fraction * first.steps) for cell in cells for fraction in cell.milestones)}
        # Two sizes, as the last batch of an epoch is small; both ready before any step, since a capture takes time.
        sizes = {first.batch_size, len(points) % first.batch_size or first.batch_size}
        ready = {size: self._prepare(points, goals, size) for size in sizes}
        for step, order_states, batch in batches(first, len(x), orders, self.device, start):
            if save and step > start:
                save(step, functools.partial(state, order_states))
            if step in evaluate_at and not any(going := observe(step)):
                return
            if step in drops or step in evaluate_at or step == start:
                rates = [cell.learning_rate(step) * on for cell, on in zip(cells, going, strict=True)]
                self.rate.copy_(torch.tensor(rates, dtype=torch.float64).view(-1, 1, 1))
            ready[batch.shape[1]](batch)
        if first.steps in evaluate_at:
            observe(first.steps)

    def _goals(self, y: Tensor) -> Tensor:
        """What the outputs are compared with, one row a point: one-hot classes, or +-1 and the second output's 0."""
        goals = targets(y, dataclasses.replace(self.cells[0], loss="squared"), self.dtype)
        return torch.nn.functional.pad(goals, (0, 1)) if self.d_out == 1 else goals

    def _prepare(self, points: Tensor, goals: Tensor, size: int) -> Callable[[Tensor], None]:
        """A function of a batch of indices (networks, size) that makes one step; its buffers are made once."""
        weights, networks, depth = self.weights, len(self.cells), len(self.weights)
        index = torch.zeros(networks * size, dtype=torch.int64, device=self.device)
        x = torch.empty(networks * size, points.shape[1], dtype=self.dtype, device=self.device)
        goal = torch.empty(networks * size, goals.shape[1], dtype=self.dtype, device=self.device)
        hidden = [x.view(networks, size, -1), *(self._blocks(size, len(w[0])) for w in weights[:-1])]
        output = self._blocks(goals.shape[1], size)  # a softmax over columns is many times faster than over rows
        spare = [self._blocks(size, len(weights[0][0])) for _ in range(2)]
        cross_entropy = self.cells[0].loss == "cross_entropy"

        def step() -> None:
            torch.index_select(points, 0, index, out=x)
            torch.index_select(goals, 0, index, out=goal)
            for weight, below, h in zip(weights[:-1], hidden[:-1], hidden[1:], strict=True):
                torch.bmm(below, weight.mT, out=h).relu_()
            torch.bmm(weights[-1], hidden[-1].mT, out=output).div_(self.alpha)
            # d loss / d f = (softmax(f) or f) - y, times rate/(alpha * size): all that each update is linear in
            back = torch.softmax(output, 1) if cross_entropy else output
            back = back.sub_(goal.view(networks, size, -1).mT).mul_(self.rate / (self.alpha * size)).mT
            for layer in reversed(range(depth)):
                if layer:
                    below = torch.bmm(back, weights[layer], out=spare[layer % 2])
                    torch.ops.aten.threshold_backward.grad_input(below, hidden[layer], 0, grad_input=below)
                weights[layer].baddbmm_(back.mT, hidden[layer], alpha=-1)
                back = below if layer else None

        replay = self._capture(step) if str(self.device).startswith("cuda") else step

        def run(batch: Tensor) -> None:
            index.view(networks, size).copy_(batch)
            replay()

        return run

    def _capture(self, step: Callable[[], None]) -> Callable[[], None]:
        """The step as a CUDA graph. Warming up is done at rate 0, which leaves the weights as they are."""
        with torch.cuda.device(self.device):  # a graph is captured on the current device
            side, rate = _side_stream(torch.cuda.current_device()), self.rate.clone()
            self.rate.zero_()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    step()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=side):
                step()
            self.rate.copy_(rate)
        return graph.replay

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
            h = deque(self._hidden(part), maxlen=1).pop()  # the last one: all of them together would take much memory
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
        found = []
        for part in self._points(x).split(max(1, JACOBIAN_FLOATS // (width * outputs))):
            active = [h.sign() for h in self._hidden(part)]
            rows, other = self._blocks(len(part), outputs, width), self._blocks(len(part), outputs, width)
            torch.mul(active[-1][:, :, None], self.weights[-1][:, None], out=rows)
            for weight, mask in zip(self.weights[-2:0:-1], active[-2::-1], strict=True):
                torch.bmm(rows.flatten(1, 2), weight, out=other.flatten(1, 2))
                rows, other = other.mul_(mask[:, :, None]), rows
            jacobians = (r[:, : self.d_out] @ first for r, first in zip(rows, firsts, strict=True))
            found.append(torch.stack([gram_eigenvalues(jacobian) for jacobian in jacobians]))
        return torch.cat(found, 1) / self.alpha.double().square()
