"""CONTRIBUTING.md: its changes fit the code as it is, and do what it says."""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import robustkit
from robustkit.ledger.verdicts import DIGITS, VERDICTS

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
INITIALISATION = """
import json
import robustkit as rk
rows = rk.run([rk.Cell(width=width, depth=2, init="default", epochs=1, points=16) for width in (8, 16)])
print(json.dumps(drawn_and_judged(rows)))
"""


def drawn_and_judged(rows):
    """The legend of a figure of runs, and the verdicts of two claims on them."""
    from robustkit import plots
    from robustkit.ledger import verdicts

    figure, (left, right) = plots.panels(2)
    plots.against(rows, left, by="init")
    plots.over_time(rows, right, by="init")
    plots.save(figure, "own", "smoke", rows)
    judged = [name for name in ("E01", "E99") if name in [claim.id for claim in verdicts.CLAIMS]]
    ledger = verdicts.ledger(rows, only=judged)
    legend = [text.get_text() for text in left.get_legend().get_texts()]
    return {"status": list(rows["status"]), "legend": legend, "verdicts": list(ledger["verdict"])}


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """What a process does in a copy of the package with every change that is shown."""
    folder = tmp_path_factory.mktemp("changed")
    shutil.copytree(ROOT / "robustkit", folder / "robustkit", ignore=shutil.ignore_patterns("__pycache__"))
    for number, diff in enumerate(re.findall(r"```diff\n(.*?)```", TEXT, re.DOTALL)):
        (folder / f"{number}.diff").write_text(diff)
        subprocess.run(["git", "apply", f"{number}.diff"], cwd=folder, check=True)
    own = {"PYTHONPATH": str(folder), "ROBUSTKIT_RESULTS": str(folder / "results"), "MPLBACKEND": "agg"}
    own |= {"ROBUSTKIT_FIGURES": str(folder / "figures")}
    command = [sys.executable, "-c", inspect.getsource(drawn_and_judged) + INITIALISATION]
    done = subprocess.run(command, cwd=folder, env=os.environ | own, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_a_new_initialisation_is_trained_and_drawn_under_its_name(changed):
    assert changed["status"] == ["ok", "ok"] and changed["legend"] == ["PyTorch's"]


def test_a_new_claim_is_judged(changed):
    assert len(changed["verdicts"]) == 2 and set(changed["verdicts"]) <= {*VERDICTS, DIGITS}


def test_a_dataset_of_ones_own_is_trained_drawn_and_judged(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(compile(code, "CONTRIBUTING.md", "exec"), {})
    assert "stability" in capsys.readouterr().out
    rows = robustkit.load()
    own = drawn_and_judged(rows[rows["dataset"] == "points.npz"])
    assert own["status"] == ["ok"] and own["legend"] == ["He"]
    assert len(own["verdicts"]) == 1 and set(own["verdicts"]) <= {*VERDICTS}


def test_its_commands_name_files_that_are_there():
    for name in re.findall(r"(?:tests|benchmarks|robustkit)/[\w/]+\.py", TEXT):
        assert (ROOT / name).exists(), name
