"""Figures: every seed counted, every gap named, and no file rewritten without new numbers."""

import os

import matplotlib.image
import matplotlib.pyplot as plt
import numpy
import pandas
import pytest
import scipy.stats
from made_rows import a_frame, a_row
from matplotlib.colors import to_rgb

from robustkit import theory
from robustkit.cell import INITS, Cell
from robustkit.files import figures_folder
from robustkit.ledger import rows as ledger_rows
from robustkit.plots import curves, figure_1, output, style, tables
from robustkit.plots import width as width_module


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


VALUES = {16: [1.0, 2.0, 4.0], 32: [0.5, 0.7], 64: [3.0]}


def several(depths=(2, 4), **options):
    rows = [
        a_row(value * depth, width=width, depth=depth, seed=seed)
        for depth in depths
        for width, values in VALUES.items()
        for seed, value in enumerate(values)
    ]
    return a_frame(*rows, **options)


# ---------------------------------------------------------------------------------------------- numbers


def test_the_band_of_one_point_is_the_t_interval_of_the_logs():
    values = numpy.array([0.8, 1.1, 1.9, 0.7, 1.3])
    rows = a_frame(*(a_row(value, width=16, seed=seed) for seed, value in enumerate(values)))
    (found,) = ledger_rows.summarise(rows, x="width", y="stability", by="depth").itertuples()
    logs = numpy.log(values)
    low, high = scipy.stats.t.interval(0.95, 4, logs.mean(), scipy.stats.sem(logs))
    assert (found.depth, found.width, found.n, found.bad) == (2, 16, 5, 0)
    assert numpy.log([found.mean, found.low, found.high]) == pytest.approx([logs.mean(), low, high], rel=1e-12)


def test_the_spread_of_a_curve_is_pooled_over_its_points_and_not_over_curves():
    table = ledger_rows.summarise(several(), x="width", y="stability", by="depth")
    assert list(table["depth"]) == [2, 2, 2, 4, 4, 4] and list(table["width"]) == [16, 32, 64] * 2
    assert list(table["n"]) == [3, 2, 1] * 2
    logs = [numpy.log(values) for values in VALUES.values()]
    residuals = numpy.concatenate([values - values.mean() for values in logs])
    spread = numpy.sqrt(residuals @ residuals / 3)  # 6 values, 3 means
    half = scipy.stats.t.ppf(0.975, 3) * spread / numpy.sqrt([3, 2, 1])
    for depth, curve in table.groupby("depth"):
        means = [values.mean() + numpy.log(depth) for values in logs]
        assert numpy.log(curve["mean"]).to_numpy() == pytest.approx(means, rel=1e-12)
        assert numpy.log(curve["high"] / curve["low"]).to_numpy() == pytest.approx(2 * half, rel=1e-9)


def test_slopes_of_a_power_law_are_its_exponents():
    rows = [
        a_row(factor * width**-power, width=width, seed=seed, init="power", power=power)
        for power in (2.0, 3.0)
        for width in (16, 32, 64)
        for seed, factor in enumerate((1.0, 1.1))
    ]
    table = tables.slopes(a_frame(*rows), {"early": 1, "end": 6})
    assert list(table.columns) == ["c", "early", "end"] and list(table["c"]) == [2.0, 3.0]
    for row in table.itertuples():
        for text in (row.early, row.end):
            estimate, low, high = (float(part) for part in text.translate(str.maketrans("[],", "   ")).split())
            assert estimate == -row.c and low < estimate < high


# ---------------------------------------------------------------------------------------------- drawings


def drawn(ax, label):
    (line,) = [line for line in ax.get_lines() if line.get_label() == label]
    return line.get_xydata().T


def test_each_depth_is_a_curve_of_geometric_means_with_every_seed_as_a_dot():
    _, (ax,) = style.panels(1)
    curves.against(several(), ax)
    for depth in (2, 4):
        widths, means = drawn(ax, f"$L$ = {depth}")
        assert list(widths) == [16, 32, 64]
        assert means == pytest.approx([scipy.stats.gmean(values) * depth for values in VALUES.values()], rel=1e-12)
    dots = [line for line in ax.get_lines() if line.get_label() == "_seeds"]
    assert [len(line.get_xdata()) for line in dots] == [6, 6]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert "width" in ax.get_xlabel() and "stability" in ax.get_ylabel()


def test_a_depth_has_the_same_colour_and_marker_whatever_else_is_drawn():
    _, (left, right) = style.panels(2)
    curves.against(several(), left)
    curves.against(several(depths=(4, 10)), right)
    (one,), (other,) = ([line for line in ax.get_lines() if line.get_label() == "$L$ = 4"] for ax in (left, right))
    assert (one.get_color(), one.get_marker()) == (other.get_color(), other.get_marker())


def test_values_have_looks_of_their_own_and_unknown_ones_are_grey():
    values = {
        "depth": (2, 4, 6, 8, 10),
        "width": [2**k for k in range(4, 16)],
        "power": (1, 1.5, 2, 3),
        "init": INITS,
    }
    for by, known in values.items():
        looks = [style.look(by, value) for value in known]
        assert len({to_rgb(look["color"]) for look in looks}) == len(known)
        assert len({tuple(look.values()) for look in looks}) == len(known)
    named = style.look("curve", "LeCun, $L$ = 6")
    assert named == style.look("init", "lecun") | {"marker": style.look("depth", 6)["marker"]}
    assert style.look("init", "orthogonal")["color"] == "0.4" and style.label("init", "orthogonal") == "orthogonal"


def test_a_quantity_over_time_runs_from_the_first_epoch_to_the_last():
    _, (left, right) = style.panels(2)
    rows = a_frame(a_row(2.0, width=16), a_row(5.0, width=32))
    curves.over_time(rows, left)
    epochs, values = drawn(left, "$m$ = 32")
    assert (epochs[0], epochs[-1]) == (0, 50) and values == pytest.approx(5.0 * numpy.arange(51), rel=1e-12)
    curves.over_time(rows, right, y="stability_over_time")
    epochs, values = drawn(right, "$m$ = 16")
    assert list(epochs) == [0, 1, 2.5, 5, 10, 25, 50] and list(values) == [2, 4, 6, 8, 10, 12, 14]


def test_bounds_are_black_lines_of_the_three_printed_forms_and_the_exact_value():
    _, (ax,) = style.panels(1)
    width_module.bounds(several(), ax, init="he", depth=4)
    shape = {"width": 64, "depth": 4, "d_in": 64, "d_out": 10}
    exact = theory.stability_at_init("he", **shape)
    printed = [theory.theorem1("he", version=version, **shape) for version in ("neurips", "workshop", "proof")]
    lines = ax.get_lines()
    assert {line.get_color() for line in lines} == {"black"}
    assert sorted(line.get_ydata()[-1] for line in lines) == pytest.approx(sorted([exact, *printed]), rel=1e-12)
    assert all((line.get_xdata()[0], line.get_xdata()[-1]) == (16, 64) for line in lines)
    assert len({line.get_linestyle() for line in lines}) == 4  # told apart in print


def test_transitions_are_marked_at_the_interpolation_width_and_at_the_peak_of_the_bound():
    _, (ax,) = style.panels(1)
    rows = several()
    curves.against(rows, ax)
    curves.mark_transitions(rows, ax)
    marks = [line for line in ax.get_lines() if line.get_label() == "_mark"]
    marks = {(line.get_marker(), round(float(line.get_xdata()[0]), 6)) for line in marks}
    crossings = {theory.interpolation_width(depth, d_in=64, d_out=10, n=1437) for depth in (2, 4)}
    low, high = ax.get_xlim()
    assert marks == {("|", round(at, 6)) for at in crossings if low <= at <= high} | {("^", 32.0)}


def test_the_caption_says_what_is_shown_and_what_is_missing():
    complete = output.caption(several(), "smoke")
    for words in ("smoke", "digits", "raw", "full schedule", "cross-entropy", "seeds 0, 1, 2", "256 test points"):
        assert words in complete
    assert "n = 1 to 3" in complete
    assert "missing" not in complete and "diverged" not in complete
    gaps = [Cell(width=128, depth=4), Cell(width=128, depth=4, seed=1), Cell(width=64, depth=2, seed=1)]
    partial = output.caption(several(missing=gaps), "smoke")
    assert "unfinished: 3 of 15 runs are missing" in partial
    assert "128" in partial and "L=4" in partial and "L=2" not in partial
    others = output.caption(several(missing=[Cell(width=16, depth=2, init="ntk")]), "smoke")
    assert "no row yet at m=16 (NTK L=2)" in others  # He has rows there
    rates = [a_row(1.0, width=16), a_row(1.0, width=16, lr=0.5)]
    gaps = [Cell(width=16, depth=6, lr=0.5), Cell(width=32, depth=6, lr=0.5)]
    mixed = output.caption(a_frame(*rates, missing=gaps), "smoke")
    assert "no row yet at fcn, learning rate 0.5 (m=16 in part, m=32)" in mixed
    diverged = output.caption(
        a_frame(a_row(1.0, width=16), a_row(None, width=16, seed=1, status="diverged")), "smoke"
    )
    assert "failed or diverged, and not drawn: 1" in diverged
    assert output.caption(None, "smoke") == "a drawing, no data"


def test_the_caption_says_how_many_points_were_used_where_more_were_asked_for():
    """Figures of runs on digits, which have 360 test points, said that they show a thousand."""
    rows = several()
    rows["points"] = 1000
    assert "360 test points" in output.caption(rows, "smoke")
    rows["dataset"] = "no longer there.npz"
    assert "1000 test points" in output.caption(rows, "smoke")


def test_the_caption_of_a_further_measure_counts_its_own_points():
    rows = several()
    rows.attrs["points"] = [100]
    assert "100 test points" in output.caption(rows, "smoke") and "256" not in output.caption(rows, "smoke")


# ---------------------------------------------------------------------------------------------- files


def draw(rows, name="N9"):
    figure, (ax,) = style.panels(1)
    curves.against(rows, ax)
    output.save(figure, name, "smoke", rows)
    return [figures_folder("smoke") / f"{name}.{ending}" for ending in ("png", "pdf", "csv")]


def contents(paths):
    return [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths]


def test_a_figure_is_a_png_a_pdf_and_a_csv_of_what_is_drawn():
    png, pdf, csv = draw(several())
    picture = matplotlib.image.imread(png)
    assert min(picture.shape[:2]) > 300 and picture[..., :3].std() > 0.01
    assert pdf.read_bytes().startswith(b"%PDF-")
    table = pandas.read_csv(csv, comment="#")
    expected = ledger_rows.summarise(several(), x="width", y="stability", by="depth")
    assert table[["mean", "low", "high", "n"]].to_numpy() == pytest.approx(
        expected[["mean", "low", "high", "n"]].to_numpy(float), rel=5e-6
    )  # six digits
    assert csv.read_text().startswith("# profile smoke: digits")
    assert os.listdir(png.parent) and all(not name.startswith(".") for name in os.listdir(png.parent))


def test_the_second_time_no_file_is_touched_and_new_numbers_rewrite_all_three():
    paths = draw(several())
    for path in paths:
        os.utime(path, (1, 1))
    before = contents(paths)
    assert draw(several()) == paths
    assert contents(paths) == before
    draw(several(depths=(2, 6)))
    assert all(new[0] != old[0] and new[1] > 10**9 for new, old in zip(contents(paths), before, strict=True))


def test_a_file_that_went_missing_is_drawn_again_to_the_same_bytes():
    paths = draw(several())
    before = [path.read_bytes() for path in paths]
    for path in paths:
        path.unlink()
        draw(several())
        assert [path.read_bytes() for path in paths] == before


def test_a_new_gap_is_written_though_the_curve_is_the_same():
    png, _, csv = draw(several())
    before = png.read_bytes()
    draw(several(missing=[Cell(width=128, depth=4)]))
    assert "1 of 13 runs are missing" in csv.read_text()
    assert png.read_bytes() != before


def test_a_figure_that_cannot_be_written_says_where_and_keeps_the_old_one(monkeypatch):
    paths = draw(several())
    before = contents(paths)

    def full(*_, **__):
        raise OSError(28, "No space left on device", str(paths[0]))

    with monkeypatch.context() as disk:
        disk.setattr(plt.Figure, "savefig", full)
        with pytest.raises(OSError, match="N9.png"):
            draw(several(depths=(2, 6)))
    assert contents(paths) == before


def test_a_figures_folder_that_is_a_file_is_named(monkeypatch, tmp_path):
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("ROBUSTKIT_FIGURES", str(tmp_path / "taken"))
    with pytest.raises(OSError, match="taken"):
        draw(several())


def test_a_table_is_written_three_ways_with_six_digits():
    table = pandas.DataFrame({"init": ["he", "lecun"], "P": [1 / 3, 2e-7], "n": [3, 5]})
    assert list(output.save_table(table, "T", "smoke")["init"]) == ["He", "LeCun"]
    folder = figures_folder("smoke")
    assert (folder / "T.md").read_text().splitlines() == [
        "| init | P | n |",
        "| --- | --- | --- |",
        "| He | 0.333333 | 3 |",
        "| LeCun | 2e-07 | 5 |",
    ]
    assert (folder / "T.csv").read_text() == "init,P,n\nhe,0.333333,3\nlecun,2e-07,5\n"
    assert "He & 0.333333" in (folder / "T.tex").read_text() and "tabular" in (folder / "T.tex").read_text()


def test_a_table_that_is_wider_than_a_page_is_read_on_its_side():
    """The table of hypotheses had 38 columns."""
    table = pandas.DataFrame({"kind": ["met", "n"]} | {f"run {i}": ["yes", i] for i in range(37)})
    output.save_table(table, "T", "smoke")
    lines = (figures_folder("smoke") / "T.md").read_text().splitlines()
    assert lines[0] == "|  | met | n |" and lines[2] == "| run 0 | yes | 0 |" and len(lines) == 39
    assert (figures_folder("smoke") / "T.csv").read_text() == table.to_csv(index=False)


def test_the_drawing_of_the_network_needs_no_data():
    figure, (ax,) = style.panels(1, width=6)
    figure_1.schematic(ax)
    output.save(figure, "N1", "smoke", None)
    output.save(figure, "N1", "smoke", None)
    assert {"$x$", "$f(x)$", "$W_1$", "$W_L$", "$m$"} <= {text.get_text() for text in ax.texts}
    assert matplotlib.image.imread(figures_folder("smoke") / "N1.png")[..., :3].std() > 0.01
