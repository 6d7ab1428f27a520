"""What the README and the pages behind it say of the project is what the project is."""

import re
import shutil

import pytest

from robustkit import profile_cells
from robustkit.files import ROOT
from robustkit.ledger import verdicts
from robustkit.profiles import FIGURES, READINGS, grid
from robustkit.report import ship

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("*/README.md"))]
PAGES += [ROOT / "tests" / "faults" / "README.md", ROOT / "CONTRIBUTING.md"]
TEXT, FIGURE_LIST = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "figures/README.md"))


def test_its_answer_is_the_committed_one(tmp_path):
    shutil.copy(ROOT / "README.md", tmp_path)
    ship.write_answer(tmp_path / "README.md", ROOT / "figures" / "shipped")
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == TEXT and TEXT.count("\n- **") == 5


def test_it_is_short():
    assert len(TEXT.split()) <= 1_300


def test_it_says_how_many_claims_there_are():
    assert f"holds {len(verdicts.CLAIMS)} statements" in TEXT


def test_its_counts_of_runs_are_those_of_the_grids():
    for profile in ("smoke", "laptop", "paper"):
        line = next(line for line in TEXT.splitlines() if line.startswith(f"| `{profile}` |"))
        assert f"{len(profile_cells(profile))} runs" in line


SHOWN = {name: [name] for name in (*FIGURES, *READINGS) if name != "standard"}
SHOWN |= {"N4a_settings": ["theorem1", "theorem1_wide"], "N_Table2_shapes": ["ntk_full"], "N_gain": ["gain_full"]}
SHOWN |= {"N4_inverse_width": ["inverse_width"], "N4_common_loss": ["common_loss"], "T2_movement": ["theorem2"]}
SHOWN |= {"N4_inverse_width_full": ["inverse_width_full"], "T3": ["theorem3_n8", "theorem3_n16", "theorem3_n32"]}


@pytest.mark.parametrize("name", SHOWN)
def test_the_list_of_figures_counts_the_runs_behind_each(name):
    drawn = {"unit": "N5_unit", "flow10": "N4_wider", "WT4": "W_Table4"}.get(name, name)
    line = next(line for line in FIGURE_LIST.splitlines() if line.startswith("| ") and f"[{drawn}](" in line)
    assert line.endswith(f"| {sum(len(grid(part, 'laptop')) for part in SHOWN[name])} |")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if "://" not in target and not (page.parent / target).exists()] == []


def test_each_dask_scheduler_listens_on_this_machine_alone():
    """A scheduler accepts strangers and exchanges pickles, and the recipe opened it to every network."""
    starts = [line for page in PAGES for line in re.findall("dask scheduler .*", page.read_text(encoding="utf-8"))]
    assert starts and all("--host 127.0.0.1" in line or "--tls-key" in line for line in starts)


def test_every_picture_and_table_is_in_the_list_of_figures():
    made = {path.stem for ending in ("png", "md") for path in ROOT.glob(f"figures/shipped/*.{ending}")}
    assert made <= set(re.findall(r"\]\(shipped/(\w+)\.", FIGURE_LIST))


def test_its_example_runs():
    code = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1]
    exec(compile(code, "README.md", "exec"), {})
