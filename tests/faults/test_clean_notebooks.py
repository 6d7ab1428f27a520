"""What must not be committed in a notebook is found there; and running one again draws the same figures."""

import copy
from pathlib import Path

import nbformat
import pytest
from drawn_again import drawn_twice
from test_notebooks import problems

from robustkit.report import notebooks as report

output = nbformat.v4.new_output
PLANTED = {
    "script": [
        output("display_data", {"text/html": "<b>a table</b><script src='https://example.org/a.js'></script>"}),
        output("display_data", {"text/html": "<SCRIPT>alert()</SCRIPT>"}),
        output("execute_result", {"text/html": "<a href='javascript:alert()'>more</a>"}, execution_count=1),
        output("display_data", {"text/html": "<body onload=alert()>"}),
    ],
    "application/javascript": [output("display_data", {"application/javascript": "alert()"})],
    "path": [
        output("stream", text="read /home/someone/data/MNIST"),
        output("stream", text="read /Users/someone/data"),
        output("display_data", {"text/plain": "PosixPath('/content/drive/torch')"}),
        output("display_data", {"text/plain": "'C:\\\\Users\\\\someone'"}),
        output("display_data", {"text/plain": f"'{report.NOTEBOOKS}'"}),
    ],
    "error": [output("error", ename="ValueError", evalue="no", traceback=["ValueError: no"])],
    "stderr": [output("stream", name="stderr", text="UserWarning: careful")],
    "application/vnd.jupyter.widget-view+json": [
        output("display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "bar"})
    ],
}


@pytest.fixture(scope="module")
def committed():
    """Every committed notebook, which is clean."""
    found = [nbformat.read(path, as_version=4) for path in report.notebooks()]
    assert len(found) >= 7 and all(problems(notebook) == [] for notebook in found)
    return found


@pytest.mark.guard(23, "tests/test_notebooks.py", 'found.append("script")', "pass")
@pytest.mark.guard(23, "tests/test_notebooks.py", 'found.append("path")', "pass")
@pytest.mark.guard(23, "tests/test_notebooks.py", 'found.append("error")', "pass")
@pytest.mark.parametrize(
    ("problem", "planted"), [(name, one) for name, several in PLANTED.items() for one in several]
)
def test_what_must_not_be_committed_is_found_in_any_notebook(committed, problem, planted):
    for notebook in committed:
        bad = copy.deepcopy(notebook)
        cell = [cell for cell in bad.cells if cell.cell_type == "code"][-1]
        cell.outputs = [*cell.outputs, planted]
        assert problems(bad) == [problem]


@pytest.mark.parametrize("name", ["widgets", "papermill"])
def test_the_state_of_widgets_and_of_papermill_is_found(committed, name):
    for notebook in committed:
        bad = copy.deepcopy(notebook)
        bad.metadata[name] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
        assert problems(bad) == [name]
        bad = copy.deepcopy(notebook)
        bad.cells[0].metadata[name] = {"duration": 1.5}
        assert problems(bad) == [f"cell metadata {name}"]


@pytest.mark.guard(23, "robustkit/plots/output.py", '"pdf": {"CreationDate": None}', '"pdf": {}')
def test_running_a_notebook_again_draws_the_same_figures_to_the_byte(tmp_path):
    """Up to its first figure; tests/long/test_drawn_again.py draws all of every notebook."""
    one, two = drawn_twice("01", tmp_path, cells=5)
    assert {Path(name).suffix for name in one} >= {".png", ".pdf", ".csv"}
    assert one.keys() == two.keys() and [name for name in one if one[name] != two[name]] == []
