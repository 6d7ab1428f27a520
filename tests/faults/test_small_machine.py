"""The smoke profile needs no GPU, no second core and no more than 4 GiB."""

import json
import os
import subprocess
import sys

import pytest

from robustkit.profiles import profile_cells
from robustkit.sweep import store
from robustkit.sweep.cost import memory_bytes

# One core, no GPU, and 4 GiB that the process can ask for at all.
RUN = """
import json, os, resource, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, resource.getrlimit(resource.RLIMIT_DATA)[1]))
from robustkit.sweep import train_missing
from robustkit.__main__ import cores
from robustkit.cell import Cell
workers = cores()
rows = train_missing.run([Cell(**fields) for fields in json.loads(sys.argv[1])], workers=workers)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"workers": workers, "statuses": list(rows["status"]), "peak": peak}))
"""


def largest(model):
    """The runs of a family, in the smoke profile, that take the most memory and the most operations."""
    own = [cell for cell in profile_cells("smoke", seeds=[0]) if cell.model == model]
    return {max(own, key=memory_bytes), max(own, key=lambda cell: cell.flops)}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot keep a process on one core")
@pytest.mark.guard(
    24,
    "robustkit/sweep/device.py",
    'return "cpu"\n        known = torch.device("cuda")',
    'pass\n        known = torch.device("cuda")',
)
def test_the_largest_runs_of_smoke_need_one_core_4_gib_and_no_gpu():
    cells = [cell for model in ("fcn", "cnn", "resnet") for cell in largest(model)]
    fields = json.dumps([{name: getattr(cell, name) for name in cell.__dataclass_fields__} for cell in cells])
    alone = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", RUN, fields], capture_output=True, text=True, env=alone)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["workers"] == 1 and said["statuses"] == ["ok"] * len(cells)
    assert said["peak"] < 4 << 30
    rows = store.read_rows(store.local_path())
    assert {row["key"] for row in rows} == {cell.key for cell in cells}
    assert {row["engine"]["device"] for row in rows} == {"cpu"}
