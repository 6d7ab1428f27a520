"""The metric against closed forms, other quadratures, sampling and other ways of differentiating."""

import gc
import importlib.util
import json
import math
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from torch import nn

from robustkit import stability, theory
from robustkit.networks import FCN
from robustkit.stability import (
    Estimate,
    expected_norm,
    gram,
    jacobian,
    norm_in_ball,
    perturbation_stability,
    sample_ball,
    spectrum,
)

# torch's forward mode loads a part of torch that warns of torch's own deprecated calls.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning"),
    pytest.mark.usefixtures("one_thread"),
]

F64 = torch.float64
METHODS = pytest.mark.parametrize("method", ["exact", "jvp", "finite_difference"])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def of_its_own(seed):
    """The generator of the directions of a call that is given `seeded(seed)`."""
    return seeded(torch.randint(2**62, (), generator=seeded(seed)).item())


def normal(*shape, seed=0, dtype=F64):
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def chi_mean(k):
    """E ||g|| of k standard normals, for k small enough that the gamma function does not overflow."""
    return math.sqrt(2) * math.gamma((k + 1) / 2) / math.gamma(k / 2)


def ball_factor(d):
    """E||J u|| / E||J g||: the mean radius d/(d+1) of the ball over that of the normal."""
    return d / (d + 1) / chi_mean(d)


def with_singular_values(values, d_out, d_in, seed=0):
    """A matrix with these singular values between random rotations."""
    left, _ = torch.linalg.qr(normal(d_out, d_out, seed=seed))
    right, _ = torch.linalg.qr(normal(d_in, d_in, seed=seed + 1))
    middle = torch.zeros(d_out, d_in, dtype=F64)
    middle[range(len(values)), range(len(values))] = torch.tensor(values, dtype=F64)
    return left @ middle @ right


# ------------------------------------------------------------------------------------------------ expected_norm

# The trapezoid is good to 1e-12, the eigenvalues of J J^T to some roundings of the largest.
CLOSE = 2e-12


@pytest.mark.parametrize("d", [1, 2, 3, 10, 99])
def test_one_output_is_a_mean_absolute_value(d):
    v = normal(1, d, seed=d)
    exact = v.norm().item() * math.sqrt(2 / math.pi) * ball_factor(d)
    assert expected_norm(v).item() == pytest.approx(exact, rel=CLOSE)


def test_one_input_is_half_the_norm():
    """In one dimension u is uniform on [-1, 1] and E|u| = 1/2."""
    v = normal(6, 1)
    assert expected_norm(v).item() == pytest.approx(v.norm().item() / 2, rel=CLOSE)


@pytest.mark.parametrize("d", [784, 3072])
def test_image_sizes(d):
    """E|u_1| = d/(d+1) Gamma(d/2) / (sqrt(pi) Gamma((d+1)/2)), its ratio of gammas as a product of integers."""
    above, below = math.prod(range(2, d, 2)), math.prod(range(3, d, 2))
    exact = d / (d + 1) * 2 / math.pi * (above / below if above < 1e300 else above * 10**30 // below / 1e30)
    v = torch.zeros(1, d)
    v[0, 3] = 1
    assert expected_norm(v).item() == pytest.approx(exact, rel=CLOSE)


@pytest.mark.parametrize("d", [784, 3072, 4_000, 150_528, 3 * 1024**2])
def test_two_sizes_in_a_row(d):
    """E|u_1| in d times that in d + 1 is 2/(pi (d + 2)): the gamma functions cancel."""
    one, two = (norm_in_ball(torch.ones(1, dtype=F64), size).item() for size in (d, d + 1))
    assert one * two == pytest.approx(2 / (math.pi * (d + 2)), rel=2 * CLOSE)


@pytest.mark.parametrize("b", [1e-6, 0.1, 0.9, 1.0])
@pytest.mark.parametrize(("d_out", "d_in"), [(2, 2), (2, 9), (9, 2), (5, 5)])
def test_two_singular_values_are_an_ellipse(b, d_out, d_in):
    """E sqrt(a^2 g^2 + b^2 g'^2) = a sqrt(2/pi) E(1 - b^2/a^2): the perimeter of an ellipse."""
    exact = 3 * math.sqrt(2 / math.pi) * special.ellipe(1 - b**2) * ball_factor(d_in)
    assert expected_norm(with_singular_values([3, 3 * b], d_out, d_in)).item() == pytest.approx(exact, rel=CLOSE)


def test_three_singular_values_are_carlsons_integral():
    """The mean of ||J s|| over the sphere in three dimensions is R_G, the surface of an ellipsoid."""
    exact = 3 / 4 * special.elliprg(4.0, 1.0, 0.09)
    assert expected_norm(with_singular_values([2, 1, 0.3], 3, 3)).item() == pytest.approx(exact, rel=CLOSE)
    exact = chi_mean(3) * special.elliprg(4.0, 1.0, 0.09) * ball_factor(20)
    assert expected_norm(with_singular_values([2, 1, 0.3], 7, 20)).item() == pytest.approx(exact, rel=CLOSE)


@pytest.mark.parametrize("k", [1_000, 3_000])
def test_as_many_equal_singular_values_as_a_large_classifier_has_logits(k):
    """E ||g|| of k normals from Stirling's series, whose next term is below 1/(10 k)^3."""
    exact = math.sqrt(k) * (1 - 1 / (4 * k) + 1 / (32 * k**2) + 5 / (128 * k**3)) * ball_factor(200)
    assert norm_in_ball(torch.ones(2, k, dtype=F64), 200).tolist() == pytest.approx([exact] * 2, rel=4e-12)


@pytest.mark.parametrize(("k", "d"), [(1, 4), (4, 4), (10, 64), (64, 64)])
def test_equal_singular_values(k, d):
    exact = 1.7 * chi_mean(k) * ball_factor(d)
    assert expected_norm(with_singular_values([1.7] * k, max(k, 3), d)).item() == pytest.approx(exact, rel=CLOSE)


@pytest.mark.parametrize("seed", range(6))
def test_any_eigenvalues_against_adaptive_quadrature(seed):
    """The integral of the docstring after t = v^2, by scipy to 1e-12, over eigenvalues of six decades."""
    values = 10.0 ** np.random.default_rng(seed).uniform(-3, 3, 10) / 2

    def integrand(v):
        return -np.expm1(-0.5 * np.log1p(2 * v * v * values**2 / (values**2).sum()).sum()) / (v * v)

    near = integrate.quad(integrand, 0, 1, epsabs=0, epsrel=1e-12)[0]
    far = integrate.quad(integrand, 1, math.inf, epsabs=0, epsrel=1e-12)[0]
    exact = (near + far) / math.sqrt(math.pi) * math.sqrt((values**2).sum()) * ball_factor(30)
    assert expected_norm(with_singular_values(values, 10, 30, seed=seed)).item() == pytest.approx(exact, rel=1e-10)


def test_it_is_the_mean_over_the_ball():
    matrix = normal(4, 6, seed=3)
    norms = (sample_ball(100_000, 6, radius=2.5, generator=seeded(1)).double() @ matrix.T).norm(dim=1)
    error = norms.std().item() / math.sqrt(len(norms))
    assert abs(norms.mean().item() - expected_norm(matrix, radius=2.5).item()) < 4 * error


def test_a_zero_jacobian_is_zero():
    assert expected_norm(torch.zeros(3, 5)).item() == 0
    assert expected_norm(torch.stack([torch.zeros(3, 5), torch.ones(3, 5)]))[0].item() == 0


def test_it_scales_exactly_over_sixty_decades():
    matrix = normal(5, 8)
    one = expected_norm(matrix).item()
    for exponent in range(-30, 31, 3):
        scale = 10.0**exponent
        assert expected_norm(scale * matrix).item() == pytest.approx(scale * one, rel=1e-13)
        assert expected_norm(matrix, radius=scale).item() == pytest.approx(scale * one, rel=1e-13)


@pytest.mark.parametrize("scale", [5e-324, 1e-200, 1e-160, 1e160, 1e200, 1e300])
def test_it_scales_over_all_floats(scale):
    """Squares of the entries underflow, or overflow: 0 at 1e-200, 2e-5 off at 1e-160."""
    matrix = scale * torch.tensor([[1, -2, 0], [3, 1, 2]], dtype=F64)
    one = expected_norm(matrix / scale).item()
    assert expected_norm(matrix).item() == pytest.approx(scale * one, rel=1e-13, abs=5e-324)
    for method in ("exact", "jvp"):
        value = perturbation_stability(lambda x: x @ matrix.T, torch.ones(2, 3, dtype=F64), method=method)
        assert value.mean == pytest.approx(scale * one, rel=1e-13 if method == "exact" else 0.9, abs=1e-323)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (2, 0, 3), (3,)])
def test_an_empty_jacobian_is_refused(shape):
    with pytest.raises(ValueError, match=r"jacobian is torch.float32, \(.*\), not a real \(..., d_out, d_in\)"):
        expected_norm(torch.zeros(shape))


def test_rotations_of_either_side_change_nothing():
    matrix = normal(5, 8)
    left, right = (torch.linalg.qr(normal(n, n, seed=n))[0] for n in (5, 8))
    one = expected_norm(matrix).item()
    assert expected_norm(left @ matrix).item() == pytest.approx(one, rel=1e-12)
    assert expected_norm(matrix @ right).item() == pytest.approx(one, rel=1e-12)


def test_more_outputs_than_inputs():
    """J = Q R with Q's columns orthonormal: only R counts."""
    tall = normal(40, 6)
    assert expected_norm(tall).item() == pytest.approx(expected_norm(torch.linalg.qr(tall).R).item(), rel=1e-12)


def test_batches_keep_their_shape():
    matrices = normal(2, 3, 4, 6)
    values = expected_norm(matrices)
    assert values.shape == (2, 3) and values.dtype == F64
    one_by_one = torch.tensor([[expected_norm(m).item() for m in row] for row in matrices], dtype=F64)
    assert torch.allclose(values, one_by_one, rtol=1e-13)
    assert expected_norm(matrices.float()).dtype == F64


@pytest.mark.parametrize("shape", [(2, 5, 300), (3, 300, 5), (1, 7, 1)])
def test_a_jacobian_too_large_to_convert_at_once(shape, monkeypatch):
    matrices = normal(*shape, dtype=torch.float32)
    whole = spectrum(gram(matrices))
    monkeypatch.setattr(stability, "BLOCK", 1)
    assert torch.allclose(spectrum(gram(matrices)), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_jacobian_that_is_not_finite_is_refused(bad):
    matrix = normal(3, 4)
    matrix[1, 2] = bad
    with pytest.raises(ValueError, match="not finite"):
        expected_norm(matrix)
    with pytest.raises(ValueError, match=r"jacobian is torch.float32, \(4,\)"):
        expected_norm(torch.ones(4))


@pytest.mark.parametrize("radius", [0, -1.0, math.nan, math.inf])
def test_a_radius_that_is_none_is_refused(radius):
    with pytest.raises(ValueError, match="radius"):
        expected_norm(normal(3, 4), radius=radius)
    with pytest.raises(ValueError, match="radius"):
        sample_ball(3, 4, radius=radius)


# ------------------------------------------------------------------------------------------------ sample_ball


@pytest.mark.parametrize("d", [1, 2, 10, 784])
def test_the_ball_is_filled_evenly(d):
    n = 20_000 if d < 100 else 2_000
    points = sample_ball(n, d, radius=3.0, generator=seeded(d)).double()
    assert points.shape == (n, d)
    norms = points.norm(dim=1)
    assert norms.max() <= 3 * (1 + 1e-6)
    # The share of the volume within r is (r/R)^d, so (r/R)^d is uniform: sqrt(n) D exceeds 2.2 once in 8000.
    assert stats.kstest((norms / 3).numpy() ** d, "uniform").statistic < 2.2 / math.sqrt(n)
    assert abs(norms.mean().item() - 3 * d / (d + 1)) < 4 * norms.std().item() / math.sqrt(n)


def test_the_ball_has_no_preferred_direction():
    n, d, radius = 50_000, 5, 2.0
    points = sample_ball(n, d, radius=radius, generator=seeded()).double()
    assert (points.mean(0).abs() < 4 * points.std(0) / math.sqrt(n)).all()
    products = points[:, :, None] * points[:, None, :]
    expected = torch.eye(d).double() * radius**2 / (d + 2)
    assert ((products.mean(0) - expected).abs() < 4 * products.std(0) / math.sqrt(n)).all()


def test_a_generator_gives_the_same_points_again(poisoned_seeds):
    poisoned_seeds(0)
    first = sample_ball(4, 3, generator=seeded(2))
    poisoned_seeds(1)
    assert torch.equal(sample_ball(4, 3, generator=seeded(2)), first)
    assert not torch.equal(sample_ball(4, 3, generator=seeded(3)), first)


@pytest.mark.parametrize(("n", "d"), [(0, 3), (3, 0), (-1, 3)])
def test_an_empty_ball_is_refused(n, d):
    with pytest.raises(ValueError, match=f"n is {n}, d is {d}"):
        sample_ball(n, d)


# ------------------------------------------------------------------------------------------------ the estimators


class Smooth(nn.Module):
    """A nonlinear classifier of 2 x 3 images with many derivatives."""

    def __init__(self, d_out=4):
        super().__init__()
        self.first, self.last = nn.Parameter(normal(9, 6, seed=1)), nn.Parameter(normal(d_out, 9, seed=2))

    def forward(self, x):
        return torch.tanh(x.flatten(1) @ self.first.T / 2) @ self.last.T


POINTS = normal(7, 2, 3, seed=5)


def test_the_jacobian_is_autograds():
    model = Smooth()
    expected = torch.stack([torch.func.jacrev(model)(x[None])[0, :, 0].flatten(1) for x in POINTS])
    assert torch.allclose(jacobian(model, POINTS), expected, rtol=1e-12, atol=1e-14)


def test_the_jacobian_of_a_linear_map_is_its_matrix():
    matrix = normal(4, 6)
    rows = jacobian(lambda x: x.flatten(1) @ matrix.T, POINTS)
    assert torch.allclose(rows, matrix.expand(7, 4, 6), rtol=1e-14)


@pytest.mark.parametrize("copies", [1, 2, 3, 4, 9])
def test_several_logits_in_one_pass_give_the_same_jacobian(copies):
    assert torch.allclose(jacobian(Smooth(), POINTS, copies=copies), jacobian(Smooth(), POINTS), rtol=1e-13)


@METHODS
def test_an_estimate_is_the_mean_and_its_error_over_the_points(method):
    model, u = Smooth(), sample_ball(7, 6, generator=of_its_own(3)).to(F64).reshape(7, 2, 3)
    estimate = perturbation_stability(model, POINTS, method=method, radius=0.1, generator=seeded(3))
    if method == "exact":
        values = [perturbation_stability(model, x[None]).mean for x in POINTS]
    elif method == "jvp":
        values = torch.einsum("nod,nd->no", jacobian(model, POINTS), u.flatten(1)).norm(dim=1).tolist()
    else:
        values = ((model(POINTS + 0.1 * u) - model(POINTS)).norm(dim=1) / 0.1).tolist()
    assert isinstance(estimate, Estimate) and estimate.n == 7
    assert estimate.mean == pytest.approx(np.mean(values), rel=1e-12)
    assert estimate.sem == pytest.approx(np.std(values, ddof=1) / math.sqrt(7), rel=1e-10)


def test_one_point_has_no_standard_error():
    mean, sem, n = perturbation_stability(Smooth(), POINTS[:1])
    assert mean > 0 and math.isnan(sem) and n == 1


def test_the_three_methods_agree_on_a_nonlinear_model():
    """One point 20 000 times over, so that the standard error is that of the drawn directions."""
    model, x = Smooth(), POINTS[2:3]
    exact = perturbation_stability(model, x).mean
    many = x.repeat(20_000, 1, 1)
    for method, radius in (("jvp", 1.0), ("finite_difference", 1e-5)):
        sampled = perturbation_stability(model, many, method=method, radius=radius, generator=seeded(4), chunk=5_000)
        assert abs(sampled.mean - exact) < 4 * sampled.sem


def test_more_draws_are_their_mean():
    model, generator, matrices = Smooth(), of_its_own(6), jacobian(Smooth(), POINTS)
    several = perturbation_stability(model, POINTS, method="jvp", draws=5, generator=seeded(6))
    draws = torch.stack([sample_ball(7, 6, generator=generator).to(F64) for _ in range(5)])
    assert several.mean == pytest.approx(torch.einsum("nod,knd->kno", matrices, draws).norm(dim=2).mean().item())
    assert several.n == 7


def test_finite_differences_converge_at_small_radius():
    """On a smooth model the error is proportional to the radius: a tenth of one, a tenth of the other."""
    model = Smooth()

    def value(method, radius=1.0):
        return perturbation_stability(model, POINTS, method=method, radius=radius, generator=seeded(8)).mean

    limit = value("jvp")
    errors = [abs(value("finite_difference", radius) - limit) / limit for radius in (1e-1, 1e-2, 1e-3)]
    assert errors[0] > 1e-5 and errors[2] < 1e-3
    for larger, smaller in zip(errors[:-1], errors[1:], strict=True):
        assert smaller == pytest.approx(larger / 10, rel=0.5)


def test_p_is_linear_in_the_radius_so_the_ratio_does_not_depend_on_it():
    model, matrix = Smooth(), normal(4, 6)
    assert perturbation_stability(model, POINTS, radius=1e-3) == perturbation_stability(model, POINTS, radius=1e3)

    def linear(x):
        return x.flatten(1) @ matrix.T

    options = {"method": "finite_difference"}
    one = perturbation_stability(linear, POINTS, radius=1.0, generator=seeded(1), **options)
    far = perturbation_stability(linear, POINTS, radius=100.0, generator=seeded(1), **options)
    assert far.mean == pytest.approx(one.mean, rel=1e-12)


@METHODS
def test_the_chunk_changes_nothing(method):
    """Not even the directions: a seed names them."""
    model = Smooth()
    for relative in (False, True):
        options = {"method": method, "relative": relative, "draws": 2, "radius": 0.1}
        whole = perturbation_stability(model, POINTS, generator=seeded(1), **options)
        for chunk in (1, 2, 7, 10**9):
            part = perturbation_stability(model, POINTS, generator=seeded(1), chunk=chunk, **options)
            assert part == pytest.approx(whole, rel=1e-10)


@METHODS
@pytest.mark.parametrize(
    ("shape", "chunk", "most"), [((300, 64), None, 256), ((9, 3, 224, 224), None, 4), ((9, 3, 224, 224), 6, 6)]
)
def test_fewer_points_go_through_the_model_at_once_where_they_are_large(shape, chunk, most, method):
    sizes = []

    def model(x):
        sizes.append(len(x))
        return x.flatten(1)[:, :2] ** 2

    estimate = perturbation_stability(model, torch.ones(shape), method=method, chunk=chunk, generator=seeded())
    assert max(sizes) == most and estimate.n == shape[0]


def test_relative_divides_by_the_mean_norm_of_the_centred_logits():
    model = Smooth()
    logits = model(POINTS).detach().numpy()
    scale = np.linalg.norm(logits - logits.mean(1, keepdims=True), axis=1).mean()
    plain, relative = (perturbation_stability(model, POINTS, relative=r) for r in (False, True))
    assert relative.mean == pytest.approx(plain.mean / scale, rel=1e-12)
    assert relative.sem == pytest.approx(plain.sem / scale, rel=1e-12)
    louder = perturbation_stability(lambda x: 50 * model(x) + 3, POINTS, relative=True)
    assert louder.mean == pytest.approx(relative.mean, rel=1e-12)


@METHODS
def test_a_users_model_is_left_as_it_was(method):
    net = nn.Sequential(
        *(nn.ReLU(inplace=True), nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.LazyLinear(3))
    )
    x = normal(5, 1, 4, 4, dtype=torch.float32)
    net(x.clone()).sum().backward()
    net.eval()
    net[0].train()  # harmless there
    net[1].weight.requires_grad_(False)
    points, outputs = x.clone(), []
    net.register_forward_hook(lambda module, inputs, output: outputs.append(weakref.ref(output)))

    def state():
        parameters = {n: (p.requires_grad, p.grad.tolist()) for n, p in net.named_parameters()}
        return parameters, {n: v.tolist() for n, v in net.state_dict().items()}, [m.training for m in net.modules()]

    before = state()
    with torch.no_grad():
        estimate = perturbation_stability(net, x, method=method, radius=0.1, relative=True, generator=seeded())
        assert not torch.is_grad_enabled()
    assert estimate.mean > 0 and estimate.n == 5 and state() == before
    assert torch.equal(x, points) and not x.requires_grad
    gc.collect()
    assert outputs and not any(output() is not None for output in outputs)  # and with them their graphs


@METHODS
def test_a_flat_model_has_stability_zero(method):
    assert perturbation_stability(lambda x: 0 * x.flatten(1), POINTS, method=method).mean == 0


@pytest.mark.parametrize("method", ["exact", "jvp"])
@pytest.mark.parametrize(
    "model",
    [lambda x: Smooth()(x.detach()), lambda x: Smooth().last[:1].expand(len(x), 9)],
    ids=["detached", "a parameter"],
)
def test_a_model_cut_off_from_its_input_is_refused(model, method):
    """Where nothing can be differentiated zero would be a wrong answer."""
    with pytest.raises(ValueError, match="carry no gradient.*no_grad"):
        perturbation_stability(model, POINTS, method=method)


def test_a_model_under_no_grad_is_refused_by_the_backward_passes():
    model = torch.no_grad()(Smooth().forward)
    with pytest.raises(ValueError, match="no_grad"):
        perturbation_stability(model, POINTS)
    assert perturbation_stability(model, POINTS, method="jvp").mean > 0


class Recurrent(nn.LSTM):
    def forward(self, x):
        return super().forward(x.float())[0].flatten(1)


def drawn_again(*layers):
    """The layers in a row in float64, their parameters drawn from a generator of their own."""
    net, generator = nn.Sequential(*layers).double(), seeded(9)
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=F64) / 2
    return net


def conv(*layers):
    return drawn_again(nn.Unflatten(1, (1, 2)), nn.Conv2d(1, 4, 2), *layers, nn.Flatten(), nn.Linear(8, 3))


def attention(**options):
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, **options)
    return drawn_again(nn.Linear(3, 4), layer, nn.Flatten(), nn.Linear(8, 3))


@pytest.mark.parametrize(
    "model",
    [
        attention(),
        attention().requires_grad_(False),
        conv(nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(), nn.GroupNorm(2, 4)),
        nn.Sequential(nn.LeakyReLU(0.3, inplace=True), Smooth()),
        lambda x: torch.func.vmap(torch.func.grad(lambda z: (z**3).sum()))(x.flatten(1)),
    ],
    ids=["attention", "attention, frozen", "norms", "in place on the points", "torch.func inside"],
)
def test_layers_of_many_kinds(model):
    """Attention leaves its fused kernels, which have no forward mode; layers in place leave the points alone."""
    model = model.eval() if isinstance(model, nn.Module) else model
    many, before = POINTS[2:3].repeat(2_000, 1, 1), POINTS.clone()
    exact = perturbation_stability(model, POINTS[2:3]).mean
    whole = torch.autograd.functional.jacobian(lambda x: model(x.clone())[0], POINTS[2:3])  # (d_out, 1, 2, 3)
    assert exact == pytest.approx(expected_norm(whole.flatten(1)).item(), rel=1e-10)
    for method in ("jvp", "finite_difference"):
        sampled = perturbation_stability(model, many, method=method, radius=1e-6, generator=seeded(4))
        assert abs(sampled.mean - exact) < 4 * sampled.sem
    assert torch.equal(POINTS, before)


def test_a_layer_without_forward_mode_asks_for_another_method():
    with pytest.raises(ValueError, match="method is 'jvp'.*no forward mode"):
        perturbation_stability(Recurrent(3, 2, batch_first=True), POINTS, method="jvp")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    """Sampling and sums are in float32 and float64; over a small radius rounding is most of a difference."""
    model, x = Smooth().float(), POINTS.float()
    coarse = Smooth().to(dtype)
    for method in ("exact", "jvp"):
        fine = perturbation_stability(model, x, method=method, generator=seeded()).mean
        rough = perturbation_stability(coarse, x.to(dtype), method=method, generator=seeded()).mean
        assert rough == pytest.approx(fine, rel=0.02)
    options = {"method": "finite_difference", "draws": 50, "generator": seeded()}
    with pytest.raises(ValueError, match="radius is 0.001, where rounding drowns the change: take .* or more"):
        perturbation_stability(coarse, x.to(dtype), radius=1e-3, **options)
    fine, rough = (perturbation_stability(f, z, **options).mean for f, z in ((model, x), (coarse, x.to(dtype))))
    assert rough == pytest.approx(fine, rel=0.05)


@pytest.mark.parametrize("method", ["exact", "jvp"])
def test_a_derivative_that_is_not_finite_is_refused_and_its_point_named(method):
    x = POINTS.abs()
    x[3] = 0
    for model in (lambda z: z.flatten(1).sqrt(), lambda z: 1 / z.flatten(1)):
        with pytest.raises(
            ValueError, match=r"stability at x\[3\] is not finite: NaN weights, a root at 0, or overflow"
        ):
            perturbation_stability(model, x, method=method, generator=seeded())
        with pytest.raises(ValueError, match=r"stability at x\[3\] is not finite"):
            perturbation_stability(model, x.split(2), method=method, generator=seeded())


@pytest.mark.parametrize(
    "model",
    [
        conv(nn.BatchNorm2d(4)),
        conv(nn.InstanceNorm2d(4, track_running_stats=True)),
        conv(nn.RReLU()),
        conv(nn.Dropout2d(0.01)),
        attention(dropout=0.01),
        Recurrent(3, 2, 2, batch_first=True, dropout=0.01),
    ],
    ids=["batch norm", "instance norm", "rrelu", "dropout", "attention", "recurrent"],
)
def test_a_layer_that_only_evaluation_makes_a_function_of_the_point_is_refused_in_training(model):
    state = {key: value.tolist() for key, value in model.state_dict().items() if "running" in key}
    with pytest.raises(ValueError, match="logits change .* in training mode: call model.eval"):
        perturbation_stability(model, POINTS)
    assert state == {key: value.tolist() for key, value in model.state_dict().items() if "running" in key}
    assert model.training and perturbation_stability(model.eval(), POINTS.to(next(model.parameters()))).mean > 0


@METHODS
@pytest.mark.parametrize("n", [1, 7])
@pytest.mark.parametrize(
    "model",
    [
        lambda x: x.flatten(1) + 0.01 * torch.randn(len(x), 6),
        lambda x: x.flatten(1) - x.flatten(1).mean(0),
        conv(nn.BatchNorm2d(4, track_running_stats=False)).eval(),
    ],
    ids=["noise", "mean over the batch", "batch norm without statistics"],
)
def test_a_model_that_is_no_function_of_the_point_is_refused(model, n, method):
    with pytest.raises(
        ValueError, match="logits change (between calls|with the points beside it), in evaluation mode too"
    ):
        perturbation_stability(model, POINTS[:n], method=method)


def test_training_mode_is_allowed_where_it_changes_nothing():
    model = conv(nn.InstanceNorm2d(4), nn.ReLU())
    assert model.training
    assert perturbation_stability(model, POINTS) == perturbation_stability(model.eval(), POINTS)


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        (
            lambda x: (x.flatten(1), None),
            {},
            r"returned tuple for a batch of 8, not real logits of shape \(n, d_out\)",
        ),
        (lambda x: {"logits": x.flatten(1)}, {}, "returned dict"),
        (lambda x: list(x.flatten(1)), {}, "returned list"),
        (lambda x: x.flatten(1).sum(1), {}, r"returned torch.float64 of shape \(8,\) for a batch of 8"),
        (lambda x: x.flatten(1)[:3], {"chunk": 7}, r"returned .* shape \(3, 6\) for a batch of 8"),
        (lambda x: x, {}, r"returned .* shape \(8, 2, 3\)"),
        (lambda x: x.flatten(1)[:, :0], {}, r"returned .* shape \(8, 0\)"),
        (lambda x: x.flatten(1).long(), {}, r"returned torch.int64 of shape \(8, 6\).*not real logits"),
        (lambda x: torch.fft.fft(x.flatten(1)), {}, "returned torch.complex128"),
        (nn.Linear(3, 2, device="meta"), {}, r"model \(torch.float32 on meta\) fails on x \(torch.float64 on cpu"),
        (Smooth(), {"method": "Exact"}, "method is 'Exact', but must be one of exact, jvp, finite_difference"),
        (Smooth(), {"radius": 0}, "radius is 0, but must be a finite number above 0"),
        (Smooth(), {"radius": -1.0}, "radius is -1.0"),
        (Smooth(), {"radius": math.nan}, "radius is nan"),
        (Smooth(), {"radius": math.inf}, "radius is inf"),
        (Smooth(), {"radius": "1"}, "radius is '1'"),
        (Smooth(), {"draws": 0}, "draws is 0"),
        (Smooth(), {"draws": 1.5, "method": "jvp"}, "draws is 1.5"),
        (Smooth(), {"chunk": 0}, "chunk 0"),
        (Smooth(), {"chunk": 1.5}, "chunk 1.5"),
        (Smooth(1), {"relative": True}, "centred logits are all zero"),
    ],
)
def test_bad_arguments_are_refused(model, options, said):
    with pytest.raises(ValueError, match=said):
        perturbation_stability(model, POINTS, **options)


@METHODS
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_model_that_has_diverged_is_refused_by_every_method(method, bad):
    model = Smooth()
    model.last.data[1, 2] = bad
    with pytest.raises(ValueError, match="not finite"):
        perturbation_stability(model, POINTS, method=method, generator=seeded())


@METHODS
def test_points_that_are_not_finite_are_refused(method):
    """A ReLU network has a finite gradient even where its input and output are NaN."""
    x = normal(7, 6, dtype=torch.float32)
    x[4] = math.nan
    net = FCN(width=5, depth=2, d_in=6, d_out=3, generator=seeded())
    with pytest.raises(ValueError, match="finite"):
        perturbation_stability(net, x, method=method, generator=seeded())


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (torch.ones(5, 6, dtype=torch.int64), r"x is torch.int64 of shape \(5, 6\)"),
        (torch.ones(6), r"x is torch.float32 of shape \(6,\)"),
        (torch.ones(0, 6), r"n at least 1"),
        (torch.ones(5, 0), r"x is torch.float32 of shape \(5, 0\)"),
        (torch.ones(5, 6, dtype=torch.complex64), "x is torch.complex64"),
        (np.ones((5, 6)), "x holds ndarray"),
    ],
)
def test_points_that_are_none_are_refused(x, said):
    with pytest.raises(ValueError, match=said):
        perturbation_stability(lambda z: z, x)


@pytest.mark.parametrize(
    "scheme",
    [{"init": "he"}, {"init": "lecun"}, {"init": "ntk"}, {"init": "power", "power": 2}, {"init": "gain", "gain": 2}],
    ids=lambda s: s["init"],
)
def test_two_hundred_networks_average_to_the_theory_at_initialisation(scheme):
    shape = {"width": 8, "depth": 3, "d_in": 6, "d_out": 3, "alpha": 2.0}
    x, generator = normal(1, 6, dtype=torch.float32), seeded(10)
    values = [perturbation_stability(FCN(**scheme, **shape, generator=generator), x).mean for _ in range(200)]
    expected = theory.stability_at_init(**scheme, **shape)
    assert abs(np.mean(values) - expected) < 4 * np.std(values, ddof=1) / math.sqrt(200)


# ------------------------------------------------------------------------------------------------ a large classifier

RESNET = """
import json, resource, sys
import torch, torchvision
from robustkit.stability import expected_norm, perturbation_stability

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)

def resnet18(classes):
    return torchvision.models.resnet18(weights=None, num_classes=classes).eval()

torch.manual_seed(0)
small = resnet18(10).double()
x = torch.randn(3, 3, 32, 32, dtype=torch.float64)
found = {"exact": perturbation_stability(small, x), "one": perturbation_stability(small, x[:1])}
whole = torch.autograd.functional.jacobian(lambda z: small(z).sum(0), x)  # (10, n, 3, 32, 32)
found["by torch"] = expected_norm(whole.flatten(2).transpose(0, 1)).tolist()
many = x[:1].repeat(100, 1, 1, 1)
for method in ("jvp", "finite_difference"):
    u = torch.Generator().manual_seed(1)
    found[method] = perturbation_stability(small, many, method=method, radius=1e-6, generator=u)

images = torch.rand(8, 3, 224, 224)
ten, thousand = resnet18(10), resnet18(1000)
found["before"] = peak()
found["10 classes"] = perturbation_stability(ten, images[:5])
for method in ("jvp", "finite_difference"):
    found[method + ", 1000 classes"] = perturbation_stability(thousand, images, method=method, generator=u)
coarse = torch.nn.Sequential(torch.nn.AvgPool2d(56), torch.nn.Flatten(), torch.nn.Linear(48, 1000))
found["1000 classes"] = perturbation_stability(coarse, images[:1])
print(json.dumps(found | {"after": peak()}))
"""


@pytest.fixture(scope="module")
def resnet():
    """A random ResNet-18 of torchvision in a process of its own, whose memory is measured."""
    if importlib.util.find_spec("resource") is None or importlib.util.find_spec("torchvision") is None:
        pytest.skip("needs torchvision, and a system that tells the memory of a process")
    command = [sys.executable, "-W", "error::UserWarning", "-c", RESNET]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_resnet18_is_as_exact_as_torchs_own_jacobian(resnet):
    assert resnet["exact"][0] == pytest.approx(np.mean(resnet["by torch"]), rel=1e-10)
    assert resnet["one"][0] == pytest.approx(resnet["by torch"][0], rel=1e-10)
    mean, error, n = resnet["jvp"]
    assert abs(mean - resnet["one"][0]) < 4 * error and n == 100
    assert resnet["finite_difference"][0] == pytest.approx(mean, rel=1e-4)


def test_resnet18_at_full_size_stays_within_four_gibibytes(resnet):
    """And a Jacobian of a thousand logits, 0.56 GiB, is held once."""
    assert all(resnet[kind][0] > 0 for kind in ("10 classes", "jvp, 1000 classes", "finite_difference, 1000 classes"))
    assert resnet["1000 classes"][0] > 0
    assert resnet["after"] < 4 and resnet["after"] - resnet["before"] < 1.5
