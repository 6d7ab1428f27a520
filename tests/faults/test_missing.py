"""A seed that is missing, failed or diverged is counted where it is missed, and never part of a mean."""

import signal

import matplotlib.pyplot as plt
import numpy
import pandas
import pytest
import scipy.stats

from robustkit import profiles
from robustkit.__main__ import main
from robustkit.cell import Cell
from robustkit.files import figures_folder
from robustkit.ledger import rows as ledger_rows
from robustkit.plots import curves, output, style, tables
from robustkit.plots import depth as depth_module
from robustkit.plots import width as width_module
from robustkit.sweep import store, train_missing

# Three seeds at each of three widths: at 4 one failed or diverged, at 8 one is missing, at 16 all are.
CELLS = {
    (width, seed): Cell(width=width, depth=2, seed=seed, n_train=64, epochs=2, points=16)
    for width in (4, 8, 16)
    for seed in range(3)
}
BAD, MISSING = (4, 1), [(8, 2), (16, 0), (16, 1), (16, 2)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Every row there could be."""
    with pytest.MonkeyPatch.context() as here:
        here.setenv("ROBUSTKIT_RESULTS", str(tmp_path_factory.mktemp("trained")))
        train_missing.run(list(CELLS.values()), device="cpu")
        return {row["key"]: row for row in store.load_rows()}


@pytest.fixture(params=["diverged", "failed"])
def rows(request, trained):
    """The frame of a store with one bad row and four gaps."""
    for place, cell in CELLS.items():
        row = trained[cell.key]
        if place == BAD:
            row = row | {"status": request.param, "reason": "no luck", "measures": dict.fromkeys(row["measures"])}
        if place not in MISSING:
            store.append(row, store.local_path())
    return train_missing.frame(list(CELLS.values()))


@pytest.fixture(autouse=True)
def as_it_was():
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)  # the command takes it over
    plt.close("all")


def measured(trained, name, width, *seeds):
    return [trained[CELLS[width, seed].key]["measures"][name] for seed in seeds]


@pytest.mark.guard(
    18,
    "robustkit/ledger/rows.py",
    "good = curve[np.isfinite(curve[y].astype(float))]",
    "good = curve.fillna({y: 1.0})",
)
def test_the_mean_at_a_point_is_of_the_sound_seeds_and_their_number_stands_beside_it(rows, trained):
    table = ledger_rows.summarise(rows, x="width", y="stability", by="depth").set_index("width")
    for width, seeds, bad in ((4, (0, 2), 1), (8, (0, 1), 0)):
        values = measured(trained, "stability", width, *seeds)
        assert table.loc[width, "mean"] == pytest.approx(scipy.stats.gmean(values), rel=1e-12)
        assert (table.loc[width, "n"], table.loc[width, "bad"]) == (2, bad)
    assert 16 not in table.index


@pytest.mark.guard(18, "robustkit/plots/output.py", 'words += f"; failed or', 'words += f"" and f"; failed or')
@pytest.mark.guard(
    18,
    "robustkit/plots/output.py",
    'counts = (rows["status"] == "ok").groupby(cells).sum()',
    'counts = rows["status"].groupby(cells).count()',
)
@pytest.mark.guard(18, "robustkit/plots/output.py", "{len(gaps)} of {len(rows) + len(gaps)} runs are missing", "")
def test_a_figure_and_its_numbers_say_what_is_missing_and_how_many_seeds_each_point_has(rows, trained):
    figure, (ax,) = style.panels(1)
    curves.against(rows, ax)
    output.save(figure, "N9", "smoke", rows)
    said = " ".join(figure.get_supxlabel().split())
    assert "(n = 2 per point)" in said
    assert "failed or diverged, and not drawn: 1" in said
    assert "unfinished: 4 of 9 runs are missing; no row yet at m=16 (L=2)" in said
    csv = figures_folder("smoke") / "N9.csv"
    first, *_ = csv.read_text().splitlines()
    assert all(words in first for words in ("(n = 2 per point)", "not drawn: 1", "4 of 9 runs are missing"))
    table = pandas.read_csv(csv, comment="#")
    assert table[["width", "n", "bad"]].to_numpy().tolist() == [[4, 2, 1], [8, 2, 0]]
    (dots,) = [line for line in ax.get_lines() if line.get_label() == "_seeds"]
    assert numpy.isfinite(dots.get_ydata().astype(float)).sum() == 4  # a bad seed is no dot at 0


def test_a_point_whose_every_seed_is_bad_is_named_and_has_no_mean(trained):
    for (width, _), cell in CELLS.items():
        row = trained[cell.key]
        bad = {"status": "diverged", "reason": "no luck", "measures": dict.fromkeys(row["measures"])}
        store.append(row | (bad if width == 8 else {}), store.local_path())
    rows = train_missing.frame(list(CELLS.values()))
    table = ledger_rows.summarise(rows, x="width", y="stability", by="depth").set_index("width")
    assert (table.loc[8, "n"], table.loc[8, "bad"]) == (0, 3) and numpy.isnan(table.loc[8, "mean"])
    said = output.caption(rows, "smoke")
    assert "(n = 0 to 3 per point)" in said and "failed or diverged, and not drawn: 3" in said


@pytest.mark.guard(
    18,
    "robustkit/plots/curves.py",
    'else EVALUATION_POINTS\n    good = rows[rows["status"] == "ok"]',
    "else EVALUATION_POINTS\n    good = rows",
)
def test_a_curve_over_time_is_of_the_sound_seeds_alone(rows, trained):
    _, (ax,) = style.panels(1)
    curves.over_time(rows, ax)
    table = pandas.concat(ax.robustkit_tables)
    for width, seeds in ((4, (0, 2)), (8, (0, 1))):
        expected = numpy.mean(measured(trained, "kappa_over_time", width, *seeds), axis=0)
        curve = table[table["width"] == width]
        assert curve["mean"].to_numpy() == pytest.approx(expected, rel=1e-12) and set(curve["n"]) == {2}


@pytest.mark.guard(18, "robustkit/plots/output.py", "{len(gaps)} runs missing ({command})", "")
def test_an_empty_store_is_said_in_every_figure_with_the_command_that_fills_it():
    rows = train_missing.frame(list(CELLS.values()))
    assert rows.attrs["missing"] == list(CELLS.values())
    figure, axes = style.panels(3)
    curves.against(rows, axes[0])
    curves.over_time(rows, axes[1])
    width_module.bounds(rows, axes[2], init="he", depth=2)
    depth_module.bounds_in_depth(rows, axes[2], init="he")
    curves.mark_transitions(rows, axes[0])
    style.one_legend(figure, axes)
    assert len(tables.slopes(rows, {"end": 6})) == 0
    for ax in axes[:2]:
        assert "no rows yet" in [text.get_text() for text in ax.texts]
    for profile, trains in (("shipped", "laptop"), ("smoke", "smoke")):
        output.save(figure, "empty", profile, rows)
        assert f"no rows yet, 9 runs missing (python -m robustkit run {trains})" in " ".join(
            figure.get_supxlabel().split()
        )
        assert (figures_folder(profile) / "empty.png").exists()


def test_the_command_that_the_caption_names_leaves_nothing_missing(monkeypatch, capsys):
    """On a grid of two runs in place of the whole profile."""
    monkeypatch.setitem(profiles.SETTINGS, "smoke", {"dataset": "digits", "epochs": 1, "points": 16})
    few = {"widths": [16], "seeds": [0], "depths": [2]}
    cells = profiles.grid("N2", "smoke", **few)
    said = output.caption(train_missing.frame(cells), "smoke")
    command = said.partition("(python -m robustkit ")[2].rstrip(")").split()
    for name in ("CONTROLS", "REPEATED"):
        monkeypatch.setattr(profiles, name, {})
    monkeypatch.setattr("robustkit.__main__.REPEATED", {})
    options = [word for name, values in few.items() for word in (f"--{name}", *map(str, values))]
    assert main([*command, *options, "--device", "cpu", "--workers", "1"]) == 0
    rows = train_missing.frame(cells)
    assert rows.attrs["missing"] == [] and (rows["status"] == "ok").all()
    assert "missing" not in output.caption(rows, "smoke")
