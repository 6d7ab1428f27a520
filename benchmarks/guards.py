"""Remove each guard from a copy of the project and see the test that needs it fail.

A test under tests/faults/ names its guards: `@pytest.mark.guard(3, "robustkit/checks.py", text, instead)` says that
it keeps fault 3 away, and must fail once `text` in that file is replaced by `instead`.

    python benchmarks/guards.py            # all of them
    python benchmarks/guards.py 3 11       # those of faults 3 and 11
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Guard(NamedTuple):
    """A piece of code, and the test that fails without it."""

    fault: int
    file: str
    text: str
    instead: str
    test: str


def collect() -> list[Guard]:
    """The guards that the tests under tests/faults/ name, by fault."""
    found = []
    for path in sorted((ROOT / "tests" / "faults").glob("test_*.py")):
        spec = importlib.util.spec_from_file_location(f"guards_of_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name, test in vars(module).items():
            marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "guard"]
            found += [Guard(*mark.args, f"{path.relative_to(ROOT)}::{name}") for mark in marks]
    return sorted(found)


def tried(guard: Guard, folder: Path) -> str:
    """What its test does on a copy of the project in `folder` without the guard, and whether it passes with it."""
    path = folder / guard.file
    whole = path.read_text()
    if whole.count(guard.text) != 1:
        raise SystemExit(f"{guard.file} holds the guard of {guard.test} {whole.count(guard.text)} times, not once")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", guard.test]
    here = dict(cwd=folder, env=os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"})
    path.write_text(whole.replace(guard.text, guard.instead))
    try:
        without = subprocess.run(command, capture_output=True, text=True, **here)
    finally:
        path.write_text(whole)
    with_it = subprocess.run(command, capture_output=True, text=True, **here)
    if with_it.returncode:
        return "FAILS WITH IT"
    return "fails without it" if without.returncode == 1 else "DOES NOT FAIL without it"


def main() -> int:
    """Try every guard, or those of the faults given."""
    chosen = {int(number) for number in sys.argv[1:]}
    guards, bad = [guard for guard in collect() if not chosen or guard.fault in chosen], 0
    with tempfile.TemporaryDirectory() as folder:
        files = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        for name in files.stdout.splitlines():
            if (ROOT / name).exists():
                (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, Path(folder) / name)
        for guard in guards:
            said = tried(guard, Path(folder))
            bad += said != "fails without it"
            first = guard.text.strip().splitlines()[0]
            print(f"{said}: fault {guard.fault}, {guard.test}: {guard.file}: {first}", flush=True)
    print(f"{len(guards) - bad} of {len(guards)} tests fail once their guard is removed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
