"""A grid killed 100 times at random moments and started again ends, each time, with the table of an undisturbed run.

Each life is `python -m robustkit run smoke` with two workers; SIGKILL goes to it, or to one of its workers. Hours.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
import warnings

import psutil
import pytest

from robustkit.files import ROOT
from robustkit.sweep import store

KILLS = 100
COMMAND = [sys.executable, "-m", "robustkit", "run", "smoke", "--device", "cpu", "--workers", "2"]
COMMAND += ["--seeds", "0", "--widths", "16", "32"]


def start(folder):
    """One life of the grid, writing to a folder."""
    environment = os.environ | {"ROBUSTKIT_RESULTS": str(folder), "TQDM_DISABLE": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(COMMAND, cwd=ROOT, env=environment, **quiet)


def saved(folder):
    """Key and measures of each row; a row torn by a kill is left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = store.read_rows(folder / "rows.jsonl")
        return [(row["key"], row["measures"]) for row in rows if row["status"] != "failed"]


def kill(process, chance):
    """SIGKILL for the run or for one of its workers; says which."""
    workers = [w for w in psutil.Process(process.pid).children() if "--multiprocessing-fork" in w.cmdline()]
    if workers and chance.random() < 0.3:
        chance.choice(workers).kill()
        return "worker"
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=300)  # one that imports torch ends when it has done so
    assert not alive, "a worker outlived its run"
    return "run"


@pytest.mark.timeout(0)
def test_a_grid_killed_again_and_again_ends_with_the_table_of_an_undisturbed_run(tmp_path):
    chance, killed, complete, begun = random.Random(0), {"run": 0, "worker": 0}, 0, time.monotonic()
    assert start(tmp_path / "whole").wait() == 0
    whole = dict(saved(tmp_path / "whole"))
    longest = min(30, (time.monotonic() - begun) / 2)
    while sum(killed.values()) < KILLS:
        folder, kept, enough = tmp_path / f"grid{complete}", [], False
        process = start(folder)
        while process.poll() != 0:
            if process.poll() is not None:
                process = start(folder)
            try:  # several kills per grid
                process.wait(timeout=None if enough else chance.uniform(0, longest))
            except subprocess.TimeoutExpired:
                with contextlib.suppress(psutil.NoSuchProcess):  # it ended just now
                    killed[kill(process, chance)] += 1
            now = saved(folder)
            assert now[: len(kept)] == kept, "a saved row was lost"
            kept, enough = now, sum(killed.values()) >= KILLS
        assert len(kept) == len(whole) and dict(kept) == whole, "the table differs"
        complete += 1
        print(f"{killed['run']} runs and {killed['worker']} workers killed, {complete} grids complete", flush=True)
