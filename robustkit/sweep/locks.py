"""One grid trained by several processes: runs that one has claimed are left to it as long as it lives."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..cell import Cell
from ..files import results_folder
from . import store

if TYPE_CHECKING:  # a lock needs no PyTorch
    from ..training.group import GroupRun

NAME = "begun.lock"  # of the file in the results folder
PAUSE = 1.0  # seconds between two looks at the runs that others have claimed


def running(keys: Sequence[str]) -> set[str]:
    """Those of the keys whose runs other processes have claimed."""
    if not (results_folder() / NAME).exists():
        return set()
    with open(results_folder() / NAME, "ab") as file:  # closing it unlocks what was free
        return {key for key in keys if not _lock_byte(file, key)}


def _lock_byte(file, key: str, *, unlock: bool = False) -> bool:
    try:
        import fcntl

        operation = fcntl.LOCK_UN if unlock else fcntl.LOCK_EX | fcntl.LOCK_NB
        fcntl.lockf(file, operation, 1, int(key[:15], 16))
    except (BlockingIOError, PermissionError):  # another process holds it
        return False
    except (ImportError, OSError):  # no such locks here: two processes repeat each other's work, and no more
        pass
    return True


class RunLocks:
    """The runs that this process has claimed: locks on single bytes of one file, which end with the process."""

    def __init__(self, kind: type[GroupRun], deadline: float):
        self.kind, self.deadline, self.held, self.announced = kind, deadline, [], False
        self.size, self.done = None, set()  # bytes of local rows when last read; keys of finished rows
        self.file = open(results_folder() / NAME, "ab")  # noqa: SIM115
        self.close = self.file.close

    def claim(self, queue: deque[list[Cell]]) -> list[Cell] | None:
        """The next group of the queue without cells that others have claimed or finished; None at its end."""
        while queue and time.time() < self.deadline:
            mine = []
            for cell in queue.popleft():
                (mine if _lock_byte(self.file, self.kind.key(cell)) else self.held).append(cell)
            if mine := self._unfinished(mine):
                return mine
        return None

    def left_to_others(self) -> list[Cell]:
        """The cells that others had claimed and have not finished, after a pause if there are any."""
        if time.time() >= self.deadline:
            return []
        if self.held:
            if not self.announced and not os.environ.get("TQDM_DISABLE"):
                print(f"waiting for {len(self.held)} run(s) that another process has begun", file=sys.stderr)
            self.announced = True
            time.sleep(PAUSE)
        held, self.held = self.held, []
        return self._unfinished(held)

    def release(self, row: dict) -> None:
        """Unlock the run of a row that was just saved."""
        if self.size is not None:
            self.size += len(store.encode(row)) + 1
        _lock_byte(self.file, row["key"], unlock=True)

    def _unfinished(self, cells: Sequence[Cell]) -> list[Cell]:
        path = store.local_path()
        size = path.stat().st_size if path.exists() else 0
        if size != self.size:  # others have saved rows
            self.size = size
            self.done = {key for key, status in store.load_statuses().items() if status != "failed"}
        return [cell for cell in cells if self.kind.key(cell) not in self.done]
