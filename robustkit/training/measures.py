"""What is measured on a run: the row that everything else reads."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import torch

from ..cell import EVALUATION_POINTS, Cell
from ..movement import layer_movement, lazy_ratio
from ..stability import norm_in_ball
from .group import GroupRun, OutOfTimeError, accuracies, mean_losses, torch_set_for
from .loop import targets

MEASURES = (
    *("stability", "stability_sem", "stability_init", "stability_train", "lipschitz_mean", "lipschitz_max"),
    *("frobenius", "logit_norm", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "kappa"),
    *("loss_over_time", "kappa_over_time", "stability_over_time", "loss_at_stability", "movement_over_time"),
)
EPOCHS = ("test_accuracy_over_time", "best_test_accuracy")  # of a ResNet: after each epoch, and the best of them
STOPS = ("stop_step",)  # under stop_every: the step at which training ended


class RunMeasures(GroupRun):
    """Loss and kappa at the EVALUATION_POINTS, stability and movement at the FRACTIONS, all MEASURES at the end."""

    columns, optional, scale = MEASURES, (*EPOCHS, *STOPS), "stability"

    def begin(self) -> None:
        steps, per_epoch = self.cell.steps, self.cell.steps_per_epoch
        self.start = [[weight.clone() for weight in self.nets.network(s)] for s in range(len(self.cells))]
        self.loss_times = Counter(round(f * steps) for f in EVALUATION_POINTS)
        self.loss_steps |= set(self.loss_times)
        if self.cell.model == "resnet":
            self.columns += EPOCHS
            self.other_steps = set(range(per_epoch, steps + 1, per_epoch))
        if self.cell.stop_every:
            self.columns += STOPS

    def observe(self, step: int, losses: list[float] | None) -> None:
        if step in self.other_steps:
            test_accuracies = accuracies(self.nets, self.data.x_test, self.data.y_test, self.cell)
            self.notes[0]["trace"]["test_accuracy_over_time"] += test_accuracies
        if losses is None:
            return
        loss_times, stability_times = self.loss_times[step], self.stability_times[step]
        values = ball_norms(self.nets, self.x_test)[0].mean(1).tolist() if stability_times else None
        for s, (note, start) in enumerate(zip(self.notes, self.start, strict=True)):
            if not note["going"]:
                continue
            trace, weights = note["trace"], self.nets.network(s)
            if loss_times:
                trace["loss_over_time"] += [losses[s]] * loss_times
                trace["kappa_over_time"] += [lazy_ratio(weights, start)] * loss_times
            if stability_times:
                trace["stability_over_time"] += [values[s]] * stability_times
                trace["loss_at_stability"] += [losses[s]] * stability_times
                trace["movement_over_time"] += [layer_movement(weights, start)] * stability_times
            if self.cell.stop_every:
                trace["stop_step"] = step

    def final(self, sound: Sequence[int]) -> Iterator[dict]:
        nets, cell, data = self.nets, self.cell, self.data
        values, eigenvalues = ball_norms(nets, self.x_test)
        train_values, _ = ball_norms(nets, self.x_train)
        logits = nets.logits(self.x_test).double()
        parts = {"train": (self.x, self.y), "test": (data.x_test, data.y_test)}
        losses = {part: mean_losses(nets, x, targets(y, cell, nets.dtype), cell) for part, (x, y) in parts.items()}
        right = {part: accuracies(nets, x, y, cell) for part, (x, y) in parts.items()}
        for s in sound:
            lipschitz, trace, n = eigenvalues[s, :, -1].sqrt(), self.notes[s]["trace"], len(values[s])
            measured = {
                "stability": values[s].mean().item(),
                "stability_sem": (values[s].std() / math.sqrt(n)).item() if n > 1 else None,
                # Before its first step a ResNet's running statistics are 0 and 1: no network that anyone uses.
                "stability_init": trace["stability_over_time"][0] if cell.model != "resnet" else None,
                "stability_train": train_values[s].mean().item(),
                "lipschitz_mean": lipschitz.mean().item(),
                "lipschitz_max": lipschitz.max().item(),
                "frobenius": eigenvalues[s].sum(1).sqrt().mean().item(),
                "logit_norm": (logits[s] - logits[s].mean(1, keepdim=True)).norm(dim=1).mean().item(),
                "train_loss": losses["train"][s],
                "train_accuracy": right["train"][s],
                "test_loss": losses["test"][s],
                "test_accuracy": right["test"][s],
                "kappa": lazy_ratio(nets.network(s), self.start[s]),
            }
            if cell.model == "resnet":
                measured["best_test_accuracy"] = max(trace["test_accuracy_over_time"], default=None)
            yield measured


def measure_group(
    cells: Sequence[Cell],
    device: str = "cpu",
    deadline: float = math.inf,
    kind: type[GroupRun] = RunMeasures,
    *,
    engine: type | None = None,
) -> list[dict]:
    """Train the cells of one group of `ensemble.groups` and return their rows.

    kind: RunMeasures, or a further measure of remeasure.FURTHER. engine: Ensemble or Loop; None takes the fast one
    where it can train the cell. Raises OutOfTimeError when time.monotonic() passes the deadline; see `GroupRun.rows`.
    """
    if time.monotonic() > deadline:
        raise OutOfTimeError
    with torch_set_for(cells[0], device):
        return kind(cells, device, engine).rows(deadline)


def measure(cell: Cell, device: str = "cpu", kind: type[GroupRun] = RunMeasures) -> dict:
    """Train one cell and return its row; see `measure_group`."""
    return measure_group([cell], device, kind=kind)[0]


def ball_norms(nets, x) -> tuple[torch.Tensor, torch.Tensor]:
    """E_u ||J(x) u|| of each network at each point (networks, n), and the eigenvalues of J J^T there, ascending."""
    eigenvalues = nets.eigenvalues(x)
    return torch.stack([norm_in_ball(values, x[0].numel()) for values in eigenvalues]), eigenvalues
