"""What is committed: notebooks built from their sources, and shipped rows."""

import dataclasses
import re
import subprocess
import sys
import threading
import time

import nbformat
import numpy
import psutil
import pytest

from robustkit.cell import Cell, InputError, key_of, without_added
from robustkit.datasets import dataset_info
from robustkit.report import notebooks as report
from robustkit.report import ship
from robustkit.sweep import store
from robustkit.training.measures import MEASURES

SOURCE = """# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A title

# %% tags=["parameters"]
profile = "shipped"  # which rows
width = 64  # of the network
seeds = None  # a list, or the profile's

# %%
width + 1

# %%
print(profile)
"""


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "07_short.py"
    path.write_text(SOURCE)
    report.build_notebook(path, path.with_suffix(".ipynb"))
    return path


def with_outputs(path):
    """A copy of a notebook as papermill leaves it: run, with a cell of parameters put in and notes of its own."""
    notebook = nbformat.read(path, as_version=4)
    cells = notebook.cells
    result = {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"}
    cells[2].outputs = [nbformat.v4.new_output("execute_result", result, metadata={"needs": "x"}, execution_count=3)]
    cells[3].outputs = [nbformat.v4.new_output("stream", text="shipped\n")]
    for cell in cells[2:]:
        cell.metadata["papermill"] = {"duration": 0.1}
        cell.metadata["execution"] = {"iopub.execute_input": "2022-11-28"}
    given = nbformat.v4.new_code_cell("profile = 'smoke'", metadata={"tags": ["injected-parameters"]})
    notebook.cells = [*cells[:2], given, *cells[2:]]
    for number, cell in enumerate(notebook.cells[1:], 1):
        cell.execution_count = number
    notebook.metadata["papermill"] = {"output_path": "/somewhere"}
    notebook.metadata["widgets"] = {"state": {}}
    copy = path.with_name(f"run_{path.name}")
    nbformat.write(notebook, copy)
    return copy


# ---------------------------------------------------------------------------------------------- notebooks


def test_notebooks_come_in_order_and_by_number():
    numbers = [path.name[:2] for path in report.notebooks()]
    assert numbers == sorted(numbers) and numbers[0] == "00"
    assert [path.name[:2] for path in report.notebooks(["02", "00"])] == ["00", "02"]
    with pytest.raises(InputError, match="--only is '0x'"):
        report.notebooks(["02", "0x"])


def test_parameters_are_the_literals_of_the_tagged_cell(source):
    assert report.parameters_of(source.with_suffix(".ipynb")) == {"profile": "shipped", "width": 64, "seeds": None}


def test_each_notebook_is_given_the_parameters_that_it_has():
    first, *others = report.notebooks()
    given = report.check_parameters([first, *others], {"profile": "smoke", "width": 8, "widths": [4], "seeds": None})
    assert given[first] == {"profile": "smoke", "width": 8}
    for path in others:
        assert given[path] == {"profile": "smoke", "widths": [4], "seeds": None}


def test_a_parameter_counts_only_if_a_chosen_notebook_has_it():
    with pytest.raises(InputError, match="'width'.*did you mean 'widths'"):
        report.check_parameters(report.notebooks(["02"]), {"width": 8})


def test_outputs_of_unchanged_cells_are_kept_and_nothing_of_the_run_that_made_them(source):
    report.build_notebook(source, with_outputs(source.with_suffix(".ipynb")))
    text = source.with_suffix(".ipynb").read_text()
    built = nbformat.reads(text, as_version=4)
    assert [cell.source for cell in built.cells[1:]] == [
        part.split("\n", 1)[1].strip() for part in SOURCE.split("# %%")[2:]
    ]
    assert built.cells[2].outputs[0]["data"] == {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"}
    assert built.cells[3].outputs[0]["text"] == "shipped\n"
    assert [cell.execution_count for cell in built.cells[1:]] == [1, 2, 3]  # papermill's numbers: 1, 3, 4
    assert built.cells[2].outputs[0]["execution_count"] == 2
    assert not re.search(r"papermill|widgets|iopub|somewhere|needs|injected", text)
    assert built.metadata["kernelspec"] == {"display_name": "Python 3", "language": "python", "name": "python3"}


def test_outputs_of_a_changed_cell_are_dropped(source):
    target = source.with_suffix(".ipynb")
    report.build_notebook(source, with_outputs(target))
    source.write_text(SOURCE.replace("width + 1", "width + 2"))
    report.build_notebook(source, target)
    built = nbformat.read(target, as_version=4)
    assert built.cells[2].source == "width + 2" and built.cells[2].outputs == []
    assert built.cells[3].outputs[0]["text"] == "shipped\n"


def test_building_twice_gives_the_same_bytes(source):
    target = source.with_suffix(".ipynb")
    empty = target.read_bytes()
    target.unlink()
    report.build_notebook(source, target)
    assert target.read_bytes() == empty
    executed = with_outputs(target)
    report.build_notebook(source, executed)
    full = target.read_bytes()
    report.build_notebook(source, executed)
    assert target.read_bytes() == full
    report.build_notebook(source, target)
    assert target.read_bytes() == full != empty


WAITS = """# %% tags=["parameters"]
profile = "shipped"

# %%
import pathlib, time

pathlib.Path("{started}").touch()
time.sleep(60)
"""


def test_a_signal_ends_the_notebooks_that_are_running(tmp_path):
    source, started = tmp_path / "07_waits.py", tmp_path / "started"
    source.write_text(WAITS.format(started=started))
    report.build_notebook(source, source.with_suffix(".ipynb"))
    code = f"""
import pathlib, sys
from robustkit.__main__ import main
from robustkit.report import notebooks
notebooks.NOTEBOOKS = pathlib.Path({str(tmp_path)!r})
sys.exit(main(["report", "smoke"]))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    give_up = time.monotonic() + 300
    while not started.exists() and time.monotonic() < give_up:
        time.sleep(0.05)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 2  # a worker and its kernel
    process.terminate()
    _, said = process.communicate(timeout=300)
    assert process.returncode == 143 and "the same command resumes" in said
    _, alive = psutil.wait_procs(family, timeout=60)
    assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []


def test_the_readme_takes_its_answer_from_what_was_written(tmp_path):
    readme, said = tmp_path / "README.md", "- **Width.** P is 2 [1, 3].\n"
    readme.write_text("before\n<!-- answer -->\nold\n<!-- /answer -->\nafter\n")
    (tmp_path / "answer.md").write_text(said)
    for _ in range(2):
        ship.write_answer(readme, tmp_path)
        assert readme.read_text() == f"before\n<!-- answer -->\n{said}<!-- /answer -->\nafter\n"


# ---------------------------------------------------------------------------------------------- shipped rows


def row(width=16, seed=0, stability=0.5, dataset="mnist", **changes):
    cell = Cell(width=width, depth=2, seed=seed, dataset=dataset)
    measured = {
        "key": cell.key,
        "status": "ok",
        "cell": dataclasses.asdict(cell),
        "reason": None,
        "measures": dict.fromkeys(MEASURES) | {"stability": stability},
        "engine": {"name": "loop", "device": "cpu", "vectors": "AVX2"},
        "versions": {"torch": "2.13.0"},
        "seconds": 1.0,
    }
    return measured | changes


ROWS = [row(width, seed, width + seed / 3) for width in (16, 128, 1024) for seed in range(3)]


def write(path, rows):
    for one in rows:
        store.append(one, path)
    return path


def test_shipped_rows_are_sorted_whatever_their_order_and_the_second_time_nothing_changes(tmp_path):
    shuffled = [ROWS[i] for i in numpy.random.default_rng(0).permutation(len(ROWS))]
    write(store.local_path(), shuffled)
    assert ship.ship_rows([]) == (len(ROWS), [])
    content = store.SHIPPED.read_bytes()
    shown = [(row["cell"]["width"], row["cell"]["seed"]) for row in store.read_rows(store.SHIPPED)]
    assert shown == [(width, seed) for width in (16, 128, 1024) for seed in range(3)]
    assert ship.ship_rows([]) == (0, [])
    assert store.SHIPPED.read_bytes() == content

    store.SHIPPED.unlink()
    for part in (ROWS[4:], ROWS[:5]):  # from two other machines, with a row in common
        ship.ship_rows([write(tmp_path / f"{len(part)}.jsonl", part)])
    assert store.SHIPPED.read_bytes() == content


def test_rows_brought_from_elsewhere_are_shipped_without_touching_the_local_ones(tmp_path):
    write(store.local_path(), ROWS[:1])
    before = store.local_path().read_bytes()
    files = [write(tmp_path / "a.jsonl", ROWS[1:3]), write(tmp_path / "b.jsonl", ROWS[3:4])]
    assert ship.ship_rows(files) == (3, [])
    assert {row["key"] for row in store.read_rows(store.SHIPPED)} == {row["key"] for row in ROWS[1:4]}
    assert store.local_path().read_bytes() == before


def test_smoke_rows_and_failed_rows_are_never_shipped():
    others = [row(dataset="digits"), row(64, status="failed", stability=None), row(32, status="diverged")]
    write(store.local_path(), [*others, ROWS[0]])
    assert ship.ship_rows([]) == (2, [])
    shipped = store.read_rows(store.SHIPPED)
    assert [(r["cell"]["dataset"], r["cell"]["width"], r["status"]) for r in shipped] == [
        ("mnist", 16, "ok"),
        ("mnist", 32, "diverged"),
    ]


def test_a_conflict_leaves_the_shipped_file_untouched(tmp_path):
    ship.ship_rows([write(tmp_path / "first.jsonl", ROWS[:2])])
    before = store.SHIPPED.read_bytes()
    other = write(tmp_path / "second.jsonl", [ROWS[5], row(16, 1, stability=99.0)])
    with pytest.raises(store.ConflictError, match="99.0"):
        ship.ship_rows([other])
    assert store.SHIPPED.read_bytes() == before


def test_another_engine_is_noted_and_the_shipped_row_stays(tmp_path):
    ship.ship_rows([write(tmp_path / "first.jsonl", ROWS[:2])])
    before = store.SHIPPED.read_bytes()
    other = write(tmp_path / "second.jsonl", [row(16, 1, stability=99.0, versions={"torch": "9.9"})])
    new, (note,) = ship.ship_rows([other])
    assert new == 0 and "99.0" in note
    assert store.SHIPPED.read_bytes() == before


def test_a_damaged_row_of_a_brought_file_is_named_and_the_others_are_shipped(tmp_path):
    path = write(tmp_path / "brought.jsonl", ROWS[:3])
    first, second, third = path.read_text().splitlines(keepends=True)
    path.write_text(first + second.replace("128", "256").replace('"seed": 1', '"seed": 2') + third)
    with pytest.warns(UserWarning, match="line 2"):
        assert ship.ship_rows([path])[0] == 2
    assert [row["cell"]["seed"] for row in store.read_rows(store.SHIPPED)] == [0, 2]


def test_a_file_that_is_not_there_is_refused_and_nothing_written(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        ship.ship_rows([write(tmp_path / "there.jsonl", ROWS), tmp_path / "not_there.jsonl"])
    assert not store.SHIPPED.exists()


def test_a_conflict_names_both_files_and_lines(tmp_path):
    """Nobody could tell which of the rows to delete, or where it was."""
    ship.ship_rows([write(tmp_path / "first.jsonl", ROWS[:2])])
    other = write(tmp_path / "second.jsonl", [ROWS[5], row(16, 1, stability=99.0)])
    with pytest.raises(store.ConflictError, match="delete the line that is wrong") as said:
        ship.ship_rows([other])
    assert f"{store.SHIPPED}, line 2 and {other}, line 2" in str(said.value)


FORGED = [{"scaling": "<script>"}, {"depth": 1}, {"batch_size": 10**9}, {"init": "power"}, {"another": 1}]


@pytest.mark.parametrize("fields", FORGED, ids=str)
def test_a_row_whose_cell_cannot_be_is_named_and_not_shipped(tmp_path, fields):
    """Its key fits, as it is made from the same fields."""
    cell = ROWS[0]["cell"] | fields
    forged = ROWS[0] | {"cell": cell, "key": key_of(without_added(cell), dataset_info("mnist").sha256, 1)}
    path = write(tmp_path / "brought.jsonl", [ROWS[1], forged, ROWS[2]])
    new, (note,) = ship.ship_rows([path])
    assert new == 2 and f"{path}, line 2 is left out" in note
    assert {row["key"] for row in store.read_rows(store.SHIPPED)} == {row["key"] for row in ROWS[1:3]}


def test_two_that_ship_at_once_lose_no_row(tmp_path, monkeypatch):
    """Each wrote what it had read before the other wrote."""
    files = [write(tmp_path / f"{number}.jsonl", ROWS[number : number + 1]) for number in range(2)]
    write_whole = ship.write_atomically

    def slowly(*words):
        time.sleep(0.5)  # both have read by now, if nothing keeps them from it
        write_whole(*words)

    monkeypatch.setattr(ship, "write_atomically", slowly)
    both = [threading.Thread(target=ship.ship_rows, args=([path],)) for path in files]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert {row["key"] for row in store.read_rows(store.SHIPPED)} == {row["key"] for row in ROWS[:2]}
