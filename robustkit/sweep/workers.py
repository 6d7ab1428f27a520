"""Groups of runs, in this process or in others, any of which may fail, run out of memory or be killed."""

from __future__ import annotations

import contextlib
import functools
import gc
import math
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, ProcessPoolExecutor, wait

import torch

from ..cell import Cell
from ..checks import InputError
from ..training import checkpoint
from ..training.ensemble import groups
from ..training.group import GroupRun, OutOfTimeError, failed_row
from ..training.measures import RunMeasures, measure_group
from .locks import RunLocks, begun, died_with
from .store import say

DIED = "its process died twice (killed, or out of memory)"
UNGUARDED = 78  # exit status of a worker that would start workers itself
DEATHS = 3  # of single runs, one after another, each with a process to itself: then the machine is at fault


class UnguardedError(InputError):
    """A script that starts workers would be run by each of them."""


def measure_safely(
    cells: Sequence[Cell], device: str, deadline: float, kind: type[GroupRun] = RunMeasures
) -> list[dict] | None:
    """Rows of a group whatever happens, None if time ran out.

    Cells that have no checkpoint of one step are trained apart. A group that raises is tried again in halves, down to
    the cell that fails alone: so does one that lacks memory.
    """
    started, by_key = time.monotonic(), {kind.key(cell): cell for cell in cells}
    if len(parts := checkpoint.resumable(list(by_key), device)) > 1:
        return _in_parts([[by_key[key] for key in part] for part in parts], device, deadline, kind)
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
    return _in_parts(_halves(cells), device, deadline, kind)


def measure_within(cells: Sequence[Cell], device: str, seconds: float, kind: type[GroupRun]) -> list[dict] | None:
    """As `measure_safely`, on a machine whose clock may be another."""
    return measure_safely(cells, device, time.monotonic() + seconds, kind)


def _in_parts(parts: Sequence[Sequence[Cell]], device: str, deadline: float, kind: type[GroupRun]):
    found = [measure_safely(part, device, deadline, kind) for part in parts]
    return [row for rows in found if rows for row in rows] or None


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
            remote = functools.partial(measure_within, device=device, kind=locks.kind)
            # What has a deadline must not wait in the executor, as its seconds are counted from when it starts.
            at_once = getattr(executor, "_max_workers", workers) if deadline < math.inf else len(queue)
            submit = functools.partial(_submit, executor, remote, deadline)
            yield from _by_executor(submit, fail, claim, at_once, [])
        elif workers == 1 or device != "cpu" or len(queue) == 1:
            yield from _in_this_process(measure, fail, locks, queue)
        else:
            yield from _by_processes(measure, fail, claim, min(workers, len(queue)))
        todo = locks.left_to_others()


def _in_this_process(
    measure: Callable, fail: Callable, locks: RunLocks, queue: Sequence[Sequence[Cell]]
) -> Iterator[dict]:
    """Rows of groups. Where memory is short this process dies itself: what an earlier one died with comes last, in a
    process of its own, so that it ends nothing else."""
    calm, suspects = deque(), deque()
    for group in queue:
        (suspects if any(died_with(locks.kind.key(cell)) for cell in group) else calm).append(group)

    def measured(queue):
        while group := locks.claim(queue):
            with begun([locks.kind.key(cell) for cell in group]):
                rows = measure(group)
            yield from rows or ()

    yield from measured(calm)
    try:
        yield from _by_processes(measure, fail, functools.partial(locks.claim, suspects.copy()), 1)
    except UnguardedError:  # the first of them could not start: the script was written for one process
        yield from measured(suspects)


def _submit(executor: Executor, measure: Callable, deadline: float, group: Sequence[Cell]):
    return executor.submit(measure, group, seconds=deadline - time.monotonic())


def _by_executor(submit: Callable, fail: Callable, claim: Callable, limit: int, in_flight: list) -> Iterator[dict]:
    """Rows of the groups that `claim` gives, `limit` at a time, which `in_flight` holds until they are measured.

    If a process dies, BrokenExecutor. Where an executor gives up on a group in another way, as Dask's does, each of
    its cells has failed.
    """
    futures, started = {}, time.monotonic()
    while True:
        while len(in_flight) < limit and (group := claim()):
            in_flight.append(group)
            futures[submit(group)] = group
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
                yield from _by_executor(functools.partial(pool.submit, measure), fail, claim, workers, suspects)
        except BrokenExecutor:
            say("warning: a worker process died; each group that was in flight is tried again")
        queue = deque(suspects)
        while queue:
            group, started = queue.popleft(), time.monotonic()
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
                rows = [fail(group[0], started, DIED)]
            else:
                deaths = 0
            yield from rows or ()


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that end with this one, and with the block."""
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker)
    processes = pool._processes
    try:
        yield pool
    except BrokenExecutor:
        if any(process.exitcode == UNGUARDED for process in list(processes.values())):
            said = "each worker would run the script that started it again"
            raise UnguardedError(f'{said}: what it does must stand under: if __name__ == "__main__":') from None
        raise
    finally:
        for process in list(processes.values()):
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
