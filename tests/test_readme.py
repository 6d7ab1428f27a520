"""What the README says of the project is what the project is."""

import re
import shutil

from robustkit import profile_cells, report
from robustkit.config import ROOT
from robustkit.profiles import FIGURES, READINGS, grid, reading_cells

TEXT = (ROOT / "README.md").read_text()


def test_its_verdicts_are_those_of_the_committed_ledger(tmp_path):
    shutil.copy(ROOT / "README.md", tmp_path)
    report.write_verdicts(tmp_path / "README.md", ROOT / "figures" / "shipped" / "claims.csv")
    assert (tmp_path / "README.md").read_text() == TEXT


def test_its_counts_of_trainings_are_those_of_the_grids():
    for profile in ("smoke", "laptop", "paper"):
        line = next(line for line in TEXT.splitlines() if line.startswith(f"| `{profile}` |"))
        assert f"{len(profile_cells(profile))} trainings" in line
    for figure in FIGURES.keys() | READINGS.keys() - {"standard"}:
        name = {"unit": "N5_unit"}.get(figure, figure)
        line = next(line for line in TEXT.splitlines() if line.startswith("| ") and f"`{name}`" in line)
        cells = reading_cells(figure, "laptop") if figure in READINGS else grid(figure, "laptop")
        assert line.endswith(f"| {len(cells)} |")


def test_its_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_its_example_runs():
    code = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1]
    exec(compile(code, "README.md", "exec"), {})
