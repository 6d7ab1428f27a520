"""Average against worst case: planted agreement is seen, and nothing is called a verdict."""

import math

import numpy as np
import pandas
import pytest
from scipy import stats

from robustkit import cell as cell_module
from robustkit.ledger import worst_case

COLUMNS = [
    cell_module.column(a, norm, r)
    for a in cell_module.ATTACKS
    for norm, radii in cell_module.RADII.items()
    for r in radii
]


def attacked(lost, *, scale=lambda k: 1.0, seeds=2, cells=8, **fields):
    """Cells k = 0, 1, .. whose P rises with k: lost(k) is the accuracy lost to every attack, scale(k) the logits'."""
    rows = []
    for k in range(cells):
        for seed in range(seeds):
            p = (1 + k) * (1 + 0.01 * seed)
            rows.append(
                {"init": "he", "power": None, "gain": None, "depth": 2, "width": 16 * 2**k, "seed": seed}
                | {"dataset": "mnist", "scaling": "raw", "loss": "cross_entropy", "schedule": "full", "status": "ok"}
                | {"logit_stability": p, "logit_stability_train": 2 * p, "softmax_stability": 1 / p, "accuracy": 0.9}
                | {"lipschitz_mean": 3 * p, "lipschitz_max": 5 * p, "spectral_product": 9.0}
                | {"margin": scale(k), "logit_norm": 2 * scale(k)}
                | dict.fromkeys(COLUMNS, 0.9 - lost(k))
                | fields
            )
    return pandas.DataFrame(rows)


def said(rows, about):
    """What the one part that begins with these words says after them."""
    (text,) = [part.text for part in worst_case.under_attack(rows) if part.text.startswith(about)]
    return text.removeprefix(about)


RISING, FALLING = attacked(lambda k: 0.05 * k), attacked(lambda k: 0.4 - 0.05 * k)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_accuracy_lost_is_ranked_against_stability(norm):
    for rows, r in ((RISING, "1.00 [1.00, 1.00]"), (FALLING, "-1.00 [-1.00, -1.00]")):
        assert said(rows, f"P and the accuracy lost to PGD in {norm}: rank correlation ").startswith(
            f"{r}, {r}, {r} "
        )
    assert said(FALLING, "accuracy lost to FGSM, ").count("-1.00 to -1.00") == 3
    assert said(RISING, f"PGD in {norm} at radius ").endswith("0.55 to 0.90, 0.55 to 0.90, from 0.90 to 0.90")


def test_other_measures_are_ranked_against_the_stability_of_the_logits():
    assert said(RISING, "P of logits and the mean local Lipschitz constant: ").startswith("rank correlation 1 ")
    assert said(RISING, "P of logits and the largest local Lipschitz constant: ").endswith("n = 16")
    assert said(RISING, "P of logits and P of softmax outputs: ").startswith("rank correlation -1 ")
    assert said(RISING, "P of logits and P at training points: ").startswith("rank correlation 1 ")
    assert said(RISING, "P of logits and the product of spectral norms: ") == "constant over 8 cell means; n = 16"


def test_without_a_product_of_spectral_norms_the_rest_is_said():
    texts = [part.text for part in worst_case.under_attack(RISING.assign(spectral_product=math.nan))]
    assert not any("product" in text for text in texts) and any("softmax" in text for text in texts)


def test_a_difference_that_is_one_of_scale_is_told_from_one_of_robustness():
    """The logits grow faster than P, so that P over their size falls; the accuracy lost falls with it."""
    rows = attacked(lambda k: 0.4 - 0.05 * k, scale=lambda k: (1 + k) ** 2)
    assert said(rows, "P and the accuracy lost to PGD in l2: rank correlation ").startswith("-1.00 ")
    assert said(rows, "P over the mean margin and the accuracy lost to PGD in l2: rank correlation ").startswith(
        "1.00 "
    )
    assert said(rows, "P over the norm of the logits and the accuracy lost to PGD in linf: rank ").startswith(
        "correlation 1.00 "
    )


def test_networks_whose_mean_margin_is_not_positive_are_left_out_of_the_ratio_alone():
    rows = RISING.assign(margin=[-1.0] * 4 + [1.0] * 12)
    assert "over 6 cell means" in said(rows, "P over the mean margin and the accuracy lost to PGD in l2: ")
    assert "over 8 cell means" in said(rows, "P and the accuracy lost to PGD in l2: ")


def test_where_every_network_is_broken_the_words_say_so():
    assert "the accuracy lost equals that before" in said(
        attacked(lambda k: 0.9), "PGD in l2 at radius 0.5, 1, 2 leaves"
    )
    assert "constant, constant, constant over 8" in said(
        attacked(lambda k: 0.9), "P and the accuracy lost to PGD in l2"
    )
    assert "before" not in said(RISING, "PGD in l2 at radius 0.5, 1, 2 leaves")


def test_equal_losses_are_ties_however_their_difference_is_rounded():
    rows = attacked(lambda k: 0.5, seeds=3)
    before = [0.9, 0.8, 0.7, 0.6, 0.95, 0.85, 0.75, 0.65]
    for i in rows.index:
        accuracy = before[i % 8]
        rows.loc[i, ["accuracy", *COLUMNS]] = [accuracy] + [round(accuracy - 0.05, 2)] * 12
    assert (rows["accuracy"] - rows[COLUMNS[0]]).nunique() > 1  # in floating point
    assert said(rows, "P and the accuracy lost to PGD in l2: ") == (
        "rank correlation constant, constant, constant over 8 cell means"
    )


def test_readings_are_never_pooled():
    """Within each the ranks agree; together they would not."""
    two = pandas.concat([RISING, attacked(lambda k: 0.05 * k, dataset="cifar10", accuracy=0.5)])
    two["logit_stability"] *= np.where(two["dataset"] == "cifar10", 100.0, 1.0)
    texts = [part.text for part in worst_case.under_attack(two)]
    headings = [text for text in texts if text.startswith("under ")]
    assert [text.split()[1] for text in headings] == ["mnist,", "cifar10,"] and "16 runs" in headings[0]
    ranks = [text for text in texts if text.startswith("P and the accuracy lost to PGD in l2: rank correlation 1.00")]
    assert len(ranks) == 2
    assert not any(part.text.startswith("under ") for part in worst_case.under_attack(RISING))


def test_nothing_is_a_verdict_and_how_the_intervals_are_made_is_said_last():
    parts = worst_case.under_attack(RISING)
    assert {part.answer for part in parts} == {"none"}
    assert "sqrt(1.06/(K-3))" in parts[-1].text and "a grid are not" in parts[-1].text


def test_few_cells_are_named_as_missing():
    for rows in (RISING.iloc[:6], RISING.iloc[:0], RISING.assign(status="failed")):
        assert [part.answer for part in worst_case.under_attack(rows)] == ["missing"]


# ------------------------------------------------------------------------------------------------ the ranks


def test_ranks_over_cell_means_are_spearmans_with_fishers_interval():
    rows = attacked(lambda k: 0.0, seeds=2, cells=9)
    generator = np.random.default_rng(0)
    x, y = (pandas.Series(generator.standard_normal(18)) for _ in range(2))
    found = worst_case.ranks(rows, x, y)
    r = stats.spearmanr(x.to_numpy().reshape(9, 2).mean(1), y.to_numpy().reshape(9, 2).mean(1)).statistic
    half = 1.96 * math.sqrt(1.06 / 6)
    assert (found.cells, found.n, found.r) == (9, 18, pytest.approx(r, rel=1e-12))
    assert [found.low, found.high] == pytest.approx(list(np.tanh(np.arctanh(r) + [-half, half])), rel=1e-9)
    assert math.isnan(found.within)  # two seeds rank nothing within a cell


def test_within_cells_the_mean_of_their_own_correlations_is_taken_with_a_t_interval_over_cells():
    rows = attacked(lambda k: 0.0, seeds=4, cells=6)
    generator = np.random.default_rng(1)
    shift = np.repeat(np.arange(6), 4)
    # Across cells x and y run against each other; within a cell nothing of that is left.
    x, y = (pandas.Series(sign * 100 * shift + generator.standard_normal(24)) for sign in (1, -1))
    found = worst_case.ranks(rows, x, y)
    own = [stats.spearmanr(x[4 * k : 4 * k + 4], y[4 * k : 4 * k + 4]).statistic for k in range(6)]
    low, high = stats.t.interval(0.95, 5, np.mean(own), stats.sem(own))
    assert found.r == pytest.approx(-1.0, rel=1e-12) and found.several == 6
    assert [found.within - found.half, found.within + found.half] == pytest.approx([low, high], rel=1e-9)
    assert f"within cells {np.mean(own):.3g} +- " in worst_case.in_words(found)
    assert worst_case.ranks(rows, x.where(shift < 3), y) is None  # three cells


def test_the_order_of_the_seeds_makes_no_ranks():
    rows = attacked(lambda k: 0.0, seeds=3, cells=6)
    y = pandas.Series([0.1, 0.2, 0.3, 0.3, 0.2, 0.1] * 3)
    assert y[:3].mean() != y[3:6].mean()  # in floating point
    found = worst_case.ranks(rows, pandas.Series(np.arange(18.0)), y)
    assert math.isnan(found.r) and found.within == 0


def test_a_column_that_is_the_same_everywhere_has_no_ranks():
    rows = attacked(lambda k: 0.0, cells=5)
    ones = pandas.Series(np.ones(10))
    assert worst_case.in_words(worst_case.ranks(rows, ones, ones)) == "constant over 5 cell means"
