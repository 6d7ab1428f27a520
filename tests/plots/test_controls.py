"""Controls as pictures: what is compared is compared at the same point, and nothing drawn goes unrecorded."""

import dataclasses

import matplotlib.pyplot as plt
import numpy
import pandas
import pytest
from made_rows import a_frame, a_row

from robustkit.cell import Cell, InputError
from robustkit.ledger import rows as ledger_rows
from robustkit.plots import curves, output, style, tables, worst_case
from robustkit.sweep import train_missing
from robustkit.sweep.train_missing import load_further
from robustkit.training.remeasure import Attack


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def trained(losses, *, width=16, seed=0, init="he", level=1.0, kappa=None):
    """A row whose P is level / loss at each of FRACTIONS of training."""
    row = a_row(level / losses[-1], width=width, seed=seed, init=init, power=2.0 if init == "power" else None)
    row["measures"] |= {"train_loss": losses[-1], "loss_at_stability": list(losses)}
    row["measures"]["stability_over_time"] = [level / loss for loss in losses]
    row["measures"] |= {"stability_init": level / losses[0]}
    row["measures"] |= {"kappa_over_time": kappa} if kappa else {}
    return row


FAST = numpy.geomspace(2.0, 0.05, 7).tolist()
SLOW = numpy.geomspace(2.0, 0.8, 7).tolist()


def two_curves():
    """Lazy networks that reach 0.05 and non-lazy ones that stop at 0.8, where they have a third of the others' P."""
    lazy = [trained(FAST, width=m, seed=s) for m in (16, 64) for s in (0, 1)]
    return a_frame(*lazy, *(trained(SLOW, width=m, init="power", level=1 / 3) for m in (16, 64, 256)))


def test_matched_networks_are_compared_where_the_less_trained_one_ends():
    found = ledger_rows.matched(two_curves())
    assert set(found["width"]) == {16, 64}  # at 256 there is nothing to match
    assert found["common loss"].tolist() == pytest.approx([0.8] * len(found), rel=1e-12)
    # P is a power of the loss here: interpolation in the logarithms is exact between evaluation points as well.
    lazy = found[found["init"] == "he"]
    assert len(lazy) == 4 and lazy["stability"].tolist() == pytest.approx([1 / 0.8] * 4, rel=1e-9)
    other = found[found["init"] == "power"]
    assert other["stability"].tolist() == pytest.approx([1 / 2.4] * 2, rel=1e-9)


def test_each_network_is_drawn_from_its_start_to_its_end_with_training_to_the_right():
    _, (ax,) = style.panels(1)
    rows = two_curves()
    curves.along_training(rows[rows["init"] == "he"], ax)
    lines = [line for line in ax.get_lines() if len(line.get_xdata()) == 7]
    assert len(lines) == 4
    assert list(lines[0].get_xdata()) == FAST and lines[0].get_ydata() == pytest.approx([1 / v for v in FAST])
    left, right = ax.get_xlim()
    assert left > right
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["$m$ = 16", "$m$ = 64"]
    assert sum(len(table) for table in ax.robustkit_tables) == 4 * 7


def test_a_run_that_stopped_early_is_drawn_as_far_as_it_went():
    _, (ax,) = style.panels(1)
    curves.along_training(a_frame(trained(FAST[:3])), ax)
    (table,) = ax.robustkit_tables
    assert table["fraction"].tolist() == [0.0, 0.02, 0.05] and table["x"].tolist() == FAST[:3]


def test_a_scatter_shows_every_sound_network_and_the_diagonal():
    _, (ax,) = style.panels(1)
    rows = a_frame(trained(FAST), trained(SLOW, seed=1), a_row(None, width=16, seed=2, status="diverged"))
    curves.scatter(rows, ax, x="stability_init")
    (dots,) = [line for line in ax.get_lines() if line.get_label() == "$L$ = 2"]
    assert sorted(dots.get_ydata()) == pytest.approx(sorted([1 / FAST[-1], 1 / SLOW[-1]]), rel=1e-12)
    (diagonal,) = [line for line in ax.get_lines() if line.get_label() == "_diagonal"]
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata())
    assert sum(len(table) for table in ax.robustkit_tables) == 2


def test_the_power_of_a_power_law_is_its_exponent_for_each_scheme():
    rows = [
        a_row((1 + seed / 10) * width**-power, width=width, seed=seed, init=init)
        for init, power in (("he", 0.5), ("lecun", 1.0))
        for width in (16, 32, 64)
        for seed in (0, 1)
    ]
    table = tables.powers(a_frame(*rows), "kappa")
    assert table["init"].tolist() == ["He", "LeCun"]
    assert table["widths"].tolist() == ["16 to 64"] * 2
    assert [text.split()[0] for text in table["power of m"]] == ["-0.500", "-1.000"]


def test_frames_put_together_keep_what_each_of_them_misses():
    gap = Cell(width=128, depth=2)
    both = a_frame(trained(FAST), missing=[gap]), a_frame(trained(FAST), trained(FAST, seed=1), missing=[gap])
    found = ledger_rows.together(*both, a_frame())
    assert len(found) == 2 and found.attrs["missing"] == [gap]  # what both hold is there once
    assert len(ledger_rows.together(a_frame(), a_frame())) == 0


def test_one_scheme_of_a_control_keeps_its_own_gaps():
    gaps = [Cell(width=128, depth=2), Cell(width=128, depth=2, init="lecun")]
    found = ledger_rows.only(a_frame(trained(FAST), trained(SLOW, init="lecun"), missing=gaps), "lecun")
    assert found["init"].tolist() == ["lecun"] and found.attrs["missing"] == gaps[1:]


def test_schedules_are_never_pooled():
    slow = [a_row(float(m), width=m, seed=s) for m in (16, 32) for s in (0, 1)]
    rows = a_frame(*slow).assign(schedule="full"), a_frame(*slow).assign(schedule="flow10", stability=1.0)
    table = tables.powers(pandas.concat(rows), "stability")
    assert dict(zip(table["schedule"], table["power of m"].str.split().str[0], strict=True)) == {
        "flow10": "0.000",
        "full": "1.000",
    }


def test_curves_of_a_control_are_named_by_scheme_and_depth():
    rows = a_frame(a_row(1.0, width=16), a_row(1.0, width=16, init="power", power=2.0), a_row(1.0, width=16, depth=6))
    assert ledger_rows.named(rows)["curve"].tolist() == ["He, $L$ = 2", "non-lazy, $L$ = 2", "He, $L$ = 6"]


@pytest.mark.parametrize(("low", "high"), [(1.9, 2.35), (0.3, 0.9), (0.05, 2.0), (1e-9, 1.0)])
def test_ticks_of_a_logarithmic_axis_are_several_and_far_enough_apart_to_read(low, high):
    figure, (ax,) = style.panels(1)
    ax.plot([low, high], [1, 2])
    ax.set_xscale("log")
    style.log_ticks(ax.xaxis)
    figure.canvas.draw()
    boxes = [
        t.get_window_extent() for t in ax.get_xticklabels() if t.get_text() and low <= t.get_position()[0] <= high
    ]
    assert len(boxes) >= 2
    assert all(a.x1 < b.x0 for a, b in zip(boxes[:-1], boxes[1:], strict=True))


def attacked(**fields):
    """Two seeds of two cells as rows of the attack measure; P doubles from one seed to the other and in width."""
    made = [Cell(width=width, depth=2, seed=seed, **fields) for width in (16, 64) for seed in (0, 1)]
    lines = []
    for cell in made:
        p = 2.0 ** (cell.seed + (cell.width > 16))
        measures = dict.fromkeys(Attack.columns, 0.5) | {"logit_stability": p, "margin": p / 4, "accuracy": 0.9}
        measures |= {"lipschitz_mean": p**2, "accuracy_pgd_l2_1": 0.2 * cell.seed, "softmax_stability": 0.1 * p}
        row = {"key": cell.key, "cell_key": cell.key, "status": "ok", "reason": None, "seconds": 1.0, "commit": ""}
        lines.append(row | {"cell": dataclasses.asdict(cell), "measures": measures, "engine": {}, "versions": {}})
    return train_missing.to_frame(lines, Attack)


def drawn(ax, kind):
    tables = pandas.concat(ax.robustkit_tables)
    return tables[tables["quantity"].str.endswith(kind)]


def test_the_average_is_drawn_against_the_worst_case_as_cell_means_and_their_seeds():
    _, (ax,) = style.panels(1)
    rows = pandas.concat([attacked(), attacked(init="lecun")], ignore_index=True)
    worst_case.average_against_worst(rows, ax)
    means, seeds = drawn(ax, "cell means"), drawn(ax, "seeds")
    assert len(means) == 4 and set(means["n"]) == {2} and len(seeds) == 8
    he = means[means["init"] == "he"].set_index("width")
    assert he["x"].to_dict() == pytest.approx({16: 2**0.5, 64: 2**1.5}, rel=1e-12)  # geometric
    assert he["mean"].to_dict() == pytest.approx({16: 2.0, 64: 8.0}, rel=1e-12)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["He, $L$ = 2", "LeCun, $L$ = 2"]
    assert len({line.get_marker() for line in ax.get_lines() if line.get_label() != "_seeds"}) == 2
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log") and "Lipschitz" in ax.get_ylabel()


def test_accuracies_are_averaged_and_drawn_as_they_are_also_where_nothing_is_left():
    _, (ax,) = style.panels(1)
    worst_case.average_against_worst(attacked(), ax, y="accuracy_pgd_l2_1")
    assert drawn(ax, "cell means")["mean"].tolist() == pytest.approx([0.1, 0.1])
    assert sorted(drawn(ax, "seeds")["mean"]) == [0.0, 0.0, 0.2, 0.2]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "linear")
    assert "PGD" in ax.get_ylabel() and "radius 1" in ax.get_ylabel()


def test_the_average_may_be_taken_over_the_size_of_the_logits():
    _, (ax,) = style.panels(1)
    worst_case.average_against_worst(attacked(), ax, y="softmax_stability", over="margin")
    assert drawn(ax, "seeds")["x"].tolist() == [4.0] * 4
    assert "mean margin" in ax.get_xlabel()
    with pytest.raises(InputError, match="over is 'margins'.*did you mean 'margin'"):
        worst_case.average_against_worst(attacked(), ax, over="margins")


def test_cells_of_two_readings_are_not_averaged():
    _, (ax,) = style.panels(1)
    rows = pandas.concat(
        [attacked(), attacked(scaling="unit").assign(status="diverged"), attacked(scaling="standard")]
    )
    worst_case.average_against_worst(rows, ax)
    assert set(drawn(ax, "cell means")["n"]) == {2} and len(drawn(ax, "cell means")) == 4


def test_without_rows_every_table_is_empty_and_every_picture_says_so():
    rows = a_frame()
    _, axes = style.panels(4)
    curves.along_training(rows, axes[0])
    curves.scatter(rows, axes[1], x="stability_init")
    worst_case.average_against_worst(load_further("attack", shipped=False), axes[2], over="margin")
    worst_case.average_against_worst(attacked().assign(status="failed"), axes[3])
    assert [ax.texts[0].get_text() for ax in axes] == ["no rows yet"] * 4
    empty = ledger_rows.matched(rows), tables.powers(rows, "stability")
    for number, table in enumerate(empty):
        assert isinstance(output.save_table(table, f"T{number}", "smoke"), pandas.DataFrame) and table.empty
    assert ledger_rows.named(rows).empty
