"""Rows that a kill, a torn file, a flipped bit, another schema or another machine got at; and many of them."""

import collections
import functools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
import zlib
from pathlib import Path

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_rows import a_stored_row as a_row

from robustkit import files
from robustkit.cell import Cell, InputError, key_of, without_added
from robustkit.datasets import dataset_info
from robustkit.sweep import lines, store, train_missing


def without_schema(rows):
    return [{name: value for name, value in row.items() if name not in ("schema", "crc")} for row in rows]


def read_quietly(path):
    """The sound rows, and what was said about the others."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = store.read_rows(path)
    return without_schema(rows), " ".join(str(warning.message) for warning in caught)


@pytest.fixture
def path():
    """Where rows trained here go."""
    return store.local_path()


def save(path, rows):
    for row in rows:
        store.append(row, path)


# ---------------------------------------------------------------------------------------------- killed while writing

# The package is entered without its __init__, whose imports (torch, seaborn) take seconds and are not needed here.
WRITER = """
import io, json, os, signal, sys, types

package, path, what, stage, number = json.loads(sys.argv[1])
sys.modules["robustkit"] = types.ModuleType("robustkit")
sys.modules["robustkit"].__path__ = [package]
from pathlib import Path
from robustkit import files
from robustkit.sweep import store

def stop():
    os.kill(os.getpid(), signal.SIGKILL)

def pause():
    print("half", flush=True)
    sys.stdin.readline()

class File(io.FileIO):
    def write(self, data):
        global number
        if number is None:
            return super().write(data)
        (done, number), then = (super().write(data[:number]), None), pause if stage == "pause" else stop
        then()
        return done

def patch(module, name, after):
    call = getattr(module, name)
    def patched(*arguments, **options):
        if after:
            call(*arguments, **options)
        stop()
    setattr(module, name, patched)

if number is not None:
    store.open = lambda path, mode, buffering: File(path, mode)
    files.open = lambda path, mode: File(path, mode)
else:
    when, name = stage.split()
    patch(os, name, when == "after")
store.append(what, Path(path)) if isinstance(what, dict) else files.write_atomically(Path(path), what)
"""


def writer(path, what, stage, number=None):
    """A process that writes a row or a whole file, and stops (by SIGKILL) or pauses at a stage of it."""
    given = json.dumps([str(Path(files.__file__).parent), str(path), what, stage, number])
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-W", "error", "-c", WRITER, given], **pipes)


def kill_while_writing(path, what, stage, number=None):
    with writer(path, what, stage, number) as process:
        process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, stage


LENGTH = len(store.encode(a_row("new"))) + 1
BYTES = [("bytes", number) for number in (0, 1, 30, LENGTH // 2, LENGTH - 2, LENGTH - 1, LENGTH)]


@pytest.mark.guard(2, "robustkit/sweep/store.py", "os.fsync(file.fileno())\n        except", "pass\n        except")
@pytest.mark.parametrize(("stage", "number"), [*BYTES, ("before fsync", None), ("after fsync", None)])
def test_a_process_killed_while_it_saves_a_row_leaves_the_row_or_none(path, stage, number):
    old, new = [a_row("a"), a_row("b")], a_row("new")
    save(path, old)
    kill_while_writing(path, new, stage, number)
    whole = number is None or number >= LENGTH - 1  # the last byte is the line break
    rows, said = read_quietly(path)
    assert rows == old + [new] * whole
    assert ("line 3" in said) == (not whole and number > 0)
    store.append(a_row("c"), path)
    assert read_quietly(path)[0] == [*old, *[new] * whole, a_row("c")]


@pytest.mark.guard(2, "robustkit/files.py", "file.flush()\n            os.fsync(file.fileno())", "pass")
@pytest.mark.guard(
    2,
    "robustkit/files.py",
    'open(path.with_name(f".{path.name}-{secrets.token_hex(8)}"), "xb")',
    'open(path, "wb")',
)
@pytest.mark.parametrize(
    ("stage", "number"),
    [
        *[("bytes", number) for number in (0, 1, 2000, 4000)],
        *[(f"{when} {call}", None) for call in ("fsync", "replace") for when in ("before", "after")],
    ],
)
def test_a_process_killed_while_it_replaces_a_file_leaves_the_old_content_or_the_new(path, stage, number):
    old, new = "old\n" * 500, "new!" * 1000
    files.write_atomically(path, old)
    kill_while_writing(path, new, stage, number)
    assert path.read_text() == (new if stage == "after replace" else old)
    files.write_atomically(path, new)
    assert path.read_text() == new


def test_what_a_killed_process_left_is_removed_after_a_day_and_not_before(path):
    files.write_atomically(path, "old")
    kill_while_writing(path, "new", "bytes", 1)
    (left,) = [name for name in os.listdir(path.parent) if name != path.name]
    files.write_atomically(path, "newer")  # the other process might be alive
    assert sorted(os.listdir(path.parent)) == sorted([left, path.name])
    os.utime(path.with_name(left), (time.time() - 90000,) * 2)
    files.write_atomically(path, "newest")
    assert os.listdir(path.parent) == [path.name] and path.read_text() == "newest"


# ------------------------------------------------------------------------------------------------ two processes


@pytest.mark.guard(12, "robustkit/sweep/store.py", 'lock(file, "LOCK_SH", most=2 * PATIENCE)', "pass")
@pytest.mark.guard(12, "robustkit/sweep/store.py", 'lock(file, "LOCK_EX")\n        end', "end")
@pytest.mark.parametrize("then", ["read", "append"])
def test_a_row_that_another_process_is_half_way_through_is_waited_for(path, then):
    save(path, [a_row("a")])
    with writer(path, a_row("b"), "pause", 100) as other:
        assert other.stdout.readline() == "half\n"
        resume = threading.Timer(0.5, lambda: other.communicate("\n", timeout=300))
        resume.start()
        if then == "append":
            store.append(a_row("c"), path)
        rows, said = read_quietly(path)
        resume.join()
    assert rows == [a_row("a"), a_row("b")] + [a_row("c")] * (then == "append")
    assert said == "" and other.returncode == 0


# ------------------------------------------------------------------------------------------------ torn and flipped


@pytest.mark.guard(3, "robustkit/sweep/store.py", 'line = b"\\n" + line', "pass")
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


@pytest.mark.guard(3, "robustkit/sweep/store.py", 'line = b"\\n" + line', "pass")
def test_a_last_row_that_lacks_only_its_line_break_is_sound(path):
    save(path, [a_row("a"), a_row("b")])
    path.write_bytes(path.read_bytes()[:-1])
    assert read_quietly(path) == ([a_row("a"), a_row("b")], "")
    store.append(a_row("c"), path)
    assert read_quietly(path) == ([a_row("a"), a_row("b"), a_row("c")], "")


@pytest.mark.guard(
    11, "robustkit/sweep/lines.py", 'raise ValueError("it is torn or altered: its CRC does not match")', "pass"
)
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
        assert str(path) in said and f"line {hit + 1}" in said, (position, bit % 8)
        with pytest.warns(UserWarning, match=f"line {hit + 1}"):
            assert list(store.load_statuses()) == [row["key"] for row in found], (position, bit % 8)


def test_a_file_that_holds_no_rows_at_all_is_named(path):
    path.parent.mkdir()
    path.write_bytes(b"<html>\xff\x00not found</html>\n")
    rows, said = read_quietly(path)
    assert rows == []
    assert "1 damaged row" in said and str(path) in said


# ------------------------------------------------------------------------------------------------ schemas, conflicts


@pytest.mark.guard(13, "robustkit/sweep/lines.py", "if schema != SCHEMA:", "if False:")
@pytest.mark.parametrize("theirs", [0, 2, None])
def test_another_schema_is_refused_with_both_versions_named(path, monkeypatch, theirs):
    store.append(a_row("a"), path)
    with monkeypatch.context() as other_version:
        other_version.setattr(lines, "SCHEMA", theirs)
        store.append(a_row("b"), path)
    for load in (store.load_rows, store.load_statuses):
        with pytest.raises(InputError, match=f"line 2.*schema {theirs}.*schema {lines.SCHEMA}") as caught:
            load()
        assert str(path) in str(caught.value)


CONFLICT = 'raise ConflictError(f"{said}: {where}; delete the line that is wrong")'


@pytest.mark.guard(13, "robustkit/sweep/store.py", CONFLICT, "pass")
@pytest.mark.parametrize("change", [{"stability": 0.2}, {"status": "diverged"}])
def test_other_numbers_from_the_same_engine_and_versions_are_an_error_naming_the_cell(change):
    with pytest.raises(store.ConflictError) as caught:
        store.merge([a_row("a"), a_row("b", 0.1)], [a_row("b", **change)], refuse=True)
    assert "'width': 16" in str(caught.value)
    assert str(change.popitem()[1]) in str(caught.value)


@pytest.mark.guard(13, "robustkit/sweep/store.py", "refuse and repeats and (", "refuse or repeats or (")
@pytest.mark.parametrize(
    "change",
    [
        {"engine": {"name": "loop", "device": "gpu"}},
        {"engine": {"name": "loop", "device": "cpu", "vectors": "AVX512"}},
        {"versions": {"torch": "2.14.0"}},
    ],
    ids=str,
)
def test_other_numbers_from_another_engine_or_version_are_noted_and_the_first_kept(change):
    first, second = a_row("a", 0.1), a_row("a", 0.25, **change)
    merged, notes = store.merge([first], [second], refuse=True)
    assert merged == [first]
    (note,) = notes
    assert "'width': 16" in note and "0.1" in note and "0.25" in note


def test_two_runs_of_a_loop_on_a_gpu_may_differ_and_the_first_is_kept():
    """Its convolutions do not repeat to the bit; the batched engine's products do."""
    first, second = (a_row("a", p, engine={"name": "loop", "device": "NVIDIA H100"}) for p in (0.1, 0.1000001))
    merged, (note,) = store.merge([first], [second], refuse=True)
    assert merged == [first] and "0.1000001" in note
    first, second = (a_row("a", p, engine={"name": "ensemble", "device": "NVIDIA H100"}) for p in (0.1, 0.2))
    with pytest.raises(store.ConflictError):
        store.merge([first], [second], refuse=True)


@pytest.mark.guard(13, "robustkit/sweep/store.py", "differ |= kept[1] != crc", "pass")
@pytest.mark.parametrize("load", [store.load_rows, store.load_statuses])
@pytest.mark.parametrize("engine", [{}, {"vectors": "AVX512"}, {"vectors": "AVX2"}], ids=str)
def test_rows_that_differ_are_named_by_file_and_line_on_loading_and_stop_nothing(load, engine):
    """CPUs with other vectors differ in the last digits: nothing could be read, planned or trained any more."""
    store.append(a_row("a", 0.1), store.SHIPPED)
    store.append(a_row("b"))
    store.append(a_row("a", 0.2, engine={"name": "loop", "device": "cpu"} | engine))
    with pytest.warns(UserWarning, match="stability 0.1 and 0.2") as said:
        found = load()
    assert f"{store.SHIPPED}, line 1 and {store.local_path()}, line 2" in str(said[0].message)
    assert len(found) == 2 and (load is store.load_statuses or found[0]["measures"]["stability"] == 0.1)


# ------------------------------------------------------------------------------------------------ no sense

FORGED = {
    "another key": {"key": "0" * 64},
    "no key": {"key": "a"},
    "another width": {"cell": a_row()["cell"] | {"width": 17}},
    "an unknown status": {"status": "fine"},
    "a negative stability": {"measures": {"stability": -5}},
    "words for a number": {"measures": {"stability": "many"}},
    "no stability": {"measures": {}},
    "more than all": {"measures": {"stability": 0.1, "test_accuracy": 1.5}},
    "a huge number": {"measures": {"stability": 10**400}},
    "a list for a number": {"measures": {"stability": [[0.1], 0.2]}},
    "text for the measures": {"measures": "none"},
    "a number for the reason": {"reason": 3},
    "deep": {"engine": {"name": functools.reduce(lambda inner, _: [inner], range(500), 1)}},
    "text for the seconds": {"seconds": "1"},
}


def forged_lines():
    """By name: lines whose CRC fits, and which make no row."""
    plain = lines.encode(a_row()).rpartition(', "crc"')[0]
    texts = {name: lines.encode(a_row() | changed).rpartition(', "crc"')[0] for name, changed in FORGED.items()}
    texts |= {
        "beyond all floats": plain.replace("0.1", "1e999", 1),
        "a name twice": plain + ', "status": "failed"',
        "5000 digits": plain.replace("0.1", "1" * 5000, 1),
        "deeper than Python": plain + ', "more": ' + "[" * 10**5,
        "no cell": re.sub(r'"cell": \{[^}]*\}', '"cell": null', plain),
    }
    return {name: f'{text}, "crc": "{zlib.crc32(text.encode()):08x}"}}' for name, text in texts.items()}


@pytest.mark.guard(11, "robustkit/sweep/lines.py", "if wrong := next(", "if wrong := None and next(")
@pytest.mark.guard(
    14, "robustkit/sweep/lines.py", "row = decode(line)\n        sound", "row = json.loads(line)\n        sound"
)
@pytest.mark.parametrize("name", forged_lines())
def test_a_line_that_makes_no_row_is_named_and_left_out_by_both_readers_though_its_crc_fits(path, name):
    """A CRC was taken as proof: a forged number was shipped, or a run that no table showed was never trained."""
    save(path, [a_row("b")])
    with open(path, "a") as file:
        file.write(forged_lines()[name] + "\n")
    save(path, [a_row("c")])
    rows, said = read_quietly(path)
    assert rows == [a_row("b"), a_row("c")]
    assert f"{path}: 1 damaged row(s) left out, at line 2" in said
    for keys in (None, [row["key"] for row in (a_row("b"), a_row("a"), a_row("c"), {"key": "0" * 64}, {"key": "a"})]):
        with pytest.warns(UserWarning, match="line 2"):
            assert list(store.load_statuses(keys)) == [row["key"] for row in rows]


def test_a_row_of_an_older_numerics_or_of_an_own_file_is_sound(path, monkeypatch):
    """A higher NUMERICS makes old rows stand for nothing; they are not damage."""
    rows = [a_row("b"), a_row() | {"cell": a_row()["cell"] | {"dataset": "gone.npz"}}]
    save(path, rows)
    monkeypatch.setitem(lines.NUMERICS, "fcn", 2)
    assert read_quietly(path) == (rows, "")


# ------------------------------------------------------------------------------------------------ many rows

ROWS = st.lists(
    st.builds(
        lambda name, status, stability, torch, seconds, measure: a_row(
            name,
            None if status == "failed" else stability,
            status=status,
            versions={"torch": torch},
            seconds=seconds,
            measure=measure,
        ),
        st.sampled_from("abc"),
        st.sampled_from(["ok", "failed", "diverged"]),
        st.sampled_from([0.1, 0.1, 0.1, 0.2]),
        st.sampled_from(["2.13.0", "2.14.0"]),
        st.sampled_from([1.5, 2.5]),
        st.sampled_from([None, None, "attack"]),
    ),
    max_size=5,
)


def found_and_said(load):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return load(), {str(warning.message) for warning in caught}


@pytest.mark.guard(14, "robustkit/sweep/store.py", ' or kept[0] == "failed" != status', "")
@settings(max_examples=300, deadline=None, database=None, derandomize=True)
@given(shipped=ROWS, local=ROWS, torn=st.integers(0, 40))
def test_statuses_are_those_of_the_rows_that_are_loaded(shipped, local, torn):
    for path, rows in ((store.SHIPPED, shipped), (store.local_path(), local)):
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(store.encode(row) + "\n" for row in rows))
    os.truncate(store.local_path(), max(0, store.local_path().stat().st_size - torn))
    runs, said = found_and_said(store.load_rows)
    statuses, also_said = found_and_said(store.load_statuses)
    assert also_said == said
    attacks, _ = found_and_said(lambda: store.load_rows(measure="attack"))
    assert statuses == {row["key"]: row["status"] for row in runs + attacks}


def test_the_status_of_a_sound_row_in_another_order_is_found(path):
    row = a_row(status="diverged", schema=lines.SCHEMA)
    body = json.dumps(dict(reversed(row.items())))[:-1]
    path.parent.mkdir()
    path.write_text(f'{body}, "crc": "{zlib.crc32(body.encode()):08x}"}}\n')
    assert store.read_rows(path)[0]["status"] == "diverged"
    assert store.load_statuses() == {a_row()["key"]: "diverged"}


def a_long_row():
    """As long as the row of a run, with numbers of all their digits."""
    cell = Cell(width=16, depth=4, dataset="mnist")
    numbers = numpy.random.default_rng(0).random(160).tolist()
    measures = {"stability": numbers[0], "kappa": numbers[1], "stability_over_time": numbers[2:9]}
    measures |= {"loss_over_time": numbers[9:60], "kappa_over_time": numbers[60:111]}
    fields = {name: getattr(cell, name) for name in cell.__dataclass_fields__}
    measures |= {"movement_over_time": [numbers[i : i + 7] for i in range(111, 160, 7)]}
    return a_row(key=cell.key, cell=fields, measures=measures, commit="0123456")


def write_many(path, count):
    row, sha256 = a_long_row(), dataset_info("mnist").sha256
    fields = without_added(row["cell"])
    start, middle, end = re.split(f'{row["key"]}|"seed": 0', store.encode(row))
    end = end.rpartition(', "crc": "')[0]
    with open(path, "w") as file:
        for number in range(count):
            key = key_of(fields | {"seed": number}, sha256, 1)
            body = f'{start}{key}{middle}"seed": {number}{end}'
            file.write(f'{body}, "crc": "{zlib.crc32(body.encode()):08x}"}}\n')


def steps(load, count):
    """How many steps Python takes to load so many rows, which no other process can change."""
    write_many(store.SHIPPED, count)
    taken = collections.Counter()

    def trace(*_):
        taken["steps"] += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        rows = load()
    finally:
        sys.settrace(before)
    assert len(rows) == count
    return taken["steps"]


@pytest.mark.guard(
    14,
    "robustkit/sweep/store.py",
    "in read_rows(path, functools.partial(decode_head, keys=keys, sound=_SOUND)):",
    'in ((row["key"], row["status"], row["crc"]) for row in read_rows(path)):',
)
def test_keys_and_statuses_are_read_without_the_rest_of_a_row(monkeypatch):
    """100 000 of them in less than 2 seconds: tests/long/test_many_rows.py."""
    write_many(store.SHIPPED, 100)
    monkeypatch.setattr(json, "loads", lambda *_: pytest.fail("a whole row is read"))
    assert len(store.load_statuses(["another"])) == 0


@pytest.mark.guard(
    14,
    "robustkit/sweep/store.py",
    'merged.get(row["key"])',
    'next((other for other in merged.values() if other["key"] == row["key"]), None)',
)
@pytest.mark.parametrize("load", [store.load_statuses, train_missing.load])
def test_the_steps_to_load_rows_grow_in_proportion_to_them(load):
    """The frame of 10 000 in less than 2 seconds: tests/long/test_many_rows.py."""
    load()  # what is imported and cached once
    few, more, many = (steps(load, count) for count in (300, 600, 900))
    assert many - more < 1.05 * (more - few)
