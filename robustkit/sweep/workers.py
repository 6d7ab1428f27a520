"""Groups of trainings, in this process or in others, any of which may fail, run out of memory or be killed."""

from __future__ import annotations

import contextlib
import functools
import gc
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, ProcessPoolExecutor, wait

import torch

from ..cell import Cell
from ..training.ensemble import groups
from ..training.measures import MEASURES, OutOfTimeError, measure_group, one_thread, row_of
from .locks import Begun

DEATHS = 3  # of single trainings, one after another, each with a process to itself: then the machine is at fault


def measure_safely(
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
        return [failed_row(cells[0], device, started, reason)]
    found = [measure_safely(half, device, deadline, how) for half in _halves(cells)]
    return [row for rows in found if rows for row in rows] or None


def failed_row(cell: Cell, device: str, started: float, reason: str) -> dict:
    """The row of a training that did not come to its end."""
    facts = {"measures": dict.fromkeys(MEASURES), "reason": reason, "engine": None, "group": 1}
    return row_of(cell, "failed", device, started, **facts)


def _halves(cells: Sequence[Cell]) -> tuple[Sequence[Cell], Sequence[Cell]]:
    return cells[: len(cells) // 2], cells[len(cells) // 2 :]


def measured_rows(
    todo: Sequence[Cell],
    device: str,
    workers: int,
    executor: Executor | None = None,
    deadline: float = math.inf,
    how: Callable | None = None,
    *,
    begun: Begun,
) -> Iterator[dict]:
    """Rows as they finish; nothing new is started after the deadline, nor what another process has begun."""
    measure = functools.partial(measure_safely, device=device, deadline=deadline, how=how)
    while todo:
        queue = deque(groups(todo, device, workers))

        def take(queue=queue) -> list[Cell] | None:
            return begun.take(queue) if time.time() < deadline else None

        if executor is not None:
            yield from _by_executor(executor, measure, take, len(queue), [], device)
        elif workers == 1 or device != "cpu" or len(queue) == 1:
            while group := take():
                yield from measure(group) or ()
        else:
            yield from _by_processes(measure, take, min(workers, len(queue)), device)
        todo = begun.left_to_others() if time.time() < deadline else []


def _by_executor(executor: Executor, measure, take, limit: int, in_flight: list, device: str) -> Iterator[dict]:
    """Rows of the groups that `take` gives, `limit` at a time. If a process dies, BrokenExecutor; see in_flight.

    Where an executor gives up on a group in another way, as Dask's does, each of its cells has failed.
    """
    futures, started = {}, time.time()
    while True:
        while len(in_flight) < limit and (group := take()):
            in_flight.append(group)
            futures[executor.submit(measure, group)] = group
        if not futures:
            return
        finished, _ = wait(futures, return_when=FIRST_COMPLETED)
        for future in sorted(finished, key=lambda one: isinstance(one.exception(), BrokenExecutor)):
            if isinstance(error := future.exception(), BrokenExecutor):
                raise error
            group = futures.pop(future)
            in_flight.remove(group)
            reason = f"{type(error).__name__}: {error}"
            yield from [failed_row(c, device, started, reason) for c in group] if error else future.result() or ()


def _by_processes(measure, take, workers: int, device: str) -> Iterator[dict]:
    """As `_by_executor`, with processes of our own: when one dies, the others go with it, and all are made anew.

    What was in flight is tried again, each group alone. A group that ends its process again is halved, as it may lack
    memory, down to the training that does so alone: that one has failed. Raises BrokenExecutor if DEATHS of these
    come one after another.
    """
    deaths, suspects = 0, [[]]
    while suspects:
        suspects = []
        try:
            with _pool(workers) as pool:
                yield from _by_executor(pool, measure, take, workers, suspects, device)
        except BrokenExecutor:
            print("warning: a worker process died; what it was at is tried again, each group alone", file=sys.stderr)
        queue = deque(suspects)
        while queue:
            group, started = queue.popleft(), time.time()
            try:
                with _pool(1) as pool:
                    found = pool.submit(measure, group).result()
            except BrokenExecutor:
                if len(group) > 1:
                    queue.extendleft(reversed(_halves(group)))
                    continue
                deaths += 1
                if deaths == DEATHS:
                    raise
                found = [failed_row(group[0], device, started, "its process died twice (killed, or out of memory)")]
            else:
                deaths = 0
            yield from found or ()


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that end with this one, and with the block."""
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker)
    try:
        yield pool
    finally:
        for process in list((pool._processes or {}).values()):
            process.kill()
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's: it keeps what is finished and stops us

    def leave_with_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()
