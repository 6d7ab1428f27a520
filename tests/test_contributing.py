"""CONTRIBUTING.md: its changes fit the code as it is, and do what it says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """A copy of the package with every change that is shown."""
    folder = tmp_path_factory.mktemp("changed")
    shutil.copytree(ROOT / "robustkit", folder / "robustkit", ignore=shutil.ignore_patterns("__pycache__"))
    for number, diff in enumerate(re.findall(r"```diff\n(.*?)```", TEXT, re.DOTALL)):
        (folder / f"{number}.diff").write_text(diff)
        subprocess.run(["git", "apply", f"{number}.diff"], cwd=folder, check=True)
    return folder


def run(folder, code, package=None):
    here = {"cwd": folder, "env": os.environ | {"PYTHONPATH": str(package or folder)}}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, **here).stdout


def test_a_new_initialisation_is_trained(changed):
    code = "import robustkit as rk; print(rk.run([rk.Cell(width=16, depth=2, init='default', epochs=1)])['status'])"
    assert "ok" in run(changed, code)


def test_a_new_claim_is_in_the_ledger(changed):
    assert "E99" in run(
        changed, "from robustkit.ledger import verdicts; print([claim.id for claim in verdicts.CLAIMS])"
    )


def test_a_dataset_of_ones_own_is_trained(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert "stability" in run(tmp_path, code, ROOT)


def test_its_commands_name_files_that_are_there():
    for name in re.findall(r"(?:tests|benchmarks|robustkit)/[\w/]+\.py", TEXT):
        assert (ROOT / name).exists(), name
