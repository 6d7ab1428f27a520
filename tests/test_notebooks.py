"""The notebooks: source and pair agree, the cells keep to the rules, and each one runs."""

import ast
import json
import re
import shutil
import tokenize

import jupytext
import matplotlib.pyplot as plt
import nbformat
import pytest

from robustkit import report, store
from robustkit.config import figures_folder, results_folder
from robustkit.report import NOTEBOOKS

SOURCES = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.py"))
EACH = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
# Statements that a notebook may have at all: 00 shows the thing itself; 02 draws one panel a depth.
MAY_LOOP = {"02_width"}
SHOWS_THE_CODE = {"00_perturbation_stability"}

TEXT_AND_PICTURES = {"text/plain", "text/html", "text/markdown", "text/latex", "image/png"}
A_PLACE = re.compile(r"/(?:home|root|Users|work|tmp|content)/|[A-Z]:\\\\")


def problems(notebook):
    """What must not be in a committed notebook."""
    found = [name for name in ("papermill", "widgets") if name in notebook.metadata]
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("kernelspec")
    for cell in notebook.cells:
        found += [f"cell metadata {name}" for name in cell.metadata if name != "tags"]
        for output in cell.get("outputs", ()):
            if output.output_type == "error":
                found.append("error")
            if output.get("name") == "stderr":
                found.append("stderr")
            found += sorted(set(output.get("data", {})) - TEXT_AND_PICTURES)
            words = {kind: value for kind, value in output.get("data", {}).items() if kind != "image/png"}
            text = json.dumps(words) + output.get("text", "")
            if A_PLACE.search(text) or str(NOTEBOOKS.parent) in text:
                found.append("path")
            if re.search(r"<script|javascript:|onload=", text, re.IGNORECASE):
                found.append("script")
    return found


def cells_of(source, kind):
    return [cell for cell in jupytext.read(source).cells if cell.cell_type == kind]


# ---------------------------------------------------------------------------------------------- pairs and outputs


def test_every_source_has_its_pair_and_every_pair_its_source():
    assert [path.stem for path in SOURCES] == sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
    assert [path.with_suffix(".ipynb") for path in SOURCES] == report.notebooks()


@EACH
def test_source_and_pair_hold_the_same_cells(source):
    def content(notebook):
        return [(cell.cell_type, cell.metadata.get("tags", []), cell.source) for cell in notebook.cells]

    assert content(jupytext.read(source)) == content(nbformat.read(source.with_suffix(".ipynb"), as_version=4))


@EACH
def test_the_pair_is_what_building_it_again_gives(source, tmp_path):
    for path in (source, source.with_suffix(".ipynb")):
        shutil.copy(path, tmp_path)
    report.build_notebook(tmp_path / source.name, tmp_path / source.with_suffix(".ipynb").name)
    built = (tmp_path / source.with_suffix(".ipynb").name).read_bytes()
    assert built == source.with_suffix(".ipynb").read_bytes()


@EACH
def test_what_is_committed_holds_text_and_pictures_alone(source):
    assert problems(nbformat.read(source.with_suffix(".ipynb"), as_version=4)) == []


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        (nbformat.v4.new_output("error", ename="E", evalue="no", traceback=[]), "error"),
        (nbformat.v4.new_output("stream", name="stderr", text="careful"), "stderr"),
        (nbformat.v4.new_output("stream", text="read /home/someone/data"), "path"),
        (nbformat.v4.new_output("display_data", {"text/plain": f"'{NOTEBOOKS}'"}), "path"),
        (nbformat.v4.new_output("display_data", {"text/html": "<b><SCRIPT>alert()</SCRIPT>"}), "script"),
        (nbformat.v4.new_output("display_data", {"application/javascript": "alert()"}), "application/javascript"),
        (
            nbformat.v4.new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}}),
            "application/vnd.jupyter.widget-view+json",
        ),
    ],
)
def test_what_must_not_be_committed_is_found(output, problem):
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    notebook.cells = [nbformat.v4.new_code_cell("1", outputs=[output])]
    assert problems(notebook) == [problem]
    notebook.cells[0].outputs = [nbformat.v4.new_output("display_data", {"image/png": "/tmp/", "text/plain": "1"})]
    assert problems(notebook) == []


# ---------------------------------------------------------------------------------------------- what a cell may be


@EACH
def test_it_opens_with_a_title_and_quotes_the_paper(source):
    first = jupytext.read(source).cells[0]
    assert first.cell_type == "markdown"
    assert re.match(r"# \d\. \w", first.source)
    assert source.name.startswith(f"0{first.source[2]}_")
    quotes = [line for cell in cells_of(source, "markdown") for line in cell.source.splitlines() if line[:2] == "> "]
    # The ledger prints its quotes, which are looked for where it runs.
    assert quotes or source.stem == "06_claims"


@EACH
def test_it_has_one_cell_of_parameters_literals_each_with_a_comment(source):
    cell, *others = cells_of(source, "code")
    assert cell.metadata.get("tags") == ["parameters"]
    assert not [other for other in others if other.metadata.get("tags")]
    for line in ast.parse(cell.source).body:
        assert isinstance(line, ast.Assign)
        ast.literal_eval(line.value)
    for line in cell.source.splitlines():
        assert re.fullmatch(r"\w+ = .*\S  # \w.*", line), line
    assert report.parameters_of(source.with_suffix(".ipynb"))["profile"] == "shipped"


@EACH
def test_cells_are_short_and_plain(source):
    if source.stem in SHOWS_THE_CODE:
        return
    for cell in cells_of(source, "code"):
        tokens = tokenize.generate_tokens(iter(cell.source.splitlines(keepends=True)).__next__)
        assert sum(token.type == tokenize.NEWLINE for token in tokens) <= 10, cell.source
        names = {type(node).__name__ for node in ast.walk(ast.parse(cell.source))}
        banned = {"FunctionDef", "AsyncFunctionDef", "ClassDef", "For", "While", "Try"}
        assert not names & (banned - ({"For"} if source.stem in MAY_LOOP else set())), cell.source


def test_the_thing_itself_is_written_in_about_thirty_lines():
    (source,) = [path for path in SOURCES if path.stem in SHOWS_THE_CODE]
    shown = [cell.source for cell in cells_of(source, "code") if re.search(r"^(def|for) ", cell.source, re.MULTILINE)]
    assert 15 <= sum(len([line for line in text.splitlines() if line.strip()]) for text in shown) <= 50


# ---------------------------------------------------------------------------------------------- running them


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """All notebooks on a tiny grid, in folders of their own: (sentences on failures, their copies, figures)."""
    folder = tmp_path_factory.mktemp("executed")
    with pytest.MonkeyPatch.context() as here:
        here.setenv("ROBUSTKIT_RESULTS", str(folder / "results"))
        here.setenv("ROBUSTKIT_FIGURES", str(folder / "figures"))
        here.setattr(store, "SHIPPED", folder / "shipped.jsonl")
        here.setenv("OMP_NUM_THREADS", "1")  # two kernels at a time on two cores
        parameters = {"widths": [16, 32], "seeds": [0, 1], "depths": [2, 4]}
        failed = report.execute("smoke", parameters=parameters, workers=2)
        page = report.write_html("smoke")
        return failed, results_folder() / "notebooks" / "smoke", figures_folder("smoke"), page


def test_every_notebook_runs(executed):
    failed, copies, _, _ = executed
    assert failed == []
    assert sorted(path.stem for path in copies.iterdir()) == [path.stem for path in SOURCES]


def test_each_figure_is_there_as_png_pdf_and_csv_with_the_profile_and_seeds_it_shows(executed):
    _, _, figures, _ = executed
    names = {path.stem for path in figures.glob("*.png")}
    assert {"N1", "N2", "N3", "N4a", "N4b", "N5a", "N5b", "W7"} <= names
    for ending in ("pdf", "csv"):
        assert names <= {path.stem for path in figures.glob(f"*.{ending}")}
    for name in names - {"N1"}:
        said = (figures / f"{name}.csv").read_text().splitlines()[0]
        assert "profile smoke: digits" in said and "seeds 0, 1" in said and "(n = 2" in said, name
    for name in ("N_Table1", "N_Table2", "W7_slopes"):
        assert all((figures / f"{name}.{ending}").stat().st_size for ending in ("md", "tex", "csv")), name


@EACH
def test_a_run_leaves_text_and_pictures_that_can_be_committed(executed, source, tmp_path):
    copy = executed[1] / f"{source.stem}.ipynb"
    shutil.copy(source, tmp_path)
    report.build_notebook(tmp_path / source.name, copy)
    built = nbformat.read(tmp_path / copy.name, as_version=4)
    assert problems(built) == []
    outputs = [output for cell in built.cells for output in cell.get("outputs", ())]
    kept = [output for output in outputs if output.output_type in ("display_data", "execute_result")]
    assert kept
    pictures = sum("image/png" in output.data for output in kept)
    drawing = ("figures.panels(", "interactive.sliders(")
    assert pictures == sum(any(name in cell.source for name in drawing) for cell in built.cells)


def test_the_ledger_quotes_the_paper_and_gives_no_verdict_on_digits(executed):
    cells = nbformat.read(executed[1] / "06_claims.ipynb", as_version=4).cells
    text = "".join(output.data.get("text/markdown", "") for output in cells[-1].outputs)
    assert len(re.findall("^> .+", text, re.MULTILINE)) >= 10
    assert "pipeline check only" in text and "reproduced" not in text


def test_the_html_report_shows_every_notebook_figure_and_table(executed):
    _, _, figures, page = executed
    links = set(re.findall(r'(?:href|src)="([^"]+)"', page.read_text()))
    assert {f"{source.stem}.html" for source in SOURCES} <= links
    assert {f"../{path.name}" for ending in ("png", "pdf", "md") for path in figures.glob(f"*.{ending}")} <= links
    assert {f"../{path.stem}.csv" for path in figures.glob("*.png")} <= links
    assert all((page.parent / link).exists() for link in links)


@EACH
def test_from_an_empty_store_it_says_what_is_missing(source, monkeypatch):
    """Run in this process: what a newcomer sees before any row is shipped."""
    if source.stem in SHOWS_THE_CODE:
        return
    monkeypatch.setattr(store, "SHIPPED", results_folder() / "none.jsonl")
    monkeypatch.setattr(plt.Figure, "savefig", lambda figure, path, **_: path.write_bytes(b""))
    names = {}
    for cell in cells_of(source, "code"):
        exec(compile(cell.source, source.name, "exec"), names)
    plt.close("all")
    said = [path.read_text().splitlines()[0] for path in figures_folder("shipped").glob("*.csv")]
    assert said
    if source.stem != "06_claims":
        assert any("no rows yet" in line and "python -m robustkit run laptop" in line for line in said)
