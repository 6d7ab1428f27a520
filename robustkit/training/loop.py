"""Stochastic gradient descent as cells say, and the plain loop for any module.

Weights and the order of the data are drawn on the CPU, so that a seed names one network whatever the device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..cell import Cell
from ..data import stream_generator
from ..networks import build
from ..stability import gram, jacobian, spectrum
from .checkpoint import Saved
from .cuda_graph import GraphedStep

CHUNK = 1_000  # points evaluated at once


def targets(y: Int[Tensor, " n"], cell: Cell, dtype: torch.dtype) -> Tensor:
    """What outputs are compared with: classes; under squared loss one-hot rows, or +-1 for odd and even classes."""
    if cell.loss == "cross_entropy":
        return y
    if cell.target == "parity":
        return (2 * (y % 2) - 1).to(dtype)[:, None]
    return nn.functional.one_hot(y, cell.d_out).to(dtype)


def loss_function(loss: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Mean loss over the points: cross entropy, or half the squared distance ||f - y||^2 / 2 (NeurIPS Sec. 3)."""
    if loss == "cross_entropy":
        return nn.functional.cross_entropy
    return lambda output, target: (output - target).square().sum(1).mean() / 2


class Engine:
    """Networks of `cells` on one device, trained together; a subclass makes the steps and evaluates the networks."""

    def __init__(self, cells: Sequence[Cell], device: str, dtype: torch.dtype):
        self.cells, self.device, self.dtype = list(cells), device, dtype

    def train(
        self,
        x: Float[Tensor, " n dim *more"],
        y: Int[Tensor, " n"],
        *,
        evaluate_at: Collection[int],
        observe: Callable[[int], Sequence[bool]],
        resume: Sequence[Saved] | None = None,
        save: Callable[[int, Callable[[], list[dict]]], None] | None = None,
    ) -> None:
        """Stochastic gradient descent on points x with classes y, as the cells say.

        Each epoch is a fresh shuffle for each network, cut into batches; the last, small one is kept. `observe(step)`
        is called before each step of `evaluate_at` (and after the last, if its number is among them), and says which
        networks are trained further: the others keep their weights, and training ends where there are none left.
        `save(step, states)` is called before each step, and before `observe`; training resumes from what was saved,
        one per network and all of one step.
        """
        first, orders = self.cells[0], [stream_generator(cell.seed, "order") for cell in self.cells]
        steps, per_epoch, size = first.steps, first.steps_per_epoch, first.batch_size
        drops = {0, *(round(fraction * steps) for cell in self.cells for fraction in cell.milestones)}
        going, start, make_step = [True] * len(orders), 0, self._prepare(x, y)
        if resume:
            start = resume[0].step
            going = [bool(saved.state["going"]) for saved in resume]
            for order, saved in zip(orders, resume, strict=True):
                order.set_state(saved.state["generator.order"])
            self._restore([saved.state for saved in resume])
        for step in range(start, steps):
            position = step % per_epoch
            if position == 0 or step == start:
                order_states = [order.get_state() for order in orders]
                shuffles = torch.stack([torch.randperm(len(x), generator=order) for order in orders]).to(x.device)
            if save and step > start:
                save(step, functools.partial(self._states, order_states, going))
            if step in evaluate_at and not any(going := observe(step)):
                return
            if step in drops or step in evaluate_at or step == start:
                self._set_rates([cell.learning_rate(step) * on for cell, on in zip(self.cells, going, strict=True)])
            make_step(shuffles[:, position * size : (position + 1) * size])
        if steps in evaluate_at:
            observe(steps)

    def first_states(self) -> list[dict[str, Tensor]]:
        """What `save` would be given before any step: checkpoints have the same names, shapes and types."""
        orders = [stream_generator(cell.seed, "order").get_state() for cell in self.cells]
        return self._states(orders, [True] * len(orders))

    def _states(self, order_states: Sequence[Tensor], going: Sequence[bool]) -> list[dict[str, Tensor]]:
        parts = zip(self._own_states(), order_states, going, strict=True)
        return [own | {"generator.order": order, "going": torch.tensor(on)} for own, order, on in parts]


class Loop(Engine):
    """One network of any kind under autograd: the reference that `ensemble.Ensemble` is compared with.

    On a GPU a step of a whole batch is one CUDA graph per learning rate, crops and flips before it. There numbers do
    not repeat to the bit, since sums in the gradient of a convolution come in any order.
    """

    name = "loop"

    def __init__(self, cells: Sequence[Cell], device: str, dtype: torch.dtype):
        super().__init__(cells, device, dtype)
        (cell,) = cells
        self.model = build(cell).to(device, dtype, memory_format=torch.channels_last).eval()
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=cell.lr, momentum=cell.momentum, weight_decay=cell.weight_decay
        )
        self.augment_draws = stream_generator(cell.seed, "augment")

    def network(self, s: int) -> list[Tensor]:
        """Weights of the network (s = 0), without biases and the parameters of normalisation."""
        return [weight.detach() for weight in self.model.weights]

    def train(self, x: Tensor, y: Tensor, *, observe: Callable[[int], Sequence[bool]], **options) -> None:
        """As `Engine.train`; the model is in evaluation mode when observed, and at the end."""

        def look(step: int) -> Sequence[bool]:
            self.model.eval()
            going = observe(step)
            self.model.train()
            return going

        self.model.train()
        super().train(x, y, observe=look, **options)
        self.model.eval()

    def _prepare(self, x: Tensor, y: Tensor) -> Callable[[Tensor], None]:
        cell, goals = self.cells[0], targets(y, self.cells[0], self.dtype)
        model, optimizer, loss_of = self.model, self.optimizer, loss_function(cell.loss)
        augment = CropFlip(x, self.augment_draws) if cell.augment == "crop_flip" else None

        def step(points: Tensor, goal: Tensor) -> None:
            optimizer.zero_grad()
            loss_of(model(points), goal).backward()
            optimizer.step()

        self.graphed = graphed = GraphedStep(step)

        def make_step(batch: Tensor) -> None:
            points = augment(x[batch[0]]) if augment else x[batch[0]]
            (graphed if len(points) == cell.batch_size else step)(points, goals[batch[0]])

        return make_step

    def _set_rates(self, rates: Sequence[float]) -> None:
        (group,) = self.optimizer.param_groups
        if [group["lr"]] != rates:
            (group["lr"],) = rates
            self.graphed.forget()  # its graph has the learning rate as a constant

    def _own_states(self) -> list[dict[str, Tensor]]:
        state = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for number, parameter in enumerate(self.model.parameters()):
            if self.cells[0].momentum:
                momentum = self.optimizer.state[parameter].get("momentum_buffer", torch.zeros_like(parameter))
                state[f"momentum.{number}"] = momentum
        return [state | {"generator.augment": self.augment_draws.get_state()}]

    def _restore(self, states: Sequence[dict[str, Tensor]]) -> None:
        (state,) = states
        self.model.load_state_dict({name: state[f"model.{name}"] for name in self.model.state_dict()})
        for number, parameter in enumerate(self.model.parameters()):
            if (momentum := state.get(f"momentum.{number}")) is not None:
                self.optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(momentum)
        self.augment_draws.set_state(state["generator.augment"])

    @torch.no_grad()
    def logits(self, x: Tensor) -> Float[Tensor, " 1 n d_out"]:
        """f(x)."""
        return torch.cat([self.model(part) for part in x.split(CHUNK)])[None]

    def eigenvalues(self, x: Tensor) -> Float[Tensor, " 1 n rank"]:
        """Eigenvalues of J J^T at each point, ascending, float64; the rank is at most min(d_out, d_in)."""
        chunk = 64 if self.cells[0].model == "resnet" and x.device.type == "cpu" else 256  # bounds memory
        return spectrum(torch.cat([gram(jacobian(self.model, part)) for part in x.split(chunk)]))[None]


class CropFlip:
    """Shift each image by up to 4 pixels along both axes and mirror half of them, each by a draw of its own.

    What enters at an edge is black: the least value of each channel over the training points x, which is that of
    pixel 0 under any scaling that keeps it constant. `generator` is a CPU generator, whatever the device.
    Source: the recipe that workshop E.3 links to (crop with padding 4, horizontal flip).
    """

    PAD = 4

    def __init__(self, x: Float[Tensor, " n channels height width"], generator: torch.Generator):
        self.black, self.generator = x.amin((0, 2, 3))[:, None, None], generator

    def __call__(self, images: Float[Tensor, " n channels height width"]) -> Tensor:
        """A changed copy of a batch."""
        n, channels, high, wide = images.shape
        shift = torch.randint(2 * self.PAD + 1, (n, 2), generator=self.generator)
        draws = torch.cat([shift, torch.rand(n, 1, generator=self.generator) < 0.5], 1)
        if images.is_cuda:  # from pinned memory, so that nobody waits for the copy
            draws = draws.pin_memory().to(images.device, non_blocking=True)
        down, right, mirror = draws.split(1, 1)  # (n, 1) each
        canvas = self.black.expand(n, channels, high + 2 * self.PAD, wide + 2 * self.PAD).clone()
        canvas[:, :, self.PAD : -self.PAD, self.PAD : -self.PAD] = images
        along = torch.arange(wide, device=images.device)
        rows = down + torch.arange(high, device=images.device)  # (n, height)
        columns = right + torch.where(mirror > 0, along.flip(0), along)  # (n, width)
        each = torch.arange(n, device=images.device)[:, None, None]
        return canvas[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
