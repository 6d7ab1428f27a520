"""Sentences from rows: the counts and factors are those that were planted."""

import math

import pytest
from made_rows import a_frame, a_row

from robustkit.ledger import sentences


def grid(value, *, widths=(16, 64, 256), depths=(2, 4), loss=None, start=None, **fields):
    """Rows with P = value(m, L), two seeds a little apart; loss(m, L) and start(m, L) in place of the same value."""
    rows = []
    for m in widths:
        for L in depths:
            for seed, factor in enumerate((1.02, 1 / 1.02)):
                row = a_row(value(m, L) * factor, width=m, depth=L, seed=seed, **fields)
                row["measures"] |= {"train_loss": loss(m, L)} if loss else {}
                row["measures"] |= {"stability_init": start(m, L)} if start else {}
                rows.append(row)
    return a_frame(*rows)


def test_width_names_the_largest_rise_and_fall_and_where_the_peak_is():
    values = {16: 1.0, 64: 2.0, 256: 0.5}
    text = sentences.width_in_words(grid(lambda m, L: values[m], depths=(2,)))
    assert text.startswith("- $L = 2$: rises by a factor of 2.000 at most ($m = 16$ to $64$), ")
    assert "falls by a factor of 4.000 at most ($m = 64$ to $256$); largest at $m = 64$, inside the grid" in text
    # Three widths with two seeds each, all 2 log 1.02 apart: t(0.975, 3 degrees) = 3.182 standard errors of log 1.02.
    assert text.endswith(f"within a factor of {math.exp(3.1824463 * math.log(1.02)):.3f}")


def test_width_says_where_a_curve_only_rises_or_falls():
    up, down = (sentences.width_in_words(grid(law)).splitlines() for law in (lambda m, L: m, lambda m, L: 1 / m))
    assert len(up) == len(down) == 2
    assert "falls nowhere; largest at $m = 256$, an end of the grid" in up[1]
    assert "rises nowhere" in down[0] and "largest at $m = 16$, an end of the grid" in down[0]


def test_width_takes_one_seed_and_says_no_more_of_it():
    text = sentences.width_in_words(a_frame(*(a_row(float(m), width=m) for m in (16, 32))))
    assert "rises by a factor of 2.000" in text and "known" not in text


def test_lazy_and_non_lazy_are_compared_at_the_end_and_at_matched_loss():
    def a_run(init, m, seed, fall):
        row = a_row(
            2.0 if init == "he" else 0.5, width=m, seed=seed, init=init, power=2.0 if init == "power" else None
        )
        row["measures"]["loss_at_stability"] = [2.0 * fall**k for k in range(7)]
        row["measures"]["train_loss"] = 2.0 * fall**6
        row["measures"]["stability_over_time"] = [0.1 * 2**k for k in range(7)]
        return row

    rows = [
        a_run(init, m, s, 0.5 if init == "he" else 0.8) for init in ("he", "power") for m in (16, 32) for s in (0, 1)
    ]
    end, matched = sentences.lazy_in_words(a_frame(*rows)).splitlines()
    assert "below lazy at 2 of 2 widths; lazy over non-lazy goes from 4 at $m = 16$ to 4 at $m = 32$" in end
    # P doubles at each step for both; He is at the loss 2 * 0.8^6 after 6 log 0.8 / log 0.5 steps, the other after 6.
    ratio = 2 ** (6 * math.log(0.8) / math.log(0.5) - 6)
    assert f"below lazy at 0 of 2 widths; lazy over non-lazy goes from {ratio:.3g} at" in matched


def test_depth_sets_the_widths_that_have_learned_apart():
    def loss(m, L):
        return 2.3 if m == 16 else 0.1

    rows = grid(lambda m, L: 1 / L if m == 16 else L, loss=loss, start=lambda m, L: 2.0**-L)
    head, _, *lines = sentences.depth_in_words(rows, "LeCun").splitlines()
    assert head == (
        "**LeCun.** From $L = 2$ to $4$, $P/\\epsilon$ falls at 3 of 3 widths at initialisation; after training it "
        "rises at 2 of the 2 widths that have learned and falls at 1 of the 1 that have not."
    )
    assert lines[0] == "- $m = 16$: times 0.25 initially, times 0.5 after training; loss 2.3"
    assert lines[1] == "- $m = 64$: times 0.25 initially, times 2 after training; loss 0.1"
    learned = sentences.depth_in_words(grid(lambda m, L: L, loss=lambda m, L: 0.1), "He")
    assert "3 of the 3 widths that have learned." in learned


@pytest.mark.parametrize(
    "say", [sentences.width_in_words, sentences.lazy_in_words, lambda rows: sentences.depth_in_words(rows, "He")]
)
def test_without_rows_they_say_so(say):
    assert say(a_frame()) == sentences.NOTHING


def test_a_single_width_or_depth_is_no_curve():
    rows = grid(lambda m, L: 1.0, widths=(16,), depths=(2,))
    assert sentences.width_in_words(rows) == sentences.depth_in_words(rows, "He") == sentences.NOTHING
