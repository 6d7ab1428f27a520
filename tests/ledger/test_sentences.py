"""The sentences of what was found, on rows whose numbers are planted."""

import re

import pandas
import pytest
from made_rows import DEPTHS, frame, level

from robustkit.cell import EVALUATION_POINTS
from robustkit.ledger import sentences, verdicts
from robustkit.ledger.claims import HEADLINES

WIDTHS = (16, 64, 256)


def lines(rows):
    text = sentences.found(rows, verdicts.ledger(rows))
    found = dict(re.findall(r"^- \*\*(\w+)\*\* (.*)$", text, re.MULTILINE))
    assert tuple(found) == HEADLINES
    return found


@pytest.fixture(scope="module")
def rows():
    lazy = frame(lambda m, depth: depth, depths=DEPTHS, widths=WIDTHS, growth=lambda t: t + 1, kappa=0.2)
    fall = frame(lambda m, depth: 2**-depth, inits=("lecun",), depths=DEPTHS, widths=WIDTHS)
    other = frame(lambda m, depth: 1 / m, inits=("power",), depths=(2,), widths=WIDTHS, growth=lambda t: t, kappa=20)
    return pandas.concat([lazy, fall, other], ignore_index=True)


def test_the_numbers_are_the_planted_ones_with_intervals_around_them(rows):
    found = lines(rows)

    def value(name, after):
        """The first number behind some words, which its interval must hold."""
        number, low, high = re.search(rf"{after}.*?([\d.e+-]+) \[([\d.e+-]+), ([\d.e+-]+)\]", found[name]).groups()
        assert float(low) <= float(number) <= float(high)
        return float(number)

    # The planted noise is 0.02; of a ratio of means of three seeds, 0.016: four of these.
    close = {"rel": 0.07}
    assert value("E01", "ends at") == pytest.approx(0.2, **close)
    assert value("E01", "by a factor of") == pytest.approx(2 / (EVALUATION_POINTS[5] + 1), rel=1e-2)
    assert value("E05", "lazy .* is") == pytest.approx(100, **close)
    assert value("E07", "non-lazy .* is") == pytest.approx(2 * 16, **close)
    assert value("E08", "by a factor of") == pytest.approx(1 / 16, **close)
    assert value("E09", "and of") == pytest.approx(5, **close)
    assert value("E10", "and of") == pytest.approx(2.0**-8, **close)
    assert "of 1.000 to 1.000 at $m = 16$" in found["E03"]  # planted straight
    assert "up at 3 of 3 widths, down at 0" in found["E09"] and "up at 0 of 3 widths, down at 3" in found["E10"]
    assert found["E15"].startswith("No ResNet-110") and found["T12"].startswith("No rows")


def test_each_sentence_ends_with_the_ledgers_verdict_and_readings(rows):
    found, ledger = lines(rows), verdicts.ledger(rows)
    for line in ledger.head(10).itertuples():
        end = f"*{line.verdict.capitalize()}*" + (f"; readings {line.readings}." if line.readings else ".")
        assert found[line.id].endswith(end)


@pytest.mark.parametrize(
    "kept",
    ["seed == 0", "width == 16", "depth == 2", "init == 'power'", "init == 'lecun' and depth < 5", "width < 0"],
)
def test_an_unfinished_grid_is_told_as_far_as_it_goes(rows, kept):
    for text in lines(rows.query(kept)).values():
        assert "nan" not in text


def test_resnets_that_were_trained_are_told(rows):
    trained = frame(level, depths=(110,), widths=(16,), seeds=2, model="resnet", dataset="cifar10")
    trained = trained.assign(test_accuracy=[0.92, 0.94], best_test_accuracy=[0.93, 0.95])
    text = lines(pandas.concat([rows, trained], ignore_index=True))["E15"]
    assert "93.00 % (He, cifar10, n = 2)" in text and "No ResNet" not in text


def test_digits_are_no_finding():
    found = lines(frame(lambda m, depth: depth, widths=WIDTHS, dataset="digits"))
    assert all(text.startswith(("No rows on MNIST yet.", "No ResNet")) for text in found.values())
