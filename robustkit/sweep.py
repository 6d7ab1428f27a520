"""Run what is missing: the only file that joins measuring and the store."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, wait

import pandas
import torch
from tqdm import tqdm

from . import store
from .checks import InputError, check_choice, check_number
from .config import FRACTIONS, INSTANTS, Cell, dataset_info, schedule_name
from .data import load_dataset, stream_generator
from .measures import LOSS_POINTS, MEASURES, OutOfTimeError, measure, row_of
from .networks import FCN
from .profiles import FIGURES, READINGS, grid, profile_cells, reading_cells
from .training import train


def pick_device(device: str = "auto") -> str:
    """ "auto" is the first GPU if there is one, else the CPU. Raises InputError if the device is not there."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(f"device is {device!r}, but must be auto, cpu or a GPU that is there ({error})") from error
    if found.type not in ("cpu", "cuda"):
        raise InputError(f"device is {device!r}, but must be auto, cpu, cuda, cuda:1, ...")
    return str(found)


def _measure_safely(cell: Cell, device: str, deadline: float) -> dict | None:
    """A row whatever happens: status failed if the cell raises, None if time ran out."""
    started = time.time()
    try:
        with one_thread(device):
            return measure(cell, device, deadline)
    except OutOfTimeError:
        return None
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return row_of(cell, "failed", device, started, measures=dict.fromkeys(MEASURES), reason=reason)


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
    queue, pending, limit = iter(todo), set(), workers if own else len(todo)
    try:
        while True:
            while len(pending) < limit and time.time() < deadline and (cell := next(queue, None)):
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
            power = "" if cell["power"] is None else f" {cell['power']:g}"
            where = f"{cell['init']}{power}, depth {cell['depth']}, width {cell['width']}, seed {cell['seed']}"
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


def collect(figure: str, profile: str, *, device: str = "auto", workers: int = 1, **choices) -> pandas.DataFrame:
    """Rows behind a figure, a reading or "all": "shipped" reads committed rows, other profiles train what is missing.

    choices: seeds, widths, depths in place of the profile's own (see `grid`).
    """
    check_choice("figure", figure, (*FIGURES, *READINGS, "all"))
    if figure == "all":
        cells = profile_cells(profile, **choices)
    else:
        cells = (reading_cells if figure in READINGS else grid)(figure, profile, **choices)
    return frame(cells, local=False) if profile == "shipped" else run(cells, device=device, workers=workers)


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


# ---------------------------------------------------------------------------------------------- what it will cost


def memory_bytes(cell: Cell) -> int:
    """Weights four times over (W, its gradient, W_0 and a spare), and the dataset twice, in bytes."""
    data = dataset_info(cell.dataset)
    size = 8 if cell.precision == "float64" else 4
    return size * (4 * cell.parameters + 2 * (data.n_train + data.n_test) * cell.d_in)


def estimate_seconds(cells: Sequence[Cell], device: str) -> float:
    """Seconds for all cells one after another, from a quick measurement of a step of each shape on this machine.

    Widths above 1024 are taken in proportion to their operations. Measuring adds a step's cost for every 192 points
    on which the loss is followed (a third of a step for 64), and one for every 3 Jacobians of 10 outputs.
    """
    total = 0.0
    for cell in cells:
        width = min(cell.width, 1024)
        step = _step_seconds(width, cell.depth, cell.d_in, cell.d_out, cell.batch_size, device)
        step *= cell.flops / dataclasses.replace(cell, width=width).flops
        looked = min(LOSS_POINTS, cell.train_points) * len(INSTANTS) / (3 * cell.batch_size)
        looked += 2 * len(FRACTIONS) * cell.points * cell.d_out / (3 * cell.batch_size)
        total += step * (cell.steps + looked)
    return total


@functools.cache
def _step_seconds(width: int, depth: int, d_in: int, d_out: int, batch: int, device: str) -> float:
    generator = stream_generator(0, "timing")
    points = min(20 * batch, dataset_info("mnist").n_train)
    cell = Cell(width=width, depth=depth, batch_size=batch, dataset="mnist", n_train=points, epochs=1)
    model = FCN(width=width, depth=depth, d_in=d_in, d_out=d_out, generator=generator).to(device)
    x = torch.rand(cell.train_points, d_in, generator=generator).to(device)
    y = torch.randint(d_out, (cell.train_points,), generator=generator).to(device)
    seconds = []
    with one_thread(device):
        for _ in range(3):
            started = time.perf_counter()
            train(model, x, y, cell, order=generator, instants=(), observe=lambda _: True)
            seconds.append((time.perf_counter() - started) / cell.steps)
    return min(seconds)
