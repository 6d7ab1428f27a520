"""A grid on a real Dask cluster of two processes: the same table, also where a worker is killed on the way."""

import os
import signal
import threading
import time

import pytest

from robustkit.__main__ import main
from robustkit.profiles import profile_cells
from robustkit.sweep import store, train_missing
from robustkit.sweep.dask import dask

CHOICES = {"widths": [16], "depths": [2, 3], "seeds": [0, 1]}
OPTIONS = [word for name, values in CHOICES.items() for word in (f"--{name}", *map(str, values))]


@pytest.fixture(scope="module")
def cluster():
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as made:
        yield made


def measured():
    rows = store.read_rows(store.local_path())
    assert len({row["key"] for row in rows}) == len(rows)
    return {row["key"]: row["measures"] for row in rows}


def test_a_killed_worker_does_not_change_the_table(cluster, tmp_path, monkeypatch, capsys):
    def kill_one():
        while not store.local_path().exists() or not store.local_path().read_text():
            time.sleep(0.01)
        os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    assert main(["run", "smoke", *OPTIONS, "--dask", cluster.scheduler_address]) == 0
    killer.join()
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


def test_workers_with_several_threads_are_refused():
    from distributed import LocalCluster

    options = {"threads_per_worker": 2, "processes": False, "dashboard_address": ":0"}
    with (
        LocalCluster(n_workers=1, **options) as made,
        pytest.raises(train_missing.InputError, match="one thread"),
        dask(made.scheduler_address),
    ):
        pass
