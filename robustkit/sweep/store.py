"""Rows on disk: one JSON object per line, closed by a CRC; appended under a lock, and saved once it is synced."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

from ..checks import InputError
from ..files import ROOT, results_folder

SCHEMA = 1
SHIPPED = ROOT / "results" / "shipped.jsonl"
HEAD = re.compile(rb'\{"key": "([^"\\]*)", "status": "([^"\\]*)", "schema": (\d+), ')  # how `encode` begins a line


class ConflictError(RuntimeError):
    """Two rows of one cell, from the same engine and versions, hold different numbers."""


def local_path() -> Path:
    """The file that rows trained here go to."""
    return results_folder() / "rows.jsonl"


def encode(row: dict) -> str:
    """One line: `key` and `status` first, the CRC-32 of all before it last. Raises ValueError on NaN or infinity."""
    first = {name: row[name] for name in ("key", "status")} | {"schema": SCHEMA}
    body = json.dumps(first | {k: v for k, v in row.items() if k not in (*first, "crc")}, allow_nan=False)
    return f'{body[:-1]}, "crc": "{zlib.crc32(body[:-1].encode()):08x}"}}'


def decode(line: str | bytes) -> dict:
    """The row of one line. Raises ValueError if the line is torn or altered, InputError if it has another schema."""
    line = line.encode() if isinstance(line, str) else line
    _check_crc(line)
    try:
        row = json.loads(line, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("the row is nested too deeply") from error
    _check_schema(row.get("schema"))
    return row


def _refuse_constant(name: str):
    raise ValueError(f"the row holds {name}, which is not a number of JSON")


def _decode_head(line: bytes) -> tuple[str, str, bytes]:
    """Key, status and CRC of the row of one line, checked as by `decode` but not parsed: some 20 times as fast."""
    _check_crc(line)
    if head := HEAD.match(line):
        key, status, schema = (group.decode() for group in head.groups())
        _check_schema(int(schema))
    else:  # not as `encode` writes it
        row = decode(line)
        key, status = row["key"], row["status"]
    return key, status, line[-10:-2]


def _check_crc(line: bytes) -> None:
    if line[-20:] != b', "crc": "%08x"}' % zlib.crc32(memoryview(line)[:-20]):
        raise ValueError("the row is torn or altered: its CRC does not match")


def _check_schema(schema: int | None) -> None:
    if schema != SCHEMA:
        raise InputError(f"the row has schema {schema}, this version reads schema {SCHEMA}")


def read_rows(path: Path, decoder: Callable[[bytes], object] = decode) -> list:
    """All sound rows of a file, in order; damaged lines are named in a warning and never used.

    Raises InputError if a sound row has another schema: it is not damage, and guessing would be.
    """
    if not path.exists():
        return []
    if not path.is_file():
        raise InputError(f"{path} cannot be read or cannot be written: it must be a file of rows")
    rows, damaged = [], []
    with contextlib.ExitStack() as stack, open(path, "rb", buffering=1 << 20) as file:
        if gc.isenabled():  # it would go through all rows again and again as they come, for half of the time
            gc.disable()
            stack.callback(gc.enable)
        with contextlib.suppress(OSError):  # a file system without locks can be read all the same
            _lock(file, "LOCK_SH")  # a row that another process is writing is read whole, or not yet
        for number, line in enumerate(file, 1):
            try:
                if not line.isspace():
                    rows.append(decoder(line.rstrip(b"\r\n")))
            except InputError as error:
                raise InputError(f"{path}, line {number}: {error}") from error
            except ValueError:
                damaged.append(number)
    if damaged:
        where = ", ".join(map(str, damaged[:10])) + (" ..." if len(damaged) > 10 else "")
        warnings.warn(f"{path}: {len(damaged)} damaged row(s) left out, at line {where}", stacklevel=2)
    return rows


def append(row: dict, path: Path | None = None) -> None:
    """Add one row to a file and sync it to disk. On failure the file is as it was, and OSError names the path."""
    path = path or local_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (encode(row) + "\n").encode()
    with open(path, "ab+", buffering=0) as file:  # unbuffered: nothing is left to be flushed after a failure
        _lock(file, "LOCK_EX")
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            if file.read(1) != b"\n":  # a torn tail stays a line of its own, named when read
                line = b"\n" + line
        try:
            while line:
                line = line[file.write(line) :]
            os.fsync(file.fileno())
        except OSError as error:
            os.truncate(path, end)
            raise OSError(error.errno, f"a row could not be saved ({error.strerror})", str(path)) from error


def _lock(file, kind: str) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: appends of one process only
        return
    fcntl.flock(file, getattr(fcntl, kind))


def merge(rows: list[dict], others: list[dict]) -> tuple[list[dict], list[str]]:
    """Rows of both lists, one per key, the first kept; and a sentence for each cell whose numbers differ.

    A failed row gives way to one that is not. Numbers may differ between engines, versions and runs on a GPU; raises
    ConflictError if the same engine and versions measured different numbers for one cell.
    """
    merged, notes = {row["key"]: row for row in rows}, []
    for row in others:
        kept = merged.get(row["key"])
        if kept is None or (kept["status"] == "failed" and row["status"] != "failed"):
            merged[row["key"]] = row
        elif row["status"] != "failed" and _compared(kept) != _compared(row):
            names = _difference(kept, row)
            # The plain loop's convolutions do not repeat to the bit on a GPU.
            on_gpu = kept["engine"].get("device", "cpu") != "cpu"
            repeats = not (on_gpu and kept["engine"].get("name") == "loop")
            if repeats and (kept["engine"], kept["versions"]) == (row["engine"], row["versions"]):
                raise ConflictError(f"two rows of one cell, from one engine and versions, differ: {names}")
            notes.append(f"the first row is kept, another engine, version or run on a GPU differs: {names}")
    return list(merged.values()), notes


def _compared(row: dict) -> dict:
    # Seconds, commit, engine and versions are facts about the run, not results of it.
    return {name: row.get(name) for name in ("status", "measures")}


def _difference(kept: dict, row: dict) -> str:
    first, second = ({"status": r["status"]} | (r.get("measures") or {}) for r in (kept, row))
    values = [(n, a, second.get(n)) for n, a in first.items() if a != second.get(n) and not isinstance(a, list)]
    numbers = ", ".join(f"{name} {a} and {b}" for name, a, b in values[:3]) or "values over time"
    return (f"{row['measure']} of " if "measure" in row else "") + f"{row['cell']}: {numbers}"


def load_rows(*, shipped: bool = True, local: bool = True, measure: str | None = None) -> list[dict]:
    """Every row, shipped before local, one per cell: the runs' own, or those of one further measure."""
    rows = []
    for path in _files(shipped, local):
        rows, _ = merge(rows, [row for row in read_rows(path) if row.get("measure") == measure])
    return rows


def load_statuses(*, shipped: bool = True, local: bool = True) -> dict[str, str]:
    """The status of every key, as `load_rows` has it, of runs' own rows and further measures alike; CRCs are checked.

    Raises ConflictError as `load_rows()` does, which compares rows that were saved twice with other bytes.
    """
    first, differ = {}, False
    for path in _files(shipped, local):
        for key, status, crc in read_rows(path, _decode_head):
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
