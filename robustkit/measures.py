"""Train one cell and measure it: the row that everything else reads."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import platform
import subprocess
import time
from collections import Counter

import numpy
import torch

from .checks import InputError
from .config import FRACTIONS, INSTANTS, ROOT, Cell, dataset_info
from .data import Dataset, fixed_points, load_dataset, stream_generator
from .networks import FCN
from .stability import gram_eigenvalues, jacobian, norm_in_ball
from .training import layer_movement, lazy_ratio, loss_function, targets, train

LOSS_POINTS = 10_000  # training points on which the loss is followed over time, the same for every network
CHUNK = 2_000  # points evaluated at once

MEASURES = (
    *("stability", "stability_sem", "stability_init", "stability_train", "lipschitz_mean", "lipschitz_max"),
    *("frobenius", "logit_norm", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "kappa"),
    *("loss_over_time", "kappa_over_time", "stability_over_time", "loss_at_stability", "movement_over_time"),
)


class OutOfTimeError(RuntimeError):
    """The time given ran out in the middle of a training, which is dropped."""


@functools.lru_cache(maxsize=2)
def _dataset(name: str, scaling: str, device: str, dtype: torch.dtype, _digest: str) -> Dataset:
    return load_dataset(name, scaling=scaling, device=device, dtype=dtype)


def build(cell: Cell) -> FCN:
    """The network of a cell as initialised from its seed, on the CPU."""
    if cell.model != "fcn":
        raise InputError(f"model is {cell.model!r}, which is not written yet; use fcn")
    generators = [stream_generator(cell.seed, "weights", layer) for layer in range(cell.depth)]
    shape = {
        name: getattr(cell, name) for name in ("width", "depth", "d_in", "d_out", "init", "power", "gain", "alpha")
    }
    return FCN(**shape, generator=generators)


def measure(cell: Cell, device: str = "cpu", deadline: float = math.inf) -> dict:
    """Train one cell and return its row. Raises OutOfTimeError when time.time() passes the deadline."""
    started = time.time()
    dtype = torch.float64 if cell.precision == "float64" else torch.float32
    torch.set_float32_matmul_precision("high" if cell.precision == "tf32" else "highest")
    data = _dataset(cell.dataset, cell.scaling, device, dtype, dataset_info(cell.dataset).sha256)
    x, y = data.x_train[: cell.train_points], data.y_train[: cell.train_points]
    y_train, y_test = targets(y, cell, dtype), targets(data.y_test, cell, dtype)
    test = fixed_points(len(data.x_test), cell.points, "test points").to(device)
    same = fixed_points(len(x), cell.points, "train points").to(device)
    followed = fixed_points(len(x), LOSS_POINTS, "loss points").to(device)
    x_test, x_same, x_followed, y_followed = data.x_test[test], x[same], x[followed], y_train[followed]

    model = build(cell).to(device, dtype)
    weights = list(model.parameters())
    start = [w.detach().clone() for w in weights]
    loss_steps = Counter(round(f * cell.steps) for f in INSTANTS)  # a short training meets a step more than once
    stability_steps = Counter(round(f * cell.steps) for f in FRACTIONS)
    trace = {name: [] for name in MEASURES if name.endswith("_over_time") or name == "loss_at_stability"}
    status, reason = "ok", None

    def observe(step: int) -> bool:
        nonlocal status, reason
        if time.time() > deadline:
            raise OutOfTimeError
        loss, _ = evaluate(model, x_followed, y_followed, cell)
        if not math.isfinite(loss):
            status, reason = "diverged", f"the training loss is {loss} at step {step}"
            return False
        if times := loss_steps[step]:
            trace["loss_over_time"] += [loss] * times
            trace["kappa_over_time"] += [lazy_ratio(weights, start)] * times
        if times := stability_steps[step]:
            trace["stability_over_time"] += [ball_norms(model, x_test)[0].mean().item()] * times
            trace["loss_at_stability"] += [loss] * times
            trace["movement_over_time"] += [layer_movement(weights, start)] * times
        return not (cell.stop_loss and loss_steps[step] and loss <= cell.stop_loss)

    order = stream_generator(cell.seed, "order")
    train(model, x, y_train, cell, order=order, instants={*loss_steps, *stability_steps}, observe=observe)
    measures = dict.fromkeys(MEASURES) | trace
    if status == "ok":
        values, eigenvalues = ball_norms(model, x_test)
        with torch.no_grad():
            logits = model(x_test).double()
        lipschitz = eigenvalues[:, -1].sqrt()
        measures["stability"] = values.mean().item()
        measures["stability_sem"] = (values.std() / math.sqrt(len(values))).item() if len(values) > 1 else None
        measures["stability_init"] = trace["stability_over_time"][0]
        measures["stability_train"] = ball_norms(model, x_same)[0].mean().item()
        measures["lipschitz_mean"], measures["lipschitz_max"] = lipschitz.mean().item(), lipschitz.max().item()
        measures["frobenius"] = eigenvalues.sum(1).sqrt().mean().item()
        measures["logit_norm"] = (logits - logits.mean(1, keepdim=True)).norm(dim=1).mean().item()
        measures["train_loss"], measures["train_accuracy"] = evaluate(model, x, y_train, cell)
        measures["test_loss"], measures["test_accuracy"] = evaluate(model, data.x_test, y_test, cell)
        measures["kappa"] = lazy_ratio(weights, start)
        bad = [name for name in MEASURES if not _finite(measures[name])]
        if bad or measures["stability"] == 0:
            status = "diverged"
            reason = f"{bad[0]} is not finite" if bad else "every hidden unit is dead: the stability is exactly 0"
            measures = dict.fromkeys(MEASURES) | {name: value for name, value in trace.items() if name not in bad}
    return row_of(cell, status, device, started, measures=measures, reason=reason)


def _finite(value) -> bool:
    return value is None or (all(map(_finite, value)) if isinstance(value, list) else math.isfinite(value))


@torch.no_grad()
def evaluate(model, x, y, cell: Cell) -> tuple[float, float]:
    """Mean loss and accuracy of a model on points; for one output, accuracy is agreement in sign."""
    loss_of, total, right = loss_function(cell.loss), 0.0, 0
    for part, target in zip(x.split(CHUNK), y.split(CHUNK), strict=True):
        output = model(part)
        total += loss_of(output, target).item() * len(part)
        if cell.target == "parity":
            right += ((output > 0) == (target > 0)).sum().item()
        else:
            classes = target if target.ndim == 1 else target.argmax(1)
            right += (output.argmax(1) == classes).sum().item()
    return total / len(x), right / len(x)


def ball_norms(model, x) -> tuple[torch.Tensor, torch.Tensor]:
    """E_u ||J(x) u|| at each point (n,), and the eigenvalues of J J^T there, ascending (n, min(d_out, d_in))."""
    eigenvalues = torch.cat([gram_eigenvalues(jacobian(model, part)) for part in x.split(256)])
    return norm_in_ball(eigenvalues, x[0].numel()), eigenvalues


def row_of(cell: Cell, status: str, device: str, started: float, *, measures: dict, reason: str | None) -> dict:
    on_gpu = device.startswith("cuda")
    return {
        "key": cell.key,
        "status": status,
        "cell": dataclasses.asdict(cell),
        "reason": reason,
        "measures": measures,
        "engine": {
            "name": "loop",
            "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
            "dtype": "float64" if cell.precision == "float64" else "float32",
            "tf32": on_gpu and cell.precision == "tf32",
            "threads": torch.get_num_threads(),
            "group": 1,
        },
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__},
        "commit": _commit(),
        "seconds": round(time.time() - started, 3),
    }


@functools.cache
def _commit() -> str | None:
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return None
