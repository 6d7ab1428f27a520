"""Groups of runs, in this process or in others, any of which may fail, run out of memory or be killed."""

from __future__ import annotations

import contextlib
import functools
import gc
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
from ..training.group import GroupRun, OutOfTimeError, row_of
from ..training.measures import RunMeasures, measure_group
from .locks import RunLocks

DEATHS = 3  # of single runs, one after another, each with a process to itself: then the machine is at fault


def measure_safely(
    cells: Sequence[Cell], device: str, deadline: float, kind: type[GroupRun] = RunMeasures
) -> list[dict] | None:
    """Rows of a group whatever happens, None if time ran out.

    A group that raises is tried again in halves, down to the cell that fails alone: so does one that lacks memory.
    """
    started = time.time()
    try:
        return measure_group(cells, device, deadline, kind)
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
        return [failed_row(cells[0], started, reason, device=device, kind=kind)]
    halves = [measure_safely(half, device, deadline, kind) for half in _halves(cells)]
    return [row for rows in halves if rows for row in rows] or None


def failed_row(cell: Cell, started: float, reason: str, *, device: str, kind: type[GroupRun]) -> dict:
    """The row of a run that did not come to its end."""
    return row_of(cell, "failed", reason, dict.fromkeys(kind.columns), device, started) | kind.identity(cell)


def _halves(cells: Sequence[Cell]) -> tuple[Sequence[Cell], Sequence[Cell]]:
    return cells[: len(cells) // 2], cells[len(cells) // 2 :]


def measured_rows(
    todo: Sequence[Cell], locks: RunLocks, device: str, workers: int, executor: Executor | None, deadline: float
) -> Iterator[dict]:
    """Rows as they finish; nothing new is started after the deadline, nor what another process has claimed."""
    measure = functools.partial(measure_safely, device=device, deadline=deadline, kind=locks.kind)
    fail = functools.partial(failed_row, device=device, kind=locks.kind)
    while todo:
        queue = deque(groups(todo, device, workers))
        claim = functools.partial(locks.claim, queue)
        if executor is not None:
            yield from _by_executor(executor, measure, fail, claim, len(queue), [])
        elif workers == 1 or device != "cpu" or len(queue) == 1:
            while group := claim():
                yield from measure(group) or ()
        else:
            yield from _by_processes(measure, fail, claim, min(workers, len(queue)))
        todo = locks.left_to_others()


def _by_executor(
    executor: Executor, measure: Callable, fail: Callable, claim: Callable, limit: int, in_flight: list
) -> Iterator[dict]:
    """Rows of the groups that `claim` gives, `limit` at a time, which `in_flight` holds until they are measured.

    If a process dies, BrokenExecutor. Where an executor gives up on a group in another way, as Dask's does, each of
    its cells has failed.
    """
    futures, started = {}, time.time()
    while True:
        while len(in_flight) < limit and (group := claim()):
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
            yield from [fail(cell, started, reason) for cell in group] if error else future.result() or ()


def _by_processes(measure: Callable, fail: Callable, claim: Callable, workers: int) -> Iterator[dict]:
    """As `_by_executor`, with processes of our own: when one dies, the others go with it, and all are made anew.

    What was in flight is tried again, each group alone. A group that ends its process again is halved, as it may lack
    memory, down to the run that does so alone: that one has failed. Raises BrokenExecutor if DEATHS of these come one
    after another.
    """
    deaths, suspects = 0, [[]]
    while suspects:
        suspects = []
        try:
            with _pool(workers) as pool:
                yield from _by_executor(pool, measure, fail, claim, workers, suspects)
        except BrokenExecutor:
            print("warning: a worker process died; each group that was in flight is tried again", file=sys.stderr)
        queue = deque(suspects)
        while queue:
            group, started = queue.popleft(), time.time()
            try:
                with _pool(1) as pool:
                    rows = pool.submit(measure, group).result()
            except BrokenExecutor:
                if len(group) > 1:
                    queue.extendleft(reversed(_halves(group)))
                    continue
                deaths += 1
                if deaths == DEATHS:
                    raise
                rows = [fail(group[0], started, "its process died twice (killed, or out of memory)")]
            else:
                deaths = 0
            yield from rows or ()


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
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the parent, which keeps finished rows and ends this process

    def leave_with_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()
