"""Who imports whom: each module only from the rows above it, heavy packages only where they are needed."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "robustkit"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.stem != "__init__"
}


def imports(path):
    """(own modules, other packages, those imported only inside functions) of a file."""
    own, others, lazy = set(), set(), set()
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            own |= {node.module} if node.module else {alias.name for alias in node.names}
            continue
        elif isinstance(node, ast.ImportFrom):
            names = [node.module]
        else:
            continue
        packages = {name.partition(".")[0] for name in names}
        own |= {name.split(".")[1] for name in names if name.startswith("robustkit.")}
        others |= packages
        if id(node) in inside:
            lazy |= packages
    return own, others, lazy


def test_theory_and_all_that_it_imports_never_import_torch():
    seen, todo = set(), ["theory"]
    while todo:
        name = todo.pop()
        seen.add(name)
        own, others, _ = imports(MODULES[name])
        assert not {other for other in others if other.startswith("torch")}, name
        todo += own - seen


def test_torchvision_is_imported_in_one_file_and_only_when_it_is_needed():
    users = [name for name, path in MODULES.items() if "torchvision" in imports(path)[1]]
    assert users == ["data"]
    tree = ast.parse(MODULES["data"].read_text())
    assert not [node for node in tree.body if "torchvision" in ast.unparse(node) and isinstance(node, ast.Import)]
    assert "torchvision" in imports(MODULES["data"])[2]


def test_nothing_is_unpickled():
    for name, path in MODULES.items():
        _, others, _ = imports(path)
        assert not others & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}, name
        calls = [ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [call for call in calls if call.startswith(("torch.load(", "pandas.read_pickle("))], name
        loads = [call for call in calls if call.startswith(("np.load(", "numpy.load("))]
        assert all("allow_pickle=False" in call for call in loads), name


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


def start(code, folder):
    command = [sys.executable, "-W", "error::UserWarning", "-c", code]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def printed(process):
    text, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return text


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Two new interpreters at once: the metric alone in a folder, and the package."""
    folder = tmp_path_factory.mktemp("alone")
    shutil.copy(MODULES["stability"], folder)
    return start(ALONE, folder), start(WHOLE, folder)


def test_the_metric_works_in_a_folder_of_its_own(fresh):
    own, others, _ = imports(MODULES["stability"])
    assert own == set() and others - sys.stdlib_module_names == {"torch"}
    assert printed(fresh[0]) == "5\n"


def test_importing_the_package_leaves_the_notebook_tools_alone(fresh):
    first, loaded = json.loads(printed(fresh[1]))
    assert "robustkit.cell" in first and not {"torch", "numpy", "pandas"} & set(first)
    # IPython is not in this list: seaborn loads it where ipywidgets is installed.
    heavy = {"papermill", "nbconvert", "nbformat", "jupytext", "sklearn", "torchvision"}
    assert {"robustkit.plots", "torch"} <= set(loaded) and not heavy & set(loaded)
