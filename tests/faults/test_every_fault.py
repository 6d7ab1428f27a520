"""Each of the 24 faults has a test that names the guard without which it fails (tests/long/test_guards.py)."""

import pytest
from guards import ROOT, collect


@pytest.fixture(scope="module")
def guards():
    return collect("faults")


def test_each_of_the_24_faults_has_a_test_with_a_guard(guards):
    assert sorted({guard.fault for guard in guards}) == list(range(1, 25))


def test_each_guard_is_a_piece_of_the_code_as_it_is(guards):
    for guard in guards:
        assert (ROOT / guard.file).read_text().count(guard.text) == 1, guard
