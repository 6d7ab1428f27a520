"""Kill the smoke grid at random instants, start it again, and compare the table with that of an undisturbed run.

    python benchmarks/soak.py                # 100 kills, in a fresh folder each time the grid is complete
    python benchmarks/soak.py 10 --seeds 0   # 10, and options of the run

Each life is `python -m robustkit run smoke` with two workers; SIGKILL goes to it, or to one of its workers.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import psutil

from robustkit.files import ROOT
from robustkit.sweep import store

COMMAND = [sys.executable, "-m", "robustkit", "run", "smoke", "--device", "cpu", "--workers", "2", *sys.argv[2:]]


def start(folder: Path) -> subprocess.Popen:
    """One life of the grid, writing to a folder."""
    environment = os.environ | {"ROBUSTKIT_RESULTS": str(folder), "TQDM_DISABLE": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(COMMAND, cwd=ROOT, env=environment, **quiet)


def saved(folder: Path) -> list[tuple]:
    """Key and measures of each row; a row torn by a kill is left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = store.read_rows(folder / "rows.jsonl")
        return [(row["key"], row["measures"]) for row in rows if row["status"] != "failed"]


def kill(process: subprocess.Popen, chance: random.Random) -> str:
    """SIGKILL for the run or for one of its workers; says which."""
    workers = [w for w in psutil.Process(process.pid).children() if "--multiprocessing-fork" in w.cmdline()]
    if workers and chance.random() < 0.3:
        chance.choice(workers).kill()
        return "worker"
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive, "a worker outlived its run"
    return "run"


def main() -> int:
    """Print what was killed and whether any table differed."""
    wanted, chance = int(sys.argv[1]) if len(sys.argv) > 1 else 100, random.Random(0)
    killed, complete, begun = {"run": 0, "worker": 0}, 0, time.time()
    with tempfile.TemporaryDirectory() as place:
        assert start(Path(place) / "whole").wait() == 0
        whole = dict(saved(Path(place) / "whole"))
        longest = min(30, (time.time() - begun) / 2)
        while sum(killed.values()) < wanted:
            folder, kept = Path(place) / f"grid{complete}", []
            process, last = start(folder), False
            while True:
                try:  # several kills a grid
                    process.wait(timeout=chance.uniform(0, longest) if not last else None)
                except subprocess.TimeoutExpired:
                    with contextlib.suppress(psutil.NoSuchProcess):  # it ended just now
                        killed[kill(process, chance)] += 1
                now = saved(folder)
                assert now[: len(kept)] == kept, "a saved row was lost"
                kept, last = now, sum(killed.values()) >= wanted
                if process.poll() == 0:
                    break
                if process.poll() is not None:
                    process = start(folder)
            assert len(kept) == len(whole) and dict(kept) == whole, "the table differs"
            complete += 1
            print(f"{sum(killed.values())} kills, {complete} grids complete, all as undisturbed", flush=True)
    minutes = (time.time() - begun) / 60
    print(f"{killed['run']} runs and {killed['worker']} workers killed in {minutes:.0f} minutes")
    print(f"{complete} grids of {len(whole)} trainings ended with the table of an undisturbed run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
