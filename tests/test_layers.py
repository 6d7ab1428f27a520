"""Who imports whom: the contracts of pyproject.toml, and what import-linter cannot see."""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "robustkit"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
LONGEST = 400  # lines of a file


def imported(path, *, at_once=False):
    """The packages that a file imports, in full: `.` for this one; with `at_once`, those outside its functions."""
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    later = {id(node) for function in functions for node in ast.walk(function)} if at_once else set()
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and id(node) not in later:
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and id(node) not in later:
            names |= {"." if node.level else node.module}
    return {name.partition(".")[0] or "." for name in names}


def test_imports_keep_to_the_contracts(capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    broken = lint_imports(str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True)
    assert not broken, capsys.readouterr().out


def test_every_module_has_its_place_among_the_layers():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    placed = [name for layer in layers for name in re.split(r" [:|] ", layer)]
    assert sorted(placed) == sorted({".".join(name.split(".")[:2]) for name in MODULES} - {"robustkit"})


@pytest.mark.parametrize("package", ["pooch", "requests", "sklearn"])
def test_what_reads_the_datasets_is_imported_in_one_file_and_only_when_it_is_needed(package):
    assert [name for name, path in MODULES.items() if package in imported(path)] == ["robustkit.data"]
    assert not [name for name, path in MODULES.items() if package in imported(path, at_once=True)]


def test_every_read_and_write_of_text_names_its_encoding():
    """A locale that is not UTF-8 broke the kappas in figures and pages, or ended in UnicodeDecodeError."""
    nameless = []
    for name, path in MODULES.items():
        for call in filter(lambda node: isinstance(node, ast.Call), ast.walk(ast.parse(path.read_text("utf-8")))):
            function, given = ast.unparse(call.func), {word.arg: ast.unparse(word.value) for word in call.keywords}
            binary = "b" in "".join(str(arg.value) for arg in call.args[1:2] if isinstance(arg, ast.Constant))
            text = function.endswith((".read_text", ".write_text")) or given.get("text") == "True"
            if (text or (function in ("open", "os.fdopen") and not binary)) and "encoding" not in given:
                nameless.append(f"{name}: {ast.unparse(call)}")
    assert nameless == []


def test_nothing_is_unpickled():
    for name, path in MODULES.items():
        assert not imported(path) & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}, name
        calls = [ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [call for call in calls if call.startswith(("torch.load(", "pandas.read_pickle("))], name
        loads = [call for call in calls if call.startswith(("np.load(", "numpy.load("))]
        assert all("allow_pickle=False" in call for call in loads), name


def test_no_file_is_long():
    lengths = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST} == {}


ALONE = """
import torch, stability
print(stability.perturbation_stability(torch.nn.Linear(3, 2, bias=False), torch.zeros(5, 3)).n)
"""
WHOLE = """
import json, sys
import robustkit
first = sorted(sys.modules)
values = [getattr(robustkit, name) for name in dir(robustkit)]
print(json.dumps([first, sorted(sys.modules)]))
"""


def printed(code, folder=ROOT):
    """By a new interpreter in a folder."""
    command = [sys.executable, "-W", "error::UserWarning", "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_metric_works_in_a_folder_of_its_own(tmp_path):
    assert imported(MODULES["robustkit.stability"]) - sys.stdlib_module_names == {"torch"}
    shutil.copy(MODULES["robustkit.stability"], tmp_path)
    assert printed(ALONE, tmp_path) == "5\n"


def test_importing_the_package_leaves_heavy_packages_alone():
    first, loaded = json.loads(printed(WHOLE))
    assert "robustkit.cell" in first and not {"torch", "numpy", "pandas"} & set(first)
    # IPython is not in this list: seaborn loads it where ipywidgets is installed.
    heavy = {"papermill", "nbconvert", "nbformat", "jupytext", "sklearn", "torchvision"}
    heavy |= {"pooch", "requests", "distributed"}
    assert {"robustkit.plots", "torch"} <= set(loaded) and not heavy & set(loaded)
