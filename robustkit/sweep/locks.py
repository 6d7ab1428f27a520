"""One grid trained by several processes: what one has begun, the others leave to it as long as it lives."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence

from ..cell import Cell
from ..files import results_folder
from . import store

PAUSE = 1.0  # seconds between two looks at what others have begun


def running(keys: Sequence[str]) -> set[str]:
    """Those of the keys whose trainings other processes are at."""
    path = results_folder() / "begun.lock"
    if not path.exists():
        return set()
    with open(path, "ab") as file:  # closing it gives back what was free
        return {key for key in keys if not _lock_byte(file, key)}


def _lock_byte(file, key: str, *, unlock: bool = False) -> bool:
    try:
        import fcntl

        how = fcntl.LOCK_UN if unlock else fcntl.LOCK_EX | fcntl.LOCK_NB
        fcntl.lockf(file, how, 1, int(key[:15], 16))
    except (BlockingIOError, PermissionError):  # another process holds it
        return False
    except (ImportError, OSError):  # no such locks here: two processes repeat each other's work, and no more
        pass
    return True


class Begun:
    """The trainings that this process has begun: locks on single bytes of one file, which end with the process.

    key_of: the key of a cell's row.
    """

    def __init__(self, key_of: Callable[[Cell], str]):
        self.key_of, self.held, self.size, self.done, self.said = key_of, [], None, set(), False
        self.file = open(results_folder() / "begun.lock", "ab")  # noqa: SIM115  closed by __exit__

    def __enter__(self) -> Begun:
        return self

    def __exit__(self, *_) -> None:
        self.file.close()

    def take(self, queue: deque[list[Cell]]) -> list[Cell] | None:
        """The next group of the queue without what others have begun or finished; None at its end."""
        while queue:
            mine = []
            for cell in queue.popleft():
                (mine if _lock_byte(self.file, self.key_of(cell)) else self.held).append(cell)
            if mine := self._unfinished(mine):
                return mine
        return None

    def left_to_others(self) -> list[Cell]:
        """What others had begun and have not finished, after a pause if there is any."""
        if self.held:
            if not self.said and not os.environ.get("TQDM_DISABLE"):
                print(f"waiting for {len(self.held)} training(s) that another process has begun", file=sys.stderr)
            self.said = True
            time.sleep(PAUSE)
        held, self.held = self.held, []
        return self._unfinished(held)

    def saved(self, row: dict) -> None:
        """To be called for each row after it was saved."""
        if self.size is not None:
            self.size += len(store.encode(row)) + 1
        _lock_byte(self.file, row["key"], unlock=True)

    def _unfinished(self, cells: Sequence[Cell]) -> list[Cell]:
        path = store.local_path()
        size = path.stat().st_size if path.exists() else 0
        if size != self.size:  # others have saved rows
            self.size = size
            self.done = {key for key, status in store.load_statuses().items() if status != "failed"}
        return [cell for cell in cells if self.key_of(cell) not in self.done]
