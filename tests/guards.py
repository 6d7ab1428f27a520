"""The guards that tests name: `@pytest.mark.guard(3, "robustkit/checks.py", text, instead)` on a test says that it
keeps fault 3 away, and must fail once `text` in that file is replaced by `instead`."""

import ast
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


def collect(folder: str) -> list[Guard]:
    """The guards that the tests in a folder under tests/ name, by fault."""
    guards = []
    for path in sorted((ROOT / "tests" / folder).glob("test_*.py")):
        body = ast.parse(path.read_text()).body
        constants = {
            node.targets[0].id: node.value.value
            for node in body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        }
        for test in body:
            for mark in getattr(test, "decorator_list", ()):
                if ast.unparse(mark).startswith("pytest.mark.guard("):
                    words = [constants[a.id] if isinstance(a, ast.Name) else ast.literal_eval(a) for a in mark.args]
                    guards.append(Guard(*words, f"{path.relative_to(ROOT)}::{test.name}"))
    return sorted(guards)
