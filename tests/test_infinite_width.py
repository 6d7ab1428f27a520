"""The limit of infinite width against wide networks, finite differences, and cases done by hand."""

import math

import numpy
import pandas
import pytest
import torch
from made_rows import a_run
from scipy import special
from scripts import loaded

import robustkit as rk
from robustkit import theory
from robustkit.checks import InputError
from robustkit.files import INFINITE_WIDTH, ROOT
from robustkit.infinite_width import kernels, limit_stability, mean_norm
from robustkit.stability import sample_ball

INITS = ["he", "lecun", "ntk"]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def unit_points(n, d, seed):
    return torch.nn.functional.normalize(torch.randn(n, d, generator=seeded(seed), dtype=torch.float64))


def flow(x, y, rate, time):
    """a(x) = Theta(x, X) Theta(X, X)^-1 (1 - exp(-Theta(X, X) t / n)), from the kernel as a function."""
    gram = rate(x, x)
    decay = torch.linalg.matrix_exp(-gram * time / len(x))
    weights = torch.linalg.solve(gram, torch.eye(len(x), dtype=torch.float64) - decay)
    return (lambda points: rate(points, x) @ weights), decay


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("depth", [2, 4])
def test_kernels_are_the_means_over_wide_networks(init, depth):
    shape, nets = {"depth": depth, "d_out": 5, "init": init, "width": 4096}, 6
    x = torch.randn(3, 20, generator=seeded(1)) * torch.tensor([[1.0], [0.5], [3.0]])
    tangents, starts = [], []
    for seed in range(nets):
        net = rk.FCN(**shape, d_in=20, generator=seeded(seed))
        hidden, before = [x], []
        for weight in net.weights:
            before.append(hidden[-1] @ weight.T)
            hidden.append(torch.relu(before[-1]))
        grads = torch.autograd.grad(before[-1][:, 0].sum(), before)  # that in W_l is an outer product with hidden[l]
        tangents.append(sum((g @ g.T) * (h @ h.T) for g, h in zip(grads, hidden, strict=False)))
        starts.append(hidden[-2] @ hidden[-2].T * rk.layer_stds(**shape, d_in=20)[-1] ** 2)
    for found, exact in zip(map(torch.stack, (tangents, starts)), kernels(x, x, **shape), strict=True):
        error = found.std(0) / math.sqrt(nets)
        assert (error < 0.05 * exact.diag().outer(exact.diag()).sqrt()).all()  # small enough to tell
        assert ((found.mean(0) - exact).abs() < 4 * error).all()


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("depth", [2, 3, 6])
def test_the_limit_keeps_the_parts_that_grow(init, depth):
    x, scheme = unit_points(4, 9, seed=0), {"init": init, "depth": depth, "d_out": 3}
    wide, limit = kernels(x, x, **scheme, width=10**9), kernels(x, x, **scheme)
    assert torch.allclose(wide[0] / 10**9, limit[0], rtol=1e-6, atol=0)
    assert torch.allclose(wide[1], limit[1], rtol=1e-9, atol=0)
    assert not torch.allclose(kernels(x, x, **scheme, width=100)[0] / 100, limit[0], rtol=1e-3)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("depth", [2, 5])
def test_at_the_start_it_is_the_exact_mean_over_networks(init, depth):
    x, test = unit_points(10, 30, seed=0), 7 * unit_points(400, 30, seed=1)  # at any input of any norm
    y = torch.ones(10, 4)
    found = limit_stability(x, y, test, init=init, depth=depth, loss=None, generator=seeded(0))
    exact = theory.stability_at_init(init, width=10**5, depth=depth, d_in=30, d_out=4)
    assert found.mean == pytest.approx(exact, abs=4 * found.sem) and found.sem < 0.01 * exact
    assert found.mean_part == 0 and found.random_part == pytest.approx(found.mean)


@pytest.mark.parametrize("width", [None, 50])
@pytest.mark.parametrize("init", INITS)
def test_the_derivative_of_the_trained_network_is_its_difference_quotient(init, width):
    x, y, test = unit_points(12, 6, seed=0), torch.randn(12, 2, generator=seeded(1)), unit_points(1, 6, seed=2)
    scheme = {"init": init, "depth": 3, "width": width}
    found = limit_stability(x, y, test, loss=0.3, draws=1, generator=seeded(3), **scheme)
    tangent, start = (lambda a, b, i=i: kernels(a, b, d_out=2, **scheme)[i] for i in (0, 1))
    a, decay = flow(x, y, tangent, found.time)
    loss = (decay @ y.double()).square().sum() + 2 * torch.trace(decay @ start(x, x) @ decay)
    assert loss / (2 * len(x)) == pytest.approx(0.3, rel=1e-6)
    step, u = 1e-5, sample_ball(1, 6, generator=seeded(3)).double()
    both = torch.cat([test + step * u, test - step * u])
    slope = (a(both)[0] - a(both)[1]) / (2 * step)
    assert found.mean_part == pytest.approx((slope @ y.double()).norm().item(), rel=1e-6)
    # The variance of one combination of the Gaussian f_0 at these two points and at X.
    points, weights = torch.cat([both, x]), torch.cat([torch.tensor([0.5, -0.5]).double() / step, -slope])
    deviation = (weights @ start(points, points) @ weights).sqrt().item()
    assert found.random_part == pytest.approx(deviation * math.sqrt(math.pi / 2), rel=1e-3)  # E chi_2


def test_one_training_point_by_hand():
    d, x, y = 6, 2 * unit_points(1, 6, seed=0), torch.tensor([[3.0, 4.0]])
    test = 5 * unit_points(1, d, seed=1)
    found = limit_stability(x, y, test, init="he", depth=2, loss=1.0, draws=1, generator=seeded(2))
    rate, start = 4 / d, 4 * 2 / d  # at X: |X|^2/d, and beta_2^2 m/d |X|^2
    assert found.time == pytest.approx(math.log((25 + 2 * start) / 2) / (2 * rate))
    angle = torch.arccos((x * test).sum() / 10)
    gradient = (2 * torch.sin(angle) * test / 5 + (math.pi - angle) * x) / (math.pi * d)  # of Theta(., X)
    moved = (gradient @ sample_ball(1, d, generator=seeded(2)).double().T).abs().item()
    assert found.mean_part == pytest.approx(moved / rate * (1 - math.exp(-rate * found.time)) * 5)


@pytest.mark.parametrize("init", INITS)
def test_wide_trained_networks_are_close_to_their_limit(init):
    """Gradient descent on real networks, at a rate in 1/m, to the same training loss."""
    x, y, test = unit_points(20, 5, seed=0), torch.randn(20, 2, generator=seeded(1)).double(), unit_points(50, 5, 2)
    scheme, width = {"init": init, "depth": 2}, 4096
    limit = limit_stability(x, y, test, loss=0.2, draws=200, generator=seeded(3), **scheme)
    start = limit_stability(x, y, test, loss=None, draws=1, **scheme)
    steps, found = 100, []
    for seed in range(10):
        net = rk.FCN(width=width, d_in=5, d_out=2, **scheme, generator=seeded(seed)).double()
        optimizer = torch.optim.SGD(net.parameters(), lr=limit.time / steps / width)
        while (loss := (net(x) - y).square().sum(1).mean() / 2) > 0.2:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found.append(rk.perturbation_stability(net, test).mean)
    mean, error = torch.tensor(found).mean().item(), torch.tensor(found).std().item() / math.sqrt(len(found))
    assert mean == pytest.approx(limit.mean, abs=4 * error + 0.01 * limit.mean)
    assert abs(mean - start.mean) > 8 * error + 0.02 * mean  # training has a say


@pytest.mark.parametrize("k", [1, 2, 10, 100])
def test_mean_norm_is_the_noncentral_chi_mean(k):
    ratio = torch.logspace(-8, 8, 33, dtype=torch.float64)
    spread = torch.full_like(ratio, 0.3)
    central = math.sqrt(2) * math.exp(math.lgamma((k + 1) / 2) - math.lgamma(k / 2))
    exact = 0.3 * central * special.hyp1f1(-0.5, k / 2, -(ratio.numpy() ** 2) / 2)
    assert mean_norm(0.3 * ratio, spread, k).numpy() == pytest.approx(exact, rel=1e-10)
    assert mean_norm(ratio, 0 * ratio, k).numpy() == pytest.approx(ratio.numpy(), rel=1e-10)
    assert mean_norm(0 * ratio, 0 * ratio, k).max() == 0


def test_bad_input_is_refused():
    x, y, test = unit_points(6, 4, seed=0), torch.eye(6)[:, :2], unit_points(3, 4, seed=1)
    good = {"init": "he", "depth": 2, "loss": 0.1}
    limit_stability(x, y, test, **good)
    for change, words in (
        ({"init": "power"}, "init is 'power'"),
        ({"depth": 1}, "depth is 1"),
        ({"width": 0}, "width is 0"),
        ({"draws": 0}, "draws is 0"),
        ({"loss": -1.0}, "loss is -1.0, but must be a finite number and above 0"),
        ({"loss": 5.0}, "loss is 5.0, but must be below that at initialisation, "),
    ):
        with pytest.raises(InputError, match=words):
            limit_stability(x, y, test, **good | change)
    with pytest.raises(InputError, match="x_test holds a point of x_train"):
        limit_stability(x, y, torch.cat([test, x[:1]]), **good)
    with pytest.raises(InputError, match="zero or not finite"):
        limit_stability(x, y, 0 * test, **good)


@pytest.fixture(scope="module")
def command():
    return loaded(ROOT / "benchmarks" / "infinite_width.py")


def test_the_table_holds_what_its_command_computes(command):
    assert INFINITE_WIDTH.read_text(encoding="utf-8").startswith("# python benchmarks/infinite_width.py\n")
    table = pandas.read_csv(INFINITE_WIDTH, comment="#")
    table = table.astype(object).where(table.notna(), None)
    jobs = list(table[command.JOB].itertuples(index=False, name=None))
    assert set(jobs) == set(command.JOBS) and len(jobs) == len(command.JOBS)
    job = ("digits", "lecun", 2, 1000, 64)
    (kept,) = [line for line in table.to_dict("records") if tuple(line[name] for name in command.JOB) == job]
    found = {name: value for name, value in command.line(*job).items() if name not in command.JOB}
    assert set(found) == set(table.columns) - set(command.JOB)
    assert {name: kept[name] for name in found} == pytest.approx(found, rel=1e-5)


def test_the_power_of_the_approach_is_found_in_rows_made_from_it(command, monkeypatch):
    limits = pandas.DataFrame([{"dataset": "digits", "init": "he", "depth": 4, "n_train": 1000, "mean": 0.6}])
    study = {"dataset": "digits", "n_train": 1000, "stop_loss": 0.2, "stop_every": 1, "loss": "squared"}
    draws = numpy.random.default_rng(0)
    rows = [
        a_run(draws, m, 4, seed, "he", 0.6 * (1 + 20 * m**-0.75), **study)
        for m in (64, 256, 1024, 4096)
        for seed in range(5)
    ]
    rows += [a_run(draws, 16, 4, 0, "he", 0.1, **study)]  # below d_in nothing is fitted
    rows += [a_run(draws, 64, 4, 5, "he", 9.0, **study | {"stop_every": 20})]  # of another study
    monkeypatch.setattr(rk, "load", lambda: pandas.DataFrame(rows))
    (found,) = command.approach(limits.assign(width=None)).to_dict("records")
    assert found["low"] < 0.75 < found["high"] < found["low"] + 0.4 and found["n"] == 20
    assert found["P over it at m"].startswith("16: 0.1") and "64: 1.8" in found["P over it at m"]
