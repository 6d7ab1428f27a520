"""What `run` trains of smoke is all that its notebooks draw, on a tiny grid of digits: some ten minutes."""

import pytest
from test_notebooks import GRID

from robustkit.__main__ import main
from robustkit.files import figures_folder


@pytest.mark.timeout(0)
def test_nothing_is_missing_from_what_the_notebooks_draw():
    words = [word for name in ("widths", "seeds") for word in ("-p", f"{name}={GRID[name]}")]
    assert main(["reproduce", "smoke", *words, "--device", "cpu"]) == 0
    said = {path.name: path.read_text().splitlines()[0] for path in figures_folder("smoke").glob("*.csv")}
    assert said and [name for name, words in said.items() if "missing" in words] == []
