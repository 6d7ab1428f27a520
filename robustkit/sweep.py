"""Run what is missing: the only file that joins measuring and the store."""

from __future__ import annotations

import dataclasses
import gc
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, wait

import pandas
import torch
from tqdm import tqdm

from . import checkpoint, store
from .checks import InputError, check_choice, check_number
from .config import Cell, schedule_name
from .cost import relative_cost
from .data import load_dataset
from .ensemble import groups
from .measures import EPOCHS, MEASURES, OutOfTimeError, measure_group, one_thread, row_of
from .profiles import CONTROLS, FIGURES, READINGS, control_cells, grid, profile_cells, reading_cells


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
    return "cpu" if found.type == "cpu" else str(found)


def _measure_safely(
    cells: Sequence[Cell], device: str, deadline: float, how: Callable | None = None
) -> list[dict] | None:
    """Rows of a group whatever happens, None if time ran out; `how` in place of `measure_group`.

    A group that raises is tried again in halves, down to the cell that fails alone: so does one that lacks memory.
    """
    started = time.time()
    try:
        with one_thread(device):
            return (how or measure_group)(cells, device, deadline)
    except OutOfTimeError:
        return None
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    # Outside the except clause, whose traceback holds the group's tensors.
    if device != "cpu":
        torch.cuda.synchronize(device)  # raises if the GPU itself has failed: then no other cell is tried
        gc.collect()  # graphs and their model refer to each other
        torch.cuda.empty_cache()
    if len(cells) == 1:
        facts = {"measures": dict.fromkeys(MEASURES), "reason": reason, "engine": None, "group": 1}
        return [row_of(cells[0], "failed", device, started, **facts)]
    halves = cells[: len(cells) // 2], cells[len(cells) // 2 :]
    found = [_measure_safely(half, device, deadline, how) for half in halves]
    return [row for rows in found if rows for row in rows] or None


def missing(cells: Sequence[Cell], rows: Sequence[dict], key_of: Callable = lambda cell: cell.key) -> list[Cell]:
    """The cells without a finished row (a failed row does not count), cheapest first."""
    done = {row["key"] for row in rows if row["status"] != "failed"}
    return sorted((c for c in cells if key_of(c) not in done), key=lambda c: (c.flops, c.seed))


def run(
    cells: Sequence[Cell], *, device: str = "auto", workers: int = 1, executor: Executor | None = None, minutes=None
) -> pandas.DataFrame:
    """Train what the store lacks, save each row as it comes, and return the rows of `cells`, one a cell.

    workers: processes on the CPU, one thread each (a GPU takes one). executor: any concurrent.futures executor, used
    instead. minutes: stop in time; what is not finished then is left for the next run.
    Raises InputError, before any training, on an empty or repeated cell list, a bad device or a folder that
    cannot be written. A cell that fails has status "failed" with its reason, and the others go on.
    """
    cells, device, workers = checked(cells, device, workers)
    minutes = check_number("minutes", minutes, above=0, optional=True)
    deadline = time.time() + 60 * minutes if minutes else math.inf
    train_and_save(missing(cells, store.load_rows()), device, workers, executor, deadline)
    return frame(cells)


def checked(cells: Sequence[Cell], device: str, workers: int) -> tuple[list[Cell], str, int]:
    """What `run` was given, checked; raises InputError."""
    cells = list(cells)
    if not cells:
        raise InputError("cells is empty, but must hold at least one Cell")
    if len({cell.key for cell in cells}) != len(cells):
        raise InputError("cells holds the same training twice; each must be there once")
    workers = check_number("workers", workers, low=1, integer=True)
    return cells, pick_device(device), workers


def train_and_save(
    todo: Sequence[Cell],
    device: str,
    workers: int,
    executor: Executor | None = None,
    deadline: float = math.inf,
    *,
    how: Callable | None = None,
    as_saved: Callable[[dict], dict] = lambda row: row,
) -> None:
    """Append `as_saved` of each row as it comes from `how` (None: measures.measure_group) to the store."""
    if not todo:
        return
    _check_writable()
    for name, scaling in {(c.dataset, c.scaling) for c in todo}:
        load_dataset(name, scaling=scaling)  # a missing or damaged file is said once, before any training
    with _Progress(todo) as progress:
        for row in _rows(todo, device, workers, executor, deadline, how):
            store.append(as_saved(row))
            if how is None and row["status"] != "failed":
                checkpoint.remove(row["key"])
            progress.add(row)


def _check_writable() -> None:
    try:
        store.local_path().parent.mkdir(parents=True, exist_ok=True)
        with open(store.local_path(), "ab"):
            pass
    except OSError as error:
        raise InputError(
            f"results folder {store.local_path().parent} cannot be written ({error.strerror})"
        ) from error


def _rows(todo, device, workers, executor, deadline, how):
    """Rows as they finish; nothing new is started after the deadline."""
    grouped = groups(todo, device, workers)
    if executor is None and (workers == 1 or device != "cpu" or len(grouped) == 1):
        for group in grouped:
            if (rows := _measure_safely(group, device, deadline, how)) is None:
                return
            yield from rows
        return
    own = executor is None
    if own:
        spawn = multiprocessing.get_context("spawn")
        executor = ProcessPoolExecutor(min(workers, len(grouped)), mp_context=spawn, initializer=_start_worker)
    queue, pending, limit = iter(grouped), set(), workers if own else len(grouped)
    try:
        while True:
            while len(pending) < limit and time.time() < deadline and (group := next(queue, None)):
                pending.add(executor.submit(_measure_safely, group, device, deadline, how))
            if not pending:
                return
            finished, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from (row for future in finished for row in future.result() or ())
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
            cell, value = row["cell"], row["measures"].get("stability")
            said = row["status"] + (f": {row['reason']}" if row["reason"] else "")
            said = f"P/eps {value:.4g}" if value is not None else said
            power = "" if cell["power"] is None else f" {cell['power']:g}"
            model = "" if cell["model"] == "fcn" else f"{cell['model']} {cell['head'] or cell['dataset']}, "
            where = f"{model}{cell['init']}{power}, depth {cell['depth']}, width {cell['width']}, seed {cell['seed']}"
            print(
                f"[{self.done}/{self.count}] {where}: {said} ({row['seconds']:.0f} s; {left:.0f} s left)", flush=True
            )

    def __exit__(self, *_):
        self.bar.close()


# ---------------------------------------------------------------------------------------------- frames


def frame(cells: Sequence[Cell], *, shipped: bool = True, local: bool = True) -> pandas.DataFrame:
    """Tidy rows of these cells, one a cell that has one; `.attrs["missing"]` lists the cells that have none."""
    rows = {row["key"]: row for row in store.load_rows(shipped=shipped, local=local)}
    found = to_frame([rows[cell.key] for cell in cells if cell.key in rows])
    found.attrs["missing"] = [cell for cell in cells if cell.key not in rows]
    return found


def collect(figure: str, profile: str, *, device: str = "auto", workers: int = 1, **choices) -> pandas.DataFrame:
    """Rows behind a figure, a reading, a control or "all".

    "shipped" reads committed rows; other profiles train what is missing.
    choices: seeds, widths, depths in place of the profile's own (see `grid`).
    """
    check_choice("figure", figure, (*FIGURES, *READINGS, *CONTROLS, "all"))
    if figure == "all":
        cells = profile_cells(profile, **choices)
    else:
        kind = reading_cells if figure in READINGS else control_cells if figure in CONTROLS else grid
        cells = kind(figure, profile, **choices)
    return frame(cells, local=False) if profile == "shipped" else run(cells, device=device, workers=workers)


def to_frame(
    rows: Sequence[dict], measures: Sequence[str] = (*MEASURES, *EPOCHS), also: Sequence[str] = ()
) -> pandas.DataFrame:
    """Rows of the store as columns: the cell's fields, then key, status, schedule, measures, engine and seconds."""
    columns = [field.name for field in dataclasses.fields(Cell)]
    columns += ["key", "status", "reason", "schedule", *also, *measures, "engine", "versions", "commit", "seconds"]
    flat = [row | row["cell"] | row["measures"] for row in rows]
    for row in flat:
        row["schedule"] = schedule_name(row["epochs"], row["lr"])
    table = pandas.DataFrame(flat, columns=columns)
    numbers = [name for name in measures if not name.endswith("_over_time") and name != "loss_at_stability"]
    return table.astype(dict.fromkeys(numbers, float))


def load() -> pandas.DataFrame:
    """Every row there is, shipped and local."""
    return to_frame(store.load_rows())
