"""Run what is missing. The only file that joins training, metrics and the store."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, wait

import numpy
import pandas
import torch
from tqdm.auto import tqdm

from . import store
from .config import FRACTIONS, INSTANTS, ROOT, Cell, InputError, check_number, dataset_info, schedule_name
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


def pick_device(device: str = "auto") -> str:
    """ "auto" is the first GPU if there is one, else the CPU. Raises InputError if the device is not there."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device is {device!r}, but must be auto, cpu or a GPU that is there ({error})") from error
    return device


# ---------------------------------------------------------------------------------------------- one cell


@functools.lru_cache(maxsize=2)
def _dataset(name: str, scaling: str, device: str, dtype: torch.dtype, _digest: str) -> Dataset:
    return load_dataset(name, scaling=scaling, device=device, dtype=dtype)


def build(cell: Cell) -> FCN:
    """The network of a cell as initialised from its seed, on the CPU."""
    if cell.model != "fcn":
        raise InputError(f"model is {cell.model!r}, which is not written yet; use fcn")
    return FCN(
        width=cell.width, depth=cell.depth, d_in=cell.d_in, d_out=cell.d_out, init=cell.init, power=cell.power,
        gain=cell.gain, alpha=cell.alpha, generator=[stream_generator(cell.seed, "weights", n) for n in range(cell.depth)],
    )  # fmt: skip


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
        return cell.stop_loss is None or loss > cell.stop_loss

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
    return _row(cell, status, device, started, measures=measures, reason=reason)


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


def _row(cell: Cell, status: str, device: str, started: float, *, measures: dict, reason: str | None) -> dict:
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


def _measure_safely(cell: Cell, device: str, deadline: float) -> dict | None:
    """A row whatever happens: status failed if the cell raises, None if time ran out."""
    started = time.time()
    try:
        with _one_thread(device):
            return measure(cell, device, deadline)
    except OutOfTimeError:
        return None
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return _row(cell, "failed", device, started, measures=dict.fromkeys(MEASURES), reason=reason)


@contextlib.contextmanager
def _one_thread(device: str):
    # One CPU thread a training: several workers beat several threads, and the bits do not depend on the machine.
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# ---------------------------------------------------------------------------------------------- many cells


def missing(cells: Sequence[Cell], rows: Sequence[dict]) -> list[Cell]:
    """The cells without a finished row (a failed row does not count), cheapest first."""
    done = {row["key"] for row in rows if row["status"] != "failed"}
    return sorted((c for c in cells if c.key not in done), key=lambda c: (c.flops, c.seed))


def run(
    cells: Sequence[Cell], *, device: str = "auto", workers: int = 1, executor: Executor | None = None, minutes=None
) -> pandas.DataFrame:
    """Train what the store lacks, save each row as it comes, and return the rows of `cells`, one a cell.

    workers: processes on the CPU, one thread each (a GPU takes one). executor: any concurrent.futures executor, used
    instead. minutes: stop in time; what is not finished then is left for the next run.
    Raises InputError, before any training, on an empty or repeated cell list, a bad device or a folder that
    cannot be written. A cell that fails has status "failed" with its reason, and the others go on.
    """
    cells = list(cells)
    if not cells:
        raise InputError("cells is empty, but must hold at least one Cell")
    if len({cell.key for cell in cells}) != len(cells):
        raise InputError("cells holds the same training twice; each must be there once")
    workers = check_number("workers", workers, low=1, integer=True)
    minutes = check_number("minutes", minutes, above=0, optional=True)
    device = pick_device(device)
    todo = missing(cells, store.load_rows())
    if todo:
        _check_writable()
        for name, scaling in {(c.dataset, c.scaling) for c in todo}:
            load_dataset(name, scaling=scaling)  # a missing or damaged file is said once, before any training
        deadline = time.time() + 60 * minutes if minutes else math.inf
        with _Progress(todo) as progress:
            for row in _rows(todo, device, workers, executor, deadline):
                store.append(row)
                progress.add(row)
    return frame(cells)


def _check_writable() -> None:
    try:
        store.local_path().parent.mkdir(parents=True, exist_ok=True)
        with open(store.local_path(), "ab"):
            pass
    except OSError as error:
        raise InputError(
            f"results folder {store.local_path().parent} cannot be written ({error.strerror})"
        ) from error


def _rows(todo, device, workers, executor, deadline):
    """Rows as they finish; nothing new is started after the deadline."""
    if executor is None and (workers == 1 or device != "cpu" or len(todo) == 1):
        for cell in todo:
            if (row := _measure_safely(cell, device, deadline)) is None:
                return
            yield row
        return
    own = executor is None
    if own:
        spawn = multiprocessing.get_context("spawn")
        executor = ProcessPoolExecutor(min(workers, len(todo)), mp_context=spawn, initializer=_start_worker)
    queue, pending = iter(todo), set()
    try:
        while True:
            while len(pending) < max(workers, 1) and time.time() < deadline and (cell := next(queue, None)):
                pending.add(executor.submit(_measure_safely, cell, device, deadline))
            if not pending:
                return
            finished, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from (row for row in (future.result() for future in finished) if row is not None)
    finally:
        if own:
            for process in list((executor._processes or {}).values()):
                process.kill()
            executor.shutdown(cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's: it keeps what is finished and stops us

    def leave_with_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


class _Progress:
    """A bar with the time left in a terminal; one line a finished cell elsewhere."""

    def __init__(self, todo: Sequence[Cell]):
        self.count, self.done, self.bad = len(todo), 0, 0
        self.cost = {cell.key: relative_cost(cell) for cell in todo}
        bar = "{desc} {percentage:3.0f}%|{bar}| {elapsed} passed, {remaining} left"
        self.bar = tqdm(total=sum(self.cost.values()), bar_format=bar, disable=None, file=sys.stderr)
        self.started, self.spent = time.time(), 0.0

    def __enter__(self):
        self.bar.set_description_str(f"0/{self.count} trained")
        return self

    def add(self, row: dict) -> None:
        self.done += 1
        self.bad += row["status"] != "ok"
        self.spent += self.cost[row["key"]]
        self.bar.update(self.cost[row["key"]])
        self.bar.set_description_str(
            f"{self.done}/{self.count} trained" + (f", {self.bad} not ok" if self.bad else "")
        )
        if self.bar.disable and not os.environ.get("TQDM_DISABLE"):
            left = (time.time() - self.started) * (sum(self.cost.values()) / self.spent - 1)
            cell, value = row["cell"], row["measures"]["stability"]
            said = f"P/eps {value:.4g}" if value is not None else f"{row['status']}: {row['reason']}"
            where = f"{cell['init']}, depth {cell['depth']}, width {cell['width']}, seed {cell['seed']}"
            print(
                f"[{self.done}/{self.count}] {where}: {said} ({row['seconds']:.0f} s; {left:.0f} s left)", flush=True
            )

    def __exit__(self, *_):
        self.bar.close()


def relative_cost(cell: Cell) -> float:
    """Steps times a fixed cost a layer and a cost a weight: good enough to share out a progress bar."""
    return cell.steps * (1 + cell.depth + cell.parameters / 10_000)


# ---------------------------------------------------------------------------------------------- frames


def frame(cells: Sequence[Cell], *, shipped: bool = True, local: bool = True) -> pandas.DataFrame:
    """Tidy rows of these cells, one a cell that has one; `.attrs["missing"]` lists the cells that have none."""
    rows = {row["key"]: row for row in store.load_rows(shipped=shipped, local=local)}
    found = to_frame([rows[cell.key] for cell in cells if cell.key in rows])
    found.attrs["missing"] = [cell for cell in cells if cell.key not in rows]
    return found


def to_frame(rows: Sequence[dict]) -> pandas.DataFrame:
    """Rows of the store as columns: the cell's fields, then key, status, schedule, measures, engine and seconds."""
    columns = [field.name for field in dataclasses.fields(Cell)]
    columns += ["key", "status", "reason", "schedule", *MEASURES, "engine", "versions", "commit", "seconds"]
    flat = [row | row["cell"] | row["measures"] for row in rows]
    for row in flat:
        row["schedule"] = schedule_name(row["epochs"], row["lr"])
    table = pandas.DataFrame(flat, columns=columns)
    numbers = [name for name in MEASURES if not name.endswith("_over_time") and name != "loss_at_stability"]
    return table.astype(dict.fromkeys(numbers, float))


def load() -> pandas.DataFrame:
    """Every row there is, shipped and local."""
    return to_frame(store.load_rows())
