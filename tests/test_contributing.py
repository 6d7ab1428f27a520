"""CONTRIBUTING.md: its changes fit the code as it is, and do what it says."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
CHANGED = """
import json
import robustkit as rk
from robustkit.ledger import verdicts
rows = rk.run([rk.Cell(width=16, depth=2, init="default", epochs=1)])
print(json.dumps({"status": list(rows["status"]), "claims": [claim.id for claim in verdicts.CLAIMS]}))
"""


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """What a process does in a copy of the package with every change that is shown."""
    folder = tmp_path_factory.mktemp("changed")
    shutil.copytree(ROOT / "robustkit", folder / "robustkit", ignore=shutil.ignore_patterns("__pycache__"))
    for number, diff in enumerate(re.findall(r"```diff\n(.*?)```", TEXT, re.DOTALL)):
        (folder / f"{number}.diff").write_text(diff)
        subprocess.run(["git", "apply", f"{number}.diff"], cwd=folder, check=True)
    own = os.environ | {"PYTHONPATH": str(folder), "ROBUSTKIT_RESULTS": str(folder / "results")}
    command = [sys.executable, "-c", CHANGED]
    done = subprocess.run(command, cwd=folder, env=own, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_a_new_initialisation_is_trained(changed):
    assert changed["status"] == ["ok"]


def test_a_new_claim_is_in_the_ledger(changed):
    assert "E99" in changed["claims"]


def test_a_dataset_of_ones_own_is_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(compile(code, "CONTRIBUTING.md", "exec"), {})
    assert "stability" in capsys.readouterr().out


def test_its_commands_name_files_that_are_there():
    for name in re.findall(r"(?:tests|benchmarks|robustkit)/[\w/]+\.py", TEXT):
        assert (ROOT / name).exists(), name
