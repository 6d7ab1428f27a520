"""Every committed notebook, run again twice, draws the same figures to the byte: some ten minutes."""

import pytest
from drawn_again import drawn_twice

from robustkit.report.notebooks import notebooks

pytestmark = pytest.mark.timeout(0)


@pytest.mark.parametrize("number", [path.stem[:2] for path in notebooks()])
def test_running_a_notebook_again_draws_the_same_figures_to_the_byte(number, tmp_path):
    one, two = drawn_twice(number, tmp_path)
    assert one.keys() == two.keys() and [name for name in one if one[name] != two[name]] == []
