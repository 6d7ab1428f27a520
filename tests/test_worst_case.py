"""Average against worst case: planted agreement is seen, and nothing is called a verdict."""

import numpy as np
import pandas

from robustkit import worst_case


def attacked(order, seeds=2):
    """Cells whose accuracy under attack falls with P (order 1), rises with it (-1) or does not depend on it (0)."""
    rows = []
    for k in range(8):
        for seed in range(seeds):
            p = (1 + k) * (1 + 0.01 * seed)
            rows.append(
                {"init": "he", "power": None, "gain": None, "depth": 2, "width": 16 * 2**k, "seed": seed}
                | {"status": "ok", "logit_stability": p, "softmax_stability": p / 10, "accuracy": 0.9}
                | {"accuracy_attacked_0_5": 0.9 - 0.05 * order * p if order else 0.4, "accuracy_attacked_2": 0.0}
            )
    return pandas.DataFrame(rows)


def test_accuracy_lost_is_ranked_against_stability():
    first, second, softmax = worst_case.under_attack(attacked(1))
    assert "accuracy lost at radius 0.5: rank correlation 1 " in first.text and "n = 16" in first.text
    assert "radius 2: constant over 8 cell means" in second.text  # every network is broken: nothing to rank
    assert "softmax outputs: rank correlation 1 " in softmax.text
    assert "rank correlation -1 " in worst_case.under_attack(attacked(-1))[0].text
    assert {part.answer for part in worst_case.under_attack(attacked(1))} == {"none"}


def test_few_cells_are_named_as_missing():
    for rows in (attacked(1).iloc[:4], attacked(1).iloc[:0], attacked(1).assign(status="failed")):
        assert [part.answer for part in worst_case.under_attack(rows)] == ["missing"]


def test_networks_that_are_all_alike_have_no_ranks():
    assert worst_case._over_cells(np.ones((5, 2))) == "constant over 5 cell means"
