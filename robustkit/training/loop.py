"""One plain loop for any module: the reference that the faster engine is compared with."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..cell import Cell
from ..data import stream_generator
from ..networks import build
from ..stability import gram_eigenvalues, jacobian
from .checkpoint import Saved

CHUNK = 1_000  # points evaluated at once


def targets(y: Int[Tensor, " n"], cell: Cell, dtype: torch.dtype) -> Tensor:
    """What the outputs are compared with: classes; one-hot rows under squared loss; +-1 for the parity of the class."""
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


def batches(
    cell: Cell, n: int, orders: Sequence[torch.Generator], device, start: int = 0
) -> Iterator[tuple[int, list[Tensor], Tensor]]:
    """Each step from `start`, with the states of `orders` before the epoch's shuffle, and a batch (networks, size) of n.

    Each epoch is a fresh shuffle from each of `orders` (CPU generators), cut into batches; the last, small one is kept.
    """
    per_epoch, size = cell.steps_per_epoch, cell.batch_size
    for step in range(start, cell.steps):
        position = step % per_epoch
        if position == 0 or step == start:
            states = [order.get_state() for order in orders]
            shuffles = torch.stack([torch.randperm(n, generator=order) for order in orders]).to(device)
        yield step, states, shuffles[:, position * size : (position + 1) * size]


def train(
    model: nn.Module,
    x: Float[Tensor, " n dim *more"],
    y: Tensor,
    cell: Cell,
    *,
    order: torch.Generator,
    evaluate_at: Collection[int],
    observe: Callable[[int], bool],
    augment: CropFlip | None = None,
    resume: Saved | None = None,
    save: Callable[[int, Callable[[], dict]], None] | None = None,
) -> None:
    """Stochastic gradient descent on `model` as `cell` says, in `batches` of points x with `targets` y.

    `observe(step)` is called before each step of `evaluate_at` (and after the last, if cell.steps is among them), with
    the model in evaluation mode; training ends early when it returns False. `augment` changes each batch.
    `save(step, state)` is called before each step, and before `observe`; training resumes from what `state()` returned.
    """
    loss_of, forward = loss_function(cell.loss), _by_size(model, x, cell.batch_size)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=cell.lr, momentum=cell.momentum, weight_decay=cell.weight_decay
    )
    generators = {"order": order} | ({"augment": augment.generator} if augment else {})
    drops, start = {0, *(round(fraction * cell.steps) for fraction in cell.milestones)}, 0
    if resume:
        start = resume.step
        for name, part in (("model", model), ("optimizer", optimizer)):
            part.load_state_dict(resume.state[name])
        for name, generator in generators.items():
            generator.set_state(resume.state[name])

    def state(order_state: Tensor) -> dict:
        parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        parts |= {name: generator.get_state() for name, generator in generators.items()}
        return parts | {"order": order_state}

    def look(step: int) -> bool:
        model.eval()
        going = observe(step)
        model.train()
        return going

    model.train()
    for step, (order_state,), (batch,) in batches(cell, len(x), [order], x.device, start):
        if save and step > start:
            save(step, functools.partial(state, order_state))
        if step in evaluate_at and not look(step):
            break
        if step in drops or step == start:
            optimizer.param_groups[0]["lr"] = cell.learning_rate(step)
        points = augment(x[batch]) if augment else x[batch]
        optimizer.zero_grad()
        loss_of(forward(points), y[batch]).backward()
        optimizer.step()
    else:
        if cell.steps in evaluate_at:
            look(cell.steps)
    model.eval()


def _by_size(model: nn.Module, x: Tensor, size: int) -> Callable[[Tensor], Tensor]:
    """The model; on a GPU a ResNet takes batches of this size as CUDA graphs: launching its kernels takes longer.

    Warming up moves the running statistics of batch normalisation, which are put back. Each batch is copied into the
    sample, which must not be a view of x.
    """
    if not (x.is_cuda and any(isinstance(module, nn.BatchNorm2d) for module in model.modules())):
        return model
    gc.collect()  # a model with graphs refers to itself: without this, the one before would keep its memory
    plain, before = model.forward, {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    with torch.cuda.device(x.device):  # a graph is captured on the current device
        torch.cuda.make_graphed_callables(model, (x[:size].clone(memory_format=torch.channels_last),))
    model.load_state_dict(before)
    return lambda points: model(points) if len(points) == size else plain(points)


class CropFlip:
    """Shift each image by up to 4 pixels both ways and mirror every second one, each by a draw of its own.

    What comes in at an edge is black: the least value of each channel over the training points x, which is that of
    pixel 0 under any scaling that keeps it constant. `generator` is a CPU generator, whatever the device.
    Source: the recipe that workshop E.3 links to (crop with padding 4, horizontal flip).
    """

    PAD = 4

    def __init__(self, x: Float[Tensor, " n channels height width"], generator: torch.Generator):
        self.black, self.generator = x.amin((0, 2, 3))[:, None, None], generator

    def __call__(self, images: Float[Tensor, " n channels height width"]) -> Tensor:
        """A changed copy of a batch."""
        n, channels, high, wide = images.shape
        shift = torch.randint(2 * self.PAD + 1, (n, 2, 1), generator=self.generator).to(images.device)
        mirror = (torch.rand(n, 1, generator=self.generator) < 0.5).to(images.device)
        canvas = self.black.expand(n, channels, high + 2 * self.PAD, wide + 2 * self.PAD).clone()
        canvas[:, :, self.PAD : -self.PAD, self.PAD : -self.PAD] = images
        along = torch.arange(wide, device=images.device)
        rows = shift[:, 0] + torch.arange(high, device=images.device)  # (n, height)
        columns = shift[:, 1] + torch.where(mirror, along.flip(0), along)  # (n, width)
        each = torch.arange(n, device=images.device)[:, None, None]
        return canvas[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class Loop:
    """One network under `train`, with the interface of `ensemble.Ensemble`: its slow twin, for any module."""

    name = "loop"

    def __init__(self, cells: Sequence[Cell], device: str, dtype: torch.dtype):
        (self.cell,) = self.cells = list(cells)
        self.dtype, self.model = dtype, build(self.cell).to(device, dtype, memory_format=torch.channels_last).eval()

    def network(self, s: int) -> list[Tensor]:
        """Weights of the network, s = 0, without biases and the parameters of normalisation."""
        return [weight.detach() for weight in self.model.weights]

    def train(
        self, x: Tensor, y: Tensor, *, evaluate_at: Collection[int], observe: Callable, resume=None, save=None
    ) -> None:
        """`train` on points x with classes y; `observe`, `resume` and what `save` is given are lists of one."""
        y, seed = targets(y, self.cell, self.dtype), self.cell.seed
        order = stream_generator(seed, "order")
        crop = CropFlip(x, stream_generator(seed, "augment")) if self.cell.augment == "crop_flip" else None
        options = {
            "evaluate_at": evaluate_at,
            "observe": lambda step: observe(step)[0],
            "resume": resume and resume[0],
        }
        if save:
            options["save"] = lambda step, state: save(step, lambda: [state()])
        train(self.model, x, y, self.cell, order=order, augment=crop, **options)

    @torch.no_grad()
    def logits(self, x: Tensor) -> Float[Tensor, " 1 n d_out"]:
        """f(x)."""
        return torch.cat([self.model(part) for part in x.split(CHUNK)])[None]

    def eigenvalues(self, x: Tensor) -> Float[Tensor, " 1 n rank"]:
        """Eigenvalues of J J^T at each point, ascending, float64; the rank is at most min(d_out, d_in)."""
        chunk = 64 if self.cell.model == "resnet" and x.device.type == "cpu" else 256  # bounds memory
        return torch.cat([gram_eigenvalues(jacobian(self.model, part)) for part in x.split(chunk)])[None]
