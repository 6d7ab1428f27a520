"""Rows on disk: one per line (see lines.py), appended under a lock, and saved once they are synced."""

from __future__ import annotations

import contextlib
import errno
import functools
import gc
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from ..checks import InputError
from ..files import ROOT, results_folder, sync_folder
from .lines import Row, decode, decode_head, encode

SHIPPED = ROOT / "results" / "shipped.jsonl"
PATIENCE = 3.0  # seconds of waiting for a lock in silence


class ConflictError(RuntimeError):
    """Two rows of one cell, from the same engine and versions, hold different numbers."""


def local_path() -> Path:
    """The file that rows trained here go to."""
    return results_folder() / "rows.jsonl"


def read_rows(path: Path, decoder: Callable[[bytes], object] = decode) -> list:
    """All sound rows of a file, in order; damaged lines are named in a warning and never used.

    A lock on the file is waited for, though not for long: half a row that its writer holds is damage too.
    Raises InputError if a sound row has another schema: it is not damage, and guessing would be.
    """
    if not path.exists():
        return []
    if not path.is_file():
        raise InputError(f"{path} cannot be read or cannot be written: it must be a file of rows")
    rows, damaged, reason = [], [], None
    with contextlib.ExitStack() as stack, open(path, "rb", buffering=1 << 20) as file:
        if gc.isenabled():  # it would go through all rows again and again as they come, for half of the time
            gc.disable()
            stack.callback(gc.enable)
        lock(file, "LOCK_SH", most=2 * PATIENCE)  # a row that another process is writing is read whole, or not yet
        for number, line in enumerate(file, 1):
            try:
                if not line.isspace():
                    rows.append(decoder(line.rstrip(b"\r\n")))
                    if isinstance(rows[-1], Row):
                        rows[-1].place = f"{path}, line {number}"
            except InputError as error:
                raise InputError(f"{path}, line {number}: {error}") from error
            except ValueError as error:
                damaged.append(number)
                reason = reason or error
    if damaged:
        where = ", ".join(map(str, damaged[:10])) + (" ..." if len(damaged) > 10 else "")
        said = f"{path}: {len(damaged)} damaged row(s) left out, at line {where} (the first: {reason})"
        warnings.warn(said, stacklevel=2)
    return rows


def append(row: dict, path: Path | None = None) -> None:
    """Add one row to a file and sync it to disk. On failure the file is as it was, and OSError names the path."""
    path = path or local_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (encode(row) + "\n").encode()
    for _ in range(3):  # some file systems never say that it is the same file
        if _append(line, path):
            return


def _append(line: bytes, path: Path) -> bool:
    """Whether the file to which the line was added is still the one at that path: it may have been replaced."""
    with open(path, "ab+", buffering=0) as file:  # unbuffered: nothing is left to be flushed after a failure
        lock(file, "LOCK_EX")
        end, done = file.seek(0, os.SEEK_END), 0
        if end:
            file.seek(end - 1)
            if file.read(1) != b"\n":  # a torn tail stays a line of its own, named when read
                line = b"\n" + line
        try:
            while done < len(line):
                done += file.write(line[done:])
            os.fsync(file.fileno())
        except OSError as error:
            if file.seek(0, os.SEEK_END) == end + done:  # else another process wrote too, where there are no locks
                file.truncate(end)
            raise OSError(error.errno, f"a row could not be saved ({error.strerror})", str(path)) from error
        for folder in path.absolute().parents if not end else ():  # it is new
            sync_folder(folder)
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(file.fileno()), path.stat())
        return False


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, as far as its file system can."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        lock(handle, "LOCK_EX")
        yield
    finally:
        os.close(handle)


def lock(file, kind: str, most: float = math.inf) -> None:
    """Lock an open file, which closing it ends, as far as its file system can; says so if that takes seconds.

    kind: "LOCK_EX", or "LOCK_SH" to read. most: seconds after which to go on without.
    """
    began, said = time.monotonic(), False
    while not _try_to_lock(file, kind):
        if (waited := time.monotonic() - began) > PATIENCE and not said:
            said = (
                say(f"waiting for {getattr(file, 'name', 'the shipped rows')}, which another process has locked")
                or True
            )
        if waited > most:
            return
        time.sleep(0.005 + min(0.1, waited / 10))


def _try_to_lock(file, kind: str) -> bool:
    try:
        import fcntl

        fcntl.flock(file, getattr(fcntl, kind) | fcntl.LOCK_NB)
    except ImportError:  # Windows
        _warn_of_no_locks("this system has none")
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES):
            return False
        _warn_of_no_locks(error.strerror)
    return True


@functools.cache
def _warn_of_no_locks(reason: str) -> None:
    warnings.warn(f"files are not locked ({reason}): let one process at a time write rows there", stacklevel=4)


def say(sentence: str, file=None) -> None:
    """Print a line (to stderr, unless told); a full disk or a closed pipe must not end a run."""
    with contextlib.suppress(OSError, ValueError):
        print(sentence, file=file or sys.stderr, flush=True)


def merge(rows: list[dict], others: list[dict], *, refuse: bool = False) -> tuple[list[dict], list[str]]:
    """Rows of both lists, one per key, the first kept; and a sentence for each cell whose numbers differ.

    A failed row gives way to one that is not. Numbers may differ between engines, versions, kinds of CPU and runs on
    a GPU. refuse: raise ConflictError where engine, versions and kind of CPU are known to be the same.
    """
    merged, notes = {row["key"]: row for row in rows}, []
    for row in others:
        kept = merged.get(row["key"])
        if kept is None or (kept["status"] == "failed" and row["status"] != "failed"):
            merged[row["key"]] = row
        elif row["status"] != "failed" and _compared(kept) != _compared(row):
            engine, where = kept["engine"], f"{_difference(kept, row)} (in {_place(kept)} and {_place(row)})"
            # The plain loop's convolutions do not repeat to the bit on a GPU; older rows do not say their vectors.
            repeats = "vectors" in engine if engine.get("device", "cpu") == "cpu" else engine.get("name") != "loop"
            if refuse and repeats and (engine, kept["versions"]) == (row["engine"], row["versions"]):
                said = "two rows of one cell, from one engine, versions and kind of CPU, differ"
                raise ConflictError(f"{said}: {where}; delete the line that is wrong")
            notes.append(f"the first of two rows is kept, which differ: {where}")
    return list(merged.values()), notes


def _place(row: dict) -> str:
    return getattr(row, "place", Row.place)


def _compared(row: dict) -> dict:
    # Seconds, commit, engine and versions are facts about the run, not results of it.
    return {name: row.get(name) for name in ("status", "measures")}


def _difference(kept: dict, row: dict) -> str:
    first, second = ({"status": r["status"]} | (r.get("measures") or {}) for r in (kept, row))
    values = [(n, a, second.get(n)) for n, a in first.items() if a != second.get(n) and not isinstance(a, list)]
    numbers = ", ".join(f"{name} {a} and {b}" for name, a, b in values[:3]) or "values over time"
    return (f"{row['measure']} of " if "measure" in row else "") + f"{row['cell']}: {numbers}"


def load_rows(*, shipped: bool = True, local: bool = True, measure: str | None = None) -> list[dict]:
    """Every row, shipped before local, one per cell: the runs' own, or those of one further measure.

    Where two rows of one cell differ, the first is used and a warning names both.
    """
    rows, notes = [], []
    for path in _files(shipped, local):
        rows, more = merge(rows, [row for row in read_rows(path) if row.get("measure") == measure])
        notes += more
    if notes:
        others = f"; so do {len(notes) - 1} more" if len(notes) > 1 else ""
        warnings.warn(f"{notes[0]}{others}", stacklevel=2)
    return rows


_SOUND: set[tuple[bytes, bytes]] = set()  # keys and CRCs of lines that this process has found to be rows


def load_statuses(keys: Collection[str] | None = None, *, shipped: bool = True, local: bool = True) -> dict[str, str]:
    """The status of each of the keys that has a row (None: of all keys), as `load_rows` has it.

    Of runs' own rows and further measures alike. Warns as `load_rows` does of rows that differ.
    """
    first, differ, keys = {}, False, None if keys is None else set(keys)
    for path in _files(shipped, local):
        for key, status, crc in read_rows(path, functools.partial(decode_head, keys=keys, sound=_SOUND)):
            if keys is not None and key not in keys:
                continue
            kept = first.get(key)
            if kept is None or kept[0] == "failed" != status:
                first[key] = status, crc
            elif status != "failed":
                differ |= kept[1] != crc
    if differ:
        load_rows(shipped=shipped, local=local)
    return {key: status for key, (status, _) in first.items()}


def _files(shipped: bool, local: bool) -> list[Path]:
    return [SHIPPED] * shipped + [local_path()] * local
