"""Notebooks run on kernels of our own, and whatever happens to one of them, the others and the report are made."""

import json
import os
import sys

import nbformat
import pytest

from robustkit.__main__ import main
from robustkit.files import figures_folder, results_folder
from robustkit.report import notebooks

HEAD = """# %% [markdown]
# # {0}. A title

# %% tags=["parameters"]
profile = "shipped"

# %%
print("begun")

# %%
"""
DRAWS = "import matplotlib.pyplot as plt\nplt.plot([0, 1])\nplt.show()\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write notebooks in place of the project's, by their last cells, into a folder with braces in its name."""
    folder = tmp_path / "a {checkout} {0}"
    folder.mkdir()
    monkeypatch.setattr(notebooks, "NOTEBOOKS", folder)

    def written(*cells):
        for number, cell in enumerate(cells):
            source = folder / f"{number:02d}_n.py"
            source.write_text(HEAD.format(number) + cell)
            notebooks.build_notebook(source, source.with_suffix(".ipynb"))

    return written


def outputs(number):
    copy = nbformat.read(results_folder() / "notebooks" / "smoke" / f"{number:02d}_n.ipynb", as_version=4)
    return [output for cell in copy.cells for output in cell.get("outputs", ())]


def test_pictures_are_png_on_this_python_whatever_the_user_has_set(write, tmp_path, monkeypatch):
    """MPLBACKEND=Agg, an InlineBackend set to svg or another kernel named python3 left a report without pictures."""
    kernel = tmp_path / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(json.dumps({"argv": ["false"], "display_name": "another", "language": "python"}))
    config = tmp_path / "profile_default" / "ipython_kernel_config.py"
    config.parent.mkdir()
    config.write_text('get_config().InlineBackend.figure_formats = {"svg"}')
    (tmp_path / "matplotlibrc").write_text("text.usetex: True")
    (tmp_path / "startup.py").write_text("raise SystemExit('not ours')")
    for name in ("JUPYTER_PATH", "IPYTHONDIR", "MATPLOTLIBRC"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "startup.py"))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    write(DRAWS + "import sys\nprint(sys.executable)\n")
    assert notebooks.execute("smoke") == []
    kinds = [kind for output in outputs(0) for kind in output.get("data", ())]
    assert "image/png" in kinds and "image/svg+xml" not in kinds
    assert any(sys.executable in output.get("text", "") for output in outputs(0))


def test_a_kernel_that_dies_is_a_sentence_its_copy_is_kept_and_the_report_is_written(write, capsys):
    """An exception escaped: the other notebooks were lost, and there was no report."""
    write("import os\nos._exit(7)\n", DRAWS)
    assert main(["report", "smoke"]) == 1
    said = capsys.readouterr()
    assert "00_n: failed" in said.out and "01_n: done" in said.out
    (sentence,) = [line for line in said.err.splitlines() if line.startswith("failed: 00_n: ")]
    assert "died" in sentence
    assert [output["text"] for output in outputs(0)] == ["begun\n"]
    index = (figures_folder("smoke") / "report" / "index.html").read_text("utf-8")
    assert "What failed" in index and "0. A title" in index and "1. A title" in index


def test_a_kernel_that_cannot_start_is_a_sentence(write, tmp_path, monkeypatch):
    """It escaped as an exception of the kernel's manager."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))  # the pool's own was chosen before
    before = dict(os.environ)
    write(DRAWS)
    try:
        (said,) = [notebooks._execute(path, tmp_path / "copy.ipynb", {}) for path in notebooks.notebooks()]
    finally:
        os.environ.clear()
        os.environ.update(before)
    assert "no python" in said and (tmp_path / "copy.ipynb").exists()


def test_a_process_that_is_killed_ends_no_other_notebook(write):
    """Two notebooks share a pool of processes: the death of one ended `report` with BrokenProcessPool."""
    write("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\n", DRAWS)
    (said,) = notebooks.execute("smoke")
    assert said == "00_n: its process died (killed, or out of memory)"
    assert [kind for output in outputs(1) for kind in output.get("data", ())].count("image/png") == 1
