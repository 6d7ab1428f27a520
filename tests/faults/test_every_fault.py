"""Each of the 24 faults has a test, and each test names the guard without which it fails (benchmarks/guards.py)."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import guards  # noqa: E402


@pytest.fixture(scope="module")
def found():
    return guards.collect()


def test_each_of_the_24_faults_has_a_test_with_a_guard(found):
    assert sorted({guard.fault for guard in found}) == list(range(1, 25))


def test_each_guard_is_a_piece_of_the_code_as_it_is(found):
    for guard in found:
        assert (ROOT / guard.file).read_text().count(guard.text) == 1, guard
