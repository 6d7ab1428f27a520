"""The formulas of the paper against oracles that are not themselves."""

import math

import numpy as np
import pytest
from scipy import integrate

from robustkit import theory
from robustkit.cell import InputError
from robustkit.initialization import layer_stds

SCHEMES = [
    {"init": "he"},
    {"init": "lecun"},
    {"init": "ntk"},
    {"init": "power", "power": 0.7},
    {"init": "gain", "gain": 1.3},
]
SHAPE = {"width": 6, "depth": 4, "d_in": 5, "d_out": 3}


def ball(generator, count, d):
    directions = generator.standard_normal((count, d))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions * generator.random((count, 1)) ** (1 / d)


def responses(betas, x, u, width, d_out, generator):
    """||J u|| of one freshly drawn network a row of u, J the Jacobian of Eq. (2) at x."""
    hidden, moved = np.broadcast_to(x, u.shape), u
    for beta in betas[:-1]:
        weights = beta * generator.standard_normal((len(u), width, hidden.shape[1]))
        before = np.einsum("nij,nj->ni", weights, hidden)
        moved = (before > 0) * np.einsum("nij,nj->ni", weights, moved)
        hidden = np.maximum(before, 0)
    last = betas[-1] * generator.standard_normal((len(u), d_out, width))
    return np.linalg.norm(np.einsum("nij,nj->ni", last, moved), axis=1)


# ------------------------------------------------------------------------------------------- at initialisation


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s["init"])
@pytest.mark.parametrize("depth", [2, 4])
def test_stability_at_init_is_the_mean_over_real_networks(scheme, depth):
    shape = SHAPE | {"depth": depth}
    generator = np.random.default_rng(depth)
    sample = responses(
        layer_stds(**scheme, **shape), np.array([3.0, -1, 0, 2, 7]), ball(generator, 40_000, 5), 6, 3, generator
    )
    exact = theory.stability_at_init(**scheme, **shape, alpha=2.0)
    assert abs(sample.mean() / 2 - exact) < 4 * sample.std() / 2 / math.sqrt(len(sample))


def layer_mean(width):
    """M_m read off a net whose other factors are known: d/(d+1) = 1/2 and c_1 = sqrt(2/pi)."""
    shape = {"width": width, "depth": 2, "d_in": 1, "d_out": 1}
    return 2 * math.sqrt(math.pi / 2) * theory.stability_at_init("power", power=0, **shape)


@pytest.mark.parametrize("width", [1, 2, 7, 1024, 16384])
def test_layer_mean_against_the_laplace_transform(width):
    # E sqrt(X) = 1/(2 sqrt(pi)) int t^(-3/2) (1 - E exp(-tX)) dt, with X chi-square of Binomial(m, 1/2) degrees.
    y = np.linspace(-90, 90, 20_001)  # t = e^y; both tails fall like exp(-|y|/2), below 1e-19 at the ends
    log_transform = width * np.log1p(np.expm1(-np.log1p(2 * np.exp(y)) / 2) / 2)
    oracle = np.sum(np.exp(-y / 2) * -np.expm1(log_transform)) * (y[1] - y[0]) / (2 * math.sqrt(math.pi))
    # the binomial weights come from log Gamma(16385) = 1.4e5, hence to 1.4e5 * 2e-16 * a few
    assert layer_mean(width) == pytest.approx(oracle, rel=1e-9)


def test_layer_mean_expansion_has_an_error_of_second_order():
    errors = [layer_mean(m) * math.sqrt(2 / m) - (1 - 5 / (8 * m)) for m in (512, 1024)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.02)  # the third order adds about 1/m times a few


def test_initial_value_rises_in_width_to_a_constant_and_lecun_halves_its_square_a_layer():
    def value(init, width, depth):
        return theory.stability_at_init(init, width=width, depth=depth, d_in=784, d_out=10)

    values = [value("he", 2**k, 6) for k in range(4, 15)]
    assert values == sorted(values)
    chi_mean_10 = 3 * 5 * 7 * 9 * math.sqrt(math.pi) / (2**4 * math.factorial(4)) / math.sqrt(2)
    limit = 784 / 785 * math.sqrt(2 / 784) * chi_mean_10
    assert values[-1] == pytest.approx(limit * (1 - 5 / (8 * 2**14)) ** 5, rel=1e-8)
    for depth in (2, 6, 10):
        assert value("lecun", 64, depth) == pytest.approx(value("he", 64, depth) * 2 ** (-depth / 2), rel=1e-12)


def test_spread_over_networks_is_the_fourth_moment_ratio():
    generator = np.random.default_rng(0)
    direction = np.full((200_000, 2), 0.6)
    square = (
        responses(layer_stds("he", width=5, depth=3, d_in=2, d_out=2), [1.0, -4.0], direction, 5, 2, generator) ** 2
    )
    second, fourth = square.mean(), (square**2).mean()
    linearised = square**2 / second**2 - 2 * fourth * square / second**3
    error = linearised.std() / math.sqrt(len(square))
    assert abs(fourth / second**2 - theory.stability_spread(width=5, depth=3, d_out=2)) < 4 * error


# ---------------------------------------------------------------------------------------------- Theorem 1, tables


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s["init"])
def test_second_term_of_the_proof_is_the_root_of_the_second_moment(scheme):
    generator = np.random.default_rng(1)
    square = responses(layer_stds(**scheme, **SHAPE), np.ones(5), ball(generator, 40_000, 5), 6, 3, generator) ** 2
    second = theory.theorem1_terms(**scheme, **SHAPE, version="proof")[1]
    assert abs(square.mean() - second**2 * 5 / 7) < 4 * square.std() / math.sqrt(len(square))  # E |u|^2 = d/(d+2)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s["init"])
def test_first_term_of_the_proof_is_the_integral_it_comes_from(scheme):
    betas = layer_stds(**scheme, **SHAPE)
    m, cube, gamma = 6, 64, betas[1] / math.sqrt(2 / 6)
    u = 2 / (m * (betas[0] * betas[-1]) ** 2 * gamma**4)
    tail = integrate.quad(lambda delta: math.exp(-(delta**2 * u + m**2) / (cube * (m + 1))), 0, np.inf, epsrel=1e-10)[
        0
    ]
    # The proof's last step replaces m + 1 by m.
    printed = tail * math.sqrt(m / (m + 1)) * math.exp(-m / ((m + 1) * cube))
    assert theory.theorem1_terms(**scheme, **SHAPE, version="proof")[0] == pytest.approx(printed, rel=1e-8)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s["init"])
def test_versions_differ_by_their_stated_constants(scheme):
    terms = {v: theory.theorem1_terms(**scheme, **SHAPE, version=v) for v in ("neurips", "workshop", "proof")}
    factor = theory.theorem1_terms(**scheme, **SHAPE, version="workshop")[1]
    assert terms["workshop"][0] == terms["proof"][0]
    assert terms["neurips"][0] / terms["proof"][0] == pytest.approx(math.sqrt(8 / math.pi), rel=1e-12)
    assert terms["neurips"][1] / terms["proof"][1] == pytest.approx(math.sqrt(2), rel=1e-12)
    gamma = layer_stds(**scheme, **SHAPE)[1] * math.sqrt(3)
    assert factor == pytest.approx(gamma**2, rel=1e-12)


@pytest.mark.parametrize(("init", "dropped"), [("lecun", 1), ("he", 2), ("ntk", math.sqrt(2))])
@pytest.mark.parametrize("depth", [2, 5, 10])
def test_table_1_is_the_theorem_with_the_betas_inserted(init, dropped, depth):
    for width in (16, 500, 4096):
        shape = {"width": width, "depth": depth, "d_in": 784, "d_out": 10}
        neurips, workshop = (theory.theorem1(init, **shape, version=v) for v in ("neurips", "workshop"))
        assert neurips == pytest.approx(dropped * theory.table1(init, **shape, version="neurips"), rel=1e-12)
        assert workshop == pytest.approx(theory.table1(init, **shape, version="workshop"), rel=1e-12)


@pytest.mark.parametrize("init", ["lecun", "he", "ntk"])
def test_proof_version_bounds_every_initial_value(init):
    for width in (1, 16, 256, 4096):
        for depth in (2, 6, 10):
            shape = {"width": width, "depth": depth, "d_in": 784, "d_out": 10}
            assert theory.theorem1_terms(init, **shape, version="proof")[1] > theory.stability_at_init(init, **shape)


@pytest.mark.parametrize("depth", [2, 4, 6, 8, 10])
@pytest.mark.parametrize(("init", "version"), [("he", "neurips"), ("ntk", "workshop"), ("lecun", "neurips")])
def test_peak_width_is_where_the_table_is_largest(depth, init, version):
    values = [
        theory.table1(init, width=m, depth=depth, d_in=784, d_out=10, version=version) for m in range(1, 2 * depth**3)
    ]
    assert 1 + int(np.argmax(values)) == theory.peak_width(depth)


@pytest.mark.parametrize("depth", [2, 3, 6, 10])
@pytest.mark.parametrize(("d_in", "d_out", "n"), [(64, 10, 1437), (784, 10, 60_000), (3072, 100, 50_000)])
def test_the_interpolation_width_is_where_the_weights_outnumber_the_points(depth, d_in, d_out, n):
    def weights(width):
        sizes = [d_in, *[width] * (depth - 1), d_out]
        return sum(a * b for a, b in zip(sizes[:-1], sizes[1:], strict=True))

    first = next(width for width in range(1, n) if weights(width) >= n)
    assert first - 1 < theory.interpolation_width(depth, d_in=d_in, d_out=d_out, n=n) <= first


def test_extreme_nets_neither_overflow_nor_underflow():
    shape = {"width": 2**14, "depth": 10, "d_in": 784, "d_out": 10}
    first, second = theory.theorem1_terms("power", power=3, **shape, version="neurips")
    # beta = 2^-42, gamma = 2^-35.5: by powers of two, m beta^2 gamma^8 = 2^(14 - 84 - 284)
    assert first == pytest.approx(10**1.5 * math.exp(-16.384) * 2.0**-354, rel=1e-10)
    assert second == pytest.approx(math.sqrt(10) * 2.0**-361, rel=1e-10)
    exact = theory.stability_at_init("power", power=3, **shape)
    assert 0.9 < exact / (second / math.sqrt(2)) < 1
    assert theory.stability_at_init("power", power=100, **shape) == 0
    assert theory.table2(width=16, depth=2000, d_out=10)["huang"] == math.inf


def test_table_2_entries():
    values = theory.table2(width=64, depth=3, d_out=4)
    assert values["ours"] == pytest.approx(math.sqrt(27 * 16) * math.exp(-64 / 27) + 1, rel=1e-12)
    assert values["wu"] == pytest.approx(9 * 4 * math.sqrt(6 * math.log(2)) + 8 * math.sqrt(3), rel=1e-12)
    assert values["huang"] == pytest.approx(4 * 8, rel=1e-12)
    workshop = theory.table2(width=64, depth=3, d_out=4, version="workshop")
    assert workshop.pop("ours") == pytest.approx(math.sqrt(math.pi * 27) * 2 * math.exp(-64 / 27) + 1, rel=1e-12)
    assert workshop == {name: values[name] for name in workshop}
    wide = theory.table2(width=2**42, depth=2, d_out=10)  # the caption's condition: 2^42/(log 2^42)^6 > 2^12
    assert wide["wu_reduced"] < wide["wu"] < 2 * wide["wu_reduced"]


# ---------------------------------------------------------------------------------------------- Theorems 2 and 3


def test_theorem_2_closed_forms():
    for width in (16, 1024):
        square, bound = theory.theorem2(width=width, depth=2, betas=[width**-2.0] * 2)
        assert square == pytest.approx(4 / width, rel=1e-12)
        assert bound == pytest.approx(math.sqrt(width / 24) - 1.5, rel=1e-12)
        at_threshold = theory.theorem2(width=width, depth=2, betas=[width**-1.5] * 2)
        assert at_threshold == pytest.approx((4, 1 / math.sqrt(24) - 1.5), rel=1e-12)


def test_theorem_2_bound_is_respected_by_a_trained_network():
    m, betas, alpha = 8, [1e-3, 2e-3, 1e-3], 0.5
    generator = np.random.default_rng(0)
    weights = [b * generator.standard_normal(s) for b, s in zip(betas, [(m, 2), (m, m), (1, m)], strict=True)]
    # all signs positive, so that the net is linear and surely learns its one point
    weights = start = [np.abs(w) for w in weights]
    x, y = np.array([0.6, 0.8]), 1.0
    for _ in range(20_000):
        a, b, c = weights
        error = (c @ b @ a @ x)[0] / alpha - y
        if error**2 / 2 <= 1 / 32:
            break
        left, right = (c @ b).ravel(), a @ x
        grads = [np.outer(left, x), np.outer(c.ravel(), right), (b @ right)[None, :]]
        weights = [w - 0.02 * error / alpha * g for w, g in zip(weights, grads, strict=True)]
    assert error**2 / 2 <= 1 / 32
    condition, bound = theory.theorem2(width=m, depth=3, betas=betas, alpha=alpha)
    assert condition < 0.01 and bound > 1
    for now, before in zip(weights, start, strict=True):
        assert np.linalg.norm(now - before) / np.linalg.norm(before) > bound


def test_theorem_3_value_and_order():
    value = theory.theorem3(n=4, width=16, power=2)
    assert value == pytest.approx((math.sqrt(8 * math.log(4)) + 4) / 16 * (1 / 32 + 1 / 64), rel=1e-12)
    # For m >> n^2 the first inner term dominates: m^(1/2-c), not the Remark's m^(3/2-2c).
    for power in (2, 3):
        wide = [math.log(theory.theorem3(n=8, width=2**k, power=power)) for k in (39, 40)]
        assert (wide[1] - wide[0]) / math.log(2) == pytest.approx(0.5 - power, abs=0.02)


@pytest.mark.parametrize(("power", "printed"), [(2, 2.5), (3, 4.5)])
def test_the_remark_is_its_printed_power_and_the_smaller_term_where_m_is_far_above_n_squared(power, printed):
    n, width = 9, 2**20
    front = math.sqrt(n * 20 * math.log(2)) + n
    remark = theory.theorem3_remark(n=n, width=width, power=power)
    assert remark == pytest.approx(front / width**printed, rel=1e-12)
    assert remark < theory.theorem3(n=n, width=width, power=power) / 2


@pytest.mark.parametrize(
    ("init", "own", "value"),
    [("he", {}, 1), ("ntk", {}, 1), ("lecun", {}, 2**-0.5), ("gain", {"gain": 1.3}, 1.3)],
)
def test_gamma_is_the_mean_stretch_of_a_wide_layer(init, own, value):
    assert theory.gamma(init, width=64, **own) == pytest.approx(value, rel=1e-12)
    # One more layer multiplies P by gamma, up to 1 - 5/(8 m).
    two, three = (theory.stability_at_init(init, width=4096, depth=L, d_in=4096, d_out=10, **own) for L in (4, 5))
    assert three / two == pytest.approx(theory.gamma(init, width=4096, **own), rel=1 / 4096)


def test_gamma_of_small_weights():
    assert theory.gamma("power", power=2, width=50) == pytest.approx(50**-2 * 5, rel=1e-12)


def flow(width, d, power, n, times, nets, seed, alpha, step):
    """Euler steps of gradient flow on 1/2 sum (f - y)^2 for many two-layer nets at once."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((n, d))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = np.sign(generator.standard_normal(n))
    a = width**-power * generator.standard_normal((nets, width))
    w = width**-power * generator.standard_normal((nets, width, d))
    q = (np.sum(a**2, 1) + np.sum(w**2, (1, 2))) / 2
    norms, residual, now = [], None, 0
    for time in times:
        while now < round(time / step):
            before = w @ x.T  # net, unit, point
            error = np.einsum("br,bri->bi", a, np.maximum(before, 0)) / alpha - y
            residual = np.linalg.norm(error, axis=1) if residual is None else residual
            grad_a = np.einsum("bi,bri->br", error, np.maximum(before, 0)) / alpha
            w = w - step * np.einsum("bi,br,bri,id->brd", error, a, before > 0, x) / alpha
            a, now = a - step * grad_a, now + 1
        gradient = np.einsum("br,bri,brd->bid", a, w @ x.T > 0, w) / alpha
        norms.append(np.linalg.norm(gradient, axis=2).max(1))  # at the training point where it is largest
    return q, residual, norms


def test_corrected_theorem_3_is_respected_along_gradient_flow():
    shape, times = {"width": 12, "d_in": 3, "power": 0.5, "n": 3, "alpha": 1.5}, [0.1, 0.3, 1.0]
    q, residual, norms = flow(12, 3, 0.5, 3, times, 100, 0, 1.5, step=2e-3)
    projection = integrate.quad(lambda u: u * (1 - u * u), 0, 1)[0] / integrate.quad(lambda u: 1 - u * u, 0, 1)[0]
    mean_q = 12**0 * (1 + 3) / 2
    for time, norm in zip(times, norms, strict=True):
        bounds = [theory.theorem3_corrected(**shape, time=time, residual=float(r)) for r in residual]
        assert (projection * norm < np.array(bounds) * q / mean_q).all()
        # The same with ||y|| = sqrt(n), whatever the start: so for the mean over starts, which q(0) alone decides.
        for_all = theory.theorem3_corrected(**shape, time=time, residual=math.sqrt(3))
        assert (projection * norm < for_all * q / mean_q).all()
        assert projection * norm.mean() < theory.theorem3_corrected(**shape, time=time, residual=math.sqrt(3))


def test_corrected_theorem_3_starts_at_the_mean_norm():
    generator = np.random.default_rng(3)
    beta, count = 4**-1.5, 20_000
    squares = (beta * generator.standard_normal((count, 4, 8))) ** 2  # a_r and the seven weights of w_r
    products = squares.sum((1, 2)) / 2 * np.abs(ball(generator, count, 7)[:, 0]) / 0.5
    value = theory.theorem3_corrected(width=4, d_in=7, power=1.5, n=9, time=0, residual=5, alpha=0.5)
    assert abs(products.mean() - value) < 4 * products.std() / math.sqrt(count)


def test_corrected_theorem_3_growth_and_rate():
    shape = {"d_in": 784, "n": 16, "residual": 4.0, "alpha": 2.0}
    start, later = (theory.theorem3_corrected(width=64, power=2, time=t, **shape) for t in (0, 3))
    assert math.log(later / start) == pytest.approx(2 * 4 * 4 * 3 / 2, rel=1e-12)
    wide = theory.theorem3_corrected(width=16384, power=3, time=3, **shape)
    narrow = theory.theorem3_corrected(width=8192, power=3, time=3, **shape)
    assert wide / narrow == pytest.approx(2.0**-5, rel=1e-9)
    assert theory.theorem3_corrected(width=64, power=2, time=1e6, **shape) == math.inf


def test_h_infinity_is_the_expectation():
    generator = np.random.default_rng(5)
    x = np.array([[1.0, 2, 0], [0.5, -1, 3], [-1, 0, 0.2]])
    a = 0.3 * generator.standard_normal(100_000)
    on = 2.0 * generator.standard_normal((100_000, 3)) @ x.T > 0
    sample = 7 / 4 * (a[:, None, None] ** 2) * (on[:, :, None] & on[:, None, :]) * (x @ x.T)
    gap = np.abs(sample.mean(0) - theory.h_infinity(x, width=7, beta2=0.3, alpha=2.0))
    assert (gap < 4 * sample.std(0) / math.sqrt(len(a))).all()


def test_h_infinity_special_angles():
    x = np.array([[0.6, 0.8], [1.2, 1.6], [-0.6, -0.8], [0.8, -0.6]])
    value = theory.h_infinity(x, width=10, beta2=1)
    assert value[0] == pytest.approx([5, 10, 0, 0], abs=1e-6)  # same, parallel, opposite, orthogonal; arccos near 1
    assert np.diag(value) == pytest.approx([5, 20, 5, 5], rel=1e-14)


def test_output_radius_is_negative_whatever_the_inputs():
    generator = np.random.default_rng(7)
    for _ in range(50):
        n, d, width = (int(k) for k in generator.integers(1, 9, 3))
        beta1, beta2, alpha = (float(v) for v in np.exp(generator.uniform(-9, 3, 3)))
        x = generator.standard_normal((n, d + n))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        lambda0 = float(np.linalg.eigvalsh(theory.h_infinity(x, width=width, beta2=beta2, alpha=alpha))[0])
        numbers = {"lambda0": lambda0, "n": n, "width": width, "alpha": alpha, "beta1": beta1, "beta2": beta2}
        r_a, r_w = theory.radii(**numbers)
        assert r_a < 0 < r_w
        assert theory.critical_times(**numbers, residual=1)[1] < 0


def test_radii_solve_the_last_line_of_lemma_8():
    numbers = {"lambda0": 90.0, "n": 3, "width": 20, "alpha": 1.5, "beta1": 0.2, "beta2": 0.01}
    r_a, r_w = theory.radii(**numbers)
    front, root = 20 * 27 / 1.5**2, math.sqrt(2 / math.pi)
    assert r_a > 0  # only because lambda_0 is larger here than unit inputs allow
    assert front * (r_a + root * 0.01) ** 2 == pytest.approx(90 / 8, rel=1e-12)
    moved = 4 * r_w / (math.sqrt(2 * math.pi) * 0.2) * (r_a * (r_a + 2 * root * 0.01) + 0.01**2)
    assert front * moved == pytest.approx(90 / 8, rel=1e-12)


def test_critical_times_bring_the_movement_to_its_radius():
    numbers = {"lambda0": 90.0, "n": 3, "width": 20, "alpha": 1.5, "beta1": 0.2, "beta2": 0.01}
    r_a, r_w = theory.radii(**numbers)
    t_1, t_2 = theory.critical_times(**numbers, residual=60)

    def moved(speed, time):
        return 2 * math.sqrt(3) / (90 * 1.5) * speed * 60 * (1 - math.exp(-90 * time / 2))

    assert moved(math.sqrt(3) * 0.01 + r_a, t_1) == pytest.approx(r_w, rel=1e-10)
    assert moved(3 * 0.2 * math.sqrt(math.log(20 * 9)) + r_w, t_2) == pytest.approx(r_a, rel=1e-10)
    assert theory.critical_times(**numbers, residual=1e-3) == (math.inf, math.inf)


# ---------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: theory.theorem1("he", **SHAPE, version="arxiv"), "version is 'arxiv'"),
        (lambda: theory.theorem1("he", **(SHAPE | {"width": 0}), version="proof"), "width is 0"),
        (lambda: theory.table1("power", **SHAPE, version="neurips"), "init is 'power'"),
        (lambda: theory.table1("he", **SHAPE, version="proof"), "version is 'proof'"),
        (lambda: theory.table2(width=16, depth=1, d_out=1), "depth is 1"),
        (lambda: theory.stability_at_init("he", **SHAPE, alpha=0), "alpha is 0"),
        (lambda: theory.stability_at_init("power", **SHAPE), "power is None"),
        (lambda: theory.stability_spread(width=2.5, depth=2, d_out=1), "width is 2.5"),
        (lambda: theory.theorem2(width=4, depth=3, betas=[1.0, 1.0]), "betas has 2 values"),
        (lambda: theory.theorem2(width=4, depth=2, betas=[1.0, -1.0]), "betas is -1.0"),
        (lambda: theory.theorem3(n=0, width=4, power=2), "n is 0"),
        (
            lambda: theory.theorem3_corrected(width=4, d_in=2, power=2, n=3, time=-1, residual=1),
            "time is -1",
        ),
        (lambda: theory.h_infinity(np.zeros((2, 3)), width=4, beta2=1), "zero or not finite"),
        (lambda: theory.h_infinity(np.ones(3), width=4, beta2=1), "shape (3,)"),
        (lambda: theory.radii(lambda0=0, n=1, width=4, alpha=1, beta1=1, beta2=1), "lambda0 is 0"),
        (
            lambda: theory.critical_times(lambda0=1, n=1, width=4, alpha=1, beta1=1, beta2=1, residual=0),
            "residual is 0",
        ),
        (lambda: theory.peak_width(2.5), "depth is 2.5"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError) as caught:
        call()
    assert words in str(caught.value)
