"""Several models on the same points, paired and drawn; data loaders; and the bar of a long call."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import robustkit as rk
from robustkit import plots, progress
from robustkit.comparison import _ratio

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning"),
    pytest.mark.usefixtures("one_thread"),
]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network(seed, width=32):
    return rk.FCN(width=width, depth=3, d_in=12, d_out=4, generator=seeded(seed))


X, Y = torch.rand(50, 12, generator=seeded(1)), torch.randint(4, (50,), generator=seeded(2))


@pytest.mark.parametrize("method", ["exact", "jvp", "finite_difference"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_models_are_paired_on_points_and_directions(method, shuffle):
    """So twice the logits are exactly twice as much, whatever the order of a loader and the directions."""
    net = network(3)
    points = DataLoader(TensorDataset(X, Y), batch_size=20, shuffle=True) if shuffle else X
    options = {"method": method, "radius": 0.01, "generator": seeded(5)}
    frame = rk.compare({"one": net, "two": lambda z: 2 * net(z)}, points, **options)
    assert frame["model"].tolist() == ["one", "two"] and frame["n"].tolist() == [50, 50]
    assert frame[["ratio", "ratio_low", "ratio_high"]].to_numpy() == pytest.approx(np.array([[1] * 3, [2] * 3]))
    assert frame["stability"][1] == pytest.approx(2 * frame["stability"][0])
    assert frame["relative_stability"][1] == pytest.approx(frame["relative_stability"][0])
    assert ("accuracy" in frame) == shuffle


def test_a_row_holds_what_the_metric_and_the_logits_say():
    nets = {"a": network(3), "b": network(4)}
    frame = rk.compare(nets, X, Y)
    pairs = rk.compare(nets, [(X[:30], Y[:30]), (X[30:], Y[30:])])
    for row, other, net in zip(frame.itertuples(), pairs.itertuples(), nets.values(), strict=True):
        estimate = rk.perturbation_stability(net, X)
        assert (row.stability, row.stability_sem, row.n) == pytest.approx(tuple(estimate))
        assert row.relative_stability == pytest.approx(rk.perturbation_stability(net, X, relative=True).mean)
        assert row.loss == pytest.approx(torch.nn.functional.cross_entropy(net(X), Y).item(), rel=1e-6)
        assert row.accuracy == (net(X).argmax(1) == Y).double().mean()
        assert row[1] == other[1] and row[2:] == pytest.approx(other[2:], rel=1e-6)


def test_the_interval_holds_the_ratio_nineteen_times_in_twenty():
    """Values of two models that share most of what makes a point hard; an unpaired interval would be far wider."""
    random, covered, widths = np.random.default_rng(0), [], []
    for _ in range(2_000):
        hard = random.gamma(4, size=60)
        first, second = (hard * random.lognormal(0, 0.1, 60) for _ in range(2))
        _, low, high = _ratio(torch.tensor(1.5 * second), torch.tensor(first))
        covered.append(low < 1.5 < high)
        widths.append(high / low)
    assert 0.93 < np.mean(covered) < 0.965
    assert np.mean(widths) < 1.09  # of independent points 1.96 * sqrt(2 / 60 / 4) either way: 1.43


def test_without_spread_there_is_no_interval():
    one = rk.compare({"a": network(3), "b": network(4)}, X[:1])
    assert one["ratio"][1] > 0 and one[["ratio_low", "ratio_high", "stability_sem"]].isna().to_numpy().all()
    flat = rk.compare({"flat": lambda z: 0 * z[:, :3], "a": network(3)}, X)
    assert flat["stability"][0] == 0 and flat[["ratio", "ratio_low", "relative_stability"]].isna().any().all()


@pytest.mark.parametrize(
    ("models", "x", "y", "said"),
    [
        ({}, X, None, "models is dict, but must be a dictionary of one or more"),
        ([network(3)], X, None, "models is list, but must be a dictionary of one or more"),
        ({"a": network(3)}, X, Y[:7], r"labels are torch.int64 of shape \(7,\)"),
        ({"a": network(3)}, X, Y + 1, "from 1 to 4, but must be integers .* from 0 to 3, for a"),
        ({"a": network(3)}, X, Y.float(), "labels are torch.float32"),
        ({"a": network(3)}, [], None, "a: x holds no points"),
        (
            {"a": network(3), "b": lambda z: z - z.mean(0)},
            X,
            None,
            "b: a point's logits change with the points beside",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(models, x, y, said):
    with pytest.raises(ValueError, match=said):
        rk.compare(models, x, y)


def test_the_picture_shows_each_ratio_and_keeps_its_numbers():
    frame = rk.compare({"a": network(3), "b": network(4), "c": network(5)}, X)
    figure, (ax,) = plots.panels(1)
    plots.comparison(frame, ax)
    (container,) = ax.containers
    assert container.lines[0].get_xdata().tolist() == frame["ratio"].tolist()
    assert [label.get_text().split("\n")[0] for label in ax.get_yticklabels()] == ["a", "b", "c"]
    assert ax.robustkit_tables[0]["ratio_low"].tolist() == frame["ratio_low"].tolist()


# ------------------------------------------------------------------------------------------------ loaders and bars


@pytest.mark.parametrize("method", ["exact", "jvp", "finite_difference"])
def test_batches_loaders_and_a_tensor_have_the_same_values(method):
    net, options = network(3), {"method": method, "radius": 0.1, "relative": True}
    whole = rk.perturbation_stability(net, X, generator=seeded(7), **options)
    labelled = DataLoader(TensorDataset(X, Y), batch_size=50)
    for x in ([X], (X, Y)[:1], labelled, iter(labelled), ((points, None) for points in [X])):
        assert rk.perturbation_stability(net, x, generator=seeded(7), **options).values.equal(whole.values)
    if method == "exact":
        for x in (X.split(7), DataLoader(TensorDataset(X, Y), batch_size=8), list(X[:, None])):
            several = rk.perturbation_stability(net, x, **options)
            assert several.values.tolist() == pytest.approx(whole.values.tolist(), rel=1e-6) and several.n == 50


def test_points_are_taken_to_the_device_a_few_at_a_time():
    seen = []

    def model(x):
        seen.append((x.device.type, len(x)))
        return x.flatten(1)[:, :2] ** 2

    images = torch.rand(9, 3, 224, 224)
    assert rk.perturbation_stability(model, images, device="cpu").n == 9
    assert max(size for _, size in seen) == 4


def test_the_bar_of_a_long_call_tells_how_many_points_are_done(capsys, monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 0)
    rk.perturbation_stability(network(3), X)
    assert "perturbation stability" in (bar := capsys.readouterr().err) and "/50" in bar
    rk.compare({"mine": network(3)}, [X])
    assert "mine" in capsys.readouterr().err
    monkeypatch.undo()
    rk.perturbation_stability(network(3), X)
    assert capsys.readouterr().err == ""


def test_no_bar_under_tqdm_disable():
    code = "import torch, robustkit as rk; from robustkit import progress; progress.DELAY = 0\n"
    code += "rk.perturbation_stability(torch.nn.Linear(3, 2), torch.rand(4, 3))"
    for off in ("", "1"):
        env = os.environ | {"TQDM_DISABLE": off}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert ("perturbation stability" in done.stderr) == (not off)


def test_the_names_are_those_of_the_package():
    assert rk.perturbation_stability.__doc__ == rk.stability.perturbation_stability.__doc__
    assert callable(rk.compare) and {"compare", "perturbation_stability"} <= set(dir(rk))
    assert math.isnan(rk.perturbation_stability(network(3), X[:1]).sem)
