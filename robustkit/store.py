"""Rows on disk: one JSON object a line, closed by a CRC; appended under a lock, synced before it counts as saved."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
import zlib
from pathlib import Path

from .checks import InputError
from .config import ROOT, results_folder

SCHEMA = 1
SHIPPED = ROOT / "results" / "shipped.jsonl"


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


def decode(line: str) -> dict:
    """The row of one line. Raises ValueError if the line is torn, altered or of another schema."""
    body, mark, tail = line.rpartition(', "crc": "')
    if not mark or len(tail) != 10 or tail[8:] != '"}' or tail[:8] != f"{zlib.crc32(body.encode()):08x}":
        raise ValueError("the row is torn or altered: its CRC does not match")
    row = json.loads(line)
    if row["schema"] != SCHEMA:
        raise ValueError(f"the row has schema {row['schema']}, this version reads schema {SCHEMA}")
    return row


def read_rows(path: Path) -> list[dict]:
    """All sound rows of a file, in order; damaged lines are named in a warning and never used.

    Raises InputError if a sound row has another schema: it is not damage, and guessing would be.
    """
    if not path.exists():
        return []
    if not path.is_file():
        raise InputError(f"{path} cannot be read or cannot be written: it must be a file of rows")
    rows, damaged = [], []
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                rows.append(decode(line.rstrip("\n")))
            except ValueError as error:
                if "schema" in str(error):
                    raise InputError(f"{path}, line {number}: {error}") from error
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
        _lock(file)
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


def _lock(file) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: appends of one process only
        return
    fcntl.flock(file, fcntl.LOCK_EX)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file as a whole: it holds the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException as error:
        os.unlink(name)
        if isinstance(error, OSError):
            raise OSError(error.errno, f"the file could not be written ({error.strerror})", str(path)) from error
        raise


def merge(rows: list[dict], others: list[dict]) -> tuple[list[dict], list[str]]:
    """First rows kept, new cells added; a sentence for each cell whose numbers differ between engines.

    A failed row gives way to one that is not. Raises ConflictError if the same engine and versions measured
    different numbers for one cell.
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
    words = ", ".join(f"{name} {a} and {b}" for name, a, b in values[:3]) or "values over time"
    return (f"{row['measure']} of " if "measure" in row else "") + f"{row['cell']}: {words}"


def load_rows(*, shipped: bool = True, local: bool = True, measure: str | None = None) -> list[dict]:
    """Every row, shipped before local, one a cell: the trainings, or those of one further measure."""
    files = [SHIPPED] * shipped + [local_path()] * local
    rows = []
    for path in files:
        rows, _ = merge(rows, [row for row in read_rows(path) if row.get("measure") == measure])
    return rows
