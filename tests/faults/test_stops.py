"""Whatever stops a run, or shares its folder: what was saved stays, and the table in the end is the same."""

import contextlib
import fcntl
import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import BrokenExecutor

import numpy
import psutil
import pytest
from processes import CONTEXT

from robustkit.cell import Cell
from robustkit.profiles import profile_cells
from robustkit.sweep import locks, store, train_missing, workers
from robustkit.training.measures import measure_group

PATIENCE = 300  # seconds, of which an idle machine needs two

GRID = [
    Cell(width=width, depth=depth, seed=seed, epochs=4, points=16)
    for width in (4, 8)
    for depth in range(2, 6)
    for seed in range(2)
]


def run_grid(folder):
    os.environ["ROBUSTKIT_RESULTS"] = str(folder)
    store.SHIPPED = folder / "none.jsonl"
    train_missing.run(GRID, device="cpu")


def started(folder):
    process = CONTEXT.Process(target=run_grid, args=(folder,))
    process.start()
    return process


def saved(folder):
    """Key and measures of each row in the order of the file; a row torn by a kill is left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [(row["key"], row["measures"]) for row in store.read_rows(folder / "rows.jsonl")]


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)


@pytest.fixture(autouse=True)
def no_process_left():
    """One that a failed test leaves stopped would keep pytest from ending."""
    yield
    for process in multiprocessing.active_children():
        process.kill()
        process.join()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The table of an uninterrupted run, as a dictionary."""
    folder = tmp_path_factory.mktemp("whole")
    process = started(folder)
    process.join()
    assert process.exitcode == 0
    rows = saved(folder)
    assert sorted(key for key, _ in rows) == sorted(cell.key for cell in GRID)
    return dict(rows)


# ------------------------------------------------------------------------------------------------ SIGKILL


@pytest.mark.guard(
    1,
    "robustkit/training/loop.py",
    'orders = self.cells[0], [stream_generator(cell.seed, "order") for cell in self.cells]',
    "orders = self.cells[0], [torch.default_generator for cell in self.cells]",
)
def test_killed_five_times_and_started_again_the_table_is_that_of_an_uninterrupted_run(whole, tmp_path):
    random, kept, codes = numpy.random.default_rng(3), [], []
    for number in range(5):
        process, enough = started(tmp_path), len(kept) + number % 3
        wait_for(lambda: not process.is_alive() or len(saved(tmp_path)) >= enough)  # noqa: B023
        time.sleep(random.uniform(0, 0.1))
        process.kill()
        process.join()
        codes.append(process.exitcode)
        now = saved(tmp_path)
        assert now[: len(kept)] == kept, "a saved row was lost"
        kept = now
    assert codes.count(-signal.SIGKILL) >= 3
    process = started(tmp_path)
    process.join()
    assert process.exitcode == 0
    rows = saved(tmp_path)
    assert len(rows) == len(whole), "a row is there twice, or missing"
    assert dict(rows) == whole


# ------------------------------------------------------------------------------------------------ Ctrl-C and SIGTERM


def still_alive(processes):
    _, alive = psutil.wait_procs(processes, timeout=60)
    return [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.guard(
    4,
    "robustkit/sweep/train_missing.py",
    "left = len(missing(todo, store.load_statuses(map(kind.key, todo)), kind))",
    "left = len(todo)",
)
@pytest.mark.parametrize(("sent", "code", "workers"), [("SIGTERM", 143, 2), ("SIGINT", 130, 1)])
def test_a_signal_stops_the_command_at_once_and_leaves_no_process(sent, code, workers):
    arguments = ["run", "smoke", "--widths", "16", "--depths", "2", "4", "--device", "cpu", "--workers", str(workers)]
    command = [sys.executable, "-m", "robustkit", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        wait_for(lambda: store.local_path().exists() and store.local_path().read_text().count("\n") >= workers)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        assert len(family) > workers - 1
        process.send_signal(getattr(signal, sent))
        _, said = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    rows = store.read_rows(store.local_path())
    total = len(profile_cells("smoke", widths=[16], depths=[2, 4]))
    assert process.returncode == code
    assert f"stopped: {len(rows)} run(s) saved, {total - len(rows)} left to do" in said
    assert "finished runs are saved, and the same command resumes" in said
    assert "Traceback" not in said
    assert still_alive(family) == []


@pytest.mark.guard(
    4, "robustkit/sweep/train_missing.py", "except (KeyboardInterrupt, SystemExit):", "except ZeroDivisionError:"
)
def test_an_interrupted_notebook_cell_stops_and_the_next_run_resumes():
    from jupyter_client import KernelManager

    code = (
        "import robustkit as rk\n"
        "cells = [rk.Cell(width=64, depth=4, seed=seed, n_train=600, points=16) for seed in range(40)]\n"
        "rows = rk.run(cells, device='cpu', workers=2)\n"
    )
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(env=os.environ | {"TQDM_DISABLE": "1"})
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=PATIENCE)
        asked = client.execute(code)
        wait_for(lambda: store.local_path().exists() and store.read_rows(store.local_path()))
        kernel = psutil.Process(manager.provisioner.process.pid)
        workers = [child for child in kernel.children() if "--multiprocessing-fork" in child.cmdline()]
        manager.interrupt_kernel()
        replies = iter(lambda: client.get_shell_msg(timeout=PATIENCE), None)  # some to what wait_for_ready asked
        reply = next(reply for reply in replies if reply["parent_header"].get("msg_id") == asked)
        assert reply["content"]["ename"] == "KeyboardInterrupt"
        said = ""
        while "left to do" not in said:
            said += client.get_iopub_msg(timeout=PATIENCE)["content"].get("text", "")
        assert len(workers) == 2 and still_alive(workers) == []
        before = store.local_path().read_bytes()
        client.execute("rows = rk.run(cells[:2], device='cpu')", reply=True, timeout=PATIENCE)
        assert store.local_path().read_bytes().startswith(before)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


# ------------------------------------------------------------------------------------------------ workers that die


def dies_once(cells, device, deadline, kind, mark):
    """The first worker that gets here is killed."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
        os.kill(os.getpid(), signal.SIGKILL)
    return measure_group(cells, device, deadline, kind)


def dies_at_width_8_and_depth_3(cells, device, deadline, kind):
    """As if one run needed more memory than there is: the kernel kills its process, whatever group it is in."""
    if any((cell.width, cell.depth) == (8, 3) for cell in cells):
        time.sleep(0.5)  # others are in flight by now
        os.kill(os.getpid(), signal.SIGKILL)
    return measure_group(cells, device, deadline, kind)


def dies_with_several(cells, device, deadline, kind):
    """As if two networks were more than memory can hold."""
    if len(cells) > 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return measure_group(cells, device, deadline, kind)


def always_dies(cells, device, deadline, kind):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def quick_workers(monkeypatch):
    """Workers from a server that has torch in memory already."""
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: CONTEXT)


@pytest.mark.guard(
    5,
    "robustkit/sweep/workers.py",
    "        except BrokenExecutor:\n            say(",
    "        except ZeroDivisionError:\n            say(",
)
def test_when_a_worker_is_killed_its_runs_are_done_all_the_same(whole, quick_workers, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(workers, "measure_safely", functools.partial(dies_once, mark=str(tmp_path / "died")))
    train_missing.run(GRID, device="cpu", workers=2)
    assert (tmp_path / "died").exists()
    rows = store.read_rows(store.local_path())
    assert len(rows) == len(GRID)
    assert {row["key"]: row["measures"] for row in rows} == whole
    assert "a worker process died" in capfd.readouterr().err


@pytest.mark.guard(
    5,
    "robustkit/sweep/workers.py",
    "rows = [fail(group[0], started, DIED)]\n",
    "rows = []\n",
)
def test_a_run_that_kills_its_worker_each_time_is_reported_and_the_others_finish(whole, quick_workers, monkeypatch):
    monkeypatch.setattr(workers, "measure_safely", dies_at_width_8_and_depth_3)
    train_missing.run(GRID[:-2], device="cpu", workers=2)
    rows = store.read_rows(store.local_path())
    bad = [cell.key for cell in GRID if (cell.width, cell.depth) == (8, 3)]
    assert {row["key"] for row in rows if row["status"] == "failed"} == set(bad)
    assert all("its process died twice" in row["reason"] for row in rows if row["status"] == "failed")
    good = {row["key"]: row["measures"] for row in rows if row["status"] == "ok"}
    assert good == {cell.key: whole[cell.key] for cell in GRID[:-2] if cell.key not in bad}


@pytest.mark.guard(7, "robustkit/sweep/workers.py", "if len(group) > 1:", "if len(group) > 99:")
def test_a_group_for_which_its_process_is_killed_is_halved_until_it_fits(quick_workers, tmp_path, monkeypatch):
    several = [Cell(width=4, depth=2, seed=seed, epochs=1, points=16) for seed in range(8)]
    monkeypatch.setattr(workers, "measure_safely", dies_with_several)
    train_missing.run(several, device="cpu", workers=2)
    rows = store.read_rows(store.local_path())
    assert sorted(row["key"] for row in rows) == sorted(cell.key for cell in several)
    assert {row["status"] for row in rows} == {"ok"} and {row["engine"]["group"] for row in rows} == {1}


def run_grid_in_one_process(folder):
    """Where that process is the one that is killed."""
    workers.measure_safely, multiprocessing.get_context = dies_at_width_8_and_depth_3, lambda _: CONTEXT
    run_grid(folder)


@pytest.mark.guard(
    5,
    "robustkit/sweep/workers.py",
    "(suspects if any(died_with(locks.kind.key(cell)) for cell in group) else calm)",
    "calm",
)
def test_a_run_that_kills_the_only_process_keeps_the_next_one_from_nothing(whole, tmp_path):
    """With one worker each life died at the same run, and later runs never began."""
    codes = []
    for _ in range(2):
        process = CONTEXT.Process(target=run_grid_in_one_process, args=(tmp_path,))
        process.start()
        process.join()
        codes.append(process.exitcode)
    assert codes == [-signal.SIGKILL, 0]
    rows = store.read_rows(tmp_path / "rows.jsonl")
    bad = {cell.key for cell in GRID if (cell.width, cell.depth) == (8, 3)}
    assert {row["key"]: row["measures"] for row in rows if row["status"] == "ok"} == {
        key: measures for key, measures in whole.items() if key not in bad
    }
    assert {row["key"]: row["reason"] for row in rows if row["status"] == "failed"} == dict.fromkeys(
        bad, workers.DIED
    )
    assert list((tmp_path / "begun").iterdir()) == []


@pytest.mark.guard(5, "robustkit/sweep/workers.py", "if deaths == DEATHS:", "if deaths > 99:")
def test_where_every_process_dies_the_run_ends_instead_of_trying_all(quick_workers, monkeypatch):
    monkeypatch.setattr(workers, "measure_safely", always_dies)
    with pytest.raises(BrokenExecutor):
        train_missing.run(GRID, device="cpu", workers=2)
    assert len(store.read_rows(store.local_path())) < 3


# ------------------------------------------------------------------------------------------------ two at once


@pytest.mark.guard(12, "robustkit/sweep/locks.py", "(mine if self._lock(self.kind.key(cell)) else self.left)", "mine")
def test_two_processes_share_one_grid_and_repeat_nothing(whole, tmp_path):
    both = [started(tmp_path), started(tmp_path)]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    rows = saved(tmp_path)
    assert len(rows) == len(whole), "a run was done twice, or a row is lost or torn"
    assert dict(rows) == whole


@pytest.mark.guard(12, "robustkit/sweep/locks.py", "return self._unfinished(left)", "return []")
def test_what_a_dead_process_had_begun_is_done_by_the_one_that_waits_for_it(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTKIT_RESULTS", str(tmp_path))
    first = started(tmp_path)
    wait_for(lambda: saved(tmp_path))
    with open(tmp_path / "rows.jsonl", "rb") as rows:
        fcntl.flock(rows, fcntl.LOCK_EX)  # so that it does not stop in the middle of a row, with the file locked
        os.kill(first.pid, signal.SIGSTOP)  # it lives, holds what it has begun, and does no more
        wait_for(lambda: psutil.Process(first.pid).status() == psutil.STATUS_STOPPED)
    second = started(tmp_path)
    wait_for(lambda: not second.is_alive() or len(saved(tmp_path)) >= len(whole) - 8)
    assert second.is_alive(), "it did not wait for what the first has begun"
    assert locks.running(list(whole)), "what status calls running"
    first.kill()
    second.join(timeout=PATIENCE)
    first.join()
    assert second.exitcode == 0
    rows = saved(tmp_path)
    assert len(rows) == len(whole) and dict(rows) == whole
    assert locks.running(list(whole)) == set()
