"""One grid trained by several processes: runs that one has claimed are left to it as long as it lives."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..cell import Cell
from ..files import results_folder
from . import store

if TYPE_CHECKING:  # a lock needs no PyTorch
    from ..training.group import GroupRun

NAME = "begun.lock"  # of the file in the results folder
PAUSE = 1.0  # seconds between two looks at the runs that others have claimed

# Descriptors by path and mode, never closed: closing any of a file ends all locks that this process has on it.
_opened: dict[tuple[Path, int], int] = {}
_held: set[tuple[int, str]] = set()  # descriptors and keys that this process has locked


def running(keys: Sequence[str]) -> set[str]:
    """Those of the keys whose runs other processes have claimed; the folder may be read-only."""
    if not (results_folder() / NAME).exists():
        return set()
    handle, found = _open(os.O_RDONLY), set()
    for key in set(keys) - {key for _, key in _held}:
        if _lock_byte(handle, key, "LOCK_SH"):
            _lock_byte(handle, key, "LOCK_UN")
        else:
            found.add(key)
    return found


def _open(mode: int) -> int:
    path = results_folder() / NAME
    handle = _opened.get((path, mode))
    with contextlib.suppress(FileNotFoundError):
        if handle is not None and os.path.samestat(os.fstat(handle), path.stat()):
            return handle
    _opened[path, mode] = os.open(path, mode, 0o666)
    return _opened[path, mode]


def _lock_byte(handle: int, key: str, kind: str) -> bool:
    try:
        import fcntl

        operation = getattr(fcntl, kind)
        fcntl.lockf(handle, operation if kind == "LOCK_UN" else operation | fcntl.LOCK_NB, 1, int(key[:15], 16))
    except (BlockingIOError, PermissionError):  # another process holds it
        return False
    except (ImportError, OSError):  # no such locks here: two processes repeat each other's work, and no more
        pass
    return True


class RunLocks:
    """The runs that this process has claimed: locks on single bytes of one file, which end with the process."""

    def __init__(self, todo: Sequence[Cell], kind: type[GroupRun], deadline: float):
        self.kind, self.deadline, self.left, self.announced = kind, deadline, [], False
        self.keys = {kind.key(cell) for cell in todo}
        self.size, self.done = None, set()  # bytes of local rows when last read; keys of finished rows
        self.handle, self.claimed = _open(os.O_RDWR | os.O_CREAT), set()

    def claim(self, queue: deque[list[Cell]]) -> list[Cell] | None:
        """The next group of the queue without cells that others have claimed or finished; None at its end."""
        while queue and time.monotonic() < self.deadline:
            mine = []
            for cell in queue.popleft():
                (mine if self._lock(self.kind.key(cell)) else self.left).append(cell)
            if mine := self._unfinished(mine):
                return mine
        return None

    def left_to_others(self) -> list[Cell]:
        """The cells that others had claimed and have not finished, after a pause if there are any."""
        if time.monotonic() >= self.deadline:
            return []
        if self.left:
            if not self.announced and not os.environ.get("TQDM_DISABLE"):
                store.say(f"waiting for {len(self.left)} run(s) that another process has begun")
            self.announced = True
            time.sleep(PAUSE)
        left, self.left = self.left, []
        return self._unfinished(left)

    def release(self, row: dict) -> None:
        """Unlock the run of a row that was just saved."""
        forget([row["key"]])
        if self.size is not None:
            self.size += len(store.encode(row)) + 1
        self._unlock(row["key"])

    def close(self) -> None:
        """Unlock what is left."""
        for key in list(self.claimed):
            self._unlock(key)

    def _lock(self, key: str) -> bool:
        if key not in self.claimed:  # what another sweep of this process has claimed, it would be given again
            if (self.handle, key) in _held or not _lock_byte(self.handle, key, "LOCK_EX"):
                return False
            self.claimed.add(key)
            _held.add((self.handle, key))
        return True

    def _unlock(self, key: str) -> None:
        if key in self.claimed:
            self.claimed.remove(key)
            _held.remove((self.handle, key))
            _lock_byte(self.handle, key, "LOCK_UN")

    def _unfinished(self, cells: Sequence[Cell]) -> list[Cell]:
        path = store.local_path()
        size = path.stat().st_size if path.exists() else 0
        if size != self.size:  # others have saved rows
            self.size = size
            self.done = {key for key, status in store.load_statuses(self.keys).items() if status != "failed"}
        return [cell for cell in cells if self.kind.key(cell) not in self.done]


# ------------------------------------------------------------------------------------------------ marks


def _mark(key: str) -> Path:
    return results_folder() / "begun" / key


def died_with(key: str) -> bool:
    """Whether a process that measured this run itself died, or is at it."""
    return _mark(key).exists()


@contextlib.contextmanager
def begun(keys: Sequence[str]) -> Iterator[None]:
    """A mark for each run, which stays where the process dies in the block."""
    with contextlib.suppress(OSError):
        for key in keys:
            _mark(key).parent.mkdir(exist_ok=True)
            _mark(key).touch()
    try:
        yield
    finally:
        forget(keys)


def forget(keys: Sequence[str]) -> None:
    """Remove the marks of these runs."""
    for key in keys:
        with contextlib.suppress(OSError):
            _mark(key).unlink()
