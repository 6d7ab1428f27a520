"""A grid on a real Dask cluster of two processes: the same table, also where a worker is killed on the way."""

import os
import signal
import sys
import threading
from multiprocessing import forkserver

import pytest
from processes import CONTEXT  # noqa: F401  what the workers' server loads

from robustkit.__main__ import main
from robustkit.profiles import profile_cells
from robustkit.sweep import store, train_missing
from robustkit.sweep.dask import dask

CHOICES = {"widths": [16], "depths": [2], "seeds": [0]}
OPTIONS = [word for name, values in CHOICES.items() for word in (f"--{name}", *map(str, values))]


@pytest.fixture(scope="module")
def cluster():
    """Two worker processes; on a busy machine nobody takes a slow answer for a dead process."""
    from dask import config
    from distributed import LocalCluster

    forkserver.ensure_running()  # before distributed tells it what to load
    patience = {"distributed.comm.timeouts.connect": "300s", "distributed.comm.timeouts.tcp": "300s"}
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": 50}
    with (
        config.set({"distributed.worker.multiprocessing-method": "forkserver"} | patience),
        LocalCluster(**options) as made,
    ):
        yield made


def measured():
    rows = [row for row in store.read_rows(store.local_path()) if "measure" not in row]
    assert len({row["key"] for row in rows}) == len(rows)
    return {row["key"]: row["measures"] for row in rows}


def test_a_killed_worker_does_not_change_the_table(cluster, tmp_path, monkeypatch, capsys):
    def kill_one():
        while not over.wait(0.01):
            if store.local_path().exists() and store.local_path().read_text():
                killed.append(next(iter(cluster.workers.values())).pid)
                return os.kill(killed[0], signal.SIGKILL)

    killed, over = [], threading.Event()
    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        assert main(["run", "smoke", *OPTIONS, "--dask", cluster.scheduler_address]) == 0
    finally:
        over.set()
        killer.join()
    assert killed
    found = measured()
    assert sorted(found) == sorted(cell.key for cell in profile_cells("smoke", **CHOICES))
    monkeypatch.setenv("ROBUSTKIT_RESULTS", str(tmp_path))
    train_missing.run(profile_cells("smoke", **CHOICES), device="cpu")
    assert measured() == found


def test_an_address_where_no_scheduler_answers_is_refused(capsys, monkeypatch):
    monkeypatch.setattr("robustkit.sweep.dask.SECONDS", 0.3)
    assert main(["run", "smoke", *OPTIONS, "--dask", "tcp://127.0.0.1:9"]) == 2
    assert "no Dask scheduler answers there" in capsys.readouterr().err
    assert not store.local_path().exists()


def test_without_dask_it_says_what_to_install(capsys, monkeypatch):
    """It named this package, which a stranger may have put on the index under its name."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main(["run", "smoke", *OPTIONS, "--dask", "tcp://127.0.0.1:9"]) == 2
    assert capsys.readouterr().err.endswith(": pip install distributed\n")


def test_workers_with_several_threads_are_refused():
    from distributed import LocalCluster

    options = {"threads_per_worker": 2, "processes": False, "dashboard_address": ":0"}
    with (
        LocalCluster(n_workers=1, **options) as made,
        pytest.raises(train_missing.InputError, match="one thread"),
        dask(made.scheduler_address),
    ):
        pass
