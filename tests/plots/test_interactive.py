"""Sliders in a live notebook, a picture on a page; what the pictures show; a network of one's own."""

import json
from dataclasses import asdict

import matplotlib.pyplot as plt
import nbclient
import nbformat
import numpy as np
import pytest

from robustkit import Cell, InputError
from robustkit.data import MNIST_FILES
from robustkit.plots import interactive, style
from robustkit.profiles import SETTINGS, SHORT
from robustkit.sweep import store

SLIDERS = """\
interactive.sliders(interactive.theorem1_in_width, {"init": "he", "depth": 4}, init=["he", "ntk"], depth=[2, 4])
"""
LIVE = 'import os\nfrom robustkit.plots import interactive\nos.environ.pop("ROBUSTKIT_STATIC", None)\n'
ON_A_PAGE = 'os.environ["ROBUSTKIT_STATIC"] = "1"\n'


@pytest.fixture(autouse=True)
def static(monkeypatch):
    monkeypatch.setenv("ROBUSTKIT_STATIC", "1")
    yield
    plt.close("all")


def drawn() -> dict[str, tuple]:
    """Points of each line of the picture, by its name."""
    (ax,) = plt.gcf().axes
    return {line.get_label(): line.get_data() for line in ax.get_lines()}


@pytest.fixture(scope="module")
def executed():
    """One kernel that shows the sliders live, and then as on a page."""
    cells = [nbformat.v4.new_code_cell(source) for source in (LIVE, SLIDERS, ON_A_PAGE + SLIDERS)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    # Without a timeout, nbclient may sleep over the kernel's reply for ever: what it sends on the same socket, while
    # it waits there, the state of a widget, uses up the signal that a reply has come. At a timeout it looks again.
    return nbclient.NotebookClient(notebook, kernel_name="python3", startup_timeout=200, timeout=200).execute()


def test_a_page_shows_the_picture_alone(executed):
    (output,) = executed.cells[2].outputs
    assert "image/png" in output["data"] and "widget" not in json.dumps(output)


def test_a_live_notebook_shows_two_sliders_and_the_picture_under_them(executed):
    assert "application/vnd.jupyter.widget-view+json" in executed.cells[1].outputs[0]["data"]
    state = executed.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"].values()
    sliders = [part["state"] for part in state if part["model_name"] == "SelectionSliderModel"]
    assert [(s["description"], s["_options_labels"][s["index"]]) for s in sliders] == [("init", "he"), ("depth", "4")]
    assert "image/png" in json.dumps(executed.metadata.widgets)


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


# ---------------------------------------------------------------------------------------------- your turn

AMONG = {"width": [8, 16], "depth": [2], "seed": [0, 1]}


@pytest.fixture
def live(monkeypatch):
    """At the keyboard, where networks are trained."""
    monkeypatch.delenv("ROBUSTKIT_STATIC")


def shown(rows, **choices):
    """The axes and the words below a picture of `your_turn`."""
    figure, (ax,) = style.panels(1)
    interactive.show_yours(rows, ax, **choices)
    return ax, figure.get_supxlabel().replace("\n", " ")


def test_a_network_of_ones_own_is_trained_once_and_shown_among_others_that_are_alike(live):
    rows = interactive.your_turn(width=12, depth=3, init="lecun", scaling="unit", among=AMONG)
    stored = store.local_path().read_bytes()
    again = interactive.your_turn(width=12, depth=3, init="lecun", scaling="unit", among=AMONG)
    assert store.local_path().read_bytes() == stored and stored.count(b"\n") == 5
    assert rows["stability"].tolist() == again["stability"].tolist()
    assert rows[["width", "depth", "seed", "yours"]].values.tolist() == [
        [12, 3, 0, True], *([m, 2, s, False] for m in (8, 16) for s in (0, 1))
    ]  # fmt: skip
    assert set(rows["dataset"]) == {"digits"} and set(rows["scaling"]) == {"unit"} and set(rows["init"]) == {"lecun"}


def test_the_picture_marks_ones_own_network_and_says_what_the_others_are(live):
    rows = interactive.your_turn(width=12, depth=3, among=AMONG)
    ax, words = shown(rows)
    (star,) = (line for line in ax.get_lines() if line.get_marker() == "*")
    assert star.get_data() == ([12], [rows["stability"].iloc[0]])
    curve = next(line for line in ax.get_lines() if line.get_label() == "$L$ = 2")
    means = rows[~rows["yours"]].groupby("width")["stability"].prod() ** 0.5
    np.testing.assert_allclose(curve.get_ydata(), means)
    assert words.startswith(
        "Star: yours, He, width 12, depth 3, seed 0. The others differ from it in width, depth or"
    )
    assert (
        "seed alone: digits, raw scaling, 50 epochs at learning rate 0.04" in words and "(n = 2 per point)" in words
    )
    assert f"yours: {rows['stability'].iloc[0]:.4g}" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_a_network_that_diverged_has_no_star_and_the_words_say_why(live):
    rows = interactive.your_turn(width=8, depth=2, init="power", power=-30, among={"power": [1.0], "seed": [0]})
    ax, words = shown(rows, by="power")
    (star,) = (line for line in ax.get_lines() if line.get_marker() == "*")
    assert np.isnan(star.get_ydata()).all()
    assert "which diverged and is not drawn: the training loss is" in words


def test_in_a_report_it_shows_what_the_store_holds_and_trains_nothing(live, monkeypatch):
    interactive.your_turn(width=8, depth=2, among=AMONG)
    stored = store.local_path().read_bytes()
    monkeypatch.setenv("ROBUSTKIT_STATIC", "1")
    rows = interactive.your_turn(width=12, depth=2, among=AMONG)
    ax, words = shown(rows)
    assert (
        words.startswith("Star: yours, which has no row yet: run this cell. The others differ") and "n = 2" in words
    )
    assert "no rows yet" in shown(interactive.your_turn(width=12, depth=3, init="ntk", among=AMONG))[1]
    assert store.local_path().read_bytes() == stored


def test_what_is_no_network_is_refused_before_anything_is_trained():
    with pytest.raises(InputError, match="init is 'lecum', but must be .*; did you mean 'lecun'"):
        interactive.your_turn(width=8, depth=2, init="lecum", among=AMONG)
    with pytest.raises(InputError, match="dataset is 'minst', .* did you mean 'mnist'"):
        interactive.your_turn("minst", width=8, depth=2, among=AMONG)
    assert not store.local_path().exists()


def test_mnist_is_never_downloaded_unasked(monkeypatch, tmp_path):
    monkeypatch.setenv("ROBUSTKIT_DATA", str(tmp_path / "data"))
    with pytest.raises(InputError, match="its files are not in .* and nothing is downloaded here"):
        interactive.your_turn("mnist", width=8, depth=2, among=AMONG)
    assert not (tmp_path / "data").exists()


def test_a_network_on_mnist_stands_among_the_rows_there_are_and_trains_no_other(live, monkeypatch, tmp_path):
    monkeypatch.setenv("ROBUSTKIT_DATA", str(tmp_path))
    for name in MNIST_FILES:  # empty: reading them would raise
        (tmp_path / "MNIST" / "raw").mkdir(parents=True, exist_ok=True)
        (tmp_path / "MNIST" / "raw" / name).touch()
    interactive.your_turn(width=8, depth=2, among={"seed": [0]})
    (row,) = store.load_rows()
    alike = SETTINGS["laptop"] | SHORT
    known = [
        *(Cell(width=m, depth=L, **alike) for m, L in ((8, 2), (16, 2), (16, 4))),
        Cell(width=32, depth=2, **alike | {"scaling": "unit"}),
        Cell(width=64, depth=2, **SETTINGS["laptop"]),
    ]
    for cell in known:
        store.append(row | {"key": cell.key, "cell": asdict(cell)})
    rows = interactive.your_turn("mnist", width=8, depth=2, among=AMONG)
    assert rows[["width", "depth", "yours"]].values.tolist() == [[8, 2, True], [16, 2, False], [16, 4, False]]
    assert "mnist, raw scaling, short schedule" in shown(rows)[1]
    alone = interactive.your_turn("mnist", width=32, depth=2, scaling="unit", among=AMONG)
    assert "No row differs from it in width, depth or seed alone: mnist, unit scaling" in shown(alone)[1]
    seeds = interactive.your_turn("mnist", width=32, depth=2, scaling="unit", among={"seed": [1]})
    assert "No row differs from it in seed alone: mnist" in shown(seeds)[1]
