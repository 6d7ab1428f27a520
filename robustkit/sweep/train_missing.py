"""Run the cells that have no row yet: the only file that joins measuring and the store."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor

import pandas
from tqdm import tqdm

from ..cell import Cell, schedule_name
from ..checks import InputError, check_choice, check_number
from ..data import load_dataset
from ..ledger.rows import curve_name, in_words, reading_of
from ..profiles import cheapest_first, named_cells
from ..training import checkpoint
from ..training.group import GroupRun, failed_row, over_time
from ..training.measures import RunMeasures
from ..training.remeasure import FURTHER
from . import cost, store
from .device import resolve_device
from .locks import RunLocks
from .workers import UNGUARDED, measured_rows


def kind_of(name: str | None) -> type[GroupRun]:
    """A further measure by its name; what any other name stands for is the run's own row."""
    return FURTHER.get(name, RunMeasures)


def missing(cells: Sequence[Cell], statuses: dict[str, str], kind: type[GroupRun] = RunMeasures) -> list[Cell]:
    """The cells without a finished row (a failed row does not count), cheapest first; see `store.load_statuses`."""
    return cheapest_first(cell for cell in cells if statuses.get(kind.key(cell), "failed") == "failed")


def reporting() -> bool:
    """Whether `report` runs this notebook, which then shows what the store holds: nothing is trained."""
    return bool(os.environ.get("ROBUSTKIT_STATIC"))


def run(
    cells: Sequence[Cell], *, device: str = "auto", workers: int = 1, executor: Executor | None = None, minutes=None
) -> pandas.DataFrame:
    """Train what the store lacks, save each row as it comes, and return the rows of `cells`, one per cell.

    Under `report`, which sets ROBUSTKIT_STATIC, nothing is trained: the rows are those that the store has.
    workers: processes on the CPU, one thread each (a GPU takes one). executor: any concurrent.futures executor of
    other processes, used instead (for Dask's see dask.py); a GPU that is named is then its workers'. minutes: stop in
    time; what is not finished by then is left for the next run.
    Raises InputError, before any training, on an empty or repeated cell list, a bad device or a folder that
    cannot be written. A cell that fails has status "failed" with its reason, and the others are trained all the same.
    """
    return _run(cells, RunMeasures, device, workers, executor, minutes)


def further(cells: Sequence[Cell], name: str, **options) -> pandas.DataFrame:
    """Measure what the store lacks of one further measure, as `run` does with these options; one row per cell.

    Columns are those of `load_further`; `.attrs["missing"]` lists the cells that have no row.
    Raises InputError as `run` does, and on an unknown name.
    """
    check_choice("a further measure", name, FURTHER)
    return _run(cells, FURTHER[name], **options)


def _run(cells, kind: type[GroupRun], device="auto", workers=1, executor: Executor | None = None, minutes=None):
    if not isinstance(cells, Iterable):
        raise InputError(f"cells is {cells!r}, but must be a list of Cell")
    cells = list(cells)
    for cell in cells:
        if not isinstance(cell, Cell):
            raise InputError(f"cells holds {cell!r}, but must be a list of Cell")
    if not cells:
        raise InputError("cells is empty, but must hold at least one Cell")
    if len({cell.key for cell in cells}) != len(cells):
        raise InputError("cells holds the same run twice; each must be there once")
    workers = check_number("workers", workers, low=1, high=1000, integer=True)
    minutes = check_number("minutes", minutes, above=0, optional=True)
    if isinstance(executor, ThreadPoolExecutor):
        shared = "threads share torch's precision and each other's locks"
        raise InputError(f"executor is {executor!r}, but {shared}: it must be one of other processes")
    deadline = time.monotonic() + 60 * minutes if minutes else math.inf
    if reporting():
        return frame(cells, kind)
    if executor is None or not str(device).startswith("cuda"):  # else it is on machines that have one
        device = resolve_device(device)
    if todo := missing(cells, store.load_statuses(map(kind.key, cells)), kind):
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            os._exit(UNGUARDED)  # a worker loads its parent's script
        _train_and_save(todo, kind, device, workers, executor, deadline)
    return frame(cells, kind)


def _train_and_save(
    todo: Sequence[Cell], kind: type[GroupRun], device: str, workers: int, executor: Executor | None, deadline: float
) -> None:
    """Append each row to the store as it comes. A run that memory cannot hold is refused, and has status "failed"."""
    _check_writable()
    for name, scaling, sha256 in {(cell.dataset, cell.scaling, cell.data.sha256) for cell in todo}:
        load_dataset(name, scaling=scaling, sha256=sha256)  # a missing or damaged file is named before any training
    small, too_large = _by_memory(todo, kind, device) if executor is None else (todo, [])
    with contextlib.closing(RunLocks(todo, kind, deadline)) as locks, _progress(todo, kind) as show:
        measured = measured_rows(small, locks, device, workers, executor, deadline)
        try:
            for row in itertools.chain(too_large, measured):
                store.append(row)
                locks.release(row)
                if row["status"] != "failed":
                    checkpoint.remove(row["key"])
                show(row)
        except (KeyboardInterrupt, SystemExit):
            left = len(missing(todo, store.load_statuses(map(kind.key, todo)), kind))
            store.say(f"\nstopped: {len(todo) - left} run(s) saved, {left} left to do")
            raise
        finally:
            measured.close()  # ends the workers, even where a notebook keeps the traceback


def _by_memory(todo: Sequence[Cell], kind: type[GroupRun], device: str) -> tuple[list[Cell], list[dict]]:
    """What memory can hold, and a failed row for each cell whose run it cannot."""
    room, small, too_large = cost.room_bytes(device), [], []
    for cell in todo:
        if (needed := cost.memory_bytes(cell)) <= room:
            small.append(cell)
        else:
            needs = f"needs at least {needed / 1e9:.2f} GB ({needed} bytes), {device} has {room / 1e9:.2f}"
            too_large.append(failed_row(cell, time.monotonic(), f"not begun: it {needs}", device=device, kind=kind))
    return small, too_large


def _check_writable() -> None:
    path = store.local_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab"):
            pass
    except OSError as error:
        raise InputError(f"results folder {path.parent} cannot be written ({error.strerror})") from error


@contextlib.contextmanager
def _progress(todo: Sequence[Cell], kind: type[GroupRun]) -> Iterator[Callable[[dict], None]]:
    """To be called with each row: a bar with the time left in a terminal, one line per finished run elsewhere."""
    costs, started = {kind.key(cell): cost.relative_cost(cell) for cell in todo}, time.monotonic()
    common, total = set.intersection(*(set(_reading(cell.as_dict())) for cell in todo)), sum(costs.values())
    steps_of = {kind.key(cell): cell.steps for cell in todo}
    passed, bad, steps = [(0.0, 0.0)], 0, 0  # (seconds, cost) after each run

    def add(row: dict) -> None:
        nonlocal bad, steps
        cell, value, seconds = row["cell"], row["measures"].get("stability"), time.monotonic() - started + 1e-9
        passed.append((seconds, passed[-1][1] + costs[row["key"]]))
        bad, steps = bad + (row["status"] != "ok"), steps + steps_of[row["key"]] * (row["status"] == "ok")
        done, speed, left = (
            len(passed) - 1,
            f"{steps / seconds:.0f} network-steps/s" if steps else "",
            _left(passed, total),
        )
        words = [f"{done}/{len(todo)} runs", f"{bad} not ok" if bad else "", speed]
        with contextlib.suppress(OSError, ValueError):  # a full disk or a closed pipe does not end a run
            bar.update(costs[row["key"]])
            bar.set_description_str(", ".join(filter(None, words)), refresh=False)
            bar.set_postfix_str(left)
        if bar.disable and not os.environ.get("TQDM_DISABLE"):
            reason = row["status"] + (f": {row['reason']}" if row["reason"] else "")
            place = (f"{name} {cell[name]}" for name in ("depth", "width", "seed"))
            own = (word for word in _reading(cell) if word not in common)
            where = in_words(", ".join((curve_name(cell["init"], cell["power"]), *place, *own)))
            result = f"P/eps {value:.4g}" if value is not None else reason
            facts = [f"{row['seconds']:.0f} s", speed if row["status"] != "failed" else "", left]
            store.say(f"[{done}/{len(todo)}] {where}: {result} ({', '.join(filter(None, facts))})", sys.stdout)

    layout = "{desc} {percentage:3.0f}%|{bar}| {elapsed} passed{postfix}"
    options = {"total": total, "desc": f"0/{len(todo)} runs", "bar_format": layout}
    with tqdm(**options, disable=None, file=sys.stderr) as bar:
        yield add


def _reading(cell: dict) -> tuple:
    return reading_of(cell | {"schedule": schedule_name(cell["epochs"], cell["lr"])})


def _left(passed: Sequence[tuple[float, float]], total: float) -> str:
    """The time left, at the rate of the second half of the time so far: the runs now are the most like those to come.

    passed: (seconds, cost) from (0, 0) on. Empty until a tenth is done.
    """
    seconds, spent = passed[-1]
    if spent < total / 10:
        return ""
    before, by_then = next(one for one in reversed(passed) if one[0] <= seconds / 2)
    minutes = math.ceil((total - spent) * (seconds - before) / (spent - by_then) / 60)
    return f"{minutes // 60} h {minutes % 60} min left" if minutes >= 60 else f"{minutes} min left"


# ---------------------------------------------------------------------------------------------- frames


def frame(
    cells: Sequence[Cell], kind: type[GroupRun] = RunMeasures, *, shipped: bool = True, local: bool = True
) -> pandas.DataFrame:
    """Tidy rows, one per cell that has one; `.attrs["missing"]` lists the cells that have none."""
    rows = {row["key"]: row for row in store.load_rows(shipped=shipped, local=local, measure=kind.name)}
    keys = [kind.key(cell) for cell in cells]
    table = to_frame([rows[key] for key in keys if key in rows], kind)
    table.attrs["missing"] = [cell for cell, key in zip(cells, keys, strict=True) if key not in rows]
    return table


def collect(figure: str, profile: str, *, device: str = "auto", workers: int = 1, **choices) -> pandas.DataFrame:
    """Rows behind a figure, a reading, a control, a further measure or "all".

    "shipped" reads committed rows; other profiles train what is missing, as `run` does.
    choices: seeds, widths, depths in place of the profile's own (see `grid`).
    """
    cells, kind = named_cells(figure, profile, **choices), kind_of(figure)
    return frame(cells, kind, local=False) if profile == "shipped" else _run(cells, kind, device, workers)


def to_frame(rows: Sequence[dict], kind: type[GroupRun] = RunMeasures) -> pandas.DataFrame:
    """Rows of the store as columns: the cell's fields, then key, status, schedule, measures, engine and seconds."""
    measures = (*kind.columns, *kind.optional)
    columns = [field.name for field in dataclasses.fields(Cell)]
    columns += ["key", "status", "reason", "schedule", *(("cell_key", "measure", "version") if kind.name else ())]
    columns += [*measures, "engine", "versions", "commit", "seconds"]
    flat = [row | row["cell"] | row["measures"] for row in rows]
    for row in flat:
        row["schedule"] = schedule_name(row["epochs"], row["lr"])
    table = pandas.DataFrame(flat, columns=columns)
    table = table.astype({name: float for name in measures if not over_time(name)})
    if kind.points:
        table.attrs["points"] = [kind.points]
    return table


def load() -> pandas.DataFrame:
    """Every row there is, shipped and local."""
    return to_frame(store.load_rows())


def load_further(name: str, shipped: bool = True, local: bool = True) -> pandas.DataFrame:
    """Every row there is of one further measure, in its present version.

    Columns are the cell's fields, key, cell_key (the key of the run's own row), status, and the measures;
    `.attrs["points"]` says how many of the cell's points the measure itself used.
    """
    check_choice("a further measure", name, FURTHER)
    rows = store.load_rows(shipped=shipped, local=local, measure=name)
    return to_frame([row for row in rows if row["version"] == FURTHER[name].version], FURTHER[name])
