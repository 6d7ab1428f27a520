"""Rows on disk: what was saved is read again, one a cell. Damage to them is tried in faults/test_rows.py."""

import json
import math
from concurrent.futures import ProcessPoolExecutor

import pytest
from made_rows import a_stored_row as a_row
from processes import CONTEXT

from robustkit.sweep import store


def without_schema(rows):
    return [{name: value for name, value in row.items() if name not in ("schema", "crc")} for row in rows]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a größer folder" / "rows.jsonl"


def save(path, rows):
    for row in rows:
        store.append(row, path)


# ---------------------------------------------------------------------------------------------- reading and writing


def test_rows_are_read_as_they_were_written_to_the_last_bit(path):
    tiny, large = math.nextafter(0.1, 1), 2.0**1023 * 1.1
    rows = [
        a_row("a", tiny),
        a_row("b", large, reason='quote ", line\nbreak, é, \u2028 and , "crc": "00000000"}'),
        a_row("c", 5e-324, status="diverged"),
    ]
    save(path, rows)
    assert without_schema(store.read_rows(path)) == rows
    assert path.read_text(encoding="ascii").count("\n") == 3


def test_a_file_that_is_not_there_has_no_rows(path):
    assert store.read_rows(path) == []
    assert store.load_rows() == []


def test_rows_go_to_the_results_folder_and_are_loaded_after_the_shipped_ones():
    store.append(a_row("local"))
    store.append(a_row("shipped"), store.SHIPPED)
    assert without_schema(store.load_rows()) == [a_row("shipped"), a_row("local")]
    assert without_schema(store.load_rows(local=False)) == [a_row("shipped")]
    assert without_schema(store.load_rows(shipped=False)) == [a_row("local")]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused_and_nothing_is_written(path, value):
    store.append(a_row("a"), path)
    before = path.read_bytes()
    with pytest.raises(ValueError):
        store.append(a_row("b", value), path)
    assert path.read_bytes() == before


# ---------------------------------------------------------------------------------------------- two writers


def append_many(path, name):
    for number in range(50):
        store.append(a_row(f"{name}{number}", 1 + number), path)


def test_two_processes_share_one_file(path):
    with ProcessPoolExecutor(2, mp_context=CONTEXT) as pool:
        for job in [pool.submit(append_many, path, name) for name in ("a", "b")]:
            job.result()
    rows = without_schema(store.read_rows(path))
    assert len(rows) == 100
    for name in ("a", "b"):
        own = {a_row(f"{name}{number}")["key"]: number for number in range(50)}
        assert [row["measures"]["stability"] for row in rows if row["key"] in own] == list(range(1, 51))


# ---------------------------------------------------------------------------------------------- merging


def test_the_same_measures_measured_twice_are_one_row():
    again = a_row("a", seconds=99.0, commit="another")
    assert store.merge([a_row("a"), a_row("b")], [again, a_row("c")]) == ([a_row("a"), a_row("b"), a_row("c")], [])


def test_a_failed_row_gives_way_and_never_replaces_a_result():
    failed = a_row("a", None, status="failed", reason="no luck")
    assert store.merge([failed], [a_row("a")]) == ([a_row("a")], [])
    assert store.merge([a_row("a")], [failed]) == ([a_row("a")], [])
    assert store.merge([failed], []) == ([failed], [])


def test_a_line_is_plain_json_that_others_can_read(path):
    store.append(a_row("a"), path)
    row = json.loads(path.read_text())
    assert list(row)[:3] == ["key", "status", "schema"] and list(row)[-1] == "crc"
