"""Run what is missing: the only file that joins measuring and the store."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

import pandas
import torch
from tqdm import tqdm

from ..cell import Cell, schedule_name
from ..checks import InputError, check_choice, check_number
from ..data import load_dataset
from ..profiles import named_cells
from ..training import checkpoint
from ..training.measures import EPOCHS, MEASURES, STOPS
from ..training.remeasure import COLUMNS, FURTHER, POINTS, _as_further, further_key, measure_further_group
from . import cost, store
from .locks import Begun
from .workers import failed_row, measured_rows


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


def missing(cells: Sequence[Cell], statuses: dict[str, str], key_of: Callable = lambda cell: cell.key) -> list[Cell]:
    """The cells without a finished row (a failed row does not count), cheapest first; see `store.load_statuses`."""
    return sorted(
        (c for c in cells if statuses.get(key_of(c), "failed") == "failed"), key=lambda c: (c.flops, c.seed)
    )


def run(
    cells: Sequence[Cell], *, device: str = "auto", workers: int = 1, executor: Executor | None = None, minutes=None
) -> pandas.DataFrame:
    """Train what the store lacks, save each row as it comes, and return the rows of `cells`, one a cell.

    workers: processes on the CPU, one thread each (a GPU takes one). executor: any concurrent.futures executor, used
    instead (for Dask's see cluster.py); a GPU that is named is then its workers'. minutes: stop in time; what is not
    finished then is left for the next run.
    Raises InputError, before any training, on an empty or repeated cell list, a bad device or a folder that
    cannot be written. A cell that fails has status "failed" with its reason, and the others go on.
    """
    cells, device, workers = checked(cells, device, workers, executor)
    minutes = check_number("minutes", minutes, above=0, optional=True)
    deadline = time.time() + 60 * minutes if minutes else math.inf
    train_and_save(missing(cells, store.load_statuses()), device, workers, executor, deadline)
    return frame(cells)


def checked(
    cells: Sequence[Cell], device: str, workers: int, executor: Executor | None = None
) -> tuple[list[Cell], str, int]:
    """What `run` was given, checked; raises InputError."""
    try:
        cells = list(cells)
    except TypeError as error:
        raise InputError(f"cells is {cells!r}, but must be a list of Cell") from error
    for cell in cells:
        if not isinstance(cell, Cell):
            raise InputError(f"cells holds {cell!r}, but must be a list of Cell")
    if not cells:
        raise InputError("cells is empty, but must hold at least one Cell")
    if len({cell.key for cell in cells}) != len(cells):
        raise InputError("cells holds the same training twice; each must be there once")
    workers = check_number("workers", workers, low=1, high=1000, integer=True)
    elsewhere = executor is not None and str(device).startswith("cuda")  # on machines that have one
    return cells, device if elsewhere else pick_device(device), workers


def train_and_save(
    todo: Sequence[Cell],
    device: str,
    workers: int,
    executor: Executor | None = None,
    deadline: float = math.inf,
    *,
    how: Callable | None = None,
    as_saved: Callable[[dict], dict] = lambda row: row,
    key_of: Callable[[Cell], str] = lambda cell: cell.key,
) -> None:
    """Append `as_saved` of each row as it comes from `how` (None: measures.measure_group) to the store.

    key_of: the key of a cell's row. A training that no memory here can hold is refused, and has status "failed".
    """
    if not todo:
        return
    _check_writable()
    for name, scaling in {(c.dataset, c.scaling) for c in todo}:
        load_dataset(name, scaling=scaling)  # a missing or damaged file is said once, before any training
    small, too_large = _by_memory(todo, device) if executor is None else (todo, [])
    with Begun(key_of) as begun, _Progress(todo) as progress:
        measured = measured_rows(small, device, workers, executor, deadline, how, begun=begun)
        try:
            for row in itertools.chain(too_large, measured):
                saved = as_saved(row)
                store.append(saved)
                begun.saved(saved)
                if how is None and row["status"] != "failed":
                    checkpoint.remove(row["key"])
                progress.add(row)
        except (KeyboardInterrupt, SystemExit):
            left = len(missing(todo, store.load_statuses(), key_of))
            print(f"\nstopped: {len(todo) - left} training(s) saved, {left} left to do", file=sys.stderr)
            raise
        finally:
            measured.close()  # ends the workers, even where a notebook keeps the traceback


def _by_memory(todo: Sequence[Cell], device: str) -> tuple[list[Cell], list[dict]]:
    """What memory can hold, and a failed row for each training that it cannot."""
    room, small, too_large = cost.room_bytes(device), [], []
    for cell in todo:
        if (needed := cost.memory_bytes(cell)) <= room:
            small.append(cell)
        else:
            reason = (
                f"not begun: it needs at least {needed / 1e9:.2f} GB ({needed} bytes), {device} has {room / 1e9:.2f}"
            )
            too_large.append(failed_row(cell, device, time.time(), reason))
    return small, too_large


def _check_writable() -> None:
    try:
        store.local_path().parent.mkdir(parents=True, exist_ok=True)
        with open(store.local_path(), "ab"):
            pass
    except OSError as error:
        raise InputError(
            f"results folder {store.local_path().parent} cannot be written ({error.strerror})"
        ) from error


class _Progress:
    """A bar with the time left in a terminal; one line a finished cell elsewhere."""

    def __init__(self, todo: Sequence[Cell]):
        self.count, self.done, self.bad = len(todo), 0, 0
        self.cost = {cell.key: cost.relative_cost(cell) for cell in todo}
        self.steps = 0  # of all networks trained so far
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
        self.steps += Cell(**row["cell"]).steps
        speed = f"{self.steps / (time.time() - self.started):.0f} network-steps/s"
        self.bar.update(self.cost[row["key"]])
        self.bar.set_description_str(
            f"{self.done}/{self.count} trained" + (f", {self.bad} not ok" if self.bad else "") + f", {speed}"
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
                f"[{self.done}/{self.count}] {where}: {said} ({row['seconds']:.0f} s; {speed}, {left:.0f} s left)",
                flush=True,
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
    cells = named_cells(figure, profile, **choices)
    return frame(cells, local=False) if profile == "shipped" else run(cells, device=device, workers=workers)


def to_frame(
    rows: Sequence[dict], measures: Sequence[str] = (*MEASURES, *EPOCHS, *STOPS), also: Sequence[str] = ()
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


def further(cells: Sequence[Cell], name: str, *, device: str = "auto", workers: int = 1) -> pandas.DataFrame:
    """Measure what the store lacks of one further measure, cheapest first, save each row as it comes; a row a cell.

    Columns are those of `load_further`; `.attrs["missing"]` lists the cells that have no row.
    Raises InputError as `sweep.run` does, and on an unknown name.
    """
    check_choice("a further measure", name, FURTHER)
    cells, device, workers = checked(cells, device, workers)
    keys = {cell: further_key(cell, name) for cell in cells}
    todo = missing(cells, store.load_statuses(), key_of=keys.get)
    how = functools.partial(measure_further_group, name=name)
    saving = {"as_saved": lambda row: _as_further(row, name), "key_of": keys.get}
    train_and_save(todo, device, workers, how=how, **saving)
    rows = {row["key"]: row for row in store.load_rows(measure=name)}
    found = _to_frame([rows[key] for key in keys.values() if key in rows], name)
    found.attrs["missing"] = [cell for cell, key in keys.items() if key not in rows]
    return found


def load_further(name: str, shipped: bool = True, local: bool = True) -> pandas.DataFrame:
    """Every row there is of one further measure, in its present version.

    Columns are the cell's fields, key, cell_key (the key of the training's own row), status, and the measures;
    `.attrs["points"]` says how many of the cell's points the measure itself used.
    """
    check_choice("a further measure", name, FURTHER)
    rows = store.load_rows(shipped=shipped, local=local, measure=name)
    return _to_frame([row for row in rows if row["version"] == FURTHER[name]], name)


def _to_frame(rows: list[dict], name: str) -> pandas.DataFrame:
    found = to_frame(rows, COLUMNS[name], also=("cell_key", "measure", "version"))
    found.attrs["points"] = [POINTS[name]]
    return found
