"""Without its guard, each test under tests/faults/ fails: an hour on two cores.

python -m pytest -v tests/long/test_guards.py                               # all of them
python -m pytest -v tests/long/test_guards.py -k "fault_03 or fault_11"     # those of faults 3 and 11
"""

import functools
import os
import shutil
import subprocess
import sys

import pytest
from guards import ROOT, collect

pytestmark = pytest.mark.timeout(0)
GUARDS = collect("faults")
IDS = [f"fault_{guard.fault:02}-{guard.test.partition('::')[2]}-{number}" for number, guard in enumerate(GUARDS)]


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of the project."""
    folder = tmp_path_factory.mktemp("project")
    listing = ["git", "ls-files", "-co", "--exclude-standard"]
    for name in subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def status(test, folder):
    """Exit status of pytest on one test of a copy of the project, and what it printed."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test]
    own = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True)
    return done.returncode, done.stdout


status_of_the_whole = functools.cache(status)


@pytest.mark.parametrize("guard", GUARDS, ids=IDS)
def test_it_fails_without_the_guard_and_passes_with_it(guard, copied):
    code, said = status_of_the_whole(guard.test, copied)
    assert code == 0, said
    path = copied / guard.file
    whole = path.read_text()
    path.write_text(whole.replace(guard.text, guard.instead))
    try:
        code, said = status(guard.test, copied)
    finally:
        path.write_text(whole)
    assert code == 1, said
