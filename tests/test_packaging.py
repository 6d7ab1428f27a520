"""The lists of packages agree with each other and with what the code imports; the files beside them are in order."""

import ast
import os
import re
import shutil
import sys
import tomllib
from pathlib import Path

import jupytext
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from robustkit.checks import InputError
from robustkit.report import badges

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
CITATION = (ROOT / "CITATION.cff").read_text()

# torch and what comes with it must all come from one place, which constraints.txt does not choose.
BANNED = re.compile(r"(torch|torchvision|triton|robustkit.*|pip|setuptools|nvidia-.*|cuda-.*)$")
CONDA_NAMES = {"pytorch": "torch"}
IMPORT_NAMES = {"scikit-learn": "sklearn", "math-core": "math_core"}


def bounds(requirements):
    """Name -> lower bound of a list of requirements, each of which must have one and nothing else."""
    found = {}
    for text in requirements:
        requirement = Requirement(text)
        if requirement.name == PROJECT["name"]:
            continue
        (specifier,) = requirement.specifier
        assert specifier.operator == ">=", text
        assert requirement.marker is None, text
        assert requirement.name not in found, text
        found[requirement.name] = specifier.version
    return found


EXTRAS = PROJECT["optional-dependencies"]
READERS = bounds([*PROJECT["dependencies"], *EXTRAS["notebooks"]])
DECLARED = READERS | bounds([*EXTRAS["dask"], *EXTRAS["test"]])
CONSTRAINTS = [
    line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.strip() and not line.startswith("#")
]


def test_the_test_extra_brings_the_other_extras():
    assert "robustkit-companion[dask,notebooks]" in EXTRAS["test"]


def test_conda_installs_what_a_reader_needs_with_the_lower_bounds_of_pip():
    listed = [entry for entry in ENVIRONMENT["dependencies"] if isinstance(entry, str)]
    python, pip, *others = listed
    (by_pip,) = [entry["pip"] for entry in ENVIRONMENT["dependencies"] if isinstance(entry, dict)]
    others += [entry for entry in by_pip if entry != "-e ."]
    assert pip == "pip"
    found = bounds(others)
    assert {CONDA_NAMES.get(name, name): bound for name, bound in found.items()} == READERS
    assert by_pip[-1] == "-e ." and ENVIRONMENT["dependencies"][-1] == {"pip": by_pip}
    minor = re.fullmatch(r"python=(3\.\d+)", python)
    assert minor, "environment.yml must pin Python to one minor version"
    assert Version(minor[1]) in Requirement("python" + PROJECT["requires-python"]).specifier


def test_conda_uses_its_community_channel_alone():
    assert ENVIRONMENT["name"] == "robustkit"
    assert ENVIRONMENT["channels"] == ["conda-forge", "nodefaults"]


def test_constraints_are_plain_sorted_versions_without_torch_and_its_company():
    pattern = re.compile(r"([a-z0-9-]+)==([0-9][0-9a-z.]*)")
    names = []
    for line in CONSTRAINTS:
        match = pattern.fullmatch(line)
        assert match, f"constraints.txt: {line!r} is not name==version"
        assert canonicalize_name(match[1]) == match[1]
        assert not BANNED.match(match[1]), line
        names.append(match[1])
    assert names == sorted(set(names))


def test_constraints_hold_every_package_asked_for_at_or_above_its_lower_bound():
    pinned = dict(line.split("==") for line in CONSTRAINTS)
    assert set(DECLARED) - set(pinned) == {"torch", "torchvision"}
    too_old = {
        name: pinned[name]
        for name, bound in DECLARED.items()
        if name in pinned and Version(pinned[name]) < Version(bound)
    }
    assert too_old == {}


def test_every_package_that_robustkit_imports_is_declared():
    declared = bounds([*PROJECT["dependencies"], *EXTRAS["notebooks"], *EXTRAS["dask"]])
    importable = {IMPORT_NAMES.get(name, name) for name in declared} | {"robustkit"} | sys.stdlib_module_names
    in_notebooks = importable | {"IPython"}  # what every kernel of ipykernel is
    undeclared = set()
    sources = [*(ROOT / "robustkit").rglob("*.py"), *(ROOT / "notebooks").glob("*.py")]
    for source in sources:
        allowed = in_notebooks if source.parent.name == "notebooks" else importable
        for node in ast.walk(ast.parse(source.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            undeclared |= {(source.name, name) for name in names if name.partition(".")[0] not in allowed}
    assert sources
    assert undeclared == set()


def test_the_citation_asks_for_the_paper():
    citation = yaml.safe_load(CITATION)
    assert citation["cff-version"] == "1.2.0"
    assert "cite the paper" in citation["message"]
    assert citation["authors"] == [{"name": "The robustkit authors"}]
    assert citation["license"] == PROJECT["license"] == "MIT"
    paper = citation["preferred-citation"]
    assert [author["family-names"] for author in paper["authors"]] == ["Zhu", "Liu", "Chrysos", "Cevher"]
    assert paper["title"].startswith("Robustness in deep learning: The good (width)")
    assert (paper["type"], paper["year"]) == ("conference-paper", 2022)


# ---------------------------------------------------------------------------------------------- the address


SAYS_IT = ("README.md", *(f"notebooks/{path.name}" for path in sorted((ROOT / "notebooks").glob("[0-9]*.py"))))


OTHER = "https://github.com/some-one/Other.kit"


@pytest.fixture
def moved(tmp_path):
    """A copy of pyproject.toml, README and notebooks, and a function that gives the project another address."""
    for name in ("pyproject.toml", *SAYS_IT):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)

    def move(to):
        project = tmp_path / "pyproject.toml"
        bare = re.sub(r"\n\[project.urls\]\nRepository = .*\n", "", project.read_text())
        project.write_text(f'{bare}\n[project.urls]\nRepository = "{to}"\n' if to else bare)
        badges.write(tmp_path)
        return tmp_path

    return move


def test_without_an_address_there_are_no_badges_and_no_notebook_clones_anything(moved):
    folder = moved(badges.repository())
    assert [name for name in SAYS_IT if (folder / name).read_bytes() != (ROOT / name).read_bytes()] == []
    if not badges.repository():
        assert [name for name in SAYS_IT if "mybinder" in (folder / name).read_text()] == []


@pytest.mark.parametrize("name", SAYS_IT)
def test_an_address_reaches_every_badge_and_first_cell_and_can_be_taken_back(moved, name):
    after, address = (moved(OTHER) / name).read_text(), OTHER.removeprefix("https://github.com/")
    assert f"mybinder.org/v2/gh/{address}/HEAD" in after and f"colab.research.google.com/github/{address}" in after
    if name != "README.md":
        pair = Path(name).with_suffix(".ipynb").name
        assert f"HEAD?labpath=notebooks%2F{pair}" in after and f"{address}/blob/main/notebooks/{pair}" in after
        assert f'address, tag = "{OTHER}", "v{PROJECT["version"]}"' in after
        assert jupytext.reads(after, fmt="py:percent").cells[0].source.startswith("# ")
    assert (moved(OTHER) / name).read_text() == after  # written twice
    assert (moved(badges.repository()) / name).read_bytes() == (ROOT / name).read_bytes()


def test_an_address_that_binder_and_colab_cannot_open_is_refused(moved):
    with pytest.raises(InputError, match="'https://example.org/kit', but must be https://github.com/OWNER/NAME"):
        moved("https://example.org/kit")


@pytest.mark.parametrize("name", ["run_all.sh", ".ci/run"])
def test_the_scripts_can_be_started(name):
    assert os.access(ROOT / name, os.X_OK)
    assert (ROOT / name).read_text().startswith("#!/usr/bin/env bash\n")
