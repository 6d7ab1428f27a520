"""Train one cell and measure it: the row that everything else reads."""

from __future__ import annotations

import contextlib
import functools
import math
import platform
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence

import numpy
import torch

from ..cell import EVALUATION_POINTS, FRACTIONS, Cell
from ..data import Dataset, fixed_points, load_dataset
from ..datasets import dataset_info
from ..files import ROOT
from ..movement import layer_movement, lazy_ratio
from ..stability import norm_in_ball
from . import checkpoint
from .ensemble import Ensemble, batchable
from .loop import CHUNK, Loop, loss_function, targets

# Training points on which the loss is followed over time, the same for every network of a family.
LOSS_POINTS = {"fcn": 10_000, "cnn": 1_000, "resnet": 1_000}

MEASURES = (
    *("stability", "stability_sem", "stability_init", "stability_train", "lipschitz_mean", "lipschitz_max"),
    *("frobenius", "logit_norm", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "kappa"),
    *("loss_over_time", "kappa_over_time", "stability_over_time", "loss_at_stability", "movement_over_time"),
)
EPOCHS = ("test_accuracy_over_time", "best_test_accuracy")  # of a ResNet: after each epoch, and the best of them
STOPS = ("stop_step",)  # under stop_every: the step at which training ended


class OutOfTimeError(RuntimeError):
    """The time given ran out in the middle of a training, which is dropped."""


@functools.lru_cache(maxsize=2)
def _dataset(name: str, scaling: str, device: str, dtype: torch.dtype, _digest: str) -> Dataset:
    return load_dataset(name, scaling=scaling, device=device, dtype=dtype)


def engine_of(cell: Cell) -> type:
    """What trains a cell: Ensemble where it can, else Loop."""
    return Ensemble if batchable(cell) else Loop


def measure(cell: Cell, device: str = "cpu", deadline: float = math.inf) -> dict:
    """Train one cell and return its row; see `measure_group`."""
    return measure_group([cell], device, deadline)[0]


@contextlib.contextmanager
def one_thread(device: str):
    # One CPU thread a training: several workers beat several threads, and the bits do not depend on the machine.
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_its_precision(function):
    """Let a function of a group of cells run in the precision they ask for, and put back what was set.

    Convolutions have a switch of their own, which torch leaves on.
    """

    @functools.wraps(function)
    def run(cells: Sequence[Cell], *others, **named):
        before, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        torch.set_float32_matmul_precision("high" if cells[0].precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = cells[0].precision == "tf32"
        try:
            return function(cells, *others, **named)
        finally:
            torch.set_float32_matmul_precision(before)
            torch.backends.cudnn.allow_tf32 = convolutions

    return run


@in_its_precision
def measure_group(
    cells: Sequence[Cell], device: str = "cpu", deadline: float = math.inf, *, engine: type | None = None
) -> list[dict]:
    """Train the cells of one group of `ensemble.groups` and return their rows.

    engine: Ensemble or Loop; None takes the fast one where it can train the cell.
    A long training leaves a checkpoint a minute, from which the next call for the same cells goes on.
    Raises OutOfTimeError when time.time() passes the deadline.
    """
    started, cell = time.time(), cells[0]
    if started > deadline:
        raise OutOfTimeError
    epochs = cell.model == "resnet"
    resume = checkpoint.load_together([c.key for c in cells], device)
    dtype = torch.float64 if cell.precision == "float64" else torch.float32
    data = _dataset(cell.dataset, cell.scaling, device, dtype, dataset_info(cell.dataset).sha256)
    x, y = data.x_train[: cell.train_points], data.y_train[: cell.train_points]
    y_train, y_test = targets(y, cell, dtype), targets(data.y_test, cell, dtype)
    test = fixed_points(len(data.x_test), cell.points, "test points").to(device)
    same = fixed_points(len(x), cell.points, "train points").to(device)
    followed = fixed_points(len(x), LOSS_POINTS[cell.model], "loss points").to(device)
    x_test, x_same, x_followed, y_followed = data.x_test[test], x[same], x[followed], y_train[followed]

    nets = (engine or engine_of(cell))(cells, device, dtype)
    several = range(len(cells))
    start = [[w.clone() for w in nets.network(s)] for s in several]
    loss_steps = Counter(
        round(f * cell.steps) for f in EVALUATION_POINTS
    )  # a short training meets a step more than once
    stability_steps = Counter(round(f * cell.steps) for f in FRACTIONS)
    stop_steps = frozenset().union(*(c.stop_steps for c in cells))
    columns = (*MEASURES, *(EPOCHS if epochs else ()), *(STOPS if cell.stop_every else ()))
    names = [name for name in columns if name.endswith("_over_time") or name == "loss_at_stability"]
    traces, reasons = [{name: [] for name in names} for _ in several], [None for _ in several]
    going = [True for _ in several]
    if resume[0]:
        traces, reasons, going = ([saved.notes[name] for saved in resume] for name in ("trace", "reason", "going"))
        started -= resume[0].notes["seconds"]

    def observe(step: int) -> list[bool]:
        """Follow the networks that go on; one that diverged or met its stop_loss does not."""
        if epochs and step and step % cell.steps_per_epoch == 0:
            traces[0]["test_accuracy_over_time"] += accuracies(nets, data.x_test, data.y_test, cell)
        if not loss_steps[step] and not stability_steps[step] and step not in stop_steps:
            return going
        losses = mean_losses(nets, x_followed, y_followed, cell)
        values = ball_norms(nets, x_test)[0].mean(1).tolist() if stability_steps[step] else None
        for s in several:
            if going[s] and not math.isfinite(losses[s]):
                going[s], reasons[s] = False, f"the training loss is {losses[s]} at step {step}"
            if not going[s]:
                continue
            weights, trace = nets.network(s), traces[s]
            if times := loss_steps[step]:
                trace["loss_over_time"] += [losses[s]] * times
                trace["kappa_over_time"] += [lazy_ratio(weights, start[s])] * times
            if times := stability_steps[step]:
                trace["stability_over_time"] += [values[s]] * times
                trace["loss_at_stability"] += [losses[s]] * times
                trace["movement_over_time"] += [layer_movement(weights, start[s])] * times
            going[s] = not (step in stop_steps and losses[s] <= (cells[s].stop_loss or 0))
            if cell.stop_every:
                trace["stop_step"] = step
        return going

    def notes(s: int) -> dict:
        return {"trace": traces[s], "reason": reasons[s], "going": going[s], "seconds": time.time() - started}

    instants = {*loss_steps, *stability_steps, *stop_steps}
    if epochs:
        instants |= set(range(0, cell.steps + 1, cell.steps_per_epoch))
    save = _saver(cells, device, deadline, notes)
    nets.train(x, y, evaluate_at=instants, observe=observe, resume=resume, save=save)
    values, eigenvalues = ball_norms(nets, x_test)
    same_values, _ = ball_norms(nets, x_same)
    logits = nets.logits(x_test).double()
    train_losses, test_losses = mean_losses(nets, x, y_train, cell), mean_losses(nets, data.x_test, y_test, cell)
    train_accuracies, test_accuracies = (
        accuracies(nets, *part, cell) for part in ((x, y), (data.x_test, data.y_test))
    )
    rows = []
    for s in several:
        measures = dict.fromkeys(columns) | traces[s]
        if not reasons[s]:
            lipschitz = eigenvalues[s, :, -1].sqrt()
            sem = (values[s].std() / math.sqrt(len(values[s]))).item() if len(values[s]) > 1 else None
            final = {
                "stability": values[s].mean().item(),
                "stability_sem": sem,
                "stability_init": traces[s]["stability_over_time"][0],
                "stability_train": same_values[s].mean().item(),
                "lipschitz_mean": lipschitz.mean().item(),
                "lipschitz_max": lipschitz.max().item(),
                "frobenius": eigenvalues[s].sum(1).sqrt().mean().item(),
                "logit_norm": (logits[s] - logits[s].mean(1, keepdim=True)).norm(dim=1).mean().item(),
                "train_loss": train_losses[s],
                "train_accuracy": train_accuracies[s],
                "test_loss": test_losses[s],
                "test_accuracy": test_accuracies[s],
                "kappa": lazy_ratio(nets.network(s), start[s]),
            }
            if epochs:  # before the first step its running statistics are 0 and 1, which is no network anyone uses
                final["stability_init"] = None
                final["best_test_accuracy"] = max(traces[s]["test_accuracy_over_time"], default=None)
            bad = [name for name, value in (traces[s] | final).items() if not _finite(value)]
            if bad:
                reasons[s] = f"{bad[0]} is not finite"
                measures |= {name: None for name in bad if name in traces[s]}
            elif final["stability"] == 0:
                reasons[s] = "every hidden unit is dead: the stability is exactly 0"
            else:
                measures |= final
        status = "diverged" if reasons[s] else "ok"
        facts = {"engine": nets.name, "group": len(cells)}
        rows.append(row_of(cells[s], status, device, started, measures=measures, reason=reasons[s], **facts))
    return rows


def _saver(cells: Sequence[Cell], device: str, deadline: float, notes: Callable[[int], dict]):
    """What an engine calls before each step: a checkpoint now and then, and one more where time has run out."""
    due = time.time() + checkpoint.SECONDS

    def save(step: int, tensors: Callable[[], list[dict]]) -> None:
        nonlocal due
        began = time.time()
        if began < min(due, deadline):
            return
        for s, (cell, own) in enumerate(zip(cells, tensors(), strict=True)):
            checkpoint.save(cell.key, checkpoint.Saved(step, own, notes(s)), device)
        if began > deadline:
            raise OutOfTimeError
        took = time.time() - began
        due = time.time() + min(max(checkpoint.SECONDS, 20 * took), checkpoint.LONGEST)

    return save


def _finite(value) -> bool:
    return value is None or (all(map(_finite, value)) if isinstance(value, list) else math.isfinite(value))


def mean_losses(nets, x, y, cell: Cell) -> list[float]:
    """Mean loss of each network over points x with `targets` y."""
    loss_of, totals = loss_function(cell.loss), [0.0 for _ in nets.cells]
    for part, target in zip(x.split(CHUNK), y.split(CHUNK), strict=True):
        for s, outputs in enumerate(nets.logits(part)):
            totals[s] += loss_of(outputs, target).item() * len(part)
    return [total / len(x) for total in totals]


def accuracies(nets, x, y, cell: Cell) -> list[float]:
    """Share of points that each network classifies as y; for one output, agreement in sign with the parity of y."""
    right = [0 for _ in nets.cells]
    for part, classes in zip(x.split(CHUNK), y.split(CHUNK), strict=True):
        for s, outputs in enumerate(nets.logits(part)):
            hits = (
                (outputs[:, 0] > 0) == (classes % 2 == 1) if cell.target == "parity" else outputs.argmax(1) == classes
            )
            right[s] += hits.sum().item()
    return [count / len(x) for count in right]


def ball_norms(nets, x) -> tuple[torch.Tensor, torch.Tensor]:
    """E_u ||J(x) u|| of each network at each point (networks, n), and the eigenvalues of J J^T there, ascending."""
    eigenvalues = nets.eigenvalues(x)
    return torch.stack([norm_in_ball(values, x[0].numel()) for values in eigenvalues]), eigenvalues


def row_of(
    cell: Cell,
    status: str,
    device: str,
    started: float,
    *,
    measures: dict,
    reason: str | None,
    engine: str,
    group: int,
) -> dict:
    """A row as the store takes it; its seconds are its share of the group's."""
    on_gpu = device.startswith("cuda")
    return {
        "key": cell.key,
        "status": status,
        "cell": cell.as_dict(),
        "reason": reason,
        "measures": measures,
        "engine": {
            "name": engine,
            "device": torch.cuda.get_device_name(device) if on_gpu and torch.cuda.is_available() else device,
            "dtype": "float64" if cell.precision == "float64" else "float32",
            "tf32": on_gpu and torch.get_float32_matmul_precision() != "highest",
            "threads": torch.get_num_threads(),
            "group": group,
        },
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__},
        "commit": _commit(),
        "seconds": round((time.time() - started) / group, 3),
    }


@functools.cache
def _commit() -> str | None:
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return None
