"""The lemmas' checks: the true statement passes, a planted wrong one does not."""

import math

import numpy as np
import pandas
import pytest
import torch

from robustkit import stability
from robustkit.cell import InputError
from robustkit.ledger import appendix_d, initial_value, lemmas


def answers(parts):
    return [part.answer for part in parts]


HOLD = [
    lemmas.lemma1,
    lemmas.lemma2,
    lemmas.lemma3,
    lemmas.lemma5,
    initial_value.second_term,
    initial_value.initial_depth,
]
HOLD += [initial_value.explosion_at_init]
FAIL = [appendix_d.radius, appendix_d.lemmas7_8]


@pytest.mark.parametrize("check", HOLD, ids=lambda check: check.__name__)
def test_what_holds_is_said_to_hold(check):
    assert set(answers(check())) == {"yes"}


@pytest.mark.parametrize("check", FAIL, ids=lambda check: check.__name__)
def test_what_cannot_hold_as_printed_is_said_not_to(check):
    # "none" is Lemma 8, whose proof slips where its statement does not
    assert set(answers(check())) in ({"no"}, {"no", "none"})


@pytest.mark.parametrize("check", HOLD + FAIL, ids=lambda check: check.__name__)
def test_every_part_is_one_line_with_numbers(check):
    for part in check():
        assert "\n" not in part.text and any(c.isdigit() for c in part.text)


# ---------------------------------------------------------------------------------------------- planted errors


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [({"keep": 0.49}, ["yes", "no"]), ({"scale": 1.02}, ["no", "yes"])],
    ids=["another mass at 0", "another spread"],
)
def test_lemma1_tells_another_law(wrong, expected, monkeypatch):
    monkeypatch.setattr(lemmas, "DRAWS", 100_000)  # both lie tens of standard errors away already

    def second(generator):
        return lemmas._halved_square(generator, **wrong)

    assert answers(lemmas._compare_laws(lemmas._rectified_square, second)) == expected


def test_rejections_are_counted_against_their_binomial():
    # P(Bin(20, 0.05) >= 4) = 0.0159 and P(Bin(20, 0.05) >= 5) = 0.0026: the 1 % lies between
    for count, answer in ((0, "yes"), (4, "yes"), (5, "no")):
        assert lemmas._rejections("x", [0.01] * count + [0.5] * (20 - count)).answer == answer


@pytest.mark.parametrize("same", [True, False])
def test_lemma2_tells_another_share_of_neurons(same, monkeypatch):
    monkeypatch.setattr(lemmas, "SEEDS", 4)
    assert answers(lemmas._chi_square_parts("planted", same, keep=0.45)) == ["no", "no"]


def test_lemma2_tells_signs_that_depend_on_the_size(monkeypatch):
    # Neurons on when |a| is large keep too much: the symmetry that Lemma 5 needs is gone.
    def on_when_large(q, same, seed):
        sent = np.random.default_rng([seed, q]).standard_normal((2000, q))
        return np.sum((sent * (np.abs(sent) > 0.6745)) ** 2, axis=1)

    monkeypatch.setattr(lemmas, "_stretches", on_when_large)
    assert answers(lemmas._chi_square_parts("planted", True)) == ["no", "no"]


def test_lemma5_tells_the_printed_constant_from_the_true_one():
    assert lemmas._lemma5_equality(lambda d: 1.0).answer == "no"
    assert lemmas._lemma5_equality(lambda d: d / (d + 1)).answer == "no"


@pytest.mark.parametrize("rate_power", [0.0, 1.0, 1.99])
def test_lemma3_needs_its_rate(rate_power):
    assert lemmas._rescaled(1.5, rate_power).answer == "no"


def test_lemma3_is_exact_where_scaling_is():
    assert "differ by at most 0 in" in lemmas._rescaled(2.0).text


def test_second_term_fails_once_it_is_below_the_exact_value():
    # 1/sqrt(2) of the proof's constant is less than 1/1.027, its smallest ratio
    assert initial_value._second_term_part("proof", "planted", factor=math.sqrt(0.5)).answer == "no"


def test_second_term_in_the_limit_of_width_by_hand():
    # L = 2, He, m -> infinity: sqrt(2 o/d) over d/(d+1) sqrt(2/d) c_o; c_10 = sqrt(2) Gamma(5.5)/Gamma(5)
    limit = math.sqrt(10) * 785 / 784 / (math.sqrt(2) * math.gamma(5.5) / math.gamma(5))
    assert min(initial_value._ratios("proof", "he")) == pytest.approx(limit, rel=1e-4)  # 5/(8m) = 4e-5 at m = 16384


def test_depth_slopes_tell_another_factor():
    assert initial_value._depth_part("lecun", 1.0).answer == "no"
    assert initial_value._depth_part("he", math.sqrt(0.5)).answer == "no"
    assert initial_value._depth_part("he", 1.01).answer == "no"


@pytest.mark.parametrize("gain", [1.0, 0.9, 1.01])
def test_growth_needs_gamma_above_one_by_more_than_the_correction(gain):
    # At m = 16 the correction 5/(8m) = 0.039 is more than log 1.01: such nets do not grow.
    assert initial_value._growth_part(gain).answer == "no"


# ---------------------------------------------------------------------------------------------- Appendix D


def test_a_positive_radius_would_be_found():
    networks = appendix_d._allowed()
    assert appendix_d._radius_part("x", networks, appendix_d._repaired_radius).answer == "yes"
    wide = appendix_d._radius_part("x", networks, lambda lambda0, n, width, alpha, beta2: width - 100.0)
    assert wide.answer == "partly"


def test_the_repaired_radius_solves_its_line():
    lambda0, n, width, alpha, beta2 = 3.0, 4, 64, 0.7, 0.2
    radius = appendix_d._repaired_radius(lambda0, n, width, alpha, beta2)
    line = width * n**3 / alpha**2 * radius * (radius + math.sqrt(8 / math.pi) * beta2)
    assert line == pytest.approx(lambda0 / 8, rel=1e-12)


def test_no_unit_inputs_pass_the_largest_lambda_allowed():
    largest = {(n, m, alpha, beta2): lambda0 for lambda0, n, m, alpha, beta2 in appendix_d._allowed()}
    for lambda0, *net in appendix_d._drawn():
        assert 0 < lambda0 <= largest[tuple(net)] * (1 + 1e-12)


def test_gram_is_the_sum_over_neurons():
    generator = np.random.default_rng(3)
    x, a, w = (generator.standard_normal(shape) for shape in ((3, 4), (5,), (5, 4)))
    for i in range(3):
        for j in range(3):
            by_hand = sum(a[r] ** 2 * (x[i] @ x[j]) for r in range(5) if w[r] @ x[i] >= 0 and w[r] @ x[j] >= 0)
            assert appendix_d._gram(x, a, w)[i, j] == pytest.approx(by_hand, rel=1e-12)


def test_lemma7_holds_for_wide_nets_and_fails_by_a_count_for_one_neuron():
    assert appendix_d._lemma7_part((1024,)).answer == "yes"
    # With one neuron and two orthogonal inputs, both are on in a quarter of the draws: at most that, of 1/2 promised.
    assert appendix_d._lemma7_part((1,), n=2).answer == "no"


def test_the_deviation_bound_holds_at_a_small_output_scale():
    assert appendix_d._entry_part(10_000**-0.5).answer == "yes"
    assert appendix_d._entry_part(1.0).answer == "no"


def test_the_condition_can_be_met_at_larger_output_scales():
    assert appendix_d._condition_part(powers=(0.0,)).answer == "yes"


def test_lemma8_has_the_direction_that_it_states():
    assert appendix_d._lemma8_part(+1).answer == "yes"


@pytest.mark.parametrize("shape", [{}, {"n": 7, "width": 5, "d": 3, "alpha": 0.5}, {"n": 6, "width": 1, "d": 2}])
def test_lemma6_is_exact_with_the_sum_over_neurons(shape):
    summed, single = appendix_d.lemma6(**shape).to_dict("records")
    # A difference of two outputs, each known to about 1e-16 of its size, over 2e-5; a sum of a hundred terms at most.
    assert summed["largest error"] < 1e-8 * summed["largest |df/dt|"]
    if shape.get("width") == 1:  # one neuron is its own sum
        assert single["largest error"] == summed["largest error"]
    else:
        assert single["largest error"] > 0.05 * single["largest |df/dt|"]


def test_lemma9_counts_the_neurons():
    table = appendix_d.lemma9(ns=(4, 8, 16, 32), width=64)
    weights = np.abs(np.random.default_rng(0).standard_normal((20_000, 64))).max(axis=1)
    for row in table.to_dict("records"):
        exact, share = row["exact"], np.mean(weights > math.sqrt(row["n"]))
        assert abs(share - exact) < 4 * math.sqrt(max(exact * (1 - exact), 1e-8) / 20_000)
        assert exact < row["union, m exp(-n/2)"]
        # By hand: each of 64 weights within sqrt(n) standard deviations.
        assert exact == pytest.approx(1 - math.erf(math.sqrt(row["n"] / 2)) ** 64, rel=1e-6, abs=1e-14)
    wide = appendix_d.lemma9()
    assert wide["exact"].tolist() == pytest.approx([1.0, 0.646, 2.5e-4], rel=0.02)
    assert (wide["exact"] > wide["printed n exp(-n/2)"]).all()


def test_the_probability_of_theorem_3_is_below_0_up_to_five_points():
    table = appendix_d.theorem3_probability(ns=range(1, 40)).to_numpy()
    assert [n for n, p in table if p <= 0] == [1, 2, 3, 4, 5]
    assert dict(table)[8] == pytest.approx(1 - 8 * math.exp(-4) - 3 / 8)


# ---------------------------------------------------------------------------------------------- the metric


@pytest.mark.parametrize("d", [1, 2, 3, 64, 784])
def test_sandwich_holds_for_random_jacobians_and_is_met_at_rank_one(d):
    low, high = initial_value.frobenius_sandwich(d)
    generator = torch.Generator().manual_seed(d)
    for rows in (1, 2, 10, 2 * d if d < 100 else 20):
        scales = torch.logspace(0, -2, rows, dtype=torch.float64)[:, None]
        jacobians = scales * torch.randn(20, rows, d, generator=generator, dtype=torch.float64)
        ratios = stability.expected_norm(jacobians) / jacobians.flatten(1).norm(dim=1)
        assert (ratios >= low * (1 - 1e-11)).all() and (ratios <= high).all()  # quadrature: below 2e-12
        if rows == 1:
            assert ratios.numpy() == pytest.approx(low, rel=1e-11)


@pytest.mark.parametrize("d", [0, 1.5, -3, "two", None])
def test_sandwich_refuses_what_is_no_dimension(d):
    with pytest.raises(InputError, match="d_in is .* but must be an integer"):
        initial_value.frobenius_sandwich(d)


# ---------------------------------------------------------------------------------------------- Lemma 4


def moved(law, depth=2, widths=(16, 32, 64, 128, 256, 512, 1024), sd=0.02, seeds=3, noise=0):
    generator = np.random.default_rng(noise)
    rows = [
        {"status": "ok", "target": "class", "dataset": "mnist", "depth": depth, "width": m, "seed": s}
        | {"jacobian_change": law(m) * np.exp(sd * generator.standard_normal()), "jacobian_init": 2.0}
        for m in widths
        for s in range(seeds)
    ]
    return pandas.DataFrame(rows)


@pytest.mark.parametrize(
    ("law", "answer"),
    [
        (lambda m: 3 * m**0.5 * np.exp(-m / 4), "yes"),  # L = 2, so that the printed rate is m/8
        (lambda m: 3 * np.exp(-m / 8), "yes"),
        (lambda m: 3 * np.exp(-m / 9), "no"),  # exponential, at a rate of 8/9
        (lambda m: 3 * np.exp(-m / 200), "no"),
        (lambda m: 3 * m**-0.5, "no"),
        (lambda m: 3 * m**0.2, "no"),
        (lambda m: 3 * np.exp(m / 2000), "no"),  # exponential, but the other way
    ],
    ids=[
        "faster",
        "no prefactor",
        "a little slow",
        "slow",
        "power",
        "growing power",
        "growing exponential",
    ],
)
def test_lemma4_is_judged_on_the_rate(law, answer):
    assert [part.answer for part in lemmas.lemma4(moved(law))] == [answer]


def test_lemma4_says_yes_to_what_is_printed_but_for_the_level_of_its_interval():
    # The upper end of a 95 % interval falls below the true rate in 2.5 % of samples: P(Bin(100, 0.975) < 92) = 0.001.
    found = [lemmas.lemma4(moved(lambda m: 3 * m**0.5 * np.exp(-m / 8), noise=k))[0].answer for k in range(100)]
    assert set(found) <= {"yes", "no"} and found.count("yes") >= 92


def test_lemma4_leaves_open_what_noise_hides():
    # x = m/L^3 from 10 to 14 and a spread of 5: the interval of the rate reaches below 0 and above 1.
    assert lemmas.lemma4(moved(lambda m: np.exp(-m / 8), widths=(80, 96, 112), sd=5))[0].answer == "inconclusive"


def test_lemma4_finds_the_rate_and_interval_of_scipy():
    from scipy import stats

    rows = moved(lambda m: m**0.5 * np.exp(-m / 8), widths=(80, 96, 112, 128), sd=0.3, seeds=5)
    line = stats.linregress(rows["width"] / 8, np.log(rows["jacobian_change"]) - np.log(rows["width"]) / 2)
    half = stats.t.ppf(0.975, len(rows) - 2) * line.stderr
    expected = f"rate {-line.slope:.3g} [{-line.slope - half:.3g}, {-line.slope + half:.3g}] (the lemma prints 1)"
    assert expected in lemmas.lemma4(rows)[0].text


def test_lemma4_names_what_is_outside_its_range_and_what_is_too_few():
    (deep,) = lemmas.lemma4(moved(lambda m: 1 / m, depth=6))
    assert deep.answer == "outside" and "0 of widths 16 to 1024 at m >= d_out L^3 = 2160" in deep.text
    assert lemmas.lemma4(moved(lambda m: 1 / m, widths=(16, 32)))[0].answer == "inconclusive"
    assert lemmas.lemma4(moved(lambda m: 1 / m, seeds=1))[0].answer == "inconclusive"
    assert lemmas.lemma4(moved(lambda m: 1 / m).iloc[:0])[0].answer == "missing"
