"""One line of a file of rows: a JSON object closed by a CRC, and what it must say to be a row."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import sys
import zlib
from collections.abc import Collection

from ..cell import ADDED, NUMERICS, Cell, key_of, measure_key, without_added
from ..checks import InputError
from ..datasets import DATASETS

SCHEMA, MOST = 1, sys.float_info.max
STATUSES = ("ok", "diverged", "failed")
HEAD = re.compile(rb'\{"key": "([^"\\]*)", "status": "([^"\\]*)", "schema": (\d+), ')  # how `encode` begins a line
KEY = re.compile("[0-9a-f]{64}")
_WORDS = {"int": int, "float": float, "str": str, "bool": bool, "tuple": list, "None": type(None)}
FIELDS = {  # the types that each field of a cell has in JSON
    field.name: {_WORDS[word] for word in re.findall(r"\w+", field.type.partition("[")[0])}
    for field in dataclasses.fields(Cell)
}


class Row(dict):
    """A row, and the file and line that it was read from."""

    place = "a row in memory"


def encode(row: dict) -> str:
    """One line: `key` and `status` first, the CRC-32 of all before it last. Raises ValueError on NaN or infinity."""
    first = {name: row[name] for name in ("key", "status")} | {"schema": SCHEMA}
    body = json.dumps(first | {k: v for k, v in row.items() if k not in (*first, "crc")}, allow_nan=False)
    return f'{body[:-1]}, "crc": "{zlib.crc32(body[:-1].encode()):08x}"}}'


def decode(line: str | bytes) -> Row:
    """The row of one line.

    Raises ValueError if the line is torn or altered, or makes no row; InputError if it has another schema.
    """
    line = line.encode() if isinstance(line, str) else line
    _check_crc(line)
    try:
        row = json.loads(line, parse_constant=_refuse_constant, object_pairs_hook=_refuse_twice)
        _check_schema(row.get("schema"))
        if wrong := next((name for name, fits in _checked(row) if not fits), None):
            raise ValueError(f"its {wrong} cannot be {str(row.get(wrong))[:60]!r}")
    except RecursionError as error:
        raise ValueError("the row is nested too deeply") from error
    return Row(row)


def decode_head(line: bytes, keys: Collection[str] | None, sound: set) -> tuple[str, str, bytes]:
    """Key, status and CRC of the row of one line, some 20 times as fast as `decode`.

    A line of one of the keys (None: of any) is refused where `decode` refuses it; of others the CRC alone is checked.
    sound: the lines found to be rows before.
    """
    _check_crc(line)
    head = HEAD.match(line)
    if head and keys is not None and head[1].decode() not in keys:
        _check_schema(int(head[3]))
    elif not head or (head[1], line[-10:-2]) not in sound:
        row = decode(line)
        sound.add((row["key"].encode(), line[-10:-2]))
        return row["key"], row["status"], line[-10:-2]
    return head[1].decode(), head[2].decode(), line[-10:-2]


def _check_crc(line: bytes) -> None:
    if line[-20:] != b', "crc": "%08x"}' % zlib.crc32(memoryview(line)[:-20]):
        raise ValueError("it is torn or altered: its CRC does not match")


def _check_schema(schema: int | None) -> None:
    if schema != SCHEMA:
        raise InputError(f"the row has schema {schema}, this version reads schema {SCHEMA}")


def _refuse_constant(name: str):
    raise ValueError(f"it holds {name}, which is not a number of JSON")


def _refuse_twice(pairs: list[tuple[str, object]]) -> dict:
    if len(fields := dict(pairs)) != len(pairs):
        raise ValueError("a name stands in it twice")
    return fields


def _checked(row: dict):
    """Each part of a row, and whether it can be what it says it is."""
    cell, measures = row.get("cell"), row.get("measures")
    yield "status", row.get("status") in STATUSES
    yield "cell", isinstance(cell, dict) and _are_fields(tuple(cell), tuple(map(type, cell.values())))
    yield "key", _is_key(row, cell)
    yield "reason", isinstance(row.get("reason"), str | None)
    yield "measures", isinstance(measures, dict) and all(map(_fits, measures, measures.values()))
    if row["status"] == "ok" and "measure" not in row:
        yield "measures", bool(measures.get("stability"))
    for name in ("engine", "versions"):
        facts = row.get(name)
        yield name, isinstance(facts, dict) and not any(isinstance(fact, dict | list) for fact in facts.values())
    yield "commit", isinstance(row.get("commit"), str | None)
    yield "seconds", type(row.get("seconds")) in (int, float) and _fits("seconds", row["seconds"])


@functools.lru_cache
def _are_fields(names: tuple[str, ...], types: tuple[type, ...]) -> bool:
    found = dict(zip(names, types, strict=True))
    return all(found[name] in fit if name in found else name in ADDED for name, fit in FIELDS.items())


def _is_key(row: dict, cell: dict) -> bool:
    """Whether the key is that of the cell; of an .npz, whose content the row does not hold, its form alone."""
    own = row.get("cell_key" if "measure" in row else "key")
    if not all(isinstance(key, str) and KEY.fullmatch(key) for key in (own, row.get("key"))):
        return False
    if "measure" in row and row["key"] != measure_key(own, row["measure"], row.get("version")):
        return False
    if cell["dataset"] not in DATASETS:
        return True
    fields, sha256 = without_added(cell), DATASETS[cell["dataset"]].sha256
    # A row of an older NUMERICS is sound, and stands for no cell of today.
    return any(own == key_of(fields, sha256, number) for number in range(NUMERICS.get(cell["model"], 0), 0, -1))


def _fits(name: str, value) -> bool:
    """Whether this is None, a finite number or lists of them; only margins, and old seconds, may be below 0."""
    if value is None or type(value) is float and 0 <= value <= 1:
        return True
    values = value if isinstance(value, list) else [value]
    kinds = set(map(type, values))
    if kinds == {list}:
        return all(_fits(name, inner) for inner in values)
    least, most = (-MOST if name in ("margin", "seconds") else 0), (1 if "accuracy" in name else MOST)
    return kinds <= {int, float} and (not values or least <= min(values) and max(values) <= most)
