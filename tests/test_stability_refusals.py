"""What cannot be measured is refused in a sentence, what can is not; and neither model nor torch is changed by it."""

import copy
import itertools
import math
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from robustkit import stability
from robustkit.data import load_dataset
from robustkit.networks import CNN, FCN
from robustkit.stability import Estimate, expected_norm, perturbation_stability

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.usefixtures("one_thread"),
]

METHODS = pytest.mark.parametrize("method", ["exact", "jvp", "finite_difference"])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed))


def mlp(width=32, depth=3, *, d_in=20, d_out=5, activation=nn.ReLU, seed=1):
    sizes = [d_in] + [width] * (depth - 1) + [d_out]
    layers = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), activation())][:-1]
    net, generator = nn.Sequential(*layers), seeded(seed)
    for layer in layers[::2]:
        layer.weight.data = torch.randn(layer.weight.shape, generator=generator) * math.sqrt(2 / layer.in_features)
        layer.bias.data = 0.1 * torch.randn(layer.bias.shape, generator=generator)
    return net.eval()


X = normal(40, 20, seed=5)


def central(model, x, radius, draws=200):
    """E ||f(x + radius u) - f(x)|| / radius over u of the unit ball, by sampling."""
    u = stability.sample_ball(draws * len(x), x[0].numel(), generator=seeded(9)).reshape(draws, *x.shape).to(x)
    with torch.no_grad():
        return sum((model(x + radius * v) - model(x)).norm(dim=1).mean().item() for v in u) / radius / draws


# ----------------------------------------------------------------------------------------------- one seed, one stream


@pytest.mark.parametrize("method", ["jvp", "finite_difference"])
def test_directions_are_not_the_weights_that_the_same_seed_drew(method):
    """With W_1's rows as directions the network is far more sensitive than in a random one."""
    net = FCN(width=100, depth=3, d_in=784, d_out=10, generator=seeded())
    x = torch.rand(100, 784, generator=seeded(3))
    exact = perturbation_stability(net, x).mean
    sampled = perturbation_stability(net, x, method=method, radius=1e-2, generator=seeded())
    assert sampled.mean == pytest.approx(exact, rel=0.1)
    assert sampled == perturbation_stability(net, x, method=method, radius=1e-2, generator=seeded())
    assert sampled.mean != perturbation_stability(net, x, method=method, radius=1e-2, generator=seeded(1)).mean


def test_a_call_takes_one_number_from_the_generator_and_none_for_the_exact_value(poisoned_seeds):
    generator, other = seeded(), seeded()
    net = mlp()
    perturbation_stability(net, X, method="jvp", draws=3, generator=generator)
    torch.randint(2**62, (), generator=other)
    assert torch.equal(generator.get_state(), other.get_state())
    poisoned_seeds(4)
    first = perturbation_stability(net, X, method="jvp")
    poisoned_seeds(4)
    assert perturbation_stability(net, X, method="jvp") == first != perturbation_stability(net, X, method="jvp")
    state = torch.get_rng_state()
    perturbation_stability(net, X)
    assert torch.equal(torch.get_rng_state(), state)


# ------------------------------------------------------------------------------------------------ noise and mixing


class Noisy(nn.Module):
    """A body, and something after its first layer that is random in training mode, or always."""

    def __init__(self, noise, always=False):
        super().__init__()
        self.first, self.last, self.noise, self.always = nn.Linear(20, 30), nn.Linear(30, 5), noise, always
        self.eval()

    def forward(self, x):
        return self.last(self.noise(self.first(x), self.training or self.always))


class Drop(nn.Module):
    """Stochastic depth: a whole batch skips the branch once in a while."""

    def __init__(self, rate):
        super().__init__()
        self.rate, self.branch = rate, nn.Linear(20, 20)

    def forward(self, x):
        kept = not self.training or torch.rand(()) > self.rate
        return x + self.branch(x) if kept else x


def two_percent(x, training):
    return functional.dropout(x, 0.02, training)


@pytest.mark.parametrize("n", [1, 40])
@pytest.mark.parametrize("seed", range(10))
def test_rare_noise_is_seen_at_every_call(n, seed, poisoned_seeds):
    poisoned_seeds(seed)
    model = Noisy(two_percent).train()
    with pytest.raises(ValueError, match="in training mode: call model.eval"):
        perturbation_stability(model, X[:n])
    assert model.training
    with pytest.raises(ValueError, match="in training mode: call model.eval"):
        perturbation_stability(nn.Sequential(Drop(0.1), nn.Linear(20, 5)), X[:n])
    with pytest.raises(ValueError, match="change between calls, in evaluation mode too") as caught:
        perturbation_stability(Noisy(two_percent, always=True), X[:n])
    assert "model.eval" not in str(caught.value)
    assert perturbation_stability(model.eval(), X[:n]).mean > 0


def test_noise_that_is_not_torchs_own_is_seen_too():
    generator, own = np.random.default_rng(0), seeded()
    for noise in (
        lambda z: z[:, :3] + 0.01 * torch.from_numpy(generator.standard_normal(3)).float(),
        lambda z: z[:, :3] + 0.01 * torch.randn(3, generator=own),
    ):
        with pytest.raises(ValueError, match="change between calls"):
            perturbation_stability(noise, X)


def test_a_model_that_draws_numbers_and_does_not_use_them_is_measured():
    def model(x):
        torch.rand(3)
        return x[:, :4] ** 2

    assert perturbation_stability(model, X).mean > 0


def unit(x):
    return x / x.norm(dim=1, keepdim=True)


MIXING = {
    "the largest of the batch": lambda x: x[:, :5] / x[:, :5].max(),
    "a mean after unit norm": lambda x: unit(x) - unit(x).mean(0),
    "the mean of the batch": lambda x: x - x.mean(0),
    "softmax over the batch": lambda x: torch.softmax(x, 0),
    "batch norm without statistics": nn.Sequential(
        nn.Linear(20, 5), nn.BatchNorm1d(5, track_running_stats=False)
    ).eval(),
    "a running sum": lambda x: x.cumsum(0),
    "the first point": lambda x: x - x[:1],
    "the place in the batch": lambda x: x * torch.arange(1, len(x) + 1)[:, None],
    "attention over points": nn.TransformerEncoderLayer(20, 2, 8, batch_first=False).eval(),
}


@pytest.mark.parametrize("method", ["exact", "finite_difference"])
@pytest.mark.parametrize("points", ["one", "zeros", "many", "alike", "positive"])
@pytest.mark.parametrize("what", MIXING)
def test_points_that_influence_one_another_are_seen(what, points, method):
    x = {"one": X[:1], "zeros": torch.zeros(6, 20), "many": X, "alike": X[:1].expand(9, 20), "positive": X.abs()}[
        points
    ]
    if points == "zeros" and what not in ("batch norm without statistics", "attention over points"):
        x = x + 1e-3
    with pytest.raises(ValueError, match="change with the points beside it, in evaluation mode too") as caught:
        perturbation_stability(MIXING[what], x, method=method)
    assert "model.eval" not in str(caught.value)


@pytest.mark.parametrize(
    "model",
    [
        lambda x: x / x.amax(1, keepdim=True),
        lambda x: torch.softmax(x, 1),
        lambda x: x - x.mean(1, keepdim=True),
        lambda x: (x - x.amax(1, keepdim=True))[:, :7],
        lambda x: x.sort(1).values[:, :4],
        lambda x: torch.log_softmax(x @ torch.ones(20, 3), 1),
    ],
    ids=["max", "softmax", "mean", "shifted", "sorted", "equal logits"],
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_what_a_model_does_within_a_point_is_no_mixing(model, dtype):
    x = X.to(dtype)
    with stability.undisturbed(lambda z: model(z.float()).to(dtype), x):
        stability.check_model(lambda z: model(z.float()).to(dtype), x)
        stability.check_derivative(lambda z: model(z.float()).to(dtype), x)


def test_a_model_that_rejects_made_up_points_is_measured():
    def model(x):
        assert x.min() >= 0 and x.max() <= 1, "pixels must be within 0 and 1"
        return x[:, :3] ** 2

    assert perturbation_stability(model, torch.rand(9, 20, generator=seeded()) / 2 + 0.25).mean > 0


# ------------------------------------------------------------------------------------------------ left as it was


class Counting(nn.Module):
    """A buffer that is replaced, one that is worked on in place, one that is not saved."""

    def __init__(self):
        super().__init__()
        self.layer, self.calls = nn.Linear(20, 4), 0
        self.register_buffer("replaced", torch.zeros(()))
        self.register_buffer("worked", torch.zeros(3), persistent=False)

    def forward(self, x):
        self.replaced = self.replaced + 1
        self.worked += 1
        self.calls += 1
        if self.calls == 7:
            raise RuntimeError("out of luck")
        return self.layer(x)


def state(model):
    buffers = {name: buffer.tolist() for name, buffer in model.named_buffers()}
    grads = {
        name: (p.requires_grad, None if p.grad is None else p.grad.tolist()) for name, p in model.named_parameters()
    }
    return buffers, grads, [module.training for module in model.modules()]


@METHODS
def test_precision_is_full_where_a_model_runs(method):
    """Seen from inside, with what a user may have set for training."""
    switches, seen = (torch.backends.cuda.matmul, torch.backends.cudnn.conv), []
    before = [switch.fp32_precision for switch in switches]

    def model(x):
        seen.append([switch.fp32_precision for switch in switches])
        return x[:, :3] ** 2

    try:
        for switch in switches:
            switch.fp32_precision = "tf32"
        perturbation_stability(model, X, method=method, radius=0.1)
        assert {*map(tuple, seen)} == {("ieee", "ieee")}
        assert [switch.fp32_precision for switch in switches] == ["tf32", "tf32"]
    finally:
        for switch, precision in zip(switches, before, strict=True):
            switch.fp32_precision = precision


@METHODS
@pytest.mark.parametrize("wrapped", [False, True])
def test_buffers_and_modes_are_put_back_whatever_happens(method, wrapped):
    spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(20, 6))
    nets = [spectral, nn.Sequential(nn.Linear(20, 6), nn.BatchNorm1d(6)), Counting()]
    for net, mode in itertools.product(nets, (True, False)):
        net.train(mode)
        before, replaced = state(net), getattr(net, "replaced", None)
        try:
            perturbation_stability((lambda z, net=net: net(z)) if wrapped else net, X, method=method, radius=0.1)
        except (ValueError, RuntimeError) as error:
            assert isinstance(net, Counting) or mode and "call model.eval()" in str(error)
        else:
            assert not mode
        assert state(net) == before and getattr(net, "replaced", None) is replaced


def test_spectral_norm_in_training_mode_is_refused():
    """Each call is one more step of its power iteration."""
    net = nn.utils.parametrizations.spectral_norm(nn.Linear(20, 6))
    with pytest.raises(ValueError, match="in training mode: call model.eval"):
        perturbation_stability(net, X)


def test_a_wrapper_of_a_module_in_training_mode_is_told_as_well():
    net = nn.Sequential(nn.Linear(20, 6), nn.BatchNorm1d(6))
    for model in (
        lambda z: net(z),
        net.forward,
        types.SimpleNamespace(net=net, __call__=None) and (lambda z: net(z)),
    ):
        with pytest.raises(ValueError, match="in training mode: call model.eval"):
            perturbation_stability(model, X)


# ----------------------------------------------------------------------------------------------- derivative, function


class Residual(nn.Module):
    """x + body(x), then a linear head."""

    def __init__(self, body, width=64):
        super().__init__()
        self.body, self.head = body, mlp(d_in=width, depth=2, width=32)

    def forward(self, x):
        return self.head(x + self.body(x))


class Rounded(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return torch.round(x * self.scale) / self.scale


class Detached(nn.Module):
    def forward(self, x):
        return x.detach()


@METHODS
@pytest.mark.filterwarnings("ignore")
def test_a_dynamically_quantised_branch_is_refused(method):
    """It has no derivative, and its scale is that of the whole batch, which is seen first."""
    net = Residual(mlp(64, 3, d_in=64, d_out=64))
    net.body = torch.ao.quantization.quantize_dynamic(net.body, {nn.Linear})
    with pytest.raises(ValueError, match="points beside it|branch of model has no derivative"):
        perturbation_stability(net, WIDE, method=method)
    with pytest.raises(
        ValueError, match="branch of model has no derivative: is it quantised, .*finite_difference.*radius"
    ):
        stability.check_derivative(net, WIDE)


WIDE = torch.rand(30, 64, generator=seeded(2))


@pytest.mark.parametrize("n", [1, 2, 30])
@pytest.mark.parametrize("last", [Rounded(64), Rounded(256), Detached()])
def test_a_rounded_or_detached_branch_is_refused(last, n):
    model = Residual(nn.Sequential(mlp(64, 3, d_in=64, d_out=64), last))
    with pytest.raises(ValueError, match="branch of model has no derivative.*rounded or detached"):
        perturbation_stability(model.double(), WIDE[:n].double())
    with pytest.raises(ValueError, match="branch of model has no derivative.*rounded or detached"):
        perturbation_stability(model.float(), WIDE[:n])


def test_a_straight_through_estimate_of_a_rounded_branch_is_a_derivative():
    class Straight(Rounded):
        def forward(self, x):
            return x + (super().forward(x) - x).detach()

    body = mlp(64, 3, d_in=64, d_out=64)
    fine, coarse = Residual(body), Residual(nn.Sequential(body, Straight(64)))
    assert perturbation_stability(coarse, WIDE).mean == pytest.approx(
        perturbation_stability(fine, WIDE).mean, rel=0.1
    )


BLACK_AND_WHITE = (torch.rand(30, 64, generator=seeded(3)) > 0.5).float()


@pytest.mark.parametrize("method", ["exact", "jvp"])
@pytest.mark.parametrize("n", [1, 30])
@pytest.mark.parametrize("first", [lambda x: x.clamp(0, 1), lambda x: functional.hardtanh(x, 0, 1)])
def test_points_on_kinks_without_derivative_are_refused(first, method, n):
    """Black and white images: at 0 and at 1 the derivative of a clamp is 0, and so was the metric."""
    body = mlp(d_in=64)
    with pytest.raises(ValueError, match="points lie on kinks of model, as of clamp.*finite_difference.*radius"):
        perturbation_stability(lambda z: body(first(z)), BLACK_AND_WHITE[:n], method=method)
    inside = 0.1 + BLACK_AND_WHITE[:n] / 4
    assert perturbation_stability(lambda z: body(first(z)), inside, method=method).mean > 0


@pytest.mark.parametrize("method", ["exact", "jvp"])
@pytest.mark.parametrize("n", [1, 30])
def test_kinks_that_change_the_gradient_are_warned_of(method, n):
    """Half the pixels at the kink of an absolute value, where its derivative is that of neither side."""
    body = mlp(d_in=64)
    with pytest.warns(UserWarning, match=r"on kinks of model.*beside them the gradient is 1\.\d times as long"):
        estimate = perturbation_stability(lambda z: body(z.abs()), BLACK_AND_WHITE[:n], method=method)
    assert estimate.mean > 0


def test_a_single_black_image_among_others_is_no_reason_to_refuse():
    net = FCN(width=64, depth=4, d_in=64, d_out=10, generator=seeded())
    assert perturbation_stability(net, torch.cat([torch.zeros(1, 64), WIDE])).mean > 0


@pytest.mark.parametrize("seed", range(3))
def test_convolutions_without_biases_have_kinks_where_all_they_see_is_black(seed):
    """Its derivative is 0 there, but a perturbation passes; with biases no filter is at its kink."""
    images = torch.zeros(20, 1, 16, 16, dtype=torch.float64)
    images[:, :, 4:12, 4:12] = torch.rand(20, 1, 8, 8, generator=seeded())
    net = CNN(width=16, depth=4, d_out=10, generator=seeded(seed)).double()
    derivative = expected_norm(stability.jacobian(net, images)).mean().item()
    assert central(net, images, 1e-4, draws=20) > 1.3 * derivative
    with pytest.warns(UserWarning, match="points lie on kinks.*beside them the gradient is .* times as long"):
        assert perturbation_stability(net, images).mean == pytest.approx(derivative, rel=1e-12)
    assert perturbation_stability(net, images + 0.1).mean > 0


@pytest.mark.parametrize("n", [1, 2, 50])
@pytest.mark.parametrize("first", [nn.Identity(), nn.BatchNorm2d(1)])
def test_max_pooling_over_a_constant_background_is_measured(first, n, poisoned_seeds):
    """At a tie the derivative is that along one of the pixels, as long as along any other."""
    poisoned_seeds(n)
    images = load_dataset("digits").x_test[:n]
    layers = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    net = nn.Sequential(first, *layers, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 10)).eval()
    rows = torch.stack([torch.func.jacrev(net)(x[None])[0, :, 0].flatten(1) for x in images]).detach()
    estimate = perturbation_stability(net, images)
    assert estimate.values.tolist() == pytest.approx(expected_norm(rows.double()).tolist(), rel=1e-4)
    assert estimate.mean == pytest.approx(central(net, images, 1e-3), rel=0.25)


class Halved(nn.Module):
    """A network that computes in a lower precision than it shows; by its parameters, or in between."""

    def __init__(self, dtype, parameters):
        super().__init__()
        self.body, self.dtype, self.parameters_too = mlp(64, 4, d_in=64), dtype, parameters
        if parameters:
            self.body.to(dtype)

    def forward(self, x):
        if self.parameters_too:
            return self.body(x.to(self.dtype)).float()
        for layer in self.body:
            x = layer(x).to(self.dtype).float()
        return x


@pytest.mark.parametrize("parameters", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_radius_below_the_precision_inside_a_model_is_refused_and_one_that_would_do_is_named(dtype, parameters):
    net = Halved(dtype, parameters)
    exact = perturbation_stability(mlp(64, 4, d_in=64), WIDE).mean
    for radius in (1e-6, 1e-3):
        with pytest.raises(ValueError, match=f"radius is {radius}, where rounding.*or more") as caught:
            perturbation_stability(net, WIDE, method="finite_difference", radius=radius)
    enough = float(str(caught.value).split("take ")[1].split()[0])
    found = perturbation_stability(net, WIDE, method="finite_difference", radius=enough, draws=20, generator=seeded())
    assert found.mean == pytest.approx(central(mlp(64, 4, d_in=64), WIDE, enough), rel=0.1)
    for method in ("exact", "jvp"):
        assert perturbation_stability(net, WIDE, method=method, draws=20).mean == pytest.approx(exact, rel=0.1)


def test_a_radius_below_float32_is_refused_and_one_that_would_do_is_named():
    net, x = FCN(width=64, depth=3, d_in=784, d_out=10, generator=seeded(1)), torch.rand(20, 784, generator=seeded(2))
    for radius in (1e-12, 1e-7):
        with pytest.raises(ValueError, match=f"radius is {radius}, where rounding.*or more") as caught:
            perturbation_stability(net, x, method="finite_difference", radius=radius)
    enough = float(str(caught.value).split("take ")[1].split()[0])
    assert enough < 1e-2
    found = perturbation_stability(net, x, method="finite_difference", radius=enough, draws=20, generator=seeded())
    assert found.mean == pytest.approx(perturbation_stability(net, x).mean, rel=0.05)
    small = perturbation_stability(net.double(), x.double(), method="finite_difference", radius=1e-7, draws=20)
    assert small.mean == pytest.approx(perturbation_stability(net, x.double()).mean, rel=0.05)


# ------------------------------------------------------------------------------------------------ ordinary models


class Last(nn.Module):
    def __init__(self, recurrent):
        super().__init__()
        self.recurrent, self.head = recurrent(8, 32, 2, batch_first=True), nn.Linear(32, 5)

    def forward(self, x):
        return self.head(self.recurrent(x)[0][:, -1])


def encoder(**options):
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, **options)
    return nn.Sequential(nn.Linear(8, 32), nn.TransformerEncoder(layer, 3), nn.Flatten(), nn.Linear(384, 5))


def convolutional(pool):
    first = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), pool(2), nn.Conv2d(16, 16, 3), nn.GELU(), pool(2)]
    return nn.Sequential(*first, nn.Flatten(), nn.LazyLinear(5))


ORDINARY = {
    "mlp of 1024": (lambda: mlp(1024, 4), lambda: X),
    "ten layers": (lambda: mlp(128, 10), lambda: X),
    "sixty layers": (lambda: mlp(64, 60), lambda: X),
    "tanh": (lambda: mlp(64, 5, activation=nn.Tanh), lambda: X),
    "gelu": (lambda: mlp(64, 5, activation=nn.GELU), lambda: X),
    "hardswish": (lambda: mlp(64, 5, activation=nn.Hardswish), lambda: X),
    "lstm": (lambda: Last(nn.LSTM), lambda: normal(6, 12, 8)),
    "gru": (lambda: Last(nn.GRU), lambda: normal(6, 12, 8)),
    "encoder": (encoder, lambda: normal(6, 12, 8)),
    "encoder, norm first": (lambda: encoder(norm_first=True, activation="gelu"), lambda: normal(6, 12, 8)),
    "max-pooling": (lambda: convolutional(nn.MaxPool2d), lambda: torch.rand(5, 3, 20, 20, generator=seeded())),
    "average pooling": (lambda: convolutional(nn.AvgPool2d), lambda: torch.rand(5, 3, 20, 20, generator=seeded())),
}


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_models_are_never_refused(name, poisoned_seeds):
    make, points = ORDINARY[name]
    for seed, dtype in itertools.product(range(3), (torch.float32, torch.float64, torch.bfloat16, torch.float16)):
        poisoned_seeds(seed)
        model, x = make(), points()
        model(x)
        model = model.to(dtype).eval()
        for scaled in (x, 10 * x, x / x.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1)), x[:1]):
            with stability.undisturbed(model, scaled):
                stability.check_model(model, scaled.to(dtype))
                stability.check_derivative(model, scaled.to(dtype))


@METHODS
def test_a_network_that_does_not_change_has_stability_zero(method):
    """Finite differences were refused, with a radius that reached where a unit comes alive."""
    net = mlp()
    net[0].bias.data -= 1e3
    for model in (net, lambda z: 0 * z[:, :3] + 1):
        assert perturbation_stability(model, X, method=method, radius=0.1) == (0, 0, 40)


@pytest.mark.parametrize("x", [X, torch.rand(9, 20, generator=seeded()).round(decimals=1)], ids=["normal", "ties"])
def test_a_gradient_that_turns_with_each_step_is_a_derivative(x):
    """Sorted entries: a branch seemed to be without derivative."""
    body, x = mlp(d_in=780), torch.cat([x] * 39, 1) + 1e-3 * torch.linspace(0, 1, 780).sin()
    rows = torch.stack([torch.func.jacrev(lambda z: body(z.sort(1).values))(z[None])[0, :, 0] for z in x]).detach()
    expected = expected_norm(rows.double()).mean().item()
    assert perturbation_stability(lambda z: body(z.sort(1).values), x).mean == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("scheme", [{"init": "ntk"}, {"init": "power", "power": 2}, {"init": "gain", "gain": 2}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_networks_whose_logits_are_tiny_or_huge_are_never_refused(scheme, dtype):
    for width, depth in ((16, 2), (128, 10), (512, 5)):
        net = FCN(width=width, depth=depth, d_in=64, d_out=10, generator=seeded(), **scheme).to(dtype)
        for x in (WIDE, 4 * WIDE - 2, unit(WIDE), torch.cat([0 * WIDE[:1], WIDE])):
            with stability.undisturbed(net, x):
                stability.check_model(net, x.to(dtype))
                stability.check_derivative(net, x.to(dtype))


# ----------------------------------------------------------------------------------------------- torch's global state


@METHODS
def test_torchs_global_state_changes_no_number_and_is_put_back(method):
    net, convolutions = mlp(), torch.backends.cudnn.conv.fp32_precision
    options = {"method": method, "radius": 0.1}
    expected = perturbation_stability(net, X, generator=seeded(), **options)

    def again():
        return perturbation_stability(net, X, generator=seeded(), **options)

    with torch.inference_mode():
        assert again() == expected
        assert torch.is_inference_mode_enabled()
        assert perturbation_stability(net, X.clone(), generator=seeded(), **options) == expected
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert again() == expected and torch.is_autocast_enabled("cpu")
    try:
        torch.set_grad_enabled(False)
        assert again() == expected and not torch.is_grad_enabled()
        torch.set_grad_enabled(True)
        torch.set_default_dtype(torch.float64)
        assert again() == expected and torch.get_default_dtype() == torch.float64
        torch.set_default_dtype(torch.float32)
        torch.set_default_device("meta")
        assert again() == expected and torch.get_default_device().type == "meta"
        torch.set_default_device(None)
        torch.use_deterministic_algorithms(True)
        assert again() == expected and torch.are_deterministic_algorithms_enabled()
        torch.set_float32_matmul_precision("medium")
        torch.backends.cudnn.conv.fp32_precision = "tf32"
        assert again() == expected and torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.cudnn.conv.fp32_precision == "tf32"
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.conv.fp32_precision = convolutions
        torch.set_grad_enabled(True)
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
        torch.use_deterministic_algorithms(False)


# ------------------------------------------------------------------------------------------------ several passes


class Once(torch.autograd.Function):
    """x^2, which frees what it saved after one backward pass."""

    @staticmethod
    def forward(context, x):
        context.kept = [x.clone()]
        return x**2

    @staticmethod
    def backward(context, grad):
        return 2 * context.kept.pop() * grad


class Checkpointed(nn.Module):
    def __init__(self, body, reentrant):
        super().__init__()
        self.body, self.reentrant = body, reentrant

    def forward(self, x):
        return checkpoint(self.body, x, use_reentrant=self.reentrant)


@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_a_graph_that_one_backward_pass_uses_up_is_made_again_for_each_logit(chunk):
    body = mlp()
    expected = perturbation_stability(body, X, chunk=chunk)
    for parameter in body.parameters():
        parameter.grad = torch.ones_like(parameter)
    for reentrant in (True, False):
        found = perturbation_stability(Checkpointed(body, reentrant), X, chunk=chunk)
        assert found.mean == pytest.approx(expected.mean, rel=1e-6)
    assert all((parameter.grad == 1).all() for parameter in body.parameters())
    squares = perturbation_stability(lambda z: body(z**2), X, chunk=chunk)
    assert perturbation_stability(lambda z: body(Once.apply(z)), X, chunk=chunk).mean == pytest.approx(
        squares.mean, rel=1e-6
    )


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_model_has_the_same_value():
    body = mlp(8, 2)
    expected = perturbation_stability(body, X)
    try:
        compiled = torch.compile(body)
        compiled(X)
    except Exception as error:  # no compiler on this machine
        pytest.skip(str(error)[:80])
    assert perturbation_stability(compiled, X).mean == pytest.approx(expected.mean, rel=1e-5)


@METHODS
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_frozen_torchscript_has_no_training_mode(method):
    body = nn.Sequential(nn.Linear(20, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).eval()
    options = {"method": method, "radius": 0.1, "generator": seeded()}
    expected = perturbation_stability(body, X, **options)
    for script in (torch.jit.script(body), torch.jit.freeze(torch.jit.script(body))):
        assert perturbation_stability(script, X, **(options | {"generator": seeded()})).mean == pytest.approx(
            expected.mean, rel=1e-5
        )


def test_on_a_device_without_float64_sums_are_on_the_cpu():
    """No such device here: a stand-in for its tensors, which cannot be made float64 where they are."""
    there = types.SimpleNamespace(device=types.SimpleNamespace(type="mps"), cpu=lambda: X)
    assert torch.equal(stability._double(there), X.double())


def test_memory_is_said_before_it_is_taken():
    images = torch.rand(2, 3, 224, 224)
    head = nn.Linear(27, 21_843).eval()

    def model(x):
        return head(functional.adaptive_avg_pool2d(x, 3).flatten(1))

    with pytest.raises(ValueError, match="Jacobian of one point takes 13.2 GB: method 'jvp'"):
        perturbation_stability(model, images)
    assert perturbation_stability(model, images, method="jvp").mean > 0


def test_recurrent_layers_leave_cudnn_which_has_no_derivative_in_evaluation_mode():
    """Seen from inside the model, as there is no such device here."""
    seen, net = [], Last(nn.LSTM).eval()

    def model(x):
        seen.append(torch.backends.cudnn.enabled)
        return net(x)

    before = torch.backends.cudnn.enabled
    assert perturbation_stability(model, normal(3, 5, 8)).mean > 0
    assert not any(seen) and torch.backends.cudnn.enabled == before
    seen.clear()
    perturbation_stability(lambda z: seen.append(torch.backends.cudnn.enabled) or z, X)
    assert all(seen) == before


# ------------------------------------------------------------------------------------------------ sentences


def test_a_complex_jacobian_is_refused():
    matrix = torch.randn(3, 4, generator=seeded(), dtype=torch.complex64)
    with pytest.raises(ValueError, match="jacobian is torch.complex64, .*not a real"):
        expected_norm(matrix)


class Output:
    def __init__(self, logits):
        self.logits = logits


class Classifier:
    """As an estimator of scikit-learn."""

    def predict(self, x):
        return x


CONV = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 5)).eval()


@METHODS
@pytest.mark.parametrize(
    ("model", "x", "said"),
    [
        (mlp(), X.numpy(), "x holds ndarray, but must be a floating-point tensor"),
        (mlp(), X.tolist(), "x holds float, but must be a floating-point tensor"),
        (Classifier(), X, "model .* fails on x .*Classifier.* not callable"),
        (lambda x: x.numpy(), X, "model returned ndarray"),
        (lambda x: Output(x), X, r"model returned Output.*pass lambda z: model\(z\)\.logits"),
        (mlp(), torch.ones(3, 20, dtype=torch.int64), "x is torch.int64.*embeddings for token ids"),
        (mlp(), torch.ones(3, 20, dtype=torch.uint8), "x is torch.uint8.*uint8 images / 255"),
        (mlp(), X.double(), r"model \(torch.float32 on cpu\).*torch.float64"),
        (CONV, torch.rand(3, 4, 4), r"fails on x \(torch.float32 .*one image alone is x\[None\]"),
        (mlp(), torch.rand(4, 30), r"fails on x .*shape \(8, 30\)"),
    ],
    ids=["array", "list", "estimator", "returns array", "logits", "tokens", "uint8", "float64", "image", "entries"],
)
def test_sentences_take_the_place_of_torchs_own_errors(model, x, said, method):
    with pytest.raises(ValueError, match=said):
        perturbation_stability(model, x, method=method)


# ------------------------------------------------------------------------------------------------ the estimate


def test_an_estimate_holds_the_value_at_each_point():
    net = mlp()
    estimate = perturbation_stability(net, X)
    assert estimate.values.dtype == torch.float64 and estimate.values.shape == (40,)
    assert estimate.values.mean().item() == estimate.mean
    one = perturbation_stability(net, X[7:8])
    assert one.values.item() == pytest.approx(estimate.values[7].item(), rel=1e-6)
    mean, sem, n = estimate
    assert (mean, sem, n) == (estimate.mean, estimate.sem, 40) == estimate and estimate.method == "exact"
    relative = perturbation_stability(net, X, relative=True)
    assert relative.values.mean().item() == pytest.approx(relative.mean, rel=1e-12)
    assert copy.copy(estimate).values is estimate.values and len(estimate) == 3


def test_an_estimate_says_what_it_is_in_a_line():
    assert repr(Estimate(0.134512345, 0.0021234, 100)) == (
        "Estimate(mean 0.134512, standard error 0.0021, n = 100, method unknown)"
    )
    one = repr(perturbation_stability(mlp(), X[:1]))
    assert "no standard error (n = 1)" in one and one.endswith("method exact)") and "nan" not in one
    assert Estimate(1.0, 0.1, 3) == (1.0, 0.1, 3) and Estimate(1.0, 0.1, 3).values is None


# ------------------------------------------------------------------------------------------------ the file alone

ALONE = """
import sys, torch, stability
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).eval()
x = torch.rand(6, 4)
for method in ("exact", "jvp", "finite_difference"):
    print(stability.perturbation_stability(model, [(x, None)], method=method, radius=0.1))
assert not {"robustkit", "pandas", "jaxtyping"} & sys.modules.keys()
"""


def test_the_file_works_where_it_is_copied_without_the_package(tmp_path):
    shutil.copy(stability.__file__, tmp_path)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", ALONE], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.count("n = 6") == 3


def test_the_file_is_short_and_needs_torch_alone():
    lines = Path(stability.__file__).read_text().splitlines()
    found = {line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))}
    assert len(lines) < 350 and found - sys.stdlib_module_names == {"torch"}
