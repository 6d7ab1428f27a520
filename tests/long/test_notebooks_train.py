"""Every notebook on a tiny grid of digits trains all that it draws, convolutional networks too: some ten minutes."""

import pytest
from test_notebooks import GRID

from robustkit.report import notebooks


@pytest.mark.timeout(0)
def test_every_notebook_trains_what_it_draws():
    assert notebooks.execute("smoke", parameters=GRID, workers=2) == []
