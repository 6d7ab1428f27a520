"""Planted truths must be found, and noise must not be: false positives stay at or below 5 %."""

import math

import numpy as np
import pytest
from scipy import stats

from robustkit.cell import InputError
from robustkit.ledger import statistics

WIDTHS = [2.0**k for k in range(4, 11)]


def curve(truth, sd, seeds, generator, x=WIDTHS):
    """{x: values}: exp of normal noise around the log of the planted truth."""
    return {w: np.exp(np.log(t) + sd * generator.standard_normal(seeds)) for w, t in zip(x, truth, strict=True)}


def share(test, truth, sd, seeds, wanted, count=2000, x=WIDTHS):
    generator = np.random.default_rng([seeds, int(1000 * sd)])
    return np.mean([test(curve(truth, sd, seeds, generator, x)).outcome in wanted for _ in range(count)])


FLAT = np.full(7, 3.0)
RISING = np.geomspace(1, 2, 7)
HUMP = np.array([1, 1.2, 1.5, 1.7, 1.5, 1.3, 1.1])
SETTLING = np.array([1.5, 1.7, 2, 2, 2, 2, 2])  # rises, then stays: the hardest curve without a peak


# ---------------------------------------------------------------------------------------------- pooled spread


def test_pooled_spread_and_interval_by_hand():
    data = {1: [math.e, math.e**3], 2: [1.0], 4: [1.0, math.e**2, math.e**4]}
    # squared deviations of the logs: 1 + 1, none, 4 + 0 + 4, over (2 - 1) + (1 - 1) + (3 - 1) degrees of freedom
    assert statistics.pooled_sd(data) == (pytest.approx(math.sqrt(10 / 3), rel=1e-12), 3)
    half = stats.t.isf(0.025, 3) * math.sqrt(10 / 3)
    cell = statistics.intervals(data)[4]
    expected = [math.exp(2 + sign * half / math.sqrt(3)) for sign in (0, -1, 1)]
    assert [cell.mean, cell.low, cell.high] == pytest.approx(expected, rel=1e-12)
    assert cell.n == 3
    single = statistics.intervals(data)[2]  # one seed: its interval rests on the spread of the others
    assert (math.log(single.low), math.log(single.high)) == pytest.approx((-half, half), rel=1e-12)


def test_unequal_spreads_are_found_by_bartlett_and_then_kept_apart():
    generator = np.random.default_rng(0)
    for scale in (1, 3, 30):
        data = [np.exp(s * generator.standard_normal(n)) for s, n in ((0.1, 3), (0.1 * scale, 5), (0.01 * scale, 4))]
        logs, cells = [np.log(v) for v in data], statistics._cells(dict(enumerate(data, 1)))
        assert cells.unequal == (stats.bartlett(*logs).pvalue < 0.01)
        if cells.unequal:
            found = statistics.trend(dict(enumerate(data, 1)))
            welch = stats.ttest_ind(logs[2], logs[0], equal_var=False).confidence_interval()
            assert (math.log(found.low), math.log(found.high)) == pytest.approx(tuple(welch), rel=1e-9)
            half = stats.t.isf(0.025, 4) * logs[1].std(ddof=1) / math.sqrt(5)
            interval = statistics.intervals(dict(enumerate(data, 1)))[2]
            assert math.log(interval.high / interval.mean) == pytest.approx(half, rel=1e-9)
    assert cells.unequal
    alone = statistics._cells(dict(enumerate(data, 1)) | {4: [1.0]})
    widest = max(logs, key=lambda v: v.var(ddof=1))
    assert (alone.own[3], alone.free[3]) == (pytest.approx(widest.var(ddof=1), rel=1e-9), len(widest) - 1)


def test_a_family_shares_the_level():
    step = {1: [1.0, 1.1, 1.2], 2: [1.5, 1.6, 1.7], 4: [1.2, 1.3, 1.4]}
    alone, together = statistics.trend(step), statistics.trend(step, family=10)
    assert alone.outcome == "mixed" and together.outcome == "inconclusive"
    assert statistics.peak(step).outcome == "peak" and statistics.peak(step, family=1000).outcome == "inconclusive"


@pytest.mark.parametrize("seeds", [2, 5])
def test_intervals_cover_the_truth(seeds):
    generator = np.random.default_rng(seeds)
    inside = 0
    for _ in range(1000):
        cell = statistics.intervals(curve(FLAT, 0.3, seeds, generator))[16.0]
        inside += cell.low < 3 < cell.high
    assert abs(inside / 1000 - 0.95) < 4 * math.sqrt(0.05 * 0.95 / 1000)


def test_one_seed_a_cell_decides_nothing():
    lone = {w: [t] for w, t in zip(WIDTHS, HUMP, strict=True)}
    assert all(math.isnan(cell.low) for cell in statistics.intervals(lone).values())
    overall, cells = statistics.compare(lone, {w: [v / 9 for v in values] for w, values in lone.items()})
    assert (overall.outcome, cells) == ("inconclusive", {})
    for test in (statistics.trend, statistics.peak, statistics.flat, statistics.rate):
        finding = test(lone)
        assert finding.outcome == "inconclusive" and finding.n == 7
        assert finding.note == "no cell has two seeds"
        assert math.isnan(finding.mde)


def test_missing_cells_are_left_out_and_named():
    data = curve(RISING, 0.02, 3, np.random.default_rng(0)) | {64.0: []}
    for test in (statistics.trend, statistics.peak, statistics.flat, statistics.rate):
        assert test(data).missing == (64.0,)
        assert test(data).n == 18
    overall, cells = statistics.compare(data, curve(FLAT / 9, 0.02, 3, np.random.default_rng(1)))
    assert overall.missing == (64.0,) and 64.0 not in cells and overall.outcome == "yes"
    assert statistics.trend({}).outcome == statistics.flat({}).outcome == "inconclusive"


@pytest.mark.parametrize("bad", [math.nan, 0.0, -1.0, math.inf])
def test_values_without_a_logarithm_are_refused(bad):
    with pytest.raises(InputError, match="curve at 16 has"):
        statistics.trend({16: [1.0, bad], 32: [1.0, 2.0], 64: [1.0, 2.0]})


# ---------------------------------------------------------------------------------------------- planted truths


def test_trend_finds_what_is_planted():
    generator = np.random.default_rng(0)
    up = statistics.trend(curve(RISING, 0.02, 3, generator))
    assert up.outcome == "up" and up.low < 2 < up.high and up.p < 1e-6
    assert statistics.trend(curve(1 / RISING, 0.02, 3, generator)).outcome == "down"
    assert statistics.trend(curve(HUMP, 0.02, 3, generator)).outcome == "mixed"
    assert statistics.trend(curve([1, 1.3, 1.1, 1.5, 1.7, 1.9, 2.2], 0.02, 3, generator)).outcome == "mixed"
    assert statistics.trend(curve(FLAT, 0.02, 3, generator)).outcome == "none"
    assert statistics.trend(curve(np.geomspace(1, 1.05, 7), 0.003, 3, generator)).outcome == "none"  # real but small
    assert statistics.trend(curve(FLAT, 0.5, 3, generator)).outcome == "inconclusive"


def test_peak_finds_what_is_planted():
    generator = np.random.default_rng(0)
    hump = statistics.peak(curve(HUMP, 0.02, 3, generator))
    assert hump.outcome == "peak" and hump.low < 1.7 / 1.1 < hump.high and "128" in hump.note
    for truth in (RISING, 1 / RISING, FLAT, 1 / HUMP):
        assert statistics.peak(curve(truth, 0.02, 5, generator)).outcome == "none"
    assert statistics.peak(curve(HUMP, 0.8, 2, generator)).outcome == "inconclusive"


def test_peak_wants_a_grid_past_the_predicted_one():
    data = curve(HUMP, 0.02, 3, np.random.default_rng(0))
    assert statistics.peak(data, predicted=500).outcome == "peak"
    short = statistics.peak(data, predicted=513)
    assert short.outcome == "inconclusive" and "must reach 1026" in short.note
    assert "below the grid" in statistics.peak(data, predicted=4).note
    rising = curve(RISING, 0.02, 3, np.random.default_rng(0))
    assert statistics.peak(rising, predicted=513).outcome == "inconclusive"


def test_flat_finds_what_is_planted():
    generator = np.random.default_rng(0)
    level = statistics.flat(curve(SETTLING, 0.01, 5, generator), beyond=64)
    assert level.outcome == "flat" and abs(level.estimate) < 0.02
    steep = statistics.flat(curve(np.geomspace(1, 1.5, 7), 0.01, 5, generator))
    assert steep.outcome == "not flat" and steep.low < math.log(1.5) / 6 < steep.high
    assert statistics.flat(curve(FLAT, 0.3, 3, generator)).outcome == "inconclusive"
    few = statistics.flat(curve(FLAT, 0.01, 5, generator), beyond=200)
    assert few.outcome == "inconclusive" and "2 doublings from 256 on" in few.note


def test_rate_measures_a_power_and_judges_it():
    generator = np.random.default_rng(0)
    data = curve(np.array(WIDTHS) ** -1.5, 0.05, 3, generator)
    measured = statistics.rate(data)
    assert measured.outcome == "measured" and measured.low < -1.5 < measured.high
    assert statistics.rate(data, bound=-1.0).outcome == "respected"
    assert statistics.rate(data, bound=-2.0).outcome == "violated"
    tight = statistics.rate(data, bound=-1.5)
    assert tight.outcome == "inconclusive" and 0.01 < tight.p < 0.99
    bent = statistics.rate(curve(HUMP, 0.02, 3, generator))
    assert float(bent.note.split("=")[1]) < 1e-6  # a hump is no power law, and the finding says so


def test_rate_interval_covers_with_unequal_seeds():
    generator = np.random.default_rng(9)
    inside = 0
    for _ in range(1000):
        data = {
            x: np.exp(-0.7 * np.log(x) + 0.2 * generator.standard_normal(n)) for x, n in [(1, 1), (3, 4), (20, 2)]
        }
        finding = statistics.rate(data)
        inside += finding.low < -0.7 < finding.high
    assert abs(inside / 1000 - 0.95) < 4 * math.sqrt(0.05 * 0.95 / 1000)


def test_compare_finds_what_is_planted():
    generator = np.random.default_rng(0)
    low, high = curve(FLAT, 0.02, 3, generator), curve(1.5 * FLAT, 0.1, 5, generator)
    overall, cells = statistics.compare(high, low)
    assert overall.outcome == "yes"
    assert abs(math.log(overall.estimate / 1.5)) < 2 * math.log(overall.high / overall.estimate)  # 4 standard errors
    assert all(cell.outcome == "yes" and cell.n == 8 for cell in cells.values())
    assert statistics.compare(low, high)[0].outcome == "no"
    assert statistics.compare(low, curve(FLAT, 0.02, 3, generator))[0].outcome == "inconclusive"
    crossing, cells = statistics.compare(curve(3 * RISING, 0.02, 3, generator), curve(FLAT * 1.4, 0.02, 3, generator))
    assert crossing.outcome == "no" and cells[16.0].outcome == "no" and cells[1024.0].outcome == "yes"
    assert statistics.compare({16: [1.0, 2.0]}, {32: [1.0, 2.0]})[0].note == "no x has both curves"


def test_no_spread_at_all_is_certainty_not_an_error():
    exact = {w: [t, t] for w, t in zip(WIDTHS, HUMP, strict=True)}
    assert statistics.peak(exact).outcome == "peak"
    assert statistics.trend(exact).outcome == "mixed"
    assert statistics.rate(exact).low == statistics.rate(exact).high
    assert statistics.compare(exact, {w: [t / 2] * 2 for w, t in zip(WIDTHS, HUMP, strict=True)})[0].outcome == "yes"


# ------------------------------------------------------------------------- false positives, power, detectable effect


@pytest.mark.parametrize(("sd", "seeds"), [(0.02, 3), (0.3, 2), (0.3, 5)])
def test_trend_on_noise_is_found_in_less_than_one_in_twenty(sd, seeds):
    assert share(statistics.trend, FLAT, sd, seeds, {"up", "down", "mixed"}) <= 0.05


@pytest.mark.parametrize(("truth", "sd", "seeds"), [(FLAT, 0.02, 3), (FLAT, 0.3, 2), (SETTLING, 0.3, 5)])
def test_peak_on_curves_without_one_is_found_in_less_than_one_in_twenty(truth, sd, seeds):
    assert share(statistics.peak, truth, sd, seeds, {"peak"}) <= 0.05


def at_most_one_in_twenty(rate, count):
    return rate <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / count)  # these sit at 5 % exactly, so the estimate scatters


def test_flat_at_its_margin_is_claimed_in_one_of_twenty():
    truth = np.exp(0.02 * np.arange(7))  # 0.02 a doubling: the least that is not flat
    assert at_most_one_in_twenty(share(statistics.flat, truth, 0.02, 5, {"flat"}, 1000), 1000)
    assert at_most_one_in_twenty(share(statistics.flat, truth, 0.02, 5, {"not flat"}, 1000), 1000)


def test_missed_peak_is_denied_in_one_of_twenty():
    truth = np.where(np.arange(7) == 3, 1.05, 1.0)  # a rise of exactly 5 %: the least that is a peak
    assert at_most_one_in_twenty(share(statistics.peak, truth, 0.02, 5, {"none"}, 1000), 1000)


def test_compare_on_noise_keeps_its_level():
    def outcome(other):
        return lambda data: statistics.compare(data, other)[0]

    generator = np.random.default_rng(4)
    # Equal at one width, far above at the others: the hardest case for "at every width".
    truth = np.array([3.0, 9, 9, 9, 9, 9, 9])
    found, wrong = 0, 0
    for _ in range(1000):
        other = curve(FLAT, 0.02, 3, generator)
        found += outcome(other)(curve(truth, 0.1, 3, generator)).outcome == "yes"
        wrong += outcome(other)(curve(FLAT, 0.1, 3, generator)).outcome == "no"
    assert at_most_one_in_twenty(found / 1000, 1000)
    assert at_most_one_in_twenty(wrong / 1000, 1000)


def test_rate_at_its_bound_is_judged_wrongly_in_one_of_twenty():
    def judged(data):
        return statistics.rate(data, bound=-1)

    assert at_most_one_in_twenty(share(judged, 1 / np.array(WIDTHS), 0.2, 3, {"respected", "violated"}, 1000), 1000)


def test_detectable_effects_are_detected_four_times_in_five():
    """Power at the stated mde, which is 80 % by design; 4 standard errors of 400 draws are 0.08."""
    generator = np.random.default_rng(0)

    def found(test, make, wanted, sd=0.1, count=400):
        mde = np.mean([test(curve(make(1.0), sd, 3, generator)).mde for _ in range(100)])
        return np.mean([test(curve(make(mde), sd, 3, generator)).outcome in wanted for _ in range(count)])

    assert abs(found(statistics.trend, lambda e: np.geomspace(1, e, 7), {"up"}) - 0.8) < 0.1  # steps cost a little
    assert found(statistics.peak, lambda e: np.where(np.arange(7) == 3, e, 1.0), {"peak"}) > 0.7  # two ends to beat
    slope = found(statistics.flat, lambda e: np.exp((e if e < 1 else 0) * np.arange(7)), {"not flat"})
    assert abs(slope - 0.8) < 0.08


# ---------------------------------------------------------------------------------------------- growth over time

TIME = np.arange(1.0, 26)


@pytest.mark.parametrize(
    ("law", "truth"),
    [
        ("linear", 0.3 + 2 * TIME),
        ("sqrt", 1 + 4 * np.sqrt(TIME)),
        ("log", 2 + np.log(TIME)),
        ("exponential then linear", np.where(TIME < 8, np.expm1(TIME / 2), np.exp(4) * (1 + (TIME - 8) / 2) - 1)),
    ],
)
def test_growth_finds_the_planted_law(law, truth):
    noise = 0.01 * truth.std() * np.random.default_rng(0).standard_normal(25)
    fits = statistics.growth(TIME, truth + noise)
    assert min(fits, key=lambda name: fits[name][0]) == law
    assert fits[law][1] > 0.999


def test_growth_numbers_by_another_route():
    values = np.sqrt(TIME) + 0.1 * np.random.default_rng(1).standard_normal(25)
    aic, r_squared = statistics.growth(TIME, values)["linear"]
    residual = values - np.polyval(np.polyfit(TIME, values, 1), TIME)
    # AIC = -2 log likelihood + 2 parameters, up to the constant N (1 + log 2 pi) that all laws share
    likelihood = stats.norm.logpdf(residual, scale=residual.std()).sum()
    assert aic == pytest.approx(-2 * likelihood + 2 * 3 - 25 * (1 + math.log(2 * math.pi)), rel=1e-9)
    assert r_squared == pytest.approx(1 - residual.var() / values.var(), rel=1e-9)


def test_growth_of_nothing_and_bad_times():
    assert statistics.growth(TIME, np.ones(25)) == {}
    for time, values in [(TIME, TIME[:-1]), (TIME - 1, TIME), (TIME[::-1], TIME), (TIME[:5], TIME[:5])]:
        with pytest.raises(InputError, match="time has shape"):
            statistics.growth(time, values)
