"""Sliders in a live notebook, a picture on a page; and pictures that show what the formulas say."""

import json

import matplotlib.pyplot as plt
import nbclient
import nbformat
import numpy as np
import pytest

from robustkit import interactive

CELL = """\
from robustkit import interactive
interactive.sliders(interactive.theorem1_in_width, {"init": "he", "depth": 4}, init=["he", "ntk"], depth=[2, 4])
"""


@pytest.fixture(autouse=True)
def static(monkeypatch):
    monkeypatch.setenv("ROBUSTKIT_STATIC", "1")
    yield
    plt.close("all")


def drawn() -> dict[str, tuple]:
    """Points of each line of the picture, by its name."""
    (ax,) = plt.gcf().axes
    return {line.get_label(): line.get_data() for line in ax.get_lines()}


def executed():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    return nbclient.NotebookClient(notebook, kernel_name="python3").execute()


def test_a_page_shows_the_picture_alone():
    notebook = executed()
    (output,) = notebook.cells[0].outputs
    assert "image/png" in output["data"]
    assert "widget" not in json.dumps(notebook)


def test_a_live_notebook_shows_two_sliders_and_the_picture_under_them(monkeypatch):
    monkeypatch.delenv("ROBUSTKIT_STATIC")
    notebook = executed()
    assert "application/vnd.jupyter.widget-view+json" in notebook.cells[0].outputs[0]["data"]
    state = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"].values()
    sliders = [part["state"] for part in state if part["model_name"] == "SelectionSliderModel"]
    assert [(s["description"], s["_options_labels"][s["index"]]) for s in sliders] == [("init", "he"), ("depth", "4")]
    assert "image/png" in json.dumps(notebook.metadata.widgets)


@pytest.mark.parametrize("init", ["lecun", "he", "ntk"])
def test_the_bound_is_its_two_terms_and_the_first_is_largest_at_half_of_the_depth_cubed(init):
    interactive.sliders(interactive.theorem1_in_width, {"init": init, "depth": 10}, init=["he"], depth=[10])
    lines = drawn()
    widths, first = lines["its first term"]
    np.testing.assert_allclose(lines["the bound"][1], first + lines["its second term"][1])
    assert widths[first.argmax()] == pytest.approx(500, rel=0.1)  # widths are 8 % apart
    assert (lines["exact at initialisation"][1] <= lines["the bound"][1]).all()


def test_without_training_lecun_halves_every_two_layers_and_the_printed_bound_rises_first():
    interactive.table1_in_depth("lecun", 256)
    lines = drawn()
    exact = lines["exact at initialisation"][1]
    assert exact[2] / exact[0] == pytest.approx(0.5, rel=0.01)
    bound = lines["NeurIPS"][1]
    assert max(bound) > 5 * bound[0] > 5 * bound[-1]


def test_the_first_term_of_theorem_3_is_the_larger_one_from_n_cubed_on():
    interactive.theorem3_in_width(8, 1.5)
    lines = drawn()
    m, first = lines["its first term"]
    second = lines["its second term, the Remark's"][1]
    assert ((first > second) == (m > 8**3)).all()
    np.testing.assert_allclose(lines["Eq. (4)"][1], first + second)
    shape = lines["$m^{1-2c}$"][1]
    np.testing.assert_allclose(shape[1:] / shape[:-1], (m[:-1] / m[1:]) ** 2)
