"""Gaps between depths and differences of accuracy, on rows made to have known ones."""

import math

import numpy as np
import pandas
import pytest

from robustkit import plots
from robustkit.cell import Cell, schedule_name
from robustkit.ledger import cnn_and_resnet, verdicts
from robustkit.profiles import grid

DEPTHS, WIDTHS, SEEDS = (4, 6, 8, 10), (16, 32), (0, 1, 2)


def curve(slope, *, noise=0.0, widths=WIDTHS, depths=DEPTHS, seed=0, **fields):
    """Rows with log P = slope * depth + width's own level + noise."""
    generator, lines = np.random.default_rng(seed), []
    base = {"dataset": "mnist", "epochs": 5, "lr": 0.01} | fields
    for width in widths:
        for depth in depths:
            for s in SEEDS:
                cell = Cell(width=width, depth=depth, seed=s, **base)
                p = math.exp(slope * depth + width / 50 + noise * generator.standard_normal())
                lines.append(
                    {name: getattr(cell, name) for name in Cell.__dataclass_fields__}
                    | {"key": cell.key, "status": "ok", "schedule": schedule_name(cell.epochs, cell.lr)}
                    | {"stability": p, "kappa": 0.1}
                    | {"train_loss": 0.5, "test_accuracy": 0.9, "stability_init": p, "loss_over_time": [2.3, 0.5]}
                )
    return pandas.DataFrame(lines)


def cnn(slope, head="flatten", **fields):
    return curve(slope, model="cnn", head=head, **fields)


def verdict(*frames):
    return verdicts.ledger(pandas.concat(frames), only=["E12"]).iloc[0]


def test_a_gap_is_between_the_highest_and_the_lowest_depth_and_a_rise_has_a_sign():
    assert cnn_and_resnet.depth_gaps(cnn(0.1)) == pytest.approx([0.6] * 3)  # six depths at 0.1 each, at both widths
    assert cnn_and_resnet.depth_gaps(cnn(-0.1)) == pytest.approx([0.6] * 3)
    assert cnn_and_resnet.depth_rises(cnn(0.1)) == pytest.approx([0.6] * 3)
    assert cnn_and_resnet.depth_rises(cnn(-0.1)) == pytest.approx([-0.6] * 3)
    assert len(cnn_and_resnet.depth_rises(cnn(0.1).drop(index=0))) == 2  # a seed without its shallowest net
    assert cnn_and_resnet.depth_gaps(cnn(0.1).iloc[:0]) == cnn_and_resnet.depth_rises(cnn(0.1).iloc[:0]) == []
    with pytest.raises(ValueError, match="duplicate"):  # two rows of one cell are never averaged
        cnn_and_resnet.depth_rises(pandas.concat([cnn(0.1), cnn(0.2)]))


def test_a_rise_is_the_slope_of_least_squares():
    rows = cnn(0.1, noise=0.3, widths=(16,))
    lines = [np.polyfit(part["depth"], np.log(part["stability"]), 1) for _, part in rows.groupby("seed")]
    assert cnn_and_resnet.depth_rises(rows) == pytest.approx([6 * slope for slope, _ in lines])


@pytest.mark.parametrize(
    ("slope", "noise", "word"),
    [
        *((0.3, 0.01, "reproduced"), (0.15, 0.01, "partly"), (0.05, 0.01, "not reproduced")),
        *((0.13, 0.2, "inconclusive"), (-0.3, 0.01, "partly"), (-0.05, 0.01, "not reproduced")),
    ],
)
def test_much_larger_is_twice_and_a_rise_and_larger_counts_in_part(slope, noise, word):
    """The fully connected net has a slope of 0.1."""
    found = verdict(cnn(slope, noise=noise), curve(0.1, noise=noise, seed=1))
    assert found["verdict"] == word
    assert "hardly trained: He, L=" not in found["readings_notes"] and found["n"] == 24  # the CNNs alone


def test_only_widths_and_depths_that_both_have_are_compared():
    lacking = cnn(0.3, noise=0.01)[lambda rows: rows["depth"] < 10]
    both = cnn_and_resnet.shared_shapes(lacking, curve(0.1, widths=(16, 64)))
    assert [set(zip(part["width"], part["depth"], strict=True)) for part in both] == [{(16, 4), (16, 6), (16, 8)}] * 2
    few = cnn_and_resnet.shared_shapes(cnn(0.3, depths=(4, 6)), curve(0.1))
    assert [len(part) for part in few] == [0, 0]


def test_other_networks_of_the_schedule_change_nothing():
    alone = verdict(cnn(0.3, noise=0.01), curve(0.1, noise=0.01))
    others = [curve(-1.0, init="ntk"), curve(-1.0, depths=(2,)), curve(-2.0, init="lecun")]
    pandas.testing.assert_series_equal(verdict(cnn(0.3, noise=0.01), curve(0.1, noise=0.01), *others), alone)


def test_cnns_that_hardly_trained_are_not_counted_whatever_stands_beside():
    still = cnn(0.3, noise=0.01)
    still["loss_over_time"] = [[2.3, 2.29] if depth == 4 else [2.3, 0.5] for depth in still["depth"]]
    found = verdict(still, curve(0.1, noise=0.01))
    assert found["readings"] == "1 not counted" and "hardly trained: He, L=4 at width 16, 32" in found["evidence"]


@pytest.mark.parametrize("sds", [(0.07, 0.07), (0.03, 0.3), (0.3, 0.03)])
@pytest.mark.parametrize(("rise", "wrong"), [(0.2, {"yes", "partly", "no"}), (0.0, {"yes"})])
def test_equal_rises_are_seldom_told_apart(sds, rise, wrong):
    """At n = 3, 2000 times; two-sided 5 %. Where there is no rise at all, what counts is that none is much larger."""
    generator, errors = np.random.default_rng(0), 0
    for _ in range(2000):
        pair = [rise + sd * generator.standard_normal(3) for sd in sds]
        errors += cnn_and_resnet.much_larger(*pair)[0] in wrong
    assert errors / 2000 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


def test_each_head_is_a_reading_and_flatten_the_first():
    found = verdict(cnn(0.3, noise=0.01), cnn(0.05, "pooling", noise=0.01), curve(0.1, noise=0.01))
    assert found["verdict"] == "reproduced" and found["readings"] == "2 not counted"
    assert (
        '"mnist, raw, cross_entropy, flow10, model=cnn, head=pooling": "not reproduced"' in found["readings_detail"]
    )
    assert "never compared with the paper's schedule: He, L=4" in found["readings_notes"]
    assert "not reproduced" in verdict(cnn(0.05, "pooling", noise=0.01), curve(0.1, noise=0.01))["verdict"]


def test_nets_of_another_schedule_are_not_set_beside():
    alone = verdict(cnn(0.3, noise=0.01), curve(0.1, noise=0.01, epochs=50, lr=0.001))
    assert alone["verdict"] == "missing" and "python -m robustkit run laptop --claim E12" in alone["evidence"]
    assert verdict(cnn(0.3, widths=(64,)), curve(0.1))["verdict"] == "missing"  # no width in common


def test_the_fully_connected_claims_do_not_see_other_networks():
    both = verdicts.ledger(pandas.concat([cnn(-1.0, noise=0.1), curve(0.1, noise=0.1)]), only=["E09"])
    alone = verdicts.ledger(curve(0.1, noise=0.1), only=["E09"])
    pandas.testing.assert_frame_equal(both, alone)


def test_the_table_of_gaps_is_what_the_ledger_judges():
    flatten, pooling = cnn(0.3, noise=0.01), cnn(0.2, "pooling", lr=0.1)
    rows = pandas.concat([flatten, pooling, curve(0.1, noise=0.01), curve(0.1, lr=0.1)])
    rows.attrs["missing"] = [cell for cell in grid("W6", "laptop") if cell.width == 64]
    table = plots.gaps(plots.views(rows)).set_index(["pair", "network"])
    assert list(table.index.unique("pair")) == ["CNN, flatten", "CNN, pooling", "CNN, pooling, learning rate x 10"]
    faster = table.loc["CNN, pooling, learning rate x 10"]
    assert faster["rise over depth"].astype(float).tolist() == pytest.approx([math.exp(1.2), math.exp(0.6)], rel=0.01)
    assert set(table.loc["CNN, pooling", "rise over depth"]) == {"missing"}
    compared = table["size, compared"][table["size, compared"] != ""]
    assert compared.tolist() == ["yes", "missing", "partly"]  # exactly twice, without noise
    assert verdict(rows)["verdict"] == "reproduced"


# ------------------------------------------------------------------------------------------------ Table 4


def resnets(lazy, other, dataset="cifar10", best=0.0):
    """Rows of ResNet-110 with these accuracies, one per seed."""
    lines = []
    for cell in grid("WT4", "paper"):
        values = lazy if cell.init == "he" else other
        if cell.dataset == dataset and cell.seed < len(values):
            accuracy = values[cell.seed]
            lines.append(
                {name: getattr(cell, name) for name in Cell.__dataclass_fields__}
                | {"key": cell.key, "status": "ok", "schedule": schedule_name(cell.epochs, cell.lr)}
                | {"test_accuracy": accuracy}
                | {"best_test_accuracy": accuracy + best, "stability": 1.0, "kappa": 2.0, "train_loss": 0.1}
                | {"test_accuracy_over_time": [0.5, accuracy]}
            )
    return pandas.DataFrame(lines)


@pytest.mark.parametrize(
    ("other", "word"),
    [
        ((0.925, 0.926, 0.927), "reproduced"),  # 0.3 points below at each seed
        ((0.90, 0.901, 0.902), "not reproduced"),  # 2.8 points
        ((0.915, 0.935, 0.91), "inconclusive"),
        ((0.928,), "missing"),
    ],
)
def test_similar_is_within_one_point_with_its_interval(other, word):
    found = verdicts.ledger(resnets((0.928, 0.929, 0.930), other), only=["E15"]).iloc[0]
    assert found["verdict"] == word
    if word == "reproduced":
        assert "lazy - non-lazy 0.30 [0.30, 0.30] points, paired" in found["evidence"]
        assert "unpaired [0.07, 0.53]" in found["evidence"]
        assert "the paper's: 0.75" in found["evidence"]


def test_each_dataset_is_a_reading_of_table_4():
    rows = pandas.concat([resnets((0.9, 0.91), (0.9, 0.91)), resnets((0.7, 0.7), (0.6, 0.6), "cifar100")])
    assert verdicts.ledger(rows, only=["E15"]).iloc[0]["readings"] == "2 counted: 1 reproduced, 1 not reproduced"


def test_without_rows_the_command_that_trains_them_is_named():
    found = verdicts.ledger(curve(0.1), only=["E15"]).iloc[0]
    assert found["verdict"] == "missing" and "python -m robustkit run paper --claim E15" in found["evidence"]
    small = grid("WT4", "laptop")
    assert verdicts.cells_of("E15", "laptop") == [] and len(verdicts.cells_of("E15", "paper")) == 12
    assert {cell.dataset for cell in small} == {"mnist"}  # scaled down: no evidence


def test_table_4_has_the_papers_numbers_beside_ours():
    cells = [*grid("WT4", "paper"), *grid("WT4", "laptop")]
    table = plots.table_4(resnets((0.928, 0.930), (0.92, 0.92), best=0.005), cells)
    assert table["paper"].tolist() == ["92.89", "92.14", "71.08", "70.55", "-", "-"]
    first = table.iloc[0]
    assert first["ours, last epoch"] == "92.90 +- 0.14" and first["ours, best epoch"] == "93.40 +- 0.14"
    assert first["n"] == "2 of 3" and table["ours, last epoch"].tolist()[2:] == ["missing"] * 4
    assert "scaled down: ResNet-20" in plots.scaled_down(grid("WT4", "laptop"))
    assert plots.scaled_down(grid("WT4", "paper")) == ""


def test_pictures_are_drawn_with_and_without_rows():
    from robustkit.plots import style

    rows = resnets((0.928, 0.930), (0.92, 0.92))
    figure, axes = style.panels(2)
    plots.accuracies(rows, axes[0])
    plots.over_epochs(rows, axes[1])
    drawn = pandas.concat(axes[0].robustkit_tables)
    assert sorted(drawn.loc[drawn["quantity"] == "ours, last epoch", "mean"]) == pytest.approx([92, 92, 92.8, 93])
    assert set(drawn.loc[drawn["quantity"] == "paper", "mean"]) == set(cnn_and_resnet.PAPER.values())
    plots.accuracies(rows.iloc[:0], axes[0])
    plots.over_epochs(rows.iloc[:0], axes[1])
    found = plots.views(pandas.concat([cnn(0.2), cnn(0.2, "pooling"), curve(0.1)]))
    figure, axes = style.panels(3, 2)
    plots.figure_6(found, axes)
    assert {ax.get_ylim() for ax in axes[0]} == {axes[0][0].get_ylim()}
