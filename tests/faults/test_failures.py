"""A run that raises, or that memory cannot hold, is reported with its reason; the others continue."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy
import pytest

from robustkit.cell import Cell
from robustkit.files import ROOT
from robustkit.plots import curves, output
from robustkit.sweep import cost, train_missing, workers
from robustkit.training.measures import RunMeasures, measure_group

CELLS = [Cell(width=width, depth=2, seed=seed, epochs=1, points=16) for width in (4, 8, 16) for seed in range(3)]


@pytest.mark.guard(
    6, "robustkit/sweep/workers.py", "    except Exception as error:\n", "    except ZeroDivisionError as error:\n"
)
@pytest.mark.guard(6, "robustkit/sweep/store.py", 'kept["status"] == "failed" and row["status"] != "failed"', "False")
def test_a_run_that_raises_has_failed_the_others_continue_and_a_figure_shows_it_missing(monkeypatch):
    def measure_or_raise(cells, *others):
        if CELLS[4] in cells:
            raise RuntimeError("no luck today")
        return measure_group(cells, *others)

    with monkeypatch.context() as broken:
        broken.setattr(workers, "measure_group", measure_or_raise)
        rows = train_missing.run(CELLS, device="cpu")
    assert [status == "failed" for status in rows["status"]] == [cell == CELLS[4] for cell in CELLS]
    assert rows["reason"][4] == "RuntimeError: no luck today" and numpy.isnan(rows["stability"][4])
    _, ax = plt.subplots()
    curves.against(rows, ax)
    (seeds,) = [line.get_ydata() for line in ax.get_lines() if line.get_label() == "_seeds"]
    assert sorted(seeds[~numpy.isnan(seeds)]) == sorted(rows["stability"].drop(4)), "nothing stands in for it"
    assert "failed or diverged, and not drawn: 1" in output.caption(rows, "smoke")
    plt.close()
    assert (train_missing.run(CELLS, device="cpu")["status"] == "ok").all(), "it is tried again"


# Twelve networks and their start take about 210 MiB; with room for 170 they do not fit, and half of them do.
TOGETHER = """
import resource
from robustkit.cell import Cell
from robustkit.files import ROOT
from robustkit.sweep.workers import measure_safely
cells = [Cell(width=512, depth=10, seed=seed, n_train=64, epochs=1, points=4) for seed in range(12)]
measure_safely(cells[:1], "cpu", float("inf"))  # loads for good what any run needs
with open("/proc/self/status") as file:
    now = next(int(line.split()[1]) for line in file if line.startswith("VmSize"))
room = (now << 10) + (170 << 20)
resource.setrlimit(resource.RLIMIT_AS, (room, room))
rows = measure_safely(cells, "cpu", float("inf"))
print([(row["status"], row["reason"], row["engine"]["group"], row["measures"]["stability"]) for row in rows])
"""


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the memory of a process is limited on Linux alone"
)
@pytest.mark.guard(
    7, "robustkit/sweep/workers.py", "    if len(cells) == 1:\n        return", "    if True:\n        return"
)
def test_a_group_that_lacks_memory_is_halved_until_it_fits_and_its_numbers_are_the_same():
    own = os.environ | {"OMP_NUM_THREADS": "2"}  # as a user's process has; the bits are those of one thread
    done = subprocess.run([sys.executable, "-c", TOGETHER], env=own, capture_output=True, text=True, check=True)
    rows = ast.literal_eval(done.stdout)
    assert [row[:2] for row in rows] == [("ok", None)] * 12
    assert {group for _, _, group, _ in rows} <= {6, 3, 2, 1}, "the limit was not felt"
    alone = Cell(width=512, depth=10, seed=11, n_train=64, epochs=1, points=4)
    assert measure_group([alone])[0]["measures"]["stability"] == rows[11][3]


@pytest.mark.guard(
    7, "robustkit/sweep/train_missing.py", "(needed := cost.memory_bytes(cell)) <= room", "(needed := 0) <= room"
)
@pytest.mark.parametrize("kind", ["", "memory"], ids=["version 2", "version 1"])
@pytest.mark.parametrize(
    ("group", "inherited"), [("/", None), ("/batch/job 7", None), ("/batch/job 7", "/batch")], ids=str
)
def test_a_run_too_large_for_memory_is_refused_at_once_with_the_bytes_it_needs(
    tmp_path, monkeypatch, kind, group, inherited
):
    """Only the limit of a container's root was read, not that of the group in which a batch system puts a job."""
    own, limits = tmp_path / "own", {"": "memory.max", "memory": "memory.limit_in_bytes"}
    own.write_text(f"1:cpu:/\n4:{kind}:{group}\n")
    (limited := tmp_path / kind / (group if inherited is None else inherited).strip("/")).mkdir(
        parents=True, exist_ok=True
    )
    (limited / limits[kind]).write_text(f"{32 << 20}\n")
    monkeypatch.setattr(cost, "CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(cost, "OWN_GROUPS", own)
    large = Cell(width=2048, depth=3, epochs=1, points=16)
    rows = train_missing.run([CELLS[0], large], device="cpu")
    assert list(rows["status"]) == ["ok", "failed"]
    needed = cost.memory_bytes(large)
    assert needed > 4 * large.parameters > 4 * 2048**2
    assert f"not begun: it needs at least {needed / 1e9:.2f} GB ({needed} bytes), cpu has 0.03" in rows["reason"][1]


def test_the_room_of_this_machine_is_known():
    assert 1 << 28 < cost.room_bytes("cpu") < 1 << 50


# ------------------------------------------------------------------------------------------------ a file that changes


@pytest.mark.guard(6, "robustkit/training/group.py", "if self._data_changed():", "if False:")
@pytest.mark.guard(
    15,
    "robustkit/cell.py",
    "return key_of(self.as_dict(), self.data.sha256",
    "return key_of(self.as_dict(), dataset_info(self.dataset).sha256",
)
@pytest.mark.parametrize("what", ["rewritten", "deleted"])
def test_an_own_file_that_changes_during_its_run_concerns_that_run_alone(write_npz, monkeypatch, what):
    """Its old numbers were saved under the new content's key; deleted, it ended the runs on other data too."""
    path, observe = Path(write_npz()), RunMeasures.observe
    own, others = Cell(width=4, depth=2, dataset=path, batch_size=4, epochs=1, points=4), CELLS[:3]
    key = own.key

    def meddle(self, *words):
        if self.cell == own:
            path.unlink(missing_ok=True)
            if what == "rewritten":
                write_npz(y_train=numpy.arange(20) % 2, y_test=numpy.arange(8) % 2)
        return observe(self, *words)

    monkeypatch.setattr(RunMeasures, "observe", meddle)
    rows = train_missing.run([own, *others], device="cpu")
    assert list(rows["status"]) == ["failed" if what == "rewritten" else "ok", *["ok"] * 3]
    assert rows["key"][0] == key
    if what == "rewritten":
        assert rows["reason"][0] == f"dataset {str(path)!r} was changed during the run"


# ------------------------------------------------------------------------------------------------ scripts

SCRIPT = """
import robustkit as rk
cells = [rk.Cell(width=width, depth=2, epochs=1, points=4) for width in (4, 8)]
print(list(rk.run(cells, device="cpu", workers={workers})["status"]))
"""


@pytest.mark.guard(5, "robustkit/sweep/train_missing.py", "            os._exit(UNGUARDED)  #", "            pass  #")
@pytest.mark.timeout(240)
def test_a_script_that_its_workers_would_run_again_is_told_where_to_put_what_it_does(tmp_path):
    """Each worker began the whole again; it never ended."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(workers=2))
    own = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, script], env=own, capture_output=True, text=True)
    assert done.returncode == 1
    assert 'what it does must stand under: if __name__ == "__main__":' in done.stderr
    begun = Path(own["ROBUSTKIT_RESULTS"]) / "begun" / Cell(width=4, depth=2, epochs=1, points=4).key
    begun.parent.mkdir()
    begun.touch()  # as if its process had died
    script.write_text(SCRIPT.format(workers=1))
    done = subprocess.run([sys.executable, script], env=own, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["['ok', 'ok']"]), done.stderr
