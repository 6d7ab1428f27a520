"""File systems without locks, files replaced while a row is saved, and processes that hold a lock for long."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time

import pytest
from made_rows import a_stored_row as a_row

from robustkit.cell import Cell
from robustkit.sweep import locks, store, train_missing, workers
from robustkit.training.measures import measure_group

CELLS = [Cell(width=4, depth=2, seed=seed, epochs=1, points=16) for seed in range(2)]


def plain(rows):
    return [{name: value for name, value in row.items() if name not in ("schema", "crc")} for row in rows]


# ------------------------------------------------------------------------------------------------ no locks


@pytest.mark.guard(12, "robustkit/sweep/store.py", "        _warn_of_no_locks(error.strerror)\n", "        raise\n")
@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL], ids=os.strerror)
def test_where_files_cannot_be_locked_all_rows_are_saved_with_one_warning(monkeypatch, code):
    """On Lustre the first run that finished was lost, and the command ended."""

    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(fcntl, "lockf", refuse)
    store._warn_of_no_locks.cache_clear()
    with pytest.warns(UserWarning, match="files are not locked") as said:
        rows = train_missing.run(CELLS, device="cpu")
    assert list(rows["status"]) == ["ok"] * 2 and len(store.read_rows(store.local_path())) == 2
    assert len(said) == 1 and os.strerror(code) in str(said[0].message)


# ------------------------------------------------------------------------------------------------ replaced


@pytest.mark.guard(2, "robustkit/sweep/store.py", "return os.path.samestat(", "return True or (")
def test_a_row_is_saved_in_the_file_that_took_the_place_of_the_one_whose_lock_it_waited_for():
    """An editor or rsync had replaced the file: the row was written to one that no path leads to."""
    path = store.local_path()
    store.append(a_row("a"))
    with open(path, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        saving = threading.Thread(target=store.append, args=(a_row("b"),))
        saving.start()
        time.sleep(0.3)  # it waits by now; if not, there is nothing to see
        path.with_name("copy").write_bytes(path.read_bytes())
        os.replace(path.with_name("copy"), path)
    saving.join()
    assert plain(store.read_rows(path)) == [a_row("a"), a_row("b")]


@pytest.mark.guard(9, "robustkit/sweep/store.py", "file.truncate(end)", "os.truncate(path, end)")
def test_a_row_that_cannot_be_saved_cuts_nothing_off_a_file_that_was_put_in_its_place(monkeypatch):
    path, others = store.local_path(), [a_row(name) for name in "bcd"]
    store.append(a_row("a"))
    for row in others:
        store.append(row, path.with_name("new"))
    fsync = os.fsync

    def replace_and_fail(handle):
        if os.path.samestat(os.fstat(handle), path.stat()):
            os.replace(path.with_name("new"), path)
            raise OSError(errno.EIO, "no luck")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", replace_and_fail)
    with pytest.raises(OSError, match="no luck"):
        store.append(a_row("e"))
    assert plain(store.read_rows(path)) == others


# ------------------------------------------------------------------------------------------------ held for long


@pytest.fixture
def held(monkeypatch):
    """A file of one row, whose lock a process that was stopped holds on."""
    monkeypatch.setattr(store, "PATIENCE", 0.05)
    store.append(a_row("a"))
    with open(store.local_path(), "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


@pytest.mark.guard(12, "robustkit/sweep/store.py", "        if waited > most:\n            return\n", "")
@pytest.mark.timeout(60)
def test_rows_are_read_though_a_stopped_process_holds_their_lock_and_the_waiting_is_said(held, capsys):
    """`status` and `plan` hung in silence."""
    assert store.load_statuses() == {a_row("a")["key"]: "ok"}
    assert f"waiting for {store.local_path()}, which another process has locked" in capsys.readouterr().err


@pytest.mark.guard(
    12, "robustkit/sweep/store.py", "if (waited := time.monotonic() - began) > PATIENCE", "if 0 > (waited := 0)"
)
def test_a_row_waits_for_the_lock_and_says_so(held, capsys):
    saving = threading.Thread(target=store.append, args=(a_row("b"),))
    saving.start()
    said = ""
    while "waiting for" not in said and saving.is_alive():
        said += capsys.readouterr().err
    assert saving.is_alive(), "it did not wait"
    fcntl.flock(held, fcntl.LOCK_UN)
    saving.join()
    assert plain(store.read_rows(store.local_path())) == [a_row("a"), a_row("b")]


ASK = "import sys; from robustkit.sweep import locks; print(locks.running(sys.argv[1:]))"


@pytest.mark.guard(
    12,
    "robustkit/sweep/locks.py",
    "handle, found = _open(os.O_RDONLY), set()",
    "os.close(os.open(results_folder() / NAME, os.O_RDONLY)); handle, found = _open(os.O_RDONLY), set()",
)
def test_asking_what_is_running_keeps_the_locks_of_who_asks(monkeypatch):
    """Closing any descriptor of a file drops all that its process has locked there."""
    found = []

    def ask_and_measure(cells, *others):
        keys = [cell.key for cell in cells]
        assert locks.running(keys) <= set(keys)
        found.append(subprocess.run([sys.executable, "-c", ASK, *keys], capture_output=True, text=True).stdout)
        return measure_group(cells, *others)

    monkeypatch.setattr(workers, "measure_group", ask_and_measure)
    train_missing.run(CELLS[:1], device="cpu")
    assert found == [f"{ {CELLS[0].key} }\n"]
    assert locks.running([CELLS[0].key]) == set()


@pytest.mark.guard(12, "robustkit/sweep/locks.py", "(self.handle, key) in _held or", "")
def test_two_sweeps_of_one_process_leave_each_other_what_they_have_begun(monkeypatch):
    """A process is given again what it has locked itself: two threads trained everything twice."""
    begun, go = threading.Event(), threading.Event()

    def wait_and_measure(cells, *others):
        begun.set()
        go.wait(60)
        return measure_group(cells, *others)

    monkeypatch.setattr(workers, "measure_group", wait_and_measure)
    monkeypatch.setattr(locks, "PAUSE", 0.01)
    both = [threading.Thread(target=train_missing.run, args=(CELLS,), kwargs={"device": "cpu"}) for _ in range(2)]
    both[0].start()
    begun.wait(60)
    both[1].start()
    time.sleep(0.3)  # the second one has claimed by now what it could; if not, there is nothing to see
    go.set()
    for one in both:
        one.join()
    assert len(store.read_rows(store.local_path())) == len(CELLS)
