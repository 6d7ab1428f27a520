"""What the README says of the project is what the project is."""

import re
import shutil

from robustkit import profile_cells
from robustkit.files import ROOT
from robustkit.ledger import verdicts
from robustkit.profiles import FIGURES, READINGS, grid
from robustkit.report import ship

TEXT = (ROOT / "README.md").read_text()


def test_its_verdicts_and_findings_are_the_committed_ones(tmp_path):
    shutil.copy(ROOT / "README.md", tmp_path)
    ship.write_verdicts(tmp_path / "README.md", ROOT / "figures" / "shipped")
    assert (tmp_path / "README.md").read_text() == TEXT


def test_it_says_how_many_claims_there_are():
    assert f"holds {len(verdicts.CLAIMS)} statements" in TEXT


def test_its_counts_of_trainings_are_those_of_the_grids():
    for profile in ("smoke", "laptop", "paper"):
        line = next(line for line in TEXT.splitlines() if line.startswith(f"| `{profile}` |"))
        assert f"{len(profile_cells(profile))} runs" in line
    for figure in FIGURES.keys() | READINGS.keys() - {"standard"}:
        name = {"unit": "N5_unit", "flow10": "N4_wider", "WT4": "W_Table4"}.get(figure, figure)
        line = next(line for line in TEXT.splitlines() if line.startswith("| ") and f"`{name}`" in line)
        assert line.endswith(f"| {len(grid(figure, 'laptop'))} |")


def test_its_counts_of_control_trainings_are_those_of_the_grids():
    shown = {
        **{"N4a_terms": ["theorem1"], "N_Table2_shapes": ["ntk_full"], "N4_inverse_width": ["inverse_width"]},
        **{"N4_common_loss": ["common_loss"], "N_gain": ["gain_full"], "T2_movement": ["theorem2"]},
        "N4_inverse_width_full": ["inverse_width_full"],
        "T3": ["theorem3_n8", "theorem3_n16", "theorem3_n32"],
    }
    for name, controls in shown.items():
        line = next(line for line in TEXT.splitlines() if line.startswith("| ") and f"`{name}`" in line)
        assert line.endswith(f"| {sum(len(grid(control, 'laptop')) for control in controls)} |")


def test_its_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_its_example_runs():
    code = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1]
    exec(compile(code, "README.md", "exec"), {})
