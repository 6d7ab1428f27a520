"""Rows on disk: what was saved is read again, what was damaged is named and never used."""

import hashlib
import json
import math
import multiprocessing
import os
import resource
import warnings
from concurrent.futures import ProcessPoolExecutor

import numpy
import pytest

from robustkit import store
from robustkit.config import InputError

# Children of a server that has torch in memory already: a process each, without its seconds of start.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["robustkit.sweep", "sklearn.datasets", "torch._dynamo"])


def a_row(name="a", stability=0.1, **changes):
    row = {
        "key": hashlib.sha256(name.encode()).hexdigest(),
        "status": "ok",
        "cell": {"width": 16, "depth": 2, "dataset": "digits"},
        "reason": None,
        "measures": {"stability": stability, "kappa_over_time": [0.0, 1 / 3]},
        "engine": {"name": "loop", "device": "cpu"},
        "versions": {"torch": "2.13.0"},
        "seconds": 1.5,
    }
    return row | changes


def without_schema(rows):
    return [{name: value for name, value in row.items() if name not in ("schema", "crc")} for row in rows]


def read_quietly(path):
    """The sound rows, and what was said about the others."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = store.read_rows(path)
    return without_schema(rows), " ".join(str(warning.message) for warning in caught)


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


def test_a_row_torn_at_any_byte_is_named_and_the_next_row_is_whole(path):
    save(path, [a_row("a"), a_row("b")])
    start = path.stat().st_size
    store.append(a_row("torn"), path)
    content = path.read_bytes()
    for end in range(start + 1, len(content) - 1):
        path.write_bytes(content[:end])
        rows, said = read_quietly(path)
        assert rows == [a_row("a"), a_row("b")], end
        assert str(path) in said and "line 3" in said, end
        store.append(a_row("c"), path)
        rows, said = read_quietly(path)
        assert rows == [a_row("a"), a_row("b"), a_row("c")], end
        assert "line 3" in said, end


def test_a_last_row_that_lacks_only_its_line_break_is_sound(path):
    save(path, [a_row("a"), a_row("b")])
    path.write_bytes(path.read_bytes()[:-1])
    assert without_schema(store.read_rows(path)) == [a_row("a"), a_row("b")]
    store.append(a_row("c"), path)
    assert without_schema(store.read_rows(path)) == [a_row("a"), a_row("b"), a_row("c")]


def test_a_flipped_bit_costs_its_row_and_never_changes_another(path):
    rows = [a_row(name, 0.1 * (1 + i)) for i, name in enumerate("abcde")]
    save(path, rows)
    content = path.read_bytes()
    ends = [i for i, byte in enumerate(content) if byte == ord("\n")]
    bits = numpy.random.default_rng(1).choice(8 * len(content), size=200, replace=False)
    # Each line break too: it may join two rows, which are then both lost, and both are told.
    for bit in [*bits.tolist(), *(8 * end + 2 for end in ends)]:
        position = bit // 8
        flipped = bytearray(content)
        flipped[position] ^= 1 << bit % 8
        path.write_bytes(flipped)
        found, said = read_quietly(path)
        hit = sum(end < position for end in ends)
        lost = {hit, hit + 1} if position in ends else {hit}
        assert found == [row for i, row in enumerate(rows) if i not in lost], (position, bit % 8)
        assert f"line {hit + 1}" in said, (position, bit % 8)


def test_a_file_that_holds_no_rows_at_all_is_named(path):
    path.parent.mkdir()
    path.write_bytes(b"<html>\xff\x00not found</html>\n")
    rows, said = read_quietly(path)
    assert rows == []
    assert "1 damaged row" in said and str(path) in said


@pytest.mark.parametrize("theirs", [0, 2])
def test_another_schema_is_refused_with_both_versions_named(path, monkeypatch, theirs):
    store.append(a_row("a"), path)
    with monkeypatch.context() as other_version:
        other_version.setattr(store, "SCHEMA", theirs)
        store.append(a_row("b"), path)
    with pytest.raises(InputError, match=f"line 2.*schema {theirs}.*schema {store.SCHEMA}") as caught:
        store.read_rows(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused_and_nothing_is_written(path, value):
    store.append(a_row("a"), path)
    before = path.read_bytes()
    with pytest.raises(ValueError):
        store.append(a_row("b", value), path)
    assert path.read_bytes() == before


# ------------------------------------------------------------------------------------------ writers and full disks


def append_many(path, name):
    for number in range(50):
        store.append(a_row(f"{name}{number}", number), path)


def test_two_processes_share_one_file(path):
    with ProcessPoolExecutor(2, mp_context=CONTEXT) as pool:
        for job in [pool.submit(append_many, path, name) for name in ("a", "b")]:
            job.result()
    rows = without_schema(store.read_rows(path))
    assert len(rows) == 100
    for name in ("a", "b"):
        own = {a_row(f"{name}{number}")["key"]: number for number in range(50)}
        assert [row["measures"]["stability"] for row in rows if row["key"] in own] == list(range(50))


def with_room_for(room, path, write, *arguments):
    """What writing raises (its path and text) when the file may grow by `room` bytes only, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, hard))
    try:
        write(*arguments)
    except OSError as error:
        return error.filename, str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_says_where_and_leaves_no_part_of_a_row(path):
    store.append(a_row("a"), path)
    before = path.read_bytes()
    length = len(before)
    with ProcessPoolExecutor(1, mp_context=CONTEXT) as pool:
        for room in (0, 1, length // 2, length - 1):
            name, said = pool.submit(with_room_for, room, path, store.append, a_row("b"), path).result()
            assert name == str(path) and str(path) in said, room
            assert path.read_bytes() == before, room
    store.append(a_row("c"), path)
    assert without_schema(store.read_rows(path)) == [a_row("a"), a_row("c")]


def test_a_full_disk_keeps_the_old_content_of_a_whole_file(path):
    store.write_atomically(path, "old")
    with ProcessPoolExecutor(1, mp_context=CONTEXT) as pool:
        assert pool.submit(with_room_for, 5, path, store.write_atomically, path, "new" * 100).result() is not None
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_keeps_the_old_content_and_leaves_nothing_behind(path, monkeypatch, step):
    store.write_atomically(path, "old")

    def fail(*_):
        raise OSError(5, "no luck", str(path))

    with monkeypatch.context() as broken:
        broken.setattr(store.os, step, fail)
        with pytest.raises(OSError, match="no luck"):
            store.write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == [path.name]
    store.write_atomically(path, "new\n")
    assert path.read_bytes() == b"new\n"


# ---------------------------------------------------------------------------------------------- merging


def test_the_same_measures_measured_twice_are_one_row():
    again = a_row("a", seconds=99.0, commit="another")
    assert store.merge([a_row("a"), a_row("b")], [again, a_row("c")]) == ([a_row("a"), a_row("b"), a_row("c")], [])


@pytest.mark.parametrize("change", [{"stability": 0.2}, {"status": "diverged"}])
def test_other_numbers_from_the_same_engine_and_versions_are_an_error_naming_the_cell(change):
    with pytest.raises(store.ConflictError) as caught:
        store.merge([a_row("a"), a_row("b", 0.1)], [a_row("b", **change)])
    assert "'width': 16" in str(caught.value)
    assert str(change.popitem()[1]) in str(caught.value)


@pytest.mark.parametrize("change", [{"engine": {"name": "loop", "device": "gpu"}}, {"versions": {"torch": "2.14.0"}}])
def test_other_numbers_from_another_engine_or_version_are_noted_and_the_first_kept(change):
    first, second = a_row("a", 0.1), a_row("a", 0.25, **change)
    merged, notes = store.merge([first], [second])
    assert merged == [first]
    (note,) = notes
    assert "'width': 16" in note and "0.1" in note and "0.25" in note


def test_two_runs_of_a_loop_on_a_gpu_may_differ_and_the_first_is_kept():
    """Its convolutions do not repeat to the bit; the batched engine's products do."""
    first, second = (a_row("a", p, engine={"name": "loop", "device": "NVIDIA H100"}) for p in (0.1, 0.1000001))
    merged, (note,) = store.merge([first], [second])
    assert merged == [first] and "0.1000001" in note
    first, second = (a_row("a", p, engine={"name": "ensemble", "device": "NVIDIA H100"}) for p in (0.1, 0.2))
    with pytest.raises(store.ConflictError):
        store.merge([first], [second])


def test_a_failed_row_gives_way_and_never_replaces_a_result():
    failed = a_row("a", None, status="failed", reason="no luck")
    assert store.merge([failed], [a_row("a")]) == ([a_row("a")], [])
    assert store.merge([a_row("a")], [failed]) == ([a_row("a")], [])
    assert store.merge([failed], []) == ([failed], [])


def test_a_conflict_between_shipped_and_local_rows_is_said_on_loading():
    store.append(a_row("a", 0.1), store.SHIPPED)
    store.append(a_row("a", 0.2))
    with pytest.raises(store.ConflictError):
        store.load_rows()


def test_a_line_is_plain_json_that_others_can_read(path):
    store.append(a_row("a"), path)
    row = json.loads(path.read_text())
    assert list(row)[:3] == ["key", "status", "schema"] and list(row)[-1] == "crc"
